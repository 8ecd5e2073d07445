//! One probe: a connection to a member, from its start to its result.
//!
//! ```text
//! connecting --> (tcp) done
//!           \--> (http) sending --> reading the head --> done, and the rest is read until the member closes
//! ```
//!
//! The rest of a response is read and thrown away, so that the member sees an orderly end and not a
//! reset; nobody waits for that, and the next probe of the member ends it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use hitless_core::health::{Failure, Outcome};
use hitless_proto::http2::{Connection, Context, Event, Head, Limits, Work};
use hitless_types::site::{MembersProtocol, Probe};
use mio::net::TcpStream;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::tls::MembersSide;

/// Bytes of a response's head: more headers than a health page has.
const HEAD_MAX: usize = 16 * 1024;
/// Header lines of a response.
const HEADERS_MAX: usize = 64;
/// Bytes of a response's rest that are read before the connection is closed all the same.
const REST_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Running {
    pub(super) stream: TcpStream,
    /// `None`: in cleartext.
    tls: Option<Box<ClientConnection>>,
    phase: Phase,
    /// The status that an HTTP probe expects. `None` for a TCP probe.
    expect: Option<u16>,
    request: Vec<u8>,
    head: Vec<u8>,
    /// For a member that is spoken to in HTTP/2.
    http2: Option<Box<Http2>>,
}

/// The client's end of such a probe.
#[derive(Debug)]
struct Http2 {
    codec: Connection,
    work: Work,
    limits: Limits,
}

impl Http2 {
    /// With the request, which goes out at once with what a connection begins with.
    fn start(host: &str, path: &str) -> (Self, Vec<u8>) {
        let (limits, mut work) = (Limits::default(), Work::default());
        let cx = Context {
            now_us: 0,
            limits: &limits,
        };
        let mut codec = Connection::client(&cx, &mut work.out);
        let mut head = Head::default();
        head.begin_request(b"GET", b"http", Some(host.as_bytes()), path.as_bytes());
        head.push(b"user-agent", b"hitless-monitor");
        head.push(b"accept", b"*/*");
        // A fresh connection has a stream, and its peer has not said what it takes.
        let _ = codec.open(&cx, &head, true, &mut work.out);
        let request = core::mem::take(&mut work.out);
        let http2 = Self {
            codec,
            work,
            limits,
        };
        (http2, request)
    }

    /// The status of the final response. `Err` if it is not HTTP/2, or nothing that answers.
    fn status(&mut self, bytes: &[u8]) -> Result<Option<u16>, ()> {
        self.codec.feed(bytes);
        let cx = Context {
            now_us: 0,
            limits: &self.limits,
        };
        loop {
            let mut body = Vec::new();
            match self.codec.poll_event(&cx, &mut self.work, &mut body) {
                Event::NeedMore | Event::Wait => return Ok(None),
                Event::Response { .. } => return Ok(Some(self.work.head.status())),
                Event::Failed(_) | Event::Closed | Event::Reset { .. } => return Err(()),
                _ => {}
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Connecting,
    Sending { sent: usize },
    Reading,
    Rest { read: usize },
    Over,
}

/// What became of a probe when its socket was ready.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// It waits for its socket.
    Waits,
    /// It has its result; `closes` if there is nothing more to read.
    Result {
        result: Result<(), Failure>,
        closes: bool,
    },
    /// It has nothing more to do.
    Over,
}

impl Running {
    /// Begins to connect.
    pub(super) fn start(
        probe: &Probe,
        protocol: MembersProtocol,
        (member, tls): (SocketAddr, Option<&MembersSide>),
    ) -> Result<Self, Failure> {
        let mut running = Self::start_plain(probe, protocol, member)?;
        // A TCP probe is content with a connection.
        if let Some(side) = tls.filter(|_| running.expect.is_some()) {
            let name = side.name.clone();
            let name = name.unwrap_or_else(|| ServerName::IpAddress(member.ip().into()));
            let made = ClientConnection::new(Arc::clone(&side.config), name);
            let failed = |error: rustls::Error| Failure::Tls {
                error: error.to_string(),
            };
            running.tls = Some(Box::new(made.map_err(failed)?));
        }
        Ok(running)
    }

    fn start_plain(
        probe: &Probe,
        protocol: MembersProtocol,
        member: SocketAddr,
    ) -> Result<Self, Failure> {
        let stream = TcpStream::connect(member).map_err(|error| failure_of(&error))?;
        let mut http2 = None;
        let (expect, request) = match probe {
            Probe::Tcp => (None, Vec::new()),
            Probe::Http { path, host, expect } => {
                let host = host.clone().unwrap_or_else(|| member.to_string());
                if protocol == MembersProtocol::Http2 {
                    let (made, request) = Http2::start(&host, path);
                    http2 = Some(Box::new(made));
                    return Ok(Self::new(stream, Some(*expect), request, http2));
                }
                let request = format!(
                    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: hitless-monitor\r\n\
                     Accept: */*\r\nConnection: close\r\n\r\n"
                );
                (Some(*expect), request.into_bytes())
            }
        };
        Ok(Self::new(stream, expect, request, http2))
    }

    fn new(
        stream: TcpStream,
        expect: Option<u16>,
        request: Vec<u8>,
        http2: Option<Box<Http2>>,
    ) -> Self {
        Self {
            stream,
            tls: None,
            phase: Phase::Connecting,
            expect,
            request,
            head: Vec::new(),
            http2,
        }
    }

    /// Goes on as far as the socket allows.
    pub(super) fn advance(&mut self) -> Progress {
        loop {
            match self.step() {
                Ok(Some(progress)) => return progress,
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if matches!(self.phase, Phase::Rest { .. }) => return Progress::Over,
                Err(error) => return self.result(Err(failure_of(&error))),
            }
        }
    }

    /// `Ok(None)`: there is more to do at once.
    fn step(&mut self) -> io::Result<Option<Progress>> {
        match self.phase {
            Phase::Connecting => {
                if let Some(error) = self.stream.take_error()? {
                    return Err(error);
                }
                match self.stream.peer_addr() {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::NotConnected => {
                        return Err(ErrorKind::WouldBlock.into());
                    }
                    Err(error) => return Err(error),
                }
                if self.expect.is_none() {
                    return Ok(Some(self.result(Ok(()))));
                }
                self.phase = Phase::Sending { sent: 0 };
                Ok(None)
            }
            Phase::Sending { sent } => {
                let written = match &mut self.tls {
                    None => self.stream.write(&self.request[sent..])?,
                    Some(tls) => {
                        let mut sealed = rustls::Stream::new(&mut **tls, &mut self.stream);
                        sealed.write(&self.request[sent..])?
                    }
                };
                let sent = sent + written;
                self.phase = if sent == self.request.len() {
                    Phase::Reading
                } else {
                    Phase::Sending { sent }
                };
                Ok(None)
            }
            Phase::Reading => self.read_head(),
            Phase::Rest { read } => {
                let more = self.read(&mut [0; 4096])?;
                if more == 0 || read + more > REST_MAX {
                    self.phase = Phase::Over;
                    return Ok(Some(Progress::Over));
                }
                self.phase = Phase::Rest { read: read + more };
                Ok(None)
            }
            Phase::Over => Ok(Some(Progress::Over)),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read(into),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(into),
        }
    }

    fn read_head(&mut self) -> io::Result<Option<Progress>> {
        let mut buffer = [0; 4096];
        let read = self.read(&mut buffer)?;
        if read == 0 {
            return Ok(Some(self.result(Err(Failure::Closed))));
        }
        let expected = self.expect.unwrap_or_default();
        let status = match &mut self.http2 {
            Some(http2) => http2.status(&buffer[..read]),
            None => {
                self.head.extend_from_slice(&buffer[..read]);
                status_of(&mut self.head)
            }
        };
        Ok(match status {
            Ok(Some(found)) if found == expected => Some(self.result(Ok(()))),
            Ok(Some(found)) => Some(self.result(Err(Failure::Status { found, expected }))),
            Ok(None) if self.head.len() < HEAD_MAX => None,
            Ok(None) | Err(()) => Some(self.result(Err(Failure::NotHttp))),
        })
    }

    fn result(&mut self, result: Result<(), Failure>) -> Progress {
        // A connection of HTTP/2 is not ended by its member.
        let reads_on = matches!(self.phase, Phase::Reading)
            && self.http2.is_none()
            && matches!(result, Ok(()) | Err(Failure::Status { .. }));
        self.phase = if reads_on {
            Phase::Rest { read: 0 }
        } else {
            Phase::Over
        };
        let closes = !reads_on;
        Progress::Result { result, closes }
    }
}

/// The status of the final response in `head`; interim ones (RFC 9110, 15.2) are taken out. `Err`
/// if it is not HTTP.
fn status_of(head: &mut Vec<u8>) -> Result<Option<u16>, ()> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(head) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(()),
        };
        match response.code {
            Some(100 | 102..=199) => head.drain(..length),
            code => return Ok(code),
        };
    }
}

/// What an error of a socket says: of the member, or of this machine.
pub(super) fn failure_of(error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::Refused,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Failure::Unreachable,
        ErrorKind::TimedOut => Failure::TimedOut,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
            Failure::Closed
        }
        // What rustls says of the other side comes so.
        ErrorKind::InvalidData => Failure::Tls {
            error: error.to_string(),
        },
        ErrorKind::UnexpectedEof => Failure::Closed,
        _ => Failure::Local {
            error: error.to_string(),
        },
    }
}

/// The result as the prober takes it.
pub(super) fn outcome(result: Result<(), Failure>, latency_us: u64) -> Outcome {
    match result {
        Ok(()) => Outcome::Good { latency_us },
        Err(failure) => Outcome::Bad(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interim_responses_are_not_the_answer() {
        let mut head = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 204 No".to_vec();
        assert_eq!(status_of(&mut head), Ok(None));
        head.extend_from_slice(b" Content\r\n\r\n");
        assert_eq!(status_of(&mut head), Ok(Some(204)));
        assert_eq!(status_of(&mut b"SSH-2.0-OpenSSH\r\n".to_vec()), Err(()));
        assert_eq!(status_of(&mut Vec::new()), Ok(None));
    }
}
