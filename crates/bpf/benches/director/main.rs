//! What a packet costs in director and ingress, beside a floor in the same run:
//! `cargo xtask bench director`.
//!
//! Each figure is the median of several test runs of many packets, less the price of the wrapper
//! that restores the packet in between (`src/c/bench.h`). Figures of one run compare; those of
//! different machines do not. The parts: `programs`, `end-to-end`; without a part both.

mod end_to_end;
mod programs;
mod scene;
mod wrapped;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio, id};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use hitless_bpf::Director;
use hitless_harness::figures::{Arguments, Document, Figure, median};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::programs::{measure_director, measure_ingress, measure_rows};
use crate::scene::{filled_director, filled_ingress};
use crate::wrapped::{Bench, ROUNDS};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == end_to_end::ECHO)
    {
        return match end_to_end::serve(&arguments[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::from(2)
            }
        };
    }
    let arguments = match Arguments::read(&[PROGRAMS, END_TO_END]) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    match measure(&arguments) {
        Ok(rows) => Document::new("director", rows).print(&arguments),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Director and ingress alone.
const PROGRAMS: &str = "programs";
/// A guest's CPU with and without our ingress.
const END_TO_END: &str = "end-to-end";

/// A bpf file system in a private folder.
struct Pins(PathBuf);

impl Pins {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("hitless-bpf-bench-{}", id()));
        fs::create_dir(&folder)?;
        let pins = Self(folder);
        mount("bpf", &pins.0, "bpf", MountFlags::empty(), None)
            .context("cannot mount a bpf file system: this benchmark needs root")?;
        Ok(pins)
    }

    fn tables(&self, role: &str) -> Result<PathBuf> {
        tables_in(&self.0, role)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

/// The folder of a role's tables.
fn tables_in(pins: &Path, role: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(pins.join(role))? {
        let path = entry?.path();
        if path.join("rows").exists() {
            return Ok(path);
        }
    }
    bail!("no tables of {role}")
}

/// Puts a thread before all others of its core, so that what else the machine does neither stops it
/// in a measurement nor empties its caches. Said if it cannot be.
fn put_first(thread: u32) {
    let status = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread.to_string()])
        .stdin(Stdio::null())
        .status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("other work may disturb thread {thread}: chrt could not put it first");
    }
}

fn measure(arguments: &Arguments) -> Result<Vec<Figure>> {
    put_first(id());
    let pins = Pins::new()?;
    let director = filled_director(&pins.0)?;
    let _ingress = filled_ingress(&pins.0)?;
    let mut figures = Vec::new();
    if arguments.wants(PROGRAMS) {
        measure_programs(&pins, &director, &mut figures)?;
    }
    if arguments.wants(END_TO_END) {
        end_to_end::measure(&pins.0, &mut figures)?;
    }
    Ok(figures)
}

fn measure_programs(pins: &Pins, director: &Director, figures: &mut Vec<Figure>) -> Result<()> {
    let bench = Bench::load(
        include_bytes!(concat!(env!("OUT_DIR"), "/bench_director.bpf.o")),
        &pins.tables("director")?,
    )?;
    let floors = measure_director(&bench, figures)?;
    let ingress_bench = Bench::load(
        include_bytes!(concat!(env!("OUT_DIR"), "/bench_ingress.bpf.o")),
        &pins.tables("ingress")?,
    )?;
    measure_ingress(&ingress_bench, floors, figures)?;
    figures.push(measure_rows(director)?);
    let mut barriers = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        director.barrier()?;
        barriers.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    figures.push(Figure::new("barrier behind rows", "ms", median(barriers)));
    Ok(())
}
