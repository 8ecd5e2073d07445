//! Compiles the C sources and makes the Rust side of `abi.h` from it.

use std::fmt::Write as _;
use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use libbpf_cargo::SkeletonBuilder;

const OBJECTS: [&str; 4] = ["director", "ingress", "bench_director", "bench_ingress"];

fn main() {
    let sources = Path::new("src/c");
    println!("cargo::rerun-if-changed=src/c");
    let missing = missing_packages();
    if !missing.is_empty() {
        // No panic: where in this file it stopped is of no use to who has to install something.
        eprintln!(
            "error: the BPF programs cannot be compiled: missing Debian packages: {0}\n\
             run `cargo xtask setup`, or\n  \
             sudo apt-get update && sudo apt-get install --no-install-recommends {0}",
            missing.join(" ")
        );
        std::process::exit(1);
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target's parts");
    let headers = format!("-idirafter/usr/include/{arch}-linux-gnu");
    for name in OBJECTS {
        SkeletonBuilder::new()
            .source(sources.join(format!("{name}.bpf.c")))
            .obj(out.join(format!("{name}.bpf.o")))
            // All in one call: a second would replace the first.
            .clang_args([
                "-O2",
                "-g",
                "-mcpu=v3",
                "-Wall",
                "-Werror",
                "-Wno-unused-function",
                headers.as_str(),
            ])
            .build_and_generate(out.join(format!("{name}.skel.rs")))
            .unwrap_or_else(|error| panic!("{name}.bpf.c does not compile: {error:#}"));
    }
    fs::write(out.join("abi.rs"), abi_in_rust(sources)).expect("OUT_DIR is writable");
}

/// The packages of what this script itself uses; those of libbpf's build are its own matter.
fn missing_packages() -> Vec<&'static str> {
    let has_clang = Command::new("clang").arg("--version").output().is_ok();
    [
        (has_clang, "clang"),
        (
            Path::new("/usr/include/linux/bpf.h").exists(),
            "linux-libc-dev",
        ),
    ]
    .into_iter()
    .filter_map(|(is_there, package)| (!is_there).then_some(package))
    .collect()
}

/// Constants and counter names of `abi.h`, and a digest of each program's tables.
fn abi_in_rust(sources: &Path) -> String {
    let read = |name: &str| {
        fs::read_to_string(sources.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let abi = without_comments(&read("abi.h"));
    let mut rust = String::new();
    let mut lines = abi.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(rest) = line.strip_prefix("#define HL_") else {
            continue;
        };
        let mut words = rest.split_whitespace();
        let (Some(name), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        if let Some(list) = name.strip_suffix("_COUNTERS(X)") {
            let mut names = Vec::new();
            for line in lines.by_ref() {
                let line = line.trim();
                let name = line
                    .strip_prefix("X(")
                    .and_then(|rest| rest.split(')').next());
                names.extend(name.map(str::to_owned));
                if !line.ends_with('\\') {
                    break;
                }
            }
            writeln!(
                rust,
                "pub(crate) const {list}_COUNTERS: &[&str] = &{names:?};"
            )
            .expect("a string takes all");
        } else if value.starts_with(|c: char| c.is_ascii_digit()) {
            writeln!(
                rust,
                "#[allow(dead_code)]\npub(crate) const {name}: u64 = {value};"
            )
            .expect("a string takes all");
        }
    }
    for (name, maps) in [
        ("DIRECTOR", "maps_director.h"),
        ("INGRESS", "maps_ingress.h"),
    ] {
        // Tables hold states of the hash, so a change of it is a change of their layout.
        let others = [maps, "sip.h"].map(|name| without_comments(&read(name)));
        let digest = digest(&[&abi, &others[0], &others[1]]);
        writeln!(
            rust,
            "pub(crate) const {name}_LAYOUT: &str = \"{digest:016x}\";"
        )
        .expect("a string takes all");
    }
    rust
}

/// C source without comments and with single blanks, so that wording does not change a layout's
/// digest.
fn without_comments(source: &str) -> String {
    let mut plain = String::new();
    let mut rest = source;
    while let Some((before, behind)) = rest.split_once("/*") {
        plain.push_str(before);
        rest = behind.split_once("*/").map_or("", |(_, rest)| rest);
    }
    plain.push_str(rest);
    plain
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

/// FNV-1a: stable over compilers, which `DefaultHasher` is not; collisions by accident are all that
/// matters.
fn digest(parts: &[&str]) -> u64 {
    struct Fnv(u64);
    impl std::hash::Hasher for Fnv {
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    for part in parts {
        hasher.write(part.as_bytes());
    }
    hasher.finish()
}
