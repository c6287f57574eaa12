// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests in the guest, on each IOMMU, and what their runs left behind: the trace of the device
//! must agree with QEMU's own log of the same run.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::agreement;
use crate::launcher::Launcher;
use crate::parts::{Job, Part};
use crate::suite;
use crate::tally::Tally;

/// A guest that runs the test plan.
struct Guest {
    /// Name of the part of the tests.
    part: &'static str,
    /// The kernel, as `svm-vm` calls it.
    kernel: &'static str,
    iommu: &'static str,
    /// Name of the run.
    name: &'static str,
    /// How much is tried.
    scale: &'static str,
    /// Which groups of the tests, as `svm-vm` is told; all if nothing is said.
    groups: &'static [&'static str],
    /// Whether a test can have the device break a rule. What the driver does about it takes it half
    /// a minute, and has nothing to do with the IOMMU.
    laboratory: bool,
}

/// A guest that tries a little of everything, with QEMU's own unit.
const LITTLE: Guest = Guest {
    part: "intel-iommu",
    kernel: "stock",
    iommu: "intel-iommu",
    name: "test",
    scale: "0.1",
    groups: &[],
    laboratory: false,
};

/// A guest that tries some groups in full, with this project's.
const FULL: Guest = Guest {
    iommu: "svm-vtd",
    scale: "1",
    laboratory: true,
    ..LITTLE
};

/// The guests. All is tried in full on one IOMMU, by two guests, so that none takes as long as all
/// others together; and each test a little on the other.
const GUESTS: &[Guest] = &[
    Guest {
        part: "svm-vtd 1",
        name: "test-svm-vtd-1",
        groups: &["--group", "endings"],
        ..FULL
    },
    Guest {
        part: "svm-vtd 2",
        name: "test-svm-vtd-2",
        groups: &["--without-group", "endings"],
        ..FULL
    },
    LITTLE,
];

/// The guests with the kernel that watches the driver. It does all of this some ten times slower,
/// so each test tries a little.
const DEBUG_GUESTS: &[Guest] = &[
    Guest {
        kernel: "debug",
        name: "test-debug",
        ..LITTLE
    },
    Guest {
        part: "svm-vtd",
        kernel: "debug",
        iommu: "svm-vtd",
        name: "test-debug-svm-vtd",
        laboratory: true,
        ..LITTLE
    },
];

/// Seconds after which a guest hangs, however busy the host is.
pub const TIMEOUT: &str = "1800";
/// The same on the debug kernel.
const TIMEOUT_DEBUG: &str = "5400";

/// Two nodes of memory, so that pages can move between them. Both processors are of the first. Each
/// has room for a page of 1 GiB, aligned, beside what the kernel takes for itself as it boots.
const NODES: &[&str] = &[
    "-object",
    "memory-backend-ram,id=node0,size=2G",
    "-object",
    "memory-backend-ram,id=node1,size=2G",
    "-numa",
    "node,nodeid=0,cpus=0-1,memdev=node0",
    "-numa",
    "node,nodeid=1,memdev=node1",
];

/// A page of 1 GiB is set aside while there is one in a piece.
const HUGE_PAGE: &str = "hugepagesz=1G hugepages=1";

/// The messages of a case are read when it has ended, and the debug kernel has many: room for them
/// all.
const LOG: &str = "log_buf_len=16M";

/// What the guest does that binds the driver at each place: no memory may be lost, either.
const BIND: &str = "leaks=/sys/kernel/debug/kmemleak; \
    echo scan=off >$leaks && echo scan >$leaks && echo clear >$leaks && \
    svmctl test --scale 10 'the driver takes the function' && sleep 6 && \
    echo scan >$leaks && echo scan >$leaks && cat $leaks >/tmp/leaks && cat /tmp/leaks && \
    ! test -s /tmp/leaks";

/// How many of the host's processors a guest with two of its own keeps busy.
pub const LOAD: usize = 1;

/// The guest's test plan, once on each IOMMU. The one that takes longest comes first.
pub fn jobs(launcher: &Launcher) -> Vec<Job<'_>> {
    let job =
        |guest: &'static Guest| Job::new(guest.part, LOAD, move |part| plan(launcher, part, guest));
    GUESTS.iter().map(job).collect()
}

/// The same on the debug kernel. Then one guest that only has the driver bound with a failure at
/// each place, not at some: a function of two vectors has few enough.
pub fn debug_jobs(launcher: &Launcher) -> Vec<Job<'_>> {
    let job =
        |guest: &'static Guest| Job::new(guest.part, LOAD, move |part| plan(launcher, part, guest));
    let mut jobs: Vec<Job> = DEBUG_GUESTS.iter().map(job).collect();
    jobs.push(Job::new("binding", LOAD, |part| {
        part.line("# the driver's binding, at each place where it can fail");
        let name = "test-debug-bind";
        let mut arguments = vec!["run", "--exec", BIND, "--kernel", "debug", "--name", name];
        arguments.extend(["--device-option", "contexts=2"]);
        arguments.extend(["--timeout", TIMEOUT_DEBUG, "--append", LOG]);
        let succeeded = launcher.shown(part, &arguments)?;
        totals(
            launcher,
            part,
            name,
            &["guest", "debug", "intel-iommu"],
            succeeded,
        )
    }));
    jobs
}

/// One boot, and in it the demonstration's cases, and with `only` those and the tests whose name
/// contains it. Without any no guest is started.
///
/// # Errors
///
/// `svm-vm` or `svmctl` do not start, or the run leaves no results.
pub fn check(launcher: &Launcher, part: &mut Part, only: Option<&str>) -> anyhow::Result<()> {
    let name = "check";
    let mut arguments = vec!["run", "--name", name, "--iommu", "intel-iommu"];
    let line = match only {
        None => None,
        Some(text) => {
            let line = filtered(launcher, text)?;
            if line.is_empty() {
                part.line(format_args!(
                    "# no test of the guest has {text:?} in its name"
                ));
                return Ok(());
            }
            Some(line)
        }
    };
    match &line {
        None => arguments.extend(["--plan", "demo"]),
        Some(line) => arguments.extend(["--exec", line]),
    }
    let succeeded = launcher.shown(part, &arguments)?;
    totals(
        launcher,
        part,
        name,
        &["guest", "stock", "intel-iommu"],
        succeeded,
    )
}

/// The line of shell that runs the guest's cases whose name contains `text`; empty if there are
/// none. The guest's `svmctl` runs here as well, and tells.
fn filtered(launcher: &Launcher, text: &str) -> anyhow::Result<String> {
    let mut commands = Vec::new();
    for suite in ["demo", "test"] {
        let output = Command::new(launcher.svmctl())
            .args([suite, "--list", "--json"])
            .stderr(Stdio::inherit())
            .output()
            .context("svmctl did not start")?;
        ensure!(output.status.success(), "svmctl {suite} --list failed");
        let list = String::from_utf8_lossy(&output.stdout);
        if !matching(&list, text)?.is_empty() {
            commands.push(format!("svmctl {suite} {}", shlex::try_quote(text)?));
        }
    }
    // Both run, whether or not the first fails.
    Ok(match &commands[..] {
        [demo, test] => format!("{demo}; first=$?; {test} && exit $first"),
        rest => rest.concat(),
    })
}

/// The cases of a list, a JSON object a line, whose name contains `text`.
fn matching(list: &str, text: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for line in list.lines() {
        let case: Value = serde_json::from_str(line)
            .with_context(|| format!("svmctl lists a case that is none: {line}"))?;
        let name = case["name"].as_str().context("a case without a name")?;
        if name.contains(text) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// Runs the test plan on one IOMMU.
fn plan(launcher: &Launcher, part: &mut Part, guest: &Guest) -> anyhow::Result<()> {
    let dir = launcher.run_dir(guest.name);
    let log = dir.join("qemu.log");
    let log_argument = log.to_str().context("the checkout's path is not UTF-8")?;
    // Only QEMU's own unit writes QEMU's trace events.
    let compared = guest.iommu == "intel-iommu";
    let mut arguments = vec!["run", "--plan", "test"];
    if guest.kernel == "debug" {
        arguments.extend(["--timeout", TIMEOUT_DEBUG, "--append", LOG]);
    } else {
        arguments.extend(["--timeout", TIMEOUT]);
    }
    arguments.extend(["--kernel", guest.kernel]);
    arguments.extend(["--name", guest.name, "--iommu", guest.iommu]);
    arguments.extend(["--scale", guest.scale, "--memory", "4G", "--cpus", "2"]);
    arguments.extend(["--append", HUGE_PAGE]);
    arguments.extend(guest.groups);
    if guest.laboratory {
        arguments.extend(["--device-option", "lab=on"]);
    }
    arguments.extend(compared.then_some("--trace"));
    arguments.push("--");
    arguments.extend(NODES);
    if compared {
        arguments.extend(["-trace", "vtd_inv_desc", "-D", log_argument]);
    }
    let succeeded = launcher.shown(part, &arguments)?;
    let on = ["guest", guest.kernel, guest.iommu];
    totals(launcher, part, guest.name, &on, succeeded)?;
    // Rule 8 is about the place of the function: a guest of its own has it.
    if guest.kernel == "stock" && guest.groups.is_empty() {
        let bench = format!("guest-{}", guest.iommu);
        part.test("the cases judge the rules that need Linux", |_| {
            let rules = (1..=suite::RULES).filter(|rule| *rule != 8);
            suite::judged(&bench, rules, &dir.join("results.json"))
        });
    }
    if compared {
        part.test("the trace agrees with QEMU's log", |_| {
            agreement::of_files(&dir.join("trace.json"), &log)
        });
    }
    Ok(())
}

/// Takes in what a run that has ended left. `on` says in words what it ran on.
///
/// # Errors
///
/// The run left no results.
pub fn totals(
    launcher: &Launcher,
    part: &mut Part,
    name: &str,
    on: &[&str],
    succeeded: bool,
) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(launcher.run_dir(name).join("results.json"))
        .context("the guest's run left no results.json")?;
    let results = Results::parse(&text)?;
    part.count(Tally {
        skipped: 0,
        ..results.tally
    });
    ensure!(
        results.skipped.len() as u64 == results.tally.skipped,
        "{} tests were skipped, and {} are named in results.json",
        results.tally.skipped,
        results.skipped.len()
    );
    for (test, reason) in &results.skipped {
        part.skipped(on, test, reason);
    }
    for (test, message) in results.failed {
        part.record_failure(format_args!("{test}: {message}"));
    }
    for (test, time) in results.times {
        part.took(test, time);
    }
    if !succeeded && results.tally.failed == 0 {
        part.fail("svm-vm run failed although no test did");
    }
    Ok(())
}

/// What a run's `results.json` states.
#[derive(Debug, PartialEq)]
struct Results {
    tally: Tally,
    /// Tests that were skipped, and why.
    skipped: Vec<(String, String)>,
    /// What failed, and how: tests, steps, and the run itself.
    failed: Vec<(String, String)>,
    /// How long each test took; a step without tests is one.
    times: Vec<(String, Duration)>,
}

impl Results {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let results: Value = serde_json::from_str(text)?;
        let field = |name: &str| {
            results[name]
                .as_u64()
                .with_context(|| format!("results.json has no number `{name}`"))
        };
        let tally = Tally {
            passed: field("passed")?,
            failed: field("failed")?,
            skipped: field("skipped")?,
        };
        let text = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
        let (mut skipped, mut failed, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let steps = results["steps"].as_array();
        for step in steps.context("results.json has no list `steps`")? {
            let named = |of: &Value| (text(of, "name"), text(of, "message"));
            let tests = list(step, "tests");
            let several = if tests.is_empty() {
                std::slice::from_ref(step)
            } else {
                tests
            };
            let before = failed.len();
            for test in several {
                let micros = test["micros"].as_u64().unwrap_or_default();
                times.push((text(test, "name"), Duration::from_micros(micros)));
                match test["status"].as_str() {
                    Some("skipped") => skipped.push(named(test)),
                    Some("failed") => failed.push(named(test)),
                    _ => {}
                }
            }
            // Its end counts if none of its tests failed.
            if step["status"] == "failed" && failed.len() == before {
                failed.push(named(step));
            }
        }
        let of_run = |message: String| ("the run".to_owned(), message);
        for (key, name) in [("setup", "name"), ("fetched", "path")] {
            let of_key = list(&results, key).iter();
            let of_key = of_key.filter(|entry| entry["status"] == "failed");
            failed.extend(of_key.map(|entry| (text(entry, name), text(entry, "message"))));
        }
        let troubles = list(&results, "troubles").iter();
        failed.extend(troubles.map(|trouble| of_run(text(trouble, "line"))));
        let failures = list(&results, "failures").iter();
        failed.extend(failures.map(|why| of_run(why.as_str().unwrap_or_default().to_owned())));
        Ok(Results {
            tally,
            skipped,
            failed,
            times,
        })
    }
}

/// A list of a JSON object; empty if it has none of the name.
fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
    of[name].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_beside_the_tests_is_told_too() {
        let text = r#"{"passed":1,"failed":5,"skipped":0,"steps":[
            {"name":"a step","status":"failed","message":"did not end within 9 s","micros":5,
             "tests":[{"name":"one","status":"ok","micros":2}]}],
            "setup":[{"name":"load","status":"failed","message":"no such file"},
                     {"name":"mount","status":"ok"}],
            "fetched":[{"path":"/a","status":"failed","message":"not there"}],
            "troubles":[{"kind":"warning","line":"WARNING: at x"}],
            "failures":["L2 hung in its step"]}"#;
        let failed = Results::parse(text).unwrap().failed;
        let failed: Vec<_> = failed.iter().map(|(a, b)| format!("{a}: {b}")).collect();
        assert_eq!(
            failed,
            [
                "a step: did not end within 9 s",
                "load: no such file",
                "/a: not there",
                "the run: WARNING: at x",
                "the run: L2 hung in its step"
            ]
        );
    }

    #[test]
    fn results_tell_what_was_skipped_and_how_long_all_took() {
        let text = r#"{"passed":1,"failed":1,"skipped":1,"steps":[
            {"name":"a step","status":"ok","micros":5,"tests":[
                {"name":"one","status":"ok","micros":2000000},
                {"name":"two","status":"skipped","message":"no swap"}]},
            {"name":"another","status":"failed","message":"ended","micros":7,"tests":[]}]}"#;
        let results = Results::parse(text).unwrap();
        assert_eq!(results.tally.tests(), 3);
        assert_eq!(results.skipped, [("two".to_owned(), "no swap".to_owned())]);
        assert_eq!(results.failed, [("another".to_owned(), "ended".to_owned())]);
        let times: Vec<_> = results.times.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(times, ["one", "two", "another"]);
        assert_eq!(results.times[0].1, Duration::from_secs(2));
        assert!(Results::parse(r#"{"passed":2,"failed":0}"#).is_err());
    }

    #[test]
    fn cases_are_found_by_a_part_of_their_name() {
        let list = r#"{"group":"demo","name":"heap buffer read"}
{"group":"demo","name":"stack variable"}"#;
        assert_eq!(matching(list, "heap").unwrap(), ["heap buffer read"]);
        assert!(matching(list, "nothing").unwrap().is_empty());
        assert!(matching("demo:\n", "heap").is_err());
    }
}
