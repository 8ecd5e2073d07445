//! How records are sealed: the authenticated ciphers, and the derivation of their keys in TLS 1.3.

use aws_lc_rs::aead::{self, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, HKDF_SHA384, Prk};
use zeroize::Zeroizing;

use super::fault::Fault;

/// Bytes of every suite's nonce, and of its tag.
pub(super) const NONCE_BYTES: usize = 12;
pub(super) const TAG_BYTES: usize = 16;

/// The version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

/// What seals records. TLS 1.2 suites differ from those of TLS 1.3 only in what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Suite {
    /// Bytes of a TLS 1.3 traffic secret: of the suite's hash.
    pub fn secret_bytes(self) -> usize {
        match self {
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => 32,
            Suite::Aes256Gcm => 48,
        }
    }

    /// Bytes of a key.
    pub fn key_bytes(self) -> usize {
        self.algorithm().key_len()
    }

    /// Whether a nonce in TLS 1.2 has eight bytes in the record (RFC 5288); the others count
    /// (RFC 7905).
    pub(super) fn has_explicit_nonce(self) -> bool {
        matches!(self, Suite::Aes128Gcm | Suite::Aes256Gcm)
    }

    /// How many records may be sealed with one key (RFC 8446 section 5.5, rounded down). None: more
    /// than anybody can send.
    pub(super) fn records_max(self) -> Option<u64> {
        match self {
            Suite::Aes128Gcm | Suite::Aes256Gcm => Some(1 << 24),
            Suite::ChaCha20Poly1305 => None,
        }
    }

    /// The key, if it has the right length.
    pub(super) fn key(self, bytes: &[u8]) -> Option<LessSafeKey> {
        UnboundKey::new(self.algorithm(), bytes)
            .ok()
            .map(LessSafeKey::new)
    }

    /// Key and first nonce of a traffic secret (RFC 8446 section 7.3).
    pub(super) fn derive(self, secret: &[u8]) -> Option<(LessSafeKey, [u8; NONCE_BYTES])> {
        let key = Zeroizing::new(self.expand(secret, b"key", self.key_bytes())?);
        let iv = self.expand(secret, b"iv", NONCE_BYTES)?;
        Some((self.key(&key)?, iv.try_into().ok()?))
    }

    /// The traffic secret after this one (RFC 8446 section 7.2).
    pub(super) fn next_secret(self, secret: &[u8]) -> Option<Vec<u8>> {
        self.expand(secret, b"traffic upd", self.secret_bytes())
    }

    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Suite::Aes128Gcm => &AES_128_GCM,
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }

    fn hash(self) -> hkdf::Algorithm {
        match self {
            Suite::Aes128Gcm | Suite::ChaCha20Poly1305 => HKDF_SHA256,
            Suite::Aes256Gcm => HKDF_SHA384,
        }
    }

    /// HKDF-Expand-Label without context (RFC 8446 section 7.1).
    fn expand(self, secret: &[u8], label: &[u8], count: usize) -> Option<Vec<u8>> {
        const PREFIX: &[u8] = b"tls13 ";
        let length = u16::try_from(count).ok()?.to_be_bytes();
        let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
        let info = [&length[..], &label_length, PREFIX, label, &[0]];
        let secret = Prk::new_less_safe(self.hash(), secret);
        let mut bytes = vec![0; count];
        secret
            .expand(&info, Length(count))
            .ok()?
            .fill(&mut bytes)
            .ok()?;
        Some(bytes)
    }
}

/// How many bytes are wanted of HKDF.
#[derive(Debug, Clone, Copy)]
struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl From<aws_lc_rs::error::Unspecified> for Fault {
    fn from(_: aws_lc_rs::error::Unspecified) -> Fault {
        Fault::BadRecord
    }
}
