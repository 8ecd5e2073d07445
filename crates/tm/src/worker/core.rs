//! What all connections of one event loop share: registry, slots, keeper's lane, pipes, timers,
//! tables.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hitless_carry::message;
use hitless_carry::slots::{Kind, REGISTERED, SEALED, Slot, Slots};
use hitless_carry::vault::{self, Vault};
use mio::unix::SourceFd;
use mio::{Interest, Token};
use rustix::pipe::PipeFlags;

use super::stats::{Keyed, Lane};
use super::tables::{self, Tables};
use super::tls;
use super::trial::{Point, Trial};
use super::wheel::Wheel;
use crate::egress;
use crate::ledger::{Field, TAKEOVER};
use crate::link::lane::{ENTRIES_MAX, Entry, encode};

/// Bytes of a pipe; the kernel may grant less. Enough for a full socket buffer in one splice.
pub(super) const PIPE_BYTES: usize = 256 * 1024;
/// Empty pipes that are kept for the next bytes.
const IDLE_PIPES_MAX: usize = 64;
/// Rounds of work for one connection before the others have their turn.
pub(super) const ROUNDS_MAX: u32 = 16;

/// What a token stands for; its index is in the low bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Inbox,
    Keeper,
    Takeover,
    Listener(usize),
    TcpClient(usize),
    TcpMember(usize),
    HttpClient(usize),
    HttpMember(usize),
    /// A client's HTTP/2 connection.
    Front(usize),
    /// A member's.
    Trunk(usize),
    /// A client's TLS handshake.
    Greeting(usize),
}

const KIND_SHIFT: u32 = 56;

impl Source {
    pub(super) fn token(self) -> Token {
        let (kind, index) = match self {
            Self::Inbox => (0, 0),
            Self::Keeper => (0, 1),
            Self::Takeover => (0, 2),
            Self::Listener(index) => (1, index),
            Self::TcpClient(index) => (2, index),
            Self::TcpMember(index) => (3, index),
            Self::HttpClient(index) => (4, index),
            Self::HttpMember(index) => (5, index),
            Self::Front(index) => (6, index),
            Self::Trunk(index) => (7, index),
            Self::Greeting(index) => (8, index),
        };
        Token(kind << KIND_SHIFT | index)
    }

    pub(super) fn of(token: Token) -> Self {
        let index = token.0 & ((1 << KIND_SHIFT) - 1);
        match (token.0 >> KIND_SHIFT, index) {
            (0, 0) => Self::Inbox,
            (0, 1) => Self::Keeper,
            (0, _) => Self::Takeover,
            (1, index) => Self::Listener(index),
            (2, index) => Self::TcpClient(index),
            (3, index) => Self::TcpMember(index),
            (4, index) => Self::HttpClient(index),
            (5, index) => Self::HttpMember(index),
            (6, index) => Self::Front(index),
            (7, index) => Self::Trunk(index),
            (_, index) => Self::Greeting(index),
        }
    }
}

/// A pipe of the pool; the keeper has duplicates of both ends.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) number: u32,
    pub(super) reader: OwnedFd,
    pub(super) writer: OwnedFd,
    /// Bytes in it.
    pub(super) length: usize,
    /// Came from another worker: the keeper keeps it only while bytes are in it.
    pub(super) is_adopted: bool,
}

pub(super) struct Core {
    pub(super) lane: u32,
    pub(super) incarnation: u32,
    pub(super) slots: Arc<Slots>,
    pub(super) registry: mio::Registry,
    pub(super) tables: Tables,
    pub(super) wheel: Wheel,
    pub(super) now_us: u64,
    /// Tokens whose work was cut short.
    pub(super) again: Vec<Token>,
    pub(super) is_draining: bool,
    /// Connections that end now end within a takeover.
    pub(super) is_giving: bool,
    /// Slots that may be taken.
    free: Vec<u32>,
    /// Client connections.
    pub(super) open: usize,
    /// The slot of this lane on which the worker before died.
    pub(super) blamed: Option<u32>,
    pub(super) trial: Trial,
    /// Where keys outlive this process. `None`: nowhere.
    pub(super) vault: Option<Arc<Vault>>,
    /// No TLS handshake with a member begins.
    pub(super) holds_handshakes: bool,
    /// What TLS works in.
    pub(super) tls: tls::Room,
    keeper: OwnedFd,
    /// Registrations among them: what they are of may not be answered yet.
    has_unsent_registrations: bool,
    entries: Vec<Entry>,
    fds: Vec<OwnedFd>,
    pipes: Vec<Pipe>,
    /// Text of the current second for Date fields.
    pub(super) date: [u8; 29],
    pub(super) date_s: u64,
}

impl Core {
    pub(super) fn new(
        lane: u32,
        incarnation: u32,
        slots: Arc<Slots>,
        registry: mio::Registry,
        keeper: OwnedFd,
        trial: Trial,
        now_us: u64,
    ) -> Self {
        Self {
            lane,
            incarnation,
            slots,
            registry,
            tables: Tables::default(),
            wheel: Wheel::new(now_us),
            now_us,
            again: Vec::new(),
            is_draining: false,
            is_giving: false,
            free: Vec::new(),
            open: 0,
            blamed: None,
            trial,
            vault: None,
            holds_handshakes: false,
            tls: tls::Room::default(),
            keeper,
            has_unsent_registrations: false,
            entries: Vec::new(),
            fds: Vec::new(),
            pipes: Vec::new(),
            date: [b' '; 29],
            date_s: 0,
        }
    }

    pub(super) fn keeper(&self) -> BorrowedFd<'_> {
        self.keeper.as_fd()
    }

    /// Both directions, edge-triggered.
    pub(super) fn watch(&self, socket: &OwnedFd, source: Source) -> io::Result<()> {
        let raw = socket.as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry
            .register(&mut SourceFd(&raw), source.token(), interest)
    }

    pub(super) fn watch_reads(&self, socket: &OwnedFd, source: Source) -> io::Result<()> {
        let raw = socket.as_raw_fd();
        self.registry
            .register(&mut SourceFd(&raw), source.token(), Interest::READABLE)
    }

    pub(super) fn watch_keeper(&self) -> io::Result<()> {
        self.watch_reads(&self.keeper, Source::Keeper)
    }

    /// Registrations belong to the open file, of which others have duplicates: they must be removed
    /// before a close.
    pub(super) fn unwatch(&self, socket: &OwnedFd) {
        let raw = socket.as_raw_fd();
        let _ = self.registry.deregister(&mut SourceFd(&raw));
    }

    pub(super) fn slot(&self, index: u32) -> &Slot {
        self.slots.slot(self.lane, index)
    }

    /// Where the keys of a connection outlive this process. `None`: nowhere.
    pub(super) fn entry(&self, slot: u32) -> Option<&vault::Entry> {
        let vault = self.vault.as_ref()?;
        Some(vault.entry(self.lane, slot))
    }

    /// The connection in this slot speaks TLS.
    pub(super) fn seal_slot(&self, slot: u32) {
        self.slot(slot).set_flag(SEALED, true);
        if let Some(vault) = &self.vault {
            vault.keep_in_memory(self.lane, slot);
            vault.entry(self.lane, slot).wipe();
        }
    }

    /// Looks for free slots. Only while no other program takes slots of this lane.
    pub(super) fn find_free_slots(&mut self) {
        let count = self.slots.slots_per_lane();
        let is_free = |index: &u32| self.slots.slot(self.lane, *index).kind() == Some(Kind::Free);
        // The lowest come first, so that few pages of the file are ever touched.
        self.free = (0..count).rev().filter(is_free).collect();
    }

    pub(super) fn forget_free_slots(&mut self) {
        self.free = Vec::new();
    }

    /// Whether answers ask their clients to close.
    pub(super) fn tells_to_close(&self) -> bool {
        let asked = &self.slots.head().tells_to_close;
        self.is_draining || asked.load(Ordering::Relaxed) != 0
    }

    pub(super) fn has_free_slot(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a slot for a connection of a virtual server.
    pub(super) fn begin_slot(&mut self, kind: Kind, server: usize) -> Option<(u32, u32)> {
        let index = self.free.pop()?;
        let generation =
            self.slot(index)
                .begin(kind, self.incarnation, self.tables.servers[server].key);
        self.count_server(server, Keyed::Connections, 1);
        self.count(Lane::Accepted, 1);
        self.open += 1;
        Some((index, generation))
    }

    /// The connection is over.
    pub(super) fn end_slot(&mut self, index: u32) {
        let slot = self.slot(index);
        let generation = slot.generation.load(Ordering::Relaxed);
        let is_registered = slot.has_flag(REGISTERED);
        if slot.has_flag(SEALED)
            && let Some(vault) = &self.vault
        {
            vault.entry(self.lane, index).wipe();
        }
        slot.end();
        if is_registered {
            self.push(
                Entry::Release {
                    slot: index,
                    generation,
                },
                Vec::new(),
            );
        }
        self.free.push(index);
        self.open -= 1;
        if self.is_giving {
            TAKEOVER.of(self.slots.head()).add(Field::Finished, 1);
        }
    }

    /// Gives the keeper duplicates of a slot's sockets, with the next
    /// [`flush_entries`](Self::flush_entries).
    pub(super) fn register(&mut self, index: u32, sockets: &[&OwnedFd]) {
        let slot = self.slot(index);
        let generation = slot.generation.load(Ordering::Relaxed);
        let copies: io::Result<Vec<OwnedFd>> = sockets.iter().map(|fd| fd.try_clone()).collect();
        // Without room for the copies the connection lives on unprotected.
        if let Ok(copies) = copies {
            slot.set_flag(REGISTERED, true);
            self.has_unsent_registrations = true;
            let fds = copies.len() as u8;
            self.push(
                Entry::Register {
                    slot: index,
                    generation,
                    fds,
                },
                copies,
            );
        }
    }

    fn push(&mut self, entry: Entry, fds: Vec<OwnedFd>) {
        if self.entries.len() >= ENTRIES_MAX || self.fds.len() + fds.len() > message::FDS_MAX {
            self.flush_entries();
        }
        self.entries.push(entry);
        self.fds.extend(fds);
    }

    /// Sends what waits for the keeper. From then on it survives this process. Waits for room: a
    /// connection is not served before the keeper can save it.
    pub(super) fn flush_entries(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let bytes = encode(&self.entries);
        let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
        let mut sent = message::send(&self.keeper, &[&bytes], &fds, true);
        // Too many descriptors in flight: the keeper takes some within a turn of its loop.
        while sent
            .as_ref()
            .is_err_and(|error| error.raw_os_error() == Some(libc::ETOOMANYREFS))
        {
            std::thread::yield_now();
            sent = message::send(&self.keeper, &[&bytes], &fds, true);
        }
        if let Err(error) = sent {
            // Without a keeper there is nobody to serve for; its death ends this process by the
            // link, too.
            tracing::error!("keeper's lane: {error}");
            std::process::exit(1);
        }
        self.entries.clear();
        self.fds.clear();
        self.has_unsent_registrations = false;
    }

    /// Near its descriptor limit the keeper has to have what was sent before more is accepted: it
    /// may not have run for a while, and what it then has no room for is lost to it.
    pub(super) fn keeper_lags(&self) -> bool {
        let is_scarce = self.slots.head().is_scarce.load(Ordering::Relaxed) != 0;
        is_scarce && message::has_unread(&self.keeper).unwrap_or(false)
    }

    /// Before an answer goes out: from then on its connection is one that waits, and must survive.
    pub(super) fn flush_registrations(&mut self) {
        if self.has_unsent_registrations {
            self.flush_entries();
        }
    }

    /// Says whether a connection may be open of which no slot tells yet.
    pub(super) fn is_accepting(&self, is: bool) {
        let word = &self.slots.lane(self.lane).accepting;
        word.store(is.into(), Ordering::Release);
    }

    /// A place where a test may end this process.
    #[inline]
    pub(super) fn point(&self, point: Point) {
        if self.trial.fault.is_some() {
            self.trial.reach(point);
        }
    }

    /// An empty pipe that the keeper knows. `None`: no descriptors are left.
    pub(super) fn take_pipe(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.pipes.pop() {
            return Some(pipe);
        }
        let (reader, writer) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_BYTES);
        let copies = vec![reader.try_clone().ok()?, writer.try_clone().ok()?];
        let number = self
            .slots
            .lane(self.lane)
            .next_pipe
            .fetch_add(1, Ordering::Relaxed);
        self.push(Entry::AddPipe { pipe: number }, copies);
        // Bytes go into it right now: the keeper must have it before.
        self.flush_entries();
        self.count(Lane::PipesMade, 1);
        Some(Pipe {
            number,
            reader,
            writer,
            length: 0,
            is_adopted: false,
        })
    }

    /// Gives an empty pipe back.
    pub(super) fn give_pipe(&mut self, pipe: Pipe) {
        debug_assert_eq!(pipe.length, 0, "only empty pipes go back");
        if self.pipes.len() < IDLE_PIPES_MAX && !pipe.is_adopted {
            self.pipes.push(pipe);
        } else {
            self.drop_pipe(&pipe);
        }
    }

    /// A pipe is not needed any more, whatever is in it.
    pub(super) fn drop_pipe(&mut self, pipe: &Pipe) {
        self.push(Entry::DropPipe { pipe: pipe.number }, Vec::new());
    }

    pub(super) fn drop_idle_pipes(&mut self) {
        for pipe in core::mem::take(&mut self.pipes) {
            self.drop_pipe(&pipe);
        }
    }

    /// Whether a connection to a member is yet to be made: TLS takes a handshake more.
    pub(super) fn is_connecting(&self, opened: &egress::Opened, member: usize) -> bool {
        !opened.is_connected || self.tables.members[member].tls.is_some()
    }

    pub(super) fn count(&self, counter: Lane, by: u64) {
        self.slots.lane(self.lane).counters[counter as usize].fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn count_server(&self, server: usize, counter: Keyed, by: u64) {
        let keyed = self.tables.servers[server].keyed;
        tables::count(&self.slots, self.lane, keyed, counter, by);
    }

    pub(super) fn count_member(&self, member: usize, counter: Keyed, by: u64) {
        let keyed = self.tables.members[member].keyed;
        tables::count(&self.slots, self.lane, keyed, counter, by);
    }

    /// A client begins to use a member.
    pub(super) fn enter_member(&mut self, member: usize) {
        self.tables.members[member].open += 1;
        self.count_member(member, Keyed::Open, 1);
    }

    pub(super) fn leave_member(&mut self, member: usize) {
        let open = &mut self.tables.members[member].open;
        *open = open.saturating_sub(1);
        self.count_member(member, Keyed::Open, 1u64.wrapping_neg());
    }

    /// Notes what is being worked on, for whoever comes after a crash.
    pub(super) fn busy(&self, slot: Option<u32>) {
        let lane = self.slots.lane(self.lane);
        lane.busy_slot
            .store(slot.map_or(0, |slot| slot + 1), Ordering::Relaxed);
    }
}

/// Closes in a way that the other side notices: a reset. Accepted sockets are so from the
/// beginning.
pub(super) fn reset_on_close(socket: &OwnedFd) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(core::time::Duration::ZERO));
}

/// Closes as an end that is complete, with everything that is on its way.
pub(super) fn end_on_close(socket: &OwnedFd) {
    let _ = rustix::net::sockopt::set_socket_linger(socket, None);
}
