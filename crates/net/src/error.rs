//! What can go wrong: always with the object that it went wrong for.

use std::io;

/// Result of this crate's calls.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that failed, and on what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused it.
    #[error("cannot {operation}")]
    Refused {
        /// What was tried, with the object's name.
        operation: String,
        /// Why.
        source: io::Error,
    },
    /// There is no interface of this name in the namespace.
    #[error("no interface named {0:?} in this namespace")]
    NoLink(String),
    /// The name cannot be one of an interface or a namespace.
    #[error("{name:?} cannot be a name of {object}: {reason}")]
    BadName {
        object: &'static str,
        name: String,
        reason: &'static str,
    },
    /// The kernel's answer could not be read.
    #[error("the answer to {operation} cannot be read: {reason}")]
    Answer { operation: String, reason: String },
}

impl Error {
    pub(crate) fn refused(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Refused {
            operation: operation.into(),
            source: source.into(),
        }
    }

    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            Self::NoLink(_) | Self::BadName { .. } | Self::Answer { .. } => None,
        }
    }

    /// Whether it failed because the object is there already.
    pub fn is_already_there(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether it failed because the object, or the interface it is on, is not there.
    pub fn is_not_there(&self) -> bool {
        matches!(self, Self::NoLink(_))
            || matches!(
                self.errno(),
                Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL)
            )
    }
}
