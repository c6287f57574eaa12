// SPDX-License-Identifier: MIT OR Apache-2.0
//! The component `selftests`: Linux's own selftests of VFIO and IOMMUFD, built from the
//! distribution's source, with a driver for the device in the library of the former. They run in a
//! guest that is a host.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::apt::{Apt, KernelPackages};
use super::{kernel, recipe, sandbox, series::Series};
use crate::cache::{Cache, Component, Made};
use crate::progress::Task;

/// The script that runs inside the root.
const SCRIPT: &str = include_str!("../../scripts/selftests.sh");

/// The driver of the device, and its header.
const SOURCES: [(&str, &str); 2] = [
    (
        "svm_demo.c",
        include_str!("../../../../tests/selftests/svm_demo.c"),
    ),
    (
        "svm_demo.h",
        include_str!("../../../../guest-app/library/include/svm_demo.h"),
    ),
];

/// Packages with the libraries that the programs need.
const LIBRARIES: [&str; 2] = ["libcap-dev", "uuid-dev"];

/// The programs.
pub const PROGRAMS: [&str; 7] = [
    "iommufd",
    "iommufd_fail_nth",
    "vfio_dma_mapping_mmio_test",
    "vfio_dma_mapping_test",
    "vfio_iommufd_setup_test",
    "vfio_pci_device_test",
    "vfio_pci_driver_test",
];

/// Directory of the programs in the component.
pub const DIRECTORY: &str = "programs";

/// The component with those of a series; it is made with the root.
pub fn component(cache: &Cache, root: &Component, series: Series) -> Component {
    let sources = SOURCES.map(|(_, text)| text).concat();
    let recipe = format!(
        "selftests {} {series} with {}\n{SCRIPT}\n{sources}",
        recipe::REVISION,
        root.name(),
    );
    cache.component("selftests", recipe)
}

/// Fetches what is built.
pub fn fetch(apt: &Apt, series: Series, directory: &Path, task: &Task) -> Result<KernelPackages> {
    let kernel = apt.kernel(series)?;
    let source = format!("{}={}", kernel.source, kernel.version);
    let packages: Vec<_> = LIBRARIES
        .into_iter()
        .map(str::to_owned)
        .chain([source])
        .collect();
    apt.download(&packages, &directory.join(kernel::PACKAGES), task)?;
    Ok(kernel)
}

/// Makes the component from it.
pub fn make(
    directory: &Path,
    kernel: &KernelPackages,
    root: &Path,
    log: &Path,
    task: &Task,
) -> Result<Made> {
    for (name, text) in [("selftests.sh", SCRIPT)].iter().chain(&SOURCES) {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let program = ["/bin/sh", "/mnt/selftests.sh"];
    sandbox::enter(root, directory, None, &program).run_logged(log, task)?;
    for waste in [kernel::PACKAGES, "build"] {
        let waste = directory.join(waste);
        fs::remove_dir_all(&waste).with_context(|| format!("cannot remove {}", waste.display()))?;
    }
    Ok(Made {
        key_files: PROGRAMS.map(|name| format!("{DIRECTORY}/{name}")).into(),
        facts: vec![("version", kernel.version.clone())],
    })
}
