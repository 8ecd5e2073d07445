//! A configuration on its way into a worker: validated, then, once the keeper has sent every
//! listening socket, given to event loops, monitors and the admin server together.

use core::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hitless_carry::memory;
use hitless_core::health::{Admin, Health};
use hitless_types::site::{Site, bounds};
use zeroize::Zeroizing;

use super::event_loop::Command;
use super::{Listening, Worker, WorkerError, removed};
use crate::admin::AdminServer;
use crate::link::{Role, ToKeeper};
use crate::monitor::Monitors;
use crate::status::{Traffic, VirtualServerStatus};
use crate::tls::files::encode_names;
use crate::tls::{self, Files, Loaded};

/// Removed virtual servers that are remembered by name: as many as a file may have is plenty.
const EARLIER_MAX: usize = 256;
/// All files that a site names: thousands of certificates, and a few lists of authorities.
const FILES_BYTES_MAX: u64 = 256 << 20;

fn time_of_day_s() -> u64 {
    rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse).tv_sec as u64
}

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
                if site.files().next().is_none() {
                    return self.accept(site, Loaded::default());
                }
                let names = encode_names(site.files().map(|file| file.path.as_str()));
                self.awaiting_files = Some((site, bytes));
                match memory::from_bytes("hitless-names", &names) {
                    Ok(file) => self.tell_with(&ToKeeper::FilesPlease, Some(&file)),
                    Err(error) => self.refuse(format!("memory file: {error}\n")),
                }
            }
            Err(problems) => self.refuse(format!("{problems}\n")),
        }
    }

    /// The files that the site names.
    pub(super) fn on_files(&mut self, fds: &[OwnedFd]) -> Result<(), WorkerError> {
        let Some((site, bytes)) = self.awaiting_files.take() else {
            return Ok(());
        };
        let read = fds.first().map(|fd| memory::to_bytes(fd, FILES_BYTES_MAX));
        let read = read.and_then(Result::ok).map(Zeroizing::new);
        let Some(Ok(files)) = read.map(|bytes| Files::decode(&bytes)) else {
            return self.refuse("the site's certificates did not arrive\n".to_owned());
        };
        let now_s = time_of_day_s();
        let file = self.hello.file_name.clone();
        match tls::load(&site, &files, self.vault.as_ref(), now_s, (&file, &bytes)) {
            Ok((loaded, warnings)) => {
                for warning in warnings.iter().flat_map(|some| &some.problems) {
                    let (line, field, found) = (warning.line, &warning.field, &warning.found);
                    let found = found.as_deref().unwrap_or_default();
                    tracing::warn!("{file}:{line}: {field}: {}: {found}", warning.message);
                }
                self.accept(site, loaded)
            }
            Err(problems) => self.refuse(format!("{problems}\n")),
        }
    }

    fn accept(&mut self, site: Site, tls: Loaded) -> Result<(), WorkerError> {
        let servers = site.virtual_servers.iter();
        let addresses = servers.map(|server| server.listen).collect();
        let single = site.admin.iter().map(|admin| admin.listen).collect();
        self.candidate = Some((Arc::new(site), Arc::new(tls)));
        self.tell(&ToKeeper::Accept { addresses, single })
    }

    fn refuse(&mut self, text: String) -> Result<(), WorkerError> {
        self.candidate = None;
        self.tell(&ToKeeper::Refuse { text })
    }

    /// The addresses are there: every event loop gets the configuration and its own sockets.
    pub(super) fn on_apply(&mut self) {
        let Some((site, tls)) = self.candidate.take() else {
            return;
        };
        self.board.keep_only(&site);
        for pool in &site.pools {
            let side = tls.pools.get(pool.name.as_str());
            for member in &pool.members {
                let state = self.board.member(pool.name.as_str(), member.address);
                state.set_tls(side.cloned());
            }
        }
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
                tls: Arc::clone(&tls),
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

    /// Virtual servers and members that the next configuration does not have: their connections may
    /// live on.
    fn remember_removed(&mut self, next: &Site) {
        let Some(site) = &self.site else { return };
        removed::remember(&mut self.removed_members, site, next);
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
