// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs differential fuzzing and prints what came of it.

use super::compare::{Subject, differences};
use super::finding::{Count, Finding, compare};
use super::generate::case;
use crate::bench::{Bench, InProcess, Like};
use anyhow::{Result, ensure};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How much is tried.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Amount {
    /// The number that all cases follow from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Stop after so many seconds.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Stop after so many cases.
    #[arg(long)]
    pub cases: Option<u64>,
    /// Only this case of the seed.
    #[arg(long)]
    pub case: Option<u64>,
}

/// Findings after which a run ends.
const ENOUGH: usize = 8;

/// Compares units with this project's unit in this process: each on the cases of the seed, against
/// one with its own capabilities. Prints the findings, and returns whether there were none and
/// enough has happened.
///
/// # Errors
///
/// No end is given, or no unit.
pub fn differential(benches: &[(&dyn Bench, Like)], amount: &Amount) -> Result<bool> {
    ensure!(
        amount.seconds.is_some() || amount.cases.is_some() || amount.case.is_some(),
        "differential fuzzing needs an end: give --seconds, --cases or --case"
    );
    ensure!(
        !benches.is_empty(),
        "differential fuzzing needs a second unit: name a QEMU by --qemu or SVM_QEMU"
    );
    let good = Mutex::new(true);
    std::thread::scope(|scope| {
        for (bench, like) in benches {
            scope.spawn(|| {
                let good_here = one(*bench, *like, amount);
                if let Ok(mut good) = good.lock() {
                    *good &= good_here;
                }
            });
        }
    });
    Ok(good.into_inner().unwrap_or(false))
}

/// Compares one unit.
fn one(bench: &dyn Bench, like: Like, amount: &Amount) -> bool {
    let left = Subject::new(&InProcess);
    let right = Subject::new(bench);
    let begin = Instant::now();
    let mut count = Count::default();
    let mut found: Vec<Finding> = Vec::new();
    let numbers = amount.case.map_or(0..u64::MAX, |n| n..n + 1);
    let _ = numbers.into_iter().try_for_each(|number| {
        let over = |most: u64| begin.elapsed() >= Duration::from_secs(most);
        if amount.cases.is_some_and(|most| number >= most)
            || amount.seconds.is_some_and(over)
            || found.len() >= ENOUGH
        {
            return ControlFlow::Break(());
        }
        let case = case(like, amount.seed, number);
        if amount.case.is_some() {
            println!("{case}\n");
            for difference in differences(&case, &left.run(&case), &right.run(&case)) {
                let text = difference.text(&case, left.name(), right.name());
                println!("deviations {:?}: {text}\n", difference.reports);
            }
        }
        for finding in compare(&left, &right, number, &case, &mut count) {
            let is_like = |other: &Finding| {
                let difference = &finding.difference;
                difference.is_like(&other.difference, &finding.case, &other.case)
            };
            if !found.iter().any(is_like) {
                show(&finding, &left, &right, amount.seed);
                found.push(finding);
            }
        }
        ControlFlow::Continue(())
    });
    let name = right.name();
    println!(
        "# {name}, seed {}, {:.1} s: {count}",
        amount.seed,
        begin.elapsed().as_secs_f64()
    );
    for (report, (times, first)) in &count.known {
        println!(
            "# {name}: deviation {report:02}, as expected: {times} times, first in case {first}"
        );
    }
    if let (None, Some(missing)) = (amount.case, count.missing()) {
        println!("not ok - {name}: there was no {missing}: try more cases");
        return false;
    }
    let differences = found.len();
    println!(
        "{} - {name}: {differences} differences that no report explains",
        if differences == 0 { "ok" } else { "not ok" }
    );
    differences == 0
}

fn show(finding: &Finding, left: &Subject<'_>, right: &Subject<'_>, seed: u64) {
    let Finding {
        number,
        case,
        difference,
    } = finding;
    let left = format!("{} (vtd)", left.name());
    println!(
        "not ok - a difference in {}\n{case}\nrepeat it with --differential --seed {seed} --case \
         {number}\n",
        difference.text(case, &left, right.name())
    );
}
