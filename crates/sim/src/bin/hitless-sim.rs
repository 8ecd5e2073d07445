//! The simulator's command, `cargo xtask sim`: one cluster after the other, each from its seed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use hitless_core::rules::Rules;
use hitless_sim::cluster::run_seed;

const USAGE: &str = "usage: hitless-sim [--seeds COUNT] [--first SEED] [--seconds VIRTUAL]
  --seeds COUNT      how many clusters, one after the other (20)
  --first SEED       the first one's seed; each next one's is one more (1)
  --seconds VIRTUAL  how long each lives through faults, in its own time (20)";

fn main() -> ExitCode {
    let mut numbers = [20, 1, 20];
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let place = ["--seeds", "--first", "--seconds"]
            .iter()
            .position(|name| *name == arg);
        let value = args.next().and_then(|value| value.parse::<u64>().ok());
        let (Some(place), Some(value)) = (place, value) else {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        };
        numbers[place] = value;
    }
    let [seeds, first, seconds] = numbers;
    let began = Instant::now();
    let mut failed = Vec::new();
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for seed in first..first.saturating_add(seeds) {
        let began = Instant::now();
        let ended = run_seed(Rules::ALL, seed, seconds * 1_000_000);
        let taken = &ended.lockstep.taken;
        let steps: u64 = taken.values().sum();
        for (kind, count) in taken {
            *kinds.entry(kind.clone()).or_default() += count;
        }
        println!(
            "seed {seed}: {:?}, {steps} steps in lock-step, {} too wide, {} ms",
            ended.tally,
            ended.lockstep.passed_over,
            began.elapsed().as_millis()
        );
        if let Err(error) = ended.result {
            println!("seed {seed} FAILED: {error}");
            failed.push(seed);
        }
    }
    println!("steps in lock-step: {kinds:?}");
    println!(
        "{seeds} clusters, {} failed, {} s",
        failed.len(),
        began.elapsed().as_secs()
    );
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!(
        "again: cargo xtask sim --seeds 1 --seconds {seconds} --first {}",
        failed[0]
    );
    ExitCode::FAILURE
}
