//! A coarse timer wheel: one per event loop.
//!
//! An entry is a token and the moment at which its owner wants to be looked at; the owner then says
//! whether anything is due. A deadline that moves further away costs nothing: the entry fires early
//! and is set again. Precision is one [`TICK_US`], which is enough for timeouts of seconds.

use mio::Token;

/// 65 ms.
pub(super) const TICK_US: u64 = 1 << 16;
const TICKS: usize = 1024;
const WORDS: usize = TICKS / 64;

#[derive(Debug)]
pub(super) struct Wheel {
    places: Vec<Vec<Token>>,
    /// A bit for each place that is not empty: a loop asks with each turn which is the next.
    used: [u64; WORDS],
    /// The next tick to fire.
    next: u64,
    entries: usize,
}

impl Wheel {
    pub(super) fn new(now_us: u64) -> Self {
        Self {
            places: vec![Vec::new(); TICKS],
            used: [0; WORDS],
            next: now_us / TICK_US + 1,
            entries: 0,
        }
    }

    /// Sets an entry. `armed_us` is the owner's note of when its earliest entry fires (0: it has
    /// none): an entry is only added if that is later than what is wanted.
    pub(super) fn set(&mut self, token: Token, at_us: u64, armed_us: &mut u64) {
        if *armed_us != 0 && *armed_us <= at_us + TICK_US {
            return;
        }
        let farthest = self.next + TICKS as u64 - 1;
        let tick = (at_us / TICK_US + 1).clamp(self.next, farthest);
        let place = (tick % TICKS as u64) as usize;
        self.places[place].push(token);
        self.used[place / 64] |= 1 << (place % 64);
        self.entries += 1;
        *armed_us = tick * TICK_US;
    }

    /// Entries that are due. Their owners have no entry any more.
    pub(super) fn due(&mut self, now_us: u64, into: &mut Vec<Token>) {
        let now = now_us / TICK_US;
        if self.entries == 0 {
            self.next = self.next.max(now + 1);
            return;
        }
        let mut turns = 0;
        while self.next <= now && turns < TICKS {
            let at = (self.next % TICKS as u64) as usize;
            let place = &mut self.places[at];
            self.entries -= place.len();
            into.append(place);
            self.used[at / 64] &= !(1 << (at % 64));
            self.next += 1;
            turns += 1;
        }
        self.next = self.next.max(now + 1);
    }

    /// How long to sleep at most. `None`: no entry.
    pub(super) fn sleep_us(&self, now_us: u64) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let ahead = self.next_used()?;
        Some(((self.next + ahead) * TICK_US).saturating_sub(now_us))
    }

    /// How far the next place is that is not empty.
    fn next_used(&self) -> Option<u64> {
        let start = (self.next % TICKS as u64) as usize;
        let (word, bit) = (start / 64, start % 64);
        // The first word comes twice: from its bit on, and at the end up to it.
        (0..=WORDS).find_map(|step| {
            let at = (word + step) % WORDS;
            let mask = match step {
                0 => u64::MAX << bit,
                WORDS => (1u64 << bit) - 1,
                _ => u64::MAX,
            };
            let found = self.used[at] & mask;
            let place = at * 64 + found.trailing_zeros() as usize;
            (found != 0).then(|| ((place + TICKS - start) % TICKS) as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_entry_is_found_wherever_it_is() {
        for start in [0, 1, 63, 64, 1000, 1023, 5000] {
            for ahead in [1, 2, 62, 63, 64, 65, 500, 959, 960, 1022] {
                let mut wheel = Wheel::new(start * TICK_US);
                let at_us = (start + ahead) * TICK_US;
                wheel.set(Token(1), at_us, &mut 0);
                let sleep_us = wheel.sleep_us(start * TICK_US).unwrap();
                assert_eq!(sleep_us, (ahead + 1).min(1024) * TICK_US, "{start} {ahead}");
                let mut due = Vec::new();
                wheel.due(start * TICK_US + sleep_us, &mut due);
                assert_eq!((due.len(), wheel.sleep_us(0)), (1, None));
            }
        }
    }

    #[test]
    fn entries_fire_in_time_and_far_ones_early() {
        let mut wheel = Wheel::new(1_000_000);
        let (mut near, mut far, mut due) = (0, 0, Vec::new());
        wheel.set(Token(1), 3_000_000, &mut near);
        wheel.set(Token(2), 500_000_000, &mut far);
        wheel.set(Token(1), 9_000_000, &mut near);
        assert!(near <= 3_000_000 + TICK_US, "the earlier entry stands");
        assert!(far < 500_000_000, "beyond the wheel it fires early");
        wheel.due(2_900_000, &mut due);
        assert!(due.is_empty());
        assert!(wheel.sleep_us(2_900_000).unwrap() <= 100_000 + 2 * TICK_US);
        wheel.due(3_000_000 + 2 * TICK_US, &mut due);
        assert_eq!(due, [Token(1)]);
        wheel.due(1_000_000_000, &mut due);
        assert_eq!(due, [Token(1), Token(2)]);
        assert_eq!(wheel.sleep_us(1_000_000_000), None);
    }
}
