//! Which build this is.

use std::sync::OnceLock;

const PREFIX: &[u8] = b"hitless-build=";
/// Longest build id.
const ID_BYTES_MAX: usize = 32;
const MARK_BYTES: usize = PREFIX.len() + ID_BYTES_MAX;

/// What distinguishes this build from another of the same version: `HITLESS_BUILD` when it was
/// compiled. Setting it to another value compiles this crate alone again, and gives a second build
/// for trying upgrades.
///
/// It lies in the program's file behind a prefix by which it is found, filled up with zeros: tests
/// make a second build out of a copy of the file.
#[used]
static MARK: [u8; MARK_BYTES] = mark(match option_env!("HITLESS_BUILD") {
    Some(build) => build,
    None => "dev",
});

const fn mark(build: &str) -> [u8; MARK_BYTES] {
    let (build, mut bytes, mut at) = (build.as_bytes(), [0; MARK_BYTES], 0);
    assert!(
        !build.is_empty() && build.len() <= ID_BYTES_MAX,
        "HITLESS_BUILD has 1 to 32 bytes"
    );
    while at < PREFIX.len() {
        bytes[at] = PREFIX[at];
        at += 1;
    }
    while at < PREFIX.len() + build.len() {
        bytes[at] = build[at - PREFIX.len()];
        at += 1;
    }
    bytes
}

/// The build's id.
pub(crate) fn build() -> &'static str {
    static BUILD: OnceLock<&str> = OnceLock::new();
    BUILD.get_or_init(|| {
        // Read from the program as it is in memory, not as it was when it was compiled.
        let mark: &'static [u8; MARK_BYTES] = std::hint::black_box(&MARK);
        let id = &mark[PREFIX.len()..];
        let end = id.iter().position(|byte| *byte == 0).unwrap_or(id.len());
        std::str::from_utf8(&id[..end]).unwrap_or("?")
    })
}

/// What `hitless --version` shows behind the name.
pub(crate) fn long() -> &'static str {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    static LONG: OnceLock<String> = OnceLock::new();
    LONG.get_or_init(|| format!("{VERSION} (build {})", build()))
}
