//! Reading the site file: bytes only, bounded, and never waiting for anybody.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use hitless_types::site::bounds::FILE_BYTES_MAX;

/// The file's bytes, one more than [`FILE_BYTES_MAX`] at most, so that its reader sees that there
/// is too much.
///
/// # Errors
///
/// What the system says; also if `path` is not a regular file: a keeper that waits for the other
/// end of a FIFO would serve nobody.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}
