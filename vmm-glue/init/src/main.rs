// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-init`: the first process of an svm-vm guest. It mounts what Linux programs expect, carries
//! out the plan that `svm-vm` packed, reports each event on the results channel and powers off.
//!
//! Started by hand in a guest or on a real machine it has one command: `svm-init doctor` says what
//! the machine has and lacks for shared virtual addressing.
#![forbid(unsafe_code)]

mod guest;

use std::process::ExitCode;

use svm_init::sva;

fn main() -> ExitCode {
    if nix::unistd::getpid().as_raw() == 1 {
        guest::main();
    }
    match std::env::args().nth(1).as_deref() {
        Some("doctor") => doctor(std::env::args().nth(2).as_deref() == Some("--json")),
        _ => {
            eprintln!(
                "usage: svm-init doctor [--json]\nIt examines this machine for shared virtual addressing; \
                 everything else svm-init does as the first process of a guest."
            );
            ExitCode::from(2)
        }
    }
}

/// Prints each check, as text or as JSON; fails where something is missing.
fn doctor(json: bool) -> ExitCode {
    let checks = sva::examine(&sva::Facts::read("/".as_ref()));
    if json {
        match serde_json::to_string(&checks) {
            Ok(text) => println!("{text}"),
            Err(error) => {
                eprintln!("svm-init: cannot write JSON: {error}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        print!("{}", sva::render(&checks));
    }
    if checks
        .iter()
        .any(|check| check.verdict == sva::Verdict::Missing)
    {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
