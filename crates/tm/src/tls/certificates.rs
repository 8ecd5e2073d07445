//! Which certificate a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// Certificates by the names in them; of several with a name the first.
#[derive(Debug)]
pub(super) struct Certificates {
    /// For who asks for no name, or for one that none has.
    default: Arc<CertifiedKey>,
    /// In lower case. Wildcards without their first label, `*`.
    exact: HashMap<String, Arc<CertifiedKey>>,
    wildcards: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// `None`: there is no certificate.
    pub(super) fn new(keys: Vec<CertifiedKey>) -> Option<Self> {
        let keys: Vec<Arc<CertifiedKey>> = keys.into_iter().map(Arc::new).collect();
        let mut all = Self {
            default: Arc::clone(keys.first()?),
            exact: HashMap::new(),
            wildcards: HashMap::new(),
        };
        for key in keys {
            let Some(Ok(certificate)) = key.cert.first().map(EndEntityCert::try_from) else {
                continue;
            };
            for name in certificate.valid_dns_names() {
                let name = name.to_ascii_lowercase();
                let (names, name) = match name.strip_prefix("*.") {
                    Some(rest) => (&mut all.wildcards, rest.to_owned()),
                    None => (&mut all.exact, name),
                };
                names.entry(name).or_insert_with(|| Arc::clone(&key));
            }
        }
        Some(all)
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let of_wildcard = || self.wildcards.get(name.split_once('.')?.1);
        self.exact.get(&name).or_else(of_wildcard)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| self.find(name));
        Some(Arc::clone(found.unwrap_or(&self.default)))
    }
}
