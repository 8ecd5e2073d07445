//! Handshakes by rustls, whose one end is then ours.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use rustls::client::UnbufferedClientConnection;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, KeyLog,
    RootCertStore, ServerConfig, ServerConnection,
};

use super::{Material, Records, Role, Suite, Zeroizing};

pub(super) const CIPHERS: [CipherSuite; 6] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// The traffic secrets of one handshake.
#[derive(Debug, Default)]
struct Secrets(Mutex<BTreeMap<String, Vec<u8>>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        let mut secrets = self.0.lock().unwrap();
        secrets.insert(label.to_owned(), secret.to_vec());
    }
}

struct Configs {
    client: ClientConfig,
    server: ServerConfig,
    secrets: Arc<Secrets>,
}

fn configs(cipher: CipherSuite) -> Configs {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == cipher);
    assert_eq!(provider.cipher_suites.len(), 1);
    let versions = [provider.cipher_suites[0].version()];
    let provider = Arc::new(provider);

    let made = rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();

    let secrets = Arc::new(Secrets::default());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    server.enable_secret_extraction = true;
    client.enable_secret_extraction = true;
    server.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
    client.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
    Configs {
        client,
        server,
        secrets,
    }
}

/// Bytes that rustls wants to send.
pub(super) fn output(peer: &mut Connection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Gives rustls bytes; the data in them.
pub(super) fn input(peer: &mut Connection, mut bytes: &[u8]) -> Result<Vec<u8>, rustls::Error> {
    let mut plain = Vec::new();
    while !bytes.is_empty() {
        peer.read_tls(&mut bytes).unwrap();
        peer.process_new_packets()?;
        let mut piece = [0; 4_096];
        while let Ok(count @ 1..) = peer.reader().read(&mut piece) {
            plain.extend_from_slice(&piece[..count]);
        }
    }
    Ok(plain)
}

pub(super) fn send(peer: &mut Connection, data: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::new();
    for piece in data.chunks(16_384) {
        peer.writer().write_all(piece).unwrap();
        sealed.extend(output(peer));
    }
    sealed
}

/// Turns of an unbuffered connection, until it is done (true) or needs more. Both kinds have the
/// same methods and share no trait.
macro_rules! turns {
    ($ours:expr, $incoming:expr, $outgoing:expr) => {
        loop {
            let UnbufferedStatus { discard, state, .. } =
                $ours.process_tls_records(&mut $incoming[..]);
            let is_done = match state.unwrap() {
                ConnectionState::EncodeTlsData(mut state) => {
                    let mut bytes = vec![0; 32_768];
                    let count = state.encode(&mut bytes).unwrap();
                    $outgoing.extend_from_slice(&bytes[..count]);
                    None
                }
                ConnectionState::TransmitTlsData(state) => {
                    state.done();
                    None
                }
                ConnectionState::WriteTraffic(_) => Some(true),
                ConnectionState::BlockedHandshake => Some(false),
                other => panic!("{other:?}"),
            };
            $incoming.drain(..discard);
            if let Some(is_done) = is_done {
                break is_done;
            }
        }
    };
}

/// A handshake: our end of it, and rustls' own.
pub(super) fn handshake(role: Role, cipher: CipherSuite) -> (Records, Connection) {
    let configs = configs(cipher);
    let name = ServerName::try_from("x.test").unwrap();
    let (client, server) = (Arc::new(configs.client), Arc::new(configs.server));
    let (mut incoming, mut outgoing) = (Vec::new(), Vec::new());
    let extracted;
    let peer = match role {
        Role::Server => {
            let mut ours = UnbufferedServerConnection::new(server).unwrap();
            let mut peer = Connection::from(ClientConnection::new(client, name).unwrap());
            let mut is_done = false;
            while !is_done || peer.is_handshaking() {
                incoming.extend(output(&mut peer));
                is_done |= turns!(ours, incoming, outgoing);
                input(&mut peer, &std::mem::take(&mut outgoing)).unwrap();
            }
            extracted = ours.dangerous_into_kernel_connection().unwrap().0;
            peer
        }
        Role::Client => {
            let mut ours = UnbufferedClientConnection::new(client, name).unwrap();
            let mut peer = Connection::from(ServerConnection::new(server).unwrap());
            let mut is_done = false;
            while !is_done || peer.is_handshaking() {
                is_done |= turns!(ours, incoming, outgoing);
                input(&mut peer, &std::mem::take(&mut outgoing)).unwrap();
                incoming.extend(output(&mut peer));
            }
            extracted = ours.dangerous_into_kernel_connection().unwrap().0;
            peer
        }
    };
    let secrets = configs.secrets.0.lock().unwrap();
    let (sent_by_us, sent_to_us) = match role {
        Role::Server => ("SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"),
        Role::Client => ("CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"),
    };
    let of = |label: &str, keys: ConnectionTrafficSecrets| {
        let secret = secrets.get(label).cloned();
        material(secret, keys)
    };
    let (sequence, keys) = extracted.rx;
    let (suite, received) = of(sent_to_us, keys);
    let received = (received, sequence);
    let (sequence, keys) = extracted.tx;
    let (_, sent) = of(sent_by_us, keys);
    let mut ours = Records::new(role, suite, received, (sent, sequence)).unwrap();
    // What came behind the handshake, such as tickets.
    ours.feed(&incoming);
    (ours, peer)
}

fn material(secret: Option<Vec<u8>>, keys: ConnectionTrafficSecrets) -> (Suite, Material) {
    let (suite, key, iv) = match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Suite::ChaCha20Poly1305, key, iv)
        }
        _ => panic!("another suite"),
    };
    let material = match secret {
        Some(secret) => Material::Secret(Zeroizing::new(secret)),
        None => Material::Key {
            key: Zeroizing::new(key.as_ref().to_vec()),
            iv: iv.as_ref().try_into().unwrap(),
        },
    };
    (suite, material)
}
