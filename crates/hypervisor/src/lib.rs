//! Drivers that run guests.
