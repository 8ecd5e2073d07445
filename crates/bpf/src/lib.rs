//! Director and ingress: C sources, the ABI header that they share with us, and the loader.
//!
//! [`Director`] owns the programs and tables of a node, [`Ingress`] those of a guest. Everything is pinned in a folder that the caller names, so packets keep flowing while nobody
//! runs this code, and the next process adopts what is there.
//!
//! Invariants: no type of the BPF library is public; rows and marks are changed by plain atomic
//! stores into mapped arrays, so no reader sees half of one; an entry that a packet may be reading
//! is never changed in place, a new one is written and its number stored.
//!
//! Not here: who decides rows (`hitless-core`), who keeps next hops fresh (`hitless-net`), UDP,
//! moves between hosts.

mod abi;
mod address;
mod cookies;
mod counters;
mod director;
mod error;
mod grace;
mod held;
mod hop;
mod inet_diag;
mod ingress;
mod links;
mod map;
mod mapped;
mod object;
mod role;
mod run;
mod verify;
mod vni;

pub use address::AddressKind;
pub use counters::Counters;
pub use director::{Director, GuestPort};
pub use error::Error;
pub use held::HeldSocket;
pub use hop::Hop;
pub use ingress::{Identity, Ingress, LiveCounts};
pub use links::{AttachMode, Attached};
pub use object::Adoption;
pub use run::Run;
pub use verify::{Verified, verify};
pub use vni::Vni;
