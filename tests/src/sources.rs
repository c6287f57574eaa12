// SPDX-License-Identifier: MIT OR Apache-2.0
//! The project's sources, for tests of what they say.

use std::fs;
use std::path::{Path, PathBuf};

/// The files of Rust below directories of the project.
pub fn sources(directories: &[&str]) -> Vec<(PathBuf, String)> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut left: Vec<PathBuf> = directories.iter().map(|name| project.join(name)).collect();
    let mut files = Vec::new();
    while let Some(path) = left.pop() {
        if path.ends_with("target") {
            continue;
        }
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.push((path, text));
        }
    }
    files
}
