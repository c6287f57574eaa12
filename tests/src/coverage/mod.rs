// SPDX-License-Identifier: MIT OR Apache-2.0
//! Line coverage of the endpoint's ATC, ATS and PRI code by the tests of the endpoint and of the
//! in-process machine: cargo builds them with instrumentation, LLVM's tools read what they leave.

mod report;
mod tools;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::launcher::cargo;
use report::Lines;
use tools::Tools;

/// The crate that is measured, seen from the checkout.
const SOURCES: &str = "demo-device/endpoint/src";

/// What is measured in it: the cache with its pins, translation requests, page requests, and the
/// device's part in them. Of a directory, all files but those of its tests.
const MEASURED: &[&str] = &[
    "atc",
    "flight.rs",
    "ats_messages.rs",
    "device/translation_requests.rs",
    "device/atc_fill.rs",
    "device/work.rs",
    "page_groups.rs",
    "device/page_requests.rs",
    "fast/join.rs",
];

/// Packages whose tests count.
const PACKAGES: &[&str] = &["svm-endpoint", "machine"];

/// The least coverage that is enough, in percent.
const GOAL: f64 = 95.0;

/// Runs the tests, prints the coverage of each file and of all together, and says whether it is
/// enough.
pub fn run() -> anyhow::Result<bool> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate of the tests stands in the checkout")?;
    let tools = Tools::find()?;
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => checkout.join("target"),
    }
    .join("coverage");
    let profiles = target.join("profiles");
    let instrumented = Instrumented {
        checkout,
        target: &target,
        profiles: &profiles,
    };
    let programs = instrumented.build()?;
    // Build scripts have left profiles, too.
    let _ = fs::remove_dir_all(&profiles);
    instrumented.test()?;
    let merged = target.join("merged.profdata");
    tools.merge(&profiles, &merged)?;
    let export = tools.export(&merged, &programs, &checkout.join(SOURCES))?;

    let mut all = Lines::default();
    let mut files = Vec::new();
    println!(
        "{:<31} {:>6} {:>8} {:>7}  not covered",
        "file", "lines", "covered", ""
    );
    for file in measured(&checkout.join(SOURCES))? {
        let path = checkout.join(SOURCES).join(&file);
        let source = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let lines = Lines::of(&export, &path, &source);
        ensure!(!lines.is_empty(), "{file} is in no program that was tested");
        println!(
            "{file:<31} {:>6} {:>8} {:>5.1} %  {}",
            lines.count(),
            lines.covered(),
            lines.percent(),
            lines.missing()
        );
        files.push(serde_json::json!({
            "file": file,
            "lines": lines.count(),
            "covered": lines.covered(),
            "missing": lines.missing(),
        }));
        all.extend(lines);
    }
    leave(checkout, all.percent(), files)?;
    let enough = all.percent() >= GOAL;
    if !enough {
        println!("not enough: the goal is {GOAL} %");
    }
    println!("coverage: {:.1} %", all.percent());
    Ok(enough)
}

/// The files that are measured, seen from the directory of the sources.
fn measured(sources: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    for name in MEASURED {
        if !sources.join(name).is_dir() {
            files.push((*name).to_owned());
            continue;
        }
        let entries = fs::read_dir(sources.join(name)).with_context(|| format!("no {name}"))?;
        let mut names = entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        names.retain(|name| name.ends_with(".rs") && name != "tests.rs");
        names.sort();
        files.extend(names.iter().map(|file| format!("{name}/{file}")));
    }
    Ok(files)
}

/// Leaves the numbers for the page of the suite.
fn leave(checkout: &Path, percent: f64, files: Vec<serde_json::Value>) -> anyhow::Result<()> {
    let folder = checkout.join("target/report");
    let path = folder.join("coverage.json");
    let document = serde_json::json!({ "goal": GOAL, "percent": percent, "files": files });
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&path, document.to_string()))
        .with_context(|| format!("{} cannot be written", path.display()))
}

/// Cargo with instrumentation on.
struct Instrumented<'a> {
    checkout: &'a Path,
    target: &'a Path,
    profiles: &'a Path,
}

impl Instrumented<'_> {
    fn cargo(&self) -> Command {
        let mut flags = std::env::var_os("RUSTFLAGS").unwrap_or_default();
        flags.push(" -C instrument-coverage");
        let mut command = Command::new(cargo());
        command
            .args(["test", "--quiet", "--tests"])
            .current_dir(self.checkout)
            .env("RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", self.target)
            .env("LLVM_PROFILE_FILE", self.profiles.join("%p-%m.profraw"))
            .stdin(Stdio::null());
        for package in PACKAGES {
            command.args(["-p", package]);
        }
        command
    }

    /// Builds the tests, and returns the programs that have code of the endpoint in them.
    fn build(&self) -> anyhow::Result<Vec<OsString>> {
        let output = self
            .cargo()
            .args(["--no-run", "--message-format", "json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output()
            .context("cargo did not start")?;
        ensure!(output.status.success(), "the tests do not build");
        let programs: Vec<OsString> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| Some(message.get("executable")?.as_str()?.into()))
            .collect();
        ensure!(!programs.is_empty(), "cargo named no program");
        Ok(programs)
    }

    fn test(&self) -> anyhow::Result<()> {
        let status = self.cargo().status().context("cargo did not start")?;
        if !status.success() {
            bail!("tests fail: their coverage says nothing");
        }
        Ok(())
    }
}
