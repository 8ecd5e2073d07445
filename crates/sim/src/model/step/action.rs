//! The steps of the world by name: what a trace has in its lines.

use core::fmt;

use super::Beliefs;
use crate::model::state::{Code, index};

/// One step. Guests and directors by index from 0, shown from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The client sends through this director, which believes this guest dead.
    Send {
        is_syn: bool,
        director: u8,
        dead: Beliefs,
    },
    /// The packet at this place arrives, and the guest believes this one dead.
    Arrive {
        packet: u8,
        dead: Beliefs,
    },
    Lose {
        packet: u8,
    },
    /// The guest's SYN-ACK reaches the client.
    SynAck {
        guest: u8,
    },
    Close,
    /// A half-open entry that nobody uses ends.
    Expire {
        guest: u8,
    },
    Wish {
        owner: u8,
        standby: u8,
    },
    /// The controller writes the next row.
    Next,
    /// It writes this one instead, because of other connections or of counts that are out of date.
    NextByOthers {
        row: Code,
    },
    /// It has forgotten that the leaver left, and withdraws the row.
    NextForgetting,
    GuestTakes {
        guest: u8,
    },
    /// An offer of the row before arrives late.
    GuestTakesOld {
        guest: u8,
    },
    /// The leaver counts zero.
    GuestLeaves {
        guest: u8,
    },
    DirectorTakes {
        director: u8,
    },
    Suspect {
        guest: u8,
    },
    Withdraw {
        director: u8,
    },
    LeaseEnds {
        guest: u8,
    },
    /// Cut off from all directors: the lease lapses though nobody withdrew it.
    LeaseLapses {
        guest: u8,
    },
    /// Not cut off any more.
    LeaseReturns {
        guest: u8,
    },
    Fence {
        guest: u8,
    },
    TrustAgain {
        guest: u8,
    },
    ProgramCrashes {
        guest: u8,
    },
    ProgramStarts {
        guest: u8,
    },
    KernelCrashes {
        guest: u8,
    },
    Destroyed {
        guest: u8,
    },
    Reborn {
        guest: u8,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Send {
                is_syn,
                director,
                dead,
            } => {
                let kind = if is_syn { "SYN" } else { "data" };
                write!(f, "send {kind} by d{}{dead}", director + 1)
            }
            Self::Arrive { packet, dead } => write!(f, "arrive p{}{dead}", packet + 1),
            Self::Lose { packet } => write!(f, "lose p{}", packet + 1),
            Self::SynAck { guest } => write!(f, "syn-ack of g{}", guest + 1),
            Self::Close => write!(f, "close"),
            Self::Expire { guest } => write!(f, "half-open expires at g{}", guest + 1),
            Self::Wish { owner, standby: 7 } => write!(f, "wish g{} alone", owner + 1),
            Self::Wish { owner, standby } => write!(f, "wish g{} g{}", owner + 1, standby + 1),
            Self::Next => write!(f, "controller writes"),
            Self::NextByOthers { row } => {
                write!(f, "controller writes")?;
                row.row()
                    .slots()
                    .try_for_each(|slot| write!(f, " g{}", index(slot) + 1))?;
                write!(f, " for others")
            }
            Self::NextForgetting => write!(f, "controller forgets and writes"),
            Self::GuestTakesOld { guest } => write!(f, "g{} takes old row", guest + 1),
            Self::LeaseLapses { guest } => write!(f, "lease of g{} lapses", guest + 1),
            Self::LeaseReturns { guest } => write!(f, "lease of g{} returns", guest + 1),
            Self::GuestTakes { guest } => write!(f, "g{} takes row", guest + 1),
            Self::GuestLeaves { guest } => write!(f, "g{} counts zero", guest + 1),
            Self::DirectorTakes { director } => write!(f, "d{} takes row", director + 1),
            Self::Suspect { guest } => write!(f, "g{} is suspected", guest + 1),
            Self::Withdraw { director } => write!(f, "d{} withdraws trust", director + 1),
            Self::LeaseEnds { guest } => write!(f, "lease of g{} ends", guest + 1),
            Self::Fence { guest } => write!(f, "g{} is fenced", guest + 1),
            Self::TrustAgain { guest } => write!(f, "g{} is trusted again", guest + 1),
            Self::ProgramCrashes { guest } => write!(f, "program of g{} crashes", guest + 1),
            Self::ProgramStarts { guest } => write!(f, "program of g{} starts", guest + 1),
            Self::KernelCrashes { guest } => write!(f, "kernel of g{} crashes", guest + 1),
            Self::Destroyed { guest } => write!(f, "g{} is confirmed destroyed", guest + 1),
            Self::Reborn { guest } => write!(f, "kernel of g{} comes back", guest + 1),
        }
    }
}
