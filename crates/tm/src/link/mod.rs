//! The link `keeper.worker`: fixed-layout packets over a socket pair, versioned from the first.
//!
//! ```text
//! keeper                                     worker
//!   Hello (slot file, lane sockets)  ───────►
//!          ◄───────  Hello (build, layouts, descriptor limit)
//!   Config (the file's bytes)        ───────►  validates
//!          ◄───────  FilesPlease, if it names files
//!   Files (their bytes)              ───────►  makes TLS of them
//!          ◄───────  Accept (addresses) or Refuse (text)
//!   Listen (one address's sockets) × n ─────►
//!   Apply                            ───────►  swaps the snapshot
//!          ◄───────  Applied
//! ```
//!
//! The same four steps make a reload. Beside the link, each event loop has a *lane*: a socket pair
//! of its own on which it registers and releases descriptors, so that event loops share nothing
//! ([`lane`]).

use core::net::SocketAddr;

use crate::wire::{Malformed, Reader, Writer};

pub(crate) mod journal;
pub(crate) mod lane;

/// Version of the packets of link and lanes; both sides take the highest that both know.
pub(crate) const VERSION: u16 = 2;
/// The oldest that is spoken. 1 has neither files nor a vault.
pub(crate) const VERSION_OLDEST: u16 = 1;
/// Layout of the connection records of a takeover.
pub(crate) const SNAPSHOT_LAYOUT: u16 = 3;
/// The oldest that is read. 1 has no HTTP/2, 2 no TLS.
pub(crate) const SNAPSHOT_LAYOUT_OLDEST: u16 = 1;
/// Layout of the state that a keeper leaves to its next program.
pub(crate) const KEEPER_STATE_LAYOUT: u16 = 2;

/// Why a worker is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Role {
    /// Nothing was before it.
    First = 0,
    /// The worker before it died: the keeper has the connections.
    AfterCrash = 1,
    /// The worker before it lives and hands its connections over.
    Successor = 2,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeeperHello {
    /// The highest that the keeper knows; for the worker, that both know.
    pub(crate) version: u16,
    pub(crate) role: Role,
    pub(crate) incarnation: u32,
    /// Of the worker that it follows, 0 for none.
    pub(crate) predecessor: u32,
    pub(crate) lanes: u32,
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// For messages about the configuration.
    pub(crate) file_name: String,
    /// Nothing is accepted until the keeper resumes.
    pub(crate) is_paused: bool,
    /// The worker before it ended by its own doing: what it worked on is to blame.
    pub(crate) blames: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WorkerHello {
    pub(crate) version: u16,
    /// Layouts of connection records: the one it writes, and the oldest and newest it reads.
    pub(crate) writes: u16,
    pub(crate) reads: (u16, u16),
    /// Layouts of keeper states that a keeper of this program reads.
    pub(crate) keeper_states: (u16, u16),
    pub(crate) descriptors_max: u64,
    pub(crate) build: String,
}

/// What the keeper knows and the worker tells in a status document.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct KeeperFacts {
    pub(crate) build: String,
    pub(crate) pid: u32,
    pub(crate) worker_pid: u32,
    pub(crate) run_folder: String,
    pub(crate) age_ms: u64,
    pub(crate) worker_age_ms: u64,
    pub(crate) descriptors: u64,
    pub(crate) descriptors_max: u64,
    pub(crate) restarts: u64,
    pub(crate) upgrades: u64,
    pub(crate) reloads: u64,
    pub(crate) last_refusal: String,
    pub(crate) config: ConfigState,
    pub(crate) is_stopping: bool,
    /// How long connections may still go on in a stop. `None`: it does not stop, or an older keeper
    /// does not say.
    pub(crate) drain_left_ms: Option<u64>,
    pub(crate) journal: journal::Journal,
}

/// The site file as the keeper finds it when it is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum ConfigState {
    /// What is in force.
    #[default]
    InForce,
    /// What was refused last; why is in `last_refusal`.
    Refused,
    /// Neither.
    Changed,
    Unreadable(String),
}

/// Keeper to worker. Descriptors travel beside the packet, as each variant says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ToWorker {
    /// Descriptors: the slot file, the twin's channel, then one lane socket each.
    Hello(KeeperHello),
    /// Descriptor: a memory file with the configuration file's bytes.
    Config,
    /// Descriptors: the listening sockets of one address, one per lane.
    Listen {
        requested: SocketAddr,
        bound: SocketAddr,
    },
    /// The answer to Accept is complete. Without it, what came is dropped at the next Config.
    Apply,
    /// The addresses could not be had: nothing changes.
    Cancel,
    /// Descriptors: one takeover socket per lane, and one more for what is known of members.
    TakeFrom,
    /// Descriptors: the other ends.
    GiveTo {
        successor: u32,
    },
    /// The successor is dead and waited for: take back what it did not acknowledge.
    SuccessorGone {
        successor: u32,
    },
    /// All was handed over: exit.
    Exit,
    Pause,
    Resume,
    /// Accept nothing more and let connections finish.
    Drain {
        within_ms: u64,
    },
    Status {
        id: u32,
        facts: KeeperFacts,
    },
    Metrics {
        id: u32,
        facts: KeeperFacts,
    },
    /// The answer to FilesPlease. Descriptor: a memory file with [`Files`](crate::tls::Files).
    Files,
    /// From version 2, before the first Config. Descriptor: the vault.
    Vault,
}

/// Worker to keeper.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ToKeeper {
    /// Descriptor: the process of the worker's twin, if there is one.
    Hello(WorkerHello),
    /// The configuration is valid and needs these addresses, each once: with a socket for every
    /// lane, and with one.
    Accept {
        addresses: Vec<SocketAddr>,
        single: Vec<SocketAddr>,
    },
    Refuse {
        text: String,
    },
    Applied {
        text: String,
    },
    /// Every lane has taken or given all.
    TakeoverDone,
    /// The takeover cannot go on; the keeper ends the successor.
    TakeoverFailed {
        text: String,
    },
    /// Send what a dead worker owned.
    OrphansPlease {
        of: u32,
    },
    /// A long text is in a memory file, its descriptor: none then, here.
    Text {
        id: u32,
        text: Option<String>,
    },
    /// Every connection is over; what had to be cut, in lines.
    Drained {
        text: String,
    },
    /// Ask for metrics, for a scraper that asked this worker.
    MetricsPlease {
        id: u32,
    },
    /// A connection was cut since workers die on it. Descriptor: a memory file with what is known
    /// of it.
    Quarantined {
        text: String,
    },
    /// The configuration is valid so far, and names these files. Descriptor: a memory file with
    /// their names.
    FilesPlease,
}

impl ToWorker {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Hello(hello) => {
                // The first packet of a link has the range of versions in front, for all releases.
                w.u8(1)
                    .u16(VERSION_OLDEST)
                    .u16(hello.version)
                    .u8(hello.role as u8)
                    .u32(hello.incarnation);
                w.u32(hello.predecessor)
                    .u32(hello.lanes)
                    .u32(hello.user)
                    .u32(hello.group);
                w.text(&hello.file_name)
                    .u8(hello.is_paused.into())
                    .u8(hello.blames.into());
            }
            Self::Config => {
                w.u8(2);
            }
            Self::Listen { requested, bound } => {
                w.u8(3).address(*requested).address(*bound);
            }
            Self::Apply => {
                w.u8(4);
            }
            Self::Cancel => {
                w.u8(5);
            }
            Self::TakeFrom => {
                w.u8(6);
            }
            Self::GiveTo { successor } => {
                w.u8(7).u32(*successor);
            }
            Self::SuccessorGone { successor } => {
                w.u8(8).u32(*successor);
            }
            Self::Exit => {
                w.u8(9);
            }
            Self::Pause => {
                w.u8(10);
            }
            Self::Resume => {
                w.u8(11);
            }
            Self::Drain { within_ms } => {
                w.u8(12).u64(*within_ms);
            }
            Self::Status { id, facts } => {
                w.u8(13).u32(*id);
                facts.encode(&mut w);
            }
            Self::Metrics { id, facts } => {
                w.u8(14).u32(*id);
                facts.encode(&mut w);
            }
            Self::Files => {
                w.u8(15);
            }
            Self::Vault => {
                w.u8(16);
            }
        }
        w.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        Ok(match r.u8()? {
            1 => {
                let (oldest, newest) = (r.u16()?, r.u16()?);
                if oldest > VERSION || newest < VERSION_OLDEST {
                    return Err(Malformed);
                }
                Self::Hello(KeeperHello {
                    version: newest.min(VERSION),
                    role: match r.u8()? {
                        0 => Role::First,
                        1 => Role::AfterCrash,
                        2 => Role::Successor,
                        _ => return Err(Malformed),
                    },
                    incarnation: r.u32()?,
                    predecessor: r.u32()?,
                    lanes: r.u32()?,
                    user: r.u32()?,
                    group: r.u32()?,
                    file_name: r.text()?.to_owned(),
                    is_paused: r.flag()?,
                    blames: r.flag()?,
                })
            }
            2 => Self::Config,
            3 => Self::Listen {
                requested: r.address()?,
                bound: r.address()?,
            },
            4 => Self::Apply,
            5 => Self::Cancel,
            6 => Self::TakeFrom,
            7 => Self::GiveTo {
                successor: r.u32()?,
            },
            8 => Self::SuccessorGone {
                successor: r.u32()?,
            },
            9 => Self::Exit,
            10 => Self::Pause,
            11 => Self::Resume,
            12 => Self::Drain {
                within_ms: r.u64()?,
            },
            13 => Self::Status {
                id: r.u32()?,
                facts: KeeperFacts::decode(&mut r)?,
            },
            14 => Self::Metrics {
                id: r.u32()?,
                facts: KeeperFacts::decode(&mut r)?,
            },
            15 => Self::Files,
            16 => Self::Vault,
            _ => return Err(Malformed),
        })
    }
}

impl ToKeeper {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Hello(hello) => {
                w.u8(1)
                    .u16(hello.version)
                    .u16(hello.writes)
                    .u16(hello.reads.0)
                    .u16(hello.reads.1);
                w.u16(hello.keeper_states.0).u16(hello.keeper_states.1);
                w.u64(hello.descriptors_max).text(&hello.build);
            }
            Self::Accept { addresses, single } => {
                w.u8(2);
                for list in [addresses, single] {
                    w.u32(list.len() as u32);
                    for address in list {
                        w.address(*address);
                    }
                }
            }
            Self::Refuse { text } => {
                w.u8(3).text(cut(text));
            }
            Self::Applied { text } => {
                w.u8(4).text(cut(text));
            }
            Self::TakeoverDone => {
                w.u8(5);
            }
            Self::TakeoverFailed { text } => {
                w.u8(6).text(cut(text));
            }
            Self::OrphansPlease { of } => {
                w.u8(7).u32(*of);
            }
            Self::Text { id, text } => {
                w.u8(8).u32(*id);
                if let Some(text) = text {
                    w.text(text);
                }
            }
            Self::Drained { text } => {
                w.u8(9).text(cut(text));
            }
            Self::MetricsPlease { id } => {
                w.u8(10).u32(*id);
            }
            Self::Quarantined { text } => {
                w.u8(11).text(cut(text));
            }
            Self::FilesPlease => {
                w.u8(12);
            }
        }
        w.bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        Ok(match r.u8()? {
            1 => Self::Hello(WorkerHello {
                version: r.u16()?,
                writes: r.u16()?,
                reads: (r.u16()?, r.u16()?),
                keeper_states: (r.u16()?, r.u16()?),
                descriptors_max: r.u64()?,
                build: r.text()?.to_owned(),
            }),
            2 => {
                let mut list = || -> Result<Vec<SocketAddr>, Malformed> {
                    let count = r.u32()?;
                    (0..count).map(|_| r.address()).collect()
                };
                Self::Accept {
                    addresses: list()?,
                    single: list()?,
                }
            }
            3 => Self::Refuse {
                text: r.text()?.to_owned(),
            },
            4 => Self::Applied {
                text: r.text()?.to_owned(),
            },
            5 => Self::TakeoverDone,
            6 => Self::TakeoverFailed {
                text: r.text()?.to_owned(),
            },
            7 => Self::OrphansPlease { of: r.u32()? },
            8 => Self::Text {
                id: r.u32()?,
                text: match r.is_empty() {
                    true => None,
                    false => Some(r.text()?.to_owned()),
                },
            },
            9 => Self::Drained {
                text: r.text()?.to_owned(),
            },
            10 => Self::MetricsPlease { id: r.u32()? },
            11 => Self::Quarantined {
                text: r.text()?.to_owned(),
            },
            12 => Self::FilesPlease,
            _ => return Err(Malformed),
        })
    }
}

impl KeeperFacts {
    fn encode(&self, w: &mut Writer) {
        w.text(&self.build)
            .u32(self.pid)
            .u32(self.worker_pid)
            .text(&self.run_folder);
        w.u64(self.age_ms)
            .u64(self.worker_age_ms)
            .u64(self.descriptors);
        w.u64(self.descriptors_max)
            .u64(self.restarts)
            .u64(self.upgrades)
            .u64(self.reloads);
        w.text(cut(&self.last_refusal));
        match &self.config {
            ConfigState::InForce => w.u8(0),
            ConfigState::Refused => w.u8(1),
            ConfigState::Changed => w.u8(2),
            ConfigState::Unreadable(why) => w.u8(3).text(cut(why)),
        };
        w.u8(self.is_stopping.into());
        self.journal.encode(w);
        // Behind what a worker of an older release reads.
        w.u64(self.drain_left_ms.map_or(0, |left| left + 1));
        self.journal.encode_costs(w);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut facts = Self {
            build: r.text()?.to_owned(),
            pid: r.u32()?,
            worker_pid: r.u32()?,
            run_folder: r.text()?.to_owned(),
            age_ms: r.u64()?,
            worker_age_ms: r.u64()?,
            descriptors: r.u64()?,
            descriptors_max: r.u64()?,
            restarts: r.u64()?,
            upgrades: r.u64()?,
            reloads: r.u64()?,
            last_refusal: r.text()?.to_owned(),
            config: match r.u8()? {
                0 => ConfigState::InForce,
                1 => ConfigState::Refused,
                2 => ConfigState::Changed,
                3 => ConfigState::Unreadable(r.text()?.to_owned()),
                _ => return Err(Malformed),
            },
            is_stopping: r.flag()?,
            drain_left_ms: None,
            journal: journal::Journal::decode(r)?,
        };
        if !r.is_empty() {
            facts.drain_left_ms = r.u64()?.checked_sub(1);
        }
        facts.journal.decode_costs(r)?;
        Ok(facts)
    }
}

/// Texts in packets: all errors of a file may be more than a packet holds.
pub(crate) const TEXT_BYTES_MAX: usize = 48 * 1024;

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
