//! Which build this is.

/// What distinguishes this build from another of the same version: `HITLESS_BUILD` when it was
/// compiled. Setting it to another value compiles this crate alone again, and gives a second build
/// for trying upgrades.
pub(crate) const BUILD: &str = match option_env!("HITLESS_BUILD") {
    Some(build) => build,
    None => "dev",
};

/// What `hitless --version` shows behind the name.
pub(crate) fn long() -> &'static str {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    static LONG: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    LONG.get_or_init(|| format!("{VERSION} (build {BUILD})"))
}
