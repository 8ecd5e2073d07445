//! The keeper's course: which workers there are, what is being done, and what follows from each
//! event. Pure: no clock, no process, no socket; [`drive`](super::drive) performs the actions.
//!
//! ```text
//! Starting ─ applied ─► Serving ◄──────────────────────────────────────────────┐
//!    └ refused, ended ─► Over                                                   │
//! Serving ─ reload ─► Reloading ─ applied, refused ─────────────────────────────┤
//! Serving ─ upgrade ─► Launching ─ applied ─► Moving ─ both done ─► Leaving ────┤ ended: the keeper replaces itself
//!                          │                   │  │ └ worker ended ─► Inheriting┤ done, orphans: likewise
//!                          │ refused, late     │  └ successor ended ─┐          │
//!                          └► Discarding       └ failed, late ─► Aborting       │
//!                              │ ended                             │ ended      │
//!                              │                     TakingBack ◄──┘            │
//!                              └───────────────────────► ├──── orphans sent ────┤
//! any of these ─ the worker ended ─► (Clearing ─ the other ended ─►) Restarting ┘ applied
//!                                     Restarting ─ cannot start ─► Pausing ─ late ─► Restarting
//! Serving ─ stop ─► Stopping ─ drained, ended, late ─► Over
//! ```
//!
//! Words: the *worker* is [`Which::Current`]; in an upgrade the *successor* is [`Which::Next`], and
//! the worker that has handed over all is [`Which::Leaving`].
//!
//! Invariants, each tested over every reachable state and every event:
//! - A reload or an upgrade is answered exactly once, whatever dies, hangs or refuses in whatever
//!   order.
//! - Each state that waits for a process has a patience; when that is over, a process is killed,
//!   and its end is an event. Only Serving waits for nothing. (Nothing can be done about a process
//!   that SIGKILL does not end.)
//! - Nobody takes back or adopts a connection while a process lives that may still read from it: a
//!   successor that failed is waited for (Aborting), and no worker is started after a crash beside
//!   one that is being killed (Clearing).
//! - At most two workers live, and requests that change something wait until Serving.
//!
//! Failure paths of a takeover: the successor dies or hangs → Aborting → TakingBack → Serving. The
//! worker dies → the successor goes on alone (Inheriting); it takes what was on its way, then asks
//! for the rest. Both die → Restarting, and all comes from the keeper as after any crash.

#[cfg(test)]
mod tests;

/// A worker by its part.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Which {
    /// Serves, or is starting to.
    Current,
    /// The successor of an upgrade.
    Next,
    /// The predecessor, told to exit.
    Leaving,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum State {
    /// The first worker comes up.
    Starting,
    /// Nothing is under way.
    Serving,
    /// The worker has a new configuration.
    Reloading,
    /// The successor comes up beside the worker.
    Launching,
    /// A successor that was given nothing was killed; its end is awaited.
    Discarding,
    /// Connections go over; who has said that its part is done.
    Moving { given: bool, taken: bool },
    /// The successor was killed in the takeover; its end is awaited.
    Aborting,
    /// The successor is gone: the worker takes back, then asks for what the successor had
    /// committed.
    TakingBack,
    /// The worker died in the takeover: its successor, the worker now, takes what was under way and
    /// asks for the rest.
    Inheriting,
    /// The successor, the worker now, has all; its predecessor was told to exit.
    Leaving,
    /// The worker died; the other one was killed, and its end is awaited.
    Clearing,
    /// A worker comes up after a crash.
    Restarting,
    /// Too many died: the next one is started later.
    Pausing,
    /// Connections may finish.
    Stopping,
    /// The keeper ends.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Input {
    /// Requests, given only if [`State::takes`] them.
    Reload,
    Upgrade,
    Stop,
    /// It has the configuration in force.
    Applied(Which),
    /// It cannot have it: invalid, an address is not to be had, or the program does not fit.
    Refused(Which),
    /// It has given or taken all.
    Done(Which),
    /// It says that the takeover cannot go on.
    Failed(Which),
    /// It asks for what nobody living owns.
    Orphans(Which),
    /// Its process ended and was collected.
    Ended(Which),
    /// A worker could not be started.
    CannotStart,
    /// Every connection of a stop is over.
    Drained(Which),
    /// The state's patience is over.
    Late,
}

/// What to do, in order. The answer's text is what the driver noted first since the request, and
/// then this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Send the file's bytes to the worker.
    Validate,
    /// The new configuration and its addresses are in force.
    CommitConfig,
    StartSuccessor,
    /// Start a worker after a crash, unless too many died lately.
    StartAgain,
    /// Start it in any case: the pause is over.
    Start,
    /// Connect the two workers, and tell them to give and to take.
    BeginTakeover,
    /// Note why, unless something was noted before.
    Because(&'static str),
    Kill(Which),
    /// The worker becomes the leaving one and is told to exit.
    Dismiss,
    /// The successor becomes the worker.
    Promote,
    /// The worker takes back what its dead successor did not commit.
    TakeBack,
    /// Count the worker's crash; fail the questions that it was asked.
    NoteCrash,
    /// Send the worker what nobody living owns.
    SendOrphans,
    /// This process runs the program on disk; the request is answered afterwards.
    Replace,
    /// Answer the request that began what is under way.
    Answer(&'static str),
    AnswerDone,
    AnswerRefused(&'static str),
    /// Stop accepting and let connections finish.
    Drain,
    /// End as asked.
    Finish,
    /// End: the first worker did not come up.
    Fail,
}

const KEEPS: &str = "; the running worker keeps serving\n";
const RESTARTS: &str = "; another worker is started\n";

/// Each step of a configuration, a start included.
const STEP_US: u64 = 10_000_000;
/// Handing over: 10,000 connections take 50 ms, a loaded machine a hundred times that.
const MOVE_US: u64 = 60_000_000;
/// What takes milliseconds: to take back, to commit, to take the last batches, to exit.
const SETTLE_US: u64 = 5_000_000;
const EXIT_US: u64 = 2_000_000;
const RESTART_PAUSE_US: u64 = 1_000_000;

impl State {
    /// How long it may last; `None`: as long as it will. Stopping has the operator's time, which
    /// the driver knows.
    pub(super) fn patience_us(self) -> Option<u64> {
        match self {
            Self::Serving | Self::Over | Self::Stopping => None,
            // For the end of a process that was killed.
            Self::Discarding | Self::Aborting | Self::Clearing => None,
            Self::Starting | Self::Reloading | Self::Launching | Self::Restarting => Some(STEP_US),
            Self::Moving { given: false, .. } => Some(MOVE_US),
            Self::Moving { given: true, .. } | Self::TakingBack | Self::Inheriting => {
                Some(SETTLE_US)
            }
            Self::Leaving => Some(EXIT_US),
            Self::Pausing => Some(RESTART_PAUSE_US),
        }
    }

    /// Whether a request can begin now. Others wait in order; a stop does not wait for a worker
    /// that does not come up.
    pub(super) fn takes(self, request: Input) -> bool {
        match self {
            Self::Serving | Self::Stopping => true,
            Self::Pausing => request == Input::Stop,
            _ => false,
        }
    }

    /// What follows. An event that means nothing in a state (a packet of a worker that was told
    /// otherwise meanwhile) changes nothing.
    pub(super) fn on(self, input: Input) -> (Self, &'static [Action]) {
        use self::Action as A;
        use self::Input as I;
        use self::State as S;
        use self::Which::{Current, Leaving, Next};
        match (self, input) {
            (S::Starting, I::Applied(Current)) => (S::Serving, &[A::SendOrphans]),
            (S::Starting, I::Refused(Current) | I::Ended(Current)) => (S::Over, &[A::Fail]),
            (S::Starting, I::Late) => (
                S::Starting,
                &[A::Because("it does not answer"), A::Kill(Current)],
            ),

            (S::Serving, I::Reload) => (S::Reloading, &[A::Validate]),
            (S::Serving, I::Upgrade) => (S::Launching, &[A::StartSuccessor]),
            (S::Serving, I::Stop) => (S::Stopping, &[A::AnswerDone, A::Drain]),
            (S::Serving, I::Ended(Current)) => (S::Restarting, &[A::NoteCrash, A::StartAgain]),

            (S::Reloading, I::Applied(Current)) => (S::Serving, &[A::CommitConfig, A::AnswerDone]),
            (S::Reloading, I::Refused(Current)) => (S::Serving, &[A::AnswerRefused(KEEPS)]),
            (S::Reloading, I::Ended(Current)) => (
                S::Restarting,
                &[A::NoteCrash, A::Answer(RESTARTS), A::StartAgain],
            ),
            (S::Reloading, I::Late) => (
                S::Reloading,
                &[A::Because("the worker does not answer"), A::Kill(Current)],
            ),

            (S::Launching, I::Applied(Next)) => (
                S::Moving {
                    given: false,
                    taken: false,
                },
                &[A::BeginTakeover],
            ),
            (S::Launching, I::CannotStart) => (S::Serving, &[A::AnswerRefused(KEEPS)]),
            (S::Launching, I::Refused(Next)) => (S::Discarding, &[A::Kill(Next)]),
            (S::Launching, I::Late) => (
                S::Discarding,
                &[A::Because("the successor does not start"), A::Kill(Next)],
            ),
            (S::Launching | S::Discarding, I::Ended(Next)) => (S::Serving, &[A::Answer(KEEPS)]),
            (S::Launching | S::Discarding | S::Aborting, I::Ended(Current)) => (
                S::Clearing,
                &[A::NoteCrash, A::Answer(RESTARTS), A::Kill(Next)],
            ),

            (S::Moving { taken: true, .. }, I::Done(Current))
            | (S::Moving { given: true, .. }, I::Done(Next)) => {
                (S::Leaving, &[A::Dismiss, A::Promote])
            }
            (S::Moving { taken, .. }, I::Done(Current)) => (S::Moving { given: true, taken }, &[]),
            (S::Moving { given, .. }, I::Done(Next)) => (S::Moving { given, taken: true }, &[]),
            (S::Moving { .. }, I::Failed(Current | Next)) => (S::Aborting, &[A::Kill(Next)]),
            (S::Moving { .. }, I::Late) => (
                S::Aborting,
                &[A::Because("the successor takes too long"), A::Kill(Next)],
            ),
            (S::Moving { .. } | S::Aborting, I::Ended(Next)) => (S::TakingBack, &[A::TakeBack]),
            // It has all there was: nothing is to be asked for.
            (S::Moving { taken: true, .. }, I::Ended(Current)) => {
                (S::Serving, &[A::NoteCrash, A::Promote, A::Replace])
            }
            (S::Moving { taken: false, .. }, I::Ended(Current)) => {
                (S::Inheriting, &[A::NoteCrash, A::Promote])
            }

            (S::TakingBack, I::Orphans(Current)) => {
                (S::Serving, &[A::SendOrphans, A::Answer(KEEPS)])
            }
            (S::TakingBack, I::Late) => (S::TakingBack, &[A::Kill(Current)]),
            (S::TakingBack, I::Ended(Current)) => (
                S::Restarting,
                &[A::NoteCrash, A::Answer(RESTARTS), A::StartAgain],
            ),

            (S::Inheriting, I::Orphans(Current)) => (S::Serving, &[A::SendOrphans, A::Replace]),
            (S::Inheriting, I::Done(Current)) => (S::Serving, &[A::Replace]),
            (S::Inheriting, I::Failed(Current)) => (S::Inheriting, &[A::Kill(Current)]),
            (S::Inheriting, I::Late) => (
                S::Inheriting,
                &[A::Because("the successor does not go on"), A::Kill(Current)],
            ),
            (S::Inheriting, I::Ended(Current)) => (
                S::Restarting,
                &[A::NoteCrash, A::Answer(RESTARTS), A::StartAgain],
            ),

            (S::Leaving, I::Ended(Leaving)) => (S::Serving, &[A::Replace]),
            (S::Leaving, I::Late) => (S::Leaving, &[A::Kill(Leaving)]),
            (S::Leaving, I::Ended(Current)) => (
                S::Clearing,
                &[A::NoteCrash, A::Answer(RESTARTS), A::Kill(Leaving)],
            ),

            (S::Clearing, I::Ended(Next | Leaving)) => (S::Restarting, &[A::StartAgain]),

            (S::Restarting, I::Applied(Current)) => (S::Serving, &[A::SendOrphans]),
            (S::Restarting, I::CannotStart) => (S::Pausing, &[]),
            (S::Restarting, I::Ended(Current)) => (S::Restarting, &[A::NoteCrash, A::StartAgain]),
            (S::Restarting, I::Refused(Current) | I::Late) => (S::Restarting, &[A::Kill(Current)]),
            (S::Pausing, I::Late) => (S::Restarting, &[A::Start]),
            (S::Pausing, I::Stop) => (S::Over, &[A::AnswerDone, A::Finish]),

            (S::Stopping, I::Ended(Current) | I::Drained(Current) | I::Late) => {
                (S::Over, &[A::Finish])
            }
            // A stop lasts as long as its connections; nobody shall wait that long to hear of it.
            (S::Stopping, I::Stop) => (S::Stopping, &[A::AnswerDone]),
            (S::Stopping, I::Reload | I::Upgrade) => (
                S::Stopping,
                &[A::AnswerRefused("the traffic manager is stopping\n")],
            ),
            _ => (self, &[]),
        }
    }
}
