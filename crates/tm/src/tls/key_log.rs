//! Traffic secrets of TLS 1.3 on their way from rustls to us. rustls tells them to a log, on the
//! thread that does the handshake and in the midst of a call to it, so that what is here right
//! after a call is of that handshake.

use std::cell::RefCell;

use rustls::KeyLog;
use zeroize::Zeroizing;

/// The secrets of one handshake.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) client: Option<Zeroizing<Vec<u8>>>,
    pub(crate) server: Option<Zeroizing<Vec<u8>>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(not shown)")
    }
}

thread_local! {
    static TOLD: RefCell<Secrets> = RefCell::default();
}

/// The log of whatever thread uses it.
#[derive(Debug)]
pub(crate) struct OfThread;

impl KeyLog for OfThread {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        let secret = || Some(Zeroizing::new(secret.to_vec()));
        TOLD.with_borrow_mut(|told| match label {
            "CLIENT_TRAFFIC_SECRET_0" => told.client = secret(),
            "SERVER_TRAFFIC_SECRET_0" => told.server = secret(),
            _ => {}
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, "CLIENT_TRAFFIC_SECRET_0" | "SERVER_TRAFFIC_SECRET_0")
    }
}

impl Secrets {
    /// Adds what the last call to rustls has told.
    pub(crate) fn take_told(&mut self) {
        let told = TOLD.take();
        if told.client.is_some() {
            self.client = told.client;
        }
        if told.server.is_some() {
            self.server = told.server;
        }
    }
}
