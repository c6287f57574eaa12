// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program, as users and CI call it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the wrong thing is to fail there"
)]

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str], report: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_run-suite"))
        .args(["--bench", "in-process", "--rule", "2", "--report"])
        .arg(report)
        .args(arguments)
        .env_remove("SVM_QEMU")
        .output()
        .unwrap()
}

#[test]
fn a_run_leaves_its_results_and_a_later_one_says_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let first = run(&[], &report);
    assert!(first.status.success(), "{first:?}");
    for file in ["suite.json", "suite.xml", "suite.html"] {
        assert!(report.join(file).is_file(), "{file}");
    }
    let suite = std::fs::read_to_string(report.join("suite.json")).unwrap();
    assert!(
        suite.contains("make suite RULE=2 BENCH=in-process"),
        "{suite}"
    );

    let mutants = run(&["--mutants"], &report);
    assert!(mutants.status.success(), "{mutants:?}");
    let page = || std::fs::read_to_string(report.join("suite.html")).unwrap();
    assert!(page().contains("make mutants RULE=2 BENCH=in-process"));
    assert!(page().contains("make suite RULE=2 BENCH=in-process"));

    let old = folder.path().join("old.json");
    let passed = "\"verdict\": \"passed\"";
    assert!(suite.contains(passed));
    std::fs::write(&old, suite.replace(passed, "\"verdict\": \"failed\"")).unwrap();
    let second = run(&["--baseline", old.to_str().unwrap()], &report);
    assert!(second.status.success(), "{second:?}");
    let said = String::from_utf8(second.stdout).unwrap();
    let better = "# better: in-process: rule 2, depth: failed before, passed now\n";
    assert!(said.contains(better), "{said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("suite: 1 passed, 0 failed"), "{said}");
    assert!(page().contains("change-better"));

    // The page of what is there needs no run.
    std::fs::remove_file(report.join("suite.html")).unwrap();
    std::fs::remove_file(report.join("mutants.json")).unwrap();
    let again = Command::new(env!("CARGO_BIN_EXE_run-suite"))
        .args(["--page", "--report"])
        .arg(&report)
        .output()
        .unwrap();
    assert!(again.status.success(), "{again:?}");
    assert!(page().contains("change-better") && !page().contains("make mutants RULE=2"));
}

#[test]
fn a_baseline_that_cannot_be_read_is_an_error_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let old = folder.path().join("old.json");
    std::fs::write(&old, r#"{"schema": 2}"#).unwrap();
    let output = run(&["--baseline", old.to_str().unwrap()], &report);
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    let said = String::from_utf8_lossy(&output.stderr);
    let expected = "old.json has schema 2, and this program reads schema 1";
    assert!(said.contains(expected), "{said}");
    assert!(!report.join("suite.json").exists());
}
