//! Starting other programs: standard input closed, the command line in the error.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies one level below the workspace")
        .to_path_buf()
}

/// Where cargo puts what it builds, also when `CARGO_TARGET_DIR` says another place.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => folder.into(),
        None => without_blanks(&root()).unwrap_or_else(|| root().join("target")),
    }
}

/// Another place than `target` for a workspace whose path has blanks in it: libbpf is built by make,
/// which knows none. `None`: it has none.
pub(crate) fn without_blanks(root: &Path) -> Option<PathBuf> {
    let has_blanks = |path: &Path| path.to_string_lossy().contains(char::is_whitespace);
    if !has_blanks(root) {
        return None;
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = cache
        .or_else(home)
        .filter(|cache| cache.is_absolute() && !has_blanks(cache));
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    let name = format!("hitless-target-{:016x}", hasher.finish());
    Some(cache.unwrap_or_else(|| "/var/tmp".into()).join(name))
}

/// A program in the workspace's folder, with standard input closed.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// The cargo that runs this xtask.
pub(crate) fn cargo() -> Command {
    let mut cargo = program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.env("CARGO_TARGET_DIR", target_dir());
    cargo
}

/// Whether a program is there, also where only administrators have it in their path.
pub(crate) fn is_installed(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder: PathBuf| folder.join(name).is_file())
}

/// The command line as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut line = String::new();
    let name = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    for word in std::iter::once(name).chain(command.get_args()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word.to_string_lossy());
    }
    line
}

/// Runs to the end; an exit status other than 0 is an error.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let line = shown(command);
    let status = command
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// Standard output of a program that has to succeed; its standard error is shown.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = shown(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{line}` printed no text"))
}

/// Whether the program can be started and ends well, silently.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    output(program("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_is_built_elsewhere() {
        assert_eq!(without_blanks(Path::new("/home/me/hitless")), None);
        let one = without_blanks(Path::new("/home/me/my code/hitless")).unwrap();
        let other = without_blanks(Path::new("/home/me/my code/other")).unwrap();
        assert!(one != other && one.is_absolute(), "{one:?} {other:?}");
        assert!(!one.to_string_lossy().contains(' '), "{one:?}");
    }
}
