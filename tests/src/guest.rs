// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests in the guest, on each IOMMU, and what their runs left behind: the trace of the device
//! must agree with QEMU's own log of the same run.

use anyhow::Context;

use crate::agreement;
use crate::launcher::Launcher;
use crate::tally::Tally;

/// The guests that run the test plan: the IOMMU, and the name of the run.
const GUESTS: &[(&str, &str)] = &[("intel-iommu", "test"), ("svm-vtd", "test-svm-vtd")];

/// Runs the guest's test plan once on each IOMMU, and looks at what the runs left.
pub fn run(launcher: &Launcher) -> anyhow::Result<Tally> {
    let mut total = Tally::default();
    for (iommu, name) in GUESTS {
        println!("# the guest's tests on {iommu}");
        total += plan(launcher, iommu, name)?;
    }
    Ok(total)
}

/// Runs the test plan on one IOMMU.
fn plan(launcher: &Launcher, iommu: &str, name: &str) -> anyhow::Result<Tally> {
    let dir = launcher.run_dir(name);
    let log = dir.join("qemu.log");
    let log_argument = log.to_str().context("the checkout's path is not UTF-8")?;
    let mut arguments = vec![
        "run", "--plan", "test", "--name", name, "--iommu", iommu, "--trace",
    ];
    // Only QEMU's own unit writes QEMU's trace events.
    let compared = iommu == "intel-iommu";
    if compared {
        arguments.extend(["--", "-trace", "vtd_inv_desc", "-D", log_argument]);
    }
    let succeeded = launcher.shown(&arguments)?;
    let results = std::fs::read_to_string(dir.join("results.json"))
        .context("the guest's run left no results.json")?;
    let mut total = results_tally(&results)?;
    if !succeeded && total.failed == 0 {
        println!("not ok - svm-vm run failed although no test did");
        total.failed += 1;
    }
    if compared {
        let verdict = agreement::of_files(&dir.join("trace.json"), &log);
        match &verdict {
            Ok(summary) => println!("ok - the trace agrees with QEMU's log: {summary}"),
            Err(error) => println!("not ok - the trace agrees with QEMU's log: {error:#}"),
        }
        total += Tally::one(verdict.is_ok());
    }
    Ok(total)
}

/// The totals that a run's `results.json` states.
fn results_tally(text: &str) -> anyhow::Result<Tally> {
    let results: serde_json::Value = serde_json::from_str(text)?;
    let field = |name: &str| {
        results
            .get(name)
            .and_then(serde_json::Value::as_u64)
            .with_context(|| format!("results.json has no number `{name}`"))
    };
    Ok(Tally {
        passed: field("passed")?,
        failed: field("failed")?,
        skipped: field("skipped")?,
    })
}
