// SPDX-License-Identifier: MIT OR Apache-2.0
//! Packs the sources from which `svm-vm` builds parts, so that an installed program works without
//! the checkout. Only in release builds, which `cargo install` makes: otherwise each change of any
//! file would rebuild `svm-vm` during development, where the checkout exists anyway.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

/// Files and directories of the checkout to pack. They include all members of the workspace: cargo
/// does not read the others if one is missing.
const PARTS: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE.md",
    "LICENSES",
    "demo-device",
    "guest-app",
    "guest-driver",
    "tests",
    "vmm-glue",
];

/// Suffixes of the names of source files. Products of manual builds have others.
const ENDINGS: &[&str] = &[
    "S", "c", "conf", "config", "css", "h", "layout", "lock", "md", "rs", "rules", "sh", "toml",
    "txt",
];

/// Source files without a suffix.
const NAMES: &[&str] = &["Kbuild", "Makefile"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rustc-check-cfg=cfg(carries_sources)");
    println!("cargo::rerun-if-changed=build.rs");
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let root = here.join("../..");
    if env::var("PROFILE")? != "release" || !root.join("Cargo.lock").is_file() {
        return Ok(());
    }
    let mut files = Vec::new();
    for part in PARTS {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
        collect(&root, Path::new(part), &mut files)?;
    }
    files.sort();
    let archive = pack(&root, &files)?;
    let digest = Sha256::digest(&archive);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let out = PathBuf::from(env::var("OUT_DIR")?).join("sources.tar.gz");
    File::create(&out)?.write_all(&archive)?;
    println!("cargo::rustc-cfg=carries_sources");
    println!("cargo::rustc-env=SVM_SOURCES={}", out.display());
    println!("cargo::rustc-env=SVM_SOURCES_DIGEST={digest}");
    Ok(())
}

/// The source files at `relative` and below.
fn collect(root: &Path, relative: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    let path = root.join(relative);
    if path.is_file() {
        if is_source(relative) {
            files.push(relative.to_owned());
        }
        return Ok(());
    }
    for entry in fs::read_dir(&path)? {
        let name = entry?.file_name();
        let hidden = name.to_string_lossy().starts_with('.');
        if !hidden && name != "target" {
            collect(root, &relative.join(name), files)?;
        }
    }
    Ok(())
}

fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(".mod.c") {
        return false;
    }
    let ending = path.extension().unwrap_or_default().to_string_lossy();
    ENDINGS.contains(&&*ending) || NAMES.contains(&&*name)
}

/// The archive: the same files make the same bytes.
fn pack(root: &Path, files: &[PathBuf]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best()));
    for file in files {
        let data = fs::read(root.join(file))?;
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, file, data.as_slice())?;
    }
    Ok(archive.into_inner()?.finish()?)
}
