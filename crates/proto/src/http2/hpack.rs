//! HPACK (RFC 7541): heads as blocks of bytes, with a table on each side that can be exported.
//!
//! Both tables are bounded: the decoder's by what we announce, the encoder's by what the peer
//! announces and by a limit of our own. A decoder that has returned an error is of no more use,
//! since its table has lost step with the peer's: the connection ends.
//!
//! What this does not do: judge names and values (that is `head`), or split blocks into frames.

mod decode;
mod encode;
mod fixed;
mod huffman;
mod integer;
mod table;

#[cfg(test)]
mod tests;

pub use decode::{DecodeLimits, Decoded, Decoder};
pub use encode::Encoder;
pub(crate) use table::TABLE_BYTES_CAP;
pub use table::Table;

use thiserror::Error;

/// Why a block cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Error)]
pub enum HpackError {
    #[error("field block ends inside a field")]
    Truncated,
    #[error("integer in a field block is larger than any that is used")]
    Integer,
    #[error("string has a code that is not in the Huffman table, or is filled up wrongly")]
    Huffman,
    #[error("field refers to a table entry that does not exist")]
    Index,
    #[error("table size update where none is allowed, or beyond the announced size")]
    SizeUpdate,
    #[error("field block grows beyond all measure when decoded")]
    Bomb,
}
