//! The store: one trait with etcd's semantics, in memory and in redb.
