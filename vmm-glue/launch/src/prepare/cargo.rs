// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts that cargo builds on the host: the plug-in, and the programs of the guest; and the
//! example in C, built with the C compiler that cargo uses for linking.
//!
//! Each kind of build has its own target directory, because different flags would make cargo
//! rebuild everything each time.
//!
//! While parts of the cache are made, these builds get the processor time that is left: a kernel takes
//! longer, and much of its work is sequential.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{glibc, host};
use crate::external::External;
use crate::installation::Installation;
use crate::progress::Progress;

/// The target of all builds: given explicitly, so that the flags do not apply to build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// What separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

/// What the builds have in common.
#[derive(Clone, Copy, Debug)]
pub struct Builds<'a> {
    /// The sources, or what was built already.
    pub installation: &'a Installation,
    /// Whether parts of the cache are made at the same time.
    pub beside_others: bool,
    /// The display of the progress.
    pub progress: &'a Progress,
}

/// The programs of the guest.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The first process.
    pub init: PathBuf,
    /// The program that uses the device.
    pub svmctl: PathBuf,
    /// The example in C.
    pub sum: PathBuf,
}

impl Builds<'_> {
    /// Builds the guest's programs, linked statically: the guest has no C library.
    pub fn programs(&self) -> Result<Programs> {
        if let Some(built) = self.installation.built() {
            return Ok(Programs {
                init: product(built, "svm-init")?,
                svmctl: product(built, "svmctl")?,
                sum: product(built, "svm-sum")?,
            });
        }
        let directory = self.installation.work("guest-programs");
        // Without debug information, which the guest does not get.
        let flags = [
            "-C",
            "target-feature=+crt-static",
            "-C",
            "debuginfo=0",
            "-C",
            "strip=debuginfo",
        ];
        let arguments = ["--profile", "guest", "-p", "svm-init", "-p", "svmctl-cli"];
        let name = "building the guest's programs";
        self.build(name, &directory, &arguments, &flags)?;
        let products = directory.join(TARGET).join("guest");
        Ok(Programs {
            init: product(&products, "svm-init")?,
            svmctl: product(&products, "svmctl")?,
            sum: c_example(self.installation, &directory)?,
        })
    }

    /// Builds the plug-in: against the C library of `root` if it runs there, otherwise against the
    /// host's.
    pub fn plugin(&self, root: Option<&Path>) -> Result<PathBuf> {
        let library = match self.installation.built() {
            Some(built) => product(built, "libsvm_qemu.so")?,
            None => self.build_plugin(root)?,
        };
        if let Some(root) = root {
            glibc::check(&library, &root.join("usr/lib/x86_64-linux-gnu/libc.so.6"))?;
        }
        Ok(library)
    }

    fn build_plugin(&self, root: Option<&Path>) -> Result<PathBuf> {
        let (directory, flags) = match root {
            Some(root) => {
                let sysroot = format!("link-arg=--sysroot={}", root.display());
                (
                    self.installation.work("plugin"),
                    vec!["-C".to_owned(), sysroot],
                )
            }
            None => (self.installation.work("plugin-host"), Vec::new()),
        };
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let arguments = ["--profile", "plugin", "-p", "svm-qemu"];
        self.build("building the plug-in", &directory, &arguments, &flags)?;
        product(&directory.join(TARGET).join("plugin"), "libsvm_qemu.so")
    }

    fn build(
        &self,
        name: &str,
        directory: &Path,
        arguments: &[&str],
        flags: &[&str],
    ) -> Result<()> {
        let task = self.progress.quick_task(name);
        let log = directory.join("svm-vm.log");
        let _ = std::fs::remove_file(&log);
        External::new(host::cargo()?)
            .arg("build")
            .args(arguments)
            .args(["--target", TARGET, "--target-dir"])
            .arg(directory)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR))
            .env("CARGO_TERM_COLOR", "never")
            .without_env("RUSTFLAGS")
            .without_env("MAKEFLAGS")
            .without_env("MFLAGS")
            .directory(self.installation.sources())
            .low_priority(self.beside_others)
            .with_tree()
            .run_logged(&log, &task)
            .with_context(|| format!("{name} failed"))?;
        task.done();
        Ok(())
    }
}

/// Compiles the example in C, linked statically as well.
fn c_example(installation: &Installation, directory: &Path) -> Result<PathBuf> {
    let program = directory.join("sum");
    // Several runs of one installation may build it at the same time.
    let fresh = directory.join(format!("sum.{}", std::process::id()));
    External::new(host::compiler()?)
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static"])
        .arg("-I")
        .arg(installation.path("guest-app/library/include"))
        .arg("-o")
        .arg(&fresh)
        .arg(installation.path("guest-app/library/examples/sum.c"))
        .output()
        .context("the example in C does not compile")?;
    std::fs::rename(&fresh, &program)
        .with_context(|| format!("cannot write {}", program.display()))?;
    Ok(program)
}

fn product(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is missing, although its build succeeded or its release was unpacked",
        path.display()
    );
    Ok(path)
}
