//! Certificates, and the other end of TLS connections: rustls as it is meant to be used.
//!
//! A [`Bridge`] puts TLS in front of whatever speaks in cleartext, so that every client and member
//! of these tests can be had with TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
};

/// A certificate in files, trusted by the clients here.
pub struct Identity {
    folder: tempfile::TempDir,
    names: Vec<String>,
}

impl Identity {
    pub fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let this = Self { folder, names };
        this.renew();
        this
    }

    /// Another certificate in place of the one before.
    pub fn renew(&self) {
        let made = rcgen::generate_simple_self_signed(self.names.clone()).unwrap();
        std::fs::write(self.certificate(), made.cert.pem()).unwrap();
        std::fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// As an item of `certificates` in a site file.
    pub fn item(&self) -> String {
        let (certificate, key) = (self.certificate(), self.key());
        let (certificate, key) = (certificate.display(), key.display());
        format!("{{ certificate: {certificate}, key: {key} }}")
    }

    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.certificate()).unwrap()
    }

    pub fn server(&self, alpn: &[&str]) -> ServerConfig {
        let key = PrivateKeyDer::from_pem_file(self.key()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.der()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A client that trusts these.
pub fn client(
    trusted: &[&Identity],
    alpn: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for identity in trusted {
        roots.add(identity.der()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// Which end of the bridge speaks TLS.
#[derive(Clone)]
pub enum Side {
    /// Who connects to it speaks in cleartext, and it goes on in TLS.
    Client(Arc<ClientConfig>, &'static str),
    /// The other way round.
    Server(Arc<ServerConfig>),
}

/// Puts TLS in front of an address.
pub struct Bridge {
    pub address: SocketAddr,
    /// Handshakes that took a ticket.
    pub resumed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Bridge {
    /// Each connection changes its keys after so many bytes that it has sent; 0: never.
    pub fn start(side: Side, to: SocketAddr, update_after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let resumed = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, ends) = (Arc::clone(&resumed), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(near) = stream else { continue };
                let (side, count) = (side.clone(), Arc::clone(&count));
                let small = std::thread::Builder::new().stack_size(256 * 1024);
                let serve = move || {
                    let Ok(far) = TcpStream::connect(to) else {
                        reset(&near);
                        return;
                    };
                    let (plain, sealed, connection) = match side {
                        Side::Client(config, name) => {
                            let name = ServerName::try_from(name).unwrap();
                            let connection = ClientConnection::new(config, name).unwrap();
                            (near, far, Connection::from(connection))
                        }
                        Side::Server(config) => {
                            let connection = ServerConnection::new(config).unwrap();
                            (far, near, Connection::from(connection))
                        }
                    };
                    let mut ends = Ends {
                        plain,
                        sealed,
                        connection,
                        update_after,
                    };
                    if let Err(error) = ends.run(&count) {
                        if std::env::var_os("BRIDGE_LOG").is_some() {
                            eprintln!("bridge: {error}");
                        }
                        reset(&ends.plain);
                    }
                };
                small.spawn(serve).unwrap();
            }
        });
        Self {
            address,
            resumed,
            stop,
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

/// Makes the close that follows one that the other side notices.
fn reset(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO));
}

struct Ends {
    plain: TcpStream,
    sealed: TcpStream,
    connection: Connection,
    update_after: u64,
}

impl Ends {
    fn run(&mut self, resumed: &AtomicU64) -> std::io::Result<()> {
        for stream in [&self.plain, &self.sealed] {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
        }
        let broken = |text: String| std::io::Error::new(ErrorKind::InvalidData, text);
        let mut buffer = vec![0u8; 32 * 1024];
        // For the plain side, what it has not taken.
        let mut waiting: Vec<u8> = Vec::new();
        let (mut plain_ended, mut sealed_ended) = (false, false);
        let (mut told_plain, mut told_sealed) = (false, false);
        let (mut sent, mut is_counted) = (0u64, false);
        while !(told_plain && told_sealed) {
            let mut has_moved = false;
            if !is_counted && !self.connection.is_handshaking() {
                is_counted = true;
                let kind = match &self.connection {
                    Connection::Client(one) => one.handshake_kind(),
                    Connection::Server(one) => one.handshake_kind(),
                };
                if kind == Some(rustls::HandshakeKind::Resumed) {
                    resumed.fetch_add(1, Ordering::Relaxed);
                }
            }
            let may_send = is_counted && !plain_ended && !self.connection.wants_write();
            if may_send && let Some(count) = would_block(self.plain.read(&mut buffer))? {
                has_moved = true;
                if count == 0 {
                    plain_ended = true;
                    self.connection.send_close_notify();
                } else {
                    self.connection.writer().write_all(&buffer[..count])?;
                    sent += count as u64;
                    if self.update_after > 0 && sent >= self.update_after {
                        sent = 0;
                        let _ = self.connection.refresh_traffic_keys();
                    }
                }
            }
            while self.connection.wants_write() {
                if would_block(self.connection.write_tls(&mut self.sealed))?.is_none() {
                    break;
                }
                has_moved = true;
            }
            if plain_ended && !told_sealed && !self.connection.wants_write() {
                told_sealed = true;
                let _ = self.sealed.shutdown(Shutdown::Write);
            }
            if waiting.is_empty() && !sealed_ended {
                if let Some(count) = would_block(self.connection.read_tls(&mut self.sealed))? {
                    has_moved |= count > 0;
                    let processed = self.connection.process_new_packets();
                    if let Err(error) = processed {
                        // Its alert goes out.
                        let _ = self.connection.write_tls(&mut self.sealed);
                        return Err(broken(error.to_string()));
                    }
                }
                match self.connection.reader().read(&mut buffer) {
                    Ok(0) => sealed_ended = true,
                    Ok(count) => waiting.extend_from_slice(&buffer[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
                has_moved |= sealed_ended || !waiting.is_empty();
            }
            if !waiting.is_empty()
                && let Some(count) = would_block(self.plain.write(&waiting))?
            {
                waiting.drain(..count);
                has_moved = true;
            }
            if sealed_ended && waiting.is_empty() && !told_plain {
                told_plain = true;
                let _ = self.plain.shutdown(Shutdown::Write);
            }
            if !has_moved {
                self.wait(!waiting.is_empty(), may_send);
            }
        }
        Ok(())
    }

    fn wait(&self, plain_is_full: bool, reads_plain: bool) {
        let mut of_plain = PollFlags::empty();
        of_plain.set(PollFlags::OUT, plain_is_full);
        of_plain.set(PollFlags::IN, reads_plain);
        let mut of_sealed = PollFlags::empty();
        of_sealed.set(PollFlags::OUT, self.connection.wants_write());
        of_sealed.set(PollFlags::IN, !plain_is_full);
        let mut fds = [
            PollFd::new(&self.plain, of_plain),
            PollFd::new(&self.sealed, of_sealed),
        ];
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        let _ = rustix::event::poll(&mut fds, Some(&patience));
    }
}

fn would_block(result: std::io::Result<usize>) -> std::io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
