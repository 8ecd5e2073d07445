//! The traffic manager's worker: event loop, listeners, pools, monitors, protocols.
