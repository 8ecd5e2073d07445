//! A traffic manager in a temporary folder, members that check and answer, and clients that check
//! every byte.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod h2;
pub mod h2_member;
pub mod tls;
pub mod traffic;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hitless_tm::control::{Client, Outcome, Reply, Request};
use serde_json::Value;

/// Long enough for a loaded machine; nothing sleeps for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running keeper with its worker. Killed and cleaned up when dropped.
pub struct Instance {
    pub folder: tempfile::TempDir,
    pub child: Child,
}

/// How one is started.
pub struct Options {
    pub threads: u32,
    pub descriptors: Option<u32>,
    /// Of every worker that runs this program.
    pub fault: String,
    /// Whether event loops tell of their allocations.
    pub tells_allocations: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 2,
            descriptors: None,
            fault: String::new(),
            tells_allocations: false,
        }
    }
}

impl Instance {
    pub fn start(site: &str) -> Self {
        Self::start_with(site, &Options::default())
    }

    pub fn start_with(site: &str, options: &Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("site.yaml"), site).unwrap();
        write_program(&folder.path().join("program"), "first", "");
        // Workers are nobody, and disarm their fault by themselves.
        let armed = folder.path().join(ARMED);
        fs::create_dir(&armed).unwrap();
        fs::set_permissions(&armed, fs::Permissions::from_mode(0o777)).unwrap();
        let child = spawn(folder.path(), options);
        let mut instance = Self { folder, child };
        instance.wait_until_serving();
        instance
    }

    fn wait_until_serving(&mut self) {
        wait_for("the traffic manager", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the keeper ended: {status}");
            }
            let client = Client::connect(&self.run_folder()).ok()?;
            let reply = client.call(Request::Status).ok()?;
            let status: Value = serde_json::from_str(&reply.body).ok()?;
            let servers = status["virtual_servers"].as_array()?;
            (!servers.is_empty()).then_some(())
        });
    }

    pub fn run_folder(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn call(&self, request: Request) -> Reply {
        Client::connect(&self.run_folder())
            .unwrap()
            .call(request)
            .unwrap()
    }

    pub fn status(&self) -> Value {
        wait_for("a status", || {
            let reply = self.call(Request::Status);
            let status: Value = serde_json::from_str(&reply.body).unwrap();
            // While none runs, the keeper answers alone.
            (reply.outcome == Outcome::Done && !status["program"]["worker_pid"].is_null())
                .then_some(status)
        })
    }

    pub fn metric(&self, name: &str) -> f64 {
        let reply = self.call(Request::Metrics);
        let line = reply
            .body
            .lines()
            .find(|line| line.split([' ', '{']).next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no metric {name} in {}", reply.body));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// A metric with exactly these labels.
    pub fn labelled(&self, name: &str) -> f64 {
        wait_for(name, || self.try_labelled(name))
    }

    /// Likewise; `None` if there is none, or no worker to ask.
    pub fn try_labelled(&self, name: &str) -> Option<f64> {
        let reply = self.call(Request::Metrics);
        let mut lines = reply.body.lines();
        let line = lines.find(|line| line.starts_with(&format!("{name} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Where a virtual server listens.
    pub fn address(&self, name: &str) -> SocketAddr {
        let status = self.status();
        let servers = status["virtual_servers"].as_array().unwrap();
        let server = servers
            .iter()
            .find(|server| server["name"] == name)
            .unwrap();
        server["listen"].as_str().unwrap().parse().unwrap()
    }

    pub fn worker_pid(&self) -> i32 {
        self.status()["program"]["worker_pid"].as_i64().unwrap() as i32
    }

    /// kill -9 of the worker; returns when another one answers.
    pub fn kill_worker(&self) {
        let pid = self.worker_pid();
        let status = Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap();
        assert!(status.success());
        wait_for("another worker", || {
            let reply = self.call(Request::Status);
            let status: Value = serde_json::from_str(&reply.body).ok()?;
            (status["program"]["worker_pid"].as_i64()? as i32 != pid).then_some(())
        });
    }

    /// Puts another program in place, with a fault if it is not empty.
    pub fn install(&self, build: &str, fault: &str) {
        let path = self.folder.path().join("program");
        let fresh = self.folder.path().join("program.new");
        write_program(&fresh, build, fault);
        fs::rename(fresh, path).unwrap();
    }

    /// Allocations of event loops so far.
    pub fn allocations(&self) -> u64 {
        let file = self.folder.path().join(ARMED).join("allocations");
        fs::metadata(file).unwrap().len()
    }

    /// From now on a worker with the fault `die-at-PLACE` is killed there, once.
    pub fn arm(&self) {
        fs::write(self.folder.path().join(ARMED).join("once"), "").unwrap();
    }

    pub fn has_fired(&self) -> bool {
        !self.folder.path().join(ARMED).join("once").exists()
    }

    /// Whether that has come true; if not, it does not any more.
    pub fn disarm(&self) -> bool {
        fs::remove_file(self.folder.path().join(ARMED).join("once")).is_err()
    }

    pub fn site_file(&self) -> PathBuf {
        self.folder.path().join("site.yaml")
    }

    pub fn write_site(&self, site: &str) {
        fs::write(self.site_file(), site).unwrap();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ARMED: &str = "armed";

fn spawn(folder: &Path, options: &Options) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tm-test"));
    command
        .arg("keeper")
        .arg(folder.join("site.yaml"))
        .arg(folder.join("run"))
        .arg(folder.join("program"))
        .arg(options.threads.to_string())
        .stdin(Stdio::null())
        .env("TM_BUILD", "first")
        .env("TM_FAULT", &options.fault)
        .env("TM_ONCE", folder.join(ARMED).join("once"));
    if options.tells_allocations {
        command.env("TM_ALLOCATIONS", folder.join(ARMED).join("allocations"));
    }
    if let Some(descriptors) = options.descriptors {
        command.arg(descriptors.to_string());
    }
    command.spawn().unwrap()
}

/// Runs a keeper that is expected to end by itself, and gives what it wrote.
pub fn run_to_end(site: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("site.yaml"), site).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tm-test"));
    let output = command
        .arg("keeper")
        .arg(folder.path().join("site.yaml"))
        .arg(folder.path().join("run"))
        .arg(env!("CARGO_BIN_EXE_tm-test"))
        .arg("1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A script that becomes the test program: another file on disk, with another build name.
fn write_program(path: &Path, build: &str, fault: &str) {
    let real = env!("CARGO_BIN_EXE_tm-test");
    let script = format!("#!/bin/sh\nTM_BUILD={build} TM_FAULT={fault} exec {real} \"$@\"\n");
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A loopback address that only this call of this process has, so that no port collides.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let (pid, count) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let octets = [127, 1 + (pid >> 8) as u8 % 250, pid as u8, count as u8];
    SocketAddr::from((octets, 8000))
}

/// Polls until there is something, or panics when patience ends.
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Eight bytes at a place of a stream with a seed: every byte of every stream is known.
fn word(seed: u64, number: u64) -> [u8; 8] {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 32;
    x.to_le_bytes()
}

pub fn fill(seed: u64, from: u64, buffer: &mut [u8]) {
    let (mut at, mut done) = (from, 0);
    while done < buffer.len() {
        let skip = (at % 8) as usize;
        let count = (8 - skip).min(buffer.len() - done);
        buffer[done..done + count].copy_from_slice(&word(seed, at / 8)[skip..skip + count]);
        at += count as u64;
        done += count;
    }
}

/// The place of the first byte that is not the stream's.
pub fn wrong_byte(seed: u64, from: u64, bytes: &[u8]) -> Option<u64> {
    let mut expected = vec![0; bytes.len()];
    fill(seed, from, &mut expected);
    if expected == bytes {
        return None;
    }
    let place = expected
        .iter()
        .zip(bytes)
        .position(|(one, other)| one != other);
    place.map(|place| from + place as u64)
}

/// A member that answers each byte stream with itself, and ends when its client ends.
pub struct Echo {
    pub address: SocketAddr,
    pub accepted: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Echo {
    pub fn start() -> Self {
        Self::start_with(|stream| {
            let mut stream = stream;
            let mut buffer = vec![0u8; 64 * 1024];
            while let Ok(read) = stream.read(&mut buffer) {
                if read == 0 || stream.write_all(&buffer[..read]).is_err() {
                    break;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    pub fn start_with(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, ends) = (Arc::clone(&accepted), Arc::clone(&stop));
        let serve = Arc::new(serve);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let serve = Arc::clone(&serve);
                let small = std::thread::Builder::new().stack_size(256 * 1024);
                small.spawn(move || serve(stream)).unwrap();
            }
        });
        Self {
            address,
            accepted,
            stop,
        }
    }

    /// A member that answers HTTP requests: `/N` with N bytes of the pattern with seed N,
    /// `/chunked/N` likewise in chunks, a body with its own bytes.
    pub fn http() -> Self {
        Self::start_with(|stream| {
            let _ = serve_http(stream);
        })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve_http(mut stream: TcpStream) -> std::io::Result<()> {
    // Head and body are two writes: the second shall not wait for a delayed acknowledgement.
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    loop {
        let Some(head) = read_head(&mut stream, &mut input)? else {
            return Ok(());
        };
        let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
        let length = header(&head, "content-length").and_then(|text| text.parse().ok());
        let body = read_exactly(&mut stream, &mut input, length.unwrap_or(0))?;
        if !body.is_empty() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(&body)?;
            continue;
        }
        let count: u64 = path
            .rsplit('/')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let mut bytes = vec![0u8; count as usize];
        fill(count, 0, &mut bytes);
        if path.starts_with("/chunked/") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            for chunk in bytes.chunks(1000) {
                stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")?;
        } else {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            stream.write_all(&bytes)?;
        }
    }
}

/// Reads a head; `None` at an end between messages.
pub fn read_head(stream: &mut TcpStream, input: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    loop {
        if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = input.drain(..end + 4).collect::<Vec<u8>>();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        let mut buffer = [0u8; 16 * 1024];
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            assert!(
                input.is_empty(),
                "an end inside a head: {:?}",
                String::from_utf8_lossy(input)
            );
            return Ok(None);
        }
        input.extend_from_slice(&buffer[..read]);
    }
}

pub fn read_exactly(
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    count: usize,
) -> std::io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 64 * 1024];
    while input.len() < count {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(&buffer[..read]);
    }
    Ok(input.drain(..count).collect())
}

pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// A client that keeps its connection and checks each answer.
pub struct HttpClient {
    pub stream: TcpStream,
    pub input: Vec<u8>,
}

impl HttpClient {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            input: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads an answer to `GET /N` and checks it; returns its head.
    pub fn expect_pattern(&mut self, count: usize) -> String {
        let head = read_head(&mut self.stream, &mut self.input)
            .unwrap()
            .expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(
            header(&head, "content-length"),
            Some(count.to_string()),
            "{head}"
        );
        let body = read_exactly(&mut self.stream, &mut self.input, count).unwrap();
        assert_eq!(wrong_byte(count as u64, 0, &body), None, "of {count}");
        head
    }

    /// Asks and checks the answer, which is to leave the connection open.
    pub fn get(&mut self, count: usize) {
        let head = self.ask(count);
        assert_eq!(header(&head, "connection"), None, "told to close: {head}");
    }

    /// Asks and checks the answer's body; returns its head.
    pub fn ask(&mut self, count: usize) -> String {
        self.send(format!("GET /{count} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes());
        self.expect_pattern(count)
    }

    /// Reads an answer with a status and returns head and body.
    pub fn answer(&mut self) -> (String, Vec<u8>) {
        let head = read_head(&mut self.stream, &mut self.input)
            .unwrap()
            .expect("an answer");
        let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
        let body = read_exactly(&mut self.stream, &mut self.input, length).unwrap();
        (head, body)
    }
}

/// A long-lived stream in a thread: sends the pattern, checks the echo, until told to finish; then
/// half-closes and expects the rest and the end.
pub struct Stream {
    finish: Arc<AtomicBool>,
    pub checked: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<u64, String>>>,
}

impl Stream {
    /// `window` bytes are under way at most; `pause` lies between two rounds.
    pub fn start(address: SocketAddr, seed: u64, window: usize, pause: Duration) -> Self {
        let finish = Arc::new(AtomicBool::new(false));
        let checked = Arc::new(AtomicU64::new(0));
        let (ends, count) = (Arc::clone(&finish), Arc::clone(&checked));
        let thread = std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || run_stream(address, seed, window, pause, &ends, &count))
            .unwrap();
        Self {
            finish,
            checked,
            thread: Some(thread),
        }
    }

    pub fn position(&self) -> u64 {
        self.checked.load(Ordering::Relaxed)
    }

    /// Waits for more bytes than now to be checked.
    pub fn wait_progress(&self) {
        let now = self.checked.load(Ordering::Relaxed);
        wait_for("progress", || {
            (self.checked.load(Ordering::Relaxed) > now).then_some(())
        });
    }

    pub fn tell_to_finish(&self) {
        self.finish.store(true, Ordering::Relaxed);
    }

    /// Bytes that went round.
    pub fn finish(mut self) -> Result<u64, String> {
        self.tell_to_finish();
        self.thread.take().unwrap().join().unwrap()
    }
}

/// This much can be written before anything is read.
const IN_QUEUES: usize = 32 * 1024;

fn run_stream(
    address: SocketAddr,
    seed: u64,
    window: usize,
    pause: Duration,
    finish: &AtomicBool,
    checked: &AtomicU64,
) -> Result<u64, String> {
    let text = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| format!("stream {seed}: {what}: {error}")
    };
    let mut stream = TcpStream::connect(address).map_err(text("connect"))?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .map_err(text("option"))?;
    stream.set_nodelay(true).map_err(text("option"))?;
    let mut writer = stream.try_clone().map_err(text("clone"))?;
    let (mut sent, mut received) = (0u64, 0u64);
    let mut out = vec![0u8; window];
    let mut input = vec![0u8; window];
    loop {
        let is_last = finish.load(Ordering::Relaxed);
        fill(seed, sent, &mut out);
        let mut read_back = || {
            while received < sent + window as u64 {
                let read = stream.read(&mut input).map_err(text("read"))?;
                if read == 0 {
                    return Err(format!(
                        "stream {seed}: closed early after {received} bytes"
                    ));
                }
                if let Some(place) = wrong_byte(seed, received, &input[..read]) {
                    return Err(format!("stream {seed}: wrong byte at {place}"));
                }
                received += read as u64;
                checked.store(received, Ordering::Relaxed);
            }
            Ok(())
        };
        if window <= IN_QUEUES {
            writer.write_all(&out).map_err(text("write"))?;
            read_back()?;
        } else {
            std::thread::scope(|scope| {
                let write = scope.spawn(|| writer.write_all(&out));
                read_back()?;
                write.join().unwrap().map_err(text("write"))
            })?;
        }
        sent += window as u64;
        if is_last {
            break;
        }
        std::thread::sleep(pause);
    }
    stream.shutdown(Shutdown::Write).map_err(text("shutdown"))?;
    match stream.read(&mut input).map_err(text("end"))? {
        0 => Ok(received),
        _ => Err(format!("stream {seed}: bytes behind the end")),
    }
}
