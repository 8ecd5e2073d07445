//! What the tests of this crate share: a bpf file system of their own.

#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Whether this process may load programs. Says why not.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("skipped: needs root");
    }
    is_root
}

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
