// SPDX-License-Identifier: MIT OR Apache-2.0
//! A fuzzer of unit and endpoint together: registers, queues, tables, requests and everything
//! else that software and functions can do, in any order, with values that are nearly right.
//!
//! A run is a sequence of cases, each of which follows from its own number alone. What fails is
//! printed with that number, and `--case` repeats it.
#![forbid(unsafe_code)]

mod actions;
mod checks;
mod draw;
mod endpoints;
mod requests;
mod values;
mod world;

use anyhow::{Result, bail};
use clap::Parser;
use draw::Draw;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::{Statistics, World};

/// How long a single action may take before it counts as a hang.
const HANG: Duration = Duration::from_secs(60);

/// Drives unit and endpoint with anything, and checks that they bear it.
#[derive(Parser)]
struct Arguments {
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop after this many cases.
    #[arg(long)]
    cases: Option<u64>,
    /// Number that all cases follow from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this one case only, and print what it does.
    #[arg(long, value_parser = number)]
    case: Option<u64>,
    /// Actions of each case.
    #[arg(long, default_value_t = 400)]
    actions: u32,
}

/// A number, decimal or hexadecimal.
fn number(text: &str) -> Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.seconds.is_none() && arguments.cases.is_none() && arguments.case.is_none() {
        bail!("give an end: --seconds, --cases or --case");
    }
    let pulse = Arc::new(AtomicU64::new(0));
    let current = Arc::new(AtomicU64::new(0));
    watch(&pulse, &current);
    let mut statistics = Statistics::default();
    if let Some(case) = arguments.case {
        current.store(case, Ordering::SeqCst);
        World::new(case, true).run(arguments.actions, &pulse, &mut statistics);
        println!("{statistics}");
        return Ok(ExitCode::SUCCESS);
    }
    let begin = Instant::now();
    let mut seeds = Draw::new(arguments.seed);
    let mut cases = 0;
    let over = |cases| {
        arguments.cases.is_some_and(|most| cases >= most)
            || arguments
                .seconds
                .is_some_and(|most| begin.elapsed() >= Duration::from_secs(most))
    };
    while !over(cases) {
        let case = seeds.word();
        current.store(case, Ordering::SeqCst);
        let run = || World::new(case, false).run(arguments.actions, &pulse, &mut statistics);
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            println!(
                "fuzz: case {case:#x} failed (number {cases} of seed {})",
                arguments.seed
            );
            println!(
                "fuzz: repeat it with --case {case:#x} --actions {}",
                arguments.actions
            );
            return Ok(ExitCode::FAILURE);
        }
        cases += 1;
    }
    println!(
        "fuzz: seed {}, {cases} cases in {:.1} s, no finding",
        arguments.seed,
        begin.elapsed().as_secs_f64()
    );
    println!("{statistics}");
    Ok(ExitCode::SUCCESS)
}

/// Ends the process with a message if an action does not end.
fn watch(pulse: &Arc<AtomicU64>, current: &Arc<AtomicU64>) {
    let (pulse, current) = (Arc::clone(pulse), Arc::clone(current));
    std::thread::spawn(move || {
        loop {
            let before = pulse.load(Ordering::SeqCst);
            std::thread::park_timeout(HANG);
            if pulse.load(Ordering::SeqCst) == before {
                let case = current.load(Ordering::SeqCst);
                println!("fuzz: case {case:#x} hangs in action {before} of all");
                println!("fuzz: repeat it with --case {case:#x}");
                std::process::exit(3);
            }
        }
    });
}
