//! TLS as a site has it: with clients, by virtual server, and with members, by pool.
//!
//! Certificates and keys are in files of their own. What is here are their names with the place
//! where they are written, so that whoever reads the files can say where a wrong one is named.

use core::hash::{Hash, Hasher};

use serde::Serialize;

use crate::document::Mark;

/// TLS with the clients of a virtual server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Tls {
    /// Chosen by the name that a client asks for; the first for clients that ask for none or for
    /// another. At least one.
    pub certificates: Vec<Certificate>,
    pub minimum_version: TlsVersion,
    /// What is offered by ALPN, the best first. Empty: nothing.
    pub alpn: Vec<String>,
    /// `None`: clients are not asked for a certificate.
    pub client_certificates: Option<ClientCertificates>,
}

/// A certificate with its chain, and its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Certificate {
    pub certificate: FileName,
    pub key: FileName,
    /// What its authority says of it, for clients that ask. `None`: they are told nothing.
    pub ocsp: Option<FileName>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsVersion {
    pub const ALL: [Self; 2] = [Self::Tls12, Self::Tls13];

    /// As it is written in a file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

/// What certificates of clients are checked against.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClientCertificates {
    pub ca: FileName,
    /// Whether a client without one is turned away.
    pub required: bool,
}

/// TLS with the members of a pool.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MembersTls {
    pub verify: Verify,
    /// What members are asked for and must prove to be. `None`: their address.
    pub server_name: Option<String>,
}

/// Who may have signed the certificates of members.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Those that this system trusts.
    System(FileName),
    File(FileName),
}

impl Verify {
    /// Where the certificates of the authorities are.
    pub fn file(&self) -> &FileName {
        match self {
            Self::System(file) | Self::File(file) => file,
        }
    }
}

/// Where Debian and most others keep the authorities that a system trusts.
pub(super) const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The name of a file, as it is written; one that does not begin with `/` lies beside the site
/// file.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct FileName {
    pub path: String,
    #[serde(skip)]
    pub mark: Mark,
    /// Where in the document.
    #[serde(skip)]
    pub field: String,
}

/// The place does not make it another file.
impl PartialEq for FileName {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for FileName {}

impl Hash for FileName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path.hash(state);
    }
}

impl Tls {
    pub(super) fn files(&self) -> impl Iterator<Item = &FileName> {
        let certificates = self.certificates.iter();
        let pairs = certificates.flat_map(|one| {
            let ocsp = one.ocsp.as_ref();
            [&one.certificate, &one.key].into_iter().chain(ocsp)
        });
        pairs.chain(self.client_certificates.iter().map(|clients| &clients.ca))
    }
}

impl MembersTls {
    pub(super) fn files(&self) -> impl Iterator<Item = &FileName> {
        core::iter::once(self.verify.file())
    }
}
