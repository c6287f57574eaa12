// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the cases of guests reported, as `svm-vm` leaves it in `results.json`.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Case {
    name: String,
    /// `ok`, `failed` or `skipped`.
    pub status: String,
    /// What it said.
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    micros: u64,
}

impl Case {
    /// How long it took.
    pub fn time(&self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

/// What a run left.
#[derive(Debug, Deserialize)]
struct Run {
    kernel: Option<String>,
    qemu: Option<String>,
    #[serde(default)]
    failures: Vec<String>,
    #[serde(default)]
    troubles: Vec<Trouble>,
    steps: Vec<Step>,
}

/// A message of the kernel that means trouble.
#[derive(Debug, Deserialize)]
struct Trouble {
    line: String,
}

#[derive(Debug, Deserialize)]
struct Step {
    #[serde(default)]
    tests: Vec<Case>,
}

/// The cases of one or more runs, by their names.
#[derive(Clone, Debug, Default)]
pub struct Cases {
    by_name: BTreeMap<String, Case>,
    /// Linux and QEMU of the first run, with their versions.
    pub versions: String,
    /// What went wrong in a run beside its cases.
    pub troubles: Vec<String>,
}

impl Cases {
    /// Adds what a run left.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is none of `svm-vm`: a sentence that says so.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        self.parse(&text).with_context(|| {
            format!(
                "{} is no results.json of svm-vm: name one that svm-vm run left",
                path.display()
            )
        })
    }

    fn parse(&mut self, text: &str) -> Result<()> {
        let run: Run = serde_json::from_str(text)?;
        if self.versions.is_empty() {
            let kernel = run.kernel.as_deref().unwrap_or("of an unknown version");
            let qemu = run.qemu.as_deref().unwrap_or("of an unknown version");
            self.versions = format!("Linux {kernel}, QEMU {qemu}");
        }
        self.troubles.extend(run.failures);
        let lines = run.troubles.into_iter().map(|trouble| trouble.line);
        self.troubles.extend(lines);
        for case in run.steps.into_iter().flat_map(|step| step.tests) {
            // Of several of a name the worst counts.
            let known = self.by_name.get(&case.name);
            if known.is_none_or(|known| known.status != "failed") {
                self.by_name.insert(case.name.clone(), case);
            }
        }
        Ok(())
    }

    /// The case of a name.
    pub fn get(&self, name: &str) -> Option<&Case> {
        self.by_name.get(name)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Cases with their status and message.
    pub fn cases(list: &[(&str, &str, &str)]) -> Cases {
        let tests: Vec<_> = list
            .iter()
            .map(|(name, status, message)| {
                serde_json::json!({
                    "name": name, "status": status, "message": message, "micros": 1000,
                })
            })
            .collect();
        let text = serde_json::json!({
            "kernel": "7.0", "qemu": "11.1", "steps": [{"tests": tests}],
        });
        let mut cases = Cases::default();
        cases.parse(&text.to_string()).unwrap();
        cases
    }

    #[test]
    fn a_failure_is_not_hidden_by_another_case_of_the_name() {
        for order in [["failed", "ok"], ["ok", "failed"]] {
            let cases = cases(&[("one", order[0], ""), ("one", order[1], "")]);
            assert_eq!(cases.get("one").unwrap().status, "failed");
        }
        assert_eq!(cases(&[]).versions, "Linux 7.0, QEMU 11.1");
    }

    #[test]
    fn what_is_no_result_is_told_in_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.json");
        let error = Cases::default().add(&path).unwrap_err();
        assert!(error.to_string().ends_with("other.json cannot be read"));
        std::fs::write(&path, "{}").unwrap();
        let error = Cases::default().add(&path).unwrap_err().to_string();
        assert!(error.contains("is no results.json of svm-vm"), "{error}");
    }
}
