//! The table in the store: a header in JSON, and 64 pages of rows in binary.
//!
//! A bucket's entry takes 22 bytes: row 8, row before 8, wished owner 2, wished standby 2, why 2,
//! little-endian; a slot of 0 is none. A page begins with its schema in 2 bytes.

use hitless_core::assign::Wish;
use hitless_core::row::{GuestSlot, Row};
use hitless_core::table::controller::{Header, PAGE_BUCKETS, Page, SCHEMA};
use hitless_core::table::message::Generation;
use hitless_core::table::step::{Entry, Why};
use hitless_store::{Committed, Compare, Operation, Store, StoreError, Transaction};

const HEADER: &str = "v1/table/header";
const PAGES: &str = "v1/table/page/";
const ENTRY_BYTES: usize = 22;
/// Reasons by their stored number; new ones are added at the end.
const WHY: [Why; 10] = [
    Why::First,
    Why::Warm,
    Why::Shift,
    Why::Settle,
    Why::Standby,
    Why::Withdrawn,
    Why::SuspectToTail,
    Why::SuspectDropped,
    Why::Destroyed,
    Why::HolderAppended,
];

/// Why the table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableStoreError {
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("the stored table has schema {found}, this release reads {SCHEMA}")]
    Schema { found: u16 },
    #[error("the stored table is damaged at {key}")]
    Damaged { key: String },
}

/// Header and pages, in order. None: there is no table yet.
pub fn load(store: &dyn Store) -> Result<Option<(Header, Vec<Page>)>, TableStoreError> {
    let Some(entry) = store.get(HEADER)? else {
        return Ok(None);
    };
    let header: Header = serde_json::from_slice(&entry.value)
        .map_err(|_| TableStoreError::Damaged { key: HEADER.into() })?;
    if header.schema != SCHEMA {
        return Err(TableStoreError::Schema {
            found: header.schema,
        });
    }
    let pages = store.range(PAGES)?.entries;
    let pages = pages.iter().map(|entry| {
        decode(&entry.value).ok_or_else(|| TableStoreError::Damaged {
            key: entry.key.clone(),
        })
    });
    Ok(Some((header, pages.collect::<Result<_, _>>()?)))
}

/// Writes header and pages if the stored header has the generation `parent`. False: it has not.
pub fn write(
    store: &mut dyn Store,
    parent: Option<Generation>,
    header: &Header,
    pages: &[(u16, Page)],
) -> Result<bool, TableStoreError> {
    let stored = store.get(HEADER)?;
    let found = stored.as_ref().map(|entry| {
        serde_json::from_slice::<Header>(&entry.value).map(|header| header.generation)
    });
    let found = found
        .transpose()
        .map_err(|_| TableStoreError::Damaged { key: HEADER.into() })?;
    if found != parent {
        return Ok(false);
    }
    let compare = match stored {
        Some(entry) => Compare::Modified(HEADER.into(), entry.modified),
        None => Compare::Absent(HEADER.into()),
    };
    let value = serde_json::to_vec(header).expect("a header has no keys that JSON cannot hold");
    let mut then = vec![Operation::Put {
        key: HEADER.into(),
        value,
        lease: None,
    }];
    then.extend(pages.iter().map(|(number, page)| Operation::Put {
        key: format!("{PAGES}{number:03}"),
        value: encode(page),
        lease: None,
    }));
    let committed = store.commit(Transaction {
        compare: vec![compare],
        then,
    })?;
    Ok(matches!(committed, Committed::Yes(_)))
}

fn encode(page: &Page) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + page.entries.len() * ENTRY_BYTES);
    bytes.extend_from_slice(&page.schema.to_le_bytes());
    for entry in &page.entries {
        bytes.extend_from_slice(&entry.row.word().to_le_bytes());
        bytes.extend_from_slice(&entry.before.word().to_le_bytes());
        for slot in [entry.wish.owner, entry.wish.standby] {
            bytes.extend_from_slice(&slot.map_or(0, GuestSlot::number).to_le_bytes());
        }
        let why = WHY
            .iter()
            .position(|why| *why == entry.why)
            .expect("all reasons are listed");
        bytes.extend_from_slice(&(why as u16).to_le_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Page> {
    let (schema, entries) = bytes.split_first_chunk::<2>()?;
    let schema = u16::from_le_bytes(*schema);
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if schema != SCHEMA || entries.len() != PAGE_BUCKETS || !rest.is_empty() {
        return None;
    }
    let entries = entries.iter().map(|bytes| {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let slot = |at: usize| Some(GuestSlot::new(short(at)?));
        Some(Entry {
            row: Row::from_word(word(0)?)?,
            before: Row::from_word(word(8)?)?,
            wish: Wish {
                owner: slot(16)?,
                standby: slot(18)?,
            },
            why: *WHY.get(usize::from(short(20)?))?,
        })
    });
    Some(Page {
        schema,
        entries: entries.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hitless_core::row::Sequence;
    use hitless_store::Memory;

    use super::*;

    #[test]
    fn a_table_comes_back_and_an_old_writer_does_not_get_through() {
        let mut store = Memory::default();
        assert!(load(&store).unwrap().is_none());
        let slots = [GuestSlot::new(3).unwrap(), GuestSlot::new(4_095).unwrap()];
        let entry = Entry {
            row: Row::new(&slots, Sequence(65_535)).unwrap(),
            before: Row::new(&slots[..1], Sequence(65_534)).unwrap(),
            wish: Wish {
                owner: Some(slots[0]),
                standby: None,
            },
            why: Why::HolderAppended,
        };
        let page = Page {
            schema: SCHEMA,
            entries: vec![entry; PAGE_BUCKETS],
        };
        let header = |generation| Header {
            schema: SCHEMA,
            generation: Generation(generation),
            trust: Generation(1),
            last_slot: 7,
            guests: BTreeMap::new(),
        };
        let pages: Vec<_> = (0..64).map(|number| (number, page.clone())).collect();
        assert!(write(&mut store, None, &header(1), &pages).unwrap());
        assert!(!write(&mut store, None, &header(1), &[]).unwrap());
        assert!(write(&mut store, Some(Generation(1)), &header(2), &pages[..1]).unwrap());
        assert!(!write(&mut store, Some(Generation(1)), &header(2), &[]).unwrap());
        let (found, read) = load(&store).unwrap().unwrap();
        assert_eq!(found, header(2));
        assert_eq!(read, vec![page; 64]);
    }
}
