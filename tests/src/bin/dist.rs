// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the release's archive, `target/dist/svm-demo-VERSION-x86_64-linux.tar.xz`: the plug-in,
//! `svm-vm`, `svmctl`, the guest's programs, the driver's sources, manual pages, completions,
//! licences and the documents. The same files make the same archive, wherever they are: its entries
//! are sorted and bear the time of the commit, and its programs have no path of this machine in
//! them.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
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

/// Directories of the checkout with documents. The README's links to them are right in the archive, too.
const DOCUMENTS: &[&str] = &["docs"];

/// Other files of the checkout, and where they go.
const FILES: &[(&str, &str)] = &[
    ("README.md", "share/doc/svm-demo/README.md"),
    ("LICENSE.md", "share/doc/svm-demo/LICENSE.md"),
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
    let release = Release {
        checkout,
        places: Places::find(checkout)?,
        tree,
    };
    release.programs()?;
    release.directories(DRIVER, "share/svm-demo")?;
    release.directories(DOCUMENTS, "share/doc/svm-demo")?;
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
    places: Places,
    tree: PathBuf,
}

/// Directories of this machine from which sources are compiled, and what the compiler is told to
/// call them: their paths go into programs, as in `panicked at PATH:LINE`.
struct Places(Vec<(PathBuf, String)>);

impl Places {
    fn find(checkout: &Path) -> Result<Self> {
        // As cargo calls it.
        let checkout = checkout
            .canonicalize()
            .context("the checkout cannot be found")?;
        // There, since a toolchain can be of a directory.
        let says = |arguments: &[&str]| {
            let mut command = Command::new(rustc());
            output(command.args(arguments).current_dir(&checkout))
        };
        let said = says(&["-vV"])?;
        let commit = said
            .lines()
            .find_map(|line| line.strip_prefix("commit-hash: "))
            .context("rustc does not say which commit it is of")?;
        let sysroot = says(&["--print", "sysroot"])?;
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
        Ok(Self(vec![
            (checkout, "/svm-demo".to_owned()),
            (cargo_home()?, "/cargo".to_owned()),
            // What the library calls itself, where its sources are not installed.
            (library, format!("/rustc/{commit}")),
        ]))
    }

    /// The compiler's flags.
    fn flags(&self) -> Vec<OsString> {
        let flag = |(place, name): &(PathBuf, String)| {
            let mut flag = OsString::from("--remap-path-prefix=");
            flag.push(place);
            flag.push("=");
            flag.push(name);
            flag
        };
        self.0.iter().map(flag).collect()
    }

    /// A path of this machine that is in a program.
    fn shown_in(&self, program: &[u8]) -> Option<PathBuf> {
        // Not the place itself: that of a container may be as short as `/src`, which is in others.
        let below = [
            "demo-device",
            "git",
            "guest-app",
            "library",
            "registry",
            "target",
            "vmm-glue",
        ];
        let paths: Vec<PathBuf> = self
            .0
            .iter()
            .flat_map(|(place, _)| below.map(|name| place.join(name)))
            .collect();
        (0..program.len())
            .filter(|&at| program[at] == b'/')
            .find_map(|at| {
                let is_here =
                    |path: &&PathBuf| program[at..].starts_with(path.as_os_str().as_bytes());
                paths.iter().find(is_here).cloned()
            })
    }
}

/// The compiler that cargo uses.
fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// Where cargo has the sources of other crates.
fn cargo_home() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(home) = variable("CARGO_HOME") {
        return std::path::absolute(home).context("CARGO_HOME is no path");
    }
    let home = variable("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

impl Release<'_> {
    /// Builds all programs and puts them in. The guest's are linked statically, since it has no C
    /// library; the host's `svmctl` is the same file.
    fn programs(&self) -> Result<()> {
        let fixed = [
            "-Ctarget-feature=+crt-static",
            "-Cdebuginfo=0",
            "-Cstrip=debuginfo",
        ];
        let guest = self.build(
            "dist-guest",
            &["--release", "-p", "svm-init", "-p", "svmctl-cli"],
            &fixed,
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

        let host = "dist-programs";
        let plugin = self.build(host, &["--profile", "plugin", "-p", "svm-qemu"], &[])?;
        let library = plugin.join("plugin/libsvm_qemu.so");
        self.program(&library, "lib/svm-demo/libsvm_qemu.so")?;
        let launcher = self.build(host, &["--release", "-p", "svm-vm"], &[])?;
        self.program(&launcher.join("release/svm-vm"), "bin/svm-vm")?;
        std::os::unix::fs::symlink("../lib/svm-demo/svmctl", self.tree.join("bin/svmctl"))
            .context("bin/svmctl cannot be made")
    }

    /// Builds with a target directory of its own below `target`, since flags differ: from those of
    /// other commands, too.
    fn build(&self, directory: &str, arguments: &[&str], flags: &[&str]) -> Result<PathBuf> {
        let directory = self.checkout.join("target").join(directory);
        let mut all: Vec<OsString> = flags.iter().map(Into::into).collect();
        all.extend(self.places.flags());
        run(Command::new(cargo())
            .arg("build")
            .args(arguments)
            .args(["--target", TARGET, "--target-dir"])
            .arg(&directory)
            .env("CARGO_ENCODED_RUSTFLAGS", all.join(OsStr::new("\x1f")))
            .env_remove("RUSTFLAGS")
            .current_dir(self.checkout))?;
        Ok(directory.join(TARGET))
    }

    /// Puts a program or library in, without what is for debuggers, if an old system can run it and
    /// nothing in it tells where it was made.
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
        let packed = self.tree.join(to);
        run(Command::new("objcopy").arg("--strip-debug").arg(&packed))?;
        let bytes =
            fs::read(&packed).with_context(|| format!("{} cannot be read", packed.display()))?;
        if let Some(path) = self.places.shown_in(&bytes) {
            bail!(
                "{} has a path of this machine in it: {}; made elsewhere it would be another file",
                from.display(),
                path.display()
            );
        }
        Ok(())
    }

    /// Directories of the checkout, with the files that are of the project.
    fn directories(&self, directories: &[&str], place: &str) -> Result<()> {
        let list = files_of(self.checkout, directories)?;
        ensure!(list.lines().count() > 20, "git lists too few files: {list}");
        for file in list.lines() {
            let from = self.checkout.join(file);
            self.copy(&from, &format!("{place}/{file}"), 0o644)?;
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

/// The files of directories of the checkout that are of the project, a line each.
fn files_of(checkout: &Path, directories: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    command.args(["ls-files", "--"]).args(directories);
    output(command.current_dir(checkout))
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
    fn what_the_readme_links_to_in_docs_is_packed() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let list = files_of(checkout, DOCUMENTS).unwrap();
        let readme = fs::read_to_string(checkout.join("README.md")).unwrap();
        let links = readme.split("](docs/").skip(1);
        let links: Vec<_> = links
            .filter_map(|rest| rest.split([')', '#']).next())
            .collect();
        assert!(links.len() > 10, "{links:?}");
        for link in links {
            let path = format!("docs/{link}");
            assert!(list.lines().any(|file| file == path), "no {path}");
        }
    }

    #[test]
    fn the_newest_c_library_is_found() {
        let headers = "Version References:\n  required from libc.so.6:\n    \
                       0x09691a75 0x00 02 GLIBC_2.2.5\n    0x06969194 0x00 04 GLIBC_2.34\n    \
                       0x0 0x00 05 GLIBC_2.9\n";
        assert_eq!(newest_glibc(headers), [2, 34]);
        assert_eq!(newest_glibc("no references\n"), [0, 0]);
        assert!([2, 41] > NEWEST_GLIBC && [2, 36] <= NEWEST_GLIBC);
    }

    #[test]
    fn a_path_of_the_machine_is_found_in_a_program() {
        let places = Places(vec![
            ("/src".into(), "/svm-demo".to_owned()),
            ("/home/a/.cargo".into(), "/cargo".to_owned()),
        ]);
        let shown = |text: &str| places.shown_in(text.as_bytes());
        for (text, path) in [
            ("ab/src/vmm-glue/launchcd", "/src/vmm-glue"),
            ("\0/home/a/.cargo/registry/src", "/home/a/.cargo/registry"),
        ] {
            assert_eq!(shown(text), Some(path.into()), "{text}");
        }
        // The same as they are called in a release, and what only looks like one.
        for text in [
            "/svm-demo/vmm-glue/launch",
            "/cargo/registry/src/a/src/lib.rs",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
        let flags = [
            "--remap-path-prefix=/src=/svm-demo",
            "--remap-path-prefix=/home/a/.cargo=/cargo",
        ];
        assert_eq!(places.flags(), flags.map(OsString::from));
    }
}
