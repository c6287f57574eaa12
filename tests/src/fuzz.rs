// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fuzzer of the in-process machine: registers, queue, tables and requests. As many cases as it
//! does in a minute on one processor that has nothing else to do; in number, so that a busy machine
//! tries the same.

use std::process::Command;

use anyhow::ensure;

use crate::launcher::cargo;
use crate::parts::Part;

/// How many cases are tried.
const CASES: &str = "3000";
/// The same actions each time, so that a failure is one of the change that is tested; `make fuzz`
/// takes other seeds.
const SEED: &str = "1";

/// Runs the fuzzer with its output shown.
///
/// # Errors
///
/// None: what goes wrong is a test that failed.
pub fn run(part: &mut Part) -> anyhow::Result<()> {
    let name = format!("the fuzzer finds nothing in {CASES} cases from seed {SEED}");
    part.test(&name, |part| {
        // It takes only what the other parts leave of the processors.
        let mut command = Command::new("nice");
        command
            .args(["-n", "19"])
            .arg(cargo())
            .args(["run", "--quiet", "--release", "-p", "machine"])
            .args(["--bin", "fuzz", "--", "--cases", CASES, "--seed", SEED]);
        let status = part.follow(&mut command, |part, line| part.line(line))?;
        ensure!(status.success(), "it ended with {status}");
        Ok("")
    });
    Ok(())
}
