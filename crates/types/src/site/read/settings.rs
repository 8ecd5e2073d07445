//! Timeouts, limits, and the address for operators.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::{Address, bounds, fields, listen_address};
use crate::document::reader::{At, Object};
use crate::problem::Sink;
use crate::site::{Admin, Limits, Timeouts};

pub(super) fn timeouts(at: Option<&At<'_>>, sink: &mut Sink) -> Option<Timeouts> {
    let default = Timeouts::default();
    let Some(at) = at else {
        return Some(default);
    };
    let written = at.object(sink, "the timeouts", fields::TIMEOUTS.fields)?;
    let mut one = |name: &str, default: Duration| {
        let at = written.optional(name);
        let what = format!("the timeout `{name}`");
        at.map_or(Some(default), |at| {
            at.duration(sink, &what, bounds::TIMEOUT)
        })
    };
    let connect = one("connect", default.connect);
    let request_head = one("request_head", default.request_head);
    let keep_alive = one("keep_alive", default.keep_alive);
    let response = one("response", default.response);
    let idle = one("idle", default.idle);
    Some(Timeouts {
        connect: connect?,
        request_head: request_head?,
        keep_alive: keep_alive?,
        response: response?,
        idle: idle?,
    })
}

pub(super) fn limits(at: Option<&At<'_>>, sink: &mut Sink) -> Option<Limits> {
    let default = Limits::default();
    let Some(at) = at else {
        return Some(default);
    };
    let written = at.object(sink, "the limits", fields::LIMITS.fields)?;
    let connections = count(
        &written,
        "connections",
        bounds::CONNECTIONS,
        default.connections,
        sink,
    );
    let head_bytes = size(
        &written,
        "head_bytes",
        bounds::HEAD_BYTES,
        default.head_bytes,
        sink,
    );
    let headers = count(
        &written,
        "headers",
        bounds::HEADERS,
        u32::from(default.headers),
        sink,
    );
    Some(Limits {
        connections: connections?,
        head_bytes: head_bytes?,
        headers: u16::try_from(headers?).expect("the range of headers ends below 65536"),
    })
}

fn count(
    written: &Object<'_>,
    name: &str,
    range: RangeInclusive<u64>,
    default: u32,
    sink: &mut Sink,
) -> Option<u32> {
    match written.optional(name) {
        None => Some(default),
        Some(at) => at
            .number(sink, &format!("the limit `{name}`"), range)
            .map(in_32_bits),
    }
}

fn size(
    written: &Object<'_>,
    name: &str,
    range: RangeInclusive<u64>,
    default: u32,
    sink: &mut Sink,
) -> Option<u32> {
    match written.optional(name) {
        None => Some(default),
        Some(at) => at
            .bytes(sink, &format!("the limit `{name}`"), range)
            .map(in_32_bits),
    }
}

fn in_32_bits(number: u64) -> u32 {
    u32::try_from(number).expect("every range of a limit fits in 32 bits")
}

pub(super) fn admin(at: &At<'_>, listeners: &mut Vec<Address>, sink: &mut Sink) -> Option<Admin> {
    let admin = at.object(sink, "the admin section", fields::ADMIN.fields)?;
    let at = admin.required(sink, "listen", "the admin section", "address:port")?;
    let listen = listen_address(at, "the admin address", sink)?;
    listeners.push(Address::new(listen, "the admin address".to_owned(), at));
    Some(Admin { listen })
}
