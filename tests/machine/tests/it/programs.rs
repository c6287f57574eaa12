// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fuzzer and the benchmarks run, briefly.

use std::process::Command;

#[test]
fn the_fuzzer_finds_nothing_in_a_few_cases() {
    let output = Command::new(env!("CARGO_BIN_EXE_fuzz"))
        .args(["--cases", "20", "--seed", "7"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("20 cases"), "{text}");
}

#[test]
fn the_benchmarks_write_what_they_measured() {
    let path = std::env::temp_dir().join(format!("bench-{}.json", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--only", "page_request", "--rounds", "1", "--output"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "no goal is set for it: {output:?}");
    let entries: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let entry = &entries.as_array().unwrap()[0];
    assert_eq!(entry["name"], "page_request_round_trip");
    for key in ["value", "unit", "baseline", "ratio", "goal", "met"] {
        assert!(entry.get(key).is_some(), "{key} is missing in {entry}");
    }
}
