use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use hitless_core::row::{Bucket, GuestSlot, Row};
use hitless_core::table::message::DirectorId;

use super::*;
use crate::message::{AttachedProgram, IngressOrders};
use crate::plane::Count;

/// A kernel that holds these, and that is left alone with them where ending them fails.
#[derive(Default)]
struct Kernel {
    held: Mutex<Vec<Connection>>,
    fails: bool,
}

impl IngressPlane for Kernel {
    fn held(&self) -> Result<Vec<Connection>> {
        Ok(self.held.lock().unwrap().clone())
    }

    fn end_all(&self) -> Result<Vec<Connection>> {
        if self.fails {
            return Err(PlaneError("killed".into()));
        }
        Ok(std::mem::take(&mut self.held.lock().unwrap()))
    }

    fn set_up(&self, _: &IngressOrders) -> Result<()> {
        Ok(())
    }

    fn rows(&self) -> Vec<Row> {
        Vec::new()
    }

    fn store(&self, _: &[(Bucket, Row)]) -> Result<()> {
        Ok(())
    }

    fn count(&self) -> Result<Count> {
        Ok(Count::default())
    }

    fn lease(&self, _: u64) {}

    fn believe(&self, _: &[GuestSlot]) -> Result<()> {
        Ok(())
    }

    fn stampers(&self) -> Vec<DirectorId> {
        Vec::new()
    }

    fn replace(&self) -> Result<()> {
        Ok(())
    }

    fn program(&self) -> Option<AttachedProgram> {
        None
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }
}

fn connection(number: u16) -> Connection {
    Connection {
        client: SocketAddr::from(([10, 9, 0, 2], number)),
        server: SocketAddr::from(([203, 0, 113, 10], 80)),
    }
}

fn connections(count: u16) -> Vec<Connection> {
    (1..=count).map(connection).collect()
}

#[test]
fn each_is_told_once_and_the_list_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let mut ending = Ending::new(folder.path().join("ended.json"));
    let kernel = Kernel::default();
    *kernel.held.lock().unwrap() = connections(300);
    let first = ending.end_all(&kernel, 7).unwrap();
    assert_eq!((first.total, first.named.len()), (300, ENDED_NAMED_MAX));
    assert!(!first.is_all);
    // One that does not go, and one that came meanwhile.
    *kernel.held.lock().unwrap() = vec![connection(300), connection(301)];
    assert_eq!(ending.end_all(&kernel, 7).unwrap().total, 301);
    let last = ending.end_all(&kernel, 7).unwrap();
    assert_eq!((last.total, last.is_all), (301, true));
    // Another change begins anew.
    let other = ending.end_all(&kernel, 8).unwrap();
    assert_eq!((other.change, other.total, other.is_all), (8, 0, true));
}

#[test]
fn an_ingress_that_was_killed_still_tells_the_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ended.json");
    let killed = Kernel {
        held: Mutex::new(connections(2)),
        fails: true,
    };
    assert!(Ending::new(path.clone()).end_all(&killed, 7).is_err());
    // They are gone by now.
    let mut ending = Ending::new(path);
    let ended = ending.end_all(&Kernel::default(), 7).unwrap();
    assert_eq!((ended.total, ended.named), (2, connections(2)));
}
