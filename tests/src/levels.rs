// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests with a guest inside of a guest: the device passes through the first to the second.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::guest::totals;
use crate::launcher::Launcher;
use crate::parts::Part;
use crate::ways;

/// What the second guest does, in its three lives.
const SCRIPT: &str = "tests/src/levels.sh";

/// What all of its scripts have in common.
pub const SECOND: &str = "tests/src/second.sh";

/// How scripts report tests.
pub const TRY: &str = "tests/src/try.sh";

/// The tests of the script that have to be there, besides the demonstration: a life that never came
/// reports none.
const LIVES: &[&str] = &[
    "page never touched",
    "the function is unplugged",
    "it is plugged in again, and works",
    "two functions of one iommufd work at a time",
    "one of them leaves, and the other works",
    "two functions of two iommufds work at a time",
    "one leaves with its iommufd, and the other works",
    "L2 rebooted during a load, and the function works",
    "its QEMU was killed during a load, and another has the function",
];

/// Options of a unit that nests nothing: VFIO copies what the guest maps.
const COPIES: &[&str] = &[
    "--l2-iommu-option",
    "ssts=on,fsts=off,snoop-control=off",
    "--exec",
    "svmctl vfio --bind",
];

/// Seconds after which a run hangs, however busy the host is.
const TIMEOUT: &str = "400";

/// The second guest in all its lives, then one with QEMU's own unit, and one whose mappings are copied.
///
/// # Errors
///
/// `svm-vm` does not start, or a run leaves no results.
pub fn run(launcher: &Launcher, part: &mut Part) -> anyhow::Result<()> {
    let name = "test-l2";
    let arguments = [
        "--copy",
        SCRIPT,
        "--copy",
        SECOND,
        "--copy",
        TRY,
        "--exec",
        "sh levels.sh",
        "--l2-reboots",
        "--l2-qemu-argument",
        "-device",
        "--l2-qemu-argument",
        "pcie-root-port,id=other,chassis=2,slot=2,addr=2",
        "--",
        "-device",
        "svm-demo,addr=2",
    ];
    counted(launcher, part, name, "svm-vtd", &arguments)?;
    let results = launcher.run_dir(name).join("results.json");
    part.test("the second guest lived three times", |_| {
        has_tests(&results, LIVES).map(|()| "")
    });
    let own = ["--l2-iommu", "intel-iommu", "--trace"];
    let name = "test-l2-intel-iommu";
    counted(launcher, part, name, "intel-iommu", &own)?;
    let directory = launcher.run_dir(name);
    part.test("each page request went through all levels and back", |_| {
        ways::check(&directory)
    });
    counted(launcher, part, "test-l2-copies", "svm-vtd", COPIES)?;
    Ok(())
}

/// Runs `svm-vm nested` with a unit in L1, and counts the tests of its results.
///
/// # Errors
///
/// It does not start, or leaves no results.
pub fn counted(
    launcher: &Launcher,
    part: &mut Part,
    name: &str,
    unit: &str,
    options: &[&str],
) -> anyhow::Result<()> {
    let succeeded = nested(launcher, part, name, options)?;
    totals(
        launcher,
        part,
        name,
        &["guest", "host", "l2", unit],
        succeeded,
    )
}

/// Runs `svm-vm nested`; whether it succeeded.
///
/// # Errors
///
/// It does not start.
pub fn nested(
    launcher: &Launcher,
    part: &mut Part,
    name: &str,
    options: &[&str],
) -> anyhow::Result<bool> {
    launcher.shown(part, &arguments(name, options))
}

/// The words of a run, whose options may have a time limit of their own.
fn arguments<'a>(name: &'a str, options: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["nested", "--name", name];
    if !options.contains(&"--timeout") {
        arguments.extend(["--timeout", TIMEOUT]);
    }
    arguments.extend(options);
    arguments
}

/// Fails if a run's results lack one of these tests.
///
/// # Errors
///
/// Which one; the file cannot be read.
pub fn has_tests(results: &Path, names: &[&str]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(results)?;
    let results: serde_json::Value = serde_json::from_str(&text)?;
    let steps = results["steps"].as_array().context("no steps")?;
    let tests = steps.iter().flat_map(|step| step["tests"].as_array());
    let found: Vec<_> = tests
        .flatten()
        .filter_map(|test| test["name"].as_str())
        .collect();
    for name in names {
        ensure!(found.contains(name), "there is no test {name:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_time_limit() {
        let limits = |options: &[&str]| {
            let words = arguments("a", options).join(" ");
            words.split_once("--timeout ").unwrap().1.to_owned()
        };
        assert_eq!(limits(&["--l2-reboots"]), format!("{TIMEOUT} --l2-reboots"));
        assert_eq!(limits(&["--timeout", "1800"]), "1800");
    }

    #[test]
    fn a_life_that_never_came_is_missed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results.json");
        let text = r#"{"steps": [{"tests": [{"name": "one"}]}, {"tests": []}]}"#;
        std::fs::write(&path, text).unwrap();
        has_tests(&path, &["one"]).unwrap();
        let error = has_tests(&path, &["one", "two"]).unwrap_err().to_string();
        assert_eq!(error, "there is no test \"two\"");
    }
}
