// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests that may be skipped: `tests/allowed-skips.txt`. What is skipped without being there
//! fails the run, so that a kernel or a machine that loses an ability is noticed.

use std::sync::LazyLock;

use anyhow::{Context, ensure};

/// The file.
const FILE: &str = include_str!("../allowed-skips.txt");

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Allowed {
    /// Words that say what the tests run on.
    on: Vec<String>,
    test: String,
    /// How the reason begins.
    reason: String,
}

/// Whether a test may be skipped for a reason, where `on` says in words what it runs on.
///
/// # Errors
///
/// The file has a line that is none.
pub fn is_allowed(on: &[&str], test: &str, reason: &str) -> anyhow::Result<bool> {
    static LINES: LazyLock<Result<Vec<Allowed>, String>> =
        LazyLock::new(|| parse(FILE).map_err(|error| format!("{error:#}")));
    let lines = LINES.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(lines.iter().any(|line| line.allows(on, test, reason)))
}

impl Allowed {
    fn allows(&self, on: &[&str], test: &str, reason: &str) -> bool {
        self.on.iter().all(|word| on.contains(&word.as_str()))
            && self.test == test
            && reason.starts_with(&self.reason)
    }
}

fn parse(text: &str) -> anyhow::Result<Vec<Allowed>> {
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [on, test, reason] = fields[..] else {
            anyhow::bail!(
                "allowed-skips.txt:{}: {} fields, expected `where | test | reason`",
                at + 1,
                fields.len()
            );
        };
        ensure!(
            !on.is_empty() && !test.is_empty(),
            "allowed-skips.txt:{}: it does not say where, or which test",
            at + 1
        );
        lines.push(Allowed {
            on: on.split(' ').map(str::to_owned).collect(),
            test: test.to_owned(),
            reason: reason.to_owned(),
        });
    }
    ensure!(!lines.is_empty(), "allowed-skips.txt has no line");
    Ok(lines)
}

/// What the tests of the plug-in tell their runner: which were skipped, and which have asked for a
/// setting, and would run otherwise with another value of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Tests that were skipped, and why.
    pub skipped: Vec<(String, String)>,
    /// Tests, and the variables that they have asked for.
    asked: Vec<(String, String)>,
}

impl Notes {
    /// Reads the lines that the tests have written: kind, test and text, separated by tabs.
    ///
    /// # Errors
    ///
    /// A line is of another form.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut notes = Notes::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.splitn(3, '\t').collect();
            let (list, entry) = match fields[..] {
                ["skipped", test, why] => (&mut notes.skipped, (test, why)),
                ["asked", test, variable] => (&mut notes.asked, (test, variable)),
                _ => anyhow::bail!("a test has left a note that is none: {line:?}"),
            };
            let entry = (entry.0.to_owned(), entry.1.to_owned());
            if !list.contains(&entry) {
                list.push(entry);
            }
        }
        Ok(notes)
    }

    /// The tests that have asked for all of these variables, sorted.
    ///
    /// # Errors
    ///
    /// There is none: the tests do not tell any more.
    pub fn asked(&self, variables: &[&str]) -> anyhow::Result<Vec<String>> {
        let has = |test: &str, variable: &str| {
            let entry = |(name, asked): &(String, String)| name == test && asked == variable;
            self.asked.iter().any(entry)
        };
        let mut tests: Vec<String> = self
            .asked
            .iter()
            .map(|(test, _)| test)
            .filter(|test| variables.iter().all(|variable| has(test, variable)))
            .cloned()
            .collect();
        tests.sort();
        tests.dedup();
        let first = variables.first().context("no variable")?;
        ensure!(!tests.is_empty(), "no test of the plug-in asks for {first}");
        Ok(tests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skip_is_allowed_where_its_line_says_so() {
        let lines = parse("# a\n\nplugin kvm | work::a | only qtest\nguest | swap |\n").unwrap();
        let allowed = |on: &[&str], test: &str, reason: &str| {
            lines.iter().any(|line| line.allows(on, test, reason))
        };
        assert!(allowed(&["plugin", "kvm"], "work::a", "only qtest has it"));
        assert!(!allowed(&["plugin"], "work::a", "only qtest has it"));
        assert!(!allowed(&["plugin", "kvm"], "work::b", "only qtest has it"));
        assert!(!allowed(
            &["plugin", "kvm"],
            "work::a",
            "the machine is gone"
        ));
        assert!(allowed(&["guest", "stock"], "swap", "whatever"));
    }

    #[test]
    fn the_file_can_be_read_and_a_wrong_line_is_named() {
        parse(FILE).unwrap();
        let error = parse("plugin | a\n").unwrap_err().to_string();
        assert!(error.contains(":1: 2 fields"), "{error}");
        assert!(parse(" | a | b\n").is_err());
        assert!(parse("# nothing\n").is_err());
    }

    #[test]
    fn tests_are_repeated_that_have_asked_for_every_setting() {
        let text = "asked\ta\tIOMMU\nasked\tb\tACCEL\nasked\ta\tACCEL\nskipped\tc\tno KVM\n\
                    asked\ta\tIOMMU\n";
        let notes = Notes::parse(text).unwrap();
        assert_eq!(notes.asked(&["IOMMU"]).unwrap(), ["a"]);
        assert_eq!(notes.asked(&["ACCEL"]).unwrap(), ["a", "b"]);
        assert_eq!(notes.asked(&["IOMMU", "ACCEL"]).unwrap(), ["a"]);
        assert_eq!(notes.skipped, [("c".to_owned(), "no KVM".to_owned())]);
        assert!(notes.asked(&["OTHER"]).is_err());
        assert!(Notes::parse("asked\ta\n").is_err());
    }
}
