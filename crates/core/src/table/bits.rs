//! A set of buckets: 8 KiB, with cheap steps for what is done 65,536 times.

use crate::row::BUCKETS;

const WORDS: usize = BUCKETS / 64;

/// A set of bucket numbers.
#[derive(Clone, Debug)]
pub(crate) struct Bits {
    words: Vec<u64>,
    count: usize,
}

impl Default for Bits {
    fn default() -> Self {
        Self {
            words: vec![0; WORDS],
            count: 0,
        }
    }
}

impl Bits {
    pub(crate) fn contains(&self, index: usize) -> bool {
        self.words[index / 64] & (1 << (index % 64)) != 0
    }

    /// Whether `index` was not in the set.
    pub(crate) fn set(&mut self, index: usize) -> bool {
        let is_new = !self.contains(index);
        self.words[index / 64] |= 1 << (index % 64);
        self.count += usize::from(is_new);
        is_new
    }

    pub(crate) fn clear(&mut self, index: usize) {
        self.count -= usize::from(self.contains(index));
        self.words[index / 64] &= !(1 << (index % 64));
    }

    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// The members, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(place, word)| {
            let mut rest = *word;
            core::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                (rest != 0).then(|| {
                    rest &= rest - 1;
                    place * 64 + bit
                })
            })
        })
    }

    /// The members, and the set is empty afterwards.
    pub(crate) fn take(&mut self) -> Vec<usize> {
        let members = self.iter().collect();
        self.words.fill(0);
        self.count = 0;
        members
    }
}
