//! New inputs from old ones. The same seed gives the same inputs.

/// Longest input: a little more than the largest frame.
const BYTES_MAX: usize = 20_000;

/// Bytes at which parsers decide something.
const INTERESTING: &[u8] =
    b"\0\x01\x02\x04\x05\x08\x09\x0a\x0d\x20\x24\x25\x3a\x3b\x3f\x40\x7f\x80\x82\xbe\xff0aA:";

pub(crate) struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    pub(crate) fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Mutator {
        Mutator {
            state: seed,
            corpus,
        }
    }

    /// A mutation of one input or two.
    pub(crate) fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.pick();
        if self.below(4) == 0 {
            let other = self.pick();
            let cut = self.below(input.len() + 1);
            let from = self.below(other.len() + 1);
            input.truncate(cut);
            input.extend_from_slice(&other[from..]);
        }
        for _ in 0..self.below(6) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        match self.below(7) {
            _ if at == input.len() => input.push(self.byte()),
            0 => input[at] = self.byte(),
            1 => input[at] ^= 1 << self.below(8),
            2 => input[at] = input[at].wrapping_add(if self.below(2) == 0 { 1 } else { 255 }),
            3 => input.insert(at, self.byte()),
            4 => drop(input.drain(at..(at + 1 + self.below(12)).min(input.len()))),
            5 => {
                // A piece once more, elsewhere.
                let end = (at + 1 + self.below(60)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            _ => input.truncate(at),
        }
    }

    fn pick(&mut self) -> Vec<u8> {
        match self.corpus.len() {
            0 => Vec::new(),
            count => {
                let index = self.below(count);
                self.corpus[index].clone()
            }
        }
    }

    fn byte(&mut self) -> u8 {
        match self.below(2) {
            0 => INTERESTING[self.below(INTERESTING.len())],
            _ => self.next() as u8,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
