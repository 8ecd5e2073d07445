//! Keeper and worker alone, for this crate's tests: `tm-test keeper CONFIG RUN_FOLDER PROGRAM
//! [THREADS [DESCRIPTORS]]`.
//!
//! `TM_ALLOCATIONS` names a file that grows by a byte with each allocation of an event loop.
//! `TM_BUILD` is the build's name, `TM_FAULT` what a successor does wrong: `die-N` or `hang-N` (at
//! its Nth batch), `die-end`, `hang-end`, `layout`; what any worker does: `poison`, `die-at-PLACE`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};

use hitless_tm::keeper::{self, KeeperOptions};
use hitless_tm::worker::{self, Fault, Point, Trial};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let build = std::env::var("TM_BUILD").unwrap_or_else(|_| "test".to_owned());
    match args.get(1).map(String::as_str) {
        Some("keeper") if args.len() >= 5 => {
            let mut options = KeeperOptions::new(
                PathBuf::from(&args[2]),
                PathBuf::from(&args[3]),
                PathBuf::from(&args[4]),
            );
            options.worker_args = vec!["worker".into()];
            options.build_id = build;
            options.threads = args.get(5).and_then(|count| count.parse().ok());
            options.descriptors_max = args.get(6).and_then(|count| count.parse().ok());
            match keeper::run(options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        Some("worker") => {
            tell_allocations();
            let fault = fault(&std::env::var("TM_FAULT").unwrap_or_default());
            match worker::run_trial(&build, Trial { fault }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("worker: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => {
            eprintln!("usage: tm-test keeper CONFIG RUN_FOLDER PROGRAM [THREADS [DESCRIPTORS]]");
            ExitCode::from(2)
        }
    }
}

fn fault(text: &str) -> Option<Fault> {
    if text == "poison" {
        return Some(Fault::Poison);
    }
    if let Some(place) = text.strip_prefix("die-at-") {
        let mut all = Point::ALL.iter().chain(&Point::SEALED);
        let (_, point) = *all.find(|(name, _)| *name == place)?;
        return Some(Fault::DieAt(point));
    }
    match text.split_once('-') {
        Some(("die", "end")) => Some(Fault::DieAtEnd),
        Some(("hang", "end")) => Some(Fault::HangAtEnd),
        Some(("die", batch)) => batch.parse().ok().map(Fault::DieAtBatch),
        Some(("hang", batch)) => batch.parse().ok().map(Fault::HangAtBatch),
        _ => (text == "layout").then_some(Fault::ReadsLayout(99)),
    }
}

/// The system's allocator, which tells of each allocation in a lane's thread.
struct Telling;

#[global_allocator]
static ALLOCATOR: Telling = Telling;

/// The file that is told; -1: nobody wants to know.
static FILE: AtomicI32 = AtomicI32::new(-1);

thread_local! {
    /// Whether this thread is an event loop: not known yet, no, yes.
    static IS_LANE: Cell<u8> = const { Cell::new(0) };
}

/// Opens the file that allocations are told to.
fn tell_allocations() {
    let Some(path) = std::env::var_os("TM_ALLOCATIONS").filter(|path| !path.is_empty()) else {
        return;
    };
    let open = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    if let Ok(file) = open {
        FILE.store(std::os::fd::IntoRawFd::into_raw_fd(file), Ordering::Relaxed);
    }
}

fn tell() {
    let file = FILE.load(Ordering::Relaxed);
    if file < 0 {
        return;
    }
    let is_lane = IS_LANE.try_with(|known| {
        if known.get() == 0 {
            let mut name = [0u8; 16];
            // SAFETY: the kernel writes at most 16 bytes.
            unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
            // Before a thread has its name it is not known what it is.
            match &name {
                name if name.starts_with(b"lane-") => known.set(2),
                name if name.starts_with(b"hitless") => known.set(1),
                _ => {}
            }
        }
        known.get() == 2
    });
    if is_lane == Ok(true) {
        // SAFETY: one byte of a constant.
        unsafe { libc::write(file, c"a".as_ptr().cast(), 1) };
    }
}

// SAFETY: everything is the system allocator's; telling allocates nothing.
unsafe impl GlobalAlloc for Telling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        tell();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        tell();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
