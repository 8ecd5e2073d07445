//! Deaths that the lab brings about: of processes, and of a guest as a whole.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Seek};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use hitless_hypervisor::Process;
use hitless_net::{Namespace, Netlink};
use rustix::process::Signal;

use crate::client::Flow;
use crate::topology::{HTTP_PORT, STREAM_PORT};

/// Killed processes are gone within this.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A guest that was killed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KilledGuest {
    /// When its link was told to go, on the clock that directors note their packets by: nanoseconds of
    /// `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// Clients' connections that it held then.
    pub held: BTreeSet<Flow>,
}

/// Takes a guest from the network and kills all that is in it: a machine that lost its power. `pid`
/// is any of its processes.
pub fn guest(pid: u32) -> Result<KilledGuest> {
    let namespace = Namespace::of_process(pid)?;
    let here = Namespace::current()?;
    ensure!(
        namespace.inode()? != here.inode()?,
        "process {pid} is in no guest's namespace"
    );
    let mut netlink = Netlink::open(&namespace)?;
    // Looked at from before its link goes until it is gone: its node's agent may end it as soon as
    // it sees that, and with the processes goes what the kernel knows.
    let watch = Watch::start(ConnectionTables::open(pid)?)?;
    // The kernel takes its time to cut a link: the clock runs from before.
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    netlink.set_down(hitless_hypervisor::GUEST_INTERFACE)?;
    all_in(&namespace)?;
    Ok(KilledGuest {
        at_ns: at.tv_sec.unsigned_abs() * 1_000_000_000 + at.tv_nsec.unsigned_abs(),
        held: watch.finish()?,
    })
}

/// Kills every process of a namespace that is not ours.
pub(crate) fn all_in(namespace: &Namespace) -> Result<()> {
    let here = Namespace::current()?;
    ensure!(
        namespace.inode()? != here.inode()?,
        "a lab's namespace is the one we are in"
    );
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let processes: Vec<Process> = namespace
            .processes()?
            .into_iter()
            .filter_map(Process::find)
            .collect();
        if processes.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{processes:?} are still there after they were killed"
        );
        for process in &processes {
            process.signal(Signal::KILL)?;
        }
        for process in processes {
            process.wait_gone(deadline.saturating_duration_since(Instant::now()))?;
        }
    }
}

/// Clients' connections that a guest's kernel had at any time while it was looked at.
struct Watch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<BTreeSet<Flow>>>,
}

impl Watch {
    /// Has looked once when this returns.
    fn start(mut tables: ConnectionTables) -> Result<Self> {
        let mut held = tables.clients()?;
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                held.extend(tables.clients()?);
            }
            Ok(held)
        });
        Ok(Self { is_over, thread })
    }

    fn finish(self) -> Result<BTreeSet<Flow>> {
        self.is_over.store(true, Ordering::Relaxed);
        let held = self.thread.join();
        held.map_err(|_| anyhow!("the thread that looks at a guest's connections panicked"))?
    }
}

/// The kernel's own lists of a namespace's TCP sockets.
struct ConnectionTables([fs::File; 2]);

impl ConnectionTables {
    /// Of the namespace of this process.
    fn open(pid: u32) -> Result<Self> {
        let open = |table: &str| {
            let path = format!("/proc/{pid}/net/{table}");
            fs::File::open(&path).with_context(|| format!("cannot read {path}"))
        };
        Ok(Self([open("tcp")?, open("tcp6")?]))
    }

    /// Clients' connections that it holds now.
    fn clients(&mut self) -> Result<BTreeSet<Flow>> {
        let mut held = BTreeSet::new();
        for table in &mut self.0 {
            let mut text = String::new();
            table
                .rewind()
                .and_then(|()| table.read_to_string(&mut text))
                .context("cannot read a table of connections")?;
            held.extend(text.lines().skip(1).filter_map(client));
        }
        Ok(held)
    }
}

/// The client's connection that a line of /proc/net/tcp is about: `number: local:port remote:port
/// state ...`. None for listeners, connections to members, and those that are over.
fn client(line: &str) -> Option<Flow> {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (to, from) = (socket(fields.next()?)?, socket(fields.next()?)?);
    let is_over = [TIME_WAIT, LISTEN].contains(&fields.next()?);
    let is_served = [HTTP_PORT, STREAM_PORT].contains(&to.port());
    (is_served && !is_over).then_some(Flow { from, to })
}

/// `ADDRESS:PORT` in hexadecimal digits, the address in words of 32 bits in the machine's order.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    let address: IpAddr = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(v4) => Ipv4Addr::from(v4).into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?).into(),
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_connections_are_read_from_its_kernel() {
        let of = |from: &str, to: &str| {
            Some(Flow {
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
            })
        };
        let established = "  1: 077100CB:1B58 0A0200C0:9C40 01 00000000:00000000 00:00000000 0 0";
        assert_eq!(
            client(established),
            of("192.0.2.10:40000", "203.0.113.7:7000")
        );
        let half_open = established.replace(" 01 ", " 03 ");
        assert!(client(&half_open).is_some());
        let v6 = "  2: B80D012000000F000000000007000000:0050 \
                  B80D012000000C000000000010000000:9C40 08 0";
        assert_eq!(
            client(v6),
            of("[2001:db8:c::10]:40000", "[2001:db8:f::7]:80")
        );
        for other in [
            established.replace(" 01 ", " 06 "),
            established.replace(" 01 ", " 0A "),
            established.replace(":1B58", ":1B59"),
            "  sl  local_address rem_address   st".to_owned(),
        ] {
            assert_eq!(client(&other), None, "{other}");
        }
    }
}
