// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests in the guest, on each IOMMU, and what their runs left behind: the trace of the device
//! must agree with QEMU's own log of the same run.

use anyhow::Context;

use crate::agreement;
use crate::launcher::Launcher;
use crate::tally::Tally;

/// A guest that runs the test plan.
struct Guest {
    /// The kernel, as `svm-vm` calls it.
    kernel: &'static str,
    iommu: &'static str,
    /// Name of the run.
    name: &'static str,
    /// How much is tried.
    scale: &'static str,
    /// Whether a test can have the device break a rule. What the driver does about it takes it half
    /// a minute, and has nothing to do with the IOMMU.
    laboratory: bool,
}

/// The guests. All is tried in full on one IOMMU, and each test a little on the other.
const GUESTS: &[Guest] = &[
    Guest {
        kernel: "stock",
        iommu: "intel-iommu",
        name: "test",
        scale: "0.1",
        laboratory: false,
    },
    Guest {
        kernel: "stock",
        iommu: "svm-vtd",
        name: "test-svm-vtd",
        scale: "1",
        laboratory: true,
    },
];

/// The guests with the kernel that watches the driver. It does all of this some ten times slower,
/// so each test tries a little.
const DEBUG_GUESTS: &[Guest] = &[
    Guest {
        kernel: "debug",
        iommu: "intel-iommu",
        name: "test-debug",
        scale: "0.1",
        laboratory: false,
    },
    Guest {
        kernel: "debug",
        iommu: "svm-vtd",
        name: "test-debug-svm-vtd",
        scale: "0.1",
        laboratory: true,
    },
];

/// Seconds after which a guest hangs, however busy the host is.
const TIMEOUT: &str = "1800";
/// The same on the debug kernel.
const TIMEOUT_DEBUG: &str = "5400";

/// Two nodes of memory, so that pages can move between them. Both processors are of the first. Each
/// has room for a page of 1 GiB, aligned, beside what the kernel takes for itself as it boots.
const NODES: &[&str] = &[
    "-object",
    "memory-backend-ram,id=node0,size=2G",
    "-object",
    "memory-backend-ram,id=node1,size=2G",
    "-numa",
    "node,nodeid=0,cpus=0-1,memdev=node0",
    "-numa",
    "node,nodeid=1,memdev=node1",
];

/// A page of 1 GiB is set aside while there is one in a piece.
const HUGE_PAGE: &str = "hugepagesz=1G hugepages=1";

/// The messages of a case are read when it has ended, and the debug kernel has many: room for them
/// all.
const LOG: &str = "log_buf_len=16M";

/// What the guest does that binds the driver at each place: no memory may be lost, either.
const BIND: &str = "leaks=/sys/kernel/debug/kmemleak; \
    echo scan=off >$leaks && echo scan >$leaks && echo clear >$leaks && \
    svmctl test --scale 10 'the driver takes the function' && sleep 6 && \
    echo scan >$leaks && echo scan >$leaks && cat $leaks >/tmp/leaks && cat /tmp/leaks && \
    ! test -s /tmp/leaks";

/// Runs the guest's test plan once on each IOMMU, and looks at what the runs left.
pub fn run(launcher: &Launcher) -> anyhow::Result<Tally> {
    all(launcher, GUESTS)
}

/// The same on the debug kernel. Then one guest that only has the driver bound with a failure at
/// each place, not at some: a function of two vectors has few enough.
pub fn run_debug(launcher: &Launcher) -> anyhow::Result<Tally> {
    let mut total = all(launcher, DEBUG_GUESTS)?;
    println!("# the driver's binding, at each place where it can fail");
    let name = "test-debug-bind";
    let mut arguments = vec!["run", "--exec", BIND, "--kernel", "debug", "--name", name];
    arguments.extend(["--device-option", "contexts=2"]);
    arguments.extend(["--timeout", TIMEOUT_DEBUG, "--append", LOG]);
    let succeeded = launcher.shown(&arguments)?;
    total += totals(launcher, name, succeeded)?;
    Ok(total)
}

fn all(launcher: &Launcher, guests: &[Guest]) -> anyhow::Result<Tally> {
    let mut total = Tally::default();
    for guest in guests {
        println!("# the guest's tests on {}", guest.iommu);
        total += plan(launcher, guest)?;
    }
    Ok(total)
}

/// Runs the test plan on one IOMMU.
fn plan(launcher: &Launcher, guest: &Guest) -> anyhow::Result<Tally> {
    let dir = launcher.run_dir(guest.name);
    let log = dir.join("qemu.log");
    let log_argument = log.to_str().context("the checkout's path is not UTF-8")?;
    // Only QEMU's own unit writes QEMU's trace events.
    let compared = guest.iommu == "intel-iommu";
    let mut arguments = vec!["run", "--plan", "test"];
    if guest.kernel == "debug" {
        arguments.extend(["--timeout", TIMEOUT_DEBUG, "--append", LOG]);
    } else {
        arguments.extend(["--timeout", TIMEOUT]);
    }
    arguments.extend(["--kernel", guest.kernel]);
    arguments.extend(["--name", guest.name, "--iommu", guest.iommu]);
    arguments.extend(["--scale", guest.scale, "--memory", "4G", "--cpus", "2"]);
    arguments.extend(["--append", HUGE_PAGE]);
    if guest.laboratory {
        arguments.extend(["--device-option", "lab=on"]);
    }
    arguments.extend(compared.then_some("--trace"));
    arguments.push("--");
    arguments.extend(NODES);
    if compared {
        arguments.extend(["-trace", "vtd_inv_desc", "-D", log_argument]);
    }
    let succeeded = launcher.shown(&arguments)?;
    let mut total = totals(launcher, guest.name, succeeded)?;
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

/// What a run that has ended left.
fn totals(launcher: &Launcher, name: &str, succeeded: bool) -> anyhow::Result<Tally> {
    let results = std::fs::read_to_string(launcher.run_dir(name).join("results.json"))
        .context("the guest's run left no results.json")?;
    let mut total = results_tally(&results)?;
    if !succeeded && total.failed == 0 {
        println!("not ok - svm-vm run failed although no test did");
        total.failed += 1;
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
