//! Consistent hashing by a look-up table, as Maglev does it (Eisenbud et al., NSDI 2016, section 3.4).
//!
//! Each member fills the table's places in an order of its own, as many as its weight says. A key's
//! member is that of its place. When members come or go, few other keys change their member; when one
//! is only out of use, its keys go to the members of the places behind, and come back.
//!
//! The same members with the same weights give the same table in every process, whatever their order.

/// Places for each member at least: shares are then right within some percent.
const PLACES_PER_MEMBER: usize = 100;
/// Numbers of places. They are prime, so that every step passes every place.
const SIZES: [u32; 11] = [
    251, 509, 1_021, 2_039, 4_093, 8_191, 16_381, 32_749, 65_521, 131_071, 524_287,
];

/// Who serves which key.
#[derive(Clone, Debug, Default)]
pub struct Maglev {
    places: Vec<u16>,
    members: usize,
}

impl Maglev {
    /// A table for members by the hash of what names them, no hash twice, and their weights, above
    /// 0. A member is then called by its position here.
    pub fn new(members: &[(u64, u16)]) -> Self {
        let heaviest = members.iter().map(|(_, weight)| *weight).max();
        let Some(heaviest) = heaviest.filter(|weight| *weight > 0) else {
            return Self::default();
        };
        let wanted = members.len().saturating_mul(PLACES_PER_MEMBER);
        let largest = SIZES[SIZES.len() - 1];
        let size = SIZES.into_iter().find(|size| *size as usize >= wanted);
        let size = u64::from(size.unwrap_or(largest));

        // Whose turn comes first is decided by the name, not by who wrote the list.
        let mut turns: Vec<usize> = (0..members.len()).collect();
        turns.sort_by_key(|at| members[*at].0);
        let mut fillers: Vec<Filler> = turns
            .into_iter()
            .map(|at| Filler::new(at, members[at], heaviest, size))
            .collect();
        let mut places = vec![None; size as usize];
        let mut left = places.len();
        'all: loop {
            for filler in &mut fillers {
                let is_due = filler.credit >= u32::from(heaviest);
                filler.credit += u32::from(filler.weight);
                if !is_due {
                    continue;
                }
                filler.credit -= u32::from(heaviest);
                filler.fill(&mut places, size);
                left -= 1;
                if left == 0 {
                    break 'all;
                }
            }
        }
        Self {
            places: places.into_iter().flatten().collect(),
            members: members.len(),
        }
    }

    /// The members for a key's hash, the right one first, then who stands in for it, each of them
    /// once.
    pub fn order(&self, hash: u64) -> impl Iterator<Item = usize> {
        let size = self.places.len();
        let first = match size {
            0 => 0,
            _ => (hash % size as u64) as usize,
        };
        let mut seen = Seen::new(self.members);
        (0..size)
            .map(move |step| usize::from(self.places[(first + step) % size]))
            .filter(move |member| seen.is_new(*member))
            .take(self.members)
    }
}

/// A member that fills places.
struct Filler {
    member: u16,
    weight: u16,
    credit: u32,
    next: u64,
    step: u64,
}

impl Filler {
    fn new(at: usize, (hash, weight): (u64, u16), heaviest: u16, size: u64) -> Self {
        Self {
            member: u16::try_from(at).expect("a pool has less than 65,536 members"),
            weight,
            // However small its weight, it has a place.
            credit: u32::from(heaviest),
            next: mix(hash) % size,
            step: mix(!hash) % (size - 1) + 1,
        }
    }

    fn fill(&mut self, places: &mut [Option<u16>], size: u64) {
        loop {
            let place = &mut places[self.next as usize];
            self.next = (self.next + self.step) % size;
            if place.is_none() {
                *place = Some(self.member);
                return;
            }
        }
    }
}

/// Which members were met. The first is nearly always the one that is taken, so nothing is allocated
/// for it.
struct Seen {
    first: Option<usize>,
    others: Vec<bool>,
    members: usize,
}

impl Seen {
    const fn new(members: usize) -> Self {
        Self {
            first: None,
            others: Vec::new(),
            members,
        }
    }

    fn is_new(&mut self, member: usize) -> bool {
        let Some(first) = self.first else {
            self.first = Some(member);
            return true;
        };
        if member == first {
            return false;
        }
        if self.others.is_empty() {
            self.others.resize(self.members, false);
        }
        !core::mem::replace(&mut self.others[member], true)
    }
}

/// Spreads a hash over all 64 bits: the finaliser of `SplitMix64`.
pub const fn mix(hash: u64) -> u64 {
    let hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests;
