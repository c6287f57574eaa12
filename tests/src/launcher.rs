// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-vm` as the tests use it: built once, then called as a user would.

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, ensure};

use crate::parts::Part;

/// The `svm-vm` of this checkout.
pub struct Launcher {
    program: PathBuf,
    checkout: PathBuf,
}

/// The cargo that runs this program, or the one in the path.
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

impl Launcher {
    /// Builds `svm-vm` and notes where it is.
    pub fn build() -> anyhow::Result<Self> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the crate of the tests stands in the checkout")?
            .to_owned();
        let output = Command::new(cargo())
            .args([
                "build",
                "--quiet",
                "-p",
                "svm-vm",
                "--message-format",
                "json",
            ])
            .current_dir(&checkout)
            .stderr(Stdio::inherit())
            .output()
            .context("cargo did not start")?;
        ensure!(output.status.success(), "svm-vm does not build");
        let program = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
            .find(|path| path.file_name().is_some_and(|name| name == "svm-vm"))
            .context("cargo named no executable of svm-vm")?;
        Ok(Launcher { program, checkout })
    }

    /// A call of `svm-vm`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.checkout)
            .stdin(Stdio::null());
        command
    }

    /// Prepares what guests with a kernel need, with its progress shown.
    pub fn prepare(&self, kernel: &str) -> anyhow::Result<()> {
        let status = self
            .command(&["prepare", "--kernel", kernel])
            .status()
            .context("svm-vm did not start")?;
        ensure!(status.success(), "svm-vm prepare failed");
        Ok(())
    }

    /// Runs `svm-vm` to its end with its output shown as that of a part of the tests; whether it
    /// succeeded.
    pub fn shown(&self, part: &mut Part, arguments: &[&str]) -> anyhow::Result<bool> {
        let mut command = self.command(arguments);
        let status = part.follow(&mut command, |part, line| part.line(line))?;
        Ok(status.success())
    }

    /// Runs `svm-vm` to its end and keeps its output.
    pub fn captured(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.command(arguments)
            .output()
            .context("svm-vm did not start")
    }

    /// Runs `svm-vm`, which must succeed, and keeps its output; the error shows it.
    ///
    /// # Errors
    ///
    /// It does not start, or fails.
    pub fn succeeding(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = self.captured(arguments)?;
        ensure!(
            output.status.success(),
            "svm-vm {} failed:\n{}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    /// The top directory of the checkout.
    pub fn checkout(&self) -> &Path {
        &self.checkout
    }

    /// The folder that a run of this name leaves its files in.
    pub fn run_dir(&self, name: &str) -> PathBuf {
        self.checkout.join("target/runs").join(name)
    }

    /// The `svmctl` of the guest, once the guest is prepared.
    pub fn svmctl(&self) -> PathBuf {
        let built = "target/guest-programs/x86_64-unknown-linux-gnu/guest/svmctl";
        self.checkout.join(built)
    }

    /// Writes a program that is the prepared QEMU with the plug-in in it, and returns its path.
    /// The plug-in is built now, and not each time.
    pub fn qemu_wrapper(&self) -> anyhow::Result<PathBuf> {
        let output = self.succeeding(&["qemu", "--print"])?;
        let line = String::from_utf8(output.stdout).context("svm-vm qemu printed no UTF-8")?;
        let path = self.checkout.join("target/qemu-with-svm-demo");
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o755)
            .open(&path)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        writeln!(file, "#!/bin/sh\nexec {} \"$@\"", line.trim_end())?;
        Ok(path)
    }
}
