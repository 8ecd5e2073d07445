//! Throws damaged bytes at what reads them from elsewhere: `cargo xtask fuzz`.
//!
//! That is the codecs of HTTP, PROXY and TLS records, every snapshot, lease datagrams, and frames of
//! links. Not here: packets, which the BPF programs read (`crates/bpf/tests` compares these with
//! the model, packet by random packet), TLS handshakes, which are rustls's, and what users write
//! (`types`).
//!
//! Each target has a committed corpus (`corpus/TARGET.hex`, a line per input). Inputs are
//! mutations and splices of it. A target does more than survive: it compares ways that must agree (whole or in
//! pieces, with and without a snapshot in between, our HTTP/2 and our HTTP/1.1), and panics if they do
//! not. What was found goes into the corpus, and is replayed by the tests from then on.
//!
//! It does not measure coverage: the grammar-driven laws in `crates/proto` are what looks deep; this
//! looks wide.

mod corpus;
mod http1;
mod http2;
mod links;
mod mutate;
mod proxy;
mod relay;
mod target;
mod tls;

#[cfg(test)]
mod tests;

use std::panic;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mutate::Mutator;
use target::{TARGETS, Target};

const USAGE: &str = "usage: cargo xtask fuzz [--seconds N] [--seed N] [TARGET...]";
const SECONDS: u64 = 10;

struct Options {
    /// Per target.
    seconds: u64,
    seed: u64,
    targets: Vec<&'static Target>,
    is_help: bool,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match Options::parse(&args) {
        Ok(options) => options,
        Err(message) => {
            eprint!("{message}\n{}", usage());
            return ExitCode::from(2);
        }
    };
    if options.is_help {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    // The panic is told once, below, with the input that made it.
    panic::set_hook(Box::new(|_| {}));
    let mut is_fine = true;
    for target in &options.targets {
        is_fine &= fuzz(target, &options);
    }
    match is_fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn usage() -> String {
    let mut text = format!("{USAGE}\ntargets:\n");
    for target in TARGETS {
        text += &format!("  {:16} {}\n", target.name, target.about);
    }
    text
}

impl Options {
    fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options {
            seconds: SECONDS,
            seed: 1,
            targets: Vec::new(),
            is_help: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || {
                args.next()
                    .and_then(|value| value.parse().ok())
                    .ok_or_else(|| format!("{arg} needs a number"))
            };
            match arg.as_str() {
                "--seconds" => options.seconds = number()?,
                "--seed" => options.seed = number()?,
                "--help" | "-h" => options.is_help = true,
                name => {
                    let target = TARGETS.iter().find(|target| target.name == name);
                    let target = target.ok_or_else(|| format!("no target {name:?}"))?;
                    options.targets.push(target);
                }
            }
        }
        if options.targets.is_empty() {
            options.targets = TARGETS.iter().collect();
        }
        Ok(options)
    }
}

/// True: nothing was found.
fn fuzz(target: &Target, options: &Options) -> bool {
    let mut mutator = Mutator::new(options.seed, corpus::inputs(target.corpus));
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let mut count = 0_u64;
    while Instant::now() < end {
        for _ in 0..64 {
            let input = mutator.next_input();
            count += 1;
            if let Some(message) = fails(target, &input) {
                let input = shorten(target, input);
                println!(
                    "{}: input {count} of seed {}: {message}",
                    target.name, options.seed
                );
                println!("{}", corpus::hex(&input));
                println!("Add this line to crates/fuzz/corpus/{}.hex.", target.name);
                return false;
            }
        }
    }
    println!(
        "{}: {count} inputs in {} s, nothing found",
        target.name, options.seconds
    );
    true
}

/// What the target says against an input. None: nothing.
fn fails(target: &Target, input: &[u8]) -> Option<String> {
    let error = panic::catch_unwind(|| (target.run)(input)).err()?;
    let text = error
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| error.downcast_ref::<&str>().copied());
    Some(text.unwrap_or("a panic without text").to_owned())
}

/// The input without pieces that do not matter.
fn shorten(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut len = input.len() / 2;
    while len > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut shorter = input.clone();
            shorter.drain(at..(at + len).min(input.len()));
            match fails(target, &shorter) {
                Some(_) => input = shorter,
                None => at += len,
            }
        }
        len /= 2;
    }
    input
}
