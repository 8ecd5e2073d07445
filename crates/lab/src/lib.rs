//! Clusters in namespaces: topologies, workloads, tally and faults.
//!
//! The lab starts a hitless binary that is given by its path, and speaks to it through its API
//! only; it links to no role. Its parts are processes of their own, so that none can hide another's
//! fault: clients ([`client`]), stream server ([`server`]), the cluster, and the one that makes
//! changes and judges.

pub mod client;
pub mod cluster;
pub mod judge;
pub mod kill;
pub mod life;
pub mod machine;
pub mod runner;
pub mod script;
pub mod server;
pub mod show;
pub mod topology;
pub mod wire;
pub mod world;
