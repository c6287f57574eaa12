// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests in guests that are hosts: on the host kernel, programs have the device by iommufd and by
//! VFIO.

use crate::guest::{LOAD, TIMEOUT, totals};
use crate::launcher::Launcher;
use crate::parts::{Job, Part};

/// What a guest on the host kernel does: programs that have the device by iommufd and by VFIO's
/// type 1. The second runs, whether or not the first fails.
const HOST: &str =
    "svmctl iommufd --bind; first=$?; svmctl vfio --bind && svmctl info && exit $first";

/// The guests that are hosts, each on one IOMMU: name of the part and of the run, and the IOMMU.
const HOSTS: &[(&str, &str, &str)] = &[
    ("host vtd", "test-host-svm-vtd", "svm-vtd"),
    ("host intel", "test-host", "intel-iommu"),
];

/// A guest on the host kernel on each IOMMU.
pub fn jobs(launcher: &Launcher) -> Vec<Job<'_>> {
    let job = |&(part, name, iommu): &'static (&str, &str, &str)| {
        Job::new(part, LOAD, move |part: &mut Part| {
            let mut arguments = vec!["run", "--exec", HOST, "--kernel", "host", "--name", name];
            arguments.extend(["--iommu", iommu, "--iommu-option", "intremap=on"]);
            arguments.extend(["--device-option", "lab=on", "--memory", "2G"]);
            arguments.extend(["--timeout", TIMEOUT]);
            let succeeded = launcher.shown(part, &arguments)?;
            totals(launcher, part, name, &["guest", "host", iommu], succeeded)
        })
    };
    HOSTS.iter().map(job).collect()
}
