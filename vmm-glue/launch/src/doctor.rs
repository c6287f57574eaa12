// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports item by item what this host has and lacks to prepare and run guests; or, for a guest or
//! this machine itself, what it lacks for shared virtual addressing.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde::Serialize;
use svm_doctor::{Check, Facts, Report, Verdict};

use crate::cache::manifest::Depth;
use crate::cache::{Cache, Component};
use crate::cli::{DoctorOptions, Place};
use crate::installation::Installation;
use crate::prepare::built::Flavor;
use crate::prepare::root::Purpose;
use crate::prepare::series::{self, Series};
use crate::prepare::{apt, built, host, kernel, recipe, root};
use crate::run;

/// Makes root and kernel.
const PREPARE: &str = "svm-vm prepare";

/// Makes the debug kernel and its toolchain.
const PREPARE_DEBUG: &str = "svm-vm prepare --kernel debug";

/// `svm-vm doctor`.
pub fn command(place: &Place, options: &DoctorOptions) -> Result<ExitCode> {
    if options.guest {
        return run::doctor(place, options.json);
    }
    if options.machine {
        let report = Report::examine(&Facts::read("/".as_ref()));
        print(&report, options.json, || report.render(WIDTH, false))?;
        return Ok(exit(report.works(false)));
    }
    let checks = examine_host(place)?;
    print(&checks, options.json, || svm_doctor::render(&checks))?;
    let missing = checks.iter().any(|check| check.verdict == Verdict::Missing);
    Ok(exit(!missing))
}

/// Columns of a table of devices.
const WIDTH: u16 = 120;

fn print(value: &impl Serialize, json: bool, text: impl FnOnce() -> String) -> Result<()> {
    if json {
        let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
        println!("{text}");
    } else {
        print!("{}", text());
    }
    Ok(())
}

fn exit(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn examine_host(place: &Place) -> Result<Vec<Check>> {
    let cache = Cache::open(place.cache.as_deref())?;
    let root = root::component(&cache, Purpose::Guests);
    // Of the series that was chosen, once one was.
    let chosen = series::component(&cache).examine(Depth::Quick);
    let series = chosen
        .and_then(|manifest| series::of(&manifest))
        .unwrap_or_else(|_| Series::newest_known());
    let kernel = kernel::component(&cache, &root, series);
    let toolchain = root::component(&cache, Purpose::Kernels);
    let kernels = Flavor::ALL.map(|flavor| {
        let workplace = root::component(&cache, flavor.workplace());
        let component = built::component(&cache, &workplace, series, flavor);
        (flavor, component)
    });
    let mut checks = vec![required("architecture", host::architecture())];
    let parts = [
        part("prepared root", &root, PREPARE),
        part("prepared kernel", &kernel, PREPARE),
    ];
    // A requirement of preparing is not missing once everything is prepared.
    let done = parts.iter().all(|check| check.verdict == Verdict::Present);
    let needed = |name, outcome| {
        if done {
            optional(name, outcome)
        } else {
            required(name, outcome)
        }
    };
    let mirror = place.mirror.clone().map_or_else(apt::host_mirror, Ok);
    checks.extend([
        needed("user", host::root()),
        required("programs", host::programs()),
        needed("Debian mirror", mirror),
        needed(
            "Debian keys",
            host::keyring().map(|path| path.display().to_string()),
        ),
        needed("disk space", host::space(cache.root(), recipe::SPACE_MIB)),
        optional("KVM", host::kvm()),
    ]);
    // A release contains what these build.
    if Installation::find()?.built().is_none() {
        let shown = |path: Result<PathBuf>| path.map(|path| path.display().to_string());
        checks.push(required("cargo", shown(host::cargo())));
        checks.push(required("C compiler", shown(host::compiler())));
    }
    checks.extend(parts);
    checks.extend([part(
        "toolchain of the debug kernel",
        &toolchain,
        PREPARE_DEBUG,
    )]);
    for (flavor, component) in &kernels {
        let name = format!("{} kernel", flavor.name());
        let remedy = format!("{PREPARE} --kernel {}", flavor.name());
        checks.push(part(&name, component, &remedy));
    }
    Ok(checks)
}

/// A check whose failure prevents preparing guests.
fn required(name: &str, outcome: Result<String>) -> Check {
    check(name, outcome, Verdict::Missing)
}

/// A check whose failure only limits what can be done.
fn optional(name: &str, outcome: Result<String>) -> Check {
    check(name, outcome, Verdict::Optional)
}

fn check(name: &str, outcome: Result<String>, otherwise: Verdict) -> Check {
    let (verdict, found, remedy) = match outcome {
        Ok(found) => (Verdict::Present, found, String::new()),
        Err(error) => (otherwise, "not usable".to_owned(), format!("{error:#}")),
    };
    Check {
        name: name.to_owned(),
        verdict,
        found,
        remedy,
    }
}

/// A component that does not exist yet is made when it is needed.
fn part(name: &str, component: &Component, command: &str) -> Check {
    let directory = component.directory().display().to_string();
    // A root file system has directories that only root can read.
    let depth = match host::root() {
        Ok(_) => Depth::Full,
        Err(_) => Depth::Quick,
    };
    let (verdict, found, remedy) = match component.examine(depth) {
        Ok(_) => (Verdict::Present, directory, String::new()),
        Err(_) if !component.directory().exists() => (
            Verdict::Optional,
            "not made yet".to_owned(),
            format!("`{command}` makes it"),
        ),
        Err(error) => (
            Verdict::Optional,
            format!("damaged: {error:#}"),
            format!("`{command} --verify` makes it anew"),
        ),
    };
    Check {
        name: name.to_owned(),
        verdict,
        found,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_tells_its_error_as_remedy() {
        let found = required(
            "x",
            Err(anyhow::anyhow!("install y").context("z is missing")),
        );
        assert_eq!(found.verdict, Verdict::Missing);
        assert_eq!(found.remedy, "z is missing: install y");
        assert_eq!(
            optional("x", Err(anyhow::anyhow!("e"))).verdict,
            Verdict::Optional
        );
        assert_eq!(required("x", Ok("f".into())).remedy, "");
    }

    #[test]
    fn a_part_not_made_yet_is_no_lack() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        assert_eq!(
            part("root", &root::component(&cache, Purpose::Guests), PREPARE).verdict,
            Verdict::Optional
        );
    }
}
