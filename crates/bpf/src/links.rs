//! Links: which program the packets of an interface run through. Pinned, so that they outlive us,
//! and replaced whole.
//!
//! Interfaces are named by their index in the network namespace of the calling thread.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::libbpf_sys;

use crate::error::{Error, Result, checked};
use crate::object::{c_path, pin};

/// How an interface runs its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AttachMode {
    /// In the driver, before the kernel has made anything of the packet.
    Native,
    /// In the stack: works everywhere, but slower. Said, never hidden.
    Generic,
}

/// An interface with a program of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attached {
    pub ifindex: u32,
    pub mode: AttachMode,
}

/// The links of one kind in a role's folder: `links/KIND-IFINDEX`.
#[derive(Debug)]
pub(crate) struct Links {
    folder: PathBuf,
    kind: &'static str,
    program: OwnedFd,
}

impl Links {
    pub(crate) fn new(role: &Path, kind: &'static str, program: OwnedFd) -> Self {
        Self {
            folder: role.join("links"),
            kind,
            program,
        }
    }

    pub(crate) fn program(&self) -> &OwnedFd {
        &self.program
    }

    /// Attaches the program, or adopts a link that is there already with whatever program it has.
    pub(crate) fn attach(&self, ifindex: u32) -> Result<AttachMode> {
        let path = self.path(ifindex);
        if let Some(mode) = live_mode(&path, ifindex) {
            return Ok(mode);
        }
        // The link of an interface that is gone keeps its pin.
        remove_pin(&path)?;
        let (link, mode) = create(&self.program, ifindex)?;
        pin(&link, &path)?;
        Ok(mode)
    }

    /// Whether there was a link.
    pub(crate) fn detach(&self, ifindex: u32) -> Result<bool> {
        let path = self.path(ifindex);
        let is_there = path.exists();
        // The link may be held open by a process that is being replaced; without this it would live
        // on with it.
        if let Ok(link) = open(&path) {
            // SAFETY: a call with a descriptor that lives until it returns.
            unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
        }
        remove_pin(&path)?;
        Ok(is_there)
    }

    /// Interfaces that are there and have a link.
    pub(crate) fn attached(&self) -> Result<Vec<Attached>> {
        let mut attached = Vec::new();
        for (path, ifindex) in self.pinned()? {
            attached.extend(live_mode(&path, ifindex).map(|mode| Attached { ifindex, mode }));
        }
        attached.sort_by_key(|attached| attached.ifindex);
        Ok(attached)
    }

    /// Puts the program of this process behind every link: each packet runs through the old one or
    /// the new one.
    pub(crate) fn replace(&self) -> Result<()> {
        for (path, ifindex) in self.pinned()? {
            if live_index(&path) != Some(ifindex) {
                continue;
            }
            let error = |source| Error::Replace {
                path: path.clone(),
                source,
            };
            let link = open(&path).map_err(error)?;
            // SAFETY: both descriptors live until the call returns; no options are given.
            let result = unsafe {
                libbpf_sys::bpf_link_update(
                    link.as_raw_fd(),
                    self.program.as_raw_fd(),
                    std::ptr::null(),
                )
            };
            checked(result).map_err(error)?;
        }
        Ok(())
    }

    fn path(&self, ifindex: u32) -> PathBuf {
        self.folder.join(format!("{}-{ifindex}", self.kind))
    }

    fn pinned(&self) -> Result<Vec<(PathBuf, u32)>> {
        let error = |source| Error::Pin {
            path: self.folder.clone(),
            source,
        };
        let mut pinned = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(error)? {
            let path = entry.map_err(error)?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let number = name
                .strip_prefix(self.kind)
                .and_then(|rest| rest.strip_prefix('-'));
            if let Some(ifindex) = number.and_then(|number| number.parse().ok()) {
                pinned.push((path, ifindex));
            }
        }
        Ok(pinned)
    }
}

fn create(program: &OwnedFd, ifindex: u32) -> Result<(OwnedFd, AttachMode)> {
    let mut first_error = None;
    for (mode, flag) in [
        (AttachMode::Native, libbpf_sys::XDP_FLAGS_DRV_MODE),
        (AttachMode::Generic, libbpf_sys::XDP_FLAGS_SKB_MODE),
    ] {
        // SAFETY: a struct of integers and pointers, for which zero means "not given".
        let mut options: libbpf_sys::bpf_link_create_opts = unsafe { std::mem::zeroed() };
        options.sz = size_of_val(&options) as _;
        options.flags = flag;
        // SAFETY: descriptor and options live until the call returns.
        let result = unsafe {
            libbpf_sys::bpf_link_create(
                program.as_raw_fd(),
                ifindex as i32,
                libbpf_sys::BPF_XDP,
                &raw const options,
            )
        };
        match checked(result) {
            // SAFETY: the call has made this descriptor for us.
            Ok(fd) => return Ok((unsafe { OwnedFd::from_raw_fd(fd) }, mode)),
            // Whatever generic mode says, the driver's refusal is the one to tell.
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let source = first_error.expect("two modes were tried, so there is an error");
    Err(Error::Attach { ifindex, source })
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let name = c_path(path)?;
    // SAFETY: the string lives until the call returns.
    let fd = checked(unsafe { libbpf_sys::bpf_obj_get(name.as_ptr()) })?;
    // SAFETY: the call has made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The interface of the link pinned at `path`; `None` if there is no link, or its interface is
/// gone.
fn live_index(path: &Path) -> Option<u32> {
    let link = open(path).ok()?;
    // SAFETY: a struct of integers and unions of them.
    let mut info: libbpf_sys::bpf_link_info = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&info) as u32;
    // SAFETY: the kernel writes at most `size` bytes to the struct.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(link.as_raw_fd(), (&raw mut info).cast(), &raw mut size)
    };
    checked(result).ok()?;
    // SAFETY: for a link of this type the kernel has filled this member of the union.
    let ifindex = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    (info.type_ == libbpf_sys::BPF_LINK_TYPE_XDP && ifindex != 0).then_some(ifindex)
}

/// The mode of the link pinned at `path`, if it lives on `ifindex`.
fn live_mode(path: &Path, ifindex: u32) -> Option<AttachMode> {
    if live_index(path) != Some(ifindex) {
        return None;
    }
    // SAFETY: a struct of integers, for which zero means "not given".
    let mut options: libbpf_sys::bpf_xdp_query_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of_val(&options) as _;
    // SAFETY: the options live until the call returns.
    let result = unsafe { libbpf_sys::bpf_xdp_query(ifindex as i32, 0, &raw mut options) };
    checked(result).ok()?;
    match u32::from(options.attach_mode) {
        libbpf_sys::XDP_ATTACHED_NONE => None,
        libbpf_sys::XDP_ATTACHED_SKB => Some(AttachMode::Generic),
        _ => Some(AttachMode::Native),
    }
}

fn remove_pin(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::Pin {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}
