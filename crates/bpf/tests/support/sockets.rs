//! A namespace whose kernel holds a flow in each state that a look-up can find.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hitless_core::flow::Flow;
use hitless_core::steer::Held;
use hitless_net::{Netlink, NextHop, Prefix, Route, VethEnd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with,
};
use socket2::{Domain, Socket, Type};

use super::OwnNamespace;
use super::packet::{ACK, CLIENT4, CLIENT6, ETHERNET, FIN, SYN, VIP4, VIP6, flow, tcp};

/// Where something listens; nothing listens on the port above.
pub const PORT: u16 = 443;

/// Clients that never answer: one per family with an entry, one without.
const SILENT: [&str; 4] = [
    "203.0.113.200",
    "2001:db8:d::200",
    "203.0.113.201",
    "2001:db8:d::201",
];

/// A flow and what the kernel holds of it.
#[derive(Clone, Copy, Debug)]
pub struct HeldFlow {
    pub flow: Flow,
    pub state: State,
    /// The number that the flow's client acknowledges, where there is one to check: our initial
    /// sequence number + 1, or that of our end in TIME_WAIT and FIN_WAIT2.
    pub right_number: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Nothing,
    Listener,
    HalfOpen,
    Established,
    OrphanInFinWait2,
    TimeWait,
    /// No entry, but a cookie is out.
    Cookie,
}

impl State {
    pub const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Listener,
        Self::HalfOpen,
        Self::Established,
        Self::OrphanInFinWait2,
        Self::TimeWait,
        Self::Cookie,
    ];

    /// What the model calls it, for a packet with ACK and this number, or without.
    pub fn held(self, is_right_number: bool, is_ack: bool) -> Held {
        match self {
            Self::Nothing => Held::Nothing,
            Self::Listener => Held::Listener,
            Self::HalfOpen => Held::HalfOpen {
                is_ours: is_right_number && is_ack,
            },
            Self::OrphanInFinWait2 if is_ack && !is_right_number => {
                Held::TimeWait { is_ours: false }
            }
            Self::Established | Self::OrphanInFinWait2 => Held::Established,
            Self::TimeWait => Held::TimeWait {
                is_ours: is_right_number && is_ack,
            },
            Self::Cookie if is_right_number && is_ack => Held::Cookie,
            Self::Cookie => Held::Listener,
        }
    }
}

/// The namespace. Addresses of ours and of clients lie on its loopback interface; 203.0.113.128/25
/// and 2001:db8:d::/64 are clients that never answer.
pub struct Host {
    pub namespace: OwnNamespace,
    pub flows: Vec<HeldFlow>,
    _listeners: Vec<TcpListener>,
    _streams: Vec<TcpStream>,
}

impl Host {
    pub fn new() -> Self {
        let namespace = OwnNamespace::new("host");
        let mut netlink = Netlink::open(&namespace).unwrap();
        for (address, length) in [(VIP4, 32), (CLIENT4, 32), (VIP6, 128), (CLIENT6, 128)] {
            let prefix = Prefix::new(address.parse().unwrap(), length).unwrap();
            netlink.add_address("lo", prefix).unwrap();
        }
        // Answers to those who never answer leave by a pair that leads nowhere. (IPv6 has no routes
        // by loopback.)
        let end = |name| VethEnd {
            namespace: &namespace,
            name,
            mac: None,
        };
        netlink
            .add_veth(end("silent"), end("nowhere"), 1_500)
            .unwrap();
        netlink.set_up("silent").unwrap();
        netlink.set_up("nowhere").unwrap();
        for (network, length) in [("203.0.113.128", 25), ("2001:db8:d::", 64)] {
            let prefix = Prefix::new(network.parse().unwrap(), length).unwrap();
            netlink
                .replace_route(&Route::new(prefix, vec![NextHop::link("silent")]))
                .unwrap();
        }
        for client in SILENT {
            netlink
                .set_neighbour("silent", client.parse().unwrap(), [2, 0, 0, 0, 9, 9])
                .unwrap();
        }
        let (flows, listeners, streams) = namespace.run(make_states).unwrap();
        Self {
            namespace,
            flows,
            _listeners: listeners,
            _streams: streams,
        }
    }
}

type Made = (Vec<HeldFlow>, Vec<TcpListener>, Vec<TcpStream>);

fn make_states() -> Made {
    let mut flows = Vec::new();
    let mut listeners = Vec::new();
    let mut streams = Vec::new();
    std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "1").unwrap();
    for (client, silent, vip) in [(CLIENT4, SILENT[0], VIP4), (CLIENT6, SILENT[1], VIP6)] {
        let listener = TcpListener::bind((vip, PORT)).unwrap();
        let mut hold = |flow, state, right_number| {
            flows.push(HeldFlow {
                flow,
                state,
                right_number,
            });
        };
        hold(flow(client, 1001, vip, PORT + 1), State::Nothing, None);
        hold(flow(client, 1002, vip, PORT), State::Listener, None);

        let half_open = flow(silent, 1003, vip, PORT);
        hold(
            half_open,
            State::HalfOpen,
            Some(our_number_after_syn(&half_open)),
        );

        let (ours, theirs) = connect(client, 1004, &listener);
        streams.extend([ours, theirs]);
        hold(flow(client, 1004, vip, PORT), State::Established, None);

        let (ours, theirs) = connect(client, 1005, &listener);
        let was = flow(client, 1005, vip, PORT);
        let watching = watcher();
        drop(ours);
        let end = our_number_after(&watching, &was, FIN);
        read_end(&theirs);
        streams.push(theirs);
        hold(was, State::OrphanInFinWait2, Some(end));

        let (ours, theirs) = connect(client, 1006, &listener);
        let was = flow(client, 1006, vip, PORT);
        let watching = watcher();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let end = our_number_after(&watching, &was, FIN);
        read_end(&theirs);
        drop(theirs);
        read_end(&ours);
        drop(ours);
        hold(was, State::TimeWait, Some(end));
        listeners.push(listener);
    }
    // From here on every SYN is answered by a cookie, and leaves no entry.
    std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
    for (silent, vip) in [(SILENT[2], VIP4), (SILENT[3], VIP6)] {
        let cookie = flow(silent, 1007, vip, PORT);
        let right_number = Some(our_number_after_syn(&cookie));
        flows.push(HeldFlow {
            flow: cookie,
            state: State::Cookie,
            right_number,
        });
    }
    (flows, listeners, streams)
}

fn connect(client: &str, port: u16, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let local = SocketAddr::new(client.parse().unwrap(), port);
    let socket = Socket::new(Domain::for_address(local), Type::STREAM, None).unwrap();
    socket.bind(&local.into()).unwrap();
    socket
        .connect(&listener.local_addr().unwrap().into())
        .unwrap();
    let (ours, _) = listener.accept().unwrap();
    (ours, socket.into())
}

fn read_end(mut stream: &TcpStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// Sends a SYN as the flow's client would, and returns our initial sequence number + 1 from what
/// the kernel answers.
pub fn our_number_after_syn(flow: &Flow) -> u32 {
    let watcher = watcher();
    inject(&tcp(flow, SYN, 0, &[])[ETHERNET..]);
    our_number_after(&watcher, flow, SYN)
}

/// The number behind our next packet of the flow with ACK and this flag, which counts as a byte.
fn our_number_after(watcher: &OwnedFd, flow: &Flow, flag: u8) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        let mut packet = [0; 256];
        let length = match rustix::net::recv(watcher, &mut packet[..], RecvFlags::empty()) {
            Ok((length, _)) => length,
            // Nothing was seen within the watcher's time-out.
            Err(Errno::AGAIN) => continue,
            Err(error) => panic!("{error}"),
        };
        let tcp_at = if packet[0] >> 4 == 4 { 20 } else { 40 };
        let Some(tcp) = packet[..length].get(tcp_at..tcp_at + 20) else {
            continue;
        };
        let is_ours = tcp[..2] == flow.destination_port.to_be_bytes()
            && tcp[2..4] == flow.source_port.to_be_bytes();
        if is_ours && tcp[13] & 0x3f == flag | ACK {
            return u32::from_be_bytes(tcp[4..8].try_into().unwrap()).wrapping_add(1);
        }
    }
    panic!("no packet of {flow:?} with flag {flag:#x}");
}

/// Sees all packets of the calling thread's namespace, from the IP header on.
pub fn watcher() -> OwnedFd {
    let all =
        rustix::net::Protocol::from_raw(3u32.swap_bytes().wrapping_shr(16).try_into().unwrap());
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(all),
    )
    .unwrap();
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(Duration::from_millis(500)),
    )
    .unwrap();
    socket
}

/// Puts an IP packet on the loopback interface, whatever its source.
pub fn inject(packet: &[u8]) {
    let is_v4 = packet[0] >> 4 == 4;
    let (family, destination) = if is_v4 {
        let address = <[u8; 4]>::try_from(&packet[16..20]).unwrap();
        (AddressFamily::INET, IpAddr::from(address))
    } else {
        let address = <[u8; 16]>::try_from(&packet[24..40]).unwrap();
        (AddressFamily::INET6, IpAddr::from(address))
    };
    let socket = socket_with(
        family,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::RAW),
    )
    .unwrap();
    let sent = sendto(
        &socket,
        packet,
        SendFlags::empty(),
        &SocketAddr::new(destination, 0),
    )
    .unwrap();
    assert_eq!(sent, packet.len());
}
