// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running cases one after the other, and counting how they ended. It knows no case.

pub mod bench;
pub mod report;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{anyhow, ensure};
use svm_init::events::{Status, TestEvent};

use bench::Bench;
use report::Reporter;

/// How a case ended that did not fail.
#[derive(Debug)]
pub enum Verdict {
    /// All was as it should be; a remark, or nothing.
    Passed(String),
    /// It could not run, for this reason.
    Skipped(String),
}

/// It passed, and there is nothing to add.
pub fn passed() -> anyhow::Result<Verdict> {
    Ok(Verdict::Passed(String::new()))
}

/// One case: an error is a failure.
#[derive(Debug)]
pub struct Case {
    /// Name: what is shown or tested.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&mut Bench) -> anyhow::Result<Verdict>,
}

/// Several cases, in the order in which they run.
#[derive(Debug)]
pub struct Suite {
    /// Name of the suite, which its last line begins with.
    pub name: &'static str,
    /// The cases, by theme.
    pub themes: &'static [&'static [Case]],
}

impl Suite {
    /// The cases whose name contains one of `names`; all if there are no names.
    ///
    /// # Errors
    ///
    /// A name chooses no case.
    pub fn choose(&self, names: &[String]) -> anyhow::Result<Vec<&'static Case>> {
        let all = || self.themes.iter().copied().flatten();
        for name in names {
            ensure!(
                all().any(|case| case.name.contains(name.as_str())),
                "no case of `{}` has a name with `{name}` in it: `svmctl {} --list` lists them",
                self.name,
                self.name
            );
        }
        let chosen = |case: &&Case| {
            names.is_empty() || names.iter().any(|name| case.name.contains(name.as_str()))
        };
        Ok(all().filter(chosen).collect())
    }
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that passed.
    pub passed: u32,
    /// Cases that failed.
    pub failed: u32,
    /// Cases that could not run.
    pub skipped: u32,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// Runs the cases and reports each.
///
/// # Errors
///
/// A report cannot be written.
pub fn run_suite(
    cases: &[&Case],
    bench: &mut Bench,
    reporter: &mut Reporter,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for case in cases {
        let event = run_case(case, bench);
        match event.status {
            Status::Ok => tally.passed += 1,
            Status::Failed => tally.failed += 1,
            Status::Skipped => tally.skipped += 1,
        }
        reporter.case(&event)?;
    }
    Ok(tally)
}

/// Runs one case.
pub fn run_case(case: &Case, bench: &mut Bench) -> TestEvent {
    let start = Instant::now();
    let result = bench.renew().and_then(|()| {
        catch_unwind(AssertUnwindSafe(|| (case.run)(bench))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow!("panic: {}", text.unwrap_or("without a message")))
        })
    });
    let micros = start.elapsed().as_micros() as u64;
    let (status, message) = match result {
        Ok(Verdict::Passed(remark)) => (Status::Ok, remark),
        Ok(Verdict::Skipped(reason)) => (Status::Skipped, reason),
        Err(error) => (Status::Failed, format!("{error:#}")),
    };
    TestEvent {
        name: case.name.to_owned(),
        status,
        message,
        counters: bench.take_counters().to_map(),
        micros,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: Suite = Suite {
        name: "example",
        themes: &[
            &[Case {
                name: "one thing",
                run: |_| passed(),
            }],
            &[Case {
                name: "another thing",
                run: |_| Err(anyhow!("no")),
            }],
        ],
    };

    #[test]
    fn names_choose_cases() {
        let choose = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            SUITE
                .choose(&names)
                .map(|cases| cases.iter().map(|case| case.name).collect::<Vec<_>>())
        };
        assert_eq!(choose(&[]).unwrap(), ["one thing", "another thing"]);
        assert_eq!(choose(&["another"]).unwrap(), ["another thing"]);
        let error = choose(&["thing", "nobody"]).unwrap_err().to_string();
        assert!(error.contains("svmctl example --list"), "{error}");
    }

    #[test]
    fn skipped_cases_are_mentioned_only_if_there_are_any() {
        let mut tally = Tally {
            passed: 17,
            ..Tally::default()
        };
        assert_eq!(tally.to_string(), "17 passed, 0 failed");
        tally.skipped = 1;
        assert_eq!(tally.to_string(), "17 passed, 0 failed, 1 skipped");
    }
}
