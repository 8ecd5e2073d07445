//! Clusters in namespaces: topologies, workloads, tally and faults. Starts a hitless binary given by its path.
