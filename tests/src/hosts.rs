// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests in guests that are hosts: on the host kernel, programs have the device by iommufd and by
//! VFIO, and so have machines, as far as that can be seen before they run.

use crate::guest::{LOAD, TIMEOUT, totals};
use crate::launcher::Launcher;
use crate::levels::TRY;
use crate::parts::{Job, Part};

/// A guest that is a host.
struct Host {
    /// Name of the part, and of the run.
    part: &'static str,
    name: &'static str,
    iommu: &'static str,
    options: &'static [&'static str],
    /// What it does.
    line: &'static str,
}

/// What machines in such a guest show, or why they are refused.
const MACHINES: &str = "tests/src/machines.sh";

/// The guests that are hosts. In the first two, programs have the device by iommufd and by VFIO's
/// type 1; the second runs, whether or not the first fails. The third has a unit with less than
/// machines in it could offer, and no ATS.
const HOSTS: &[Host] = &[
    Host {
        part: "host vtd",
        name: "test-host-svm-vtd",
        iommu: "svm-vtd",
        options: &["--device-option", "lab=on", "--with-qemu"],
        line: "svmctl iommufd --bind; first=$?; svmctl vfio --bind && svmctl info && \
               sh machines.sh with_ats && exit $first",
    },
    Host {
        part: "host intel",
        name: "test-host",
        iommu: "intel-iommu",
        options: &["--device-option", "lab=on"],
        line: "svmctl iommufd --bind; first=$?; svmctl vfio --bind && svmctl info && exit $first",
    },
    Host {
        part: "host less",
        name: "test-host-less",
        iommu: "svm-vtd",
        options: &[
            "--iommu-option",
            "pasid-bits=16",
            "--iommu-option",
            "device-iotlb=off",
            "--no-driver",
            "--with-qemu",
        ],
        line: "PASID_BITS=16 sh machines.sh refusals narrow without_ats",
    },
];

/// A guest on the host kernel each.
pub fn jobs(launcher: &Launcher) -> Vec<Job<'_>> {
    let job = |host: &'static Host| {
        Job::new(host.part, LOAD, move |part: &mut Part| {
            let Host { name, iommu, .. } = *host;
            let mut arguments = vec!["run", "--exec", host.line, "--kernel", "host"];
            arguments.extend(["--name", name, "--iommu", iommu]);
            arguments.extend(["--iommu-option", "intremap=on", "--memory", "2G"]);
            arguments.extend(["--copy", MACHINES, "--copy", TRY]);
            arguments.extend(host.options);
            arguments.extend(["--timeout", TIMEOUT]);
            let succeeded = launcher.shown(part, &arguments)?;
            totals(launcher, part, name, &["guest", "host", iommu], succeeded)
        })
    };
    HOSTS.iter().map(job).collect()
}
