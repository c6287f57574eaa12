// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl bench`: how long the device takes, compared with the processor at the same work.

mod figures;
mod invalidations;
mod measure;
mod names;
mod plot;
mod results;
mod work;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context as _, ensure};
use svmctl::Context;

use crate::cli::BenchOptions;
use figures::FIGURES;
use measure::Effort;
use results::{Machine, Results};
use svm_cases::harness::report::print_json;

/// Descriptors of the ring: the deepest measured queue, and some spare room.
const ENTRIES: u32 = 128;

/// Measures, or reads earlier results, and shows them.
pub fn run(device: &Path, as_json: bool, options: &BenchOptions) -> anyhow::Result<()> {
    let results = match &options.from {
        Some(path) => read(path)?,
        None => measure(device, options)?,
    };
    if let Some(path) = &options.save {
        let text = serde_json::to_string_pretty(&results)?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(path) = &options.plot {
        let picture = plot::draw(&results)?;
        fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if as_json {
        print_json(&results)
    } else {
        Ok(io::stdout().write_all(results.render().as_bytes())?)
    }
}

fn read(path: &Path) -> anyhow::Result<Results> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} does not hold what `svmctl bench --save` or `--json` writes",
            path.display()
        )
    })
}

fn measure(device: &Path, options: &BenchOptions) -> anyhow::Result<Results> {
    for name in &options.only {
        ensure!(
            FIGURES.iter().any(|figure| figure.name == name),
            "no measurement is called `{name}`; there are: {}",
            FIGURES.map(|figure| figure.name).join(", ")
        );
    }
    let effort = if options.quick {
        Effort::quick()
    } else {
        Effort::full()
    };
    let mut queue = Context::open(device)?.start(ENTRIES)?;
    let mut results = Results::new(Machine::read(device, queue.info()));
    let chosen = |name: &str| options.only.is_empty() || options.only.iter().any(|n| n == name);
    for figure in FIGURES.iter().filter(|figure| chosen(figure.name)) {
        if !options.quiet {
            eprintln!("measuring {} ...", figure.about);
        }
        let measured = (figure.run)(&mut queue, effort)
            .with_context(|| format!("measuring {}", figure.about))?;
        results.figures.push(measured);
    }
    results.compare();
    Ok(results)
}
