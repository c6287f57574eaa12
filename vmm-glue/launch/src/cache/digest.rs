// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashes for the names of components and the examination of their files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Digits of a hash in names: enough for the few components in one directory.
pub(super) const KEY_DIGITS: usize = 12;

/// The SHA-256 of some bytes, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// The SHA-256 of files: of their paths relative to `root`, and of their contents.
pub fn digest_files(root: &Path, files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for file in files {
        let path = root.join(file);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        hash.update(digest(file.as_os_str().as_encoded_bytes()));
        hash.update(digest(&bytes));
    }
    Ok(hexadecimal(&hash.finalize()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
