// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shows the events of a run to a person, as they come.

use svm_init::events::{Event, Status};

/// Counters worth a place on a line, and their names for one and for several. `results.json` has
/// them all.
const COUNTERS: &[(&str, &str, &str)] = &[
    ("translation_requests", "translation", "translations"),
    ("page_requests", "page request", "page requests"),
    ("invalidations", "invalidation", "invalidations"),
];

/// Width of the column of names.
const NAME_WIDTH: usize = 52;

/// What a person wants to see.
#[derive(Clone, Copy, Debug)]
pub struct Renderer {
    /// Lines that steps print, always.
    pub output: bool,
    /// Steps of a plan that has several.
    pub steps: bool,
}

impl Renderer {
    /// The line of an event, if it is worth one.
    pub fn line(&self, event: &Event) -> Option<String> {
        match event {
            Event::Setup(setup) if setup.status != Status::Ok => {
                Some(row(setup.status, &setup.name, &setup.message))
            }
            Event::StepBegin(step) if self.steps => Some(format!("- {}", step.name)),
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
            Event::Step(step) if self.steps || step.status != Status::Ok => {
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

/// A duration in the unit that gives few digits.
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

    fn line(renderer: Renderer, event: &str) -> Option<String> {
        renderer.line(&Event::parse(event).unwrap())
    }

    const QUIET: Renderer = Renderer {
        output: false,
        steps: false,
    };

    #[test]
    fn a_test_shows_its_counters_and_time() {
        let text = line(
            QUIET,
            r#"{"event":"test","name":"heap","status":"ok","micros":1500,
                "counters":{"page_requests":1,"translation_requests":2,"invalidations":0}}"#,
        )
        .unwrap();
        assert!(text.starts_with("  ok      heap "), "{text:?}");
        assert!(
            text.ends_with("2 translations, 1 page request, 1.5 ms"),
            "{text:?}"
        );
    }

    #[test]
    fn a_failure_is_always_shown() {
        for event in ["setup", "step", "test"] {
            let event =
                format!(r#"{{"event":"{event}","name":"n","status":"failed","message":"why"}}"#);
            let text = line(QUIET, &event).unwrap();
            assert!(text.contains("FAILED") && text.contains("why"), "{text:?}");
        }
    }

    #[test]
    fn output_is_shown_where_it_is_wanted() {
        let event = r#"{"event":"output","step":"s","line":"hello"}"#;
        assert_eq!(line(QUIET, event), None);
        assert_eq!(
            line(
                Renderer {
                    output: true,
                    ..QUIET
                },
                event
            )
            .as_deref(),
            Some("hello")
        );
    }

    #[test]
    fn durations_have_few_digits() {
        assert_eq!(duration(999), "999 µs");
        assert_eq!(duration(12_345), "12.3 ms");
        assert_eq!(duration(2_000_000), "2.0 s");
    }
}
