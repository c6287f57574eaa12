// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl iommufd`: passes the device through to this program by `/dev/iommu`, as a virtual
//! machine would, with page tables of the program's own nested in its memory, and checks what comes
//! of it.

mod checks;
mod guest;
mod laboratory;
mod world;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use svm_init::events::{Status, TestEvent};

use super::function::{Bound, find, report};
use crate::cli::VfioOptions;
use svm_cases::harness::report::print_json;
use world::World;

/// Why a check is skipped.
const NOT_NESTED: &str = "the unit has no nested translation";

/// Runs the checks; `false` if one failed.
pub fn run(as_json: bool, options: &VfioOptions) -> anyhow::Result<bool> {
    let directory = find(options.function.as_deref())?;
    if !options.bind {
        return check(&directory, as_json);
    }
    let bound = Bound::take(&directory)
        .with_context(|| format!("cannot bind {} to vfio-pci", directory.display()))?;
    let result = check(&directory, as_json);
    if let Some(bound) = bound {
        bound.give_back()?;
    }
    result
}

/// The file of a function that vfio-pci has.
fn device_file(directory: &Path) -> anyhow::Result<File> {
    let names = directory.join("vfio-dev");
    let entry = fs::read_dir(&names)
        .ok()
        .and_then(|mut entries| entries.next()?.ok())
        .with_context(|| {
            format!(
                "{} has no vfio-dev: the function is not bound to vfio-pci (--bind), or the kernel \
                 lacks VFIO_DEVICE_CDEV",
                directory.display()
            )
        })?;
    let path = PathBuf::from("/dev/vfio/devices").join(entry.file_name());
    let file = OpenOptions::new().read(true).write(true).open(&path);
    file.with_context(|| path.display().to_string())
}

/// Runs the checks on a function that VFIO has.
fn check(directory: &Path, as_json: bool) -> anyhow::Result<bool> {
    let mut world = World::open(device_file(directory)?)?;
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    let all = checks::PLAIN.iter().chain(checks::NESTED);
    for (at, (name, check)) in all.enumerate() {
        let start = Instant::now();
        let can = at < checks::PLAIN.len() || world.parent.is_some();
        let (status, message) = match can.then(|| check(&mut world)) {
            Some(Ok(remark)) => (Status::Ok, remark),
            Some(Err(error)) => (Status::Failed, format!("{error:#}")),
            None => (Status::Skipped, NOT_NESTED.to_owned()),
        };
        *match status {
            Status::Ok => &mut passed,
            Status::Failed => &mut failed,
            Status::Skipped => &mut skipped,
        } += 1;
        let event = TestEvent {
            name: (*name).to_owned(),
            status,
            message,
            counters: world.counters(),
            micros: start.elapsed().as_micros() as u64,
        };
        report(&event, as_json)?;
    }
    if as_json {
        let totals = json!({
            "suite": "iommufd", "passed": passed, "failed": failed, "skipped": skipped
        });
        print_json(&totals)?;
    } else {
        let rest = match skipped {
            0 => String::new(),
            _ => format!(", {skipped} skipped"),
        };
        writeln!(
            io::stdout(),
            "\niommufd: {passed} passed, {failed} failed{rest}"
        )?;
    }
    Ok(failed == 0)
}
