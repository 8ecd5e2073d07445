//! A configuration on its way into a worker: validated, then, once the keeper has sent every
//! listening socket, given to event loops, monitors and the admin server together.

use core::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hitless_carry::memory;
use hitless_core::health::{Admin, Health};
use hitless_types::site::{Site, bounds};

use super::event_loop::Command;
use super::{Listening, Worker, WorkerError};
use crate::admin::AdminServer;
use crate::link::{Role, ToKeeper};
use crate::monitor::Monitors;
use crate::status::{Traffic, VirtualServerStatus};

/// Removed virtual servers that are remembered by name: as many as a file may have is plenty.
const EARLIER_MAX: usize = 256;

impl Worker {
    pub(super) fn on_config(&mut self, fds: &[OwnedFd]) -> Result<(), WorkerError> {
        let limit = bounds::FILE_BYTES_MAX as u64;
        let Some(Ok(bytes)) = fds.first().map(|fd| memory::to_bytes(fd, limit)) else {
            return self.tell(&ToKeeper::Refuse {
                text: "the file did not arrive\n".into(),
            });
        };
        self.sockets.clear();
        match Site::parse(&self.hello.file_name, &bytes) {
            Ok(site) => {
                let addresses = site
                    .virtual_servers
                    .iter()
                    .map(|server| server.listen)
                    .collect();
                let single = site.admin.iter().map(|admin| admin.listen).collect();
                self.candidate = Some(Arc::new(site));
                self.tell(&ToKeeper::Accept { addresses, single })
            }
            Err(problems) => {
                self.candidate = None;
                self.tell(&ToKeeper::Refuse {
                    text: format!("{problems}\n"),
                })
            }
        }
    }

    /// The addresses are there: every event loop gets the configuration and its own sockets.
    pub(super) fn on_apply(&mut self) {
        let Some(site) = self.candidate.take() else {
            return;
        };
        self.board.keep_only(&site);
        self.remember_removed(&site);
        self.bound = self
            .sockets
            .iter()
            .map(|one| (one.requested, one.bound))
            .collect();
        let mut per_lane: Vec<Vec<(SocketAddr, OwnedFd)>> =
            self.lanes.iter().map(|_| Vec::new()).collect();
        let admin = site.admin.as_ref().map(|admin| admin.listen);
        let at = self
            .sockets
            .iter()
            .position(|listening| Some(listening.requested) == admin);
        let admin_socket = at.map(|at| self.sockets.swap_remove(at));
        self.serve_admin(admin, admin_socket);
        for listening in self.sockets.drain(..) {
            for (lane, socket) in per_lane.iter_mut().zip(listening.sockets) {
                lane.push((listening.requested, socket));
            }
        }
        self.counts.applied = 0;
        for (lane, listeners) in self.lanes.iter().zip(per_lane) {
            lane.send(Command::Apply {
                site: Arc::clone(&site),
                listeners,
            });
        }
        self.site = Some(site);
        match (&self.monitors, &self.site) {
            (Some(monitors), Some(site)) => monitors.reload(site),
            _ if self.hello.role == Role::Successor => {}
            _ => self.start_monitors(),
        }
    }

    /// Virtual servers that the next configuration does not have: their connections may live on.
    fn remember_removed(&mut self, next: &Site) {
        let Some(site) = &self.site else { return };
        let is_gone = |name: &str| {
            !next
                .virtual_servers
                .iter()
                .any(|one| one.name.as_str() == name)
        };
        self.earlier.retain(|server| is_gone(&server.name));
        let old = site.virtual_servers.iter();
        for server in old.filter(|server| is_gone(server.name.as_str())) {
            let listen = self.bound.get(&server.listen).copied();
            self.earlier.push(VirtualServerStatus {
                name: server.name.to_string(),
                listen: listen.unwrap_or(server.listen),
                protocol: server.protocol.name().to_owned(),
                pool: site.pool_of(server).name.to_string(),
                admin: Admin::Drain,
                health: Health::Unknown,
                traffic: Traffic::default(),
            });
        }
        let count = self.earlier.len();
        self.earlier.drain(..count.saturating_sub(EARLIER_MAX));
    }

    fn serve_admin(&mut self, wanted: Option<SocketAddr>, socket: Option<Listening>) {
        if self.admin.as_ref().map(|(address, _)| *address) == wanted {
            return;
        }
        self.admin = None;
        let Some(socket) = socket.and_then(|mut listening| listening.sockets.pop()) else {
            return;
        };
        let scrapes = Arc::clone(&self.scrapes);
        match AdminServer::start(socket.into(), move || scrapes.scrape()) {
            Ok(server) => self.admin = wanted.map(|address| (address, server)),
            Err(error) => tracing::error!(%error, "metrics are not served"),
        }
    }

    /// Starts to probe members, unless that is done already.
    pub(super) fn start_monitors(&mut self) {
        let (None, Some(site)) = (&self.monitors, &self.site) else {
            return;
        };
        match Monitors::start(self.board.clone(), site) {
            Ok(monitors) => self.monitors = Some(monitors),
            Err(error) => tracing::error!(%error, "members are not probed: no monitors"),
        }
    }
}
