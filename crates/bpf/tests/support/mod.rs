//! What the tests of this crate share: a bpf file system of their own.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod packet;
pub mod sockets;

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A bpf file system in a private folder, unmounted and removed at the end.
pub struct BpfFolder(PathBuf);

impl BpfFolder {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        mount("bpf", &folder, "bpf", MountFlags::empty(), None).unwrap();
        Self(folder)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for BpfFolder {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A name that no other test uses at this time.
pub fn unique(name: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("hlbpf-{}-{number}-{name}", std::process::id())
}

/// A network namespace that is deleted at the end.
pub struct OwnNamespace(pub hitless_net::Namespace);

impl OwnNamespace {
    pub fn new(name: &str) -> Self {
        Self(hitless_net::Namespace::create(&unique(name)).unwrap())
    }
}

impl Drop for OwnNamespace {
    fn drop(&mut self) {
        if let Some(name) = self.0.name() {
            let _ = hitless_net::Namespace::delete(name);
        }
    }
}

impl std::ops::Deref for OwnNamespace {
    type Target = hitless_net::Namespace;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
