// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results channel: JSON lines from the guest, one event per line.
//!
//! The environment variable [`RESULTS_VARIABLE`] (`SVM_RESULTS`) names the file to which a program
//! in the guest writes its events. The program opens it in append mode and writes each line with a
//! single `write`: the file is a serial port, and the kernel does not split one `write`. Without
//! the variable a program reports to people only.
//!
//! A program writes only [`Event::Test`]:
//!
//! ```
//! # use svm_init::events::{Event, Status, TestEvent};
//! let line = r#"{"event":"test","name":"heap buffer","status":"ok","message":"",
//!                "counters":{"translation_requests":2},"micros":310}"#;
//! let event: Event = serde_json::from_str(line)?;
//! assert_eq!(
//!     event,
//!     Event::Test(TestEvent {
//!         name: "heap buffer".into(),
//!         status: Status::Ok,
//!         message: String::new(),
//!         counters: [("translation_requests".to_owned(), 2)].into(),
//!         micros: 310,
//!     })
//! );
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! `status` is `ok`, `failed` or `skipped`. `message` (for `failed` and `skipped`: the reason),
//! `counters` and `micros` are optional. The names of counters are the keys of
//! `svm_abi::counters::COUNTERS`. `svm-init` writes all other events.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// Environment variable of guest programs that holds the path of the results channel.
pub const RESULTS_VARIABLE: &str = "SVM_RESULTS";

/// One line of the results channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// `svm-init` is running and the results channel works.
    Ready(ReadyEvent),
    /// A preparation step in the guest, such as loading a module, ended.
    Setup(SetupEvent),
    /// A step of the plan begins.
    StepBegin(StepBeginEvent),
    /// A step printed a line.
    Output(OutputEvent),
    /// A program reports one test.
    Test(TestEvent),
    /// A step of the plan ended.
    Step(StepEvent),
    /// A file or directory was copied out of the guest.
    Fetch(FetchEvent),
    /// Lines of the kernel's trace.
    Trace(TraceEvent),
    /// All steps ran; the guest powers off.
    End(EndEvent),
}

/// How a test, a step or a preparation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As expected.
    Ok,
    /// Not as expected; the message says how.
    Failed,
    /// It did not run; the message says why.
    Skipped,
}

/// The guest is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyEvent {
    /// Release of the guest's kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Time since the guest's kernel started, in microseconds.
    pub uptime_micros: u64,
    /// Number of processors online.
    pub cpus: u32,
    /// Usable memory, in KiB.
    pub memory_kib: u64,
}

/// A preparation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupEvent {
    /// What was prepared.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Why it failed or was skipped.
    #[serde(default)]
    pub message: String,
    /// Duration in microseconds.
    #[serde(default)]
    pub micros: u64,
}

/// A step begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepBeginEvent {
    /// Name of the step in the plan.
    pub name: String,
}

/// A step printed a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputEvent {
    /// Name of the step in the plan.
    pub step: String,
    /// The line, without its end; bytes that are not UTF-8 are replaced.
    pub line: String,
}

/// A program reports one test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestEvent {
    /// What was tested, in a few words.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Why it failed or was skipped, or a remark.
    #[serde(default)]
    pub message: String,
    /// What the device counted during the test, by counter key.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// Duration in microseconds.
    #[serde(default)]
    pub micros: u64,
}

/// A step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepEvent {
    /// Name of the step in the plan.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// Why it failed or was skipped.
    #[serde(default)]
    pub message: String,
    /// Exit status of its process; absent if a signal ended it or it did not start.
    #[serde(default)]
    pub exit: Option<i32>,
    /// Number of the signal that ended its process, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Duration in microseconds.
    #[serde(default)]
    pub micros: u64,
}

/// A file or directory was copied out of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchEvent {
    /// Its absolute path.
    pub path: String,
    /// Whether it was copied.
    pub status: Status,
    /// Why it was not.
    #[serde(default)]
    pub message: String,
}

/// Lines of the kernel's trace, as it prints them: `TASK-PID [CPU] FLAGS TIME: EVENT: TEXT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEvent {
    /// Whole lines, in the order of their time on each processor.
    pub text: String,
}

/// All steps ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndEvent {
    /// Time since the guest's kernel started, in microseconds.
    pub uptime_micros: u64,
}

impl Event {
    /// Reads an event from one line of the results channel.
    ///
    /// # Errors
    ///
    /// The line is not the JSON text of an event.
    pub fn parse(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line.trim())
    }

    /// Writes the event as one line, with one call of `write`.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub fn write_to(&self, sink: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        sink.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_channel() {
        let event = Event::Step(StepEvent {
            name: "demo".into(),
            status: Status::Failed,
            message: "exit status 1, expected 0".into(),
            exit: Some(1),
            signal: None,
            micros: 12,
        });
        let mut line = Vec::new();
        event.write_to(&mut line).unwrap();
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        // A serial port may add a carriage return.
        let text = String::from_utf8(line).unwrap().replace('\n', "\r\n");
        assert_eq!(Event::parse(&text).unwrap(), event);
    }

    #[test]
    fn a_test_needs_only_name_and_status() {
        let event = Event::parse(r#"{"event":"test","name":"swap","status":"skipped"}"#).unwrap();
        assert!(matches!(event, Event::Test(test) if test.status == Status::Skipped));
    }

    #[test]
    fn an_unknown_status_is_an_error() {
        let error = Event::parse(r#"{"event":"test","name":"x","status":"passed"}"#).unwrap_err();
        assert!(error.to_string().contains("passed"), "{error}");
    }
}
