// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each command that the README shows is run by a test, and its links lead somewhere.

use std::fs;
use std::path::{Path, PathBuf};

/// A command of the README; the file of the test that runs what it runs; what is found there.
const RUN_BY: &[(&str, &str, &str)] = &[
    (
        "make demo",
        "vmm-glue/launch/src/plans.rs",
        "&[\"svmctl\", \"demo\"]",
    ),
    (
        "make demo IOMMU=svm-vtd",
        "tests/src/guest.rs",
        "\"svm-vtd\"",
    ),
    ("make test", ".ci/run", "make test"),
    ("make shell", "tests/src/terminal.rs", "\"shell\""),
    (
        "cat guest-app/library/examples/copy.c",
        "tests/src/users.rs",
        "the_program_of_the_readme",
    ),
    (
        "cc -O2 -I guest-app/library/include -o /tmp/copy guest-app/library/examples/copy.c",
        "tests/src/users.rs",
        "the_program_of_the_readme",
    ),
    (
        "cargo run -q -p svm-vm -- run --copy /tmp/copy --exec ./copy",
        "tests/src/users.rs",
        "the_program_of_the_readme",
    ),
];

/// A path of the checkout.
fn path(file: impl AsRef<Path>) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn text(file: &str) -> String {
    let path = path(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn each_command_is_run_by_a_test() {
    let readme = text("README.md");
    let blocks = readme.split("```\n").skip(1).step_by(2);
    // A block that begins with a prompt shows output.
    let commands: Vec<&str> = blocks
        .filter(|block| !block.starts_with("$ "))
        .flat_map(str::lines)
        .collect();
    let known: Vec<&str> = RUN_BY.iter().map(|(command, ..)| *command).collect();
    assert_eq!(
        commands.len(),
        known.len(),
        "commands of the README: {commands:#?}"
    );
    for (command, file, trace) in RUN_BY {
        assert!(commands.contains(command), "the README has no `{command}`");
        assert!(
            text(file).contains(trace),
            "{file} does not run `{command}`"
        );
    }
}

#[test]
fn links_lead_to_files() {
    let mut links = 0;
    for page in fs::read_dir(path("docs"))
        .unwrap()
        .map(|entry| format!("docs/{}", entry.unwrap().file_name().to_string_lossy()))
        .filter(|name| name.ends_with(".md"))
        .chain(
            [
                "README.md",
                "CONTRIBUTING.md",
                "guest-app/README.md",
                "guest-driver/README.md",
            ]
            .map(str::to_owned),
        )
    {
        let directory = Path::new(&page).parent().unwrap().to_owned();
        for rest in text(&page).split("](").skip(1) {
            let (target, _) = rest.split_once(')').unwrap();
            let (file, _) = target.split_once('#').unwrap_or((target, ""));
            if file.is_empty() || file.contains("://") {
                continue;
            }
            links += 1;
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("..")
                .join(&directory)
                .join(file);
            assert!(
                path.exists(),
                "{page} links to {target}, which is not there"
            );
        }
    }
    assert!(links > 60, "{links} links");
}

#[test]
fn the_functions_of_the_walk_exist() {
    let mut steps = 0;
    for line in text("docs/walk.md").lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [file, function, _] = cells[..] else {
            continue;
        };
        let (Some(file), Some(function)) = (marked(file), marked(function)) else {
            continue;
        };
        steps += 1;
        assert!(
            text(file).contains(&format!("fn {function}("))
                || text(file).contains(&format!("fn {function}<")),
            "docs/walk.md: {file} has no function {function}"
        );
    }
    assert!(steps > 45, "{steps} steps");
}

/// What stands between two backticks and fills a cell.
fn marked(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}
