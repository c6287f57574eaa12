// SPDX-License-Identifier: MIT OR Apache-2.0
//! The distribution's coming versions: the newest kernel of its experimental suite, and the newest
//! QEMU, with their compilers and libraries. They are separate components; only the latest are
//! kept.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::apt::{self, Apt, KernelPackages, Origin};
use super::workshop::alone;
use super::{Prepared, Qemu, driver, kernel, options, recipe, root, series};
use crate::cache::lock::Lock;
use crate::cache::manifest::Depth;
use crate::cache::{Cache, Component, Made};
use crate::cli::Place;
use crate::progress::{Progress, Task};

/// The source of these packages: dependencies of an experimental package come from unstable.
const ORIGIN: Origin = Origin {
    directory: "next-apt",
    suites: &[UNSTABLE, EXPERIMENTAL],
    pins,
};

const UNSTABLE: &str = "sid";
const EXPERIMENTAL: &str = "experimental";

/// Packages whose versions identify the compilers.
const COMPILERS: &[&str] = &["rustc", "gcc", "bindgen"];

/// Suffix of the package through which a kernel's headers depend on the compiler.
const FOR_HOST: &str = "-for-host";

fn pins() -> String {
    format!("Package: src:qemu:any\nPin: release a={EXPERIMENTAL}\nPin-Priority: 500\n")
}

/// Makes the coming versions. No other process prepares until [`Shop::close`].
#[derive(Debug)]
pub struct Shop<'a> {
    cache: Cache,
    progress: &'a Progress,
    apt: Apt,
    series: series::Series,
    kernel: KernelPackages,
    /// The version of QEMU's package.
    qemu: String,
    alone: Option<Lock>,
}

impl<'a> Shop<'a> {
    /// Reads the index and resolves the versions.
    pub fn open(place: &Place, progress: &'a Progress) -> Result<Self> {
        let cache = Cache::open(place.cache.as_deref())?;
        let alone = alone(&cache, progress)?;
        cache.remove_partial()?;
        let apt = Apt::open(&cache, &ORIGIN, place.mirror.as_deref(), progress)?;
        let series = apt.kernel_series()?;
        let series = *series
            .last()
            .context("the index has no Linux from which modules in Rust can be built")?;
        Ok(Self {
            kernel: apt.kernel(series)?,
            qemu: apt
                .versions(apt::QEMU)?
                .into_iter()
                .next()
                .context("the index has no QEMU")?,
            cache,
            progress,
            apt,
            series,
            alone: Some(alone),
        })
    }

    /// Release of the kernel.
    pub fn kernel_release(&self) -> &str {
        &self.kernel.release
    }

    /// Version of the kernel's packages.
    pub fn kernel_version(&self) -> &str {
        &self.kernel.version
    }

    /// Version of QEMU.
    pub fn qemu_version(&self) -> String {
        root::upstream(&self.qemu)
    }

    /// Makes the root file system: QEMU, and the tools to build modules for the kernel.
    pub fn root(&self) -> Result<Component> {
        let mut packages: Vec<_> = recipe::PACKAGES
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        let headers = format!("linux-headers-{}", self.kernel.release);
        let depends = self.apt.depends(&headers, &self.kernel.version)?;
        packages.extend(
            depends
                .iter()
                .filter_map(|name| name.strip_suffix(FOR_HOST))
                .map(str::to_owned),
        );
        let versions: Vec<_> = COMPILERS
            .iter()
            .map(|name| self.apt.versions(name))
            .collect::<Result<_>>()?;
        let recipe = format!(
            "next-root {} {UNSTABLE} {EXPERIMENTAL} qemu {} packages {packages:?} {versions:?}",
            recipe::REVISION,
            self.qemu
        );
        let component = self.cache.component("next-root", recipe);
        let log = self.cache.logs()?.join("next-root.log");
        self.ensure(&component, |directory, task| {
            root::install(
                directory,
                UNSTABLE,
                &packages.join(","),
                &self.apt,
                &log,
                task,
            )?;
            Ok(Made {
                key_files: root::KEY_FILES
                    .iter()
                    .map(|&file| file.to_owned())
                    .collect(),
                facts: vec![("qemu", self.qemu_version())],
            })
        })
        .with_context(|| format!("QEMU {} and the compilers cannot be installed", self.qemu))?;
        Ok(component)
    }

    /// Makes the kernel, with its Rust metadata.
    pub fn kernel(&self, root: &Component) -> Result<Component> {
        let component = kernel::coming(&self.cache, root, &self.kernel.version);
        let log = self.cache.logs()?.join("next-kernel.log");
        self.ensure(&component, |directory, task| {
            let kernel = kernel::fetch(&self.apt, self.series, directory, &log, task)?;
            kernel::make(directory, &kernel, &root::tree(root), &log, task)
        })?;
        Ok(component)
    }

    /// Lets others prepare, after everything is made.
    pub fn close(&mut self) {
        self.alone = None;
    }

    fn ensure(
        &self,
        component: &Component,
        make: impl FnOnce(&Path, &Task) -> Result<Made>,
    ) -> Result<()> {
        component.ensure(self.progress, Depth::Quick, false, make)?;
        self.cache.retire(component)
    }

    /// The prepared parts with this kernel, the driver built for it, and the warnings of that
    /// build.
    pub fn with_kernel(
        &self,
        prepared: &Prepared,
        root: &Component,
        component: &Component,
    ) -> Result<(Prepared, Vec<String>)> {
        let release = self.kernel.release.clone();
        let target = driver::Kernel::Prepared {
            place: "driver-next".to_owned(),
            root: root::tree(root),
            component: component.clone(),
            release: release.clone(),
        };
        let module = driver::build(&prepared.installation, &target, self.progress)?;
        let log = fs::read_to_string(module.with_file_name(driver::LOG)).unwrap_or_default();
        let configuration = kernel::configuration(component, &release);
        Ok((
            Prepared {
                kernel: kernel::image(component),
                modules: kernel::modules(component)?,
                kernel_options: options(&configuration)?,
                configuration: (configuration, release),
                driver: module,
                ..prepared.clone()
            },
            warnings(&log),
        ))
    }

    /// The prepared parts with this QEMU.
    pub fn with_qemu(&self, prepared: &Prepared, root: &Component) -> Prepared {
        Prepared {
            qemu: Qemu::Prepared {
                root: root::tree(root),
                version: self.qemu_version(),
            },
            ..prepared.clone()
        }
    }
}

/// The warnings in the log of a build.
fn warnings(log: &str) -> Vec<String> {
    let is_warning = |line: &&str| line.contains("warning: ") || line.starts_with("WARNING: ");
    log.lines()
        .filter(is_warning)
        .map(|line| line.trim().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_all_compilers_are_found() {
        let log = "  RUSTC [M] a.o\nwarning: unused variable: `x`\nb.c:1:2: warning: unused 'y'\n\
                   WARNING: modpost: missing MODULE_DESCRIPTION()\nmake: nothing\n";
        assert_eq!(warnings(log).len(), 3);
        assert_eq!(warnings("make: warnings are none\n"), [""; 0]);
    }
}
