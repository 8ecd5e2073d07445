//! The drivers of controller, node agent and ingress: dumb loops around the machines of `hitless-core`.

#![forbid(unsafe_code)]

pub mod link;
