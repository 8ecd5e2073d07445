//! Versioned API types, routes and client.
