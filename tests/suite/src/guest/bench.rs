// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs guests.

use super::results::Cases;
use super::table::{self, Level};
use crate::bench::Unit;
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The functions behind ports, and the script that looks at them.
const PORTS: &str = include_str!("ports.txt");
const PORTS_SCRIPT: &str = include_str!("ports.sh");

/// How much the cases try: the least.
const SCALE: &str = "0.1";
/// Seconds after which a guest hangs, however busy the host is.
const TIMEOUT: &str = "600";

/// A bench with Linux.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// Which guest.
    pub level: Level,
    /// The unit of that guest.
    pub unit: Unit,
}

impl Guest {
    /// What its cases report: `svm-vm` runs them, and shows them as they come.
    ///
    /// # Errors
    ///
    /// The guest does not run, or leaves no results.
    pub fn run(&self, svm_vm: &OsStr) -> Result<Cases> {
        let mut cases = Cases::default();
        let name = format!("suite-{}", self.name);
        let exec = format!("{{ {}; }}", script());
        let mut arguments = self.arguments(&name);
        arguments.extend(["--exec", &exec].map(str::to_owned));
        cases.add(&run(svm_vm, &name, &arguments)?)?;
        if self.level == Level::Guest {
            let name = format!("{name}-ports");
            let mut arguments = self.arguments(&name);
            arguments.extend(["--exec", PORTS_SCRIPT, "--"].map(str::to_owned));
            for device in PORTS.lines().filter(|line| !line.starts_with('#')) {
                arguments.extend(["-device", device].map(str::to_owned));
            }
            cases.add(&run(svm_vm, &name, &arguments)?)?;
        }
        Ok(cases)
    }

    /// The arguments of `svm-vm` without what the guest does.
    fn arguments(&self, name: &str) -> Vec<String> {
        let unit = match self.unit {
            Unit::IntelIommu => "intel-iommu",
            Unit::SvmVtd => "svm-vtd",
        };
        let of_level: &[&str] = match self.level {
            Level::Guest => &["run", "--iommu", unit],
            Level::L2 => &["nested", "--l2-iommu", unit],
        };
        let common = ["--name", name, "--timeout", TIMEOUT];
        let all = of_level.iter().chain(&common);
        all.map(|argument| (*argument).to_owned()).collect()
    }

    /// What is tested, with versions.
    pub fn subject(&self, cases: &Cases) -> String {
        let unit = match self.unit {
            Unit::IntelIommu => "intel-iommu",
            Unit::SvmVtd => "svm-vtd",
        };
        let level = match self.level {
            Level::Guest => "in a guest",
            Level::L2 => "in a guest of a guest",
        };
        format!("{}, {unit}, {level}", cases.versions)
    }
}

/// What the guest does: the cases of the demonstration, and those of the tests that judge a rule.
/// Both run, whether or not the first fails.
fn script() -> String {
    // Names of cases have apostrophes.
    let quoted = |name: &str| format!("'{}'", name.replace('\'', r"'\''"));
    let names: Vec<String> = table::tests().into_iter().map(quoted).collect();
    format!(
        "svmctl demo; first=$?; svmctl test --scale {SCALE} {} && exit $first",
        names.join(" ")
    )
}

/// Runs `svm-vm`, and returns where its results are. How it ended, its cases say.
fn run(svm_vm: &OsStr, name: &str, arguments: &[String]) -> Result<PathBuf> {
    let results = Path::new("target/runs").join(name).join("results.json");
    // Those of an earlier run are none of this one.
    match std::fs::remove_file(&results) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| results.display().to_string());
        }
        _ => {}
    }
    let mut command = Command::new(svm_vm);
    // The standard output is for TAP.
    command.args(arguments).stdout(std::io::stderr());
    let status = command
        .status()
        .with_context(|| format!("{} cannot be run", svm_vm.to_string_lossy()))?;
    ensure!(
        results.exists(),
        "{} left no {} ({status}): run it in the checkout, and see what it says",
        svm_vm.to_string_lossy(),
        results.display()
    );
    Ok(results)
}
