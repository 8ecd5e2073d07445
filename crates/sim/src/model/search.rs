//! Breadth first over all states: the first violation found is one of the shortest.

use std::hash::{BuildHasher, Hasher};

use hitless_core::rules::Rules;

use super::check::{reach, settles};
use super::state::State;
use super::step::{Action, Steps, Violation};

/// What a search found.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub depth: usize,
    /// False: the limit of states was reached first.
    pub is_complete: bool,
    pub counterexample: Option<(Violation, Vec<Action>)>,
}

/// Searches from `start` until a violation, the end, or `limit` states.
pub fn search(rules: &Rules, start: State, limit: usize) -> Found {
    let mut visited = Visited::new();
    visited.insert(start, u32::MAX, Action::Close);
    let mut steps = Steps::new();
    let mut depth = 0;
    let mut end_of_depth = 1;
    let mut at = 0;
    while at < visited.states.len() {
        if at == end_of_depth {
            depth += 1;
            end_of_depth = visited.states.len();
        }
        let state = visited.states[at].0;
        let found = reach(rules, &state).or_else(|| settles(rules, &state));
        if let Some(violation) = found {
            return visited.found(depth, at, None, violation);
        }
        steps.of(rules, &state);
        for (action, next, violation) in steps.next.drain(..) {
            if let Some(violation) = violation {
                return visited.found(depth + 1, at, Some(action), violation);
            }
            visited.insert(next, u32::try_from(at).expect("below the limit"), action);
        }
        at += 1;
        if visited.states.len() >= limit {
            return Found {
                states: visited.states.len(),
                depth,
                is_complete: false,
                counterexample: None,
            };
        }
    }
    Found {
        states: visited.states.len(),
        depth,
        is_complete: true,
        counterexample: None,
    }
}

/// States in the order in which they were found, each with the step that led to it, and an index by
/// hash.
struct Visited {
    states: Vec<(State, u32, Action)>,
    table: Vec<u32>,
    hasher: FixedState,
}

impl Visited {
    fn new() -> Self {
        Self {
            states: Vec::new(),
            table: vec![u32::MAX; 1 << 16],
            hasher: FixedState,
        }
    }

    fn insert(&mut self, state: State, parent: u32, action: Action) {
        if self.states.len() * 2 > self.table.len() {
            self.grow();
        }
        let mask = self.table.len() - 1;
        let mut place = self.hasher.hash_one(state) as usize & mask;
        loop {
            match self.table[place] {
                u32::MAX => break,
                index if self.states[index as usize].0 == state => return,
                _ => place = (place + 1) & mask,
            }
        }
        self.table[place] = u32::try_from(self.states.len()).expect("below the limit");
        self.states.push((state, parent, action));
    }

    fn grow(&mut self) {
        let mask = self.table.len() * 4 - 1;
        self.table = vec![u32::MAX; mask + 1];
        for (index, (state, _, _)) in self.states.iter().enumerate() {
            let mut place = self.hasher.hash_one(state) as usize & mask;
            while self.table[place] != u32::MAX {
                place = (place + 1) & mask;
            }
            self.table[place] = u32::try_from(index).expect("below the limit");
        }
    }

    fn found(&self, depth: usize, at: usize, last: Option<Action>, violation: Violation) -> Found {
        let mut actions: Vec<Action> = last.into_iter().collect();
        let mut index = at;
        while self.states[index].1 != u32::MAX {
            actions.push(self.states[index].2);
            index = self.states[index].1 as usize;
        }
        actions.reverse();
        Found {
            states: self.states.len(),
            depth,
            is_complete: false,
            counterexample: Some((violation, actions)),
        }
    }
}

/// A fast hash that is the same in every run.
#[derive(Clone, Copy)]
struct FixedState;

impl BuildHasher for FixedState {
    type Hasher = Mix;

    fn build_hasher(&self) -> Mix {
        Mix(0)
    }
}

struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}
