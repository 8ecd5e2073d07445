//! A handshake under way, of either side.
//!
//! Bytes are looked at in the socket and given to rustls record by record; those that it was given
//! are then taken out of the socket. So at its end everything behind the handshake is still in the
//! socket, and nothing is in rustls that would have to be carried on.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hitless_proto::tls::{Material, Records, Role, Suite};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustls::client::UnbufferedClientConnection;
use rustls::kernel::KernelConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{
    CommonState, ConnectionTrafficSecrets, ExtractedSecrets, HandshakeKind, ServerConfig,
};
use zeroize::Zeroizing;

use super::layer::{Layer, RECORD_BYTES_MAX, send_bytes};
use crate::tls::MembersSide;
use crate::tls::key_log::Secrets;

/// Bytes of a whole handshake from one side: chains with long keys have some 10 KB.
const HANDSHAKE_BYTES_MAX: u64 = 256 * 1024;
const HEADER_BYTES: usize = 5;

enum End {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// A handshake under way.
pub(in crate::worker) struct Shaking {
    end: End,
    secrets: Secrets,
    /// What rustls has been given and not finished with.
    incoming: Vec<u8>,
    /// What the socket has not taken.
    outgoing: Vec<u8>,
    /// Everything that came, until something of ours was sent: with it another program can begin
    /// anew.
    replay: Vec<u8>,
    read: u64,
    written: u64,
}

impl fmt::Debug for Shaking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shaking")
            .field("read", &self.read)
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

/// How far a handshake has come.
#[derive(Debug)]
pub(in crate::worker) enum Shook {
    /// It waits for the other side.
    Waiting(Box<Shaking>),
    Done(Box<Done>),
    /// Why; the other side has been told, as far as it can be.
    Failed(String),
}

/// What comes of a handshake.
#[derive(Debug)]
pub(in crate::worker) struct Done {
    pub(in crate::worker) layer: Layer,
    /// What was agreed on by ALPN.
    pub(in crate::worker) protocol: Option<Vec<u8>>,
    /// By a ticket.
    pub(in crate::worker) is_resumed: bool,
}

/// What a turn of rustls' machine came to.
enum Turn {
    NeedMore,
    Done,
}

/// Both ends have the same methods and share no trait.
macro_rules! turns {
    ($end:expr, $shaking:expr) => {
        loop {
            let UnbufferedStatus { discard, state, .. } =
                $end.process_tls_records(&mut $shaking.incoming[..]);
            let (turn, failure) = match state {
                Ok(ConnectionState::EncodeTlsData(mut state)) => {
                    let mut piece = Zeroizing::new(Vec::new());
                    if let Err(EncodeError::InsufficientSize(size)) = state.encode(&mut piece) {
                        piece.resize(size.required_size, 0);
                        let _ = state.encode(&mut piece);
                    }
                    $shaking.outgoing.extend_from_slice(&piece);
                    (None, None)
                }
                Ok(ConnectionState::TransmitTlsData(state)) => {
                    state.done();
                    (None, None)
                }
                Ok(ConnectionState::WriteTraffic(_)) => (Some(Turn::Done), None),
                Ok(ConnectionState::BlockedHandshake) => (Some(Turn::NeedMore), None),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    (None, Some("the other side closed".to_owned()))
                }
                Ok(_) => (None, Some("data within the handshake".to_owned())),
                Err(error) => (None, Some(error.to_string())),
            };
            $shaking.secrets.take_told();
            $shaking.incoming.drain(..discard);
            if let Some(failure) = failure {
                // The alert that says why.
                if let UnbufferedStatus {
                    state: Ok(ConnectionState::EncodeTlsData(mut state)),
                    ..
                } = $end.process_tls_records(&mut [])
                {
                    let mut piece = vec![0; 64];
                    if let Ok(count) = state.encode(&mut piece) {
                        $shaking.outgoing.extend_from_slice(&piece[..count]);
                    }
                }
                break Err(failure);
            }
            if let Some(turn) = turn {
                break Ok(turn);
            }
        }
    };
}

impl Shaking {
    /// As the server.
    pub(in crate::worker) fn server(config: &Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let end = UnbufferedServerConnection::new(Arc::clone(config))?;
        Ok(Self::new(End::Server(end)))
    }

    /// As the client of a member.
    pub(in crate::worker) fn client(
        side: &MembersSide,
        member: IpAddr,
    ) -> Result<Self, rustls::Error> {
        let name = side.name.clone();
        let name = name.unwrap_or_else(|| ServerName::IpAddress(member.into()));
        let end = UnbufferedClientConnection::new(Arc::clone(&side.config), name)?;
        Ok(Self::new(End::Client(end)))
    }

    fn new(end: End) -> Self {
        Self {
            end,
            secrets: Secrets::default(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
            replay: Vec::new(),
            read: 0,
            written: 0,
        }
    }

    /// What came so far, if another program can begin anew with it: nothing was sent yet.
    pub(in crate::worker) fn replay(&self) -> Option<&[u8]> {
        (self.written == 0 && self.outgoing.is_empty()).then_some(&self.replay)
    }

    /// Gives it what another program had read.
    pub(in crate::worker) fn begin_with(&mut self, replay: &[u8]) {
        self.incoming.extend_from_slice(replay);
        self.replay.extend_from_slice(replay);
        self.read += replay.len() as u64;
    }

    /// Bytes in memory that are in no socket.
    pub(in crate::worker) fn has_read(&self) -> bool {
        self.read > 0
    }

    /// Goes on as far as the socket lets it. `scratch` has room for some records.
    pub(in crate::worker) fn advance(
        mut self: Box<Self>,
        socket: &OwnedFd,
        scratch: &mut [u8],
    ) -> Shook {
        loop {
            let turned = self.turn();
            if let Err(failure) = self.flush(socket) {
                return Shook::Failed(failure);
            }
            match turned {
                Err(failure) => return Shook::Failed(failure),
                Ok(Turn::Done) => return self.finish(),
                Ok(Turn::NeedMore) => {}
            }
            match self.read_record(socket, scratch) {
                Ok(true) => {}
                Ok(false) => return Shook::Waiting(self),
                Err(failure) => return Shook::Failed(failure),
            }
        }
    }

    fn turn(&mut self) -> Result<Turn, String> {
        let this = self;
        match &mut this.end {
            End::Server(end) => turns!(end, this),
            End::Client(end) => turns!(end, this),
        }
    }

    fn flush(&mut self, socket: &OwnedFd) -> Result<(), String> {
        while !self.outgoing.is_empty() {
            match send_bytes(socket, &self.outgoing, &[]) {
                Ok(count) => {
                    self.outgoing.drain(..count);
                    self.written += count as u64;
                    self.replay = Vec::new();
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno.to_string()),
            }
        }
        Ok(())
    }

    /// Takes the next whole record out of the socket. `false`: it is not there yet.
    fn read_record(&mut self, socket: &OwnedFd, scratch: &mut [u8]) -> Result<bool, String> {
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        let (count, is_end) =
            match rustix::net::recv(socket, &mut scratch[..RECORD_BYTES_MAX], flags) {
                Ok((0, _)) => (0, true),
                Ok((count, _)) => (count, false),
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                Err(errno) => return Err(errno.to_string()),
            };
        if is_end {
            return Err("the other side closed".to_owned());
        }
        let Some(length) = length_of_record(&scratch[..count]) else {
            return Ok(false);
        };
        let taken = rustix::net::recv(socket, &mut scratch[..length], RecvFlags::DONTWAIT);
        if !matches!(taken, Ok((count, _)) if count == length) {
            return Err("bytes that were there are gone".to_owned());
        }
        let record = &scratch[..length];
        self.incoming.extend_from_slice(record);
        if self.written == 0 {
            self.replay.extend_from_slice(record);
        }
        self.read += length as u64;
        if self.read > HANDSHAKE_BYTES_MAX {
            return Err("a handshake of too many bytes".to_owned());
        }
        Ok(true)
    }

    /// The secrets are ours, and rustls is not needed any more.
    fn finish(mut self) -> Shook {
        let outgoing = core::mem::take(&mut self.outgoing);
        let (read, written) = (self.read, self.written);
        let secrets = self.secrets;
        let (role, about, extracted) = match self.end {
            End::Server(end) => {
                let about = about(&end);
                let extracted = end.dangerous_into_kernel_connection();
                (Role::Server, about, extracted.map(without_connection))
            }
            End::Client(end) => {
                let about = about(&end);
                let extracted = end.dangerous_into_kernel_connection();
                (Role::Client, about, extracted.map(without_connection))
            }
        };
        let extracted = match extracted {
            Ok(extracted) => extracted,
            Err(error) => return Shook::Failed(error.to_string()),
        };
        let Some(mut records) = records(role, extracted, secrets) else {
            return Shook::Failed("keys of a suite that is not known here".to_owned());
        };
        records.keep_stuck(&self.incoming);
        records.keep_unsent(&outgoing);
        let layer = Layer::new(records, read, written);
        let (protocol, is_resumed) = about;
        Shook::Done(Box::new(Done {
            layer,
            protocol,
            is_resumed,
        }))
    }
}

/// What was agreed on by ALPN, and whether a ticket was taken.
fn about(end: &CommonState) -> (Option<Vec<u8>>, bool) {
    let protocol = end.alpn_protocol().map(<[u8]>::to_vec);
    (
        protocol,
        end.handshake_kind() == Some(HandshakeKind::Resumed),
    )
}

fn without_connection<T>(
    (secrets, _): (ExtractedSecrets, KernelConnection<T>),
) -> ExtractedSecrets {
    secrets
}

fn records(role: Role, extracted: ExtractedSecrets, secrets: Secrets) -> Option<Records> {
    let (received, sent) = match role {
        Role::Server => (secrets.client, secrets.server),
        Role::Client => (secrets.server, secrets.client),
    };
    let (received_records, keys) = extracted.rx;
    let (suite, received) = material(received, keys)?;
    let (sent_records, keys) = extracted.tx;
    let (_, sent) = material(sent, keys)?;
    Records::new(
        role,
        suite,
        (received, received_records),
        (sent, sent_records),
    )
}

/// With a traffic secret it is TLS 1.3.
fn material(
    secret: Option<Zeroizing<Vec<u8>>>,
    keys: ConnectionTrafficSecrets,
) -> Option<(Suite, Material)> {
    let (suite, key, iv) = match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Suite::ChaCha20Poly1305, key, iv)
        }
        _ => return None,
    };
    let material = match secret {
        Some(secret) => Material::Secret(secret),
        None => Material::Key {
            key: Zeroizing::new(key.as_ref().to_vec()),
            iv: iv.as_ref().try_into().ok()?,
        },
    };
    Some((suite, material))
}

/// The whole length of the record that the input begins with. `None`: it is not whole yet. What is
/// no TLS is given to rustls as it is, which says so.
fn length_of_record(input: &[u8]) -> Option<usize> {
    const KINDS: core::ops::RangeInclusive<u8> = 20..=23;
    if !KINDS.contains(&input[0]) || input.get(1).is_some_and(|major| *major != 3) {
        return Some(input.len());
    }
    let header = input.first_chunk::<HEADER_BYTES>()?;
    let length = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length > RECORD_BYTES_MAX {
        return Some(input.len());
    }
    (input.len() >= length).then_some(length)
}
