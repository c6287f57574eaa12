// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the suite says of the model, as its author sees it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets the wrong thing is to fail there"
)]

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// The clauses that the model breaks: each is in its source, and nothing else may be found.
const BROKEN: &[(u64, &str)] = &[
    (31, "0xfeexxxxx"),
    (44, "the unit's time"),
    (74, "reserved bits"),
    (74, "reason"),
    (77, "FPD"),
    (77, "FPD of a context entry"),
    (78, "beyond the directory"),
    (78, "reserved bits"),
];

/// The clauses that the model cannot be asked.
const NOT_APPLICABLE: &[(u64, &str)] = &[
    (20, "pages of the supervisor"),
    (25, "second stage"),
    (80, "RPS"),
];

fn example(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bring-your-own"));
    command.args(arguments).env_remove("SVM_QEMU");
    command.output().unwrap()
}

fn said(output: &Output) -> (String, String) {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let last = text.lines().last().unwrap_or_default().to_owned();
    (text, last)
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The clauses of a verdict.
fn clauses<'a>(results: &'a Value, verdict: &str) -> Vec<(u64, &'a str)> {
    let rules = results["benches"][0]["rules"].as_array().unwrap();
    let all = rules.iter().flat_map(|rule| {
        let clauses = rule["clauses"].as_array().unwrap().iter();
        clauses.map(|clause| (rule["number"].as_u64().unwrap(), clause))
    });
    all.filter(|(_, clause)| clause["verdict"] == verdict)
        .map(|(rule, clause)| (rule, clause["name"].as_str().unwrap()))
        .collect()
}

#[test]
fn the_suite_finds_what_the_model_does_wrong_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("first.json");
    let arguments = ["--without-deviations", "--json", json.to_str().unwrap()];
    let output = example(&arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let results = read(&json);
    assert_eq!(clauses(&results, "failed"), BROKEN);
    assert_eq!(clauses(&results, "not applicable"), NOT_APPLICABLE);
    let (text, last) = said(&output);
    // Five rules, and the two that no bench judges here.
    let expected = "suite: 74 passed, 5 failed, 0 expected deviations, 2 not applicable";
    assert_eq!(last, expected, "{text}");
    assert_eq!(results["benches"][0]["subject"], "small_iommu 1");
}

#[test]
fn what_is_known_is_expected_and_the_report_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let output = example(&["--report", report.to_str().unwrap()]);
    let (text, last) = said(&output);
    assert!(output.status.success(), "{text}");
    let expected = "suite: 74 passed, 0 failed, 5 expected deviations, 2 not applicable";
    assert_eq!(last, expected, "{text}");
    assert!(
        text.contains("# expected deviation “FPD is ignored”, “Reserved bits of context entries"),
        "{text}"
    );
    let results = read(&report.join("suite.json"));
    assert_eq!(clauses(&results, "expected deviation"), BROKEN);
    assert_eq!(results["command"], "bring-your-own");
    let page = std::fs::read_to_string(report.join("suite.html")).unwrap();
    for text in ["The PASID directory has no end", "small_iommu 1"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(report.join("suite.xml").is_file());
}

#[test]
fn mutants_of_the_device_are_noticed_behind_the_model() {
    let output = example(&["--mutants"]);
    let (text, last) = said(&output);
    assert!(output.status.success(), "{text}");
    let counts = last.strip_prefix("mutants: ").unwrap();
    let caught: usize = counts.split(' ').next().unwrap().parse().unwrap();
    assert!(caught >= 60 && last.ends_with(" 0 survived"), "{text}");
}

#[test]
fn benches_of_the_project_run_beside_it_and_others_are_told() {
    let output = example(&[
        "--rule",
        "2",
        "--bench",
        "small-iommu",
        "--bench",
        "in-process",
    ]);
    let (text, last) = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(last.starts_with("suite: 2 passed, 0 failed"), "{text}");
    let output = example(&["--bench", "other"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    let sentence =
        "there is no bench other: name one of small-iommu, qtest, guest, l2, in-process, ";
    assert!(error.contains(sentence), "{error}");
}
