//! What is fuzzed.

use super::{http1, http2, links, proxy, relay, tls};

/// A parser with what must hold for every input.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Lines of `corpus/NAME.hex`.
    pub(crate) corpus: &'static str,
    /// Panics if something does not hold.
    pub(crate) run: fn(&[u8]),
}

pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "http1",
        about: "both sides of an HTTP/1.1 exchange, with and without snapshots",
        corpus: include_str!("../corpus/http1.hex"),
        run: http1::exchange,
    },
    Target {
        name: "http1-snapshot",
        about: "snapshots of HTTP/1.1 connections",
        corpus: include_str!("../corpus/http1-snapshot.hex"),
        run: http1::snapshot,
    },
    Target {
        name: "http2-server",
        about: "frames of a client, with and without snapshots, each request on to HTTP/1.1",
        corpus: include_str!("../corpus/http2-server.hex"),
        run: http2::server,
    },
    Target {
        name: "http2-client",
        about: "frames of a member, with and without snapshots",
        corpus: include_str!("../corpus/http2-client.hex"),
        run: http2::client,
    },
    Target {
        name: "http2-snapshot",
        about: "snapshots of HTTP/2 connections",
        corpus: include_str!("../corpus/http2-snapshot.hex"),
        run: http2::snapshot,
    },
    Target {
        name: "hpack",
        about: "field blocks, decoded and encoded again",
        corpus: include_str!("../corpus/hpack.hex"),
        run: http2::hpack,
    },
    Target {
        name: "proxy",
        about: "headers of the PROXY protocol, both versions",
        corpus: include_str!("../corpus/proxy.hex"),
        run: proxy::header,
    },
    Target {
        name: "relay-snapshot",
        about: "snapshots of raw TCP pairs",
        corpus: include_str!("../corpus/relay-snapshot.hex"),
        run: relay::snapshot,
    },
    Target {
        name: "tls-records",
        about: "records of a TLS peer, whole, in pieces, with and without snapshots",
        corpus: include_str!("../corpus/tls-records.hex"),
        run: tls::records,
    },
    Target {
        name: "tls-snapshot",
        about: "snapshots of TLS connections",
        corpus: include_str!("../corpus/tls-snapshot.hex"),
        run: tls::snapshot,
    },
    Target {
        name: "lease",
        about: "lease requests, grants and notices, sealed and not",
        corpus: include_str!("../corpus/lease.hex"),
        run: links::datagram,
    },
    Target {
        name: "link",
        about: "frames of the links of controller, nodes and guests",
        corpus: include_str!("../corpus/link.hex"),
        run: links::frames,
    },
];
