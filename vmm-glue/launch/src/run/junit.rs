// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results of a run as JUnit XML, for continuous integration. One suite for each step, one case
//! for each test; a step without tests is a case itself.

use std::time::Duration;

use anyhow::{Context as _, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite, XmlString};
use svm_init::events::Status;

use super::results::{Results, StepResult};

/// The suite of failures outside of all steps.
const RUN: &str = "the run as a whole";

/// The report of a run.
pub fn report(results: &Results) -> Result<String> {
    let mut report = Report::new(format!("svm-vm {}", results.name));
    report.set_time(Duration::from_secs_f64(results.seconds));
    let class = |step: &str| format!("svm-vm.{}.{step}", results.plan);
    for step in &results.steps {
        report.add_test_suite(suite(step, &class(&step.end.name)));
    }
    let run = run(results, &class(RUN));
    if run.tests > 0 {
        report.add_test_suite(run);
    }
    let text = report.to_string().context("the results are no XML")?;
    Ok(text)
}

/// A step and its tests. Its output belongs to all of them.
fn suite(step: &StepResult, class: &str) -> TestSuite {
    let mut suite = TestSuite::new(step.end.name.as_str());
    suite.set_time(Duration::from_micros(step.end.micros));
    for test in &step.tests {
        let mut case = case(
            &test.name,
            class,
            test.status,
            &test.message,
            Duration::from_micros(test.micros),
        );
        let counters = test.counters.iter();
        let lines: Vec<_> = counters.map(|(key, n)| format!("{key} {n}")).collect();
        if !lines.is_empty() {
            case.set_system_out(lines.join("\n"));
        }
        suite.add_test_case(case);
    }
    let a_test_failed = step.tests.iter().any(|test| test.status == Status::Failed);
    if step.tests.is_empty() || step.end.status == Status::Failed && !a_test_failed {
        let time = Duration::from_micros(step.end.micros);
        let end = &step.end;
        let mut case = case(&end.name, class, end.status, &end.message, time);
        if !step.output.is_empty() {
            case.set_system_out(step.output.join("\n"));
        }
        suite.add_test_case(case);
    }
    if !step.output.is_empty() {
        suite.set_system_out(step.output.join("\n"));
    }
    suite
}

/// The failures outside of all steps: preparations in the guest, its kernel, the run itself.
fn run(results: &Results, class: &str) -> TestSuite {
    let mut suite = TestSuite::new(RUN);
    for setup in &results.setup {
        // A preparation that passed is not a test.
        if setup.status != Status::Ok {
            suite.add_test_case(case(
                &setup.name,
                class,
                setup.status,
                &setup.message,
                Duration::from_micros(setup.micros),
            ));
        }
    }
    let troubles = results.troubles.iter();
    let troubles = troubles.map(|trouble| (trouble.kind.describe(), &trouble.line));
    let failures = results.failures.iter().map(|reason| ("the run", reason));
    for (name, reason) in troubles.chain(failures) {
        let failed = case(name, class, Status::Failed, reason, Duration::ZERO);
        suite.add_test_case(failed);
    }
    suite
}

fn case(name: &str, class: &str, status: Status, message: &str, time: Duration) -> TestCase {
    let status = match status {
        Status::Ok => TestCaseStatus::success(),
        Status::Failed => {
            let mut failed = TestCaseStatus::non_success(NonSuccessKind::Failure);
            failed.set_message(message).set_type("failed");
            failed
        }
        Status::Skipped => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message(message);
            skipped
        }
    };
    let mut case = TestCase::new(name, status);
    case.set_classname(XmlString::new(class)).set_time(time);
    case
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quick_xml::Reader;
    use quick_xml::events::{BytesStart, Event as Xml};
    use svm_init::events::Event;

    use super::super::console::{Kind, Trouble};
    use super::*;

    /// An element: its name, its attributes, and the names of its ancestors.
    #[derive(Debug)]
    struct Element {
        name: String,
        within: Vec<String>,
        attributes: BTreeMap<String, String>,
    }

    fn element(start: &BytesStart, within: &[String]) -> Element {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Element {
            name: text(start.name().as_ref()),
            within: within.to_vec(),
            attributes: start
                .attributes()
                .map(|attribute| {
                    let attribute = attribute.unwrap();
                    let value = attribute.unescape_value().unwrap().into_owned();
                    (text(attribute.key.as_ref()), value)
                })
                .collect(),
        }
    }

    fn elements(xml: &str) -> Vec<Element> {
        let mut reader = Reader::from_str(xml);
        let (mut found, mut within) = (Vec::new(), Vec::new());
        loop {
            match reader.read_event().unwrap() {
                Xml::Start(start) => {
                    let element = element(&start, &within);
                    within.push(element.name.clone());
                    found.push(element);
                }
                Xml::Empty(start) => found.push(element(&start, &within)),
                Xml::End(_) => drop(within.pop()),
                Xml::Eof => return found,
                _ => {}
            }
        }
    }

    /// Checks the format that readers of JUnit XML rely on: the nesting, the required attributes,
    /// and that the totals match the cases.
    fn check(xml: &str) -> Result<(), String> {
        let elements = elements(xml);
        let mut names = Vec::new();
        for element in &elements {
            let (inside, needed): (&[&str], &[&str]) = match element.name.as_str() {
                "testsuites" => (&[], &["name", "tests", "failures", "errors"]),
                "testsuite" => (
                    &["testsuites"],
                    &["name", "tests", "failures", "errors", "disabled"],
                ),
                "testcase" => (&["testsuites", "testsuite"], &["name", "classname", "time"]),
                "failure" => (
                    &["testsuites", "testsuite", "testcase"],
                    &["message", "type"],
                ),
                "skipped" => (&["testsuites", "testsuite", "testcase"], &["message"]),
                "system-out" => (&["testsuites", "testsuite"], &[]),
                other => return Err(format!("<{other}> is not known")),
            };
            let within = element.within.iter().map(String::as_str);
            if !within.take(inside.len()).eq(inside.iter().copied()) {
                return Err(format!("<{}> in {:?}", element.name, element.within));
            }
            for attribute in needed {
                if !element.attributes.contains_key(*attribute) {
                    return Err(format!("<{}> without {attribute}", element.name));
                }
            }
            names.push(element.name.as_str());
        }
        let count = |name: &str| names.iter().filter(|found| **found == name).count();
        let total = |attribute: &str| elements[0].attributes[attribute].parse::<usize>().unwrap();
        for (attribute, name) in [("tests", "testcase"), ("failures", "failure")] {
            if total(attribute) != count(name) {
                return Err(format!("{attribute} is {}", total(attribute)));
            }
        }
        Ok(())
    }

    fn results(lines: &[&str]) -> Results {
        let mut results = Results::new("a-run", "test");
        for line in lines {
            results.take(Event::parse(line).unwrap());
        }
        results
    }

    const LINES: &[&str] = &[
        r#"{"event":"setup","name":"load fuse","status":"ok"}"#,
        r#"{"event":"step_begin","name":"memory"}"#,
        r#"{"event":"output","step":"memory","line":"a < b & \u001b[1mbold\u001b[0m"}"#,
        r#"{"event":"test","name":"swap","status":"ok","micros":1500000,"counters":{"faults":3}}"#,
        r#"{"event":"test","name":"KSM","status":"skipped","message":"no KSM"}"#,
        r#"{"event":"test","name":"huge","status":"failed","message":"\"2 MiB\" <expected>"}"#,
        r#"{"event":"step","name":"memory","status":"failed","exit":1,"micros":2000000}"#,
        r#"{"event":"step_begin","name":"unload"}"#,
        r#"{"event":"step","name":"unload","status":"ok","exit":0,"micros":4}"#,
    ];

    #[test]
    fn each_test_is_a_case_with_its_time_message_and_reason() {
        let xml = report(&results(LINES)).unwrap();
        check(&xml).unwrap_or_else(|error| panic!("{error}:\n{xml}"));
        let elements = elements(&xml);
        let case = |name: &str| {
            let found = |element: &&Element| {
                element.name == "testcase" && element.attributes["name"] == name
            };
            elements.iter().position(|element| found(&element)).unwrap()
        };
        assert_eq!(elements[case("swap")].attributes["time"], "1.500");
        let reason = &elements[case("KSM") + 1];
        assert_eq!(reason.name, "skipped");
        assert_eq!(reason.attributes["message"], "no KSM");
        let message = &elements[case("huge") + 1];
        assert_eq!(message.name, "failure");
        assert_eq!(message.attributes["message"], "\"2 MiB\" <expected>");
        assert_eq!(
            elements[case("unload")].attributes["classname"],
            "svm-vm.test.unload"
        );
        assert!(xml.contains("a &lt; b &amp;"), "{xml}");
    }

    #[test]
    fn what_fails_outside_of_steps_is_a_case() {
        let mut results = results(LINES);
        results.take(
            Event::parse(
                r#"{"event":"setup","name":"swap","status":"failed","message":"no zram"}"#,
            )
            .unwrap(),
        );
        results.fail("the guest hung".into());
        results.trouble(Trouble {
            kind: Kind::Oops,
            line: "Oops: 0000".into(),
        });
        let xml = report(&results).unwrap();
        check(&xml).unwrap_or_else(|error| panic!("{error}:\n{xml}"));
        for text in ["the guest hung", "Oops: 0000", "no zram"] {
            assert!(xml.contains(text), "{xml}");
        }
        let failed = elements(&xml)[0].attributes["failures"].clone();
        assert_eq!(failed, results.failed.to_string());
    }

    #[test]
    fn a_step_that_fails_although_its_tests_passed_is_a_case() {
        let results = results(&[
            r#"{"event":"step_begin","name":"a"}"#,
            r#"{"event":"test","name":"t","status":"ok"}"#,
            r#"{"event":"step","name":"a","status":"failed","message":"exit status 1"}"#,
        ]);
        let xml = report(&results).unwrap();
        check(&xml).unwrap();
        assert!(xml.contains("exit status 1"), "{xml}");
        assert_eq!(elements(&xml)[0].attributes["tests"], "2");
    }

    #[test]
    fn the_check_of_the_form_finds_what_is_wrong() {
        let xml = report(&results(LINES)).unwrap();
        for (right, wrong) in [
            ("classname=", "class="),
            ("testsuites", "suites"),
            ("failures=\"1\"", "failures=\"2\""),
        ] {
            assert!(check(&xml.replace(right, wrong)).is_err(), "{wrong}");
        }
    }
}
