// SPDX-License-Identifier: MIT OR Apache-2.0
//! docs/passthrough.md says where each behaviour is, and which test and mutant it has: all of that
//! exists, and no number is missing.

use crate::mutants::test;
use host_iommu::mutant::Mutant;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The numbers of the four series: first and last of each run.
const NUMBERS: &[(u32, u32, u32)] = &[
    (1, 1, 14),
    (1, 20, 26),
    (1, 30, 38),
    (1, 40, 48),
    (2, 1, 12),
    (3, 1, 12),
    (3, 20, 30),
    (4, 1, 32),
    (4, 40, 49),
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    let whole = top().join(path);
    fs::read_to_string(&whole).unwrap_or_else(|e| panic!("{}: {e}", whole.display()))
}

/// A row of a table with five columns, or with four and no number.
struct Row {
    number: String,
    place: String,
    test: String,
    mutant: String,
}

fn rows() -> Vec<Row> {
    let document = read("docs/passthrough.md");
    let cells = document.lines().filter_map(|line| {
        let line = line.strip_prefix("| ")?.strip_suffix('|')?;
        Some(
            line.split('|')
                .map(|cell| cell.trim().to_owned())
                .collect::<Vec<_>>(),
        )
    });
    let rows = cells.filter_map(|cells| {
        let [.., place, test, mutant] = cells.as_slice() else {
            return None;
        };
        let number = cells[0].clone();
        let is_row = place.starts_with('`') || place.starts_with("out of scope");
        is_row.then(|| Row {
            number,
            place: place.clone(),
            test: test.clone(),
            mutant: mutant.clone(),
        })
    });
    rows.collect()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_number_of_the_four_series_has_a_row() {
    let expected: BTreeSet<String> = NUMBERS
        .iter()
        .flat_map(|(series, first, last)| (*first..=*last).map(move |n| format!("{series}.{n}")))
        .collect();
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let found: Vec<String> = rows().into_iter().map(|row| row.number).collect();
    let found: Vec<String> = found.into_iter().filter(|n| is_number(n)).collect();
    let once: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(once, expected);
    assert_eq!(found.len(), once.len(), "each once");
}

#[test]
fn what_is_out_of_scope_has_its_reason() {
    for row in rows() {
        if let Some(reason) = row.place.strip_prefix("out of scope") {
            assert!(reason.len() > 10, "{}: {reason}", row.number);
            assert!(
                row.test.is_empty() && row.mutant.is_empty(),
                "{}",
                row.number
            );
        }
    }
}

#[test]
fn functions_and_tests_of_the_rows_exist() {
    let directories = BTreeMap::from([
        ("vtd", "vmm-glue/vtd/tests/it"),
        ("plugin", "vmm-glue/qemu/tests/plugin"),
        ("iommufd", "vmm-glue/iommufd/src"),
    ]);
    let mut checked = 0;
    for row in rows().iter().filter(|row| row.place.starts_with('`')) {
        let number = &row.number;
        let [file, function] = quoted(&row.place)[..] else {
            panic!("{number}: {}", row.place);
        };
        let has = |text: &str, function: &str| {
            let ends = [format!("fn {function}("), format!("fn {function}<")];
            ends.iter().any(|end| text.contains(end.as_str()))
        };
        assert!(
            has(&read(file), function),
            "{number}: {file} has no {function}"
        );
        let [test] = quoted(&row.test)[..] else {
            panic!("{number}: {}", row.test);
        };
        let (path, name) = match test.split_once(": ") {
            Some((module @ ("copies" | "ops"), name)) => {
                (format!("vmm-glue/qemu/src/vtd/{module}.rs"), name)
            }
            place => {
                let (directory, rest) = match place {
                    Some((prefix, rest)) => (directories[prefix], rest),
                    None => ("vmm-glue/host-iommu/tests/it", test),
                };
                let (module, name) = rest.split_once("::").unwrap();
                (format!("{directory}/{module}.rs"), name)
            }
        };
        assert!(has(&read(&path), name), "{number}: {path} has no {name}");
        checked += 1;
    }
    assert!(checked > 100, "{checked} rows");
}

#[test]
fn mutants_of_the_rows_exist_and_every_mutant_has_a_row() {
    let document = read("docs/passthrough.md");
    let of_unit = read("docs/vtd.md");
    for row in rows().iter().filter(|row| row.place.starts_with('`')) {
        if let Some(name) = row.mutant.strip_prefix("vtd: ") {
            let line = of_unit
                .lines()
                .find(|l| l.starts_with(&format!("| {name} |")));
            let test = quoted(&row.test)[0].strip_prefix("vtd: ").unwrap();
            assert!(line.is_some_and(|line| line.contains(test)), "{name}");
            continue;
        }
        if row.mutant.starts_with("none: ") {
            continue;
        }
        let named = |m: &&Mutant| format!("{m:?}") == row.mutant;
        let mutant = Mutant::ALL.iter().find(named);
        let mutant = *mutant.unwrap_or_else(|| panic!("{}: {}", row.number, row.mutant));
        // The row that has the mutant's number names the test that catches it.
        let own = format!("N{}", row.number.replace('.', "_"));
        if own == row.mutant {
            let path = test(mutant).0.replace([' ', '\n'], "");
            assert_eq!(quoted(&row.test), [path], "{}", row.number);
        }
    }
    for mutant in Mutant::ALL {
        let name = format!("{mutant:?}");
        let there = [format!("| {name} |"), format!("`{name}`")];
        assert!(
            there.iter().any(|n| document.contains(n.as_str())),
            "{name} has no row"
        );
    }
}
