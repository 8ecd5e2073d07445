//! Programs under the wrapper of `src/c/bench.h`, which restores the packet between repetitions.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use hitless_core::flow::{PROTOCOL_TCP, destination_state};
use hitless_harness::figures::median;
use libbpf_rs::{MapCore as _, MapFlags, Object, ObjectBuilder, libbpf_sys};

use crate::scene::{KEY, packet4, row};

/// Runs of each program, of which the median counts.
pub(crate) const ROUNDS: usize = 11;
const REPEAT: u32 = 300_000;
/// Packets before those that are timed: another program has had the caches in between.
const WARM_UP: u32 = 100_000;

/// The wrapped programs, on the tables of a handle.
pub(crate) struct Bench {
    object: Object,
}

impl Bench {
    pub(crate) fn load(bytes: &[u8], tables: &Path) -> Result<Self> {
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

    pub(crate) fn program(&self, name: &str) -> Result<OwnedFd> {
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
    pub(crate) fn net<const N: usize>(
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
