//! A client that speaks HTTP/2 by prior knowledge and keeps all that comes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hitless_proto::http2::{Connection, Context, ErrorCode, Event, Head, Limits, Work};

use super::{PATIENCE, wrong_byte};

/// What came on a stream.
#[derive(Debug, Default, Clone)]
pub struct Answer {
    pub status: u16,
    pub interim: Vec<u16>,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Option<Vec<(String, String)>>,
    pub has_ended: bool,
    pub reset: Option<String>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }
}

pub struct H2Client {
    pub stream: TcpStream,
    codec: Connection,
    limits: Limits,
    work: Work,
    start: Instant,
    pub came: BTreeMap<u32, Answer>,
    /// Body bytes are given back, so that more may come.
    pub releases: bool,
    /// GOAWAY frames: last stream and code.
    pub told_to_go: Vec<(u32, ErrorCode)>,
    pub is_closed: bool,
}

impl H2Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, Limits::default())
    }

    pub fn connect_with(address: SocketAddr, limits: Limits) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut work = Work::default();
        let cx = Context {
            now_us: 0,
            limits: &limits,
        };
        let mut codec = Connection::client(&cx, &mut work.out);
        codec.take_output(&mut work, 0);
        Self {
            stream,
            codec,
            limits,
            work,
            start: Instant::now(),
            came: BTreeMap::new(),
            releases: true,
            told_to_go: Vec::new(),
            is_closed: false,
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

    /// Opens a stream without sending it yet.
    pub fn open(&mut self, method: &str, path: &str, fields: &[(&str, &str)], ends: bool) -> u32 {
        let mut head = Head::default();
        head.begin_request(method.as_bytes(), b"http", Some(b"test"), path.as_bytes());
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes());
        }
        let stream = self
            .call(|codec, cx, out| codec.open(cx, &head, ends, out))
            .unwrap();
        self.came.insert(stream, Answer::default());
        stream
    }

    pub fn get(&mut self, path: &str) -> u32 {
        self.open("GET", path, &[], true)
    }

    /// Sends all of it, however long the windows take.
    pub fn send(&mut self, stream: u32, mut data: &[u8], ends: bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let sent = self
                .call(|codec, cx, out| codec.send_data(cx, stream, data, ends, out))
                .unwrap();
            data = &data[sent..];
            if data.is_empty() {
                return;
            }
            self.turn();
            self.call(|codec, cx, out| while codec.next_writable(cx, out).is_some() {});
            assert!(Instant::now() < until, "sent in vain on stream {stream}");
        }
    }

    pub fn send_trailers(&mut self, stream: u32, fields: &[(&str, &str)]) {
        let mut head = Head::default();
        head.begin_trailers();
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes());
        }
        self.call(|codec, cx, out| codec.send_trailers(cx, stream, &head, out))
            .unwrap();
    }

    pub fn reset(&mut self, stream: u32) {
        self.call(|codec, cx, out| codec.reset(cx, stream, ErrorCode::CANCEL, out));
        self.turn();
    }

    /// Nothing waits to be sent.
    pub fn is_flushed(&self) -> bool {
        self.codec.unsent().is_empty()
    }

    /// Sends bytes as they are, behind what the machine has sent.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.set_nonblocking(false).unwrap();
        self.stream.write_all(bytes).unwrap();
        self.stream.set_nonblocking(true).unwrap();
    }

    /// Gives bytes back that were held.
    pub fn release(&mut self, stream: u32, count: usize) {
        self.call(|codec, cx, out| codec.release(cx, stream, count, out));
    }

    /// Bytes that are to be sent and were not.
    pub fn take_unsent(&mut self) -> Vec<u8> {
        let bytes = self.codec.unsent().to_vec();
        self.codec.sent(bytes.len(), 0);
        bytes
    }

    /// Writes and reads what there is; `false`: nothing.
    pub fn turn(&mut self) -> bool {
        let mut has_moved = false;
        while !self.codec.unsent().is_empty() {
            match self.stream.write(self.codec.unsent()) {
                Ok(count) => {
                    self.codec.sent(count, 0);
                    has_moved = true;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.is_closed = true;
                    return false;
                }
            }
        }
        let mut buffer = [0; 32 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.is_closed = true,
            Ok(count) => {
                has_moved = true;
                self.codec.feed(&buffer[..count]);
                self.events();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.is_closed = true,
        }
        if !has_moved {
            std::thread::sleep(Duration::from_millis(1));
        }
        has_moved
    }

    fn events(&mut self) {
        loop {
            let mut body = Vec::new();
            let cx = Context {
                now_us: self.start.elapsed().as_micros() as u64,
                limits: &self.limits,
            };
            let event = self.codec.poll_event(&cx, &mut self.work, &mut body);
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let head = &self.work.head;
            let fields = head
                .fields()
                .map(|field| (text(field.name), text(field.value)));
            let fields: Vec<_> = fields.collect();
            let status = head.status();
            match event {
                Event::NeedMore | Event::Wait => return,
                Event::Interim { stream } => self.answer(stream).interim.push(status),
                Event::Response { stream, ends } => {
                    let answer = self.answer(stream);
                    answer.status = status;
                    answer.fields = fields;
                    answer.has_ended = ends;
                }
                Event::Data { stream, ends } => {
                    let answer = self.answer(stream);
                    answer.body.extend_from_slice(&body);
                    answer.has_ended = ends;
                    if self.releases {
                        self.call(|codec, cx, out| codec.release(cx, stream, body.len(), out));
                    }
                }
                Event::Trailers { stream } => {
                    let answer = self.answer(stream);
                    answer.trailers = Some(fields);
                    answer.has_ended = true;
                }
                Event::Reset { stream, cause } => {
                    self.answer(stream).reset = Some(format!("{cause:?}"));
                }
                Event::GoAway { last, code } => self.told_to_go.push((last, code)),
                Event::Window | Event::Settings | Event::Pong(_) => {}
                Event::Failed(fault) => panic!("{fault}"),
                Event::Closed => return,
                Event::Request { .. } => panic!("a request from a server"),
            }
        }
    }

    fn answer(&mut self, stream: u32) -> &mut Answer {
        self.came.entry(stream).or_default()
    }

    /// Goes on until something is so.
    pub fn until(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is(self) {
            assert!(!self.is_closed, "closed while waiting for {what}");
            assert!(Instant::now() < until, "waited in vain for {what}");
            self.turn();
        }
    }

    /// The answer on a stream, whole or reset.
    pub fn finish(&mut self, stream: u32) -> Answer {
        self.until("an answer", |this| {
            let answer = &this.came[&stream];
            answer.has_ended || answer.reset.is_some()
        });
        self.came.remove(&stream).unwrap()
    }

    /// The answer to `GET /N`, which is the pattern with seed N.
    pub fn expect_pattern(&mut self, stream: u32, count: usize) {
        let answer = self.finish(stream);
        assert_eq!(
            (answer.status, answer.reset),
            (200, None),
            "stream {stream}"
        );
        assert_eq!(answer.body.len(), count, "stream {stream}");
        assert_eq!(
            wrong_byte(count as u64, 0, &answer.body),
            None,
            "of {count}"
        );
    }

    pub fn ask(&mut self, count: usize) {
        let stream = self.get(&format!("/{count}"));
        self.expect_pattern(stream, count);
        // What is owed to the other side, too: it waits for that, and this client may be idle now.
        self.until("an empty queue", Self::is_flushed);
    }
}
