//! What a packet costs in director and ingress, beside a floor in the same run:
//! `cargo xtask bench director`.
//!
//! Each figure is the median of several test runs of many packets, less the price of the wrapper
//! that restores the packet in between (`src/c/bench.h`). Figures of one run compare; those of
//! different machines do not. `--programs` leaves out what is measured end to end.

mod end_to_end;
mod figure;
mod programs;
mod scene;
mod wrapped;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio, id};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::figure::{Document, Figure, median, print_table};
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
    let is_json = std::env::args().any(|argument| argument == "--json");
    match measure() {
        Ok(rows) => {
            let met = rows.iter().all(|row| row.met);
            let document = Document {
                group: "director",
                rows,
            };
            if is_json {
                println!(
                    "{}",
                    serde_json::to_string(&document).expect("figures are plain data")
                );
            } else {
                print_table(&document.rows);
            }
            if met {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

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

fn measure() -> Result<Vec<Figure>> {
    put_first(id());
    let pins = Pins::new()?;
    let director = filled_director(&pins.0)?;
    let _ingress = filled_ingress(&pins.0)?;
    let mut figures = Vec::new();
    let bench = Bench::load(
        include_bytes!(concat!(env!("OUT_DIR"), "/bench_director.bpf.o")),
        &pins.tables("director")?,
    )?;
    measure_director(&bench, &mut figures)?;
    let floors = [figures[0].peers["floor"], figures[3].peers["floor"]];
    let ingress_bench = Bench::load(
        include_bytes!(concat!(env!("OUT_DIR"), "/bench_ingress.bpf.o")),
        &pins.tables("ingress")?,
    )?;
    measure_ingress(&ingress_bench, floors, &mut figures)?;
    figures.push(measure_rows(&director)?);
    let mut barriers = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        director.barrier()?;
        barriers.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    figures.push(Figure::new("barrier behind rows", "ms", median(barriers)));
    if !std::env::args().any(|argument| argument == "--programs") {
        end_to_end::measure(&pins.0, &mut figures)?;
    }
    Ok(figures)
}
