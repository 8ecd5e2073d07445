//! The bytes of the files that a site names.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hitless_types::site::Site;
use hitless_types::site::bounds::TLS_FILE_BYTES_MAX;
use zeroize::Zeroizing;

use crate::wire::{Malformed, Reader, Writer};

/// What was read, or why not, by the name in the site file. Keys are among it: it is wiped when it
/// is dropped.
#[derive(Default)]
pub struct Files(BTreeMap<String, Result<Zeroizing<Vec<u8>>, String>>);

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Files {
    /// Reads the files of a site; `site_file` is where it lies.
    pub fn of(site: &Site, site_file: &Path) -> Self {
        Self::read(site.files().map(|file| file.path.as_str()), site_file)
    }

    pub(crate) fn read<'a>(names: impl Iterator<Item = &'a str>, site_file: &Path) -> Self {
        let folder = site_file.parent().unwrap_or(Path::new(""));
        let mut files = BTreeMap::new();
        for name in names {
            let entry = files.entry(name.to_owned());
            entry.or_insert_with(|| {
                let read = read_one(&folder.join(name));
                read.map_err(|error| error.to_string())
            });
        }
        Self(files)
    }

    /// # Errors
    /// Why it could not be read.
    pub(crate) fn get(&self, name: &str) -> Result<&[u8], &str> {
        match self.0.get(name) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(error),
            None => Err("it was not asked for"),
        }
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let length = |read: &Result<Zeroizing<Vec<u8>>, String>| match read {
            Ok(bytes) => bytes.len(),
            Err(error) => error.len(),
        };
        let room = self
            .0
            .iter()
            .map(|(name, read)| name.len() + length(read) + 16);
        let mut w = Writer::new();
        // A vector that grows leaves copies of keys behind.
        w.bytes.reserve(4 + room.sum::<usize>());
        w.u32(self.0.len() as u32);
        for (name, read) in &self.0 {
            w.text(name).u8(read.is_ok().into());
            match read {
                Ok(bytes) => w.bytes(bytes),
                Err(error) => w.text(error),
            };
        }
        Zeroizing::new(w.bytes)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let mut files = BTreeMap::new();
        for _ in 0..r.u32()? {
            let name = r.text()?.to_owned();
            let read = match r.flag()? {
                true => Ok(Zeroizing::new(r.bytes()?.to_vec())),
                false => Err(r.text()?.to_owned()),
            };
            files.insert(name, read);
        }
        Ok(Self(files))
    }
}

fn read_one(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let about = file.metadata()?;
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    if !about.is_file() {
        return Err(wrong("not a regular file".to_owned()));
    }
    if about.len() > TLS_FILE_BYTES_MAX as u64 {
        return Err(wrong(format!("longer than {TLS_FILE_BYTES_MAX} bytes")));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(about.len() as usize + 1));
    file.take(TLS_FILE_BYTES_MAX as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Names of files, for a memory file.
pub(crate) fn encode_names<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let names: Vec<&str> = names.collect();
    let mut w = Writer::new();
    w.u32(names.len() as u32);
    for name in names {
        w.text(name);
    }
    w.bytes
}

pub(crate) fn decode_names(bytes: &[u8]) -> Result<Vec<&str>, Malformed> {
    let mut r = Reader::new(bytes);
    let count = r.u32()?;
    (0..count).map(|_| r.text()).collect()
}
