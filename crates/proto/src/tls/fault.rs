//! What ends a connection, and the alert that says so.

use thiserror::Error;

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// Changed on the way, or not sealed with our key.
    #[error("a record's seal is wrong")]
    BadRecord,
    #[error("a record of more than 16384 bytes")]
    RecordTooLong,
    /// No such type of record, another version, or one that is not allowed any more.
    #[error("a record of type {kind} where none is expected")]
    UnexpectedRecord { kind: u8 },
    #[error("a handshake message of type {kind} after the handshake")]
    UnexpectedMessage { kind: u8 },
    /// A message, an alert or a record's inside that breaks its form.
    #[error("what a record holds is malformed")]
    Malformed,
    #[error("a handshake message of {bytes} bytes")]
    MessageTooLong { bytes: usize },
    /// Many records in a row without a byte of data: work for nothing.
    #[error("too many records without data")]
    Flood,
    /// The peer gave up.
    #[error("the peer sent alert {description}")]
    Alert { description: u8 },
    /// TLS 1.2 cannot change its keys, and these have sealed as much as they may.
    #[error("the keys are used up")]
    KeysUsedUp,
    /// Called after [`close`](super::Records::close), or after a fault.
    #[error("the connection is closed")]
    Closed,
}

impl Fault {
    /// The alert to send (RFC 8446 section 6.2). None: the peer knows.
    pub fn alert(self) -> Option<u8> {
        match self {
            Fault::BadRecord => Some(20),
            Fault::RecordTooLong => Some(22),
            Fault::UnexpectedRecord { .. } | Fault::UnexpectedMessage { .. } | Fault::Flood => {
                Some(10)
            }
            Fault::Malformed | Fault::MessageTooLong { .. } => Some(50),
            Fault::Alert { .. } | Fault::KeysUsedUp | Fault::Closed => None,
        }
    }
}
