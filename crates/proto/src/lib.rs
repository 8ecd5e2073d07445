//! Pure codecs with snapshots: feed bytes, poll events and output, snapshot and restore after any byte.
