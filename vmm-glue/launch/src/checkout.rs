// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds the checkout of the project and the places in it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The checkout that `svm-vm` works for.
#[derive(Clone, Debug)]
pub struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// Finds the checkout: the one that the current directory is in, or else the one that this
    /// program was built from.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().unwrap_or_default();
        let built_from = Path::new(env!("CARGO_MANIFEST_DIR"));
        here.ancestors()
            .chain(built_from.ancestors())
            .find(|directory| is_checkout(directory))
            .map(|root| Self {
                root: root.to_owned(),
            })
            .ok_or_else(|| {
                anyhow::anyhow!(
                    "cannot find the project: neither {} nor {} is in a checkout of it; change \
                     into one",
                    here.display(),
                    built_from.display()
                )
            })
    }

    /// A path in the checkout.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Where the parts of the guest are built that belong to this checkout.
    pub fn guest(&self) -> PathBuf {
        self.path("target/guest")
    }

    /// Where runs leave their files.
    pub fn runs(&self) -> PathBuf {
        self.path("target/runs")
    }

    /// Its top directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Fails where a directory that a build needs is missing.
    pub fn require(&self, relative: &str) -> Result<PathBuf> {
        let path = self.path(relative);
        if !path.exists() {
            bail!(
                "{} is missing: the checkout is not complete",
                path.display()
            );
        }
        Ok(path)
    }
}

fn is_checkout(directory: &Path) -> bool {
    [
        "Cargo.toml",
        "vmm-glue/launch/Cargo.toml",
        "vmm-glue/init/Cargo.toml",
    ]
    .iter()
    .all(|file| directory.join(file).is_file())
}
