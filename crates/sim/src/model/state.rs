//! The world in a few bytes: one bucket, one connection, four guest slots, two directors.

use hitless_core::row::{GuestSlot, Row, Sequence};
use hitless_core::table::step::Stage;

/// Guest slots 1 to 3 live from the start; 4 is for a kernel that comes back.
pub const SLOTS: usize = 4;
pub const DIRECTORS: usize = 2;
/// Packets in flight at most.
pub const PACKETS: usize = 2;
/// The sequence that [`Code`] 0 stands for: so near to the wrap that the third row is beyond it.
pub(crate) const FIRST_SEQUENCE: u16 = 65_533;

/// A row in 16 bits: four slots of three bits, four bits of sequence. 0: no row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Code(pub u16);

impl Code {
    pub fn of(row: Row) -> Self {
        if row == Row::NONE {
            return Self(0);
        }
        let mut code = row.sequence().0.wrapping_sub(FIRST_SEQUENCE) << 12;
        for (position, slot) in row.slots().enumerate() {
            code |= slot.number() << (3 * position);
        }
        Self(code)
    }

    pub fn row(self) -> Row {
        if self.0 == 0 {
            return Row::NONE;
        }
        let slots = (0..4).filter_map(|position| GuestSlot::new((self.0 >> (3 * position)) & 7));
        let sequence = Sequence(FIRST_SEQUENCE.wrapping_add(self.0 >> 12));
        Row::from_slots(slots, sequence).expect("made from a row")
    }
}

/// A guest's index from 0, from its slot from 1.
pub fn index(slot: GuestSlot) -> usize {
    usize::from(slot.number()) - 1
}

pub fn slot(index: usize) -> GuestSlot {
    u16::try_from(index + 1)
        .ok()
        .and_then(GuestSlot::new)
        .expect("four slots")
}

/// What a packet is to the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    Syn,
    /// With the ACK number that the guest of this index expects.
    Data(u8),
}

/// A stamped packet on its way to a guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InFlight {
    pub kind: Kind,
    pub to: u8,
    pub word: Code,
    pub no_answer: bool,
}

/// What a guest's kernel holds of the connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kernel {
    Nothing,
    HalfOpen,
    Established,
}

/// The client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Client {
    Connecting,
    /// With the guest whose SYN-ACK came first.
    Connected(u8),
    /// Closed, or its guest's program or kernel crashed.
    Over,
}

/// A guest as the world and the controller see it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Guest {
    pub row: Code,
    pub kernel: Kernel,
    pub is_alive: bool,
    pub listens: bool,
    pub has_lease: bool,
    pub standing: Seen,
    /// Acknowledged the newest row.
    pub has_acknowledged: bool,
}

/// The controller's view: absent slots have no guest yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Seen {
    Absent,
    Serving,
    Suspect,
    Fenced,
    Gone,
}

/// A director.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Director {
    pub row: Code,
    pub has_acknowledged: bool,
    /// It renews no suspect's lease any more.
    pub has_withdrawn: bool,
}

/// What may still go wrong or be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    /// Rows that the controller may still write.
    pub rows: u8,
    /// Voluntary changes of the wish.
    pub wishes: u8,
    pub program_crashes: u8,
    pub kernel_crashes: u8,
    pub suspicions: u8,
    pub rebirths: u8,
    /// Packets in flight at once.
    pub packets: u8,
    /// Guests that are cut off from controller and agents for a while: a lease that lapses though
    /// nobody withdrew it, or an old row that arrives late.
    pub cuts: u8,
    /// Rows that are written because of other connections of the bucket, or by counts that are out
    /// of date.
    pub others: u8,
}

/// The world.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub row: Code,
    pub before: Code,
    /// The row before came to all: an offer of it may still be under way.
    pub was_offered: bool,
    /// How far the newest row had come before another guest joined the cluster, who owes it too:
    /// offers up to there are made.
    pub reached: Stage,
    /// Wished owner and standby, by index; 7: none.
    pub wish: (u8, u8),
    pub guests: [Guest; SLOTS],
    pub directors: [Director; DIRECTORS],
    pub client: Client,
    pub packets: [Option<InFlight>; PACKETS],
    pub budget: Budget,
}

impl State {
    /// At rest: row [1, 3], guest 2 beside it, a client that connects.
    pub fn new(budget: Budget) -> Self {
        let row = Row::new(
            &[slot(0), slot(2)],
            Sequence(FIRST_SEQUENCE.wrapping_add(1)),
        );
        let row = Code::of(row.expect("two slots"));
        let guest = Guest {
            row,
            kernel: Kernel::Nothing,
            is_alive: true,
            listens: true,
            has_lease: true,
            standing: Seen::Serving,
            has_acknowledged: true,
        };
        let absent = Guest {
            row: Code(0),
            is_alive: false,
            listens: false,
            has_lease: false,
            standing: Seen::Absent,
            has_acknowledged: false,
            ..guest
        };
        let director = Director {
            row,
            has_acknowledged: true,
            has_withdrawn: false,
        };
        Self {
            row,
            before: row,
            was_offered: true,
            reached: Stage::Leaver,
            wish: (0, 2),
            guests: [guest, guest, guest, absent],
            directors: [director; DIRECTORS],
            client: Client::Connecting,
            packets: [None; PACKETS],
            budget,
        }
    }

    /// The same with a fourth guest that serves no bucket yet.
    pub fn with_fourth(budget: Budget) -> Self {
        let mut state = Self::new(budget);
        state.guests[3] = state.guests[1];
        state
    }

    /// The guest that has the connection, if it lives.
    pub fn home(&self) -> Option<usize> {
        match self.client {
            Client::Connected(home) => {
                let home = usize::from(home);
                let guest = &self.guests[home];
                (guest.is_alive && guest.kernel != Kernel::Nothing).then_some(home)
            }
            Client::Connecting | Client::Over => None,
        }
    }

    /// Packets in one order, so that equal worlds are equal values.
    pub fn sort_packets(&mut self) {
        self.packets.sort_unstable_by(|one, other| other.cmp(one));
    }
}
