// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the built `svm-vm` in a directory that looks like a checkout but has none of its parts:
//! enough for everything that happens before it prepares anything.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A directory that looks like a checkout, and a cache next to it.
pub struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    /// Creates both.
    pub fn new() -> Self {
        let bench = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for file in [
            "Cargo.toml",
            "vmm-glue/launch/Cargo.toml",
            "guest-app/init/Cargo.toml",
        ] {
            bench.write(&format!("checkout/{file}"));
        }
        fs::create_dir(bench.path("cache")).unwrap();
        bench
    }

    /// A path below the directory of both.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// Writes a file and creates its directories.
    pub fn write(&self, relative: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, relative).unwrap();
        path
    }

    /// A call of `svm-vm` in the checkout.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_svm-vm"));
        command
            .args(arguments)
            .current_dir(self.path("checkout"))
            .env("SVM_CACHE", self.path("cache"))
            // No test prepares anything: if one tried to, it would fail at once.
            .env("SVM_MIRROR", "file:///nonexistent")
            .stdin(Stdio::null());
        command
    }

    /// Runs it and waits for its end.
    pub fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it with arguments that it must refuse before it prepares anything. Returns the line
    /// that it prints.
    #[allow(dead_code, reason = "not each program of tests has something refused")]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        let text = said(&output);
        let cache = fs::read_dir(self.path("cache")).unwrap();
        assert_eq!(cache.count(), 0, "something was prepared: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        text
    }
}

/// A program's output on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
