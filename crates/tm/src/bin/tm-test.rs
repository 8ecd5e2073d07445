//! Keeper and worker alone, for this crate's tests: `tm-test keeper CONFIG RUN_FOLDER PROGRAM
//! [THREADS [DESCRIPTORS]]`.
//!
//! `TM_BUILD` is the build's name, `TM_FAULT` what a successor does wrong: `die-N` or `hang-N` (at
//! its Nth batch), `die-end`, `hang-end`, `layout`; what any worker does: `poison`, `die-at-PLACE`.

use std::path::PathBuf;
use std::process::ExitCode;

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
        let (_, point) = *Point::ALL.iter().find(|(name, _)| *name == place)?;
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
