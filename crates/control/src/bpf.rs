//! The real data plane: director and ingress programs of `hitless-bpf`.
//!
//! Programs are loaded by each process anew, tables are adopted; replacing loads once more and
//! switches the links. All calls go through a lock that only a replacement takes for itself, so a
//! lease is written while a scan runs.

mod director;
mod ingress;

use hitless_bpf::AttachMode;
use hitless_net::Netlink;

use crate::message::AttachedProgram;
use crate::plane::PlaneError;

pub use director::BpfDirector;
pub use ingress::BpfIngress;

fn failed(error: impl std::error::Error) -> PlaneError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    PlaneError(text)
}

/// Index of an interface of this thread's network namespace.
fn ifindex(name: &str) -> Result<u32, PlaneError> {
    let mut netlink = Netlink::here().map_err(failed)?;
    Ok(netlink.link(name).map_err(failed)?.index)
}

/// The program that runs at an interface, by the kernel's number of it: another one after each
/// replacement.
fn attached(name: &str, mode: AttachMode) -> Option<AttachedProgram> {
    let link = Netlink::here().ok()?.link(name).ok()?;
    let digest = match (mode, link.native_xdp) {
        (AttachMode::Native, Some(number)) => format!("prog-{number}"),
        (AttachMode::Native | AttachMode::Generic, _) => "prog-?".to_owned(),
    };
    let mode = match mode {
        AttachMode::Native => "native",
        AttachMode::Generic => "generic",
    };
    Some(AttachedProgram {
        digest,
        mode: mode.into(),
    })
}
