// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands, one file each.

mod bench;
mod copy;
mod crc32c;
mod doctor;
mod info;
mod manual;
pub mod stress;
mod test;
mod trace;
mod vfio;

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use svm_init::kernel::Messages;
use svmctl::{Context, Counters, Queue};

use crate::cli::{Arguments, Cases, Command};
use crate::harness::bench::Bench;
use crate::harness::report::{Format, Reporter};
use crate::harness::run_suite;

/// Descriptors of the ring of commands that work on one thing at a time.
const ENTRIES: u32 = 16;

/// Does what the command line says; `false` if something of it failed, and was reported.
pub fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let device = arguments.device.as_path();
    match &arguments.command {
        Command::Info => info::run(device, arguments.json).map(|()| true),
        Command::Crc32c { files } => crc32c::run(device, arguments.json, files),
        Command::Copy {
            source,
            destination,
        } => copy::run(device, arguments.json, source, destination).map(|()| true),
        Command::Demo(cases) => demo(device, arguments.json, cases),
        Command::Test(tests) => test::run(device, arguments.json, tests),
        Command::Bench(options) => bench::run(device, arguments.json, options).map(|()| true),
        Command::Stress(options) => stress::run(device, arguments.json, options),
        Command::Vfio(options) => vfio::run(arguments.json, options),
        Command::Trace(options) => trace::run(arguments.json, options).map(|()| true),
        Command::Doctor { devices } => doctor::run(arguments.json, devices),
        Command::Completions { shell } => manual::completions(*shell).map(|()| true),
        Command::Manual { to } => manual::manual(to.as_deref()).map(|()| true),
        Command::Successor { work } => crate::test::successor(*work).map(|()| true),
    }
}

fn demo(device: &Path, as_json: bool, cases: &Cases) -> anyhow::Result<bool> {
    let suite = &crate::demo::SUITE;
    let chosen = suite.choose(&cases.names)?;
    if cases.list && as_json {
        return test::list(&chosen, true).map(|()| true);
    }
    if cases.list {
        for chosen in chosen {
            writeln!(io::stdout(), "{}", chosen.case.name)?;
        }
        return Ok(true);
    }
    let path = device.to_owned();
    let mut bench = Bench::new(device, move || Context::open(&path))?;
    let format = if as_json { Format::Json } else { Format::Table };
    let mut reporter = Reporter::new(suite.name, &chosen, format)?;
    reporter.title(device, bench.info())?;
    // Anybody who may open the device may see the demonstration, and root alone hears the kernel.
    let mut messages = match Messages::open() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            reporter.comment(&format!("{error}"))?;
            None
        }
        opened => Some(opened?),
    };
    let tally = run_suite(&chosen, &mut bench, messages.as_mut(), &mut reporter)?;
    reporter.summary(&tally)?;
    Ok(tally.failed == 0)
}

fn open(device: &Path) -> anyhow::Result<Queue> {
    Ok(Context::open(device)?.start(ENTRIES)?)
}

/// What a command did on one file, for `--json`.
#[derive(Debug, Serialize)]
struct Work {
    bytes: u64,
    micros: u64,
    counters: serde_json::Value,
}

/// Measures `work` on a queue.
fn measure<T>(
    queue: &mut Queue,
    bytes: u64,
    work: impl FnOnce(&mut Queue) -> anyhow::Result<T>,
) -> anyhow::Result<(T, Work)> {
    let before: Counters = queue.counters()?;
    let start = Instant::now();
    let result = work(queue)?;
    let micros = start.elapsed().as_micros() as u64;
    let counters = json!(queue.counters()?.since(&before).to_map());
    Ok((
        result,
        Work {
            bytes,
            micros,
            counters,
        },
    ))
}

/// Prints a value as one line of JSON.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).context("cannot write JSON")?;
    Ok(writeln!(io::stdout(), "{text}")?)
}
