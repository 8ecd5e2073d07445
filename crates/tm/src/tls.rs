//! TLS as a site wants it, made from the files that it names: what event loops shake hands with.
//!
//! The keeper reads the files, since it has the privileges, and workers make this of them; `hitless
//! check` does both. Everything that is wrong is told at once, at the place where the site file
//! names the file. Nothing here touches a connection.

use std::collections::HashMap;
use std::sync::Arc;

use hitless_carry::vault::Vault;
use hitless_types::problem::{Problem, Problems, Sink, quote};
use hitless_types::site::{Certificate, FileName, MembersTls, Pool, Site, Tls, TlsVersion};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion, version};

use self::certificates::Certificates;
use self::tickets::Tickets;
use self::validity::{Validity, date};

mod certificates;
pub(crate) mod files;
pub(crate) mod key_log;
mod tickets;
mod validity;

pub use self::files::Files;

/// A certificate that ends within these days is warned about.
const WARN_DAYS: u64 = 14;
const DAY_S: u64 = 86_400;
/// Tickets that a client gets after a handshake of TLS 1.3: for two connections at a time.
const TICKETS: usize = 2;

/// TLS of all virtual servers and pools, by name.
#[derive(Debug, Default)]
pub struct Loaded {
    pub(crate) servers: HashMap<String, Arc<ServerConfig>>,
    pub(crate) pools: HashMap<String, Arc<MembersSide>>,
}

/// TLS towards the members of a pool.
#[derive(Debug)]
pub(crate) struct MembersSide {
    pub(crate) config: Arc<ClientConfig>,
    /// `None`: the member's address.
    pub(crate) name: Option<ServerName<'static>>,
    pub(crate) wants_http2: bool,
}

/// Makes the TLS of a site. `file` and `bytes` are the site file; `now_s` is the time of day. Without
/// a vault, clients get no tickets.
///
/// # Errors
/// Everything that is wrong with the files. Beside what was made stands what works for now, and an
/// operator should see to.
pub fn load(
    site: &Site,
    files: &Files,
    vault: Option<&Arc<Vault>>,
    now_s: u64,
    (file, bytes): (&str, &[u8]),
) -> Result<(Loaded, Option<Problems>), Problems> {
    let mut loader = Loader {
        files,
        now_s,
        sink: Sink::default(),
    };
    let mut loaded = Loaded::default();
    for pool in &site.pools {
        if let Some(tls) = &pool.tls
            && let Some(side) = loader.members_side(pool, tls)
        {
            loaded
                .pools
                .insert(pool.name.as_str().to_owned(), Arc::new(side));
        }
    }
    for server in &site.virtual_servers {
        if let Some(tls) = &server.tls
            && let Some(config) = loader.server_config(server.name.as_str(), tls, vault)
        {
            let name = server.name.as_str().to_owned();
            loaded.servers.insert(name, Arc::new(config));
        }
    }
    loader.sink.finish(Some(loaded), file, bytes)
}

struct Loader<'a> {
    files: &'a Files,
    now_s: u64,
    sink: Sink,
}

impl<'a> Loader<'a> {
    fn server_config(
        &mut self,
        name: &str,
        tls: &Tls,
        vault: Option<&Arc<Vault>>,
    ) -> Option<ServerConfig> {
        let keys: Vec<Option<CertifiedKey>> = tls
            .certificates
            .iter()
            .map(|one| self.certified_key(one))
            .collect();
        let verifier = match &tls.client_certificates {
            None => Some(WebPkiClientVerifier::no_client_auth()),
            Some(clients) => self.authorities(&clients.ca).and_then(|roots| {
                let provider = Arc::new(aws_lc_rs::default_provider());
                let roots = Arc::new(roots);
                let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
                if !clients.required {
                    builder = builder.allow_unauthenticated();
                }
                match builder.build() {
                    Ok(verifier) => Some(verifier),
                    Err(error) => {
                        let message = format!("the authorities cannot be used: {error}");
                        self.wrong(&clients.ca, "bad-certificate", message);
                        None
                    }
                }
            }),
        };
        let keys: Option<Vec<CertifiedKey>> = keys.into_iter().collect();
        let resolver = Certificates::new(keys?)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions(tls.minimum_version))
            .expect("the provider has suites of both versions")
            .with_client_cert_verifier(verifier?)
            .with_cert_resolver(Arc::new(resolver));
        let alpn = tls.alpn.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = alpn.collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if let Some(vault) = vault {
            let clients = tls.client_certificates.as_ref();
            let ca = clients.and_then(|clients| self.files.get(&clients.ca.path).ok());
            let is_required = [u8::from(clients.is_some_and(|clients| clients.required))];
            let scope = [name.as_bytes(), ca.unwrap_or_default(), &is_required];
            config.send_tls13_tickets = TICKETS;
            config.ticketer = Arc::new(Tickets::new(Arc::clone(vault), &scope));
        }
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(key_log::OfThread);
        Some(config)
    }

    fn members_side(&mut self, pool: &Pool, tls: &MembersTls) -> Option<MembersSide> {
        let roots = self.authorities(tls.verify.file())?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites of both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        use hitless_types::site::MembersProtocol::{Http1, Http2};
        config.alpn_protocols = match pool.members_protocol {
            // None, so that a pool serves virtual servers of TCP as well.
            Http1 => Vec::new(),
            Http2 => vec![b"h2".to_vec()],
        };
        config.resumption = Resumption::in_memory_sessions(256);
        config.enable_secret_extraction = true;
        config.key_log = Arc::new(key_log::OfThread);
        let name = tls.server_name.as_ref().map(|name| {
            ServerName::try_from(name.clone()).expect("the reader lets only names through")
        });
        Some(MembersSide {
            config: Arc::new(config),
            name,
            wants_http2: pool.members_protocol == Http2,
        })
    }

    fn certified_key(&mut self, one: &Certificate) -> Option<CertifiedKey> {
        let chain = self.chain(&one.certificate);
        let key = self.key(&one.key);
        let (chain, key) = (chain?, key?);
        let key = match aws_lc_rs::sign::any_supported_type(&key) {
            Ok(key) => key,
            Err(error) => {
                let message = format!("the key cannot be used: {error}");
                self.wrong(&one.key, "bad-key", message);
                return None;
            }
        };
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let other = quote(&one.certificate.path);
                let message = format!("the key does not belong to the certificate in {other}");
                self.wrong(&one.key, "key-mismatch", message);
                return None;
            }
            Err(error) => {
                let message = format!("the certificate cannot be used: {error}");
                self.wrong(&one.certificate, "bad-certificate", message);
                return None;
            }
        }
        let mut key = key;
        if let Some(ocsp) = &one.ocsp {
            // A sequence in DER; whether it is a good one is for clients to say.
            match self.bytes(ocsp)? {
                bytes @ [0x30, ..] => key.ocsp = Some(bytes.to_vec()),
                _ => {
                    self.wrong(ocsp, "bad-ocsp", "it is no OCSP response in DER");
                    return None;
                }
            }
        }
        self.check_dates(&one.certificate, &key.cert[0]);
        Some(key)
    }

    fn chain(&mut self, name: &FileName) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.bytes(name)?;
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        match read {
            Ok(chain) if !chain.is_empty() => Some(chain),
            Ok(_) => {
                self.wrong(name, "bad-certificate", "there is no certificate in it");
                None
            }
            Err(error) => {
                let message = format!("it is no PEM: {error}");
                self.wrong(name, "bad-certificate", message);
                None
            }
        }
    }

    fn key(&mut self, name: &FileName) -> Option<PrivateKeyDer<'static>> {
        let bytes = self.bytes(name)?;
        match PrivateKeyDer::from_pem_slice(bytes) {
            Ok(key) => Some(key),
            Err(_) => {
                let is_locked = bytes
                    .windows(LOCKED.len())
                    .any(|bytes| bytes == LOCKED.as_bytes());
                let message = if is_locked {
                    "the key has a password, which nobody could type in"
                } else {
                    "there is no private key in it"
                };
                self.wrong(name, "bad-key", message);
                None
            }
        }
    }

    fn authorities(&mut self, name: &FileName) -> Option<RootCertStore> {
        let chain = self.chain(name)?;
        let mut roots = RootCertStore::empty();
        let (_, unusable) = roots.add_parsable_certificates(chain);
        if roots.is_empty() {
            let message = format!("none of its {unusable} certificates can be used");
            self.wrong(name, "bad-certificate", message);
            return None;
        }
        Some(roots)
    }

    fn bytes(&mut self, name: &FileName) -> Option<&'a [u8]> {
        match self.files.get(&name.path) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.wrong(
                    name,
                    "unreadable-file",
                    format!("it cannot be read: {error}"),
                );
                None
            }
        }
    }

    fn check_dates(&mut self, name: &FileName, certificate: &CertificateDer<'_>) {
        let Some(Validity { from_s, until_s }) = Validity::of(certificate) else {
            return;
        };
        let (code, message) = if self.now_s >= until_s {
            let message = format!("the certificate has expired on {}", date(until_s));
            ("expired", message)
        } else if self.now_s < from_s {
            let message = format!("the certificate is not valid before {}", date(from_s));
            ("not-yet-valid", message)
        } else if until_s - self.now_s < WARN_DAYS * DAY_S {
            let message = format!("the certificate expires on {}", date(until_s));
            ("expires-soon", message)
        } else {
            return;
        };
        let warning = Problem::at(name.mark, name.field.clone(), code, message);
        self.sink.warn(warning.found(quote(&name.path)));
    }

    fn wrong(&mut self, name: &FileName, code: &'static str, message: impl Into<String>) {
        let problem = Problem::at(name.mark, name.field.clone(), code, message);
        self.sink.add(problem.found(quote(&name.path)));
    }
}

const LOCKED: &str = "ENCRYPTED";

static VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    match minimum {
        TlsVersion::Tls12 => &VERSIONS,
        TlsVersion::Tls13 => &VERSIONS[..1],
    }
}

#[cfg(test)]
mod tests;
