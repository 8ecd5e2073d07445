//! Counters: one per verdict and per early return, kept per core by the programs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use libbpf_rs::libbpf_sys;

use crate::error::{Error, Result, checked};

/// Sums over all cores, by the name that `docs/verdicts.md` lists.
pub type Counters = BTreeMap<&'static str, u64>;

#[derive(Debug)]
pub(crate) struct CounterTable {
    fd: OwnedFd,
    names: &'static [&'static str],
    cores: usize,
}

impl CounterTable {
    pub(crate) fn new(fd: OwnedFd, names: &'static [&'static str]) -> Result<Self> {
        let error = |source| Error::Table {
            table: "counters",
            what: "open",
            source,
        };
        let cores = libbpf_rs::num_possible_cpus()
            .map_err(|source| error(crate::error::io_error(source)))?;
        Ok(Self { fd, names, cores })
    }

    pub(crate) fn read(&self) -> Result<Counters> {
        let mut counters = Counters::new();
        let mut values = vec![0u64; self.cores];
        for (key, name) in self.names.iter().enumerate() {
            let key = key as u32;
            // SAFETY: the key is 4 bytes, and the kernel writes 8 bytes for each possible core,
            // which is our room.
            let result = unsafe {
                libbpf_sys::bpf_map_lookup_elem(
                    self.fd.as_raw_fd(),
                    (&raw const key).cast(),
                    values.as_mut_ptr().cast(),
                )
            };
            checked(result).map_err(|source: io::Error| Error::Table {
                table: "counters",
                what: "read",
                source,
            })?;
            counters.insert(name, values.iter().sum());
        }
        Ok(counters)
    }
}
