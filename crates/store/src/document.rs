//! Values with a schema version: a release reads its own and the previous one.
//!
//! A stored value is `{"schema": N, "value": ...}` in JSON. A kind of document says its schema and
//! how the one before is read; anything else is refused with both numbers named, never guessed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A kind of stored value.
pub trait Document: Serialize + DeserializeOwned {
    /// The schema that this release writes.
    const SCHEMA: u16;

    /// Reads the schema before. None: there is none that can be read.
    fn from_previous(value: serde_json::Value) -> Option<Self> {
        let _ = value;
        None
    }
}

/// Why a stored value cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error(
        "the value has schema {found}, this release reads {newest} and the one before where there was one"
    )]
    Schema { found: u16, newest: u16 },
    #[error("the value is not what its schema says")]
    Malformed(#[from] serde_json::Error),
}

#[derive(Serialize)]
struct Out<'a, T> {
    schema: u16,
    value: &'a T,
}

#[derive(Deserialize)]
struct In {
    schema: u16,
    value: serde_json::Value,
}

/// The bytes to store.
pub fn encode<T: Document>(value: &T) -> Vec<u8> {
    serde_json::to_vec(&Out {
        schema: T::SCHEMA,
        value,
    })
    .expect("a document has string keys and no failing parts")
}

/// The value of stored bytes.
pub fn decode<T: Document>(bytes: &[u8]) -> Result<T, DocumentError> {
    let read: In = serde_json::from_slice(bytes)?;
    let refused = DocumentError::Schema {
        found: read.schema,
        newest: T::SCHEMA,
    };
    if read.schema == T::SCHEMA {
        Ok(serde_json::from_value(read.value)?)
    } else if read.schema.checked_add(1) == Some(T::SCHEMA) {
        T::from_previous(read.value).ok_or(refused)
    } else {
        Err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(PartialEq, Debug, Serialize, Deserialize)]
    struct Greeting {
        text: String,
    }

    impl Document for Greeting {
        const SCHEMA: u16 = 3;

        fn from_previous(value: serde_json::Value) -> Option<Self> {
            Some(Self {
                text: value.as_str()?.to_owned(),
            })
        }
    }

    #[test]
    fn own_and_previous_schema_are_read_and_others_refused() {
        let greeting = Greeting {
            text: "hello".into(),
        };
        assert_eq!(decode::<Greeting>(&encode(&greeting)).unwrap(), greeting);
        assert_eq!(
            decode::<Greeting>(br#"{"schema": 2, "value": "hello"}"#).unwrap(),
            greeting
        );
        for other in [1, 4] {
            let text = format!(r#"{{"schema": {other}, "value": "hello"}}"#);
            let error = decode::<Greeting>(text.as_bytes()).unwrap_err();
            assert!(
                matches!(error, DocumentError::Schema { newest: 3, .. }),
                "{error}"
            );
        }
        assert!(matches!(
            decode::<Greeting>(b"{"),
            Err(DocumentError::Malformed(_))
        ));
    }
}
