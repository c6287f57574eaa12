// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows the events of a run as they arrive.

use svm_init::events::{Event, Status};

/// Counters to show on a line, and their names in singular and plural. `results.json` has all
/// counters.
const COUNTERS: &[(&str, &str, &str)] = &[
    ("translation_requests", "translation", "translations"),
    ("page_requests", "page request", "page requests"),
    ("invalidations", "invalidation", "invalidations"),
];

/// Width of the column of names.
const NAME_WIDTH: usize = 52;

/// Formats the events for a user.
#[derive(Clone, Debug)]
pub struct Renderer {
    output: bool,
    steps: bool,
    /// The current step, until it reports a test.
    heading: Option<String>,
}

impl Renderer {
    /// `output`: show the output of steps. `steps`: show the steps of a plan that has several.
    pub fn new(output: bool, steps: bool) -> Self {
        Self {
            output,
            steps,
            heading: None,
        }
    }

    /// Whether the whole output of steps is shown.
    pub fn shows_output(&self) -> bool {
        self.output
    }

    /// The lines to show for an event, or none.
    pub fn lines(&mut self, event: &Event) -> Vec<String> {
        let heading = match event {
            Event::StepBegin(step) => {
                self.heading = Some(step.name.clone());
                None
            }
            // The tests of a step follow its name.
            Event::Test(_) => self.heading.take().filter(|_| self.steps),
            _ => None,
        };
        heading
            .map(|name| format!("{name}:"))
            .into_iter()
            .chain(self.line(event))
            .collect()
    }

    fn line(&self, event: &Event) -> Option<String> {
        match event {
            Event::Setup(setup) if setup.status != Status::Ok => {
                Some(row(setup.status, &setup.name, &setup.message))
            }
            Event::Fetch(fetch) if fetch.status != Status::Ok => Some(row(
                fetch.status,
                &format!("fetch {}", fetch.path),
                &fetch.message,
            )),
            Event::Output(output) if self.output => Some(output.line.clone()),
            Event::Test(test) => {
                let mut details: Vec<_> = COUNTERS
                    .iter()
                    .filter_map(|(key, one, several)| match *test.counters.get(*key)? {
                        0 => None,
                        1 => Some(format!("1 {one}")),
                        count => Some(format!("{count} {several}")),
                    })
                    .collect();
                details.extend((!test.message.is_empty()).then(|| test.message.clone()));
                if test.micros > 0 {
                    details.push(duration(test.micros));
                }
                Some(row(test.status, &test.name, &details.join(", ")))
            }
            // A step with tests is shown by its tests.
            Event::Step(step)
                if step.status != Status::Ok || self.steps && self.heading.is_some() =>
            {
                let time = duration(step.micros);
                let message = if step.message.is_empty() {
                    time
                } else {
                    format!("{}, {time}", step.message)
                };
                Some(row(step.status, &step.name, &message))
            }
            _ => None,
        }
    }
}

fn row(status: Status, name: &str, details: &str) -> String {
    let mark = match status {
        Status::Ok => "ok    ",
        Status::Failed => "FAILED",
        Status::Skipped => "skipped",
    };
    format!("  {mark}  {name:<NAME_WIDTH$}  {details}")
        .trim_end()
        .to_owned()
}

/// A duration in a unit with few digits.
pub fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{}.{} s", micros / 1_000_000, micros % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(renderer: &mut Renderer, event: &str) -> Vec<String> {
        renderer.lines(&Event::parse(event).unwrap())
    }

    #[test]
    fn a_test_shows_its_counters_and_time() {
        let lines = shown(
            &mut Renderer::new(false, false),
            r#"{"event":"test","name":"heap","status":"ok","micros":1500,
                "counters":{"page_requests":1,"translation_requests":2,"invalidations":0}}"#,
        );
        assert!(lines[0].starts_with("  ok      heap "), "{lines:?}");
        assert!(
            lines[0].ends_with("2 translations, 1 page request, 1.5 ms"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_failure_is_always_shown() {
        for event in ["setup", "step", "test"] {
            let event =
                format!(r#"{{"event":"{event}","name":"n","status":"failed","message":"why"}}"#);
            let lines = shown(&mut Renderer::new(false, false), &event);
            assert!(
                lines[0].contains("FAILED") && lines[0].contains("why"),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn steps_are_shown_as_headings_of_their_tests_or_as_lines() {
        let begin = r#"{"event":"step_begin","name":"s"}"#;
        let test = r#"{"event":"test","name":"t","status":"ok"}"#;
        let end = r#"{"event":"step","name":"s","status":"ok"}"#;
        let mut renderer = Renderer::new(false, true);
        let mut all = |events: &[&str]| -> Vec<String> {
            events
                .iter()
                .flat_map(|event| shown(&mut renderer, event))
                .collect()
        };
        let with_tests = all(&[begin, test, test, end]);
        assert_eq!(with_tests.len(), 3, "{with_tests:?}");
        assert_eq!(with_tests[0], "s:");
        let without = all(&[begin, end]);
        assert_eq!(without.len(), 1, "{without:?}");
        assert!(without[0].starts_with("  ok      s "), "{without:?}");
    }

    #[test]
    fn output_is_shown_where_it_is_wanted() {
        let event = r#"{"event":"output","step":"s","line":"hello"}"#;
        assert!(shown(&mut Renderer::new(false, true), event).is_empty());
        assert_eq!(shown(&mut Renderer::new(true, false), event), ["hello"]);
    }

    #[test]
    fn durations_have_few_digits() {
        assert_eq!(duration(999), "999 µs");
        assert_eq!(duration(12_345), "12.3 ms");
        assert_eq!(duration(2_000_000), "2.0 s");
    }
}
