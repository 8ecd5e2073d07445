//! A WebSocket (RFC 6455) begins as HTTP and goes on as a pair of streams, which lives through
//! upgrades and its worker's death as raw TCP does.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use common::tls::{Bridge, Identity, Side};
use common::{Echo, HttpClient, Instance, PATIENCE, own_address, read_head, wait_for};
use hitless_tm::control::{Outcome, Request};

const ASK: &[u8] = b"GET /chat HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Agrees to a WebSocket, says something at once, and then sends back whatever comes.
fn member() -> Echo {
    Echo::start_with(|mut stream| {
        let mut input = Vec::new();
        let Ok(Some(head)) = read_head(&mut stream, &mut input) else {
            return;
        };
        assert_eq!(
            common::header(&head, "upgrade").as_deref(),
            Some("websocket"),
            "{head}"
        );
        assert_eq!(
            common::header(&head, "connection").as_deref(),
            Some("upgrade"),
            "{head}"
        );
        let switched = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                         Connection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\nwelcome";
        if stream.write_all(switched).is_err() || stream.write_all(&input).is_err() {
            return;
        }
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    // Its own half may have something left to say.
                    let _ = stream.write_all(b"bye");
                    let _ = stream.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) if stream.write_all(&buffer[..count]).is_ok() => {}
                _ => return,
            }
        }
    })
}

fn start(member: &Echo) -> (Instance, SocketAddr) {
    let listen = own_address();
    let site = format!(
        "pools:\n  web: {{ members: ['{}'] }}\nvirtual_servers:\n  \
         web: {{ listen: '{listen}', protocol: http, pool: web }}\n",
        member.address
    );
    (Instance::start(&site), listen)
}

struct WebSocket(TcpStream);

impl WebSocket {
    /// Sends what it has to say right behind its request, as a client in a hurry may.
    fn open(listen: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[ASK, b"hello"].concat()).unwrap();
        let mut input = Vec::new();
        let head = read_head(&mut stream, &mut input).unwrap().unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(
            common::header(&head, "upgrade").as_deref(),
            Some("websocket"),
            "{head}"
        );
        let mut rest = vec![0; "welcomehello".len() - input.len()];
        stream.read_exact(&mut rest).unwrap();
        input.extend(rest);
        assert_eq!(input, b"welcomehello");
        Self(stream)
    }

    fn echo(&mut self, text: &[u8]) {
        self.0.write_all(text).unwrap();
        let mut back = vec![0; text.len()];
        self.0.read_exact(&mut back).unwrap();
        assert_eq!(back, text);
    }

    /// Each half ends by itself.
    fn close(mut self) {
        self.0.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"bye");
    }
}

#[test]
fn a_websocket_lives_through_an_upgrade_and_a_death() {
    let member = member();
    let (instance, listen) = start(&member);
    let mut sockets: Vec<WebSocket> = (0..8).map(|_| WebSocket::open(listen)).collect();
    sockets.iter_mut().for_each(|socket| socket.echo(b"before"));
    instance.install("second", "");
    let reply = instance.call(Request::Upgrade);
    assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
    sockets
        .iter_mut()
        .for_each(|socket| socket.echo(b"after an upgrade"));
    sockets.push(WebSocket::open(listen));
    let worker = instance.worker_pid();
    instance.kill_worker();
    wait_for("another worker", || {
        (instance.worker_pid() != worker).then_some(())
    });
    sockets
        .iter_mut()
        .for_each(|socket| socket.echo(b"after a death"));
    for socket in sockets {
        socket.close();
    }
    wait_for("the last one's end", || {
        (instance.metric("hitless_connections") == 0.0).then_some(())
    });
}

/// A member that declines leaves the connection what it was.
#[test]
fn a_member_that_declines_leaves_http() {
    let http = Echo::http();
    let (_instance, listen) = start(&http);
    let mut client = HttpClient::connect(listen);
    client.send(b"GET /7 HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let head = client.expect_pattern(7);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    client.get(9);
}

/// Both sides in TLS: what was read of the pair's first bytes lies in the layers.
#[test]
fn a_websocket_in_tls_lives_through_an_upgrade_and_a_kill() {
    let member = member();
    let identity = Identity::new(&["a.test"]);
    let served = Side::Server(Arc::new(identity.server(&[])));
    let far = Bridge::start(served, member.address, 0);
    let (ca, listen) = (identity.certificate(), own_address());
    let site = format!(
        "pools:\n  web: {{ members: ['{}'], tls: {{ verify: {}, server_name: a.test }} }}\n\
         virtual_servers:\n  web: {{ listen: '{listen}', protocol: http, pool: web, tls: {{ \
         certificates: [{}] }} }}\n",
        far.address,
        ca.display(),
        identity.item()
    );
    let instance = Instance::start(&site);
    let versions = [&rustls::version::TLS13];
    let config = common::tls::client(&[&identity], &[], &versions);
    let near = Bridge::start(Side::Client(Arc::new(config), "a.test"), listen, 0);
    let mut sockets: Vec<_> = (0..5).map(|_| WebSocket::open(near.address)).collect();
    for round in 0..3u8 {
        for socket in &mut sockets {
            socket.echo(&[round; 30_000]);
        }
        match round {
            0 => {
                instance.install("second", "");
                let reply = instance.call(Request::Upgrade);
                assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
            }
            _ => instance.kill_worker(),
        }
        assert_eq!(instance.metric("hitless_connections"), 5.0);
    }
    for mut socket in sockets {
        socket.echo(b"still here");
        socket.close();
    }
}
