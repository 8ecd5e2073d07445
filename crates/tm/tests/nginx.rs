//! nginx as members: real answers, real closing of idle connections, over an upgrade and kills.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::h2::H2Client;
use common::{HttpClient, Instance, own_address, wait_for};
use hitless_harness::needs;
use hitless_tm::control::{Outcome, Request};

const NGINX: &str = "/usr/sbin/nginx";
/// Objects by their size, which is their name.
const SIZES: [usize; 4] = [0, 10, 5_000, 1_000_000];

/// One nginx with two servers. Killed when dropped.
struct Nginx {
    child: Child,
    addresses: [SocketAddr; 2],
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// `kind`: what its servers speak besides HTTP/1.1, as nginx calls it.
    fn start(kind: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("www");
        fs::create_dir(&root).unwrap();
        for size in SIZES {
            let mut bytes = vec![0u8; size];
            common::fill(size as u64, 0, &mut bytes);
            fs::write(root.join(size.to_string()), bytes).unwrap();
        }
        // Its workers may be another user.
        for path in [folder.path(), root.as_path()] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(path, mode).unwrap();
        }
        let addresses = [own_address(), own_address()];
        let servers = addresses.map(|address| {
            // A connection is closed by nginx after ten requests, often just when we use it again.
            format!(
                "server {{ listen {address} {kind}; root {}; keepalive_requests 10; \
                 location /chunked/ {{ alias {}/; gzip on; gzip_proxied any; gzip_min_length 1; gzip_types *; }} }}",
                root.display(),
                root.display()
            )
        });
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path temp-{name};"));
        let config = format!(
            "pid nginx.pid; daemon off; error_log stderr crit; worker_processes 1;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; default_type text/plain; {} {} }}\n",
            temp.concat(),
            servers.concat()
        );
        fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let child = Command::new(NGINX)
            .args(["-p", folder.path().to_str().unwrap(), "-c", "nginx.conf"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        for address in addresses {
            wait_for("nginx", || std::net::TcpStream::connect(address).ok());
        }
        Self {
            child,
            addresses,
            _folder: folder,
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with the master if that is asked, not if it is killed.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

/// Asks for all sorts of things on one connection until told to stop; returns how much was right.
fn browse(address: SocketAddr, stop: &AtomicBool, count: &AtomicU64) -> u64 {
    let mut client = HttpClient::connect(address);
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        for size in SIZES {
            client.get(size);
        }
        client.send(b"GET /5000 HTTP/1.1\r\nHost: t\r\nRange: bytes=100-299\r\n\r\n");
        let (head, body) = client.answer();
        assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
        assert_eq!(
            (body.len(), common::wrong_byte(5_000, 100, &body)),
            (200, None)
        );
        client.send(b"GET /missing HTTP/1.1\r\nHost: t\r\n\r\n");
        let (head, _) = client.answer();
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        client.send(b"POST /10 HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabc");
        let (head, _) = client.answer();
        assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
        // Pipelined.
        client.send(b"GET /10 HTTP/1.1\r\nHost: t\r\n\r\nGET /5000 HTTP/1.1\r\nHost: t\r\n\r\n");
        client.expect_pattern(10);
        client.expect_pattern(5_000);
        rounds += 1;
        count.fetch_add(1, Ordering::Relaxed);
    }
    rounds
}

#[test]
fn nginx_as_members_is_served_from_over_upgrades() {
    if !needs::program("nginx", "nginx-light") {
        return;
    }
    let nginx = Nginx::start("");
    let [one, two] = nginx.addresses;
    let instance = Instance::start(&format!(
        "pools:\n  web:\n    members: ['{one}', '{two}']\n    \
         monitor: {{ http: {{ path: /10, expect: 200, interval: 100ms }} }}\n\
         virtual_servers:\n  web: {{ listen: '{}', protocol: http, pool: web }}\n",
        own_address()
    ));
    let web = instance.address("web");
    wait_for("the monitors", || {
        let status = instance.status();
        let members = status["pools"][0]["members"].as_array().unwrap().clone();
        members
            .iter()
            .all(|member| member["health"] == "up")
            .then_some(())
    });
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            std::thread::spawn(move || browse(web, &stop, &count))
        })
        .collect();
    let wait_for_more = || {
        let now = count.load(Ordering::Relaxed);
        wait_for("answers", || {
            (count.load(Ordering::Relaxed) > now + 30).then_some(())
        });
    };
    for build in ["second", "third"] {
        wait_for_more();
        instance.install(build, "");
        let reply = instance.call(Request::Upgrade);
        assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
        assert!(reply.body.contains(" 0 reset"), "{}", reply.body);
    }
    wait_for_more();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
    // Idle connections outlive a worker here as anywhere.
    let mut idle = HttpClient::connect(web);
    idle.get(5_000);
    instance.kill_worker();
    idle.get(1_000_000);
    // A body that nginx makes as it goes comes in chunks.
    idle.send(b"GET /chunked/5000 HTTP/1.1\r\nHost: t\r\nAccept-Encoding: gzip\r\n\r\n");
    let (head, _) = idle.answer();
    assert_eq!(
        common::header(&head, "transfer-encoding").as_deref(),
        Some("chunked"),
        "{head}"
    );
    assert_eq!(
        common::header(&head, "content-encoding").as_deref(),
        Some("gzip"),
        "{head}"
    );
    while !idle.input.ends_with(b"\r\n0\r\n\r\n") {
        let mut buffer = [0u8; 4096];
        let read = idle.stream.read(&mut buffer).unwrap();
        assert!(read > 0, "the last chunk");
        idle.input.extend_from_slice(&buffer[..read]);
    }
}

/// Its connections take ten requests each, so that it says GOAWAY all the time.
#[test]
fn nginx_as_members_of_http_2_is_served_from_over_upgrades() {
    if !needs::program("nginx", "nginx-light") {
        return;
    }
    let nginx = Nginx::start("http2");
    let [one, two] = nginx.addresses;
    let instance = Instance::start(&format!(
        "pools:\n  web:\n    members_protocol: http2\n    members: ['{one}', '{two}']\n    \
         monitor: {{ http: {{ path: /10, expect: 200, interval: 100ms }} }}\n\
         virtual_servers:\n  web: {{ listen: '{}', protocol: http, pool: web }}\n",
        own_address()
    ));
    let web = instance.address("web");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = H2Client::connect(web);
                while !stop.load(Ordering::Relaxed) {
                    let asked: Vec<_> = SIZES
                        .iter()
                        .map(|&size| (client.get(&format!("/{size}")), size))
                        .collect();
                    for (stream, size) in asked {
                        client.expect_pattern(stream, size);
                    }
                    let missing = client.get("/missing");
                    assert_eq!(client.finish(missing).status, 404);
                    let head = client.open("HEAD", "/5000", &[], true);
                    let answer = client.finish(head);
                    assert_eq!(answer.field("content-length"), Some("5000"));
                    assert!(answer.body.is_empty() && client.told_to_go.is_empty());
                }
            });
        }
        for build in ["second", "third", "fourth"] {
            std::thread::sleep(std::time::Duration::from_millis(300));
            instance.install(build, "");
            let reply = instance.call(Request::Upgrade);
            stop.store(reply.outcome != Outcome::Done, Ordering::Relaxed);
            assert_eq!(reply.outcome, Outcome::Done, "{}", reply.body);
        }
        stop.store(true, Ordering::Relaxed);
    });
}
