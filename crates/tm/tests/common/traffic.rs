//! Many clients at once, in every phase that a connection has.

use std::net::SocketAddr;
use std::time::Duration;

use super::h2::H2Client;
use super::{HttpClient, Instance, Stream, header, wait_for};

/// Streams, and HTTP clients in every phase.
pub struct Traffic {
    streams: Vec<Stream>,
    idle: Vec<HttpClient>,
    in_head: Vec<HttpClient>,
    in_body: Vec<HttpClient>,
    reading: Vec<HttpClient>,
    /// HTTP/2: without a stream; inside a field block; with a body half sent beside another that is
    /// half received, and a frame cut in its midst.
    h2_idle: Vec<H2Client>,
    h2_in_head: Vec<(H2Client, u32, Vec<u8>)>,
    h2_busy: Vec<Busy>,
}

struct Busy {
    client: H2Client,
    post: u32,
    big: u32,
    rest: Vec<u8>,
}

const BODY: usize = 300_000;
const BIG: usize = 8_000_000;

impl Traffic {
    pub fn start(instance: &Instance) -> Self {
        Self::start_at(instance, instance.address("raw"), instance.address("web"))
    }

    /// Likewise, by way of these addresses.
    pub fn start_at(instance: &Instance, raw: SocketAddr, web: SocketAddr) -> Self {
        let stream = |seed: u64| {
            let window = if seed < 4 { 1 << 18 } else { 2000 };
            Stream::start(raw, seed, window, Duration::from_millis(50))
        };
        let streams: Vec<Stream> = (0..60).map(stream).collect();
        let connect = |_| HttpClient::connect(web);
        let mut traffic = Self {
            streams,
            idle: (0..60).map(connect).collect(),
            in_head: (0..40).map(connect).collect(),
            in_body: (0..20).map(connect).collect(),
            reading: (0..6).map(connect).collect(),
            h2_idle: (0..10).map(|_| H2Client::connect(web)).collect(),
            h2_in_head: Vec::new(),
            h2_busy: (0..8).map(|seed| Busy::start(web, seed)).collect(),
        };
        for client in &mut traffic.h2_idle {
            client.ask(3_000);
        }
        for cut in 1..8 {
            let mut client = H2Client::connect(web);
            client.ask(30);
            let stream = client.get("/4321");
            let bytes = client.take_unsent();
            client.send_raw(&bytes[..cut * 2]);
            traffic
                .h2_in_head
                .push((client, stream, bytes[cut * 2..].to_vec()));
        }
        for (count, client) in traffic.idle.iter_mut().enumerate() {
            client.get(count);
        }
        for client in &mut traffic.in_head {
            client.get(10);
            client.send(b"GET /12 HTTP/1.1\r\nHo");
        }
        for client in &mut traffic.in_body {
            let head = format!("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: {BODY}\r\n\r\n");
            client.send(head.as_bytes());
            client.send(&vec![b'x'; BODY / 2]);
        }
        for client in &mut traffic.reading {
            // More than all socket buffers hold: the rest waits in the worker and at the member.
            client.send(format!("GET /{BIG} HTTP/1.1\r\nHost: t\r\n\r\n").as_bytes());
        }
        traffic.wait_progress();
        wait_for("all to be accepted", || {
            let accepted = instance.metric("hitless_connections");
            (accepted == traffic.count() as f64).then_some(())
        });
        traffic
    }

    pub fn count(&self) -> u64 {
        let clients =
            self.idle.len() + self.in_head.len() + self.in_body.len() + self.reading.len();
        let h2 = self.h2_idle.len() + self.h2_in_head.len() + self.h2_busy.len();
        (self.streams.len() + clients + h2) as u64
    }

    pub fn wait_progress(&self) {
        let seen: Vec<u64> = self.streams.iter().map(Stream::position).collect();
        for (stream, seen) in self.streams.iter().zip(seen) {
            wait_for("progress", || (stream.position() > seen).then_some(()));
        }
    }

    /// Everything that was begun goes on where it was, on the same connections.
    pub fn finish(mut self) {
        self.wait_progress();
        for client in &mut self.in_head {
            client.send(b"st: test\r\n\r\n");
            let head = client.expect_pattern(12);
            assert_eq!(header(&head, "connection"), None, "nobody is told to close");
            client.get(1);
        }
        for client in &mut self.in_body {
            client.send(&vec![b'x'; BODY - BODY / 2]);
            let (head, body) = client.answer();
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            assert_eq!(body.len(), BODY);
            assert!(body.iter().all(|&byte| byte == b'x'));
            client.get(2);
        }
        for client in &mut self.reading {
            client.expect_pattern(BIG);
            client.get(3);
        }
        for client in &mut self.idle {
            client.get(100);
        }
        for client in &mut self.h2_idle {
            client.ask(100);
            assert!(client.told_to_go.is_empty());
        }
        for (client, stream, rest) in &mut self.h2_in_head {
            client.send_raw(rest);
            client.expect_pattern(*stream, 4321);
            client.ask(5);
            assert!(client.told_to_go.is_empty());
        }
        for busy in self.h2_busy {
            busy.finish();
        }
        for stream in &self.streams {
            stream.tell_to_finish();
        }
        for stream in self.streams {
            stream.finish().unwrap();
        }
    }
}

impl Busy {
    fn start(web: SocketAddr, seed: usize) -> Self {
        let mut client = H2Client::connect(web);
        client.releases = false;
        let big = client.get(&format!("/{BIG}"));
        client.until("a part", |client| client.came[&big].body.len() > 60_000);
        let length = BODY.to_string();
        let post = client.open("POST", "/", &[("content-length", &length)], false);
        client.send(post, &vec![b'y'; BODY / 2], false);
        client.until("an empty queue", H2Client::is_flushed);
        // A frame of which some of the header or of the data is missing.
        client.send(post, &[b'y'; 20], false);
        let bytes = client.take_unsent();
        let cut = 3 * seed + 1;
        client.send_raw(&bytes[..cut]);
        let rest = bytes[cut..].to_vec();
        Self {
            client,
            post,
            big,
            rest,
        }
    }

    fn finish(mut self) {
        let client = &mut self.client;
        client.send_raw(&self.rest);
        client.releases = true;
        let held = client.came[&self.big].body.len();
        client.release(self.big, held);
        client.send(self.post, &vec![b'y'; BODY - BODY / 2 - 20], true);
        let answer = client.finish(self.post);
        assert_eq!((answer.status, answer.reset), (200, None));
        assert_eq!(answer.body.len(), BODY);
        assert!(answer.body.iter().all(|&byte| byte == b'y'));
        client.expect_pattern(self.big, BIG);
        client.ask(77);
        assert!(client.told_to_go.is_empty());
    }
}
