// SPDX-License-Identifier: MIT OR Apache-2.0
//! The components `debug-kernel` and `host-kernel`: small kernels, built from the distribution's
//! source. The first checks the driver: its locks, its memory, its objects, and its behaviour when
//! memory runs out. The second is a host: with IOMMUFD and KVM it gives devices to its guests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::apt::{Apt, KernelPackages};
use super::{kernel, recipe, root::Purpose, sandbox, series::Series};
use crate::cache::{Cache, Component, Made};
use crate::progress::Task;

/// The script that runs where the compilers are, with the debug kernel's name: see
/// [`Flavor::script`].
const SCRIPT: &str = include_str!("../../scripts/debug-kernel.sh");

/// Which kernel is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// The debug kernel.
    Debug,
    /// The host kernel.
    Host,
}

impl Flavor {
    /// All of them.
    pub const ALL: [Flavor; 2] = [Flavor::Debug, Flavor::Host];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Flavor::Debug => "debug",
            Flavor::Host => "host",
        }
    }

    /// The name of its component.
    pub const fn component_name(self) -> &'static str {
        match self {
            Flavor::Debug => "debug-kernel",
            Flavor::Host => "host-kernel",
        }
    }

    /// The root file system that it is compiled in.
    pub const fn workplace(self) -> Purpose {
        match self {
            Flavor::Debug => Purpose::Kernels,
            Flavor::Host => Purpose::Guests,
        }
    }

    /// The argument of the script that chooses the compiler. With gcc the host kernel takes two
    /// thirds of the time: most of its files are small, and clang takes twice as long for headers.
    const fn compiler(self) -> Option<&'static str> {
        match self {
            Flavor::Debug => Some("LLVM=1"),
            Flavor::Host => None,
        }
    }

    /// The kernel's options.
    const fn options(self) -> &'static str {
        match self {
            Flavor::Debug => include_str!("../../scripts/debug.config"),
            Flavor::Host => include_str!("../../scripts/host.config"),
        }
    }

    /// What is done where the compilers are: the same for all, but for the name, by which the file of
    /// the options is called.
    fn script(self) -> String {
        SCRIPT.replace("debug", self.name())
    }
}

/// The component with a kernel of a series; it is made in the root file system `workplace`.
pub fn component(
    cache: &Cache,
    workplace: &Component,
    series: Series,
    flavor: Flavor,
) -> Component {
    let name = flavor.component_name();
    let recipe = format!(
        "{name} {} {series} with {} {}\n{}\n{}\n{}",
        recipe::REVISION,
        workplace.name(),
        flavor.compiler().unwrap_or_default(),
        flavor.script(),
        flavor.options(),
        kernel::UNPACK,
    );
    cache.component(name, recipe)
}

/// The kernel's image in the component.
pub fn image(component: &Component) -> kernel::Image {
    kernel::Image {
        packed: component.path("vmlinuz"),
        unpacked: Some(component.path("vmlinux")),
    }
}

/// The kernel's configuration in the component.
pub fn configuration(component: &Component, release: &str) -> PathBuf {
    component.path(&format!("{}/.config", headers(release)))
}

fn headers(release: &str) -> String {
    format!("usr/src/linux-headers-{release}")
}

/// Fetches the source, and unpacks it if this host can; this can run while the workplace is made.
pub fn fetch(
    apt: &Apt,
    series: Series,
    directory: &Path,
    log: &Path,
    task: &Task,
) -> Result<KernelPackages> {
    let kernel = apt.kernel(series)?;
    let package = format!("{}={}", kernel.source, kernel.version);
    apt.download(&[package], &directory.join(kernel::PACKAGES), task)?;
    kernel::unpack_early(directory, kernel::Extent::All, log, task)?;
    Ok(kernel)
}

/// Makes the component from the fetched source.
pub fn make(
    directory: &Path,
    flavor: Flavor,
    kernel: &KernelPackages,
    workplace: &Path,
    log: &Path,
    task: &Task,
) -> Result<Made> {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let script = format!("{}.sh", flavor.component_name());
    write(&script, &flavor.script())?;
    write(&format!("{}.config", flavor.name()), flavor.options())?;
    let inside = format!("/mnt/{script}");
    let program: Vec<_> = ["/bin/sh", &inside]
        .into_iter()
        .chain(flavor.compiler())
        .collect();
    // It fills all processors, for minutes or an hour: what else the machine does comes first.
    sandbox::enter(workplace, directory, None, &program)
        .low_priority(true)
        .run_logged(log, task)?;
    for waste in [kernel::PACKAGES, "build"] {
        let waste = directory.join(waste);
        fs::remove_dir_all(&waste).with_context(|| format!("cannot remove {}", waste.display()))?;
    }
    let path = directory.join("release");
    let release =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let release = release.trim().to_owned();
    let mut key_files: Vec<_> = ["vmlinuz", "vmlinux"].map(str::to_owned).into();
    let needed = [
        ".config",
        "Makefile",
        "Module.symvers",
        "include/config/auto.conf",
        "rust/libkernel.rmeta",
        "rust/libmacros.so",
        "scripts/target.json",
        "tools/objtool/objtool",
    ];
    key_files.extend(needed.map(|file| format!("{}/{file}", headers(&release))));
    Ok(Made {
        key_files,
        facts: vec![("release", release), ("version", kernel.version.clone())],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kernel_has_its_script_and_options() {
        // What is made already stays what the recipe says.
        assert_eq!(Flavor::Debug.script(), SCRIPT);
        let host = Flavor::Host.script();
        assert!(host.contains("KCONFIG_ALLCONFIG=/mnt/host.config") && !host.contains("debug"));
        for flavor in Flavor::ALL {
            let version = format!("CONFIG_LOCALVERSION=\"-svm-{}\"", flavor.name());
            let has = |line: &str| flavor.options().lines().any(|l| l == line);
            assert!(has(&version) && has("CONFIG_RUST=y") && has("CONFIG_IOMMUFD=y"));
        }
    }
}
