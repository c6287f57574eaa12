// SPDX-License-Identifier: MIT OR Apache-2.0
//! The benchmarks of unit and endpoint: a table on the terminal, and a file for machines.
//!
//! Each value stands beside a baseline that was measured in the same run, in turns with it: this
//! is what makes it mean something on another machine, or on one that is busy.
#![forbid(unsafe_code)]

mod atc;
mod chained;
mod compare;
mod curves;
mod growth;
mod measure;
mod report;
mod service;
mod unit;
mod whole;

use anyhow::{Context, Result};
use clap::Parser;
use compare::Kept;
use measure::Effort;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures translation, invalidation, page requests and copies.
#[derive(Parser)]
struct Arguments {
    /// Where to write the results as JSON.
    #[arg(long, default_value = "target/report/bench.json")]
    output: PathBuf,
    /// Only benchmarks whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Shows what has moved since this result of an earlier run on the same machine.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Rounds of each measurement, of which the best counts.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if cfg!(debug_assertions) {
        eprintln!(
            "bench: this is a debug build, whose numbers mean nothing: add --profile optimized"
        );
    }
    // Before anything is measured: a wrong file is told at once, and may be the one to be replaced.
    let kept = arguments.baseline.as_deref().map(Kept::read).transpose()?;
    let effort = Effort {
        rounds: arguments.rounds,
    };
    let only = arguments.only.clone();
    let mut report = Report::new(arguments.only);
    atc::run(effort, &mut report);
    unit::run(effort, &mut report)?;
    whole::run(effort, &mut report);
    service::run(effort, &mut report);
    report.print();
    if let Some(kept) = kept {
        kept.compare(report.ratios()).print();
    }
    report
        .write(&arguments.output)
        .with_context(|| format!("cannot write {}", arguments.output.display()))?;
    println!("\nwritten to {}", arguments.output.display());
    println!();
    let wanted = |name: &str| only.as_ref().is_none_or(|only| name.contains(only));
    let curves = curves::run(effort, wanted)?;
    let path = arguments.output.with_file_name("curves.json");
    if curves::write(&curves, &path).with_context(|| format!("cannot write {}", path.display()))? {
        println!("written to {}", path.display());
    }
    Ok(if report.all_met() {
        ExitCode::SUCCESS
    } else {
        println!("not all goals are met");
        ExitCode::FAILURE
    })
}
