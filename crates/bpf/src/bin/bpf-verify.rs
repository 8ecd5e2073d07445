//! `hitless-bpf-verify`: loads every program into the kernel that it runs on, prints a line for
//! each, then `READY` or `FAILED`. Made to run in an initramfs: it mounts what it needs if that is
//! missing.

use std::path::Path;
use std::process::ExitCode;

use rustix::mount::{MountFlags, mount};

fn main() -> ExitCode {
    if !Path::new("/sys/kernel").exists() {
        // Without the kernel's type information nothing loads, and the lines below say so.
        let _ = std::fs::create_dir_all("/sys");
        let _ = mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None);
    }
    let verified = match hitless_bpf::verify() {
        Ok(verified) => verified,
        Err(error) => {
            println!("objects: {error}");
            println!("FAILED");
            return ExitCode::FAILURE;
        }
    };
    let mut is_ready = true;
    for program in verified {
        let time = program.time.as_millis();
        match program.result {
            Ok(()) => {
                println!(
                    "{}: {} instructions, {time} ms",
                    program.program, program.instructions
                );
            }
            Err(error) => {
                is_ready = false;
                println!("{}: {error}", program.program);
            }
        }
    }
    println!("{}", if is_ready { "READY" } else { "FAILED" });
    if is_ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
