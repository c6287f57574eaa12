// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs cases one after the other and counts how they ended. It is independent of the cases.

pub mod bench;
mod case;
pub mod random;
pub mod report;
mod tally;
mod verdict;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::anyhow;
use svm_init::events::{Status, TestEvent};
use svm_init::marks::Marker;

use bench::Bench;
use report::Reporter;
use svm_init::kernel::Messages;

pub use case::{Case, Chosen, Group, Suite};
pub use tally::Tally;
pub use verdict::{Verdict, passed, remark, skipped};

/// Runs the cases and reports each. With `messages`, a case fails if the kernel logs an unexpected
/// message.
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

/// Fails a case if the kernel has logged unexpected messages.
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
    let marker = Marker::from_environment();
    marker.begin(case.name);
    let start = Instant::now();
    let result = bench.renew().and_then(|()| {
        catch_unwind(AssertUnwindSafe(|| (case.run)(bench))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(anyhow!("panic: {}", text.unwrap_or("without a message")))
        })
    });
    let micros = start.elapsed().as_micros() as u64;
    marker.end(case.name);
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
