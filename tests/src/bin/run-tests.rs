// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that continuous integration runs: the tests of all crates on the host, the tests in
//! the guest, and what can only be seen from outside of both. Ends with `N passed, N failed`.

use std::process::ExitCode;

use clap::Parser;
use svm_tests::host;
use svm_tests::launcher::Launcher;
use svm_tests::tally::Tally;
use svm_tests::{devices, failures, fuzz, guest};

/// Runs the tests of svm-demo.
#[derive(Parser)]
struct Options {
    /// Only the tests that start no guest: those of the crates, and a minute of the fuzzer.
    #[arg(long, conflicts_with = "guest")]
    host: bool,
    /// Only the tests that start a guest.
    #[arg(long)]
    guest: bool,
    /// Only the machines with other devices, and with several.
    #[arg(long, conflicts_with_all = ["host", "guest"])]
    devices: bool,
    /// Only the runs that go wrong.
    #[arg(long, conflicts_with_all = ["host", "guest", "devices"])]
    failures: bool,
    /// Only the guest's tests, on the kernel that watches the driver.
    #[arg(long, conflicts_with_all = ["host", "guest", "devices", "failures"])]
    debug: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let launcher = Launcher::build()?;
    launcher.prepare(if options.debug { "debug" } else { "stock" })?;
    let mut total = Tally::default();
    if options.debug {
        total += guest::run_debug(&launcher)?;
    }
    let some = options.devices || options.failures || options.debug;
    if !options.guest && !some {
        total += host::run(&launcher)?;
        total += fuzz::run()?;
    }
    if !options.host && !some {
        total += guest::run(&launcher)?;
    }
    if options.devices || !options.host && !some {
        total += devices::run(&launcher)?;
    }
    if options.failures || !options.host && !some {
        total += failures::run(&launcher)?;
    }
    println!("{total}");
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
