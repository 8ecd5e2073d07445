//! What every store does, run on each implementation. An implementation is added by one line at the
//! end.

#![allow(clippy::unwrap_used, reason = "a test panics where something is wrong")]

use std::time::Duration;

use hitless_store::{
    Committed, Compare, Embedded, Event, LeaseId, Memory, Operation, Revision, Store, StoreError,
    Transaction, VALUE_BYTES_MAX, WatchError,
};

fn put(key: &str, value: &str) -> Operation {
    Operation::Put {
        key: key.into(),
        value: value.into(),
        lease: None,
    }
}

fn commit(store: &mut dyn Store, compare: Vec<Compare>, then: Vec<Operation>) -> Committed {
    store.commit(Transaction { compare, then }).unwrap()
}

fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store
        .range(prefix)
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

fn every_write_has_a_revision(store: &mut dyn Store) {
    assert_eq!(store.revision(), Revision(0));
    assert_eq!(
        commit(store, vec![], vec![put("a", "1"), put("b", "1")]),
        Committed::Yes(Revision(1))
    );
    assert_eq!(
        commit(store, vec![], vec![put("a", "2")]),
        Committed::Yes(Revision(2))
    );
    let entry = store.get("a").unwrap().unwrap();
    assert_eq!(
        (entry.created, entry.modified, entry.version),
        (Revision(1), Revision(2), 2)
    );
    assert_eq!(entry.value, b"2");
    // Nothing changed: no revision.
    let nothing = vec![Operation::Delete { key: "none".into() }];
    assert_eq!(commit(store, vec![], nothing), Committed::Yes(Revision(2)));
    // Made anew, it begins anew.
    commit(store, vec![], vec![Operation::Delete { key: "a".into() }]);
    commit(store, vec![], vec![put("a", "3")]);
    let entry = store.get("a").unwrap().unwrap();
    assert_eq!((entry.created, entry.version), (Revision(4), 1));
}

fn a_transaction_is_whole_or_nothing(store: &mut dyn Store) {
    commit(store, vec![], vec![put("a", "1"), put("b", "1")]);
    let stale = vec![
        Compare::Modified("a".into(), Revision(1)),
        Compare::Modified("b".into(), Revision(7)),
    ];
    assert_eq!(
        commit(store, stale, vec![put("a", "2"), put("c", "2")]),
        Committed::No(Revision(1))
    );
    assert_eq!(keys(store, ""), ["a", "b"]);
    assert_eq!(store.get("a").unwrap().unwrap().value, b"1");
    let right = vec![
        Compare::Modified("a".into(), Revision(1)),
        Compare::Value("b".into(), b"1".to_vec()),
        Compare::Present("b".into()),
        Compare::Absent("c".into()),
    ];
    assert_eq!(
        commit(store, right.clone(), vec![put("c", "2")]),
        Committed::Yes(Revision(2))
    );
    assert_eq!(
        commit(store, right, vec![put("c", "3")]),
        Committed::No(Revision(2))
    );
    let twice = Transaction {
        compare: vec![],
        then: vec![put("d", "1"), put("d", "2")],
    };
    assert!(matches!(store.commit(twice), Err(StoreError::Twice(key)) if key == "d"));
    let swept = Operation::DeletePrefix { prefix: "d".into() };
    let twice = Transaction {
        compare: vec![],
        then: vec![put("d1", "1"), swept],
    };
    assert!(matches!(store.commit(twice), Err(StoreError::Twice(_))));
    assert_eq!(store.revision(), Revision(2));
}

fn a_range_is_sorted_and_ends_with_its_prefix(store: &mut dyn Store) {
    let all = ["guest/b", "guest/a", "guests", "node/a", "gues", "guest/"];
    commit(store, vec![], all.iter().map(|key| put(key, key)).collect());
    assert_eq!(keys(store, "guest/"), ["guest/", "guest/a", "guest/b"]);
    assert_eq!(keys(store, "").len(), 6);
    commit(
        store,
        vec![],
        vec![Operation::DeletePrefix {
            prefix: "guest/".into(),
        }],
    );
    assert_eq!(keys(store, ""), ["gues", "guests", "node/a"]);
}

fn a_watch_misses_nothing(store: &mut dyn Store) {
    commit(store, vec![], vec![put("a/1", "x"), put("b/1", "x")]);
    let mut from_start = store.watch("a/", Revision(0)).unwrap();
    let mut from_now = store.watch("a/", store.revision()).unwrap();
    assert!(from_now.poll().unwrap().is_empty());
    commit(store, vec![], vec![put("a/2", "y"), put("b/2", "y")]);
    commit(
        store,
        vec![],
        vec![Operation::DeletePrefix { prefix: "".into() }],
    );
    let seen: Vec<_> = from_now
        .poll()
        .unwrap()
        .iter()
        .map(|e| (e.key().to_owned(), e.at().0))
        .collect();
    assert_eq!(
        seen,
        [
            ("a/2".to_owned(), 2),
            ("a/1".to_owned(), 3),
            ("a/2".to_owned(), 3)
        ]
    );
    assert!(from_now.poll().unwrap().is_empty());
    assert_eq!(from_start.wait(Duration::from_secs(5)).unwrap().len(), 4);
    assert!(from_start.wait(Duration::ZERO).unwrap().is_empty());
    let ahead = store.watch("", Revision(9)).map(|_| ());
    assert_eq!(
        ahead,
        Err(WatchError::Future {
            asked: Revision(9),
            current: Revision(3)
        })
    );
}

fn events_that_are_no_longer_kept_are_said_so(store: &mut dyn Store) {
    let mut watch = store.watch("", Revision(0)).unwrap();
    let large = "x".repeat(VALUE_BYTES_MAX);
    for _ in 0..3 {
        commit(store, vec![], vec![put("a", &large)]);
    }
    assert!(matches!(
        watch.poll(),
        Err(WatchError::Compacted {
            asked: Revision(0),
            ..
        })
    ));
    let mut watch = store.watch("", store.revision()).unwrap();
    commit(store, vec![], vec![put("a", "small")]);
    assert!(matches!(&watch.poll().unwrap()[..], [Event::Put(entry)] if entry.value == b"small"));
}

fn a_lease_takes_its_keys_along(store: &mut dyn Store) {
    let lease = store.grant(1_000, 500).unwrap();
    let other = store.grant(1_000, 5_000).unwrap();
    let held = |key: &str, lease| Operation::Put {
        key: key.into(),
        value: vec![1],
        lease: Some(lease),
    };
    commit(
        store,
        vec![],
        vec![
            held("a", lease),
            held("b", lease),
            held("c", other),
            put("d", "stays"),
        ],
    );
    store.keep_alive(1_400, lease).unwrap();
    store.expire(1_800).unwrap();
    assert_eq!(keys(store, ""), ["a", "b", "c", "d"]);
    store.expire(1_900).unwrap();
    assert_eq!(keys(store, ""), ["c", "d"]);
    assert_eq!(
        store.revision(),
        Revision(2),
        "both keys go in one revision"
    );
    assert!(matches!(
        store.keep_alive(1_900, lease),
        Err(StoreError::NoLease(_))
    ));
    store.revoke(other).unwrap();
    assert_eq!(keys(store, ""), ["d"]);
    let late = Transaction {
        compare: vec![],
        then: vec![held("e", other)],
    };
    assert!(matches!(store.commit(late), Err(StoreError::NoLease(id)) if id == other));
    assert!(matches!(
        store.revoke(LeaseId(77)),
        Err(StoreError::NoLease(_))
    ));
    // A key that is written without its lease is free of it.
    let lease = store.grant(2_000, 500).unwrap();
    commit(store, vec![], vec![held("f", lease)]);
    commit(store, vec![], vec![put("f", "free")]);
    store.expire(9_000).unwrap();
    assert_eq!(keys(store, ""), ["d", "f"]);
}

fn limits_are_kept(store: &mut dyn Store) {
    let long = Operation::Put {
        key: "a".into(),
        value: vec![0; VALUE_BYTES_MAX + 1],
        lease: None,
    };
    for operation in [long, put("", "x"), put(&"k".repeat(513), "x")] {
        let refused = store.commit(Transaction {
            compare: vec![],
            then: vec![operation],
        });
        assert!(matches!(refused, Err(StoreError::Limit { .. })));
    }
    let many = (0..5_000)
        .map(|number| put(&number.to_string(), "x"))
        .collect();
    let refused = store.commit(Transaction {
        compare: vec![],
        then: many,
    });
    assert!(matches!(refused, Err(StoreError::Limit { .. })));
    assert_eq!(store.revision(), Revision(0));
}

macro_rules! conformance {
    ($implementation:ident, $open:expr) => {
        mod $implementation {
            conformance!(@tests $open, every_write_has_a_revision, a_transaction_is_whole_or_nothing,
                a_range_is_sorted_and_ends_with_its_prefix, a_watch_misses_nothing,
                events_that_are_no_longer_kept_are_said_so, a_lease_takes_its_keys_along, limits_are_kept);
        }
    };
    (@tests $open:expr, $($test:ident),*) => {
        $(#[test]
        fn $test() {
            let (_keep, mut store) = $open;
            super::$test(&mut store);
        })*
    };
}

conformance!(memory, ((), super::Memory::default()));
conformance!(embedded, super::embedded_in_a_folder());

fn embedded_in_a_folder() -> (tempfile::TempDir, Embedded) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("store")).unwrap();
    (folder, store)
}

#[test]
fn embedded_comes_back_with_everything_but_its_past() {
    let (folder, mut store) = embedded_in_a_folder();
    let lease = store.grant(5_000_000, 1_000).unwrap();
    let held = Operation::Put {
        key: "held".into(),
        value: vec![1],
        lease: Some(lease),
    };
    commit(&mut store, vec![], vec![put("a", "1"), held]);
    commit(&mut store, vec![], vec![put("a", "2")]);
    let before = store.range("").unwrap();
    drop(store);
    let mut store = Embedded::open(&folder.path().join("store")).unwrap();
    assert_eq!(store.range("").unwrap(), before);
    assert!(matches!(
        store.watch("", Revision(1)),
        Err(WatchError::Compacted { .. })
    ));
    // The clock began anew: the lease has its whole time from here.
    store.expire(10).unwrap();
    assert!(store.get("held").unwrap().is_some());
    store.expire(1_010).unwrap();
    assert!(store.get("held").unwrap().is_none());
    assert_ne!(
        store.grant(1_010, 1_000).unwrap(),
        lease,
        "a lease's number is never used again"
    );
}

#[test]
fn embedded_refuses_what_is_not_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    std::fs::write(&path, vec![7; 8_192]).unwrap();
    assert!(matches!(Embedded::open(&path), Err(StoreError::Backend(_))));
    let (_folder, store) = embedded_in_a_folder();
    assert!(matches!(
        Embedded::open(&_folder.path().join("store")),
        Err(StoreError::Backend(_))
    ));
    drop(store);
}
