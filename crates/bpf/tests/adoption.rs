//! Loading, adopting, replacing. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::num::NonZeroU16;

use hitless_bpf::{AddressKind, Adoption, Director, Hop, Identity, Ingress, Vni};
use hitless_core::flow::FlowKey;
use hitless_core::row::{Bucket, GuestSlot, Row, Sequence};
use hitless_harness::needs;
use support::BpfFolder;

const KEY: FlowKey = FlowKey(*b"hitless test key");

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

fn hop() -> Hop {
    Hop {
        source: "10.0.0.1".parse().unwrap(),
        destination: "10.0.0.2".parse().unwrap(),
        mac: [2, 0, 0, 0, 0, 2],
        source_mac: [2, 0, 0, 0, 0, 1],
        ifindex: None,
        mtu: Some(1500),
    }
}

#[test]
fn next_director_finds_what_the_last_one_left_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let vni = Vni::new(7).unwrap();
    let row = Row::new(&[slot(1), slot(2)], Sequence(5)).unwrap();
    let address = "192.0.2.1".parse().unwrap();
    {
        let director = Director::open(pins.path()).unwrap();
        assert_eq!(director.adoption(), Adoption::Fresh);
        director
            .set_cluster(vni, KEY, NonZeroU16::new(3).unwrap())
            .unwrap();
        director
            .set_address(address, vni, AddressKind::Vip)
            .unwrap();
        director.set_rows(vni, &[(Bucket(9), row)]).unwrap();
        director.set_guest(vni, slot(1), &hop()).unwrap();
        director.set_dead(vni, slot(2), true).unwrap();
        director.barrier().unwrap();
    }
    let director = Director::open(pins.path()).unwrap();
    assert_eq!(director.adoption(), Adoption::Adopted);
    assert_eq!(director.clusters(), [vni]);
    assert_eq!(
        director.addresses().unwrap(),
        [(address, vni, AddressKind::Vip)]
    );
    assert_eq!(director.row(vni, Bucket(9)).unwrap(), row);
    assert_eq!(director.row(vni, Bucket(8)).unwrap(), Row::NONE);
    assert_eq!(director.guest(vni, slot(1)).unwrap(), Some(hop()));
    assert_eq!(director.guest(vni, slot(2)).unwrap(), None);
    assert!(director.is_dead(vni, slot(2)).unwrap());
    assert!(director.remove_cluster(vni).unwrap());
    assert_eq!(director.addresses().unwrap(), []);
}

#[test]
fn next_ingress_finds_what_the_last_one_left_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let identity = Identity {
        vni: Vni::new(7).unwrap(),
        key: KEY,
        slot: slot(1),
    };
    let row = Row::new(&[slot(1)], Sequence(2)).unwrap();
    {
        let ingress = Ingress::open(pins.path(), identity).unwrap();
        ingress.set_rows(&[(Bucket(1), row)]);
        ingress.set_peer(slot(2), &hop()).unwrap();
        ingress.set_lease(77);
    }
    let ingress = Ingress::open(pins.path(), identity).unwrap();
    assert_eq!(ingress.adoption(), Adoption::Adopted);
    assert_eq!(ingress.row(Bucket(1)), row);
    assert_eq!(ingress.peer(slot(2)), Some(hop()));
    assert_eq!(ingress.lease_until_ns(), 77);
    let other = Identity {
        slot: slot(2),
        ..identity
    };
    assert!(Ingress::open(pins.path(), other).is_err());
}

/// Tables of another layout are left alone until the new ones are filled and the programs replaced.
#[test]
fn another_layout_is_filled_anew_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let identity = Identity {
        vni: Vni::new(7).unwrap(),
        key: KEY,
        slot: slot(1),
    };
    let row = Row::new(&[slot(1)], Sequence(2)).unwrap();
    drop(Director::open(pins.path()).unwrap());
    Ingress::open(pins.path(), identity)
        .unwrap()
        .set_rows(&[(Bucket(1), row)]);
    let other = |role: &str| pins.path().join(role).join("other");
    for role in ["director", "ingress"] {
        let folders = std::fs::read_dir(pins.path().join(role)).unwrap();
        let tables = folders
            .map(|entry| entry.unwrap().path())
            .find(|path| !path.ends_with("links"))
            .unwrap();
        std::fs::rename(tables, other(role)).unwrap();
    }
    let mut director = Director::open(pins.path()).unwrap();
    let mut ingress = Ingress::open(pins.path(), identity).unwrap();
    assert_eq!(director.adoption(), Adoption::NewLayout);
    assert_eq!(ingress.adoption(), Adoption::NewLayout);
    assert_eq!(ingress.row(Bucket(1)), Row::NONE, "new tables are empty");
    assert!(other("director").join("rows").exists());
    assert!(other("ingress").join("rows").exists());
    ingress.set_rows(&[(Bucket(1), row)]);
    director.replace_program().unwrap();
    ingress.replace_program().unwrap();
    assert_eq!(director.adoption(), Adoption::Adopted);
    assert_eq!(ingress.adoption(), Adoption::Adopted);
    assert!(!other("director").exists());
    assert!(!other("ingress").exists());
    drop(ingress);
    let ingress = Ingress::open(pins.path(), identity).unwrap();
    assert_eq!(ingress.adoption(), Adoption::Adopted);
    assert_eq!(ingress.row(Bucket(1)), row);
}

#[test]
fn pins_need_a_bpf_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let error = Director::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("bpf file system"), "{error}");
}

/// Handles are used by threads of an agent.
#[test]
fn handles_may_change_threads() {
    fn may_change_threads<T: Send + Sync>() {}
    may_change_threads::<Director>();
    may_change_threads::<Ingress>();
}
