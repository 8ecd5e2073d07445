//! Asking a kernel whether it takes the programs, without attaching or pinning anything.

use std::io;
use std::time::{Duration, Instant};

use libbpf_rs::ObjectBuilder;

use crate::abi;
use crate::error::io_error;

/// What the kernel said of one program.
#[derive(Debug)]
pub struct Verified {
    pub program: String,
    /// Instructions before the kernel's own changes.
    pub instructions: usize,
    /// How long making its maps, relocating and verifying took.
    pub time: Duration,
    /// The kernel's log has been written to standard error if it refused.
    pub result: io::Result<()>,
}

/// Loads every program by itself.
pub fn verify() -> io::Result<Vec<Verified>> {
    let mut verified = Vec::new();
    for bytes in [abi::DIRECTOR_OBJECT, abi::INGRESS_OBJECT] {
        let bytes = bytes.to_vec();
        let open = ObjectBuilder::default()
            .open_memory(&bytes)
            .map_err(io_error)?;
        let names: Vec<_> = open
            .progs()
            .map(|program| program.name().to_owned())
            .collect();
        for name in names {
            let mut open = ObjectBuilder::default()
                .open_memory(&bytes)
                .map_err(io_error)?;
            let mut instructions = 0;
            for mut program in open.progs_mut() {
                let is_wanted = program.name() == name;
                program.set_autoload(is_wanted);
                if is_wanted {
                    instructions = program.insn_cnt();
                }
            }
            let start = Instant::now();
            let result = open.load().map(drop).map_err(io_error);
            verified.push(Verified {
                program: name.to_string_lossy().into_owned(),
                instructions,
                time: start.elapsed(),
                result,
            });
        }
    }
    Ok(verified)
}
