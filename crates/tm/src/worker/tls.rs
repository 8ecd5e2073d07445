//! TLS under the codecs: one [`Layer`] between a socket and whoever reads and writes data.
//!
//! ```text
//! accepted ─► shaking ─ rustls is done ─► Layer (keys, two numbers) ─► HTTP/1.1, HTTP/2 or raw TCP
//!               └ refused, too slow, gone: over
//! ```
//!
//! rustls shakes hands and nothing more ([`Shaking`]); then the secrets are taken out of it and
//! [`hitless_proto::tls::Records`] seals and opens. So a connection is plain state at any byte. A
//! connection in cleartext has no layer, which is one comparison with nothing for each call.

use std::os::fd::OwnedFd;

use hitless_carry::vault::Entry;

use super::tables::Member;
use super::tcp::MEMBER;

mod greet;
mod kept;
mod layer;
mod note;
mod pair;
mod shaking;
#[cfg(test)]
mod tests;

pub(super) use self::greet::{
    Greeting, begin as begin_greeting, end as end_greeting, greet, on_greeting, on_greeting_timer,
    work as work_greeting,
};
pub(super) use self::layer::{Got, Layer, Room, Tls, has_unsent, recv, send, shut_down};
pub(super) use self::note::{note_http, recover_http};
pub(super) use self::pair::{Sealed, Step};
pub(super) use self::shaking::{Shaking, Shook};

/// After a crash: the keys of a connection can be relied on.
pub(super) fn holds(entry: &Entry) -> bool {
    kept::holds(entry)
}

/// After a crash: the handshake with the member was not over.
pub(super) fn expects_member(entry: &Entry) -> bool {
    kept::expects_layer(entry, MEMBER)
}

/// How far the connect to a member has come.
pub(super) enum Connect {
    Open(Tls),
    /// Its TLS handshake, once that has begun.
    Waiting(Option<Box<Shaking>>),
    Failed,
}

/// Goes on with a connect, and with the TLS handshake that comes behind it. `scratch` has room for
/// some records. `holds`: no handshake begins now.
pub(super) fn connect(
    (member, holds): (&Member, bool),
    socket: &OwnedFd,
    shaking: Option<Box<Shaking>>,
    is_writable: bool,
    scratch: &mut [u8],
) -> Connect {
    let shaking = match shaking {
        Some(shaking) => shaking,
        None => {
            match rustix::net::sockopt::socket_error(socket) {
                Ok(Ok(())) if is_writable => {}
                Ok(Ok(())) => return Connect::Waiting(None),
                _ => return Connect::Failed,
            }
            let Some(side) = &member.tls else {
                return Connect::Open(None);
            };
            if holds {
                return Connect::Waiting(None);
            }
            match Shaking::client(side, member.address.ip()) {
                Ok(shaking) => Box::new(shaking),
                Err(_) => return Connect::Failed,
            }
        }
    };
    let address = member.address;
    match shaking.advance(socket, scratch) {
        Shook::Waiting(shaking) => Connect::Waiting(Some(shaking)),
        Shook::Done(done) => {
            let has_agreed = done.protocol.as_deref() == Some(b"h2");
            let wants = member.tls.as_ref().is_some_and(|side| side.wants_http2);
            if wants && !has_agreed {
                tracing::warn!(%address, "member does not speak HTTP/2 in TLS");
                return Connect::Failed;
            }
            Connect::Open(Some(Box::new(done.layer)))
        }
        Shook::Failed(why) => {
            tracing::warn!(%address, "TLS handshake with member: {why}");
            Connect::Failed
        }
    }
}
