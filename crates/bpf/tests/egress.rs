//! Counting connections to members by the bucket that is in their port. Needs root.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::{SocketAddr, TcpListener};

use hitless_bpf::{AddressKind, Identity, Ingress, Vni};
use hitless_core::row::{Bucket, GuestSlot};
use hitless_harness::needs;
use hitless_net::{Netlink, Prefix};
use socket2::{Domain, Socket, Type};
use support::packet::{KEY, VNI};
use support::{BpfFolder, OwnNamespace};

#[test]
fn connections_from_an_egress_address_count_by_port_as_root() {
    if !needs::root() {
        return;
    }
    let pins = BpfFolder::new();
    let guest = OwnNamespace::new("guest");
    let mut netlink = Netlink::open(&guest).unwrap();
    netlink.set_up("lo").unwrap();
    let (egress4, egress6) = ("198.51.100.7", "2001:db8:e::7");
    for (address, length) in [(egress4, 32), (egress6, 128)] {
        let prefix = Prefix::new(address.parse().unwrap(), length).unwrap();
        netlink.add_address("lo", prefix).unwrap();
    }
    let identity = Identity {
        vni: Vni::new(VNI).unwrap(),
        key: KEY,
        slot: GuestSlot::new(1).unwrap(),
    };
    let ingress = Ingress::open(pins.path(), identity).unwrap();
    for address in [egress4, egress6] {
        ingress
            .set_address(address.parse().unwrap(), AddressKind::Egress)
            .unwrap();
    }
    let (low, high) = (5, 0x3ff);
    // Of ports that are the same in their low 10 bits, all are of one bucket.
    let ports = [(1 << 10) | low, (9 << 10) | low, (20 << 10) | high];
    guest
        .run(|| {
            let mut open = Vec::new();
            for (member, egress) in [("127.0.0.1:0", egress4), ("[::1]:0", egress6)] {
                let listener = TcpListener::bind(member).unwrap();
                for port in ports {
                    let own = SocketAddr::new(egress.parse().unwrap(), port);
                    let socket = Socket::new(Domain::for_address(own), Type::STREAM, None).unwrap();
                    socket.bind(&own.into()).unwrap();
                    let member = listener.local_addr().unwrap();
                    socket.connect(&member.into()).unwrap();
                    open.push((socket, listener.accept().unwrap()));
                }
            }
            let live = ingress.live_counts().unwrap();
            assert_eq!(live.of(Bucket(low << 6)), 4, "two of each family");
            assert_eq!(live.of(Bucket(high << 6)), 2);
            assert_eq!(live.total(), 6, "the members' ends are not ours");
            // Both ends closed by force leave nothing behind.
            for (socket, (peer, _)) in open {
                socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
                drop((socket, peer));
            }
            assert_eq!(ingress.live_counts().unwrap().total(), 0);
        })
        .unwrap();
}
