//! The links of one kind of peer: at most one per peer, whatever order they come in.
//!
//! Every link has a thread of its own, so the hello of a peer's older link may be heard after that
//! of its newer one, and its end at any time. Invariants: the link that was opened last is the
//! peer's; a link that is not, is closed, so that a peer that lives behind it notices and dials
//! again; an end takes away the link that ended, never its successor.

use std::collections::BTreeMap;

use super::LinkId;

/// What its owner knows of a linked peer. It holds the link's [`Sender`](super::Sender): dropping
/// it closes the link.
pub trait Linked {
    /// Whether both are links of the same peer.
    fn is_same_peer(&self, other: &Self) -> bool;
}

/// See the module.
#[derive(Debug)]
pub struct LinkTable<T>(BTreeMap<LinkId, T>);

impl<T> Default for LinkTable<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Linked> LinkTable<T> {
    /// A link is up. False: the peer has a newer one, and this one is closed.
    pub fn up(&mut self, link: LinkId, peer: T) -> bool {
        let has_newer = self
            .0
            .range(link..)
            .any(|(_, other)| other.is_same_peer(&peer));
        if has_newer {
            return false;
        }
        self.0.retain(|_, other| !other.is_same_peer(&peer));
        self.0.insert(link, peer);
        true
    }

    /// A link ended. What it was, unless it had been replaced.
    pub fn down(&mut self, link: LinkId) -> Option<T> {
        self.0.remove(&link)
    }

    pub fn get(&self, link: LinkId) -> Option<&T> {
        self.0.get(&link)
    }

    pub fn get_mut(&mut self, link: LinkId) -> Option<&mut T> {
        self.0.get_mut(&link)
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.values_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::link::Sender;
    use crate::link::tests::{Note, sender};

    struct Peer {
        name: &'static str,
        _sender: Sender<Note>,
    }

    impl Linked for Peer {
        fn is_same_peer(&self, other: &Self) -> bool {
            self.name == other.name
        }
    }

    fn peer(name: &'static str, link: u64) -> (LinkId, Peer, UnixStream) {
        let (_sender, far) = sender(LinkId(link));
        (LinkId(link), Peer { name, _sender }, far)
    }

    /// The far end is told: otherwise it would wait for orders for ever.
    fn is_closed(far: &UnixStream) -> bool {
        let patience = std::time::Duration::from_secs(5);
        far.set_read_timeout(Some(patience)).unwrap();
        matches!((&*far).read(&mut [0; 1]), Ok(0))
    }

    fn is_open(far: &UnixStream) -> bool {
        far.set_nonblocking(true).unwrap();
        let read = (&*far).read(&mut [0; 1]);
        far.set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    #[test]
    fn the_newest_link_of_a_peer_stays_in_whatever_order_they_come() {
        for order in [[1, 2], [2, 1]] {
            let mut table = LinkTable::default();
            let mut fars = BTreeMap::new();
            for number in order {
                let (link, peer, far) = peer("n1", number);
                assert_eq!(table.up(link, peer), order[0] == number || number == 2);
                fars.insert(number, far);
            }
            assert!(is_closed(&fars[&1]), "{order:?}");
            assert!(is_open(&fars[&2]), "{order:?}");
            // The end of the older one comes last of all, and takes nothing away.
            assert!(table.down(LinkId(1)).is_none());
            assert_eq!(table.values().count(), 1);
            assert!(table.down(LinkId(2)).is_some());
            assert_eq!(table.values().count(), 0);
            assert!(is_closed(&fars[&2]));
        }
    }

    #[test]
    fn other_peers_are_left_alone() {
        let mut table = LinkTable::default();
        let (link, one, far) = peer("g1", 5);
        assert!(table.up(link, one));
        let (link, other, _far) = peer("g2", 4);
        assert!(table.up(link, other));
        assert!(is_open(&far));
        assert_eq!(table.values().count(), 2);
    }
}
