// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the rules of [`svm_tests::house_rules`] over all files that git tracks or would add, the
//! recipes for continuous integration, what crates.io would show of the crates, and that no files
//! use each other in a circle.

use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use svm_tests::house_rules::{check_licence, check_sections};
use svm_tests::launcher::cargo;
use svm_tests::{ci, circles, crates};

fn main() -> anyhow::Result<ExitCode> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git did not start; house-rules runs in the project's checkout")?;
    ensure!(
        list.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&list.stderr)
    );
    let mut wrong = 0;
    for path in String::from_utf8(list.stdout)?.lines() {
        // A file that is deleted but not yet committed is listed and cannot be read.
        let Ok(content) = std::fs::read_to_string(path) else {
            continue;
        };
        if let Some(sentence) = check_licence(path, &content) {
            eprintln!("{sentence}");
            wrong += 1;
        }
        let unnamed = check_sections(path, &content);
        for sentence in &unnamed {
            eprintln!("{sentence}");
        }
        wrong += unnamed.len();
    }
    let page = std::fs::read_to_string(ci::PAGE).context("docs/ci.md cannot be read")?;
    for (path, check) in ci::RECIPES {
        let recipe =
            std::fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
        for outcome in [check(&recipe), ci::shown(&page, path, &recipe)] {
            if let Err(error) = outcome {
                eprintln!("{path}: {error:#}");
                wrong += 1;
            }
        }
    }
    let metadata = Command::new(cargo())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cargo did not start")?;
    let metadata = serde_json::from_slice(&metadata.stdout).context("cargo metadata failed")?;
    for sentence in crates::check(&metadata) {
        eprintln!("{sentence}");
        wrong += 1;
    }
    for sentence in circles::check(std::path::Path::new("."))? {
        eprintln!("{sentence}");
        wrong += 1;
    }
    println!("house-rules: {wrong} places break a rule");
    Ok(if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
