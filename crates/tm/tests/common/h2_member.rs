//! A member that speaks HTTP/2 alone, on the codec: `/N` with N bytes of the pattern with seed N,
//! `/grpc` echoes what it gets at once and ends with trailers, `/slow` never answers, `/reset` resets,
//! `/cut` resets in its body; any other body comes back.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hitless_proto::http2::{Connection, Context, ErrorCode, Event, Head, Limits, Work};

use super::{Echo, fill};

/// `leaves`: once set, the connection of the next request says GOAWAY and does not take it.
pub fn start(limits: Limits, leaves: Arc<AtomicBool>) -> Echo {
    Echo::start_with(move |stream| {
        let mut member = Member::new(stream, limits.clone(), Arc::clone(&leaves));
        while member.turn() {}
    })
}

/// What is to be sent on a stream.
#[derive(Default)]
struct Owed {
    body: Vec<u8>,
    has_ended: bool,
    trailers: bool,
}

struct Member {
    stream: TcpStream,
    codec: Connection,
    limits: Limits,
    work: Work,
    start: Instant,
    owed: BTreeMap<u32, Owed>,
    /// Bodies that are echoed once they are whole, and those that are at once.
    echoes: BTreeMap<u32, bool>,
    waits: bool,
    leaves: Arc<AtomicBool>,
}

impl Member {
    fn new(stream: TcpStream, limits: Limits, leaves: Arc<AtomicBool>) -> Self {
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let mut work = Work::default();
        let cx = Context {
            now_us: 0,
            limits: &limits,
        };
        let mut codec = Connection::server(&cx, &mut work.out);
        codec.take_output(&mut work, 0);
        Self {
            stream,
            codec,
            limits,
            work,
            start: Instant::now(),
            owed: BTreeMap::new(),
            echoes: BTreeMap::new(),
            waits: false,
            leaves,
        }
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Connection, &Context<'_>, &mut Vec<u8>) -> T,
    ) -> T {
        let cx = Context {
            now_us: self.start.elapsed().as_micros() as u64,
            limits: &self.limits,
        };
        let result = call(&mut self.codec, &cx, &mut self.work.out);
        self.codec.take_output(&mut self.work, cx.now_us);
        result
    }

    fn turn(&mut self) -> bool {
        while let Some(stream) = self.call(|codec, cx, out| codec.next_writable(cx, out)) {
            self.serve(stream);
        }
        while !self.codec.unsent().is_empty() {
            match self.stream.write(self.codec.unsent()) {
                Ok(count) => self.codec.sent(count, 0),
                Err(_) => return false,
            }
        }
        let mut buffer = [0; 16 * 1024];
        if !std::mem::take(&mut self.waits) {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.codec.feed(&buffer[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return false,
            }
        }
        self.events()
    }

    fn events(&mut self) -> bool {
        loop {
            let mut body = Vec::new();
            let cx = Context {
                now_us: self.start.elapsed().as_micros() as u64,
                limits: &self.limits,
            };
            match self.codec.poll_event(&cx, &mut self.work, &mut body) {
                Event::NeedMore => return true,
                Event::Wait => {
                    self.waits = true;
                    return true;
                }
                Event::Closed | Event::Failed(_) => return false,
                Event::Request { stream, ends } => {
                    let path = String::from_utf8_lossy(self.work.head.path()).into_owned();
                    let from = self.work.head.field(b"user-agent");
                    let is_probe = from == Some(b"hitless-monitor");
                    assert!(is_probe || self.work.head.field(b"via").is_some());
                    if self.leaves.swap(false, Ordering::Relaxed) {
                        let last = stream.saturating_sub(2);
                        let mut frame = vec![0, 0, 8, 7, 0, 0, 0, 0, 0];
                        frame.extend_from_slice(&last.to_be_bytes());
                        frame.extend_from_slice(&[0; 4]);
                        self.codec.keep_unsent(&frame, 0);
                        continue;
                    }
                    self.request(stream, &path, ends);
                }
                Event::Data { stream, ends } => {
                    self.call(|codec, cx, out| codec.release(cx, stream, body.len(), out));
                    self.come(stream, &body, ends);
                }
                Event::Trailers { stream } => {
                    if let Some(owed) = self.owed.get_mut(&stream) {
                        owed.trailers = true;
                    }
                    self.come(stream, &[], true);
                }
                Event::Reset { stream, .. } => {
                    self.owed.remove(&stream);
                }
                _ => {}
            }
        }
    }

    fn request(&mut self, stream: u32, path: &str, ends: bool) {
        let mut head = Head::default();
        match path {
            "/slow" => return,
            "/reset" | "/cut" => {
                if path == "/cut" {
                    head.begin_response(200);
                    self.call(|codec, cx, out| codec.respond(cx, stream, &head, false, out))
                        .unwrap();
                    self.call(|codec, cx, out| codec.send_data(cx, stream, b"part", false, out))
                        .unwrap();
                }
                let code = ErrorCode::CANCEL;
                return self.call(|codec, cx, out| codec.reset(cx, stream, code, out));
            }
            _ => {}
        }
        head.begin_response(200);
        head.push(b"x-from", b"h2");
        self.call(|codec, cx, out| codec.respond(cx, stream, &head, false, out))
            .unwrap();
        let mut owed = Owed {
            trailers: path == "/grpc",
            ..Owed::default()
        };
        if path != "/grpc" && ends {
            let count: u64 = path.trim_start_matches('/').parse().unwrap_or(0);
            owed.body = vec![0; count as usize];
            fill(count, 0, &mut owed.body);
            owed.has_ended = true;
        }
        owed.has_ended |= ends;
        self.owed.insert(stream, owed);
        self.echoes.insert(stream, path == "/grpc");
        self.serve(stream);
    }

    fn come(&mut self, stream: u32, body: &[u8], ends: bool) {
        let Some(owed) = self.owed.get_mut(&stream) else {
            return;
        };
        owed.body.extend_from_slice(body);
        owed.has_ended |= ends;
        if ends || self.echoes[&stream] {
            self.serve(stream);
        }
    }

    fn serve(&mut self, stream: u32) {
        let Some(mut owed) = self.owed.remove(&stream) else {
            return;
        };
        let ends = owed.has_ended && !owed.trailers;
        let Ok(sent) =
            self.call(|codec, cx, out| codec.send_data(cx, stream, &owed.body, ends, out))
        else {
            return;
        };
        owed.body.drain(..sent);
        if owed.has_ended && owed.body.is_empty() {
            if owed.trailers {
                let mut head = Head::default();
                head.begin_trailers();
                head.push(b"grpc-status", b"0");
                self.call(|codec, cx, out| codec.send_trailers(cx, stream, &head, out))
                    .unwrap();
            }
            return;
        }
        self.owed.insert(stream, owed);
    }
}
