// SPDX-License-Identifier: MIT OR Apache-2.0
//! Collects the events of a run and judges it. It does no I/O.

use serde::Serialize;
use svm_init::events::{Event, FetchEvent, SetupEvent, Status, StepEvent, TestEvent};

use super::console::Trouble;
use super::trace::PageRequests;

/// Everything known about a run; `results.json` has this format.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Results {
    /// Name of the run.
    pub name: String,
    /// The plan's name, or `exec` or `shell`.
    pub plan: String,
    /// Number of tests, and of steps without tests of their own, that passed.
    pub passed: u32,
    /// Number of those that failed, and of failures of the run itself.
    pub failed: u32,
    /// Number of those that were skipped.
    pub skipped: u32,
    /// Release of the guest's kernel, once known.
    pub kernel: Option<String>,
    /// Version of QEMU, or the path of the user's own.
    pub qemu: String,
    /// How QEMU ran the guest's processors.
    pub accel: String,
    /// The guest's IOMMU.
    pub iommu: String,
    /// From the start of QEMU to the guest's first event, in seconds.
    pub boot_seconds: Option<f64>,
    /// From the start of QEMU to its end, in seconds.
    pub seconds: f64,
    /// How the guest ended, if not by its plan, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bad_end: Option<BadEnd>,
    /// Failures of the run as a whole, outside of all steps.
    pub failures: Vec<String>,
    /// Trouble that the guest's kernel reported on the console.
    pub troubles: Vec<Trouble>,
    /// Preparations in the guest.
    pub setup: Vec<SetupEvent>,
    /// Steps that have ended, in order.
    pub steps: Vec<StepResult>,
    /// The fetched files, and those that failed.
    pub fetched: Vec<FetchEvent>,
    /// The ways of its page requests through the levels, if it is traced and inside of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_requests: Option<PageRequests>,
    /// The results of the first-level guest, if this one is inside of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<Box<Results>>,
    /// Those of another guest inside of that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<Box<Results>>,
    #[serde(skip)]
    current: Current,
    #[serde(skip)]
    ended: bool,
}

/// An end of a guest that is not its plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BadEnd {
    /// It did not come to the end of its plan in time, for an unknown reason.
    Hung,
    /// It came to that end, but did not power off in time.
    NotPoweredOff,
    /// A processor came to a triple fault before.
    TripleFault,
}

/// A step and its events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StepResult {
    /// How it ended.
    #[serde(flatten)]
    pub end: StepEvent,
    /// The tests of its program.
    pub tests: Vec<TestEvent>,
    /// The lines of its output.
    pub output: Vec<String>,
}

/// The events since the end of the last step.
#[derive(Clone, Debug, Default)]
struct Current {
    name: Option<String>,
    tests: Vec<TestEvent>,
    output: Vec<String>,
}

impl Results {
    /// The results at the start of a run.
    pub fn new(name: &str, plan: &str) -> Self {
        Self {
            name: name.to_owned(),
            plan: plan.to_owned(),
            ..Self::default()
        }
    }

    /// Adds an event.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Ready(ready) => self.kernel = Some(ready.kernel),
            Event::Setup(setup) => {
                if setup.status == Status::Failed {
                    self.failed += 1;
                }
                self.setup.push(setup);
            }
            Event::StepBegin(begin) => self.current.name = Some(begin.name),
            Event::Output(output) => self.current.output.push(output.line),
            Event::Test(test) => {
                self.count(test.status);
                self.current.tests.push(test);
            }
            Event::Step(end) => self.end_step(end),
            Event::Fetch(fetch) => {
                if fetch.status == Status::Failed {
                    self.failed += 1;
                }
                self.fetched.push(fetch);
            }
            // It is read from the file of events when the run is over.
            Event::Trace(_) => {}
            Event::End(_) => self.ended = true,
        }
    }

    /// Adds trouble of the guest's kernel.
    pub fn trouble(&mut self, trouble: Trouble) {
        self.failed += 1;
        self.troubles.push(trouble);
    }

    /// Adds a failure of the run itself.
    pub fn fail(&mut self, reason: String) {
        self.failed += 1;
        self.failures.push(reason);
    }

    /// Whether the guest reached the end of its plan.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the run failed for a reason outside of all steps: the run itself, the guest's
    /// kernel, or a preparation in the guest.
    pub fn failed_by_itself(&self) -> bool {
        let mut setup = self.setup.iter();
        !self.failures.is_empty()
            || !self.troubles.is_empty()
            || setup.any(|setup| setup.status == Status::Failed)
    }

    /// Whether fetching a file failed.
    pub fn lacks_fetched(&self) -> bool {
        let mut fetched = self.fetched.iter();
        fetched.any(|fetch| fetch.status == Status::Failed)
    }

    /// The exit status of the last step's program, or the number of the signal that ended it.
    pub fn last_end(&self) -> Option<(Option<i32>, Option<i32>)> {
        self.steps
            .last()
            .map(|step| (step.end.exit, step.end.signal))
    }

    /// The current step, if any.
    pub fn under_way(&self) -> Option<&str> {
        self.current.name.as_deref()
    }

    /// Ends the step that was running at the end of the run. The reason is counted elsewhere.
    pub fn close(&mut self) {
        let Current {
            name,
            tests,
            output,
        } = std::mem::take(&mut self.current);
        let Some(name) = name else { return };
        let end = StepEvent {
            name,
            status: Status::Failed,
            message: "the run ended before it did".to_owned(),
            exit: None,
            signal: None,
            micros: 0,
        };
        self.steps.push(StepResult { end, tests, output });
    }

    /// The first failure, in a line.
    pub fn first_failure(&self) -> Option<String> {
        let setup = self
            .setup
            .iter()
            .filter(|setup| setup.status == Status::Failed);
        let setup = setup.map(|setup| format!("{}: {}", setup.name, setup.message));
        let troubles = self.troubles.iter().map(|trouble| trouble.line.clone());
        let steps = self.steps.iter().flat_map(|step| {
            let tests = step
                .tests
                .iter()
                .filter(|test| test.status == Status::Failed);
            let tests = tests.map(|test| format!("{}: {}", test.name, test.message));
            let end = (step.end.status == Status::Failed)
                .then(|| format!("{}: {}", step.end.name, step.end.message));
            tests.chain(end)
        });
        setup
            .chain(troubles)
            .chain(steps)
            .chain(self.failures.iter().cloned())
            .next()
    }

    /// The last line of the report.
    pub fn summary(&self) -> String {
        let skipped = if self.skipped > 0 {
            format!(", {} skipped", self.skipped)
        } else {
            String::new()
        };
        format!(
            "{}: {} passed, {} failed{skipped}",
            self.plan, self.passed, self.failed
        )
    }

    /// The tests of a step decide its result; the step itself counts only if it failed although
    /// none of them did. A step without tests is a test itself.
    fn end_step(&mut self, end: StepEvent) {
        let Current { tests, output, .. } = std::mem::take(&mut self.current);
        let a_test_failed = tests.iter().any(|test| test.status == Status::Failed);
        match end.status {
            Status::Failed if !a_test_failed => self.count(Status::Failed),
            status if tests.is_empty() => self.count(status),
            _ => {}
        }
        self.steps.push(StepResult { end, tests, output });
    }

    fn count(&mut self, status: Status) {
        match status {
            Status::Ok => self.passed += 1,
            Status::Failed => self.failed += 1,
            Status::Skipped => self.skipped += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::console::Kind;
    use super::*;

    fn fed(lines: &[&str]) -> Results {
        let mut results = Results {
            plan: "demo".into(),
            ..Results::default()
        };
        for line in lines {
            results.take(Event::parse(line).unwrap());
        }
        results
    }

    const BEGIN: &str = r#"{"event":"step_begin","name":"a"}"#;
    const OK: &str = r#"{"event":"step","name":"a","status":"ok","exit":0}"#;
    const FAILED: &str = r#"{"event":"step","name":"a","status":"failed","message":"m"}"#;
    const TEST_OK: &str = r#"{"event":"test","name":"t","status":"ok"}"#;
    const TEST_FAILED: &str = r#"{"event":"test","name":"t","status":"failed"}"#;

    #[test]
    fn a_step_without_tests_is_one() {
        assert_eq!(fed(&[BEGIN, OK]).summary(), "demo: 1 passed, 0 failed");
        assert_eq!(fed(&[BEGIN, FAILED]).summary(), "demo: 0 passed, 1 failed");
    }

    #[test]
    fn a_step_with_tests_is_counted_by_them() {
        assert_eq!(
            fed(&[BEGIN, TEST_OK, TEST_OK, OK]).summary(),
            "demo: 2 passed, 0 failed"
        );
        let results = fed(&[BEGIN, TEST_OK, TEST_FAILED, FAILED]);
        assert_eq!(results.summary(), "demo: 1 passed, 1 failed");
        assert_eq!(results.steps[0].tests.len(), 2);
    }

    #[test]
    fn a_step_that_fails_although_its_tests_passed_counts() {
        assert_eq!(
            fed(&[BEGIN, TEST_OK, FAILED]).summary(),
            "demo: 1 passed, 1 failed"
        );
    }

    #[test]
    fn tests_belong_to_their_step() {
        let results = fed(&[BEGIN, TEST_OK, OK, BEGIN, OK]);
        assert_eq!(results.steps[0].tests.len(), 1);
        assert_eq!(results.steps[1].tests.len(), 0);
        assert_eq!(results.under_way(), None);
        assert_eq!(fed(&[BEGIN, TEST_OK]).under_way(), Some("a"));
    }

    #[test]
    fn a_step_under_way_at_the_end_is_kept_and_not_counted_again() {
        let mut results = fed(&[BEGIN, TEST_OK]);
        results.fail("the guest hung".into());
        results.close();
        assert_eq!(results.summary(), "demo: 1 passed, 1 failed");
        assert_eq!(results.steps[0].end.status, Status::Failed);
        assert_eq!(results.steps[0].tests.len(), 1);
        assert_eq!(results.under_way(), None);
    }

    #[test]
    fn failures_of_preparation_run_and_kernel_count() {
        let mut results = fed(&[r#"{"event":"setup","name":"load","status":"failed"}"#]);
        results.fail("QEMU died".into());
        results.trouble(Trouble {
            kind: Kind::Oops,
            line: "Oops:".into(),
        });
        assert_eq!(results.summary(), "demo: 0 passed, 3 failed");
    }

    #[test]
    fn results_become_json_with_steps_flat() {
        let results = fed(&[BEGIN, TEST_OK, OK]);
        let value = serde_json::to_value(&results).unwrap();
        assert_eq!(value["steps"][0]["name"], "a");
        assert_eq!(value["steps"][0]["tests"][0]["status"], "ok");
        assert_eq!(value["passed"], 1);
        assert_eq!(value.get("bad_end"), None);
    }

    #[test]
    fn a_bad_end_has_a_name_for_programs() {
        for (end, name) in [
            (BadEnd::Hung, "hung"),
            (BadEnd::NotPoweredOff, "not_powered_off"),
            (BadEnd::TripleFault, "triple_fault"),
        ] {
            let mut results = fed(&[BEGIN]);
            results.bad_end = Some(end);
            assert_eq!(serde_json::to_value(&results).unwrap()["bad_end"], name);
        }
    }
}
