//! Links between controller, node agent and ingress: typed messages over a stream socket.
//!
//! ```text
//!  dial ─> hello ─> hello of the other side ─┬─ a common version ─> messages both ways ─> Down
//!                                            └─ none ─> refusal that names both ranges ─> closed
//! ```
//!
//! Each side says in its hello which versions of the link it speaks; both take the highest common
//! one. Messages are JSON with a binary tail for what comes by the thousand ([`wire::Message`]).
//! Invariants: a queue is bounded, and a peer that does not empty it loses the link, never the
//! memory of this process; whoever owns a state hears of a link through one channel, in order,
//! [`LinkEvent::Down`] last; a link lives as long as somebody holds a [`Sender`] of it, so none is
//! forgotten open. What may be lost with a link is offered again on the next.
//!
//! Not here: what messages mean, and TLS (links stay on this machine until they have it).

pub mod hello;
pub mod table;
pub mod wire;

use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use hello::{Hello, HelloError, Protocol};
use wire::Message;

/// Messages that wait for a slow peer. A whole table is 8 messages of rows for each of 4 guests of
/// a node.
const QUEUE_MAX: usize = 1_024;
/// A peer says hello at once or is none of ours.
const HELLO_WAIT: Duration = Duration::from_secs(5);
/// How long a peer may leave us with a full socket before the link is given up.
const WRITE_WAIT: Duration = Duration::from_secs(10);

/// Where a peer listens. TCP is a matter of one more variant, once links are encrypted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    Unix(PathBuf),
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("unix", path)) => Ok(Self::Unix(path.into())),
            Some(("tcp", _)) => {
                Err("links over TCP need TLS, which this release does not have; use a path".into())
            }
            _ if text.is_empty() => Err("an address is a path, or unix:PATH".into()),
            _ => Ok(Self::Unix(text.into())),
        }
    }
}

/// Which link of this process; never used again. Links that were accepted later have higher ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(u64);

impl LinkId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What its owner hears of a link.
#[derive(Debug)]
pub enum LinkEvent<In, Out> {
    Up {
        link: LinkId,
        peer: Hello,
        sender: Sender<Out>,
    },
    Message {
        link: LinkId,
        message: In,
    },
    /// Nothing more comes of this link.
    Down {
        link: LinkId,
        reason: String,
    },
}

/// Queues messages to a peer. All copies end the link when one is told to, or when its queue is
/// full. When the last is dropped, the link ends as soon as what was queued is sent. Whoever owns
/// one declares it behind the channel of its events: then it is dropped after that, and the end of
/// a link is no reason to dial again.
#[derive(Debug)]
pub struct Sender<Out> {
    link: LinkId,
    queue: SyncSender<Out>,
    stream: std::sync::Arc<UnixStream>,
}

impl<Out> Clone for Sender<Out> {
    fn clone(&self) -> Self {
        Self {
            link: self.link,
            queue: self.queue.clone(),
            stream: self.stream.clone(),
        }
    }
}

impl<Out> Sender<Out> {
    /// Which link it is.
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// Queues a message. A link whose queue is full is closed: its owner hears [`LinkEvent::Down`].
    pub fn send(&self, message: Out) {
        match self.queue.try_send(message) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.close(),
        }
    }

    /// Ends the link; what is queued may be lost.
    pub fn close(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// Makes a listening socket that only this user may reach; one that a dead process left is
/// replaced.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts links for ever, each in threads of its own; events go where `deliver` puts them.
/// `deliver` says false when nobody listens any more.
pub fn accept<In, Out>(
    listener: UnixListener,
    own: Hello,
    protocol: Protocol,
    deliver: impl Fn(LinkEvent<In, Out>) -> bool + Clone + Send + 'static,
) where
    In: Message,
    Out: Message,
{
    let accepting = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors, most likely: others will be closed.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            let (own, deliver) = (own.clone(), deliver.clone());
            // Here, where links are still in order.
            let link = LinkId::next();
            spawn("link", move || {
                let _ = run(stream, link, &own, &protocol, &deliver);
            });
        }
    };
    spawn("accept", accepting);
}

/// Keeps a link to `address` for ever: dials again when it ends. Events go where `deliver` puts
/// them; it ends when `deliver` says false.
pub fn keep<In, Out>(
    address: Address,
    own: impl Fn() -> Hello + Send + 'static,
    protocol: Protocol,
    deliver: impl Fn(LinkEvent<In, Out>) -> bool + Clone + Send + 'static,
) where
    In: Message,
    Out: Message,
{
    /// Dialling a socket on the same machine costs nothing; a controller that comes back shall be
    /// seen at once.
    const AGAIN_AFTER: Duration = Duration::from_millis(100);
    let Address::Unix(path) = address;
    spawn("dial", move || {
        let mut last_refusal = String::new();
        loop {
            if let Ok(stream) = UnixStream::connect(&path) {
                match run(stream, LinkId::next(), &own(), &protocol, &deliver) {
                    Ok(true) => last_refusal.clear(),
                    Ok(false) => return,
                    Err(refusal) => {
                        let refusal = refusal.to_string();
                        if refusal != last_refusal {
                            tracing::warn!(link = protocol.name, peer = %path.display(), "{refusal}");
                            last_refusal = refusal;
                        }
                    }
                }
            }
            std::thread::sleep(AGAIN_AFTER);
        }
    });
}

/// One link from hello to its end. `Ok(false)`: nobody listens to its events any more.
fn run<In, Out>(
    stream: UnixStream,
    link: LinkId,
    own: &Hello,
    protocol: &Protocol,
    deliver: &impl Fn(LinkEvent<In, Out>) -> bool,
) -> Result<bool, HelloError>
where
    In: Message,
    Out: Message,
{
    stream.set_read_timeout(Some(HELLO_WAIT))?;
    stream.set_write_timeout(Some(WRITE_WAIT))?;
    let peer = hello::exchange(&stream, own, protocol)?;
    stream.set_read_timeout(None)?;
    let sender = open(link, &stream)?;
    if !deliver(LinkEvent::Up { link, peer, sender }) {
        return Ok(false);
    }
    let mut reader = io::BufReader::with_capacity(64 << 10, &stream);
    let reason = loop {
        match wire::read(&mut reader) {
            Ok(Some(message)) => {
                if !deliver(LinkEvent::Message { link, message }) {
                    let _ = stream.shutdown(Shutdown::Both);
                    return Ok(false);
                }
            }
            Ok(None) => break "closed by the peer".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    let _ = stream.shutdown(Shutdown::Both);
    Ok(deliver(LinkEvent::Down { link, reason }))
}

/// Starts the thread that writes what the sender queues.
fn open<Out: Message>(link: LinkId, stream: &UnixStream) -> io::Result<Sender<Out>> {
    let (queue, queued) = sync_channel(QUEUE_MAX);
    let sender = Sender {
        link,
        queue,
        stream: std::sync::Arc::new(stream.try_clone()?),
    };
    let writing = stream.try_clone()?;
    spawn("link-write", move || {
        write_all(&writing, &queued);
        // Nobody holds a sender any more, or nothing can be sent.
        let _ = writing.shutdown(Shutdown::Both);
    });
    Ok(sender)
}

fn write_all<Out: Message>(stream: &UnixStream, queued: &Receiver<Out>) {
    let mut writer = io::BufWriter::with_capacity(64 << 10, stream);
    while let Ok(message) = queued.recv() {
        let mut next = Some(message);
        while let Some(message) = next {
            if wire::write(&mut writer, message).is_err() {
                return;
            }
            next = queued.try_recv().ok();
        }
        if io::Write::flush(&mut writer).is_err() {
            return;
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    let started = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    started.expect("a process that cannot start a thread cannot go on");
}

#[cfg(test)]
pub(crate) mod tests;
