//! One direction: its key, and how many records were sealed with it.

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use zeroize::Zeroizing;

use super::fault::Fault;
use super::suite::{NONCE_BYTES, Suite, TAG_BYTES, Version};

/// Bytes of a record's header: type, version, length.
pub(super) const HEADER_BYTES: usize = 5;
/// Bytes of data in a record, at most.
pub(super) const DATA_BYTES_MAX: usize = 1 << 14;
/// What TLS 1.2 with AES sends of a nonce.
const EXPLICIT_BYTES: usize = 8;
/// On the wire every version since 1.2 calls itself so.
pub(super) const VERSION: [u8; 2] = [3, 3];

/// What one direction is sealed with.
#[derive(Clone, PartialEq, Eq)]
pub enum Material {
    /// TLS 1.3: the traffic secret. Keys follow from it, and from it the secrets after a key
    /// update.
    Secret(Zeroizing<Vec<u8>>),
    /// TLS 1.2: the key, and what nonces are made of: for AES-GCM four bytes of salt and eight that
    /// ours begin with.
    Key {
        key: Zeroizing<Vec<u8>>,
        iv: [u8; 12],
    },
}

impl Material {
    pub fn version(&self) -> Version {
        match self {
            Material::Secret(_) => Version::Tls13,
            Material::Key { .. } => Version::Tls12,
        }
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Material({:?}, not shown)", self.version())
    }
}

/// One direction.
pub(super) struct Half {
    pub(super) suite: Suite,
    pub(super) material: Material,
    /// Records so far under this key.
    pub(super) sequence: u64,
    /// How often the key was changed here.
    pub(super) changes: u32,
    key: LessSafeKey,
    iv: [u8; NONCE_BYTES],
}

impl Half {
    /// None: the material is not of this suite's lengths.
    pub(super) fn new(suite: Suite, material: Material, sequence: u64) -> Option<Half> {
        let (key, iv) = match &material {
            Material::Secret(secret) if secret.len() == suite.secret_bytes() => {
                suite.derive(secret)?
            }
            Material::Secret(_) => return None,
            Material::Key { key, iv } => (suite.key(key)?, *iv),
        };
        Some(Half {
            suite,
            material,
            sequence,
            changes: 0,
            key,
            iv,
        })
    }

    /// Goes on to the next traffic secret. False: TLS 1.2 has none.
    pub(super) fn update(&mut self) -> bool {
        let Material::Secret(secret) = &self.material else {
            return false;
        };
        let next = self.suite.next_secret(secret);
        let next =
            next.and_then(|next| Half::new(self.suite, Material::Secret(Zeroizing::new(next)), 0));
        let changes = self.changes + 1;
        *self = next.expect("a secret of the right length has a next one");
        self.changes = changes;
        true
    }

    /// Whether this key has sealed as many records as it may.
    pub(super) fn is_used_up(&self) -> bool {
        let max = self.suite.records_max();
        max.is_some_and(|max| self.sequence >= max)
    }

    /// Bytes of a record beside its data.
    pub(super) fn surplus(&self) -> usize {
        let inside = match self.material {
            Material::Secret(_) => 1,
            Material::Key { .. } if self.suite.has_explicit_nonce() => EXPLICIT_BYTES,
            Material::Key { .. } => 0,
        };
        HEADER_BYTES + inside + TAG_BYTES
    }

    /// Appends one record with at most [`DATA_BYTES_MAX`] bytes of `data`.
    pub(super) fn seal(&mut self, kind: u8, data: &[u8], out: &mut Vec<u8>) {
        self.seal_from(kind, data.len(), |out| out.extend_from_slice(data), out);
    }

    /// Likewise; `append` appends the data, `count` bytes.
    pub(super) fn seal_from(
        &mut self,
        kind: u8,
        count: usize,
        append: impl FnOnce(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        let nonce = self.nonce();
        let mut header = [0; HEADER_BYTES];
        header[1..3].copy_from_slice(&VERSION);
        let (explicit, inner): (&[u8], &[u8]) = match self.material {
            Material::Secret(_) => {
                // What it is stands inside; from outside all records look alike.
                header[0] = super::connection::DATA;
                (&[], &[kind])
            }
            Material::Key { .. } => {
                header[0] = kind;
                let explicit = &nonce[NONCE_BYTES - EXPLICIT_BYTES..];
                let is_sent = self.suite.has_explicit_nonce();
                (if is_sent { explicit } else { &[] }, &[])
            }
        };
        let sealed = explicit.len() + count + inner.len() + TAG_BYTES;
        let length = u16::try_from(sealed).expect("a record's data is bounded");
        header[3..].copy_from_slice(&length.to_be_bytes());
        out.reserve(HEADER_BYTES + sealed);
        out.extend_from_slice(&header);
        out.extend_from_slice(explicit);
        let from = out.len();
        append(out);
        debug_assert_eq!(out.len(), from + count, "as much data as was said");
        out.extend_from_slice(inner);
        let tag = match self.material {
            Material::Secret(_) => self.seal_bytes(nonce, &header, &mut out[from..]),
            Material::Key { .. } => {
                let aad = self.aad_12(kind, count);
                self.seal_bytes(nonce, &aad, &mut out[from..])
            }
        };
        out.extend_from_slice(&tag);
        self.sequence += 1;
    }

    fn seal_bytes(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        bytes: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(aad), bytes)
            .expect("a record is far below the cipher's limit");
        tag.as_ref().try_into().expect("all suites have this tag")
    }

    /// Opens a whole record in place: what it is, and where in `record` its data lies.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(u8, Range<usize>), Fault> {
        let (header, sealed) = record
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(Fault::Malformed)?;
        let (kind, data) = match self.material {
            Material::Secret(_) => {
                let nonce = Nonce::assume_unique_for_key(self.nonce());
                let plain = self.key.open_in_place(nonce, Aad::from(*header), sealed)?;
                // Behind the data stands what it is, then zeros that hide its length.
                let at = plain.iter().rposition(|byte| *byte != 0);
                let at = at.ok_or(Fault::UnexpectedRecord { kind: 0 })?;
                (plain[at], 0..at)
            }
            Material::Key { .. } => self.open_12(header[0], sealed)?,
        };
        if data.len() > DATA_BYTES_MAX {
            return Err(Fault::RecordTooLong);
        }
        self.sequence += 1;
        Ok((kind, data.start + HEADER_BYTES..data.end + HEADER_BYTES))
    }

    fn open_12(&self, kind: u8, sealed: &mut [u8]) -> Result<(u8, Range<usize>), Fault> {
        let mut nonce = self.nonce();
        let mut from = 0;
        if self.suite.has_explicit_nonce() {
            let explicit = sealed.get(..EXPLICIT_BYTES).ok_or(Fault::BadRecord)?;
            nonce[..NONCE_BYTES - EXPLICIT_BYTES]
                .copy_from_slice(&self.iv[..NONCE_BYTES - EXPLICIT_BYTES]);
            nonce[NONCE_BYTES - EXPLICIT_BYTES..].copy_from_slice(explicit);
            from = EXPLICIT_BYTES;
        }
        let count = (sealed.len() - from)
            .checked_sub(TAG_BYTES)
            .ok_or(Fault::BadRecord)?;
        let aad = self.aad_12(kind, count);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key
            .open_in_place(nonce, Aad::from(aad), &mut sealed[from..])?;
        Ok((kind, from..from + count))
    }

    /// The first nonce, changed by the sequence number.
    fn nonce(&self) -> [u8; NONCE_BYTES] {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        for (byte, of) in nonce[NONCE_BYTES - 8..].iter_mut().zip(sequence) {
            *byte ^= of;
        }
        nonce
    }

    /// What TLS 1.2 authenticates beside the data.
    fn aad_12(&self, kind: u8, count: usize) -> [u8; 13] {
        let mut aad = [0; 13];
        aad[..8].copy_from_slice(&self.sequence.to_be_bytes());
        aad[8] = kind;
        aad[9..11].copy_from_slice(&VERSION);
        // A length that does not fit authenticates nothing, and the record is refused.
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        aad[11..].copy_from_slice(&count.to_be_bytes());
        aad
    }
}
