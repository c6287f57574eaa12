// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports of cases: aligned columns for people, JSON for programs, and events for `svm-vm`, which
//! runs the guest.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::json;
use svm_init::events::{Event, RESULTS_VARIABLE, Status, TestEvent};
use svmctl::abi::ioctl::Info;

use super::case::Chosen;
use super::tally::Tally;

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

/// Output format of reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// The Test Anything Protocol, version 14.
    Tap,
    /// One JSON object per line.
    Json,
}

/// Writes the reports.
#[derive(Debug)]
pub struct Reporter {
    suite: &'static str,
    name_width: usize,
    cases: usize,
    format: Format,
    /// Cases reported.
    reported: usize,
    events: Option<File>,
}

impl Reporter {
    /// A reporter for these cases. If the environment names a file for events, it writes them
    /// there, too.
    ///
    /// # Errors
    ///
    /// That file cannot be opened.
    pub fn new(suite: &'static str, cases: &[Chosen], format: Format) -> anyhow::Result<Reporter> {
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
            name_width: cases
                .iter()
                .map(|chosen| chosen.case.name.len())
                .max()
                .unwrap_or(0),
            cases: cases.len(),
            format,
            reported: 0,
            events,
        })
    }

    /// Prints the heading above the cases.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn title(&self, device: &Path, info: &Info) -> anyhow::Result<()> {
        let (context, pasid) = (info.context, info.pasid);
        let device = device.display();
        let mut out = io::stdout();
        match self.format {
            Format::Table => {
                writeln!(out, "{device}: context {context}, PASID {pasid}\n")?;
                writeln!(out, "{}", heading(self.name_width))?;
            }
            Format::Tap => {
                writeln!(out, "TAP version 14\n1..{}", self.cases)?;
                writeln!(out, "# {device}: context {context}, PASID {pasid}")?;
            }
            Format::Json => {}
        }
        Ok(())
    }

    /// Prints a remark about the whole run, for people only.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn comment(&self, text: &str) -> anyhow::Result<()> {
        if self.format != Format::Json {
            writeln!(io::stdout(), "# {text}")?;
        }
        Ok(())
    }

    /// Reports a case.
    ///
    /// # Errors
    ///
    /// The output, or the file for events, cannot be written.
    pub fn case(&mut self, chosen: &Chosen, event: &TestEvent) -> anyhow::Result<()> {
        self.reported += 1;
        match self.format {
            Format::Json => {
                let mut line = json!(event);
                line["group"] = json!(chosen.group.name);
                print_json(&line)?;
            }
            Format::Table => writeln!(io::stdout(), "{}", line(self.name_width, event))?,
            Format::Tap => {
                let group = chosen.group.name;
                writeln!(io::stdout(), "{}", tap(self.reported, group, event))?;
            }
        }
        io::stdout().flush()?;
        if let Some(file) = &mut self.events {
            Event::Test(event.clone())
                .write_to(file)
                .context("cannot write the event")?;
        }
        Ok(())
    }

    /// Reports in the last line how many cases passed, failed and were skipped.
    ///
    /// # Errors
    ///
    /// The output cannot be written.
    pub fn summary(&self, tally: &Tally) -> anyhow::Result<()> {
        let suite = self.suite;
        match self.format {
            Format::Json => print_json(&json!({
                "suite": suite,
                "passed": tally.passed,
                "failed": tally.failed,
                "skipped": tally.skipped,
            })),
            Format::Table => Ok(writeln!(io::stdout(), "\n{suite}: {tally}")?),
            Format::Tap => Ok(writeln!(io::stdout(), "# {suite}: {tally}")?),
        }
    }
}

/// Prints a value as one line of JSON.
///
/// # Errors
///
/// It has no form in JSON, or the output cannot be written.
pub fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).context("cannot write JSON")?;
    Ok(writeln!(io::stdout(), "{text}")?)
}

/// The lines of a test point.
fn tap(number: usize, group: &str, event: &TestEvent) -> String {
    // Characters that would begin a directive are escaped with a backslash.
    let name = event.name.replace('\\', "\\\\").replace('#', "\\#");
    let point = match event.status {
        Status::Failed => format!("not ok {number} - {group}: {name}"),
        Status::Ok => format!("ok {number} - {group}: {name}"),
        Status::Skipped => {
            let reason = event.message.replace('\n', " ");
            return format!("ok {number} - {group}: {name} # SKIP {reason}");
        }
    };
    let mut lines = vec![point, "  ---".to_owned()];
    let millis = event.micros as f64 / 1000.0;
    lines.push(format!("  duration_ms: {millis:.1}"));
    if !event.message.is_empty() {
        lines.push("  message: |".to_owned());
        lines.extend(event.message.lines().map(|line| format!("    {line}")));
    }
    lines.push("  ...".to_owned());
    lines.join("\n")
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
    fn a_test_point_has_its_message_in_a_block_below() {
        let point = tap(3, "memory", &event(Status::Failed, "byte 3\nis wrong"));
        let expected = "not ok 3 - memory: heap\n  ---\n  duration_ms: 0.3\n  message: |\n    \
                        byte 3\n    is wrong\n  ...";
        assert_eq!(point, expected);
        let skipped = tap(4, "memory", &event(Status::Skipped, "no swap"));
        assert_eq!(skipped, "ok 4 - memory: heap # SKIP no swap");
    }

    #[test]
    fn lines_stand_below_their_heading() {
        let heading = heading(10);
        let lower = heading.lines().nth(1).unwrap();
        let row = line(10, &event(Status::Ok, ""));
        assert_eq!(row.chars().count(), lower.chars().count());
        assert!(row.starts_with("heap        ok "), "{row}");
        assert!(row.ends_with(" 0       12        0      345"), "{row}");
        // A number is right-aligned with its heading.
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
