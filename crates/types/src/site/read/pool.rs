//! Pools, members and monitors.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use super::{Address, Method, Monitor, Name, Pool, bounds, fields, stands_for_several, tls};
use crate::document::reader::{At, Object};
use crate::problem::{Sink, quote};
use crate::site::{HashBy, Member, MembersProtocol, Probe};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
const DEFAULT_RISE: u16 = 2;
const DEFAULT_FALL: u16 = 3;
const DEFAULT_STATUS: u16 = 200;
const DEFAULT_PATH: &str = "/";

pub(super) fn read(
    name: Name,
    at: &At<'_>,
    addresses: &mut Vec<Address>,
    sink: &mut Sink,
) -> Option<Pool> {
    let pool = at.object(sink, "a pool", fields::POOL.fields)?;
    let method = match pool.optional("method") {
        None => Some(Method::RoundRobin),
        Some(at) => at.word(sink, "a method", &Method::ALL.map(|m| (m.name(), m))),
    };
    let hash_by = match pool.optional("hash_by") {
        None => Some(HashBy::Source),
        Some(at) => {
            if method.is_some_and(|method| method != Method::Hash) {
                let message = "`hash_by` is of use only to a pool that chooses by a hash";
                sink.add(at.problem("unused-field", message).allowed("method: hash"));
            }
            hash_by(at, sink)
        }
    };
    let members_protocol = match pool.optional("members_protocol") {
        None => Some(MembersProtocol::Http1),
        Some(at) => {
            let words = MembersProtocol::ALL.map(|p| (p.name(), p));
            at.word(sink, "a protocol of members", &words)
        }
    };
    let members = pool
        .required(sink, "members", "a pool", "[address:port, ...]")
        .and_then(|at| members(at, &name, addresses, sink));
    let monitor = pool.optional("monitor").map(|at| monitor(at, sink));
    let tls = pool.optional("tls").map(|at| tls::members(at, sink));
    Some(Pool {
        name,
        method: method?,
        hash_by: hash_by?,
        members_protocol: members_protocol?,
        members: members?,
        monitor: match monitor {
            None => None,
            Some(monitor) => Some(monitor?),
        },
        tls: match tls {
            None => None,
            Some(tls) => Some(tls?),
        },
    })
}

/// `source`, `host`, `path`, `{ header: NAME }` or `{ cookie: NAME }`.
fn hash_by(at: &At<'_>, sink: &mut Sink) -> Option<HashBy> {
    use crate::document::Value;
    #[derive(Clone, Copy)]
    enum Word {
        Source,
        Host,
        Path,
    }
    let words = [
        ("source", Word::Source),
        ("host", Word::Host),
        ("path", Word::Path),
    ];
    let Value::Map(_) = &at.node.value else {
        return Some(match at.word(sink, "a key to hash", &words)? {
            Word::Source => HashBy::Source,
            Word::Host => HashBy::Host,
            Word::Path => HashBy::Path,
        });
    };
    let by = at.object(sink, "a key to hash", fields::HASH_BY.fields)?;
    let header = by.optional("header").map(|at| token(at, "a header", sink));
    let cookie = by.optional("cookie").map(|at| token(at, "a cookie", sink));
    let message = match (header, cookie) {
        (Some(header), None) => return Some(HashBy::Header(header?.to_ascii_lowercase())),
        (None, Some(cookie)) => return Some(HashBy::Cookie(cookie?)),
        (Some(_), Some(_)) => "a key to hash is either a header or a cookie, not both",
        (None, None) => "a key to hash needs a header or a cookie",
    };
    sink.add(
        by.problem("hash-by", message)
            .allowed("{ header: x-user } or { cookie: session }"),
    );
    None
}

/// The name of a header field or cookie: a token (RFC 9110 section 5.6.2).
fn token(at: &At<'_>, what: &str, sink: &mut Sink) -> Option<String> {
    let what = format!("the name of {what}");
    let allowed = "1 to 255 letters, digits, or one of !#$%&'*+-.^_`|~";
    let text = at.text(sink, &what, allowed)?;
    let good = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if (1..=255).contains(&text.len()) && text.chars().all(good) {
        return Some(text.to_owned());
    }
    let problem = at.problem("name", format!("this is no {}", &what[4..]));
    sink.add(problem.found(quote(text)).allowed(allowed));
    None
}

fn members(
    at: &At<'_>,
    pool: &Name,
    addresses: &mut Vec<Address>,
    sink: &mut Sink,
) -> Option<Vec<Member>> {
    let items = at.items(sink, "members", bounds::MEMBERS_MAX)?;
    let mut lines: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let mut members = Vec::new();
    for item in &items {
        let Some(member) = member(item, sink) else {
            continue;
        };
        if let Some(line) = lines.get(&member.address) {
            let problem = item.problem("duplicate", "this member is written twice in the pool");
            let hint = format!("the first one is in line {line}; a larger share is a `weight`");
            sink.add(problem.found(format!("`{}`", member.address)).hint(hint));
            continue;
        }
        lines.insert(member.address, item.mark().line);
        addresses.push(Address::new(member.address, pool.to_string(), item));
        members.push(member);
    }
    Some(members)
}

/// `127.0.0.1:80`, or `{ address: 127.0.0.1:80, weight: 2 }`.
fn member(at: &At<'_>, sink: &mut Sink) -> Option<Member> {
    use crate::document::Value;
    let (address_at, weight) = match &at.node.value {
        Value::Map(_) => {
            let member = at.object(sink, "a member", fields::MEMBER.fields)?;
            let weight = match member.optional("weight") {
                None => Some(1),
                Some(at) => small(at, sink, "the weight", bounds::WEIGHT),
            };
            let address = member.required(sink, "address", "a member", "address:port");
            (address?.clone(), weight)
        }
        Value::Null | Value::Scalar { .. } | Value::List(_) => (at.clone(), Some(1)),
    };
    let address = address_at.address(sink, "the member")?;
    let ip = address.ip();
    let wrong = if ip.is_unspecified() {
        Some("a member needs an address of its own")
    } else if stands_for_several(ip) {
        Some("a member is one machine: this address stands for several")
    } else {
        None
    };
    if let Some(wrong) = wrong {
        let problem = address_at.problem("address", wrong);
        sink.add(problem.found(quote(&address.to_string())));
        return None;
    }
    Some(Member {
        address,
        weight: weight?,
    })
}

fn monitor(at: &At<'_>, sink: &mut Sink) -> Option<Monitor> {
    let monitor = at.object(sink, "a monitor", fields::MONITOR.fields)?;
    // Both are read where both are written: what is wrong in either shows at once.
    let http = monitor.optional("http").map(|at| {
        let http = at.object(sink, "an http monitor", fields::HTTP_MONITOR.fields)?;
        let probe = http_probe(&http, sink);
        timing(&http, probe, sink)
    });
    let tcp = monitor.optional("tcp").map(|at| {
        let tcp = at.object(sink, "a tcp monitor", fields::TCP_MONITOR.fields)?;
        timing(&tcp, Some(Probe::Tcp), sink)
    });
    let message = match (http, tcp) {
        (Some(one), None) | (None, Some(one)) => return one,
        (Some(_), Some(_)) => "a monitor is either http or tcp, not both",
        (None, None) => "a monitor needs to be http or tcp",
    };
    let problem = monitor.problem("monitor", message);
    sink.add(problem.allowed("{ http: { path: / } } or { tcp: {} }"));
    None
}

fn http_probe(http: &Object<'_>, sink: &mut Sink) -> Option<Probe> {
    let path = match http.optional("path") {
        None => Some(DEFAULT_PATH.to_owned()),
        Some(at) => path(at, sink),
    };
    let host = http.optional("host").map(|at| host(at, sink));
    let expect = match http.optional("expect") {
        None => Some(DEFAULT_STATUS),
        Some(at) => small(at, sink, "the expected status", bounds::STATUS),
    };
    Some(Probe::Http {
        path: path?,
        host: match host {
            None => None,
            Some(host) => Some(host?),
        },
        expect: expect?,
    })
}

fn path(at: &At<'_>, sink: &mut Sink) -> Option<String> {
    let allowed = "a path that begins with `/`, for example `/health`";
    let text = at.text(sink, "a path", allowed)?;
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.starts_with('/') && visible && text.len() <= bounds::PATH_MAX {
        return Some(text.to_owned());
    }
    let problem = at.problem("path", "this is no path of a request");
    sink.add(problem.found(quote(text)).allowed(allowed));
    None
}

fn host(at: &At<'_>, sink: &mut Sink) -> Option<String> {
    let allowed = "a host name, with or without a port";
    let text = at.text(sink, "a host", allowed)?;
    let good =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
    if !text.is_empty() && text.len() <= 255 && text.chars().all(good) {
        return Some(text.to_owned());
    }
    sink.add(
        at.problem("host", "this is no host")
            .found(quote(text))
            .allowed(allowed),
    );
    None
}

fn timing(fields: &Object<'_>, probe: Option<Probe>, sink: &mut Sink) -> Option<Monitor> {
    let interval = match fields.optional("interval") {
        None => Some(DEFAULT_INTERVAL),
        Some(at) => at.duration(sink, "the interval", bounds::INTERVAL),
    };
    let timeout = match fields.optional("timeout") {
        None => interval.map(|interval| DEFAULT_TIMEOUT.min(interval)),
        Some(at) => {
            let timeout = at.duration(sink, "the timeout", bounds::INTERVAL);
            if let (Some(timeout), Some(interval)) = (timeout, interval)
                && timeout > interval
            {
                let message = "the timeout of a monitor is longer than its interval";
                let allowed = format!("at most {}", crate::scalar::show(interval));
                let found = crate::scalar::show(timeout);
                sink.add(
                    at.problem("out-of-range", message)
                        .found(quote(&found))
                        .allowed(allowed),
                );
            }
            timeout
        }
    };
    let count = |name: &str, what: &str, default: u16, sink: &mut Sink| {
        let at = fields.optional(name);
        at.map_or(Some(default), |at| small(at, sink, what, bounds::RISE_FALL))
    };
    let rise = count("rise", "the rise count", DEFAULT_RISE, sink);
    let fall = count("fall", "the fall count", DEFAULT_FALL, sink);
    Some(Monitor {
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
    })
}

/// A number whose range fits in 16 bits.
fn small(
    at: &At<'_>,
    sink: &mut Sink,
    what: &str,
    range: core::ops::RangeInclusive<u64>,
) -> Option<u16> {
    let number = at.number(sink, what, range)?;
    Some(u16::try_from(number).expect("every range of a small number ends below 65536"))
}
