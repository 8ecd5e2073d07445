//! Which member of a pool serves the next connection or request.
//!
//! Each virtual server of each event loop has one of these: turns and counts are its own, so nothing
//! is shared on a request's path. What depends on a key ([`Method::Hash`]) depends on nothing else:
//! every event loop, worker and guest sends the same key to the same member.

use std::net::IpAddr;

use hitless_core::maglev::{Maglev, mix};
use hitless_types::site::{HashBy, Method};

use super::stats::fnv1a;

/// A member as one pool has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    /// Its place among all members.
    pub(super) member: usize,
    pub(super) weight: u16,
    /// Hash of what names it.
    pub(super) name: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Balance {
    method: Option<Method>,
    choices: Vec<Choice>,
    /// What each has saved up for its turn.
    credits: Vec<i64>,
    turn: usize,
    maglev: Maglev,
    random: u64,
}

impl Balance {
    /// `seed` tells event loops apart, so that they do not all begin with the same member.
    pub(super) fn new(seed: u32) -> Self {
        Self {
            turn: seed as usize,
            random: mix(seed.into()),
            ..Self::default()
        }
    }

    /// Takes a configuration. Turns go on where nothing has changed.
    pub(super) fn apply(&mut self, method: Method, choices: Vec<Choice>) {
        if self.method == Some(method) && self.choices == choices {
            return;
        }
        self.maglev = match method {
            Method::Hash => {
                let members = choices.iter().map(|choice| (choice.name, choice.weight));
                Maglev::new(&members.collect::<Vec<_>>())
            }
            Method::RoundRobin | Method::LeastConnections | Method::Random => Maglev::default(),
        };
        self.method = Some(method);
        self.credits = vec![0; choices.len()];
        self.choices = choices;
    }

    pub(super) fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The next member's place. `key` is the hash of what the pool chooses by; `usable` says whether
    /// a member may be chosen, `open` how many clients use it. `None`: no usable one is left.
    pub(super) fn choose(
        &mut self,
        key: u64,
        usable: impl Fn(usize) -> bool,
        open: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        match self.method? {
            Method::RoundRobin => self.by_turn(usable),
            Method::LeastConnections => self.least(usable, open),
            Method::Random => self.of_two(usable, open),
            Method::Hash => {
                let mut order = self.maglev.order(key);
                let found = order.find(|at| usable(self.choices[*at].member));
                found.map(|at| self.choices[at].member)
            }
        }
    }

    /// Smooth weighted round robin: whoever has saved up most is next, and pays for all.
    fn by_turn(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (at, choice) in self.choices.iter().enumerate() {
            if !usable(choice.member) {
                continue;
            }
            let weight = i64::from(choice.weight);
            self.credits[at] += weight;
            total += weight;
            if best.is_none_or(|best| self.credits[at] > self.credits[best]) {
                best = Some(at);
            }
        }
        self.credits[best?] -= total;
        Some(self.choices[best?].member)
    }

    /// Of several equal ones the first from this turn on, so that an idle pool is used evenly.
    fn least(
        &mut self,
        usable: impl Fn(usize) -> bool,
        open: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let count = self.choices.len();
        self.turn = (self.turn + 1) % count.max(1);
        let from_turn = (0..count).map(|step| self.choices[(self.turn + step) % count]);
        let least = from_turn
            .filter(|choice| usable(choice.member))
            .min_by(|a, b| load(a, &open, b).cmp(&load(b, &open, a)));
        least.map(|choice| choice.member)
    }

    /// The less loaded of two that are drawn by their weights (Mitzenmacher, "The power of two
    /// choices in randomized load balancing").
    fn of_two(
        &mut self,
        usable: impl Fn(usize) -> bool,
        open: impl Fn(usize) -> u32,
    ) -> Option<usize> {
        let left: u64 = self.usable_weight(&usable, None);
        let first = self.draw(&usable, left, None)?;
        let left = self.usable_weight(&usable, Some(first));
        let Some(second) = self.draw(&usable, left, Some(first)) else {
            return Some(self.choices[first].member);
        };
        let (a, b) = (self.choices[first], self.choices[second]);
        // Idle ones are served as they are drawn: by weight.
        let load =
            |of: &Choice, other: &Choice| u64::from(open(of.member)) * u64::from(other.weight);
        let is_first = load(&a, &b) <= load(&b, &a);
        Some(if is_first { a.member } else { b.member })
    }

    fn usable_weight(&self, usable: impl Fn(usize) -> bool, but: Option<usize>) -> u64 {
        let choices = self.choices.iter().enumerate();
        let usable = choices.filter(|(at, choice)| Some(*at) != but && usable(choice.member));
        usable.map(|(_, choice)| u64::from(choice.weight)).sum()
    }

    fn draw(
        &mut self,
        usable: impl Fn(usize) -> bool,
        weight: u64,
        but: Option<usize>,
    ) -> Option<usize> {
        self.random = mix(self.random);
        let mut left = self.random.checked_rem(weight)?;
        for (at, choice) in self.choices.iter().enumerate() {
            if Some(at) == but || !usable(choice.member) {
                continue;
            }
            match left.checked_sub(choice.weight.into()) {
                None => return Some(at),
                Some(rest) => left = rest,
            }
        }
        None
    }
}

/// How loaded a member would be with one client more, for its weight, to be compared with the
/// other's.
fn load(of: &Choice, open: impl Fn(usize) -> u32, other: &Choice) -> u64 {
    (u64::from(open(of.member)) + 1) * u64::from(other.weight)
}

/// The hash of a key.
pub(super) fn key(bytes: &[u8]) -> u64 {
    mix(fnv1a(bytes))
}

/// The hash of what a pool chooses by, of a request. `None`: the request lacks it.
pub(super) fn key_of_request<'a>(
    by: &HashBy,
    host: Option<&[u8]>,
    path: &[u8],
    mut fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Option<u64> {
    match by {
        HashBy::Source => None,
        HashBy::Host => Some(key(&host?.to_ascii_lowercase())),
        HashBy::Path => Some(key(path)),
        HashBy::Header(wanted) => {
            let found = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
            found.map(|(_, value)| key(value))
        }
        HashBy::Cookie(wanted) => fields
            .filter(|(name, _)| name.eq_ignore_ascii_case(b"cookie"))
            .find_map(|(_, value)| cookie(value, wanted.as_bytes()))
            .map(key),
    }
}

/// A cookie of a Cookie field (RFC 6265 section 4.2).
fn cookie<'a>(field: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    field.split(|byte| *byte == b';').find_map(|pair| {
        let (name, value) = pair.trim_ascii().split_at_checked(wanted.len())?;
        (name == wanted).then(|| value.strip_prefix(b"="))?
    })
}

/// The hash of a client's address.
pub(super) fn key_of_client(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => key(&address.octets()),
        IpAddr::V6(address) => key(&address.octets()),
    }
}

#[cfg(test)]
mod tests;
