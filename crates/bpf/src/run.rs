//! Running a program on a packet that is given, without an interface: for tests and benchmarks.

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use libbpf_rs::libbpf_sys;

use crate::error::{Error, Result, checked};

/// What became of the packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run {
    /// `XDP_*`: 1 drop, 2 pass, 3 transmit, 4 redirect.
    pub action: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Mean time of one run.
    pub time: Duration,
}

impl Run {
    pub const ABORTED: u32 = 0;
    pub const DROP: u32 = 1;
    pub const PASS: u32 = 2;
    pub const TRANSMIT: u32 = 3;
    pub const REDIRECT: u32 = 4;
}

/// Room for what an encapsulation adds.
const ROOM: usize = 256;

/// Runs `program` on `packet`, `repeat` times; the packet is not restored in between.
pub(crate) fn run(program: impl AsFd, packet: &[u8], repeat: u32) -> Result<Run> {
    let mut output = vec![0; packet.len() + ROOM];
    // SAFETY: a struct of integers and pointers, for which zero means "not given".
    let mut options: libbpf_sys::bpf_test_run_opts = unsafe { std::mem::zeroed() };
    options.sz = size_of_val(&options) as _;
    options.data_in = packet.as_ptr().cast();
    options.data_size_in = packet.len() as u32;
    options.data_out = output.as_mut_ptr().cast();
    options.data_size_out = output.len() as u32;
    options.repeat = repeat as i32;
    // SAFETY: all pointers are to memory of the lengths given, alive until the call returns.
    let result = unsafe {
        libbpf_sys::bpf_prog_test_run_opts(program.as_fd().as_raw_fd(), &raw mut options)
    };
    checked(result).map_err(|source| Error::Run { source })?;
    output.truncate(options.data_size_out as usize);
    Ok(Run {
        action: options.retval,
        packet: output,
        time: Duration::from_nanos(options.duration.into()),
    })
}
