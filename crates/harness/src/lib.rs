//! What tests and benchmarks of all crates share: what they ask of the machine ([`needs`]), and the
//! form in which figures are printed ([`figures`]).
//!
//! No crate of the product uses it but for its tests.

pub mod figures;
pub mod needs;
