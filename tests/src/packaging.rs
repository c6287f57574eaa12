// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `make -C guest-driver dkms-source` gives to dkms: it must be all that the driver is built
//! from. That it builds is seen by building it; this needs neither dkms nor a kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// The files that a Rust file of the driver refers to: by `mod name;`, with or without a path of
/// its own.
pub fn modules(file: &Path, content: &str) -> Vec<PathBuf> {
    let directory = file.parent().unwrap_or(Path::new(""));
    let mut path = None;
    let mut found = Vec::new();
    for line in content.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(PathBuf::from);
        }
        let declared = ["mod ", "pub mod ", "pub(crate) mod "]
            .iter()
            .find_map(|word| line.strip_prefix(word)?.strip_suffix(';'));
        if let Some(name) = declared {
            let relative = path.take().unwrap_or_else(|| format!("{name}.rs").into());
            found.push(directory.join(relative));
        }
    }
    found
}

/// Checks a tree that dkms gets: the version, and that no file is missing.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(tree: &Path, version: &str) -> anyhow::Result<usize> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{} is missing", path.display()))
    };
    let configuration = read(&tree.join("dkms.conf"))?;
    let line = format!("PACKAGE_VERSION=\"{version}\"");
    ensure!(
        configuration.lines().any(|found| found == line),
        "dkms.conf lacks the line {line}"
    );
    let driver = tree.join("guest-driver");
    for name in ["Kbuild", "Makefile", "tracepoints.c", "tracepoints.h"] {
        read(&driver.join(name))?;
    }
    let mut open = vec![driver.join("svm_demo_main.rs")];
    let mut count = 0;
    while let Some(file) = open.pop() {
        open.extend(modules(&file, &read(&file)?));
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn dkms_gets_every_file_that_the_driver_is_built_from() {
        let directory = tempfile::tempdir().unwrap();
        let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-driver");
        let made = Command::new("make")
            .args(["--silent", "dkms-source", "-C"])
            .arg(driver)
            .arg(format!("DESTDIR={}", directory.path().display()))
            .env_remove("MAKEFLAGS")
            .env_remove("MFLAGS")
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        let version = env!("CARGO_PKG_VERSION");
        let tree = directory.path().join(format!("usr/src/svm_demo-{version}"));
        // The driver's own files and those of the interface.
        assert!(check(&tree, version).unwrap() > 20);

        // It would be noticed.
        std::fs::remove_file(tree.join("demo-device/abi/src/ioctl.rs")).unwrap();
        let error = check(&tree, version).unwrap_err().to_string();
        assert!(error.contains("ioctl.rs is missing"), "{error}");
    }

    #[test]
    fn modules_are_found_beside_the_file_and_by_their_path() {
        let content = "mod a;\n#[path = \"../b/c.rs\"]\npub(crate) mod c;\nmod inline {\n";
        let found = modules(Path::new("/x/main.rs"), content);
        assert_eq!(found, ["/x/a.rs", "/x/../b/c.rs"].map(PathBuf::from));
    }
}
