//! The number of a virtual cluster on the wire.

use std::fmt;

use crate::error::{Error, Result};

/// Geneve's VNI, 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(pub(crate) u32);

impl Vni {
    /// The highest number.
    pub const MAX: u32 = 0xff_ffff;

    pub fn new(vni: u32) -> Result<Self> {
        if vni > Self::MAX {
            Err(Error::BadVni { vni })
        } else {
            Ok(Self(vni))
        }
    }

    pub const fn number(self) -> u32 {
        self.0
    }

    /// As Geneve's header has it, read as a word: 24 bits, and 8 that are 0.
    pub(crate) const fn on_the_wire(self) -> u32 {
        (self.0 << 8).to_be()
    }

    pub(crate) const fn from_the_wire(word: u32) -> Self {
        Self(u32::from_be(word) >> 8)
    }
}

impl fmt::Debug for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vni{}", self.0)
    }
}
