//! Where the logs of a program that keeps running go: standard error, one line per event.

use tracing_subscriber::EnvFilter;

/// Starts logging. `HITLESS_LOG` chooses what is logged, for example `debug` or `hitless_tm=trace`.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("HITLESS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(crate::output::is_stderr_coloured())
        .with_target(false)
        .init();
}
