//! The Rust side of `c/abi.h`: constants made by the build script, structs from the objects' type
//! information.

include!(concat!(env!("OUT_DIR"), "/abi.rs"));

#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    dead_code
)]
#[allow(unsafe_op_in_unsafe_fn, unused_imports)]
mod director_skeleton {
    include!(concat!(env!("OUT_DIR"), "/director.skel.rs"));
}

#[allow(clippy::all, clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]
#[allow(
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    dead_code
)]
#[allow(unsafe_op_in_unsafe_fn, unused_imports)]
mod ingress_skeleton {
    include!(concat!(env!("OUT_DIR"), "/ingress.skel.rs"));
}

pub(crate) use director_skeleton::types::{
    hl_address, hl_cluster, hl_hop, hl_in6, hl_near, hl_port, hl_rows,
};
pub(crate) use ingress_skeleton::types::hl_self;

/// The compiled objects.
pub(crate) static DIRECTOR_OBJECT: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/director.bpf.o"));
pub(crate) static INGRESS_OBJECT: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/ingress.bpf.o"));
