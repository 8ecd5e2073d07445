//! What a test wants this program to do wrong. Nothing else makes a [`Trial`] with a fault.

use std::os::fd::AsFd;

/// At most one fault.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trial {
    pub fault: Option<Fault>,
}

#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// As a successor, before it acknowledges this batch of a lane.
    DieAtBatch(u32),
    HangAtBatch(u32),
    /// When it has restored everything, before it serves it.
    DieAtEnd,
    HangAtEnd,
    /// Says that it reads only connection records of this layout.
    ReadsLayout(u16),
    /// Is killed when it comes to this place, if the file that [`ONCE`] names can be removed: so
    /// once, whoever comes after it.
    DieAt(Point),
    /// Aborts on each connection whose client's next bytes are [`POISON`].
    Poison,
}

/// Places on a connection's way that a kill may hit.
#[doc(hidden)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Point {
    /// Nothing but the program knows of it.
    Accepted,
    /// It has a slot.
    Begun,
    /// Raw TCP: its member's socket is open.
    Connected,
    /// Its registration waits to be sent.
    Registered,
    /// The keeper has it.
    Sent,
    /// HTTP: a request was read.
    RequestRead,
    /// It was passed on to the member.
    RequestSent,
    /// Its answer is about to go out.
    Answering,
    /// Its answer has gone out.
    Answered,
    /// The connection is over, and the keeper does not know.
    Ended,
    /// Raw TCP in TLS: a batch is noted, and nothing of it is out.
    Batched,
    /// Some of it is out, or all.
    BatchSent,
    /// All is out, and its bytes have left the source's socket.
    TakenOut,
}

impl Point {
    pub const ALL: [(&'static str, Self); 10] = [
        ("accepted", Self::Accepted),
        ("begun", Self::Begun),
        ("connected", Self::Connected),
        ("registered", Self::Registered),
        ("sent", Self::Sent),
        ("request-read", Self::RequestRead),
        ("request-sent", Self::RequestSent),
        ("answering", Self::Answering),
        ("answered", Self::Answered),
        ("ended", Self::Ended),
    ];

    /// Those of raw TCP in TLS alone.
    pub const SEALED: [(&'static str, Self); 3] = [
        ("batched", Self::Batched),
        ("batch-sent", Self::BatchSent),
        ("taken-out", Self::TakenOut),
    ];
}

/// Names the file that arms [`Fault::DieAt`].
#[doc(hidden)]
pub const ONCE: &str = "TM_ONCE";

/// No stream of a test has these by chance.
#[doc(hidden)]
pub const POISON: &[u8; 8] = b"\xffpoison\xff";

impl Trial {
    #[cold]
    pub(super) fn reach(self, point: Point) {
        if self.fault == Some(Fault::DieAt(point))
            && std::env::var_os(ONCE).is_some_and(|file| std::fs::remove_file(file).is_ok())
        {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }

    /// Looks at a connection before it is worked on.
    pub(super) fn taste(self, client: impl AsFd) {
        if self.fault != Some(Fault::Poison) {
            return;
        }
        let mut next = [0u8; POISON.len()];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        if rustix::net::recv(client, &mut next, flags).is_ok() && next == *POISON {
            std::process::abort();
        }
    }
}
