// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests of all crates, by cargo, with the prepared QEMU at hand for those that need it.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::launcher::{Launcher, cargo};
use crate::parts::Part;
use crate::skips::Notes;
use crate::tally::Tally;

/// Environment variable that holds the path of a program that is QEMU with the plug-in in it.
pub const QEMU_VARIABLE: &str = "SVM_QEMU";

/// Names the file in which the tests of the plug-in tell what they skip and what they ask for.
const NOTES_VARIABLE: &str = "SVM_TEST_NOTES";

/// Variables that say what the tests of the plug-in run on.
const IOMMU_VARIABLE: &str = "SVM_QTEST_IOMMU";
const ACCEL_VARIABLE: &str = "SVM_QTEST_ACCEL";

/// Another setting for the tests of the plug-in.
struct Pass {
    /// Words that say what they run on.
    on: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    /// Whether it is made of machines of KVM.
    kvm: bool,
}

const PASSES: &[Pass] = &[
    Pass {
        on: &["plugin", "svm-vtd"],
        variables: &[(IOMMU_VARIABLE, "svm-vtd")],
        kvm: false,
    },
    Pass {
        on: &["plugin", "intel-iommu", "kvm"],
        variables: &[(ACCEL_VARIABLE, "kvm")],
        kvm: true,
    },
    Pass {
        on: &["plugin", "svm-vtd", "kvm"],
        variables: &[(IOMMU_VARIABLE, "svm-vtd"), (ACCEL_VARIABLE, "kvm")],
        kvm: true,
    },
];

/// Runs the tests of all crates. Then those of the plug-in again that take the IOMMU or the
/// accelerator from outside: with this project's own VT-d unit in the place of QEMU's, and, where
/// there is KVM, with either in machines of KVM.
///
/// # Errors
///
/// Cargo does not start, or the tests of the plug-in tell nothing of themselves.
pub fn run(launcher: &Launcher, part: &mut Part) -> anyhow::Result<()> {
    let arguments = ["--workspace", "--no-fail-fast"];
    let notes = cargo_test(launcher, part, FIRST, &arguments, &[], &[])?;
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if let Err(error) = &kvm {
        part.line(format_args!(
            "# not with KVM: /dev/kvm cannot be opened: {error}"
        ));
    }
    for pass in PASSES {
        if pass.kvm && kvm.is_err() {
            continue;
        }
        part.line(format_args!("# {} again", pass.on.join(" ")));
        let names: Vec<&str> = pass.variables.iter().map(|(name, _)| *name).collect();
        let tests = notes.asked(&names)?;
        let mut words = vec!["--exact"];
        words.extend(tests.iter().map(String::as_str));
        // The program that has run: for the package alone, whose dependencies have fewer features,
        // cargo builds another.
        let arguments = ["--workspace", "--test", "plugin"];
        let before = part.tally();
        cargo_test(launcher, part, pass.on, &arguments, pass.variables, &words)?;
        let ran = part.tally().tests() - before.tests();
        ensure!(
            ran >= tests.len() as u64,
            "{ran} of {} tests of the plug-in ran again",
            tests.len()
        );
    }
    Ok(())
}

/// What the tests of the plug-in run on if nothing is said.
const FIRST: &[&str] = &["plugin", "intel-iommu"];

/// Tests that alone take a quarter of a minute or more on two processors.
const LONG: &[&str] = &[
    "storm::rule_48_a_storm_of_a_million_operations_with_engines_and_many_threads_of_software",
    "layout::each_value_that_is_wrong_is_noticed",
];

/// Runs the tests of all crates but those of the documentation, once: those whose name contains
/// `only`, if that is given, else all but the two that take long.
///
/// # Errors
///
/// Cargo does not start, or the tests of the plug-in tell nothing of themselves.
pub fn check(launcher: &Launcher, part: &mut Part, only: Option<&str>) -> anyhow::Result<()> {
    let arguments = [
        "--workspace",
        "--no-fail-fast",
        "--lib",
        "--bins",
        "--tests",
    ];
    let words = match only {
        Some(text) => vec![text],
        None => {
            for name in LONG {
                part.line(format_args!("# left to make test: {name}"));
            }
            LONG.iter().flat_map(|name| ["--skip", name]).collect()
        }
    };
    cargo_test(launcher, part, FIRST, &arguments, &[], &words)?;
    Ok(())
}

/// Runs `cargo test`, shows what it prints, counts, and measures each program of tests. `words` are
/// for these programs.
fn cargo_test(
    launcher: &Launcher,
    part: &mut Part,
    on: &[&str],
    arguments: &[&str],
    variables: &[(&str, &str)],
    words: &[&str],
) -> anyhow::Result<Notes> {
    let notes = tempfile::NamedTempFile::new().context("a file for notes cannot be made")?;
    let mut command = Command::new(cargo());
    command
        .args(["test", "--color", "never"])
        .args(["--message-format", "json-render-diagnostics"])
        .args(arguments)
        .arg("--")
        .args(words)
        .env(QEMU_VARIABLE, launcher.qemu_wrapper()?)
        .env(NOTES_VARIABLE, notes.path())
        .env_remove(IOMMU_VARIABLE)
        .env_remove(ACCEL_VARIABLE)
        .envs(variables.iter().copied());
    let before = part.tally();
    let mut reader = Reader::default();
    let status = part.follow(&mut command, |part, line| reader.line(part, on, line))?;
    // A crate that does not build, or a runner that dies, prints no total.
    if !status.success() && part.tally().failed == before.failed || reader.totals == 0 {
        part.fail(format_args!(
            "cargo test ended with {status} and {} totals",
            reader.totals
        ));
    }
    let text = std::fs::read_to_string(notes.path()).context("the notes cannot be read")?;
    let notes = Notes::parse(&text)?;
    for (test, reason) in &notes.skipped {
        // A test that returns is a test that passed, to the test harness.
        part.uncount_passed();
        part.skipped(on, test, reason);
    }
    Ok(notes)
}

/// Reads what cargo and the programs of tests print.
#[derive(Debug, Default)]
struct Reader {
    /// Packages, by the file names of their programs of tests.
    packages: BTreeMap<String, String>,
    /// The program that runs, and since when.
    running: Option<(String, Instant)>,
    /// How many programs have printed totals.
    totals: u32,
}

impl Reader {
    fn line(&mut self, part: &mut Part, on: &[&str], line: &str) {
        if line.starts_with("{\"reason\":") {
            self.message(line);
            return;
        }
        part.line(line);
        let header = line.trim_start();
        let rest = header
            .strip_prefix("Running ")
            .or_else(|| header.strip_prefix("Doc-tests "));
        if let Some(rest) = rest.filter(|_| header.len() != line.len()) {
            self.running = Some((self.program(rest), Instant::now()));
        }
        if let Some((test, reason)) = ignored(line) {
            part.skipped(on, test, reason);
        }
        if let Some(test) = failed(line) {
            let program = self.running.as_ref().map_or("", |(name, _)| name);
            part.record_failure(format_args!("{program}: {test}"));
        }
        if let Some(tally) = Tally::from_cargo(line) {
            // Those that are switched off were counted one by one.
            part.count(Tally {
                skipped: 0,
                ..tally
            });
            self.totals += 1;
            if let Some((name, since)) = self.running.take() {
                part.took(name, since.elapsed());
            }
        }
    }

    /// A message of cargo, of which those of executables count.
    fn message(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            return;
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if let (Some(path), Some(package)) = (
            text(&message["executable"]),
            text(&message["package_id"]).and_then(|id| package(&id)),
        ) {
            self.packages.insert(file_name(&path), package);
        }
    }

    /// What a program is called in reports: `src/lib.rs (target/debug/deps/vtd-0123)` is of the
    /// package that cargo told.
    fn program(&self, rest: &str) -> String {
        let Some((what, path)) = rest
            .strip_suffix(')')
            .and_then(|rest| rest.split_once(" ("))
        else {
            return format!("documentation of {rest}");
        };
        match self.packages.get(&file_name(path)) {
            Some(package) => format!("{package}, {what}"),
            None => what.to_owned(),
        }
    }
}

/// A test that its attribute switches off, and why.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (test, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    Some((test, rest.trim_start_matches(", ")))
}

/// A test that failed. Its messages stand further above.
fn failed(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

fn file_name(path: &str) -> String {
    let name = Path::new(path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The name in a package's identity: `path+file:///a/b#name@0.1.0`, or `…/name#0.1.0`.
fn package(id: &str) -> Option<String> {
    let (place, rest) = id.rsplit_once('#')?;
    let name = match rest.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit_once('/')?.1,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_exists() {
        let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut text = String::new();
        for file in [
            "tests/machine/tests/it/storm.rs",
            "vmm-glue/qemu/tests/plugin/layout.rs",
        ] {
            let path = top.join(file);
            text += &std::fs::read_to_string(path).unwrap();
        }
        for name in LONG {
            let (_, function) = name.split_once("::").unwrap();
            assert!(text.contains(&format!("fn {function}()")), "{name}");
        }
    }

    #[test]
    fn programs_of_tests_are_named_by_their_package() {
        let mut reader = Reader::default();
        reader.message(
            r#"{"reason":"compiler-artifact","package_id":"path+file:///x/vtd#0.1.0","executable":"/x/target/debug/deps/it-01"}"#,
        );
        reader.message(
            r#"{"reason":"compiler-artifact","package_id":"path+file:///x/abi#svm-abi@0.1.0","executable":"/x/target/debug/deps/svm_abi-02"}"#,
        );
        assert_eq!(
            reader.program("tests/it/main.rs (target/debug/deps/it-01)"),
            "vtd, tests/it/main.rs"
        );
        assert_eq!(
            reader.program("unittests src/lib.rs (target/debug/deps/svm_abi-02)"),
            "svm-abi, unittests src/lib.rs"
        );
        assert_eq!(reader.program("vtd"), "documentation of vtd");
    }

    #[test]
    fn a_test_that_is_switched_off_is_seen() {
        let seen = |line| ignored(line);
        assert_eq!(seen("test a::b ... ignored"), Some(("a::b", "")));
        assert_eq!(seen("test a ... ignored, slow"), Some(("a", "slow")));
        assert_eq!(seen("test a ... ok"), None);
        assert_eq!(failed("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failed("test a ... ok"), None);
    }
}
