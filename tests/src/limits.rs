// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list of limits, `docs/limits.md`, names tests that exist.

use std::path::Path;

use crate::sources::sources;

/// What stands between two marks.
fn marked(text: &str, begin: char, end: char) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((inside, after)) = rest.split_once(begin).and_then(|(_, r)| r.split_once(end)) {
        found.push(inside);
        rest = after;
    }
    found
}

#[test]
fn each_limit_names_a_test_that_exists_or_says_that_there_is_none() {
    let plugin = sources(&["vmm-glue/qemu/tests/plugin"]);
    let guest = sources(&["guest-app/cases/src"]);
    let others = sources(&[
        "demo-device/endpoint/src/tests",
        "tests/src",
        "vmm-glue/launch/src",
    ]);
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let is_there = |name: &str| match name.split_once("::") {
        Some((module, test)) => plugin
            .iter()
            .any(|(path, text)| stem(path) == module && text.contains(&format!("fn {test}("))),
        None => {
            plugin.iter().any(|(path, _)| stem(path) == name)
                || others.iter().any(|(_, text)| {
                    text.contains(&format!("fn {name}(")) || text.contains(&format!("{name:?}"))
                })
        }
    };
    let mut rows = 0;
    for line in include_str!("../../docs/limits.md").lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [what, _, shown] = cells[..] else {
            continue;
        };
        if what == "what" || what.starts_with("---") {
            continue;
        }
        rows += 1;
        let cases = marked(shown, '“', '”');
        let tests = marked(shown, '`', '`');
        assert!(
            shown.starts_with("no test")
                || shown.starts_with("none")
                || !cases.is_empty()
                || !tests.is_empty(),
            "{what}: no test is named"
        );
        for case in cases {
            let quoted = format!("{case:?}");
            assert!(
                guest.iter().any(|(_, text)| text.contains(&quoted)),
                "the guest has no case {quoted}"
            );
        }
        let commands = ["make test", "svm-vtd"];
        for test in tests.iter().filter(|test| !commands.contains(test)) {
            assert!(is_there(test), "there is no test {test}");
        }
    }
    assert!(rows > 10, "{rows} rows");
}
