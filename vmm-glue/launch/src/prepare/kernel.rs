// SPDX-License-Identifier: MIT OR Apache-2.0
//! The component `kernel`: the distribution's kernel image, the modules that guests load, and the
//! headers with the Rust metadata that they lack, rebuilt from the distribution's source.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::apt::{Apt, KernelPackages};
use super::{host, misfit, recipe, sandbox, series::Series};
use crate::cache::{Cache, Component, Made};
use crate::external::{External, tail};
use crate::progress::Task;

/// The script that runs inside the root.
const SCRIPT: &str = include_str!("../../scripts/kernel.sh");

/// The script that unpacks the source.
pub const UNPACK: &str = include_str!("../../scripts/source.sh");

/// Directory of the packages while the component is made; the script reads them there.
pub const PACKAGES: &str = "packages";

/// The names of the modules in the component, each after those that it depends on.
const ORDER: &str = "modules/order";

/// The path of a module in the component.
fn module(name: &str) -> String {
    format!("modules/{name}.ko")
}

/// A kernel's image.
#[derive(Clone, Debug)]
pub struct Image {
    /// In the format of the boot protocol: it unpacks itself.
    pub packed: PathBuf,
    /// The same kernel, unpacked, if there is one.
    pub unpacked: Option<PathBuf>,
}

/// The component with a kernel of a series; it is made with the toolchain of the root.
pub fn component(cache: &Cache, root: &Component, series: Series) -> Component {
    made_of(cache, "kernel", root, &series.to_string())
}

/// The component with a coming kernel, of exactly this version.
pub fn coming(cache: &Cache, root: &Component, version: &str) -> Component {
    made_of(cache, "next-kernel", root, version)
}

fn made_of(cache: &Cache, kind: &'static str, root: &Component, what: &str) -> Component {
    let recipe = format!(
        "{kind} {} {what} in {} modules {:?} {:?}\n{SCRIPT}\n{UNPACK}",
        recipe::REVISION,
        root.name(),
        recipe::MODULES,
        recipe::DEVICE_MODULES,
    );
    cache.component(kind, recipe)
}

/// The kernel's image in the component.
pub fn image(component: &Component) -> Image {
    Image {
        packed: component.path("vmlinuz"),
        unpacked: Some(component.path("vmlinux")),
    }
}

/// The kernel's configuration in the component.
pub fn configuration(component: &Component, release: &str) -> PathBuf {
    component.path(&format!("usr/src/linux-headers-{release}/.config"))
}

/// The modules in the component: names and files, each after those that it depends on.
pub fn modules(component: &Component) -> Result<Vec<(String, PathBuf)>> {
    let path = component.path(ORDER);
    let order =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(order
        .lines()
        .map(|name| (name.to_owned(), component.path(&module(name))))
        .collect())
}

/// The names of the modules that every guest loads. Drivers of other devices come after them in the
/// list.
pub fn loaded(modules: &[(String, PathBuf)]) -> impl Iterator<Item = &str> {
    // In the order of loading, one may precede others that need it as well.
    let is_loaded = |(name, _): &(String, PathBuf)| recipe::MODULES.contains(&name.as_str());
    let number = modules
        .iter()
        .rposition(is_loaded)
        .map_or(0, |last| last + 1);
    modules[..number].iter().map(|(name, _)| name.as_str())
}

/// Fetches the packages, and unpacks the source if this host can; this can run while the root is
/// made.
pub fn fetch(
    apt: &Apt,
    series: Series,
    directory: &Path,
    log: &Path,
    task: &Task,
) -> Result<KernelPackages> {
    let kernel = apt.kernel(series)?;
    let KernelPackages {
        release,
        common,
        version,
        source,
    } = &kernel;
    let names = [
        source.clone(),
        format!("linux-binary-{release}"),
        format!("linux-modules-{release}"),
        format!("linux-headers-{release}"),
        format!("linux-headers-{common}-common"),
        format!("linux-kbuild-{common}"),
    ];
    let packages: Vec<_> = names
        .iter()
        .map(|name| format!("{name}={version}"))
        .collect();
    apt.download(&packages, &directory.join(PACKAGES), task)?;
    unpack_early(directory, Extent::Metadata, log, task)?;
    Ok(kernel)
}

/// The part of a kernel's source to unpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The part for the Rust metadata.
    Metadata,
    /// All.
    All,
}

/// Installs the script that unpacks the source, and runs it if the host has xz; otherwise it runs
/// inside the root.
pub fn unpack_early(directory: &Path, extent: Extent, log: &Path, task: &Task) -> Result<()> {
    let script = directory.join("source.sh");
    fs::write(&script, UNPACK).context("cannot write the source's script")?;
    let _ = fs::remove_file(log);
    if host::find_program("xz").is_none() {
        return Ok(());
    }
    fs::create_dir_all(directory.join("build")).context("cannot create a directory")?;
    External::new("sh")
        .arg(script)
        .arg(directory.join(PACKAGES))
        .arg(directory.join("build/source"))
        .args((extent == Extent::All).then_some("all"))
        .with_tree()
        .run_logged(log, task)
        .context("the source of the kernel cannot be unpacked")
}

/// Makes the component from fetched packages.
pub fn make(
    directory: &Path,
    kernel: &KernelPackages,
    root: &Path,
    log: &Path,
    task: &Task,
) -> Result<Made> {
    let script = directory.join("kernel.sh");
    fs::write(&script, SCRIPT).context("cannot write the kernel's script")?;
    let mut program = vec!["/bin/sh", "/mnt/kernel.sh", &kernel.release];
    program.extend(recipe::MODULES);
    program.extend(recipe::DEVICE_MODULES);
    sandbox::enter(root, directory, None, &program)
        .run_logged(log, task)
        .with_context(|| {
            let log = fs::read_to_string(log).unwrap_or_default();
            let misfits = misfit::describe(&misfit::find(&log));
            let why = misfits.unwrap_or_else(|| tail(&log, 1));
            format!(
                "the Rust metadata of Linux {} cannot be made: {why}",
                kernel.release
            )
        })?;
    for waste in [PACKAGES, "build", "usr/lib"] {
        let waste = directory.join(waste);
        fs::remove_dir_all(&waste).with_context(|| format!("cannot remove {}", waste.display()))?;
    }
    let headers = format!("usr/src/linux-headers-{}", kernel.release);
    let mut key_files: Vec<_> = ["vmlinuz", "vmlinux", ORDER].map(str::to_owned).into();
    let metadata = [
        ".config",
        "Module.symvers",
        "rust/libkernel.rmeta",
        "rust/libmacros.so",
    ];
    key_files.extend(metadata.map(|file| format!("{headers}/{file}")));
    let order = fs::read_to_string(directory.join(ORDER)).context("no module was unpacked")?;
    key_files.extend(order.lines().map(module));
    Ok(Made {
        key_files,
        facts: vec![
            ("release", kernel.release.clone()),
            ("version", kernel.version.clone()),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_of_other_devices_are_not_loaded() {
        let modules = |names: &[&str]| -> Vec<_> {
            let module = |name: &&str| (name.to_string(), PathBuf::new());
            names.iter().map(module).collect()
        };
        let ours = [
            "zram",
            "vfio",
            "vfio_iommu_type1",
            "vfio-pci-core",
            "vfio-pci",
        ];
        let all = [&ours[..], &["virtio_blk", "nvme-core", "nvme"]].concat();
        let all = modules(&all);
        let names: Vec<_> = loaded(&all).collect();
        assert_eq!(names, ours);
        assert_eq!(loaded(&modules(&["zram"])).count(), 1);
        assert_eq!(loaded(&[]).count(), 0);
    }
}
