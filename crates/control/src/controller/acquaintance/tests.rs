use hitless_core::flow::FlowKey;

use super::*;
use crate::controller::records::{GuestWanted, NodeRecord, NodeWanted};
use crate::message::Known;

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).unwrap()
}

/// Nodes n1, n2 (directors 1, 2), guests g1 on n1, which rows may name, and g2 on n2, which is new.
fn cluster() -> (
    Records,
    BTreeMap<GuestSlot, GuestRecord>,
    BTreeMap<&'static str, NodeReport>,
) {
    let mut store = hitless_store::Memory::default();
    let (mut records, _) = Records::load(&mut store, || FlowKey([7; 16])).unwrap();
    let mut slots = BTreeMap::new();
    let mut reports = BTreeMap::new();
    let everybody = Known {
        guests: [1, 2].map(slot).into(),
        directors: [1, 2].map(DirectorId).into(),
    };
    for (number, node, guest) in [(1, "n1", "g1"), (2, "n2", "g2")] {
        let record = NodeRecord {
            wanted: NodeWanted::Member,
            change: None,
            director: DirectorId(number),
            kernel: Some(1),
            address: None,
            is_directing: true,
            is_joined: number == 1,
            release: None,
        };
        records.nodes.insert(node.to_owned(), record);
        let record = crate::controller::records::GuestRecord {
            node: node.to_owned(),
            wanted: GuestWanted::Serve,
            change: None,
            boot: Some(7),
            addresses: Vec::new(),
            ends_for: None,
        };
        records.guests.insert(guest.to_owned(), record);
        let known = GuestRecord {
            name: guest.to_owned(),
            boot: 7,
            state: State::Serving,
            is_known: number == 1,
        };
        slots.insert(slot(number), known);
        let report = GuestReport {
            boot: 7,
            is_linked: true,
            known: everybody.clone(),
            ..GuestReport::default()
        };
        let report = NodeReport {
            known: everybody.clone(),
            guests: BTreeMap::from([(guest.to_owned(), report)]),
            ..NodeReport::default()
        };
        reports.insert(node, report);
    }
    (records, slots, reports)
}

#[test]
fn whoever_is_missing_is_named() {
    let look = |forget: &dyn Fn(&mut BTreeMap<&'static str, NodeReport>)| {
        let (records, slots, mut reports) = cluster();
        forget(&mut reports);
        let reports = reports
            .iter()
            .map(|(name, report)| (*name, report))
            .collect();
        let seen = Acquaintance {
            records: &records,
            slots: &slots,
            reports: &reports,
        };
        assert_eq!(
            seen.met().guests.contains(&slot(2)),
            seen.missing_for_guest(slot(2)).is_none()
        );
        (seen.missing_for_guest(slot(2)), seen.missing_for_node("n2"))
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(look(&|_| ()), (None, None));
    let forget_g2 = |known: &mut Known| assert!(known.guests.remove(&slot(2)));
    let forget_n2 = |known: &mut Known| assert!(known.directors.remove(&DirectorId(2)));
    assert_eq!(
        look(&|of| forget_g2(&mut of.get_mut("n1").unwrap().known)).0,
        some("n1")
    );
    assert_eq!(
        look(&|of| forget_n2(&mut of.get_mut("n1").unwrap().known)).1,
        some("n1")
    );
    let of_g1 = |of: &mut BTreeMap<&str, NodeReport>, change: &dyn Fn(&mut Known)| {
        change(
            &mut of
                .get_mut("n1")
                .unwrap()
                .guests
                .get_mut("g1")
                .unwrap()
                .known,
        );
    };
    let of_g2 = |of: &mut BTreeMap<&str, NodeReport>, change: &dyn Fn(&mut Known)| {
        change(
            &mut of
                .get_mut("n2")
                .unwrap()
                .guests
                .get_mut("g2")
                .unwrap()
                .known,
        );
    };
    assert_eq!(look(&|of| of_g1(of, &forget_g2)).0, some("g1"));
    assert_eq!(look(&|of| of_g1(of, &forget_n2)).1, some("g1"));
    let forget_g1 = |known: &mut Known| assert!(known.guests.remove(&slot(1)));
    assert_eq!(look(&|of| of_g2(of, &forget_g1)).0, some("g1"));
    let forget_n1 = |known: &mut Known| assert!(known.directors.remove(&DirectorId(1)));
    assert_eq!(look(&|of| of_g2(of, &forget_n1)).0, some("n1"));
    // Another boot than the slot's says nothing of it.
    let reborn = |of: &mut BTreeMap<&str, NodeReport>| {
        of.get_mut("n2").unwrap().guests.get_mut("g2").unwrap().boot = 8;
    };
    assert!(look(&reborn).0.is_some());
    // A node whose agent is away holds everything up, by name.
    let away = |of: &mut BTreeMap<&str, NodeReport>| assert!(of.remove("n1").is_some());
    assert_eq!(look(&away), (some("n1"), some("n1")));
}
