// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands, one file each.

mod bench;
mod copy;
mod crc32c;
mod doctor;
mod function;
mod info;
mod iommufd;
mod manual;
pub mod stress;
mod test;
mod trace;
mod vfio;
mod work;

use std::io::{self, Write};
use std::path::Path;

use svm_init::kernel::Messages;
use svmctl::Context;

use crate::cli::{Arguments, Cases, Command};
use svm_cases::harness::bench::Bench;
use svm_cases::harness::report::{Format, Reporter};
use svm_cases::harness::run_suite;

/// Carries out the command line. Returns `false` if part of the work failed and was reported.
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
        Command::Iommufd(options) => iommufd::run(arguments.json, options),
        Command::Trace(options) => trace::run(arguments.json, options).map(|()| true),
        Command::Doctor { devices } => doctor::run(arguments.json, devices),
        Command::Completions { shell } => manual::completions(*shell).map(|()| true),
        Command::Manual { to } => manual::manual(to.as_deref()).map(|()| true),
        Command::Successor { work } => svm_cases::test::successor(*work).map(|()| true),
    }
}

fn demo(device: &Path, as_json: bool, cases: &Cases) -> anyhow::Result<bool> {
    let suite = &svm_cases::demo::SUITE;
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
    // Everyone who may open the device may run the demonstration, but only root can read the
    // kernel's log.
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
