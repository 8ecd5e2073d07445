//! `hitless-bpf-bench`: what a packet costs in director and ingress, beside a floor in the same
//! run.
//!
//! Each figure is the median of several test runs of many packets, less the price of the wrapper
//! that restores the packet in between (`src/c/bench.h`). Figures of one run compare; those of
//! different machines do not. `--programs` leaves out what is measured end to end.

mod end_to_end;

use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio, id};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use hitless_bpf::{AddressKind, Director, Hop, Identity, Ingress, Vni};
use hitless_core::flow::{FlowKey, PROTOCOL_TCP, destination_state};
use hitless_core::row::{BUCKETS, Bucket, GuestSlot, Row, Sequence};
use libbpf_rs::{MapCore as _, MapFlags, Object, ObjectBuilder, libbpf_sys};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::Serialize;

const KEY: FlowKey = FlowKey(*b"hitless bench 16");
const VNI: u32 = 7;
const GUESTS: u16 = 16;
const FLOWS: [u32; 4] = [1, 1_024, 131_072, 1_048_576];
const ROUNDS: usize = 11;
const REPEAT: u32 = 300_000;
/// Packets before those that are timed: another program has had the caches in between.
const WARM_UP: u32 = 100_000;
const ACK: u8 = 0x10;
const SYN: u8 = 0x02;

#[derive(Serialize)]
struct Document {
    group: &'static str,
    rows: Vec<Figure>,
}

#[derive(Serialize)]
struct Figure {
    measure: String,
    unit: &'static str,
    ours: f64,
    peers: std::collections::BTreeMap<&'static str, f64>,
    goal: String,
    met: bool,
}

impl Figure {
    fn new(measure: impl Into<String>, unit: &'static str, ours: f64) -> Self {
        Self {
            measure: measure.into(),
            unit,
            ours: (ours * 10.0).round() / 10.0,
            peers: Default::default(),
            goal: String::new(),
            met: true,
        }
    }

    fn beside(mut self, peer: &'static str, value: f64) -> Self {
        self.peers.insert(peer, (value * 10.0).round() / 10.0);
        self
    }

    fn goal(mut self, goal: impl Into<String>, met: bool) -> Self {
        self.goal = goal.into();
        self.met = met;
        self
    }
}

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

fn print_table(rows: &[Figure]) {
    for row in rows {
        let peers: Vec<_> = row
            .peers
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        let met = match (row.goal.is_empty(), row.met) {
            (true, _) => "",
            (false, true) => "met",
            (false, false) => "MISSED",
        };
        println!(
            "{:<44} {:>8} {:<3} {:<32} {:<28} {met}",
            row.measure,
            row.ours,
            row.unit,
            peers.join(", "),
            row.goal
        );
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

fn measure_director(bench: &Bench, figures: &mut Vec<Figure>) -> Result<()> {
    let packet4 = packet4(ACK);
    let packet6 = packet6();
    let mut first = None;
    for flows in FLOWS {
        let [ours, floor] = bench.net(
            flows,
            ACK,
            &packet4,
            "bench_nothing",
            "bench_move_head",
            ["bench_director4", "bench_least"],
            [true, false],
        )?;
        let alone = *first.get_or_insert(ours);
        let is_flat = ours <= 1.25 * alone;
        let figure = Figure::new(format!("director, IPv4 ACK, {flows} flows"), "ns", ours)
            .beside("floor", floor);
        figures.push(if flows == FLOWS[3] {
            let is_low = ours <= 4.5 * floor;
            figure.goal("<= 4.5 x floor, <= 1.25 x one flow", is_low && is_flat)
        } else {
            figure.goal("<= 1.25 x one flow", is_flat)
        });
    }
    let flows = FLOWS[3];
    let [ack] = bench.net(
        flows,
        ACK,
        &packet4,
        "bench_nothing",
        "bench_move_head",
        ["bench_director4"],
        [true],
    )?;
    let [syn] = bench.net(
        flows,
        SYN,
        &packet4,
        "bench_nothing",
        "bench_move_head",
        ["bench_director4"],
        [true],
    )?;
    let figure = Figure::new(format!("director, IPv4 SYN, {flows} flows"), "ns", syn);
    figures.push(
        figure
            .beside("ACK", ack)
            .goal("<= 1.1 x an ACK", syn <= 1.1 * ack),
    );
    let [v6] = bench.net(
        flows,
        ACK,
        &packet6,
        "bench_nothing6",
        "bench_move_head",
        ["bench_director6"],
        [true],
    )?;
    figures.push(Figure::new(
        format!("director, IPv6 ACK, {flows} flows"),
        "ns",
        v6,
    ));
    Ok(())
}

/// `floors` are the floor's figures at the fewest and the most flows.
fn measure_ingress(bench: &Bench, floors: [f64; 2], figures: &mut Vec<Figure>) -> Result<()> {
    for (flows, floor) in [FLOWS[0], FLOWS[3]].into_iter().zip(floors) {
        let [ours] = bench.net(
            flows,
            ACK,
            &encapsulated(),
            "bench_nothing",
            "bench_cut_head",
            ["bench_ingress"],
            [true],
        )?;
        let figure = Figure::new(
            format!("ingress without look-up, {flows} flows"),
            "ns",
            ours,
        )
        .beside("floor", floor);
        figures.push(figure.goal("<= 3 x floor", ours <= 3.0 * floor));
    }
    Ok(())
}

/// All rows of a virtual cluster, against 1,000 system calls that do nothing.
fn measure_rows(director: &Director) -> Result<Figure> {
    let vni = Vni::new(VNI)?;
    let mut times = Vec::new();
    let mut calls = Vec::new();
    for round in 0..ROUNDS as u16 {
        let rows = rows(round + 2)?;
        let start = Instant::now();
        director.set_rows(vni, &rows)?;
        times.push(start.elapsed().as_nanos() as f64 / 1_000.0);
        let start = Instant::now();
        for _ in 0..1_000 {
            std::hint::black_box(rustix::process::getppid());
        }
        calls.push(start.elapsed().as_nanos() as f64 / 1_000.0);
    }
    let (ours, calls) = (median(times), median(calls));
    let figure = Figure::new("65,536 rows applied", "us", ours).beside("1,000 system calls", calls);
    Ok(figure.goal("< 1,000 empty system calls", ours < calls))
}

/// The wrapped programs, on the tables of a handle.
struct Bench {
    object: Object,
}

impl Bench {
    fn load(bytes: &[u8], tables: &Path) -> Result<Self> {
        let bytes = bytes.to_vec();
        let mut open = ObjectBuilder::default().open_memory(&bytes)?;
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy();
            let path = tables.join(name.strip_prefix(".bss.").unwrap_or(&name));
            if path.exists() {
                map.reuse_pinned_map(path)?;
            }
        }
        for mut program in open.progs_mut() {
            let is_ours = program.name().to_string_lossy().starts_with("bench_");
            program.set_autoload(is_ours);
        }
        Ok(Self {
            object: open.load()?,
        })
    }

    fn program(&self, name: &str) -> Result<OwnedFd> {
        let program = self.object.progs().find(|program| program.name() == name);
        let program = program.with_context(|| format!("no program {name}"))?;
        Ok(program.as_fd().try_clone_to_owned()?)
    }

    /// Median nanoseconds per packet of each of `programs`, less the wrapper's; `moves_head` says
    /// whether the wrapper had to move the packet's head back as well. All are measured in turn in
    /// each round.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call per kind of figure, each with all of them"
    )]
    fn net<const N: usize>(
        &self,
        flows: u32,
        tcp_flags: u8,
        packet: &[u8],
        nothing: &str,
        moves: &str,
        programs: [&str; N],
        moves_head: [bool; N],
    ) -> Result<[f64; N]> {
        self.set(flows, tcp_flags)?;
        let mut empty = Vec::new();
        let mut moved = Vec::new();
        let mut gross: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
        let small = if packet.len() == 74 {
            packet4(tcp_flags)
        } else {
            packet.to_vec()
        };
        for _ in 0..ROUNDS {
            empty.push(self.run(nothing, packet)?);
            moved.push(self.run(moves, &small)?);
            for (name, times) in programs.iter().zip(&mut gross) {
                times.push(self.run(name, packet)?);
            }
        }
        let empty = median(empty);
        // Of the two moves of a round trip, one is the wrapper's.
        let move_back = ((median(moved) - empty) / 2.0).max(0.0);
        let mut net = [0.0; N];
        for (position, times) in gross.into_iter().enumerate() {
            let wrapper = empty + if moves_head[position] { move_back } else { 0.0 };
            net[position] = median(times) - wrapper;
        }
        Ok(net)
    }

    fn run(&self, name: &str, packet: &[u8]) -> Result<f64> {
        let program = self.object.progs().find(|program| program.name() == name);
        let program = program.with_context(|| format!("no program {name}"))?;
        let mut output = vec![0; packet.len() + 256];
        // SAFETY: a struct of integers and pointers, for which zero means "not given".
        let mut options: libbpf_sys::bpf_test_run_opts = unsafe { std::mem::zeroed() };
        options.sz = size_of_val(&options) as _;
        options.data_in = packet.as_ptr().cast();
        options.data_size_in = packet.len() as u32;
        options.data_out = output.as_mut_ptr().cast();
        options.data_size_out = output.len() as u32;
        let mut start = 0;
        for repeat in [WARM_UP, REPEAT] {
            options.repeat = repeat as i32;
            start = cpu_time_ns();
            // SAFETY: all pointers are to memory of the lengths given, alive until the call
            // returns.
            let result = unsafe {
                libbpf_sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut options)
            };
            if result != 0 {
                bail!("{name}: {}", std::io::Error::from_raw_os_error(-result));
            }
        }
        if options.retval < 2 {
            bail!(
                "{name} does not pass its packet on: action {}",
                options.retval
            );
        }
        // The kernel's own figure is rounded to whole nanoseconds, too coarse for a floor of five.
        Ok((cpu_time_ns() - start) as f64 / f64::from(REPEAT))
    }

    /// Writes the harness's variables, which the library keeps in the map `.bss`.
    fn set(&self, flows: u32, tcp_flags: u8) -> Result<()> {
        let map = self
            .object
            .maps()
            .find(|map| map.name().to_string_lossy().ends_with(".bss"))
            .context("the object has variables")?;
        let btf = self
            .object
            .btf()?
            .context("the object has type information")?;
        let section = btf
            .type_by_name::<libbpf_rs::btf::types::DataSec<'_>>(".bss")
            .context("the object has variables")?;
        let key = 0u32.to_ne_bytes();
        let mut value = map
            .lookup(&key, MapFlags::ANY)?
            .context("variables have an entry")?;
        let vip4 = u64::from(u32::from_ne_bytes([192, 0, 2, 80])) << 32;
        let vip6: std::net::Ipv6Addr = "2001:db8:f::80".parse()?;
        let word = row(1, 0)?.word().to_be();
        let state = destination_state(KEY, IpAddr::from([192, 0, 2, 80]), PROTOCOL_TCP);
        let state = state.map(u64::to_ne_bytes);
        for variable in section.iter() {
            let name = btf
                .type_by_id::<libbpf_rs::btf::types::Var<'_>>(variable.ty)
                .and_then(|ty| ty.name().map(|name| name.to_string_lossy().into_owned()))
                .context("variables have names")?;
            let bytes: Vec<u8> = match name.as_str() {
                "flow_mask" => (flows - 1).to_ne_bytes().to_vec(),
                "tcp_flags" => vec![tcp_flags],
                "vip4_word" => vip4.to_ne_bytes().to_vec(),
                "vip6_words" => vip6.octets().to_vec(),
                "bench_state" => state.concat(),
                "bench_word" => word.to_ne_bytes().to_vec(),
                _ => vec![0; variable.size],
            };
            let at = variable.offset as usize;
            value[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        map.update(&key, &value, MapFlags::ANY)?;
        Ok(())
    }
}

/// What this thread has used: a machine that is shared does not show in it.
fn cpu_time_ns() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn slot(number: u16) -> GuestSlot {
    GuestSlot::new(number).expect("the benchmark's slots are in range")
}

/// A row at rest: owner and standby.
fn row(sequence: u16, bucket: usize) -> Result<Row> {
    let owner = (bucket as u16 % GUESTS) + 1;
    let standby = (owner % GUESTS) + 1;
    Row::new(&[slot(owner), slot(standby)], Sequence(sequence)).context("two guests are a row")
}

fn rows(sequence: u16) -> Result<Vec<(Bucket, Row)>> {
    (0..BUCKETS)
        .map(|bucket| Ok((Bucket(bucket as u16), row(sequence, bucket)?)))
        .collect()
}

/// Rows that name slot 1 alone.
fn all_to_one() -> Result<Vec<(Bucket, Row)>> {
    let row = Row::new(&[slot(1)], Sequence(1)).context("a guest is a row")?;
    Ok((0..BUCKETS)
        .map(|bucket| (Bucket(bucket as u16), row))
        .collect())
}

fn hop(number: u16) -> Result<Hop> {
    Ok(Hop {
        source: "10.0.0.100".parse()?,
        destination: format!("10.0.0.{number}").parse()?,
        mac: [2, 0, 0, 0, 1, number as u8],
        source_mac: [2, 0, 0, 0, 2, 1],
        ifindex: None,
        mtu: Some(1_500),
    })
}

fn filled_director(pins: &Path) -> Result<Director> {
    let director = Director::open(pins)?;
    let vni = Vni::new(VNI)?;
    director.set_cluster(vni, KEY, NonZeroU16::MIN)?;
    for vip in ["192.0.2.80", "2001:db8:f::80"] {
        director.set_address(vip.parse()?, vni, AddressKind::Vip)?;
    }
    for guest in 1..=GUESTS {
        director.set_guest(vni, slot(guest), &hop(guest)?)?;
    }
    director.set_rows(vni, &rows(1)?)?;
    Ok(director)
}

fn filled_ingress(pins: &Path) -> Result<Ingress> {
    let vni = Vni::new(VNI)?;
    let ingress = Ingress::open(
        pins,
        Identity {
            vni,
            key: KEY,
            slot: slot(1),
        },
    )?;
    ingress.set_address("192.0.2.80".parse()?, AddressKind::Vip)?;
    ingress.set_rows(&rows(1)?);
    Ok(ingress)
}

fn tcp(flags: u8) -> [u8; 20] {
    let mut tcp = [0; 20];
    tcp[12] = 5 << 4;
    tcp[13] = flags;
    tcp
}

fn ipv4(length: u16, protocol: u8) -> [u8; 20] {
    let mut ip = [0; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[8] = 60;
    ip[9] = protocol;
    ip
}

/// 54 bytes; addresses and ports are the wrapper's.
fn packet4(flags: u8) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(ipv4(40, 6));
    frame.extend(tcp(flags));
    frame
}

fn packet6() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd]);
    frame.extend([0x60, 0, 0, 0, 0, 20, 6, 60]);
    frame.extend([0; 32]);
    frame.extend(tcp(ACK));
    frame
}

/// 110 bytes; what a decapsulation cuts off is the wrapper's, the rest is here.
fn encapsulated() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([0x08, 0x00]);
    frame.extend(ipv4(96, 17));
    frame.extend([0xc3, 0x50, 0x17, 0xc1, 0, 76, 0x12, 0x34]);
    frame.extend([5, 0x40, 0x08, 0x00]);
    frame.extend((VNI << 8).to_be_bytes());
    frame.extend([0xff, 0x48, 0x81, 4, 0x10, 0, 0, 1]);
    frame.extend([0; 12]);
    let mut ip = ipv4(40, 6);
    ip[16..].copy_from_slice(&[192, 0, 2, 80]);
    frame.extend(ip);
    frame.extend(tcp(ACK));
    frame
}
