//! The `h2` crate as client and as server at the other end of a pipe in memory: what it sends we
//! understand, and the other way round, however the bytes are cut and wherever snapshots are taken.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use bytes::Bytes;
use hitless_proto::http2::{Connection, Context, Event, Head, Limits, Work};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

type Fields = Vec<(String, Vec<u8>)>;

/// A message as both sides should see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Message {
    fields: Fields,
    body: Vec<u8>,
    trailers: Option<Fields>,
}

impl Message {
    /// Fields by name: a map does not keep the order of different names.
    fn sorted(mut self) -> Message {
        self.fields.sort();
        self.trailers.iter_mut().for_each(|fields| fields.sort());
        self
    }
}

/// How bytes move and where snapshots are taken.
#[derive(Debug, Clone)]
struct Manner {
    reads: Vec<usize>,
    /// Every so many reads; 0 for never.
    snapshots: usize,
    window: u32,
    table: usize,
}

/// Our end: the connection, what is still to be sent and what has come per stream.
struct Ours {
    connection: Connection,
    limits: Limits,
    work: Work,
    pipe: DuplexStream,
    now_us: u64,
    owed: BTreeMap<u32, Owed>,
    came: BTreeMap<u32, Message>,
    reads: usize,
    manner: Manner,
    is_server: bool,
}

#[derive(Default)]
struct Owed {
    body: Vec<u8>,
    at: usize,
    trailers: Option<Fields>,
    is_complete: bool,
}

fn push_all(head: &mut Head, fields: &Fields) {
    for (name, value) in fields {
        head.push(name.as_bytes(), value);
    }
}

fn fields(head: &Head) -> Fields {
    head.fields()
        .map(|field| {
            let name = String::from_utf8(field.name.to_vec()).unwrap();
            (name, field.value.to_vec())
        })
        .collect()
}

impl Ours {
    fn new(is_server: bool, pipe: DuplexStream, manner: Manner) -> Ours {
        let limits = Limits {
            stream_window_bytes: manner.window,
            decoder_table_bytes: manner.table,
            encoder_table_bytes: manner.table,
            ..Limits::default()
        };
        let (mut work, now_us) = (Work::default(), 1);
        let cx = Context {
            now_us,
            limits: &limits,
        };
        let mut connection = match is_server {
            true => Connection::server(&cx, &mut work.out),
            false => Connection::client(&cx, &mut work.out),
        };
        connection.take_output(&mut work, now_us);
        Ours {
            connection,
            limits,
            work,
            pipe,
            now_us,
            owed: BTreeMap::new(),
            came: BTreeMap::new(),
            reads: 0,
            manner,
            is_server,
        }
    }

    /// Calls the connection and keeps its output.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Connection, &Context<'_>, &mut Vec<u8>) -> T,
    ) -> T {
        let cx = Context {
            now_us: self.now_us,
            limits: &self.limits,
        };
        let result = call(&mut self.connection, &cx, &mut self.work.out);
        self.connection.take_output(&mut self.work, self.now_us);
        result
    }

    /// Sends what is owed on a stream, as far as it goes.
    fn serve(&mut self, id: u32) {
        let Some(mut owed) = self.owed.remove(&id) else {
            return;
        };
        let ends = owed.is_complete && owed.trailers.is_none();
        let rest = &owed.body[owed.at..];
        owed.at += self
            .call(|connection, cx, out| connection.send_data(cx, id, rest, ends, out))
            .unwrap();
        if owed.at < owed.body.len() || !owed.is_complete {
            self.owed.insert(id, owed);
        } else if let Some(trailers) = &owed.trailers {
            let mut head = Head::default();
            head.begin_trailers();
            push_all(&mut head, trailers);
            self.call(|connection, cx, out| connection.send_trailers(cx, id, &head, out))
                .unwrap();
        }
    }

    /// Uses what has come. A server echoes.
    fn events(&mut self) {
        loop {
            let mut body = Vec::new();
            let cx = Context {
                now_us: self.now_us,
                limits: &self.limits,
            };
            let event = self.connection.poll_event(&cx, &mut self.work, &mut body);
            let came = fields(&self.work.head);
            match event {
                Event::NeedMore | Event::Wait | Event::Closed => break,
                Event::Request { stream, ends } => {
                    let mut head = Head::default();
                    head.begin_response(200);
                    push_all(&mut head, &came);
                    self.call(|connection, cx, out| {
                        connection.respond(cx, stream, &head, ends, out)
                    })
                    .unwrap();
                    self.owed.insert(stream, Owed::default());
                }
                Event::Response { stream, .. } => {
                    self.came.get_mut(&stream).unwrap().fields = came;
                }
                Event::Data { stream, ends } => {
                    let len = body.len();
                    self.call(|connection, cx, out| connection.release(cx, stream, len, out));
                    if self.is_server {
                        let owed = self.owed.get_mut(&stream).unwrap();
                        owed.body.extend_from_slice(&body);
                        owed.is_complete |= ends;
                        self.serve(stream);
                    } else {
                        let message = self.came.get_mut(&stream).unwrap();
                        message.body.extend_from_slice(&body);
                    }
                }
                Event::Trailers { stream } if self.is_server => {
                    let owed = self.owed.get_mut(&stream).unwrap();
                    owed.trailers = Some(came);
                    owed.is_complete = true;
                    self.serve(stream);
                }
                Event::Trailers { stream } => {
                    self.came.get_mut(&stream).unwrap().trailers = Some(came);
                }
                Event::Window | Event::Settings | Event::Pong(_) | Event::GoAway { .. } => {}
                event @ (Event::Interim { .. } | Event::Reset { .. } | Event::Failed(_)) => {
                    panic!("{event:?}")
                }
            }
        }
        while let Some(id) = self.call(|connection, cx, out| connection.next_writable(cx, out)) {
            self.serve(id);
        }
    }

    /// Reads and writes until the peer closes, or `is_done`.
    async fn run(&mut self, is_done: impl Fn(&Ours) -> bool) {
        let mut buffer = vec![0; 70_000];
        loop {
            self.events();
            self.now_us += 100;
            while !self.connection.poll_output().is_empty() {
                let output = self.connection.poll_output().to_vec();
                self.pipe.write_all(&output).await.unwrap();
                self.connection.sent(output.len(), self.now_us);
                self.events();
            }
            if is_done(self) {
                return;
            }
            let len = self.manner.reads[self.reads % self.manner.reads.len()];
            let count = self.pipe.read(&mut buffer[..len]).await.unwrap();
            if count == 0 {
                return;
            }
            self.connection.feed(&buffer[..count]);
            self.reads += 1;
            if self.manner.snapshots > 0 && self.reads.is_multiple_of(self.manner.snapshots) {
                let snapshot = self.connection.snapshot(self.now_us);
                self.connection = Connection::restore(&snapshot, self.now_us).unwrap();
            }
        }
    }
}

fn header_map(fields: &Fields) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| {
            let mut value = HeaderValue::from_bytes(value).unwrap();
            value.set_sensitive(name.ends_with("secret"));
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), value)
        })
        .collect()
}

fn listed(map: &HeaderMap) -> Fields {
    map.iter()
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect()
}

async fn send_body(mut stream: h2::SendStream<Bytes>, message: &Message) {
    let mut rest = Bytes::from(message.body.clone());
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let count = granted.unwrap().unwrap().min(rest.len());
        let is_last = count == rest.len() && message.trailers.is_none();
        stream.send_data(rest.split_to(count), is_last).unwrap();
    }
    match &message.trailers {
        Some(trailers) => stream.send_trailers(header_map(trailers)).unwrap(),
        None if message.body.is_empty() => stream.send_data(Bytes::new(), true).unwrap(),
        None => {}
    }
}

async fn receive_body(mut stream: h2::RecvStream) -> Message {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.unwrap();
        stream.flow_control().release_capacity(data.len()).unwrap();
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await.unwrap();
    Message {
        fields: Vec::new(),
        body,
        trailers: trailers.map(|map| listed(&map)),
    }
}

/// One exchange of their client.
async fn exchange(client: h2::client::SendRequest<Bytes>, message: Message) {
    let mut client = client.ready().await.unwrap();
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "https://x.test/a?b=c".parse().unwrap();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = header_map(&message.fields);
    let (response, stream) = client.send_request(request, false).unwrap();
    send_body(stream, &message).await;
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let fields = listed(response.headers());
    let echo = receive_body(response.into_body()).await;
    assert_eq!(Message { fields, ..echo }.sorted(), message.sorted());
}

/// Their client sends all messages at once to our server, which echoes.
async fn their_client(messages: Vec<Message>, manner: Manner) {
    let (theirs, ours) = tokio::io::duplex(4 << 20);
    let window = manner.window;
    let server = tokio::task::spawn_local(async move {
        let mut ours = Ours::new(true, ours, manner);
        ours.run(|_| false).await;
        assert!(!ours.connection.has_failed());
    });
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .handshake::<_, Bytes>(theirs)
        .await
        .unwrap();
    let connection = tokio::task::spawn_local(connection);
    let exchanges: Vec<_> = messages
        .into_iter()
        .map(|message| tokio::task::spawn_local(exchange(client.clone(), message)))
        .collect();
    for exchange in exchanges {
        exchange.await.unwrap();
    }
    drop(client);
    connection.await.unwrap().unwrap();
    server.await.unwrap();
}

/// Our client sends all messages at once to their server, which echoes.
async fn their_server(messages: Vec<Message>, manner: Manner) {
    let (theirs, ours) = tokio::io::duplex(4 << 20);
    let window = manner.window;
    let server = tokio::task::spawn_local(async move {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(window)
            .handshake::<_, Bytes>(theirs)
            .await
            .unwrap();
        while let Some(request) = connection.accept().await {
            // The end of the pipe may come as an error of the last accept.
            let Ok((request, mut respond)) = request else {
                return;
            };
            tokio::task::spawn_local(async move {
                let mut response = Response::new(());
                *response.headers_mut() = request.headers().clone();
                let echo = receive_body(request.into_body()).await;
                let stream = respond.send_response(response, false).unwrap();
                send_body(stream, &echo).await;
            });
        }
    });
    let mut ours = Ours::new(false, ours, manner);
    let mut expected = BTreeMap::new();
    for message in messages {
        let mut head = Head::default();
        head.begin_request(b"POST", b"https", Some(b"x.test"), b"/a?b=c");
        push_all(&mut head, &message.fields);
        let stream = ours
            .call(|connection, cx, out| connection.open(cx, &head, false, out))
            .unwrap();
        ours.came.insert(stream, Message::default());
        let owed = Owed {
            body: message.body.clone(),
            at: 0,
            trailers: message.trailers.clone(),
            is_complete: true,
        };
        ours.owed.insert(stream, owed);
        ours.serve(stream);
        expected.insert(stream, message);
    }
    ours.run(|ours| ours.connection.streams() == 0).await;
    for (stream, message) in expected {
        let came = ours.came.remove(&stream).unwrap();
        assert_eq!(came.sorted(), message.sorted());
    }
    drop(ours);
    server.await.unwrap();
}

fn message() -> impl Strategy<Value = Message> {
    let names = [
        "accept",
        "user-agent",
        "x-one",
        "x-secret",
        "date",
        "etag",
        "a-rare-name",
    ];
    let name = prop::sample::select(names.to_vec()).prop_map(str::to_owned);
    let byte = prop_oneof![8 => 0x21_u8..0x7f, 1 => 0x80_u8..=0xff];
    let value = prop_oneof![
        Just(b"*/*".to_vec()),
        Just(b"something that comes again and again".to_vec()),
        prop::collection::vec(byte, 0..80),
    ];
    let len = prop_oneof![
        2 => Just(0_usize),
        4 => 1_usize..2_000,
        2 => 60_000_usize..200_000,
    ];
    let trailers = prop::collection::vec((Just("x-sum".to_owned()), Just(b"7".to_vec())), 1..3);
    (
        prop::collection::vec((name, value), 0..8),
        len,
        prop::option::of(trailers),
    )
        .prop_map(|(fields, len, trailers)| Message {
            fields,
            body: (0..len).map(|at| (at * 7 % 251) as u8).collect(),
            trailers,
        })
}

fn manner() -> impl Strategy<Value = Manner> {
    (
        prop::collection::vec(prop_oneof![1_usize..400, 500_usize..70_000], 1..6),
        prop_oneof![Just(0_usize), Just(1), Just(7)],
        prop_oneof![Just(65_535_u32), Just(1_000), Just(1 << 20)],
        prop_oneof![Just(4_096_usize), Just(0), Just(300)],
    )
        .prop_map(|(reads, snapshots, window, table)| Manner {
            reads,
            snapshots,
            window,
            table,
        })
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    let limit = std::time::Duration::from_secs(60);
    local
        .block_on(&runtime, async {
            tokio::time::timeout(limit, future).await
        })
        .expect("the exchange hangs");
}

proptest! {
    #![proptest_config(Config {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40),
        rng_seed: RngSeed::Fixed(0x6869_746c_6573_7304),
        failure_persistence: None,
        ..Config::default()
    })]

    #[test]
    fn their_client_is_understood(
        messages in prop::collection::vec(message(), 1..12),
        manner in manner(),
    ) {
        run(their_client(messages, manner));
    }

    #[test]
    fn their_server_is_understood(
        messages in prop::collection::vec(message(), 1..12),
        manner in manner(),
    ) {
        run(their_server(messages, manner));
    }
}
