//! What can go wrong between us and the kernel.

use std::io;
use std::path::PathBuf;

/// An error of the loader or of a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot load the {program} program")]
    Load {
        program: &'static str,
        source: io::Error,
    },
    #[error("cannot use {path} for pins: is a bpf file system mounted there?")]
    Pin { path: PathBuf, source: io::Error },
    #[error("cannot attach to interface {ifindex}")]
    Attach { ifindex: u32, source: io::Error },
    #[error("cannot replace the program of {path}")]
    Replace { path: PathBuf, source: io::Error },
    #[error("cannot {what} the table `{table}`")]
    Table {
        table: &'static str,
        what: &'static str,
        source: io::Error,
    },
    #[error("cannot run the program on a packet")]
    Run { source: io::Error },
    #[error("cannot count sockets")]
    Count { source: io::Error },
    #[error("cannot ask the kernel to remove a half-open entry")]
    Destroy { source: io::Error },
    #[error("virtual cluster {vni} is not known here")]
    UnknownCluster { vni: u32 },
    #[error("there is no room for another {what}: at most {limit}")]
    Full { what: &'static str, limit: usize },
    #[error("{vni:#x} is not the number of a virtual cluster: 24 bits")]
    BadVni { vni: u32 },
    #[error("source and destination of a hop are of different families")]
    MixedFamilies,
    #[error("the ingress was loaded as another guest: {what} differs")]
    OtherIdentity { what: &'static str },
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// The BPF library's error as the operating system's, which is what it mostly is.
pub(crate) fn io_error(error: libbpf_rs::Error) -> io::Error {
    use libbpf_rs::ErrorKind;
    match error.kind() {
        ErrorKind::NotFound => io::Error::new(io::ErrorKind::NotFound, error),
        ErrorKind::PermissionDenied => io::Error::new(io::ErrorKind::PermissionDenied, error),
        _ => io::Error::other(error),
    }
}

/// The result of a raw call of the BPF library: negative errno, or a value.
pub(crate) fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::from_raw_os_error(-result))
    } else {
        Ok(result)
    }
}
