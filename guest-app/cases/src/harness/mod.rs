// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running cases one after the other, and counting how they ended. It knows no case.

pub mod bench;
pub mod random;
pub mod report;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{anyhow, ensure};
use svm_init::events::{Status, TestEvent};

use bench::Bench;
use report::Reporter;
use svm_init::kernel::{self, Messages};

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

/// It passed, with a remark.
pub fn remark(text: impl Into<String>) -> anyhow::Result<Verdict> {
    Ok(Verdict::Passed(text.into()))
}

/// It could not run.
pub fn skipped(reason: impl Into<String>) -> anyhow::Result<Verdict> {
    Ok(Verdict::Skipped(reason.into()))
}

/// One case: an error is a failure.
#[derive(Debug)]
pub struct Case {
    /// Name: what is shown or tested.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&mut Bench) -> anyhow::Result<Verdict>,
    /// How messages of the kernel begin that it provokes, and that are no fault.
    pub provokes: &'static [&'static str],
    /// Whether processes die in it while the device works for them.
    pub kills: bool,
}

impl Case {
    /// A case that makes the kernel say nothing.
    pub const fn new(name: &'static str, run: fn(&mut Bench) -> anyhow::Result<Verdict>) -> Case {
        Case {
            name,
            run,
            provokes: &[],
            kills: false,
        }
    }

    /// What the kernel may say because of it.
    #[must_use]
    pub const fn provoking(mut self, messages: &'static [&'static str]) -> Case {
        self.provokes = messages;
        self
    }

    /// Processes die in it while the device works for them, of which the IOMMU driver may say what
    /// [`kernel::after_death`] has.
    #[must_use]
    pub const fn killing(mut self) -> Case {
        self.kills = true;
        self
    }

    /// All that the kernel may say because of it.
    fn provoked(&self) -> Vec<&'static str> {
        let deaths = if self.kills {
            kernel::after_death()
        } else {
            &[]
        };
        [self.provokes, deaths].concat()
    }
}

/// Cases of one theme.
#[derive(Debug)]
pub struct Group {
    /// A name that chooses them all.
    pub name: &'static str,
    /// What they are about, in a line.
    pub about: &'static str,
    /// The cases, by module.
    pub cases: &'static [&'static [Case]],
}

/// Several groups, in the order in which they run.
#[derive(Debug)]
pub struct Suite {
    /// Name of the suite, which its last line begins with.
    pub name: &'static str,
    /// The groups.
    pub groups: &'static [Group],
}

/// A case, and where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// Its group.
    pub group: &'static Group,
    /// The case.
    pub case: &'static Case,
}

impl Suite {
    /// The cases of the groups in `names`, and those whose name contains one of the others; all if
    /// there are no names.
    ///
    /// # Errors
    ///
    /// A name chooses no case.
    pub fn choose(&self, names: &[String]) -> anyhow::Result<Vec<Chosen>> {
        let all = || {
            self.groups.iter().flat_map(|group| {
                let cases = group.cases.iter().copied().flatten();
                cases.map(move |case| Chosen { group, case })
            })
        };
        let meant = |chosen: &Chosen, name: &String| {
            if self.groups.iter().any(|group| group.name == name) {
                chosen.group.name == name
            } else {
                chosen.case.name.contains(name.as_str())
            }
        };
        for name in names {
            ensure!(
                all().any(|chosen| meant(&chosen, name)),
                "no group of `{}` is called `{name}`, and no case has it in its name: `svmctl {} \
                 --list` lists them",
                self.name,
                self.name
            );
        }
        Ok(all()
            .filter(|chosen| names.is_empty() || names.iter().any(|name| meant(chosen, name)))
            .collect())
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

/// Runs the cases and reports each. With `messages`, a case fails if the kernel says what it
/// should not.
///
/// # Errors
///
/// A report cannot be written.
pub fn run_suite(
    cases: &[Chosen],
    bench: &mut Bench,
    mut messages: Option<&mut Messages>,
    reporter: &mut Reporter,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for chosen in cases {
        let mut event = run_case(chosen.case, bench);
        if let Some(messages) = &mut messages {
            judge(&mut event, &messages.unexpected(&chosen.case.provoked()));
        }
        match event.status {
            Status::Ok => tally.passed += 1,
            Status::Failed => tally.failed += 1,
            Status::Skipped => tally.skipped += 1,
        }
        reporter.case(chosen, &event)?;
    }
    Ok(tally)
}

/// Fails a case for what the kernel has said.
fn judge(event: &mut TestEvent, unexpected: &[String]) {
    let Some(first) = unexpected.first() else {
        return;
    };
    let said = match unexpected.len() - 1 {
        0 => format!("the kernel said: {first}"),
        others => format!("the kernel said: {first} (and {others} more lines)"),
    };
    event.message = match event.status {
        Status::Failed => format!("{}\n{said}", event.message),
        Status::Ok | Status::Skipped => said,
    };
    event.status = Status::Failed;
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
        groups: &[
            Group {
                name: "first",
                about: "",
                cases: &[&[Case::new("one thing", |_| passed())]],
            },
            Group {
                name: "second",
                about: "",
                cases: &[&[Case::new("another thing", |_| Err(anyhow!("no")))]],
            },
        ],
    };

    #[test]
    fn names_choose_cases() {
        let choose = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            SUITE.choose(&names).map(|cases| {
                cases
                    .iter()
                    .map(|chosen| chosen.case.name)
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(choose(&[]).unwrap(), ["one thing", "another thing"]);
        assert_eq!(choose(&["another"]).unwrap(), ["another thing"]);
        assert_eq!(choose(&["second"]).unwrap(), ["another thing"]);
        let error = choose(&["thing", "nobody"]).unwrap_err().to_string();
        assert!(error.contains("svmctl example --list"), "{error}");
    }

    #[test]
    fn a_message_of_the_kernel_fails_a_case() {
        let mut event = TestEvent {
            name: "one thing".into(),
            status: Status::Ok,
            message: "a remark".into(),
            counters: [].into(),
            micros: 1,
        };
        judge(&mut event, &[]);
        assert_eq!(event.status, Status::Ok);
        judge(&mut event, &["BUG: one".into(), "BUG: two".into()]);
        assert_eq!(event.status, Status::Failed);
        assert_eq!(
            event.message,
            "the kernel said: BUG: one (and 1 more lines)"
        );
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
