//! The only build tool of hitless.

fn main() {}
