//! What the other commands need of the machine: Debian packages and cargo tools, each with its
//! reason.
//!
//! As root, what is missing is installed. What cannot be, and without root all of it, is named, with
//! the command that would install it and what does not work without it. No package's service is left running: a cluster of
//! ours starts its own servers, in namespaces of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Error, Result, bail};

use crate::run::{self, cargo, check, program};

/// What does not work without a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The workspace does not build.
    Build,
    /// A part of the tests, the lab or a figure is left out.
    Part(&'static str),
}

/// A Debian package that something here uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) need: Need,
}

const fn build(name: &'static str, reason: &'static str) -> Package {
    Package {
        name,
        reason,
        need: Need::Build,
    }
}

const fn part(name: &'static str, reason: &'static str, without: &'static str) -> Package {
    Package {
        name,
        reason,
        need: Need::Part(without),
    }
}

/// Every package, with its reason.
pub(crate) const PACKAGES: &[Package] = &[
    build("clang", "compiles the BPF programs"),
    build("llvm", "llvm-strip takes debug sections out of BPF objects"),
    build("gcc", "compiles libbpf and links"),
    build("make", "builds libbpf"),
    build("libc6-dev", "C headers for libbpf and for the BPF programs"),
    build(
        "linux-libc-dev",
        "kernel headers that the BPF programs include",
    ),
    build("pkg-config", "finds libelf and zlib"),
    build("libelf-dev", "libbpf reads ELF"),
    build("zlib1g-dev", "libelf reads compressed sections"),
    part(
        "iproute2",
        "lab and tests look at links with ip and ss",
        "lab, demo, tests as root",
    ),
    part(
        "nginx-light",
        "a real server as pool member",
        "lab and demo, tests with nginx",
    ),
    part(
        "curl",
        "what README shows is run as it stands there; a client of ours in TLS",
        "the test of README, tests of TLS",
    ),
    part(
        "openssl",
        "a client of ours in TLS that is not rustls",
        "tests of TLS",
    ),
    part(
        "nghttp2-client",
        "another client of HTTP/2, and one that measures",
        "tests with nghttp and h2load",
    ),
    part(
        "qemu-system-x86",
        "boots Debian's own kernel",
        "the test on Debian's kernel",
    ),
];

/// What the lab does not work without.
pub(crate) const OF_LAB: &[&str] = &["iproute2", "nginx-light"];

/// What needs root, whatever is installed.
const WITHOUT_ROOT: &str = "\
without root are left out: lab, demo, the figures of `bench director`, and the tests that need
  namespaces or BPF; run cargo with `sudo -E` for these
";

/// The version of cargo-deny that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// What is missing after `setup`.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) missing: Vec<Package>,
    pub(crate) is_root: bool,
}

impl Report {
    /// Whether the workspace can be built.
    pub(crate) fn can_build(&self) -> bool {
        self.missing
            .iter()
            .all(|package| package.need != Need::Build)
    }

    /// Whether one of these packages is missing.
    pub(crate) fn lacks(&self, packages: &[&str]) -> bool {
        self.missing
            .iter()
            .any(|package| packages.contains(&package.name))
    }

    /// What is missing, how to get it, and what still works. Empty if nothing is missing, root
    /// included.
    pub(crate) fn shown(&self) -> String {
        let without_root = if self.is_root { "" } else { WITHOUT_ROOT };
        if self.missing.is_empty() {
            return without_root.to_owned();
        }
        let mut text = String::from("missing Debian packages:\n");
        for package in &self.missing {
            let without = match package.need {
                Need::Build => "nothing builds",
                Need::Part(what) => what,
            };
            text += &format!(
                "  {:<18} {}; left out without it: {without}\n",
                package.name, package.reason
            );
        }
        let names: Vec<&str> = self.missing.iter().map(|package| package.name).collect();
        text += "install them with:\n  sudo apt-get update && sudo apt-get install --no-install-recommends ";
        text += &names.join(" ");
        text.push('\n');
        text += if self.can_build() {
            "what still works: the build, `hitless serve`, and every test but those named above\n"
        } else {
            "what still works: nothing until the packages of the build are there\n"
        };
        if self.can_build() {
            text += without_root;
        }
        text
    }
}

/// `cargo xtask setup`
pub(crate) fn command(args: &[String]) -> Result<()> {
    if let Some(arg) = args.first() {
        bail!("setup takes no argument, found {arg:?}");
    }
    let report = ensure();
    cargo_tools()?;
    if !report.missing.is_empty() {
        bail!("packages are missing, see above");
    }
    eprintln!("setup: every package and tool is there");
    Ok(())
}

/// Installs the packages that are missing where that is possible, and shows and reports what is
/// missing still.
pub(crate) fn ensure() -> Report {
    if std::env::var_os("CARGO_TARGET_DIR").is_none()
        && let Some(folder) = run::without_blanks(&run::root())
    {
        let folder = folder.display();
        eprintln!(
            "setup: building in {folder}, since make, which builds libbpf, knows no blanks in paths"
        );
    }
    let is_root = run::is_root();
    let mut missing = missing(&PackageState::read());
    let can_install = is_root && run::works(program("apt-get").arg("--version"));
    if !missing.is_empty() && can_install {
        for failure in install_here(&missing) {
            eprintln!("setup: {failure:#}");
        }
        missing = self::missing(&PackageState::read());
    }
    let report = Report { missing, is_root };
    eprint!("{}", report.shown());
    report
}

/// Installs the cargo tools that the tests need and that are missing.
pub(crate) fn cargo_tools() -> Result<()> {
    if run::works(cargo().args(["deny", "--version"])) {
        return Ok(());
    }
    eprintln!("setup: installing cargo-deny {CARGO_DENY}, which takes a minute or two once");
    let version = CARGO_DENY;
    // Without optimisation it is built three times as fast, and is fast enough. What it is built
    // in goes, so it does not stand beside ours.
    let mut install = cargo();
    install.env_remove("CARGO_TARGET_DIR");
    check(install.args([
        "install",
        "--quiet",
        "--debug",
        "--locked",
        "cargo-deny",
        "--version",
        version,
    ]))
}

/// Which packages dpkg has installed.
struct PackageState(Vec<String>);

impl PackageState {
    fn read() -> Self {
        let mut query = program("dpkg-query");
        query.args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"]);
        let listed = run::output(&mut query).unwrap_or_default();
        Self(
            listed
                .lines()
                .filter_map(|line| line.strip_prefix("installed "))
                .map(str::to_owned)
                .collect(),
        )
    }
}

fn missing(state: &PackageState) -> Vec<Package> {
    PACKAGES
        .iter()
        .filter(|package| !state.0.iter().any(|name| name == package.name))
        .copied()
        .collect()
}

/// Installs all that can be installed. Returns what went wrong.
fn install(packages: &[Package], apt_get: &mut dyn FnMut(&[&str]) -> Result<()>) -> Vec<Error> {
    const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    eprintln!("setup: installing {}", names.join(" "));
    let mut failures = Vec::new();
    // Which packages exist is the mirror's word of today, so the lists are fetched first. Without
    // network those of before may do.
    failures.extend(apt_get(&["update"]).err());
    if let Err(error) = apt_get(&[&INSTALL, &names[..]].concat()) {
        failures.push(error);
        // One that cannot be had keeps none of the others away.
        for name in names.iter().filter(|_| names.len() > 1) {
            failures.extend(apt_get(&[&INSTALL, &[*name][..]].concat()).err());
        }
    }
    failures
}

/// The same on this machine.
fn install_here(packages: &[Package]) -> Vec<Error> {
    let _no_services = match NoServices::start() {
        Ok(guard) => guard,
        // Better no package than a server that runs.
        Err(error) => return vec![error],
    };
    let mut failures = install(packages, &mut apt_get);
    let has_nginx = packages.iter().any(|package| package.name == "nginx-light");
    if has_nginx && Path::new("/run/systemd/system").exists() {
        // The package enables its service for the next start of the machine, too.
        failures.extend(check(program("systemctl").args(["--quiet", "disable", "nginx"])).err());
    }
    failures
}

/// Its progress is nobody's interest; what goes wrong comes on standard error.
fn apt_get(args: &[&str]) -> Result<()> {
    let mut apt = program("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    check(apt.args(["-q", "-q"]).args(args).stdout(Stdio::null()))
}

/// While it lives, packages that are installed start no service.
struct NoServices {
    made: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn start() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { made: false });
        }
        // 101 is the answer "forbidden by policy" of invoke-rc.d.
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("cannot write {POLICY}"))?;
        let guard = Self { made: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.made
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("setup: cannot remove {POLICY}: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
