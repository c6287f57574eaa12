// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports of cases: aligned columns for people, JSON for programs, and events for whoever runs
//! the guest.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde_json::json;
use svm_init::events::{Event, RESULTS_VARIABLE, Status, TestEvent};
use svmctl::abi::ioctl::Info;

use super::{Case, Tally};

/// The columns of numbers: key of the counter, and the two lines of the heading.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("translation_requests", "trans-", "lations"),
    ("page_requests", "page", "requests"),
    ("invalidations", "invali-", "dations"),
];
/// Width of a column of numbers.
const WIDTH: usize = 9;
/// Width of the result.
const RESULT_WIDTH: usize = 7;

/// Writes the reports.
#[derive(Debug)]
pub struct Reporter {
    suite: &'static str,
    name_width: usize,
    as_json: bool,
    events: Option<File>,
}

impl Reporter {
    /// A reporter for these cases. If the environment names a file for events, they go there too.
    ///
    /// # Errors
    ///
    /// That file cannot be opened.
    pub fn new(suite: &'static str, cases: &[&Case], as_json: bool) -> anyhow::Result<Reporter> {
        let events = std::env::var_os(RESULTS_VARIABLE)
            .map(|path| {
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .open(&path)
                    .with_context(|| format!("{RESULTS_VARIABLE}={}", path.to_string_lossy()))
            })
            .transpose()?;
        Ok(Reporter {
            suite,
            name_width: cases.iter().map(|case| case.name.len()).max().unwrap_or(0),
            as_json,
            events,
        })
    }

    /// Prints what stands above the cases.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn title(&self, device: &Path, info: &Info) -> anyhow::Result<()> {
        if !self.as_json {
            let (context, pasid) = (info.context, info.pasid);
            let mut out = io::stdout();
            writeln!(
                out,
                "{}: context {context}, PASID {pasid}\n",
                device.display()
            )?;
            writeln!(out, "{}", heading(self.name_width))?;
        }
        Ok(())
    }

    /// Reports a case.
    ///
    /// # Errors
    ///
    /// The output, or the file for events, cannot be written.
    pub fn case(&mut self, event: &TestEvent) -> anyhow::Result<()> {
        if self.as_json {
            crate::commands::print_json(event)?;
        } else {
            writeln!(io::stdout(), "{}", line(self.name_width, event))?;
        }
        io::stdout().flush()?;
        if let Some(file) = &mut self.events {
            Event::Test(event.clone())
                .write_to(file)
                .context("cannot write the event")?;
        }
        Ok(())
    }

    /// Reports how many cases ended how, in the last line.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn summary(&self, tally: &Tally) -> anyhow::Result<()> {
        if self.as_json {
            crate::commands::print_json(&json!({
                "suite": self.suite,
                "passed": tally.passed,
                "failed": tally.failed,
                "skipped": tally.skipped,
            }))
        } else {
            writeln!(io::stdout(), "\n{}: {tally}", self.suite)?;
            Ok(())
        }
    }
}

fn heading(name_width: usize) -> String {
    let mut lines = [
        format!("{:name_width$}  {:RESULT_WIDTH$}", "", ""),
        format!("{:name_width$}  {:RESULT_WIDTH$}", "case", "result"),
    ];
    for (_, upper, lower) in COLUMNS {
        lines[0] += &format!("{upper:>WIDTH$}");
        lines[1] += &format!("{lower:>WIDTH$}");
    }
    lines[1] += &format!("{:>WIDTH$}", "µs");
    lines.join("\n")
}

fn line(name_width: usize, event: &TestEvent) -> String {
    let result = match event.status {
        Status::Ok => "ok",
        Status::Failed => "FAILED",
        Status::Skipped => "skipped",
    };
    let mut line = format!("{:name_width$}  {result:RESULT_WIDTH$}", event.name);
    for (key, _, _) in COLUMNS {
        line += &format!("{:>WIDTH$}", event.counters.get(*key).copied().unwrap_or(0));
    }
    line += &format!("{:>WIDTH$}", event.micros);
    match event.status {
        Status::Ok if event.message.is_empty() => line,
        Status::Ok => format!("{line}  {}", event.message),
        Status::Failed | Status::Skipped => {
            let message = event.message.replace('\n', "\n    ");
            format!("{line}\n    {message}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(status: Status, message: &str) -> TestEvent {
        TestEvent {
            name: "heap".into(),
            status,
            message: message.into(),
            counters: [("page_requests".to_owned(), 12)].into(),
            micros: 345,
        }
    }

    #[test]
    fn lines_stand_below_their_heading() {
        let heading = heading(10);
        let lower = heading.lines().nth(1).unwrap();
        let row = line(10, &event(Status::Ok, ""));
        assert_eq!(row.chars().count(), lower.chars().count());
        assert!(row.starts_with("heap        ok "), "{row}");
        assert!(row.ends_with(" 0       12        0      345"), "{row}");
        // The end of a number is below the end of its heading.
        assert_eq!(
            row.find("12").unwrap() + 2,
            lower.find("requests").unwrap() + 8
        );
    }

    #[test]
    fn a_failure_says_why_below() {
        let row = line(4, &event(Status::Failed, "byte 3\nis wrong"));
        let lines: Vec<&str> = row.lines().collect();
        assert!(lines[0].contains("FAILED"));
        assert_eq!(lines[1..], ["    byte 3", "    is wrong"]);
    }

    #[test]
    fn a_remark_stands_behind() {
        let row = line(4, &event(Status::Ok, "64 of 64 pages"));
        assert!(row.ends_with("345  64 of 64 pages"), "{row}");
    }
}
