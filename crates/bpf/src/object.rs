//! Loading an object with its maps pinned, or adopting the maps that an earlier process pinned.
//!
//! A role's folder holds one folder per layout of its tables and `links`. Programs are loaded anew
//! by every process, against the pinned maps; what packets run through is the program behind the
//! pinned link, until it is replaced.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore as _, ObjectBuilder};
use rustix::fs::statfs;

use crate::error::{Error, Result, io_error};

/// What was found in the pin folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adoption {
    /// Nothing: the tables are new and empty.
    Fresh,
    /// Tables of this layout: they are in use as they were left.
    Adopted,
    /// Only tables of another layout. These here are new and empty: fill them, then call
    /// `replace_program`, which switches the links and removes the others.
    NewLayout,
}

/// A loaded object whose maps and programs are pinned.
#[derive(Debug)]
pub(crate) struct Pinned {
    maps: Vec<(String, OwnedFd)>,
    programs: Vec<(String, OwnedFd)>,
    /// The role's folder.
    pub(crate) role: PathBuf,
    /// The folder of this layout in it.
    pub(crate) folder: PathBuf,
    pub(crate) adoption: Adoption,
}

/// Identifies a bpf file system (`BPF_FS_MAGIC`).
const BPF_MAGIC: i64 = 0xcafe_4a11;

impl Pinned {
    /// Loads `bytes` with its maps in `pins/name/layout`.
    pub(crate) fn open(
        pins: &Path,
        name: &'static str,
        layout: &str,
        bytes: &[u8],
    ) -> Result<Self> {
        let pin_error = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Pin { path, source }
        };
        let magic = statfs(pins)
            .map_err(|error| pin_error(pins)(error.into()))?
            .f_type;
        if magic != BPF_MAGIC {
            let other = io::Error::other("another kind of file system");
            return Err(pin_error(pins)(other));
        }
        let role = pins.join(name);
        let folder = role.join(layout);
        let links = role.join("links");
        fs::create_dir_all(&links).map_err(pin_error(&links))?;
        let has_others = layouts(&role)
            .map_err(pin_error(&role))?
            .iter()
            .any(|f| *f != folder);
        fs::create_dir_all(&folder).map_err(pin_error(&folder))?;

        let load_error = |error| Error::Load {
            program: name,
            source: io_error(error),
        };
        // The library keeps pointers into the bytes while it loads, and wants them aligned as
        // allocated memory is.
        let bytes = bytes.to_vec();
        let mut open = ObjectBuilder::default()
            .open_memory(&bytes)
            .map_err(load_error)?;
        let mut is_adopted = true;
        for mut map in open.maps_mut() {
            let Some(path) = map
                .name()
                .to_str()
                .and_then(table)
                .map(|name| folder.join(name))
            else {
                continue;
            };
            is_adopted &= path.exists();
            map.set_pin_path(&path).map_err(load_error)?;
        }
        let object = open.load().map_err(load_error)?;
        let adoption = match (is_adopted, has_others) {
            (true, _) => Adoption::Adopted,
            (false, true) => Adoption::NewLayout,
            (false, false) => Adoption::Fresh,
        };
        // The library's object may not change threads; descriptors may, and are all that is needed.
        let fd_error = |source| Error::Load {
            program: name,
            source,
        };
        let mut pinned = Self {
            maps: Vec::new(),
            programs: Vec::new(),
            role,
            folder,
            adoption,
        };
        for map in object.maps() {
            let fd = map.as_fd().try_clone_to_owned().map_err(fd_error)?;
            let name = map.name().to_string_lossy().into_owned();
            let name = table(&name).unwrap_or(&name).to_owned();
            pinned.maps.push((name, fd));
        }
        for program in object.progs() {
            let fd = program.as_fd().try_clone_to_owned().map_err(fd_error)?;
            pinned
                .programs
                .push((program.name().to_string_lossy().into_owned(), fd));
        }
        Ok(pinned)
    }

    /// A descriptor of the map `name` of our own sources.
    pub(crate) fn map(&self, name: &'static str) -> Result<OwnedFd> {
        let fd = named(&self.maps, name).try_clone();
        fd.map_err(|source| Error::Table {
            table: name,
            what: "open",
            source,
        })
    }

    /// A descriptor of the program `name` of our own sources.
    pub(crate) fn program(&self, name: &'static str) -> Result<OwnedFd> {
        let fd = named(&self.programs, name).try_clone();
        fd.map_err(|source| Error::Load {
            program: name,
            source,
        })
    }

    /// Pins the programs of this process in place of those pinned before, so that tools find them
    /// by name.
    pub(crate) fn pin_programs(&self) -> Result<()> {
        for (name, program) in &self.programs {
            pin(program, &self.folder.join("programs").join(name))?;
        }
        Ok(())
    }

    /// Removes tables of other layouts.
    pub(crate) fn remove_other_layouts(&self) -> Result<()> {
        let error = |source| Error::Pin {
            path: self.role.clone(),
            source,
        };
        for folder in layouts(&self.role).map_err(error)? {
            if folder != self.folder {
                fs::remove_dir_all(&folder).map_err(error)?;
            }
        }
        Ok(())
    }
}

/// The table that the map `name` is: itself, or the variable of a section of its own. `None` for
/// other sections.
fn table(name: &str) -> Option<&str> {
    name.strip_prefix(".bss.")
        .or((!name.starts_with('.')).then_some(name))
}

fn named<'a>(fds: &'a [(String, OwnedFd)], name: &str) -> &'a OwnedFd {
    let found = fds.iter().find(|(other, _)| other == name);
    &found.expect("the object has what its source has").1
}

/// Pins a descriptor at `path`, replacing what was pinned there.
pub(crate) fn pin(fd: impl AsFd, path: &Path) -> Result<()> {
    use std::os::fd::AsRawFd;
    let error = |source| Error::Pin {
        path: path.to_owned(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(error)?;
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source)),
        _ => {}
    }
    let name = c_path(path).map_err(error)?;
    // SAFETY: the descriptor and the string live until the call returns.
    let result =
        unsafe { libbpf_rs::libbpf_sys::bpf_obj_pin(fd.as_fd().as_raw_fd(), name.as_ptr()) };
    crate::error::checked(result).map_err(error)?;
    Ok(())
}

/// A path as C wants it.
pub(crate) fn c_path(path: &Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::CString::new(path.as_os_str().as_bytes())?)
}

/// Folders of a role that hold tables.
fn layouts(role: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(role)? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "links") {
            folders.push(path);
        }
    }
    Ok(folders)
}
