//! A user at a terminal: starts `hitless`, members and clients in a private folder, and cleans up
//! when a test panics.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and these serve tests"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Long enough for a loaded machine; nothing sleeps for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An address that nobody listens on. Another program may take it before it is used; ports of the
/// ephemeral range go round, so that it is not soon.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A user's own folder, with a base folder for run folders of its own.
pub(crate) struct User {
    pub(crate) folder: tempfile::TempDir,
    program: PathBuf,
    /// Who runs the commands. None: who runs the test.
    uid: Option<u32>,
}

/// Who has no rights anywhere.
const NOBODY: u32 = 65_534;

impl User {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A worker of a keeper that runs as root is nobody, and has to reach the program.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.path().join("hitless");
        copy_program(&program);
        Self {
            folder,
            program,
            uid: None,
        }
    }

    /// One who is not root, also where the test is.
    pub(crate) fn ordinary() -> Self {
        let mut user = Self::new();
        if rustix::process::geteuid().is_root() {
            let path = user.folder.path();
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
            user.uid = Some(NOBODY);
        }
        user
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HITLESS_RUN", self.path("run"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command(arguments).output().unwrap())
    }

    /// Puts another file in the program's place, as an installation does: whole, by renaming.
    pub(crate) fn install_again(&self) {
        let new = self.path("hitless.new");
        copy_program(&new);
        fs::rename(new, &self.program).unwrap();
    }

    /// Starts `hitless serve` and waits until it serves.
    pub(crate) fn serve(&self, site: &str) -> Served<'_> {
        self.write("site.yaml", site);
        self.serve_with(&["serve", "-f", "site.yaml", "--drain", "10s"])
    }

    pub(crate) fn serve_with(&self, arguments: &[&str]) -> Served<'_> {
        let log = self.path(&format!("log-{}", free_address().port()));
        let file = fs::File::create(&log).unwrap();
        let child = self
            .command(arguments)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        let run_folder = match arguments.iter().position(|one| *one == "--run-dir") {
            Some(position) => self.path(arguments[position + 1]),
            None => self.path("run").join(format!("serve-{}", child.id())),
        };
        let mut served = Served {
            user: self,
            child,
            log,
            run_folder,
        };
        wait_for("serving", || {
            let ended = served.child.try_wait().unwrap();
            assert!(ended.is_none(), "serve ended: {}", served.log());
            let status = served.try_status()?;
            (!status["virtual_servers"].as_array()?.is_empty()).then_some(())
        });
        served
    }
}

/// By another process: a descriptor for writing that a test next to this one inherits into its
/// child would keep the copy from being run.
fn copy_program(to: &Path) {
    let status = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_hitless"))
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}

/// What a command left.
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        let Self {
            code: found,
            stdout,
            stderr,
        } = &self;
        assert_eq!(*found, code, "stdout:\n{stdout}\nstderr:\n{stderr}");
        self
    }
}

/// A running `hitless serve`.
pub(crate) struct Served<'a> {
    user: &'a User,
    pub(crate) child: Child,
    log: PathBuf,
    pub(crate) run_folder: PathBuf,
}

impl Served<'_> {
    fn try_status(&self) -> Option<Value> {
        let folder = self.run_folder.to_str().unwrap();
        let answer = self
            .user
            .run(&["status", "-o", "json", "--run-dir", folder]);
        let status: Value =
            (answer.code == 0).then(|| serde_json::from_str(&answer.stdout).unwrap())?;
        // While none runs, the keeper answers alone.
        (!status["program"]["worker_pid"].is_null()).then_some(status)
    }

    pub(crate) fn status(&self) -> Value {
        wait_for("a status", || self.try_status())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn worker_pid(&self) -> i64 {
        self.status()["program"]["worker_pid"].as_i64().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(i64::from(self.child.id()), name);
    }

    /// Health of a member as status shows it.
    pub(crate) fn health(&self, member: SocketAddr) -> String {
        let status = self.status();
        let pools = status["pools"].as_array().unwrap();
        let mut members = pools
            .iter()
            .flat_map(|pool| pool["members"].as_array().unwrap());
        let found = members.find(|one| one["address"] == member.to_string().as_str());
        found.unwrap()["health"].as_str().unwrap().to_owned()
    }

    /// Waits until the program has ended by itself and answers its exit code.
    pub(crate) fn ended(&mut self) -> i32 {
        wait_for("the end of serve", || self.child.try_wait().unwrap())
            .code()
            .unwrap_or(-1)
    }
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        // The worker ends with its keeper's link.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(pid: i64, name: &str) {
    let status = Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

/// A member that answers HTTP requests with its name, and everything else by sending it back. Ends
/// with the test.
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    pub(crate) fn start(name: &'static str) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), name)
    }

    pub(crate) fn start_at(address: SocketAddr, name: &'static str) -> Self {
        let listener = wait_for("the member's address", || TcpListener::bind(address).ok());
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(stream) = stream {
                    std::thread::spawn(move || serve_one(stream, name));
                }
            }
        });
        Self {
            address,
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Errors end the connection: its client is gone.
fn serve_one(stream: TcpStream, name: &str) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    let first = reader.fill_buf().ok()?.first().copied()?;
    if first != b'G' {
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = reader.read(&mut buffer).ok()?;
            if read == 0 {
                return None;
            }
            writer.write_all(&buffer[..read]).ok()?;
        }
    }
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 0 {
        if line == "\r\n" {
            let length = name.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}");
            writer.write_all(head.as_bytes()).ok()?;
        }
        line.clear();
    }
    None
}

/// A client's HTTP connection that is kept.
pub(crate) struct Http {
    reader: BufReader<TcpStream>,
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// Status and body of `GET /`. `None` if the connection ended.
    pub(crate) fn get(&mut self) -> Option<(u16, String)> {
        let request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
        self.reader.get_mut().write_all(request).ok()?;
        let mut line = String::new();
        self.reader
            .read_line(&mut line)
            .ok()
            .filter(|read| *read > 0)?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut length = 0;
        loop {
            line.clear();
            self.reader
                .read_line(&mut line)
                .ok()
                .filter(|read| *read > 0)?;
            let lower = line.to_ascii_lowercase();
            assert_ne!(lower.trim(), "connection: close", "told to close");
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).ok()?;
        Some((status, String::from_utf8(body).ok()?))
    }
}

/// A byte stream through a `tcp` virtual server, checked as it comes back.
pub(crate) struct Echo {
    stream: TcpStream,
    sent: u64,
}

impl Echo {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, sent: 0 }
    }

    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Waits for its end, and says whether that is a reset.
    pub(crate) fn is_reset(&mut self) -> bool {
        self.stream.read(&mut [0]).is_err()
    }

    /// Sends `count` bytes of the pattern and checks that they come back.
    pub(crate) fn round(&mut self, count: usize) {
        let pattern = |position: u64| 0x80 | (position.wrapping_mul(31) >> 3) as u8;
        let bytes: Vec<u8> = (self.sent..self.sent + count as u64).map(pattern).collect();
        self.stream
            .write_all(&bytes)
            .expect("the connection takes bytes");
        let mut back = vec![0; count];
        self.stream
            .read_exact(&mut back)
            .expect("the connection gives them back");
        assert_eq!(back, bytes, "bytes changed after {}", self.sent);
        self.sent += count as u64;
    }
}

/// The quickstart's site with other addresses and a quick monitor.
pub(crate) fn site(web: SocketAddr, raw: SocketAddr, members: &[SocketAddr]) -> String {
    let members: Vec<String> = members.iter().map(ToString::to_string).collect();
    format!(
        "pools:\n  web:\n    method: least_connections\n    members: [{}]\n    \
         monitor: {{ http: {{ path: /, expect: 200, interval: 300ms, rise: 1, fall: 2 }} }}\n\
         virtual_servers:\n  web: {{ listen: {web}, protocol: http, pool: web }}\n  \
         raw: {{ listen: {raw}, protocol: tcp, pool: web }}\n",
        members.join(", ")
    )
}

pub(crate) fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}
