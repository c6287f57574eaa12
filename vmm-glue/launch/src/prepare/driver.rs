// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel module `svm_demo`: built from a copy of the sources, inside the root for
//! the prepared kernel, or on the host for the user's own kernel. It is rebuilt only when the
//! sources or the kernel have changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::{host, misfit, sandbox};
use crate::cache::{Component, digest, digest_files, lock::Lock, remove_tree};
use crate::external::External;
use crate::installation::Installation;
use crate::progress::Progress;

/// Directories of the sources that the module is built from.
const SOURCES: &[&str] = &["guest-driver", "demo-device/abi/src"];

/// Name of the module's file.
pub const FILE: &str = "svm_demo.ko";

/// The module with debug information, which the guest does not need, in the same directory.
const WHOLE: &str = "svm_demo.ko.debug";

/// Name of the log of its build, in the same directory.
pub const LOG: &str = "build.log";

/// The kernel that the module is built for.
#[derive(Debug)]
pub enum Kernel {
    /// One from the cache.
    Prepared {
        /// Name of the build directory of the module.
        place: String,
        /// The root file system with the toolchain that the kernel was built with.
        root: PathBuf,
        /// The kernel component.
        component: Component,
        /// Its release.
        release: String,
    },
    /// The user's own, by its build directory; built with the host's toolchain.
    Own(PathBuf),
}

/// Builds the module if needed. Returns its file.
pub fn build(installation: &Installation, kernel: &Kernel, progress: &Progress) -> Result<PathBuf> {
    for directory in SOURCES {
        installation.require(directory)?;
    }
    let sources = sources(installation.sources())?;
    let hash = digest_files(installation.sources(), &sources)?;
    let (name, kernel_key) = match kernel {
        Kernel::Prepared {
            place, component, ..
        } => (place.clone(), component.name()),
        // Builds for several kernels do not replace each other.
        Kernel::Own(kdir) => {
            let path = digest(kdir.as_os_str().as_encoded_bytes());
            (format!("driver-{}", &path[..8]), own_key(kdir)?)
        }
    };
    let place = installation.guest().join(&name);
    let module = place.join(FILE);
    let stamp = place.join("stamp");
    let wanted = format!("{hash} {kernel_key}\n");

    let task = progress.quick_task("building the driver");
    let _lock = Lock::exclusive(&installation.guest().join(format!("{name}.lock")), &task)?;
    if module.is_file() && fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        task.done();
        return Ok(module);
    }
    remove_tree(&place)?;
    let work = place.join("work");
    copy(installation.sources(), &sources, &work)?;
    let log = place.join(LOG);
    compile(kernel, &work)
        .run_logged(&log, &task)
        .with_context(|| match kernel {
            Kernel::Prepared { .. } if host::root().is_err() => {
                "the driver cannot be built: for the prepared kernel that takes root, or a machine \
                 that gives everybody user namespaces (`svm-vm prepare` as root builds \
                 it, too)"
                    .to_owned()
            }
            _ => match misfit::describe(&misfit::find(&read(&log))) {
                Some(misfits) => format!("the driver does not fit this kernel: {misfits}"),
                None => "the driver cannot be built".to_owned(),
            },
        })?;
    let product = work.join("guest-driver").join(FILE);
    ensure!(
        product.is_file(),
        "the build of guest-driver made no {FILE}; see {}",
        log.display()
    );
    if let Some(strip) = strip(kernel, &work) {
        let whole = place.join(WHOLE);
        fs::copy(&product, &whole).with_context(|| format!("cannot write {}", whole.display()))?;
        strip.run_logged(&log, &task)?;
    }
    fs::copy(&product, &module)
        .with_context(|| format!("cannot copy {} into place", product.display()))?;
    remove_tree(&work)?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    task.done();
    Ok(module)
}

/// The text of a log; empty if it cannot be read, which its writer has already reported.
fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

fn compile(kernel: &Kernel, work: &Path) -> External {
    match kernel {
        Kernel::Prepared {
            root,
            component,
            release,
            ..
        } => {
            let headers = format!("usr/src/linux-headers-{release}");
            let directory = format!("/{headers}");
            let mut program = vec!["make", "-C", &directory, "M=/mnt/guest-driver"];
            program.extend(compiler(&component.path(&headers)));
            program.push("modules");
            sandbox::enter(root, work, Some(&component.path("usr/src")), &program)
        }
        Kernel::Own(kdir) => {
            let mut module = std::ffi::OsString::from("M=");
            module.push(work.join("guest-driver"));
            // A compiler in the environment, such as `LLVM=-19`, has precedence.
            let named = ["LLVM", "CC"]
                .iter()
                .any(|name| std::env::var_os(name).is_some());
            External::new("make")
                .arg("-C")
                .arg(kdir)
                .arg(module)
                .args(compiler(kdir).filter(|_| !named))
                .arg("modules")
                .without_env("MAKEFLAGS")
                .without_env("MFLAGS")
                .with_tree()
        }
    }
}

/// Removes debug information: nine tenths of the module, which a guest unpacks at boot and copies
/// each time it loads the module. The user's own kernel keeps it, for debugging.
fn strip(kernel: &Kernel, work: &Path) -> Option<External> {
    let Kernel::Prepared { root, .. } = kernel else {
        return None;
    };
    let file = format!("/mnt/guest-driver/{FILE}");
    let program = ["strip", "--strip-debug", &file];
    Some(sandbox::enter(root, work, None, &program))
}

/// The argument of `make` that selects the compiler if the kernel was not built with GCC: the flags
/// are those of that compiler.
fn compiler(kdir: &Path) -> Option<&'static str> {
    let configuration = fs::read_to_string(kdir.join(".config")).unwrap_or_default();
    compiler_word(&configuration)
}

fn compiler_word(configuration: &str) -> Option<&'static str> {
    let on = |option: &str| configuration.lines().any(|line| line == option);
    match (on("CONFIG_CC_IS_CLANG=y"), on("CONFIG_LD_IS_LLD=y")) {
        (true, true) => Some("LLVM=1"),
        (true, false) => Some("CC=clang"),
        (false, _) => None,
    }
}

/// The key of the user's own kernel: its release and its exported symbols.
fn own_key(kdir: &Path) -> Result<String> {
    let files = [".config", "include/config/kernel.release", "Module.symvers"].map(PathBuf::from);
    digest_files(kdir, &files).with_context(|| {
        format!(
            "{} is no build directory of a kernel that was built (option --kdir)",
            kdir.display()
        )
    })
}

/// The source files below the directories that the module is built from, sorted. It ignores the
/// products of a manual build in the checkout.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for directory in SOURCES {
        walk(root, Path::new(directory), &mut files)?;
    }
    files.sort();
    Ok(files)
}

fn walk(root: &Path, relative: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let directory = root.join(relative);
    let context = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(&directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        let path = relative.join(entry.file_name());
        let kind = entry.file_type().with_context(context)?;
        if kind.is_dir() {
            walk(root, &path, files)?;
        } else if is_source(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".mod.c") {
        return false;
    }
    let extension = path.extension().unwrap_or_default();
    ["Kbuild", "Makefile"].contains(&&*name)
        || ["rs", "c", "h", "S"]
            .iter()
            .any(|known| extension == *known)
}

fn copy(root: &Path, files: &[PathBuf], to: &Path) -> Result<()> {
    for file in files {
        let target = to.join(file);
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        fs::copy(root.join(file), &target)
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_a_build_are_no_sources() {
        for source in ["Kbuild", "Makefile", "svm_demo.rs", "a/b.rs"] {
            assert!(is_source(Path::new(source)), "{source}");
        }
        for product in [
            "svm_demo.ko",
            "svm_demo.mod.c",
            "svm_demo.o",
            ".svm_demo.o.cmd",
            "modules.order",
        ] {
            assert!(!is_source(Path::new(product)), "{product}");
        }
    }

    #[test]
    fn sources_are_found_in_both_directories_and_sorted() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for file in [
            "guest-driver/Kbuild",
            "guest-driver/b.rs",
            "guest-driver/b.o",
            "demo-device/abi/src/x.rs",
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = sources(root).unwrap();
        let expected = [
            "demo-device/abi/src/x.rs",
            "guest-driver/Kbuild",
            "guest-driver/b.rs",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        let work = root.join("work");
        copy(root, &found, &work).unwrap();
        assert!(work.join("guest-driver/b.rs").is_file());
        assert!(!work.join("guest-driver/b.o").exists());
    }

    #[test]
    fn the_compiler_is_the_kernels() {
        assert_eq!(compiler_word("CONFIG_CC_IS_GCC=y\n"), None);
        let clang = "CONFIG_CC_IS_CLANG=y\n";
        assert_eq!(compiler_word(clang), Some("CC=clang"));
        let all = format!("{clang}CONFIG_LD_IS_LLD=y\n");
        assert_eq!(compiler_word(&all), Some("LLVM=1"));
    }

    #[test]
    fn a_directory_that_is_no_kernel_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = format!("{:#}", own_key(directory.path()).unwrap_err());
        assert!(error.contains("--kdir"), "{error}");
    }
}
