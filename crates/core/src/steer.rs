//! The reference model of director and ingress: what happens to one packet, on values, never bytes.
//!
//! ```text
//!  client ── plain ──> director ── stamped ──> ingress of hop 1 ──> ingress of hop 2 ──> ...
//!                                              each: deliver here, forward, drop;
//!                                              the last one may let the stack answer
//! ```
//!
//! The BPF programs do the same in C and are tested against these two functions packet by packet.
//! So every argument can be computed from the packet's bytes, the maps and one socket look-up, and
//! every verdict has one counter ([`Verdict::counter`]).
//!
//! Three things decide, and each decides something else: the hop's *own row* whether it accepts,
//! stamps anew or answers; the *word in the packet* who is asked next; the hop's *kernel* whether
//! the packet is known here.
//!
//! Invariants: a verdict never forwards to the hop itself; a forwarded word names its next hop; a
//! new stamp is strictly newer than the old one, and within one stamp the hops only move towards
//! the word's end, so a packet cannot loop.
//!
//! Not here: parsing, the tag, filters, UDP's flow records, moves between hosts.

use serde::{Deserialize, Serialize};

use crate::row::{GuestSlot, Row};
use crate::rules::Rules;

/// What a TCP segment is to the protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Segment {
    /// SYN without ACK: asks for a new connection.
    Syn,
    /// Anything with ACK: ACK, data, FIN, SYN-ACK, RST with ACK.
    Ack,
    /// Neither SYN nor ACK, in practice a bare RST: nobody answers it, and it has no number to
    /// check.
    Bare,
}

/// What the guest's kernel holds of the packet's flow: the result of the socket look-up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Held {
    /// No socket, no listener.
    Nothing,
    /// Only a listener.
    Listener,
    /// A half-open entry (`NEW_SYN_RECV`, or `SYN_RECV`).
    HalfOpen {
        /// The packet has ACK and its number is our initial sequence number + 1.
        is_ours: bool,
    },
    /// A socket in any state from established to last-ACK, orphans included; also our own
    /// `SYN_SENT`.
    Established,
    /// A `TIME_WAIT` entry; or an orphan in `FIN_WAIT2` that meets a packet with ACK of another
    /// connection.
    TimeWait {
        /// The packet has ACK and acknowledges the end of the connection that was, or less than 256
        /// KiB before it, as late packets do. Else it may be of another one: a client that uses its
        /// port again soon may be served by another guest by now.
        is_ours: bool,
    },
    /// A listener, and the packet's ACK answers a SYN cookie of ours.
    Cookie,
}

impl Held {
    /// Whether the kernel holds something that would be lost if the bucket left this guest.
    ///
    /// The iterator that counts per bucket follows this function. A cookie is not an entry: while
    /// cookies may be out, the guest adds one to its count of that bucket (see `table::guest`).
    pub const fn is_live(self, rules: &Rules) -> bool {
        match self {
            Self::Established => true,
            Self::HalfOpen { .. } => rules.count_half_open,
            Self::Cookie => true,
            Self::Nothing | Self::Listener | Self::TimeWait { .. } => false,
        }
    }

    /// Whether a SYN would be taken by this guest's stack.
    const fn listens(self) -> bool {
        matches!(self, Self::Listener | Self::Cookie | Self::TimeWait { .. })
    }
}

/// What a director or an ingress writes into the Geneve option.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Stamp {
    /// The stamper's row in the order in which it wants the guests asked.
    pub word: Row,
    /// Flag *no answer*: a hop on the way had an older row, so nobody may answer for the bucket.
    pub no_answer: bool,
    /// Flag *as new*: UDP only; carried, not looked at here.
    pub as_new: bool,
    /// Number of the director that stamped last, 0 for an ingress.
    pub stamper: u16,
}

/// A packet as far as steering looks at it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Packet {
    pub segment: Segment,
    /// `None` for a plain packet from a switch that is not ours.
    pub stamp: Option<Stamp>,
}

/// What the hop knows besides the packet.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// This guest's slot.
    pub me: GuestSlot,
    /// Its own copy of the bucket's row; [`Row::NONE`] if it has none.
    pub row: Row,
    /// Whom it believes dead. It never believes that of itself, whatever this says.
    pub believed_dead: &'a [GuestSlot],
    /// Whether its lease runs.
    pub has_lease: bool,
    /// The result of the socket look-up.
    pub held: Held,
}

/// What happens to the packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// To the stack: the kernel knows the flow.
    Deliver,
    /// To the stack: a SYN that this guest accepts.
    Accept,
    /// To the stack, which will answer that it knows nothing (RST). An alarm.
    Answer,
    /// To the stack, which refuses a SYN because nothing listens (RST). Anybody can send one.
    Refuse,
    /// To the guest `to`, with this stamp.
    Forward {
        to: GuestSlot,
        stamp: Stamp,
        why: Forward,
    },
    /// Nowhere.
    Drop(DropReason),
}

/// Why a packet goes to another guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Forward {
    /// By a director.
    Directed,
    /// By an ingress, on along the packet's word.
    Along,
    /// By an ingress whose row is newer, or that got a plain packet: stamped with its own row.
    Restamped,
}

/// Why a packet goes nowhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DropReason {
    /// The bucket's row names nobody (a director), or there is no row for a plain packet (an
    /// ingress).
    NoRow,
    /// The packet's word does not name this guest, and this guest's row is not newer.
    NotNamed,
    /// Last hop, unknown, and a hop on the way had an older row.
    NoAnswer,
    /// Last hop, unknown, and this hop's row is older than the packet's.
    OlderRow,
    /// Last hop, unknown, and no lease.
    NoLease,
    /// Last hop, a SYN that this guest's listener would take although its own row does not name it.
    NotListed,
    /// Last hop, and the half-open entry here waits for another number: the stack would reset the
    /// connection.
    WrongNumber,
}

/// One counter per verdict.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Counter {
    Delivered,
    Accepted,
    Answered,
    Refused,
    Directed,
    Forwarded,
    Restamped,
    NoRow,
    NotNamed,
    NoAnswer,
    OlderRow,
    NoLease,
    NotListed,
    WrongNumber,
}

impl Verdict {
    /// The counter that this verdict adds one to.
    pub const fn counter(&self) -> Counter {
        match self {
            Self::Deliver => Counter::Delivered,
            Self::Accept => Counter::Accepted,
            Self::Answer => Counter::Answered,
            Self::Refuse => Counter::Refused,
            Self::Forward { why, .. } => match why {
                Forward::Directed => Counter::Directed,
                Forward::Along => Counter::Forwarded,
                Forward::Restamped => Counter::Restamped,
            },
            Self::Drop(reason) => match reason {
                DropReason::NoRow => Counter::NoRow,
                DropReason::NotNamed => Counter::NotNamed,
                DropReason::NoAnswer => Counter::NoAnswer,
                DropReason::OlderRow => Counter::OlderRow,
                DropReason::NoLease => Counter::NoLease,
                DropReason::NotListed => Counter::NotListed,
                DropReason::WrongNumber => Counter::WrongNumber,
            },
        }
    }
}

/// What a director does with a plain packet of a bucket whose row is `row`. `stamper` is its
/// number, not 0.
pub fn director(rules: &Rules, stamper: u16, row: Row, believed_dead: &[GuestSlot]) -> Verdict {
    let word = order(rules, row, None, believed_dead);
    let Some(to) = word.head() else {
        return Verdict::Drop(DropReason::NoRow);
    };
    let stamp = Stamp {
        word,
        no_answer: false,
        as_new: false,
        stamper,
    };
    Verdict::Forward {
        to,
        stamp,
        why: Forward::Directed,
    }
}

/// What an ingress does with a packet.
pub fn ingress(rules: &Rules, hop: &Hop<'_>, packet: &Packet) -> Verdict {
    if !rules.look_up_always && is_at_rest_head(hop, packet) {
        return match (packet.segment, hop.held) {
            (Segment::Syn, held) if held.listens() => Verdict::Accept,
            (_, held) if is_known(rules, packet.segment, held) => Verdict::Deliver,
            (segment, _) => unknown(segment),
        };
    }
    if is_known(rules, packet.segment, hop.held) {
        return Verdict::Deliver;
    }
    let is_older = match packet.stamp {
        None if hop.row.is_empty() => return Verdict::Drop(DropReason::NoRow),
        None => true,
        Some(stamp) => {
            !hop.row.is_empty() && hop.row.sequence().is_newer_than(stamp.word.sequence())
        }
    };
    match (packet.segment, packet.stamp) {
        (Segment::Syn, Some(stamp)) if !is_older || !rules.restamp_syn => {
            along(rules, hop, packet.segment, stamp)
        }
        (Segment::Ack | Segment::Bare, Some(stamp)) if !is_older || !rules.restamp_data => {
            along(rules, hop, packet.segment, stamp)
        }
        (segment, stamp) => restamp(rules, hop, segment, stamp),
    }
}

/// Whether the kernel knows the packet: then it is delivered, whatever any row says.
const fn is_known(rules: &Rules, segment: Segment, held: Held) -> bool {
    match (segment, held) {
        (_, Held::Established) => true,
        // The same SYN again: the stack repeats its SYN-ACK, nothing new comes to be.
        (Segment::Syn, Held::HalfOpen { .. }) => true,
        (Segment::Ack, Held::HalfOpen { is_ours }) => is_ours || !rules.check_initial_sequence,
        // A SYN that meets TIME_WAIT may open a connection, so it is judged like one that meets a
        // listener. A bare RST has no number to check.
        (Segment::Ack, Held::TimeWait { is_ours }) => is_ours || !rules.check_initial_sequence,
        (Segment::Ack, Held::Cookie) => true,
        _ => false,
    }
}

/// The mutant without look-up takes everything here.
fn is_at_rest_head(hop: &Hop<'_>, packet: &Packet) -> bool {
    let is_own_row = packet
        .stamp
        .is_none_or(|stamp| stamp.word.sequence() == hop.row.sequence());
    is_own_row && hop.row.len() <= 2 && hop.row.head() == Some(hop.me)
}

/// Whether this guest may take a SYN.
fn accepts(rules: &Rules, hop: &Hop<'_>) -> bool {
    hop.held.listens() && (hop.row.contains(hop.me) || !rules.accept_only_when_listed)
}

/// The packet's word is not older than the hop's row: it decides who is asked next.
fn along(rules: &Rules, hop: &Hop<'_>, segment: Segment, stamp: Stamp) -> Verdict {
    let Some(position) = stamp.word.position(hop.me) else {
        return Verdict::Drop(DropReason::NotNamed);
    };
    if segment == Segment::Syn {
        if accepts(rules, hop) {
            return Verdict::Accept;
        }
        if !hop.held.listens() && !rules.pass_syn_when_not_listening {
            return Verdict::Refuse;
        }
    }
    let is_foreign = hop.row.is_empty() || stamp.word.sequence().is_newer_than(hop.row.sequence());
    match stamp.word.at(position + 1) {
        Some(to) => {
            let no_answer = stamp.no_answer || (is_foreign && rules.set_no_answer);
            let stamp = Stamp { no_answer, ..stamp };
            Verdict::Forward {
                to,
                stamp,
                why: Forward::Along,
            }
        }
        None => last_hop(rules, hop, segment, stamp.word, stamp.no_answer),
    }
}

/// The hop's row is newer than the packet's word, or the packet has none: the hop stamps it.
fn restamp(rules: &Rules, hop: &Hop<'_>, segment: Segment, old: Option<Stamp>) -> Verdict {
    let is_syn = segment == Segment::Syn;
    let names_self = is_syn && rules.restamp_syn_with_self;
    let row = if names_self {
        hop.row
    } else {
        without(hop.row, hop.me)
    };
    let word = match old {
        Some(old) if !rules.restamp_ignores_old_order => order_like(row, old.word),
        _ if !rules.restamp_by_own_belief => row,
        _ => order(rules, row, Some(hop.me), hop.believed_dead),
    };
    if is_syn {
        let is_head = if names_self {
            word.head() == Some(hop.me)
        } else {
            hop.row.head() == Some(hop.me)
        };
        if is_head && rules.restamp_syn_unless_head && accepts(rules, hop) {
            return Verdict::Accept;
        }
        if !hop.held.listens() && !rules.pass_syn_when_not_listening {
            return Verdict::Refuse;
        }
    }
    let next = match word.position(hop.me) {
        Some(0) => word.at(1),
        _ => word.head(),
    };
    match next {
        Some(to) => {
            let as_new = old.is_some_and(|old| old.as_new);
            let stamp = Stamp {
                word,
                no_answer: false,
                as_new,
                stamper: 0,
            };
            Verdict::Forward {
                to,
                stamp,
                why: Forward::Restamped,
            }
        }
        None => last_hop(rules, hop, segment, hop.row, false),
    }
}

/// Nobody is left to ask. The stack answers only if it is sure that nobody knows the packet.
fn last_hop(rules: &Rules, hop: &Hop<'_>, segment: Segment, word: Row, no_answer: bool) -> Verdict {
    match (segment, hop.held) {
        // Nothing goes out for a bare RST, and it ends a half-open entry that it fits.
        (Segment::Bare, _) => return Verdict::Deliver,
        (Segment::Ack, Held::HalfOpen { .. }) => return Verdict::Drop(DropReason::WrongNumber),
        _ => {}
    }
    let is_own_row = !hop.row.is_empty() && word.sequence() == hop.row.sequence();
    if no_answer {
        Verdict::Drop(DropReason::NoAnswer)
    } else if !is_own_row && rules.answer_only_for_own_row {
        Verdict::Drop(DropReason::OlderRow)
    } else if !hop.has_lease && rules.lease_to_answer {
        Verdict::Drop(DropReason::NoLease)
    } else if segment == Segment::Syn && hop.held.listens() {
        Verdict::Drop(DropReason::NotListed)
    } else {
        unknown(segment)
    }
}

/// The stack is to say that nobody knows the packet.
const fn unknown(segment: Segment) -> Verdict {
    match segment {
        Segment::Syn => Verdict::Refuse,
        Segment::Ack | Segment::Bare => Verdict::Answer,
    }
}

/// `row` with those believed dead behind all others; nobody is left out. `me` is never believed
/// dead.
fn order(rules: &Rules, row: Row, me: Option<GuestSlot>, believed_dead: &[GuestSlot]) -> Row {
    let is_dead = |slot: &GuestSlot| Some(*slot) != me && believed_dead.contains(slot);
    let living = row.slots().filter(|slot| !is_dead(slot));
    if !rules.believed_dead_last && row.slots().any(|slot| !is_dead(&slot)) {
        return row_of(living, row);
    }
    row_of(living.chain(row.slots().filter(is_dead)), row)
}

/// The mutant's order: guests that `like` names too stand among each other as they do there.
fn order_like(row: Row, like: Row) -> Row {
    let mut common = like.slots().filter(|slot| row.contains(*slot));
    let slots = row.slots().map(|slot| {
        if like.contains(slot) {
            common.next().unwrap_or(slot)
        } else {
            slot
        }
    });
    row_of(slots, row)
}

fn without(row: Row, me: GuestSlot) -> Row {
    row_of(row.slots().filter(|slot| *slot != me), row)
}

/// A row of these slots with the sequence of `like`. The slots are some of `like`'s, each once.
fn row_of(slots: impl Iterator<Item = GuestSlot>, like: Row) -> Row {
    Row::from_slots(slots, like.sequence()).expect("some slots of a row, each once, are a row")
}

#[cfg(test)]
mod tests;
