//! `cargo xtask kernel`: every BPF program loaded on Debian 12's own kernel, booted under QEMU.
//!
//! The kernel's package is downloaded and unpacked below the target folder, never installed. The
//! initramfs holds three things: this very program as init, the verifying binary of the `bpf`
//! crate, and the shared libraries of both. Nothing here needs root or KVM.
//!
//! ```text
//! package -> bzImage --+
//! initramfs -----------+-> QEMU (TCG) -> init -> hitless-bpf-verify -> exit code on the console
//! ```
//!
//! A kernel that panics, a verifier that hangs and a QEMU that dies all end in an error with the
//! console's last lines; a machine without QEMU or without the package's source skips, with a
//! reason.

mod archive;
pub(crate) mod init;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::dispatch;
use crate::run::{self, cargo, check, program, target_dir};
use archive::Archive;

/// The package that always names Debian's newest kernel for clouds.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
const VERIFY: &str = "hitless-bpf-verify";
/// A boot takes 3 s and the verifier some more; under load on two cores ten times that.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// Console lines shown when it went wrong.
const LINES_SHOWN: usize = 60;

/// How the test ended, if nothing failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Skipped(String),
}

/// `cargo xtask kernel [PROGRAM]`
pub(crate) fn command(args: &[String]) -> Result<()> {
    match args {
        [] => {
            if let Outcome::Skipped(reason) = verify()? {
                eprintln!("kernel: skipped: {reason}");
            }
            Ok(())
        }
        [program] => run_on_kernel(&unpacked_kernel()?, Path::new(program)),
        _ => bail!("kernel takes at most one argument, a program to run in place of {VERIFY}"),
    }
}

/// Boots the kernel and lets it load every program.
pub(crate) fn verify() -> Result<Outcome> {
    if !dispatch::has_binary("hitless-bpf", VERIFY)? {
        return Ok(Outcome::Skipped(format!("{VERIFY} is not there yet")));
    }
    if !run::works(program("qemu-system-x86_64").arg("--version")) {
        return Ok(Outcome::Skipped(
            "qemu-system-x86_64 is missing (package qemu-system-x86)".into(),
        ));
    }
    check(cargo().args([
        "build",
        "--quiet",
        "--package",
        "hitless-bpf",
        "--bin",
        VERIFY,
    ]))?;
    let kernel = match unpacked_kernel() {
        Ok(kernel) => kernel,
        // Continuous integration has to have it; a developer on a train need not.
        Err(error) if std::env::var_os("CI").is_none() => {
            return Ok(Outcome::Skipped(format!("no kernel to boot: {error:#}")));
        }
        Err(error) => return Err(error),
    };
    run_on_kernel(&kernel, &target_dir().join("debug").join(VERIFY))?;
    Ok(Outcome::Passed)
}

fn run_on_kernel(kernel: &Path, verifier: &Path) -> Result<()> {
    let initramfs = kernel.with_file_name("initramfs");
    // The build may have replaced this program's file while it runs; the running one is still
    // there.
    let init = kernel.with_file_name("init");
    let this = fs::read("/proc/self/exe").context("cannot read this program")?;
    fs::write(&init, this).context("cannot write the init program")?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    fs::write(&initramfs, build_initramfs(&init, verifier)?)
        .context("cannot write the initramfs")?;
    let start = Instant::now();
    let (code, console) = boot(kernel, &initramfs)?;
    let took = start.elapsed().as_secs_f64();
    let lines: Vec<&str> = console.lines().collect();
    let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
    let name = verifier.file_name().unwrap_or_default().to_string_lossy();
    eprintln!("{shown}");
    match code {
        Some(0) => {}
        Some(code) => bail!("{name} ended with {code} on Debian's kernel"),
        None => bail!("Debian's kernel stopped before {name} ended"),
    }
    let kernel = kernel.file_name().unwrap_or_default().to_string_lossy();
    eprintln!("kernel: {name} passed on {kernel} in {took:.1} s");
    Ok(())
}

/// The bzImage of the newest cloud kernel: from an earlier run, or downloaded and unpacked.
fn unpacked_kernel() -> Result<PathBuf> {
    let folder = target_dir().join("debian-kernel");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut package = newest_kernel();
    if package.is_none() && run::is_root() {
        // A machine whose lists were never fetched or were cleared knows no package.
        check(program("apt-get").args(["-q", "-q", "update"]))?;
        package = newest_kernel();
    }
    let package =
        package.with_context(|| format!("no package {META_PACKAGE}: run apt-get update"))?;
    let release = package.trim_start_matches("linux-image-");
    let image = folder.join(format!("vmlinuz-{release}"));
    if image.exists() {
        return Ok(image);
    }
    eprintln!("kernel: downloading {package}");
    check(
        program("apt-get")
            .args(["-q", "-q", "download", &package])
            .current_dir(&folder),
    )?;
    let archive = downloaded(&folder, &package)?;
    let unpacked = folder.join("unpacked");
    check(program("dpkg").arg("-x").arg(&archive).arg(&unpacked))?;
    // The name says that it is whole, so it comes last.
    fs::rename(
        unpacked
            .join("boot")
            .join(image.file_name().expect("the image has a name")),
        &image,
    )
    .context("the package holds no kernel")?;
    fs::remove_dir_all(&unpacked).context("cannot remove the unpacked package")?;
    fs::remove_file(&archive).context("cannot remove the package")?;
    Ok(image)
}

/// The package that the meta package stands for, as apt knows it.
fn newest_kernel() -> Option<String> {
    let depends = run::output(program("apt-cache").args(["depends", META_PACKAGE])).ok()?;
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))?;
    Some(package.to_owned())
}

fn downloaded(folder: &Path, package: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(package) && name.ends_with(".deb") {
            found.push(path);
        }
    }
    found
        .pop()
        .with_context(|| format!("apt-get left no {package} in {}", folder.display()))
}

fn build_initramfs(init: &Path, verifier: &Path) -> Result<Vec<u8>> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "tmp"] {
        archive.folder(folder);
    }
    archive.program("init", &read(init)?);
    archive.program("verify", &read(verifier)?);
    let mut libraries = shared_libraries(init)?;
    libraries.extend(shared_libraries(verifier)?);
    for library in libraries {
        let path = library
            .strip_prefix("/")
            .context("a library without a full path")?;
        archive.program(&path.to_string_lossy(), &read(&library)?);
    }
    Ok(archive.finish())
}

/// The loader and the libraries that a program is started with, as `ldd` names them.
fn shared_libraries(of: &Path) -> Result<BTreeSet<PathBuf>> {
    let listed = run::output(program("ldd").arg(of))?;
    let paths = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// Boots, and returns the verifier's exit code, if it came that far, and the console.
fn boot(kernel: &Path, initramfs: &Path) -> Result<(Option<i32>, String)> {
    let mut qemu = program("qemu-system-x86_64");
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-M",
        "q35",
        "-m",
        "512",
    ]);
    // One thread is enough for one processor; Westmere has what the kernel's crypto self-tests like
    // and nothing that TCG emulates slowly.
    qemu.args([
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "Westmere",
        "-smp",
        "1",
        "-no-reboot",
    ]);
    qemu.arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs);
    qemu.args([
        "-append",
        "console=ttyS0 quiet panic=-1 reboot=t tsc=unstable mitigations=off",
    ]);
    qemu.args(["-serial", "stdio", "-monitor", "none"]);
    let console = console_until_exit(&mut qemu, BOOT_DEADLINE)?;
    let code = console.lines().find_map(|line| {
        let (_, code) = line.split_once(init::EXIT_MARK)?;
        code.trim().parse().ok()
    });
    Ok((code, console))
}

/// Standard output of a program that ends by itself, or is ended at the deadline.
fn console_until_exit(command: &mut Command, deadline: Duration) -> Result<String> {
    let line = run::shown(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let mut stdout = child.stdout.take().expect("standard output is a pipe");
    let (ended, wait) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.read_to_end(&mut text);
        // Nobody waits any more after the deadline.
        let _ = ended.send(());
        read.map(|_| text)
    });
    let is_late = wait.recv_timeout(deadline).is_err();
    if is_late {
        child.kill().context("cannot end QEMU")?;
    }
    let status = child.wait().context("cannot wait for QEMU")?;
    let text = reader
        .join()
        .expect("the reader does not panic")
        .context("cannot read the console")?;
    let mut text = String::from_utf8_lossy(&text).replace('\r', "");
    if is_late {
        text += &format!("\nended after {} s", deadline.as_secs());
    } else if !status.success() {
        text += &format!("\nQEMU ended with {status}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_that_goes_on_is_ended_at_the_deadline() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo begun; exec sleep 60"]);
        let text = console_until_exit(&mut command, Duration::from_millis(500)).unwrap();
        assert!(
            text.starts_with("begun\n") && text.ends_with("ended after 0 s"),
            "{text}"
        );
    }

    #[test]
    fn a_program_s_libraries_are_found() {
        let found = shared_libraries(&std::env::current_exe().unwrap()).unwrap();
        assert!(
            found
                .iter()
                .any(|path| path.to_string_lossy().contains("libc.so")),
            "{found:?}"
        );
    }
}
