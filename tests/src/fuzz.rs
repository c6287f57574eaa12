// SPDX-License-Identifier: MIT OR Apache-2.0
//! A minute of the fuzzer of the in-process machine: registers, queue, tables and requests.

use std::process::Command;

use anyhow::Context;

use crate::launcher::cargo;
use crate::tally::Tally;

/// How long the fuzzer runs, in seconds.
const SECONDS: &str = "60";
/// The same actions each time, so that a failure is one of the change that is tested; `make fuzz`
/// takes other seeds.
const SEED: &str = "1";

/// Runs the fuzzer with its output shown.
pub fn run() -> anyhow::Result<Tally> {
    println!("# the fuzzer, for {SECONDS} seconds");
    let status = Command::new(cargo())
        .args([
            "run",
            "--quiet",
            "--release",
            "-p",
            "machine",
            "--bin",
            "fuzz",
            "--",
        ])
        .args(["--seconds", SECONDS, "--seed", SEED])
        .status()
        .context("cargo did not start")?;
    let word = if status.success() { "ok" } else { "not ok" };
    println!("{word} - the fuzzer finds nothing in {SECONDS} seconds from seed {SEED}");
    Ok(Tally::one(status.success()))
}
