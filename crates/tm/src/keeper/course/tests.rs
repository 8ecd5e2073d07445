//! Every reachable state with every event: a worker may say anything at any time, hang or die at
//! any time, and so may two.

use std::collections::{BTreeSet, VecDeque};

use super::{Action, Input, State, Which};

const WHO: [Which; 3] = [Which::Current, Which::Next, Which::Leaving];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Process {
    None,
    Lives,
    /// What it had sent may still be read.
    Killed,
}

/// What the driver has: processes, an unanswered request, a deadline that is set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct World {
    state: State,
    processes: [Process; 3],
    is_asked: bool,
    is_timed: bool,
}

impl World {
    const FIRST: Self = Self {
        state: State::Starting,
        processes: [Process::Lives, Process::None, Process::None],
        is_asked: false,
        is_timed: true,
    };

    fn process(&mut self, which: Which) -> &mut Process {
        &mut self.processes[which as usize]
    }

    /// `can_start`: whether a process that is to be started now can be.
    fn feed(mut self, input: Input, can_start: bool) -> Self {
        if let Input::Ended(which) = input {
            *self.process(which) = Process::None;
        }
        if matches!(input, Input::Reload | Input::Upgrade | Input::Stop) {
            assert!(!self.is_asked, "{self:?} {input:?}: one request at a time");
            self.is_asked = true;
        }
        if input == Input::Late {
            self.is_timed = false;
        }
        let (next, actions) = self.state.on(input);
        if next != self.state {
            self.is_timed = next.patience_us().is_some() || next == State::Stopping;
            self.state = next;
        }
        for action in actions {
            self = self.perform(*action, can_start);
        }
        self
    }

    fn perform(mut self, action: Action, can_start: bool) -> Self {
        use Process::{Killed, Lives, None};
        let [current, next, leaving] = self.processes;
        match action {
            Action::StartSuccessor => {
                assert_eq!((next, leaving), (None, None), "{self:?}");
                if !can_start {
                    return self.feed(Input::CannotStart, can_start);
                }
                self.processes[1] = Lives;
            }
            Action::StartAgain | Action::Start => {
                assert_eq!(self.processes, [None; 3], "nobody may read beside it");
                if !can_start {
                    return self.feed(Input::CannotStart, can_start);
                }
                self.processes[0] = Lives;
                self.is_timed = true;
            }
            Action::Kill(which) => {
                assert_ne!(
                    self.processes[which as usize], None,
                    "{self:?} kills {which:?}"
                );
                *self.process(which) = Killed;
            }
            Action::Dismiss => self.processes = [None, next, current],
            Action::Promote => {
                assert_eq!(current, None, "{self:?}");
                assert_ne!(next, None, "{self:?}");
                self.processes = [next, None, leaving];
            }
            Action::TakeBack | Action::SendOrphans | Action::Replace => {
                assert_ne!(current, None, "{self:?} {action:?}");
                assert_eq!((next, leaving), (None, None), "{self:?} {action:?}");
                if action == Action::Replace {
                    assert!(self.is_asked, "{self:?}");
                    self.is_asked = false;
                }
            }
            Action::BeginTakeover => {
                assert_ne!(current, None, "{self:?}");
                assert_ne!(next, None, "{self:?}");
            }
            Action::Answer(_) | Action::AnswerDone | Action::AnswerRefused(_) => {
                assert!(self.is_asked, "{self:?}: answered twice");
                self.is_asked = false;
            }
            Action::Validate | Action::CommitConfig | Action::Drain => {
                assert_ne!(current, None, "{self:?} {action:?}");
            }
            Action::Finish | Action::Fail => assert_eq!(self.state, State::Over),
            Action::Because(_) | Action::NoteCrash => {}
        }
        self
    }

    /// Everything that can happen next.
    fn inputs(self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for which in WHO {
            if self.processes[which as usize] != Process::None {
                inputs.extend([
                    Input::Applied(which),
                    Input::Refused(which),
                    Input::Done(which),
                    Input::Failed(which),
                    Input::Orphans(which),
                    Input::Drained(which),
                    Input::Ended(which),
                ]);
            }
        }
        for request in [Input::Reload, Input::Upgrade, Input::Stop] {
            if self.state.takes(request) {
                inputs.push(request);
            }
        }
        if self.is_timed {
            inputs.push(Input::Late);
        }
        inputs
    }

    fn check(self) {
        use State as S;
        let is_job = matches!(
            self.state,
            S::Reloading
                | S::Launching
                | S::Discarding
                | S::Moving { .. }
                | S::Aborting
                | S::TakingBack
                | S::Inheriting
                | S::Leaving
        );
        assert_eq!(self.is_asked, is_job, "{self:?}");
        let [current, next, leaving] = self.processes.map(|process| process != Process::None);
        let expected = match self.state {
            S::Launching | S::Discarding | S::Moving { .. } | S::Aborting => (true, true, false),
            S::Leaving => (true, false, true),
            S::Clearing => (false, next, !next),
            S::Pausing => (false, false, false),
            S::Over => return,
            _ => (true, false, false),
        };
        assert_eq!((current, next, leaving), expected, "{self:?}");
        let waits = self.is_timed || self.processes.contains(&Process::Killed);
        assert!(waits || self.state == S::Serving, "{self:?} waits for ever");
    }

    /// From here on every process hangs; only the kernel ends those that are killed.
    fn hang(mut self) {
        for _ in 0..8 {
            if !self.is_asked {
                return;
            }
            let killed = WHO
                .into_iter()
                .find(|which| self.processes[*which as usize] == Process::Killed);
            self = match killed {
                Some(which) => self.feed(Input::Ended(which), false),
                None => self.feed(Input::Late, false),
            };
        }
        panic!("{self:?}: not answered");
    }
}

#[test]
fn every_request_is_answered_and_nobody_reads_beside_another_whatever_happens() {
    let mut seen = BTreeSet::from([World::FIRST]);
    let mut open = VecDeque::from([World::FIRST]);
    let mut pairs = BTreeSet::new();
    while let Some(world) = open.pop_front() {
        world.check();
        world.hang();
        for input in world.inputs() {
            pairs.insert((world.state, input));
            for can_start in [true, false] {
                let next = world.feed(input, can_start);
                if next.state != State::Over && seen.insert(next) {
                    open.push_back(next);
                }
            }
        }
    }
    let states: BTreeSet<State> = seen.iter().map(|world| world.state).collect();
    assert_eq!(
        states.len(),
        16,
        "every state but Over is reached: {states:?}"
    );
    assert!(
        pairs.len() > 100,
        "{} pairs of state and event",
        pairs.len()
    );
}

#[test]
fn what_a_state_does_not_expect_changes_nothing() {
    for state in [State::Serving, State::Stopping, State::Clearing] {
        for input in [
            Input::Applied(Which::Current),
            Input::Done(Which::Next),
            Input::Failed(Which::Current),
            Input::Orphans(Which::Current),
        ] {
            assert_eq!(state.on(input), (state, &[][..]), "{state:?} {input:?}");
        }
    }
}

/// Runs a course from Serving.
fn course(inputs: &[Input]) -> (State, Vec<Action>) {
    let mut state = State::Serving;
    let mut all = Vec::new();
    for input in inputs {
        let (next, actions) = state.on(*input);
        state = next;
        all.extend(actions);
    }
    (state, all)
}

#[test]
fn a_takeover_whose_worker_dies_is_finished_by_its_successor() {
    use Which::{Current, Next};
    let until = [Input::Upgrade, Input::Applied(Next), Input::Ended(Current)];
    let (state, actions) = course(&until);
    assert_eq!(state, State::Inheriting);
    assert!(actions.ends_with(&[Action::NoteCrash, Action::Promote]));
    let (state, actions) = course(&[&until[..], &[Input::Orphans(Current)]].concat());
    assert_eq!(state, State::Serving);
    assert!(actions.ends_with(&[Action::SendOrphans, Action::Replace]));
    // It hangs as well: killed, and all comes from the keeper.
    let both = [&until[..], &[Input::Late, Input::Ended(Current)]].concat();
    let (state, actions) = course(&both);
    assert_eq!(state, State::Restarting);
    assert!(actions.contains(&Action::Kill(Current)) && actions.contains(&Action::StartAgain));
}

#[test]
fn a_successor_that_hangs_is_gone_before_anything_is_taken_back() {
    use Which::{Current, Next};
    let begun = [Input::Upgrade, Input::Applied(Next), Input::Failed(Current)];
    let (state, actions) = course(&begun);
    assert_eq!(state, State::Aborting);
    assert!(!actions.contains(&Action::TakeBack));
    let (state, actions) = course(&[&begun[..], &[Input::Ended(Next)]].concat());
    assert_eq!(state, State::TakingBack);
    assert_eq!(actions.last(), Some(&Action::TakeBack));
}
