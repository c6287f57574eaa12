// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges how a run ended, and its exit status. Pure functions.

use std::time::Duration;

use super::console::Kind;
use super::follow::Ending;
use super::results::{BadEnd, Results};
use svm_init::events::Status;

/// A program that a signal ended has this plus the signal's number as its exit status.
const SIGNAL_STATUS: i32 = 128;

/// Exit status of `run --exec` if the guest exceeded its time, like that of `timeout`.
const TIMED_OUT: u8 = 124;

/// Exit status of `run --exec` for failures outside of the command: a guest that could not be
/// prepared or that died, a kernel in trouble.
pub const NOT_THE_COMMAND: u8 = 125;

/// The exit status for an end by a signal.
pub fn by_signal(signal: i32) -> u8 {
    u8::try_from(SIGNAL_STATUS + signal).unwrap_or(u8::MAX)
}

/// The exit status of a run: whether all passed, or how the command of `--exec` ended.
pub fn status(results: &Results, ending: &Ending, is_exec: bool) -> u8 {
    match ending {
        Ending::Interrupted(signal) => by_signal(*signal as i32),
        _ if !is_exec => u8::from(results.failed > 0),
        _ if results.bad_end == Some(BadEnd::Hung) => TIMED_OUT,
        _ if results.failed_by_itself() => NOT_THE_COMMAND,
        _ => match results.last_end() {
            // A command that failed has itself reported why it left no files.
            Some((Some(0), _)) if results.lacks_fetched() => NOT_THE_COMMAND,
            Some((Some(exit), _)) => u8::try_from(exit).unwrap_or(u8::MAX),
            Some((None, Some(signal))) => by_signal(signal),
            _ => NOT_THE_COMMAND,
        },
    }
}

/// What was found of a guest's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A processor came to a triple fault.
    TripleFault,
    /// Where a machine is that did not end in time.
    Hang(String),
}

/// Adds the end of the guest to the results.
pub fn ending(results: &mut Results, ending: &Ending, timeout: Duration, found: &Found) {
    let at = match (results.under_way(), &results.kernel) {
        (Some(step), _) => format!("in the step {step:?}"),
        (None, None) => "before the guest was up".to_owned(),
        (None, Some(_)) => "between the steps".to_owned(),
    };
    let panicked = results
        .troubles
        .iter()
        .any(|trouble| trouble.kind == Kind::Panic);
    match ending {
        Ending::Interrupted(signal) => results.fail(format!("interrupted by {signal} {at}")),
        Ending::Exited(status) if !status.success() => {
            results.fail(format!("QEMU died ({status}) {at}"));
        }
        // The panic itself is already counted.
        Ending::Exited(_) if results.ended() || panicked => {}
        Ending::Exited(_) => {
            let why = match found {
                Found::TripleFault => {
                    results.bad_end = Some(BadEnd::TripleFault);
                    ": a processor came to a triple fault"
                }
                _ => "",
            };
            results.fail(format!(
                "the guest ended {at}, without coming to the end of its plan{why}"
            ));
        }
        Ending::TimedOut if !results.ended() && (panicked || !results.failures.is_empty()) => {}
        Ending::TimedOut => {
            let (end, what) = if results.ended() {
                let what = "the guest did not power off after its plan".to_owned();
                (BadEnd::NotPoweredOff, what)
            } else {
                let limit = timeout.as_secs();
                let what = format!("the guest hung {at}: no end within {limit} s");
                (BadEnd::Hung, what)
            };
            let place = match found {
                Found::Hang(place) => place,
                _ => "",
            };
            results.bad_end = Some(end);
            results.fail(format!("{what}: {place}"));
        }
    }
}

/// Adds the end of the second-level guest to its results, and the failures of the first. `step` is
/// the step of the first guest in which the second runs.
pub fn levels(first: &mut Results, second: &mut Results, step: &str) {
    of_level(first, second, step, "L2");
    let mut failures: Vec<_> = first.failures.clone();
    failures.extend(first.troubles.iter().map(|trouble| trouble.line.clone()));
    let setup = first
        .setup
        .iter()
        .map(|setup| (&setup.name, setup.status, &setup.message));
    let steps = first.steps.iter().map(|ended| &ended.end);
    let steps = steps.map(|end| (&end.name, end.status, &end.message));
    failures.extend(
        setup
            .chain(steps)
            .filter(|(name, status, _)| *status == Status::Failed && *name != step)
            .map(|(name, _, message)| format!("{name}: {message}")),
    );
    for failure in failures {
        second.fail(format!("L1: {failure}"));
    }
}

/// Adds the end of a neighbour to its results, and those to the results of the second-level guest.
pub fn neighbour(first: &Results, second: &mut Results, neighbour: &mut Results, step: &str) {
    let came_to_its_end = neighbour.ended();
    if !came_to_its_end {
        of_level(first, neighbour, step, "it");
    }
    let failed = neighbour.steps.iter().map(|step| &step.end);
    let failed = failed.filter(|end| end.status == Status::Failed);
    let failed = failed.map(|end| format!("{}: {}", end.name, end.message));
    let troubles = neighbour
        .troubles
        .iter()
        .map(|trouble| trouble.line.clone());
    let failures = neighbour.failures.iter().cloned();
    for failure in failures.chain(troubles).chain(failed) {
        second.fail(format!("the neighbour: {failure}"));
    }
    neighbour.close();
}

/// Adds the end of a guest inside of the first one to its results.
fn of_level(first: &Results, second: &mut Results, step: &str, level: &str) {
    let of_step = first.steps.iter().find(|ended| ended.end.name == step);
    let why = of_step.map(|ended| ended.end.message.as_str());
    let at = match (second.under_way(), &second.kernel) {
        (Some(step), _) => format!("in its step {step:?}"),
        (None, None) => "before it was up".to_owned(),
        (None, Some(_)) if second.ended() => "after its plan".to_owned(),
        (None, Some(_)) => "between its steps".to_owned(),
    };
    let panicked = |results: &Results| {
        let mut troubles = results.troubles.iter();
        troubles.any(|trouble| trouble.kind == Kind::Panic)
    };
    match why {
        // Its panic is already counted.
        Some("") if second.ended() || panicked(second) => {}
        Some("") => second.fail(format!(
            "{level} ended {at}, without coming to the end of its plan"
        )),
        Some(why) if why.contains("did not end within") => {
            second.bad_end = Some(match second.ended() {
                true => BadEnd::NotPoweredOff,
                false => BadEnd::Hung,
            });
            second.fail(format!("{level} hung {at}: it {why}"));
        }
        Some(why) => second.fail(format!("{level}'s QEMU died {at}: {why}")),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use nix::sys::signal::Signal;
    use svm_init::events::Event;

    use super::super::console::Trouble;
    use super::*;

    const READY: &str =
        r#"{"event":"ready","kernel":"7","uptime_micros":1,"cpus":1,"memory_kib":1}"#;
    const BEGIN: &str = r#"{"event":"step_begin","name":"a"}"#;
    const OK: &str = r#"{"event":"step","name":"a","status":"ok","exit":0}"#;
    const EXIT_22: &str = r#"{"event":"step","name":"a","status":"failed","exit":22}"#;
    const KILLED: &str = r#"{"event":"step","name":"a","status":"failed","signal":9}"#;
    const NO_DRIVER: &str = r#"{"event":"setup","name":"load","status":"failed"}"#;
    const END: &str = r#"{"event":"end","uptime_micros":1}"#;

    fn fed(lines: &[&str]) -> Results {
        let mut results = Results::new("n", "p");
        for line in lines {
            results.take(Event::parse(line).unwrap());
        }
        results
    }

    fn exited(raw: i32) -> Ending {
        Ending::Exited(ExitStatus::from_raw(raw))
    }

    fn hang() -> Found {
        Found::Hang("processor 0".to_owned())
    }

    /// The messages about the end of a run with these events.
    fn said(lines: &[&str], end: Ending) -> Vec<String> {
        let mut results = fed(lines);
        ending(&mut results, &end, Duration::from_secs(7), &hang());
        results.failures
    }

    /// The exit statuses of a run with these events: of a plan, and of a command.
    fn statuses(lines: &[&str], end: Ending) -> (u8, u8) {
        let mut results = fed(lines);
        ending(&mut results, &end, Duration::from_secs(7), &hang());
        results.close();
        (status(&results, &end, false), status(&results, &end, true))
    }

    #[test]
    fn a_whole_run_has_nothing_to_be_said() {
        assert!(said(&[READY, BEGIN, OK, END], exited(0)).is_empty());
    }

    #[test]
    fn an_end_is_told_with_its_place() {
        for (lines, end, text) in [
            (&[][..], exited(0), "before the guest was up"),
            (&[READY], exited(0), "between the steps"),
            (&[READY, BEGIN], exited(0), "in the step \"a\""),
            (
                &[READY, BEGIN],
                exited(9),
                "QEMU died (signal: 9 (SIGKILL)) in",
            ),
            (
                &[READY, BEGIN, OK, END],
                exited(256),
                "QEMU died (exit status: 1)",
            ),
            (
                &[READY, BEGIN],
                Ending::TimedOut,
                "the guest hung in the step \"a\": no end within 7 s: processor 0",
            ),
            (&[READY, END], Ending::TimedOut, "did not power off"),
            (
                &[READY],
                Ending::Interrupted(Signal::SIGTERM),
                "interrupted by SIGTERM between",
            ),
        ] {
            let said = said(lines, end);
            assert!(
                said.len() == 1 && said[0].contains(text),
                "{text}: {said:?}"
            );
        }
    }

    #[test]
    fn a_guest_that_ended_before_its_plan_has_a_reason_if_one_is_known() {
        let triple = Some(BadEnd::TripleFault);
        for (found, end, text) in [
            (Found::Nothing, None, "of its plan"),
            (
                Found::TripleFault,
                triple,
                "of its plan: a processor came to a triple fault",
            ),
        ] {
            let mut results = fed(&[READY]);
            ending(&mut results, &exited(0), Duration::ZERO, &found);
            assert!(results.failures[0].ends_with(text), "{results:?}");
            assert_eq!(results.bad_end, end);
        }
    }

    #[test]
    fn a_guest_that_does_not_end_has_a_bad_end() {
        let end = |lines: &[&str]| {
            let mut results = fed(lines);
            ending(&mut results, &Ending::TimedOut, Duration::ZERO, &hang());
            results.bad_end
        };
        assert_eq!(end(&[READY, BEGIN]), Some(BadEnd::Hung));
        assert_eq!(end(&[READY, END]), Some(BadEnd::NotPoweredOff));
    }

    #[test]
    fn a_panic_is_told_once() {
        for end in [exited(0), Ending::TimedOut] {
            let mut results = fed(&[READY, BEGIN]);
            results.trouble(Trouble {
                kind: Kind::Panic,
                line: "Kernel panic".into(),
            });
            ending(&mut results, &end, Duration::ZERO, &hang());
            assert_eq!((results.failed, results.failures.len()), (1, 0));
            assert_eq!(status(&results, &end, true), NOT_THE_COMMAND);
        }
    }

    #[test]
    fn the_status_of_a_command_is_its_own() {
        let run = |step| statuses(&[READY, BEGIN, step, END], exited(0));
        assert_eq!(run(OK), (0, 0));
        assert_eq!(run(EXIT_22), (1, 22));
        assert_eq!(run(KILLED), (1, 137));
    }

    #[test]
    fn what_a_command_did_not_leave_counts_where_it_says_that_all_went_well() {
        let lost = r#"{"event":"fetch","path":"/x","status":"failed","message":"m"}"#;
        let run = |step| statuses(&[READY, BEGIN, step, lost, END], exited(0));
        assert_eq!(run(OK), (1, 125));
        assert_eq!(run(EXIT_22), (1, 22));
    }

    #[test]
    fn what_is_not_the_commands_fault_has_a_status_of_its_own() {
        let whole = [READY, NO_DRIVER, BEGIN, OK, END];
        assert_eq!(statuses(&whole, exited(0)), (1, 125));
        assert_eq!(statuses(&[READY, BEGIN], exited(0)), (1, 125));
        assert_eq!(statuses(&[READY, BEGIN, EXIT_22, END], exited(9)), (1, 125));
        assert_eq!(statuses(&[READY, BEGIN], Ending::TimedOut), (1, 124));
        let signal = Ending::Interrupted(Signal::SIGINT);
        assert_eq!(statuses(&[READY, BEGIN], signal), (130, 130));
        let mut results = fed(&[READY, BEGIN, EXIT_22, END]);
        results.trouble(Trouble {
            kind: Kind::Warning,
            line: "WARNING:".into(),
        });
        assert_eq!(status(&results, &exited(0), true), 125);
    }

    const HOST: &str = r#"{"event":"step_begin","name":"guest"}"#;

    /// The second level with these events, in a first level whose step ended so.
    fn of_levels(second: &[&str], step: &str, panicked: bool) -> Results {
        let step = format!(r#"{{"event":"step","name":"guest",{step}}}"#);
        let mut first = fed(&[READY, HOST, &step, END]);
        let mut second = fed(second);
        if panicked {
            second.trouble(Trouble {
                kind: Kind::Panic,
                line: "Kernel panic".into(),
            });
        }
        ending(
            &mut first,
            &exited(0),
            Duration::from_secs(7),
            &Found::Nothing,
        );
        levels(&mut first, &mut second, "guest");
        second
    }

    /// What is said of it.
    fn levels_said(second: &[&str], step: &str, panicked: bool) -> Vec<String> {
        of_levels(second, step, panicked).failures
    }

    #[test]
    fn it_is_said_which_level_ended_and_where() {
        let ok = r#""status":"ok","exit":0"#;
        let killed = r#""status":"failed","signal":6,"message":"killed by SIGABRT""#;
        let late = r#""status":"failed","message":"did not end within 5 s""#;
        assert!(levels_said(&[READY, BEGIN, OK, END], ok, false).is_empty());
        assert!(levels_said(&[READY, BEGIN], ok, true).is_empty());
        for (second, step, text) in [
            (
                &[READY, BEGIN][..],
                ok,
                "L2 ended in its step \"a\", without coming to the end of its plan",
            ),
            (
                &[],
                killed,
                "L2's QEMU died before it was up: killed by SIGABRT",
            ),
            (
                &[READY, BEGIN, OK],
                late,
                "L2 hung between its steps: it did not end within 5 s",
            ),
            (
                &[READY, BEGIN, OK, END],
                killed,
                "L2's QEMU died after its plan: killed by SIGABRT",
            ),
        ] {
            assert_eq!(levels_said(second, step, false), [text]);
        }
        let end = |second| of_levels(second, late, false).bad_end;
        assert_eq!(end(&[READY, BEGIN]), Some(BadEnd::Hung));
        assert_eq!(end(&[READY, END]), Some(BadEnd::NotPoweredOff));
        assert_eq!(of_levels(&[READY, BEGIN], killed, false).bad_end, None);
    }

    #[test]
    fn what_fails_in_the_neighbour_fails_the_second() {
        let step = r#"{"event":"step","name":"guest","status":"ok","exit":0}"#;
        let first = fed(&[READY, HOST, step, END]);
        let said = |events: &[&str]| {
            let (mut second, mut beside) = (fed(&[READY, BEGIN, OK, END]), fed(events));
            neighbour(&first, &mut second, &mut beside, "guest");
            second.failures
        };
        assert!(said(&[READY, BEGIN, OK, END]).is_empty());
        assert_eq!(said(&[READY, BEGIN, EXIT_22, END]), ["the neighbour: a: "]);
        assert_eq!(
            said(&[READY, BEGIN]),
            [
                "the neighbour: it ended in its step \"a\", without coming to the end of its \
                 plan"
            ]
        );
    }

    #[test]
    fn what_fails_in_the_first_level_fails_the_second() {
        let mut first = fed(&[READY, BEGIN, EXIT_22]);
        first.trouble(Trouble {
            kind: Kind::Warning,
            line: "WARNING: x".into(),
        });
        ending(
            &mut first,
            &exited(9),
            Duration::from_secs(7),
            &Found::Nothing,
        );
        let mut second = fed(&[]);
        levels(&mut first, &mut second, "guest");
        assert_eq!(
            second.failures,
            [
                "L1: QEMU died (signal: 9 (SIGKILL)) between the steps",
                "L1: WARNING: x",
                "L1: a: "
            ]
        );
        assert_eq!(second.failed, 3);
    }
}
