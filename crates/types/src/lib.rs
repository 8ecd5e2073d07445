//! Names, addresses and resources as users write them. Data and its validation only: no IO.
//!
//! What a user writes is read in one step into a type in which every invariant holds
//! ([`site::Site`]), or refused with all [`problem::Problems`] at once. Nothing behind this crate
//! checks a configuration again.

#![forbid(unsafe_code)]

pub mod document;
pub mod problem;
pub mod scalar;
pub mod site;
pub mod suggest;
