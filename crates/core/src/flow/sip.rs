//! SipHash-1-3 over whole words, without the word of the length that closes it elsewhere: what is
//! hashed here says with its first word how long it is (`docs/adr/0001-row-and-option-layout.md`).

use super::FlowKey;

/// The state between two words.
#[derive(Clone, Copy)]
pub(super) struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl Sip {
    pub(super) fn new(key: FlowKey) -> Self {
        let half = |at: usize| {
            let bytes = key.0[at..at + 8].try_into();
            u64::from_le_bytes(bytes.expect("eight bytes are eight bytes"))
        };
        Self {
            v0: half(0) ^ 0x736f_6d65_7073_6575,
            v1: half(8) ^ 0x646f_7261_6e64_6f6d,
            v2: half(0) ^ 0x6c79_6765_6e65_7261,
            v3: half(8) ^ 0x7465_6462_7974_6573,
        }
    }

    pub(super) fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    pub(super) fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        for _ in 0..3 {
            self.round();
        }
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }

    /// The state with that half of the next round done that needs no word.
    pub(super) fn half_a_round_ahead(mut self) -> [u64; 4] {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        [self.v0, self.v1, self.v2, self.v3]
    }

    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }
}
