//! Namespaces, links, routes and announcements.
