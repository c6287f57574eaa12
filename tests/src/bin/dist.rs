// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the release's archive, `target/dist/svm-demo-VERSION-x86_64-linux.tar.xz`: the plug-in,
//! `svm-vm`, `svmctl`, the guest's programs, the driver's sources, manual pages, completions,
//! licences and the README. The same files make the same archive: its entries are sorted and bear
//! the time of the commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use svm_tests::launcher::cargo;

/// The target of all that is compiled.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The newest C library that programs may need: that of Debian 12.
const NEWEST_GLIBC: [u32; 2] = [2, 36];

/// Directories of the checkout that the driver is built from.
const DRIVER: &[&str] = &["guest-driver", "demo-device/abi/src"];

/// Other files of the checkout, and where they go.
const FILES: &[(&str, &str)] = &[
    ("README.md", "share/doc/svm-demo/README.md"),
    ("LICENSE.md", "share/doc/svm-demo/LICENSE.md"),
    ("docs/install.md", "share/doc/svm-demo/install.md"),
    ("docs/device.md", "share/doc/svm-demo/device.md"),
    ("guest-app/library/include/svm_demo.h", "include/svm_demo.h"),
    (
        "guest-app/library/examples/sum.c",
        "share/doc/svm-demo/examples/sum.c",
    ),
    (
        "LICENSES/Apache-2.0.txt",
        "share/doc/svm-demo/LICENSES/Apache-2.0.txt",
    ),
    (
        "LICENSES/GPL-2.0-only.txt",
        "share/doc/svm-demo/LICENSES/GPL-2.0-only.txt",
    ),
    (
        "LICENSES/GPL-2.0-or-later.txt",
        "share/doc/svm-demo/LICENSES/GPL-2.0-or-later.txt",
    ),
    ("LICENSES/MIT.txt", "share/doc/svm-demo/LICENSES/MIT.txt"),
];

/// Shells, and where the completions of a program go for them.
const SHELLS: &[(&str, &str)] = &[
    ("bash", "share/bash-completion/completions/@"),
    ("zsh", "share/zsh/site-functions/_@"),
    ("fish", "share/fish/vendor_completions.d/@.fish"),
];

fn main() -> Result<()> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate of the tests stands in the checkout")?;
    let name = format!("svm-demo-{}-x86_64-linux", env!("CARGO_PKG_VERSION"));
    let dist = checkout.join("target/dist");
    let tree = dist.join(&name);
    if tree.exists() {
        fs::remove_dir_all(&tree).context("the last release cannot be removed")?;
    }
    let release = Release { checkout, tree };
    release.programs()?;
    release.driver()?;
    for (from, to) in FILES {
        release.copy(&checkout.join(from), to, 0o644)?;
    }
    release.manuals()?;
    let archive = release.pack(&dist, &name)?;
    println!("{}", archive.display());
    Ok(())
}

struct Release<'a> {
    checkout: &'a Path,
    tree: PathBuf,
}

impl Release<'_> {
    /// Builds all programs and puts them in. The guest's are linked statically, since it has no C
    /// library; the host's `svmctl` is the same file.
    fn programs(&self) -> Result<()> {
        let fixed = "-Ctarget-feature=+crt-static\x1f-Cdebuginfo=0\x1f-Cstrip=debuginfo";
        let guest = self.build(
            "guest-programs",
            &["--release", "-p", "svm-init", "-p", "svmctl-cli"],
            fixed,
        )?;
        for program in ["svm-init", "svmctl"] {
            let built = guest.join("release").join(program);
            self.program(&built, &format!("lib/svm-demo/{program}"))?;
        }
        let sum = self.checkout.join("target/dist/svm-sum");
        run(Command::new("cc")
            .args([
                "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-I",
            ])
            .arg(self.checkout.join("guest-app/library/include"))
            .arg("-o")
            .arg(&sum)
            .arg(self.checkout.join("guest-app/library/examples/sum.c")))?;
        self.program(&sum, "lib/svm-demo/svm-sum")?;

        let plugin = self.build(
            "plugin-host",
            &["--profile", "plugin", "-p", "svm-qemu"],
            "",
        )?;
        let library = plugin.join("plugin/libsvm_qemu.so");
        self.program(&library, "lib/svm-demo/libsvm_qemu.so")?;
        let launcher = self.build("dist-programs", &["--release", "-p", "svm-vm"], "")?;
        self.program(&launcher.join("release/svm-vm"), "bin/svm-vm")?;
        std::os::unix::fs::symlink("../lib/svm-demo/svmctl", self.tree.join("bin/svmctl"))
            .context("bin/svmctl cannot be made")
    }

    /// Builds with a target directory of its own below `target`, since flags differ.
    fn build(&self, directory: &str, arguments: &[&str], flags: &str) -> Result<PathBuf> {
        let directory = self.checkout.join("target").join(directory);
        run(Command::new(cargo())
            .arg("build")
            .args(arguments)
            .args(["--target", TARGET, "--target-dir"])
            .arg(&directory)
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .env_remove("RUSTFLAGS")
            .current_dir(self.checkout))?;
        Ok(directory.join(TARGET))
    }

    /// Puts a program or library in, without what is for debuggers, if an old system can run it.
    fn program(&self, from: &Path, to: &str) -> Result<()> {
        let headers = output(Command::new("objdump").arg("--private-headers").arg(from))?;
        let newest = newest_glibc(&headers);
        ensure!(
            newest <= NEWEST_GLIBC,
            "{} needs glibc {}.{}, which Debian 12 does not have: make the release on Debian 12",
            from.display(),
            newest[0],
            newest[1]
        );
        self.copy(from, to, 0o755)?;
        run(Command::new("objcopy")
            .arg("--strip-debug")
            .arg(self.tree.join(to)))
    }

    /// The files that the driver is built from, as git has them.
    fn driver(&self) -> Result<()> {
        let list = output(
            Command::new("git")
                .args(["ls-files", "--"])
                .args(DRIVER)
                .current_dir(self.checkout),
        )?;
        ensure!(list.lines().count() > 20, "git lists too few files: {list}");
        for file in list.lines() {
            let from = self.checkout.join(file);
            self.copy(&from, &format!("share/svm-demo/{file}"), 0o644)?;
        }
        Ok(())
    }

    /// Manual pages and completions, by the programs that are in.
    fn manuals(&self) -> Result<()> {
        for program in ["svm-vm", "svmctl"] {
            let path = self.tree.join("bin").join(program);
            run(Command::new(&path)
                .args(["manual", "--to"])
                .arg(self.tree.join("share/man/man1")))?;
            for (shell, place) in SHELLS {
                let script = output(Command::new(&path).args(["completions", shell]))?;
                let file = self.tree.join(place.replace('@', program));
                make_parent(&file)?;
                fs::write(&file, script)
                    .with_context(|| format!("{} cannot be written", file.display()))?;
            }
        }
        Ok(())
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;

        let to = self.tree.join(to);
        make_parent(&to)?;
        fs::copy(from, &to).with_context(|| format!("{} cannot be copied", from.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))
            .with_context(|| format!("{} cannot be changed", to.display()))
    }

    fn pack(&self, dist: &Path, name: &str) -> Result<PathBuf> {
        let time = output(
            Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(self.checkout),
        )?;
        let archive = dist.join(format!("{name}.tar.xz"));
        run(Command::new("tar")
            .args(["--create", "--sort=name", "--format=gnu", "--numeric-owner"])
            .args(["--owner=0", "--group=0", "--mode=u+rw,go=rX"])
            .arg(format!("--mtime=@{}", time.trim()))
            .arg("--use-compress-program=xz --threads=1")
            .arg("--file")
            .arg(&archive)
            .arg("--directory")
            .arg(dist)
            .arg(name))?;
        Ok(archive)
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().context("a file without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))
}

/// The newest version of the C library whose symbols a program needs, as objdump tells.
fn newest_glibc(headers: &str) -> [u32; 2] {
    let versions = headers.split_whitespace().filter_map(|word| {
        let mut numbers = word.strip_prefix("GLIBC_")?.split('.');
        let mut number = || numbers.next()?.parse().ok();
        Some([number()?, number()?])
    });
    versions.max().unwrap_or_default()
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status();
    let status = status.with_context(|| format!("{:?} did not start", command.get_program()))?;
    ensure!(
        status.success(),
        "{:?} ended with {status}",
        command.get_program()
    );
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("{:?} did not start", command.get_program()))?;
    if !output.status.success() {
        bail!("{:?} ended with {}", command.get_program(), output.status);
    }
    String::from_utf8(output.stdout).context("its output is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_c_library_is_found() {
        let headers = "Version References:\n  required from libc.so.6:\n    \
                       0x09691a75 0x00 02 GLIBC_2.2.5\n    0x06969194 0x00 04 GLIBC_2.34\n    \
                       0x0 0x00 05 GLIBC_2.9\n";
        assert_eq!(newest_glibc(headers), [2, 34]);
        assert_eq!(newest_glibc("no references\n"), [0, 0]);
        assert!([2, 41] > NEWEST_GLIBC && [2, 36] <= NEWEST_GLIBC);
    }
}
