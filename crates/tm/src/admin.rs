//! The address for operators: `GET /metrics` over HTTP.
//!
//! A handful of threads beside the data path, one per connection, each for one request: scrapers
//! come once in a while. Nothing can be changed through it, so it asks for no name; it listens
//! where the site file says, which should be an address that only operators reach.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections at a time; more are closed at once. Two scrapers that overlap, and some curious
/// people.
const CONNECTIONS_MAX: usize = 8;
/// Bytes of a request's head.
const HEAD_MAX: usize = 8 * 1024;
/// How long a request may take to arrive, and its answer to leave.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// How often the thread looks whether it should end.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The running server. Dropping it ends it; an answer that is under way still leaves.
#[derive(Debug)]
pub struct AdminServer {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AdminServer {
    /// Answers on a listening socket. `render` makes the metrics anew for each request and may
    /// block.
    ///
    /// # Errors
    /// If the socket cannot be used or no thread is to be had.
    pub fn start(
        listener: TcpListener,
        render: impl Fn() -> String + Send + Sync + 'static,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || accept(&listener, &over, &Arc::new(render)))?;
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread had panicked");
        }
    }
}

fn accept<R: Fn() -> String + Send + Sync + 'static>(
    listener: &TcpListener,
    is_over: &AtomicBool,
    render: &Arc<R>,
) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut poll = [rustix::event::PollFd::new(
        listener,
        rustix::event::PollFlags::IN,
    )];
    let wait = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: i64::try_from(LOOK_INTERVAL.as_nanos()).expect("a tenth of a second fits"),
    };
    while !is_over.load(Ordering::SeqCst) {
        let _ = rustix::event::poll(&mut poll, Some(&wait));
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    // Out of descriptors, say: looking again at once would only burn time.
                    tracing::warn!(%error, "cannot accept on the admin address");
                    std::thread::sleep(LOOK_INTERVAL);
                }
                continue;
            }
        };
        if open.load(Ordering::SeqCst) >= CONNECTIONS_MAX {
            continue;
        }
        open.fetch_add(1, Ordering::SeqCst);
        let (render, guard) = (Arc::clone(render), Guard(Arc::clone(&open)));
        let started = std::thread::Builder::new()
            .name("admin request".to_owned())
            .spawn(move || {
                let _guard = guard;
                // The peer went away or was too slow; that concerns nobody else.
                let _ = answer(stream, &*render);
            });
        if let Err(error) = started {
            tracing::warn!(%error, "no thread for a request to the admin address");
        }
    }
}

/// Counts a connection as closed, whatever ends its thread.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer(mut stream: TcpStream, render: &impl Fn() -> String) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(REQUEST_TIME_MAX))?;
    let head = read_head(&mut stream)?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    let parsed = request.parse(&head);
    let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    let path = target.split('?').next().unwrap_or("");
    let (status, kind, body) = match (parsed, method, path) {
        (Ok(httparse::Status::Complete(_)), "GET" | "HEAD", "/metrics") => (
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
            render(),
        ),
        (Ok(httparse::Status::Complete(_)), "GET" | "HEAD", _) => (
            "404 Not Found",
            "text/plain",
            "only /metrics is here\n".to_owned(),
        ),
        (Ok(httparse::Status::Complete(_)), _, _) => (
            "405 Method Not Allowed",
            "text/plain",
            "only GET is answered\n".to_owned(),
        ),
        _ => (
            "400 Bad Request",
            "text/plain",
            "this is no HTTP request\n".to_owned(),
        ),
    };
    let length = body.len();
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
         Connection: close\r\n\r\n"
    );
    if method != "HEAD" {
        response.push_str(&body);
    }
    stream.write_all(response.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}

/// The bytes up to the blank line, or as many as there may be.
fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + REQUEST_TIME_MAX;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while head.len() < HEAD_MAX && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests;
