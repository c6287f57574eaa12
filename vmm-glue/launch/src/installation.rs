// SPDX-License-Identifier: MIT OR Apache-2.0
//! The source of this project's own parts: the plug-in, the driver and the programs of the guest.
//! There are three kinds of installation:
//!
//! - a checkout, in which they are built;
//! - a release, whose archive contains them, except for the driver, which is built for a kernel;
//! - a program that was installed by cargo and contains the sources, which it unpacks once.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cache::digest;

/// Where a release has its libraries and the guest's programs, from the directory of `svm-vm`.
const BUILT: &str = "../lib/svm-demo";

/// Where a release has the driver's sources, from the directory of `svm-vm`.
const SHARED: &str = "../share/svm-demo";

/// Where runs leave their files without a checkout, in the current directory.
const RUNS: &str = "svm-demo-runs";

/// The installation that `svm-vm` uses.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Directory of the sources.
    sources: PathBuf,
    /// Directory of the parts that are already built.
    built: Option<PathBuf>,
    /// Where parts are built.
    work: PathBuf,
    /// Where runs leave their files.
    runs: PathBuf,
}

impl Installation {
    /// Finds the installation: the checkout that contains the current directory; the release or the
    /// checkout that contains this program; the sources in this program, or otherwise the checkout
    /// that it was built from.
    ///
    /// # Errors
    ///
    /// There is none of these, or the sources cannot be unpacked.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().context("the current directory is gone")?;
        let program = std::env::current_exe()
            .and_then(|path| path.canonicalize())
            .context("cannot find out where this program is")?;
        let program = program.parent().unwrap_or(Path::new("/"));
        if let Some(checkout) = checkout_around(&here) {
            return Ok(Self::checkout(checkout));
        }
        if let Some(release) = Self::release(program, &here)? {
            return Ok(release);
        }
        if let Some(checkout) = checkout_around(program) {
            return Ok(Self::checkout(checkout));
        }
        carried::installation(&here)
    }

    fn checkout(root: &Path) -> Self {
        Self {
            sources: root.to_owned(),
            built: None,
            work: root.join("target"),
            runs: root.join("target/runs"),
        }
    }

    /// The release that contains this directory of programs, if any.
    fn release(programs: &Path, here: &Path) -> Result<Option<Self>> {
        let (Ok(built), Ok(sources)) = (
            programs.join(BUILT).canonicalize(),
            programs.join(SHARED).canonicalize(),
        ) else {
            return Ok(None);
        };
        if !built.join("libsvm_qemu.so").is_file() {
            return Ok(None);
        }
        // There may be several, installed by several users.
        let key = &digest(built.as_os_str().as_encoded_bytes())[..12];
        Ok(Some(Self {
            sources,
            built: Some(built),
            work: state()?.join(format!("release-{key}")),
            runs: here.join(RUNS),
        }))
    }

    /// A path among the sources.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.sources.join(relative)
    }

    /// Directory of the parts that are already built, if this is a release.
    pub fn built(&self) -> Option<&Path> {
        self.built.as_deref()
    }

    /// A directory below the build directory.
    pub fn work(&self, relative: &str) -> PathBuf {
        self.work.join(relative)
    }

    /// Where the driver is built.
    pub fn guest(&self) -> PathBuf {
        self.work("guest")
    }

    /// Where runs leave their files.
    pub fn runs(&self) -> PathBuf {
        self.runs.clone()
    }

    /// The top directory of the sources.
    pub fn sources(&self) -> &Path {
        &self.sources
    }

    /// Fails where a directory that a build needs is missing.
    ///
    /// # Errors
    ///
    /// It is missing.
    pub fn require(&self, relative: &str) -> Result<PathBuf> {
        let path = self.path(relative);
        if !path.exists() {
            bail!(
                "{} is missing: the sources are not complete; check them out, or install svm-vm, \
                 again",
                path.display()
            );
        }
        Ok(path)
    }
}

/// The checkout that a directory is in.
fn checkout_around(directory: &Path) -> Option<&Path> {
    directory.ancestors().find(|directory| {
        [
            "Cargo.toml",
            "vmm-glue/launch/Cargo.toml",
            "guest-app/init/Cargo.toml",
        ]
        .iter()
        .all(|file| directory.join(file).is_file())
    })
}

/// The user's directory for the state of this program, created on first use.
fn state() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    match (variable("XDG_STATE_HOME"), variable("HOME")) {
        (Some(state), _) => Ok(Path::new(&state).join("svm-demo")),
        (None, Some(home)) => Ok(Path::new(&home).join(".local/state/svm-demo")),
        (None, None) => bail!("no place for what is built: set XDG_STATE_HOME or HOME"),
    }
}

#[cfg(not(carries_sources))]
mod carried {
    use super::*;

    /// This program contains no sources: uses the checkout that it was built from.
    pub fn installation(here: &Path) -> Result<Installation> {
        match checkout_around(Path::new(env!("CARGO_MANIFEST_DIR"))) {
            Some(checkout) => Ok(Installation::checkout(checkout)),
            None => bail!(
                "cannot find the project: {} is in no checkout of it, and this svm-vm was built \
                 without the sources; change into a checkout, or install a release build (cargo \
                 install --path vmm-glue/launch)",
                here.display()
            ),
        }
    }
}

/// The sources in this program.
#[cfg(carries_sources)]
mod carried {
    use super::*;

    use std::fs;

    use flate2::read::GzDecoder;

    const ARCHIVE: &[u8] = include_bytes!(env!("SVM_SOURCES"));
    const DIGEST: &str = env!("SVM_SOURCES_DIGEST");

    /// The unpacked sources. The build directory of this program is not used, because other users
    /// run the program.
    pub fn installation(here: &Path) -> Result<Installation> {
        let sources = unpack(&state()?)?;
        Ok(Installation {
            work: sources.join("target"),
            sources,
            built: None,
            runs: here.join(RUNS),
        })
    }

    /// Unpacks them in a separate directory below `state`, if it does not exist. It gets its name
    /// when it is complete.
    fn unpack(state: &Path) -> Result<PathBuf> {
        let place = state.join(format!("sources-{}", &DIGEST[..12]));
        if place.is_dir() {
            return Ok(place);
        }
        fs::create_dir_all(state).with_context(|| format!("cannot create {}", state.display()))?;
        let fresh = tempfile::tempdir_in(state)
            .with_context(|| format!("cannot write to {}", state.display()))?;
        tar::Archive::new(GzDecoder::new(ARCHIVE))
            .unpack(fresh.path())
            .with_context(|| format!("cannot unpack the sources in {}", state.display()))?;
        match fs::rename(fresh.path(), &place) {
            // Another process may have been faster.
            Err(_) if place.is_dir() => {}
            renamed => {
                renamed.with_context(|| format!("cannot create {}", place.display()))?;
                // It has another name now.
                let _ = fresh.keep();
            }
        }
        Ok(place)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_carried_sources_are_a_checkout() {
            let state = tempfile::tempdir().unwrap();
            let place = unpack(state.path()).unwrap();
            assert_eq!(checkout_around(&place), Some(place.as_path()));
            for file in [
                "Cargo.lock",
                "guest-driver/Kbuild",
                "vmm-glue/qemu/src/lib.rs",
            ] {
                assert!(place.join(file).is_file(), "{file}");
            }
            // An existing directory is used again.
            fs::remove_file(place.join("Cargo.lock")).unwrap();
            assert_eq!(unpack(state.path()).unwrap(), place);
            assert!(!place.join("Cargo.lock").exists());
            let entries = fs::read_dir(state.path()).unwrap();
            assert_eq!(entries.count(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_release_is_what_has_the_plug_in_beside_its_programs() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for name in ["bin", "lib/svm-demo", "share/svm-demo"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let find = || Installation::release(&root.join("bin"), Path::new("/here")).unwrap();
        assert!(find().is_none());
        fs::write(root.join("lib/svm-demo/libsvm_qemu.so"), "").unwrap();
        let release = find().unwrap();
        assert_eq!(release.built(), Some(&*root.join("lib/svm-demo")));
        assert_eq!(
            release.path("guest-driver"),
            root.join("share/svm-demo/guest-driver")
        );
        assert_eq!(release.runs(), Path::new("/here/svm-demo-runs"));
        assert!(!release.guest().starts_with(&root));
        let error = release.require("guest-driver").unwrap_err().to_string();
        assert!(error.contains("guest-driver is missing"), "{error}");
    }

    #[test]
    fn a_checkout_is_found_from_within() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for name in [
            "Cargo.toml",
            "vmm-glue/launch/Cargo.toml",
            "guest-app/init/Cargo.toml",
        ] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        assert_eq!(checkout_around(&root.join("vmm-glue/launch")), Some(root));
        fs::remove_file(root.join("guest-app/init/Cargo.toml")).unwrap();
        assert_eq!(checkout_around(&root.join("vmm-glue/launch")), None);
    }
}
