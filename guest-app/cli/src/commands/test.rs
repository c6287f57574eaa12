// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl test`.

use std::io::{self, Write};
use std::path::Path;

use serde_json::json;
use svmctl::Context;

use crate::cli::Tests;
use svm_cases::harness::bench::{Bench, Options};
use svm_cases::harness::report::{Format, Reporter};
use svm_cases::harness::{Chosen, run_suite};
use svm_cases::test::SUITE;
use svm_init::kernel::Messages;

/// Runs the tests. Returns `false` if one failed.
pub fn run(device: &Path, as_json: bool, tests: &Tests) -> anyhow::Result<bool> {
    let chosen = SUITE.choose(&tests.names)?;
    if tests.list {
        return list(&chosen, as_json).map(|()| true);
    }
    let mut messages = Messages::open()?;
    let path = device.to_owned();
    let mut bench = Bench::new(device, move || Context::open(&path))?;
    bench.set_options(Options {
        seed: tests.seed,
        scale: tests.scale,
    });
    let format = if as_json { Format::Json } else { Format::Tap };
    let mut reporter = Reporter::new(SUITE.name, &chosen, format)?;
    reporter.title(device, bench.info())?;
    reporter.comment(&format!("seed {}, scale {}", tests.seed, tests.scale))?;
    let tally = run_suite(&chosen, &mut bench, Some(&mut messages), &mut reporter)?;
    reporter.summary(&tally)?;
    Ok(tally.failed == 0)
}

/// Writes the cases by group, or a JSON object for each.
pub fn list(chosen: &[Chosen], as_json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout();
    let mut group = "";
    for Chosen { group: of, case } in chosen {
        if as_json {
            writeln!(out, "{}", json!({ "group": of.name, "name": case.name }))?;
            continue;
        }
        if of.name != group {
            group = of.name;
            writeln!(out, "{group}: {}", of.about)?;
        }
        writeln!(out, "  {}", case.name)?;
    }
    Ok(())
}
