// SPDX-License-Identifier: MIT OR Apache-2.0
//! llvm-profdata and llvm-cov of the LLVM that the compiler was built with: the toolchain's own,
//! the host's, or Debian's packages, unpacked in the cache and installed nowhere.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

/// The tools.
#[derive(Debug)]
pub struct Tools {
    profdata: PathBuf,
    cov: PathBuf,
    /// Where their shared libraries are, if not where the host's are.
    libraries: Option<PathBuf>,
}

impl Tools {
    /// Finds the tools, or fetches them.
    pub fn find() -> anyhow::Result<Self> {
        if let (Some(profdata), Some(cov)) = (
            std::env::var_os("LLVM_PROFDATA"),
            std::env::var_os("LLVM_COV"),
        ) {
            return Ok(Tools {
                profdata: profdata.into(),
                cov: cov.into(),
                libraries: None,
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
                libraries: None,
            };
            if tools.profdata.is_file() && tools.cov.is_file() {
                return Ok(tools);
            }
        }
        Self::fetched(major).with_context(|| {
            format!(
                "llvm-cov and llvm-profdata of LLVM {major}, which this rustc has, are missing: \
                 install llvm-{major}, or the component llvm-tools of the Rust toolchain, or name \
                 both programs by LLVM_COV and LLVM_PROFDATA"
            )
        })
    }

    /// The tools of Debian's packages, which are unpacked in the cache if they are not yet.
    fn fetched(major: &str) -> anyhow::Result<Self> {
        let place = cache()?.join(format!("llvm-{major}"));
        if !place.is_dir() {
            println!("fetching LLVM's tools into {}", place.display());
            unpack(&format!("llvm-{major}"), &place)?;
        }
        let bin = place.join(format!("usr/lib/llvm-{major}/bin"));
        Ok(Tools {
            profdata: bin.join("llvm-profdata"),
            cov: bin.join("llvm-cov"),
            libraries: Some(place.join("usr/lib/x86_64-linux-gnu")),
        })
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
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

/// The directory of prepared parts, which `svm-vm` has its own in.
fn cache() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = variable("SVM_CACHE") {
        return Ok(cache.into());
    }
    match (variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(cache), _) => Ok(Path::new(&cache).join("svm-demo")),
        (None, Some(home)) => Ok(Path::new(&home).join(".cache/svm-demo")),
        (None, None) => bail!("no place for the tools: set SVM_CACHE, XDG_CACHE_HOME or HOME"),
    }
}

/// Unpacks a package, and what it needs that the host does not have, into a directory that appears
/// when all is in it.
fn unpack(package: &str, place: &Path) -> anyhow::Result<()> {
    let parent = place.parent().context("the place is in the cache")?;
    fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    // It goes when this ends, however it ends.
    let work = tempfile::Builder::new()
        .prefix(&format!("{package}."))
        .tempdir_in(parent)
        .with_context(|| format!("{} cannot be written", parent.display()))?;
    let [packages, tree] = ["packages", "tree"].map(|name| work.path().join(name));
    for directory in [&packages, &tree] {
        fs::create_dir_all(directory)
            .with_context(|| format!("{} cannot be made", directory.display()))?;
    }
    // Only asks: with these options nothing is locked, fetched or installed.
    let listing = said_by(
        "apt-get",
        &[
            "-o",
            "Debug::NoLocking=1",
            "--print-uris",
            "-qq",
            "--no-install-recommends",
            "install",
            package,
        ],
    )?;
    let names: Vec<&str> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split('_').next())
        .collect();
    ensure!(!names.is_empty(), "apt has no package {package}");
    let mut fetch = Command::new("apt-get");
    fetch.args(["download", "-qq"]).args(names);
    said(fetch.current_dir(&packages))?;
    for entry in fs::read_dir(&packages)? {
        let package = entry?.path();
        said(Command::new("dpkg-deb").arg("-x").arg(package).arg(&tree))?;
    }
    // Somebody else may have been faster.
    if fs::rename(&tree, place).is_err() && !place.is_dir() {
        bail!("{} cannot be made", place.display());
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_cannot_be_had_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        unpack("svm-demo-is-no-package", &cache.path().join("tools")).unwrap_err();
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
