// SPDX-License-Identifier: MIT OR Apache-2.0
//! What takes long with a guest inside of a guest: the tests of driver and device there, every way in
//! which it can lose the function, memory that is taken away while the device works, with a host that
//! withholds the invalidations to see that this is noticed, and a neighbour that is hostile.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::launcher::Launcher;
use crate::levels::{SECOND, TRY, counted, has_tests, nested};
use crate::parts::{Job, Part};

/// How the second guest loses the function, and which tests have to be there.
const ENDINGS: &str = "tests/src/endings.sh";
const LOSSES: &[&str] = &[
    "the driver is unbound during a load",
    "the function is reset during a load",
    "the load is killed",
    "the function is unplugged during a load",
    "L1 takes the function away during a load",
    "L2 has rebooted during a load",
    "L2's QEMU was killed during a load",
];

/// What two second guests do, and what the one that checks says at its end.
const NEIGHBOURS: &str = "tests/src/neighbours.sh";
const ALL_RIGHT: &str = "rounds of the load, all right";

/// Memory is taken away in each of these ways while the device fills it.
const CHANGES: [&str; 4] = ["dropped", "unmapped", "forked", "swapped_out"];

/// A load of nothing but storms, and one of everything.
const STORMS: &str =
    "svmctl stress --mix nop --storm dropped,unmapped,forked --duration 20s --seed 1";
const LOAD: &str = "svmctl stress --duration 30s --seed 1 --json";

/// Seconds after which a run hangs, however busy the host is.
const TIMEOUT: &str = "1800";

/// How much of each test is tried: a process starts and ends a few times slower there.
const SCALE: &str = "0.1";

/// The units of the second guest.
const UNITS: [&str; 2] = ["svm-vtd", "intel-iommu"];

/// A part for each unit.
pub fn jobs(launcher: &Launcher) -> Vec<Job<'_>> {
    let job = |unit| Job::new(unit, 1, move |part| run(launcher, part, unit));
    UNITS.map(job).into()
}

/// The name of a run on a unit.
fn run_name(what: &str, unit: &str) -> String {
    match unit {
        "svm-vtd" => format!("test-l2-{what}"),
        unit => format!("test-l2-{what}-{unit}"),
    }
}

fn run(launcher: &Launcher, part: &mut Part, unit: &'static str) -> anyhow::Result<()> {
    let name = |what| run_name(what, unit);
    let on_unit = |options: &[&'static str]| [&["--l2-iommu", unit][..], options].concat();
    let results = |what| launcher.run_dir(&name(what)).join("results.json");
    let count = |part: &mut Part, what, options: &[&'static str]| {
        counted(launcher, part, &name(what), unit, &on_unit(options))
    };

    let script = [
        "--copy",
        ENDINGS,
        "--copy",
        SECOND,
        "--copy",
        TRY,
        "--exec",
        "sh endings.sh",
        "--l2-reboots",
    ];
    count(part, "endings", &script)?;
    part.test("L2 lost the function in every way", |_| {
        has_tests(&results("endings"), LOSSES).map(|()| "")
    });

    count(part, "load", &["--exec", LOAD])?;
    part.test(
        "memory was taken away under the device in every way",
        |_| storms(&said(&results("load"))?),
    );
    part.test("a host that withholds invalidations is noticed", |part| {
        let fault = ["--l2-device-option", "svm-withhold-invalidations=on"];
        let options = [&fault[..], &["--exec", STORMS]].concat();
        ensure!(
            !nested(launcher, part, &name("withheld"), &on_unit(&options))?,
            "it was not noticed"
        );
        noticed(&said(&results("withheld"))?)
    });

    let both = [
        "--copy",
        NEIGHBOURS,
        "--copy",
        SECOND,
        "--copy",
        TRY,
        "--memory",
        "3G",
        "--exec",
        "sh neighbours.sh hostile",
        "--l2-neighbour",
        "sh neighbours.sh checks",
    ];
    count(part, "neighbours", &both)?;
    part.test(
        "the neighbour of a hostile guest found every byte right",
        |_| {
            let text = std::fs::read_to_string(results("neighbours"))?;
            let results: serde_json::Value = serde_json::from_str(&text)?;
            let said = said_by(&results["neighbour"])?;
            let right = said.iter().find(|line| line.ends_with(ALL_RIGHT));
            right.cloned().with_context(|| format!("it said {said:?}"))
        },
    );

    let tests = ["--plan", "test", "--scale", SCALE, "--timeout", TIMEOUT];
    let laboratory = ["--device-option", "lab=on"];
    count(part, "tests", &[&tests[..], &laboratory].concat())
}

/// All that the steps of a run have said.
fn said(results: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(results)?;
    said_by(&serde_json::from_str(&text)?)
}

/// The same of results that were read.
fn said_by(results: &serde_json::Value) -> anyhow::Result<Vec<String>> {
    let steps = results["steps"].as_array().context("no steps")?;
    let lines = steps.iter().filter_map(|step| step["output"].as_array());
    let lines = lines.flatten().filter_map(|line| line.as_str());
    Ok(lines.map(str::to_owned).collect())
}

/// Checks that memory was taken away in every way, and under fills in flight.
fn storms(said: &[String]) -> anyhow::Result<String> {
    let mut reports = said
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    let report: serde_json::Value = reports.next().context("the load reported nothing")?;
    for change in CHANGES {
        let count = report["storms"][change].as_u64().unwrap_or_default();
        ensure!(count > 0, "memory was never {change}: {report}");
    }
    let in_flight = report["storms_in_flight"].as_u64().unwrap_or_default();
    ensure!(in_flight > 0, "no fill was in flight: {report}");
    Ok(format!("{}, {in_flight} in flight", report["storms"]))
}

/// Checks that a load has failed by what it found in memory.
fn noticed(said: &[String]) -> anyhow::Result<String> {
    let failure = said.iter().find(|line| line.starts_with("FAILED"));
    let failure = failure.with_context(|| format!("no failure of the load: {said:?}"))?;
    ensure!(
        failure.contains("a storm: ") && failure.contains("found, expected one of"),
        "it failed by something else: {failure}"
    );
    Ok(failure.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(unmapped: u64, in_flight: u64) -> Vec<String> {
        let storms =
            format!(r#"{{"dropped": 2, "forked": 1, "swapped_out": 3, "unmapped": {unmapped}}}"#);
        let report = format!(r#"{{"storms": {storms}, "storms_in_flight": {in_flight}}}"#);
        vec!["seed 1".to_owned(), report]
    }

    #[test]
    fn each_unit_has_runs_of_its_own() {
        let names = UNITS.map(|unit| run_name("load", unit));
        assert_eq!(names, ["test-l2-load", "test-l2-load-intel-iommu"]);
    }

    #[test]
    fn storms_that_never_came_are_missed() {
        storms(&report(1, 1)).unwrap();
        for (report, what) in [
            (report(0, 1), "never unmapped"),
            (report(1, 0), "in flight"),
            (Vec::new(), "reported nothing"),
        ] {
            let error = storms(&report).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn only_memory_that_is_wrong_is_a_fault_noticed() {
        let line = |text: &str| [format!("FAILED  process 1: in round 3: {text}")];
        noticed(&line(
            "a storm: dropped: offset 0x8: 0x1 found, expected one of [0]",
        ))
        .unwrap();
        noticed(&line("a storm: fill has not completed")).unwrap_err();
        noticed(&["no device".to_owned()]).unwrap_err();
    }
}
