//! Model checking and simulation over the machines of `hitless-core`.
//!
//! [`model`] drives the very functions that the product runs through all interleavings at a small
//! size. There is no second description of the protocol here: only of the world around it, which
//! loses, repeats and delays packets, crashes programs and kernels, and believes what it likes.
//! [`cluster`] runs whole clusters of the machines in virtual time, and holds each of their steps
//! against the model's.

pub mod cluster;
pub mod model;
