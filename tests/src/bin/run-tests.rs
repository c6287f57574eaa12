// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that continuous integration runs: the tests of all crates on the host, the tests in
//! the guest, and what can only be seen from outside of both. Says how long each part took, lists
//! the slowest tests, and ends with `N passed, N failed`.

use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::Parser;
use svm_tests::launcher::Launcher;
use svm_tests::parts::{self, Job};
use svm_tests::{
    devices, failures, fuzz, guest, host, hosts, levels, levels_long, selftests, suite,
};

/// Runs the tests of svm-demo.
#[derive(Parser)]
struct Options {
    /// Only the tests that start no guest: those of the crates, and the fuzzer.
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
    /// Only the guests that are hosts, and the guest of one.
    #[arg(long, conflicts_with_all = ["host", "guest", "devices", "failures", "debug", "check"])]
    hosts: bool,
    /// Only what takes long with a guest inside of a guest.
    #[arg(long, conflicts_with_all = ["host", "guest", "devices", "failures", "hosts", "debug", "check"])]
    l2: bool,
    /// Only Linux's own selftests of IOMMUFD and VFIO, in a guest that is a host.
    #[arg(long, conflicts_with_all = ["host", "guest", "devices", "failures", "hosts", "l2", "debug", "check"])]
    selftests: bool,
    /// Only the guest's tests, on the kernel that watches the driver.
    #[arg(long, conflicts_with_all = ["host", "guest", "devices", "failures"])]
    debug: bool,
    /// What takes a minute: the crates' tests once, and the demonstration in one guest.
    #[arg(long, conflicts_with_all = ["host", "guest", "devices", "failures", "debug"])]
    check: bool,
    /// With --check: only tests whose name contains this; those of the guest's test plan, too.
    #[arg(long, value_name = "TEXT", requires = "check")]
    only: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let launcher = Launcher::build()?;
    launcher.prepare(if options.debug { "debug" } else { "stock" })?;
    if options.hosts || options.l2 || options.selftests || runs_guests(&options) {
        launcher.prepare("host")?;
    }
    let processors = available_parallelism().map_or(1, usize::from);
    let report = parts::run(jobs(&launcher, &options), processors);
    for line in report.lines() {
        println!("{line}");
    }
    let total = report.total();
    if total.tests() == 0 {
        println!("not ok - no test ran");
    }
    println!("{total}");
    Ok(if total.failed == 0 && total.tests() > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether all that starts a guest was asked for.
fn runs_guests(options: &Options) -> bool {
    let parts = [options.host, options.devices, options.failures];
    let others = [options.debug, options.check, options.l2, options.selftests];
    !parts.contains(&true) && !others.contains(&true)
}

/// The parts that were asked for. Those of the crates fill the processors most of the time, so no
/// guest of another part runs beside them, but for those of the runs that go wrong: one at a time,
/// and often about to begin or to end, they take what is left. So does the fuzzer, whose priority
/// is low.
fn jobs<'a>(launcher: &'a Launcher, options: &'a Options) -> Vec<Job<'a>> {
    let crates = Job::new("crates", usize::MAX, |part| host::run(launcher, part));
    let fuzzer = Job::new("fuzzer", 0, fuzz::run);
    let suite = Job::new("suite", 1, |part| suite::run(launcher, part));
    let devices = Job::new("devices", 1, |part| devices::run(launcher, part));
    let failures = Job::new("failures", 0, |part| failures::run(launcher, part));
    if options.check {
        // An empty text is none.
        let only = options.only.as_deref().filter(|text| !text.is_empty());
        return vec![
            Job::new("guest", 1, move |part| guest::check(launcher, part, only)),
            Job::new("crates", 1, move |part| host::check(launcher, part, only)),
        ];
    }
    if options.l2 {
        return levels_long::jobs(launcher);
    }
    if options.selftests {
        return selftests::jobs(launcher);
    }
    if options.debug {
        return guest::debug_jobs(launcher);
    }
    if options.devices {
        return vec![devices];
    }
    if options.failures {
        return vec![failures];
    }
    let levels = Job::new("l2", 1, |part| levels::run(launcher, part));
    if options.hosts {
        let mut jobs = hosts::jobs(launcher);
        jobs.push(levels);
        return jobs;
    }
    let mut jobs = Vec::new();
    if !options.host {
        jobs.push(failures);
    }
    if !options.guest {
        jobs.push(crates);
    }
    if !options.host {
        // Those that take longest come first: then little is left to run alone at the end.
        let mut guests = guest::jobs(launcher).into_iter();
        jobs.extend(guests.next());
        jobs.push(devices);
        jobs.extend(guests);
        jobs.push(levels);
        jobs.extend(hosts::jobs(launcher));
    }
    if !options.guest {
        jobs.push(suite);
        jobs.push(fuzzer);
    }
    jobs
}
