// SPDX-License-Identifier: MIT OR Apache-2.0
//! llvm-profdata and llvm-cov of the LLVM that the compiler was built with: the toolchain's own,
//! the host's, or those that `svm-vm` prepares.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::launcher::Launcher;

/// The tools.
#[derive(Debug)]
pub struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
    /// The root file system with their libraries, if not the host's.
    root: Option<PathBuf>,
}

impl Tools {
    /// Finds the tools, or prepares them.
    pub fn find() -> anyhow::Result<Self> {
        if let (Some(profdata), Some(cov)) = (
            std::env::var_os("LLVM_PROFDATA"),
            std::env::var_os("LLVM_COV"),
        ) {
            return Ok(Tools {
                profdata: profdata.into(),
                cov: cov.into(),
                root: None,
            });
        }
        let version = said_by("rustc", &["-vV"])?;
        let field = |name: &str| {
            let value = version.lines().find_map(|line| line.strip_prefix(name));
            value.with_context(|| format!("rustc -vV has no line {name:?}"))
        };
        let host = field("host: ")?;
        let major = field("LLVM version: ")?;
        let major = major.split_once('.').map_or(major, |(major, _)| major);
        let sysroot = said_by("rustc", &["--print", "sysroot"])?;
        let own = Path::new(sysroot.trim()).join("lib/rustlib").join(host);
        let places = [
            own.join("bin"),
            Path::new("/usr/lib").join(format!("llvm-{major}/bin")),
        ];
        for place in places {
            let tools = Tools {
                profdata: place.join("llvm-profdata"),
                cov: place.join("llvm-cov"),
                root: None,
            };
            if tools.profdata.is_file() && tools.cov.is_file() {
                return Ok(tools);
            }
        }
        Self::prepared(major).with_context(|| {
            format!(
                "llvm-cov and llvm-profdata of LLVM {major}, which this rustc has, are missing: \
                 install llvm-{major}, or the component llvm-tools of the Rust toolchain, or name \
                 both programs by LLVM_COV and LLVM_PROFDATA"
            )
        })
    }

    /// Debian's, which `svm-vm` prepares.
    fn prepared(major: &str) -> anyhow::Result<Self> {
        let output = Launcher::build()?
            .command(&["llvm", major])
            .stderr(Stdio::inherit())
            .output()
            .context("svm-vm did not start")?;
        ensure!(output.status.success(), "svm-vm llvm {major} failed");
        let root = PathBuf::from(String::from_utf8(output.stdout)?.trim_end());
        let bin = root.join(format!("usr/lib/llvm-{major}/bin"));
        Ok(Tools {
            profdata: bin.join("llvm-profdata"),
            cov: bin.join("llvm-cov"),
            root: Some(root),
        })
    }

    /// A call of a program: with the libraries of its root file system, if it has one.
    fn command(&self, program: &Path) -> Command {
        let mut command = match &self.root {
            None => Command::new(program),
            Some(root) => {
                let libraries = root.join("usr/lib/x86_64-linux-gnu");
                let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
                command.arg("--library-path").arg(libraries).arg(program);
                command
            }
        };
        command.stdin(Stdio::null());
        command
    }

    /// Merges all profiles of a directory into one.
    pub fn merge(&self, profiles: &Path, merged: &Path) -> anyhow::Result<()> {
        let mut command = self.command(&self.profdata);
        command.args(["merge", "--sparse", "--output"]).arg(merged);
        let entries =
            fs::read_dir(profiles).context("the instrumented tests have left no profile")?;
        for entry in entries {
            command.arg(entry?.path());
        }
        said(&mut command).map(drop)
    }

    /// The coverage of the sources below a directory, in lcov's format.
    pub fn export(
        &self,
        merged: &Path,
        programs: &[OsString],
        sources: &Path,
    ) -> anyhow::Result<String> {
        let mut command = self.command(&self.cov);
        command
            .args(["export", "--format=lcov", "--skip-functions"])
            .arg("--instr-profile")
            .arg(merged);
        for program in programs {
            command.arg("--object").arg(program);
        }
        said(command.arg("--sources").arg(sources))
    }
}

fn said_by(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    said(Command::new(program).args(arguments))
}

/// Runs a program that must succeed, and returns what it says.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("LC_ALL", "C")
        .output()
        .with_context(|| format!("{name} did not start"))?;
    ensure!(
        output.status.success(),
        "{name} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
