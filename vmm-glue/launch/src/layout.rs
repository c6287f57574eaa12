// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-vm qemu-layout`, and the layout files of the user's own QEMUs in the cache.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use qemu_layout::dwarf::{self, Error};
use qemu_layout::{BUILTIN_SERIES, Table};

use crate::cache::Cache;
use crate::cli::{Place, QemuLayoutOptions};
use crate::external::External;

/// The variable that passes a layout file to the plug-in.
pub const VARIABLE: &str = "SVM_QEMU_LAYOUT";

/// The program in a build directory of QEMU.
const PROGRAM: &str = "qemu-system-x86_64";

/// `svm-vm qemu-layout`.
pub fn command(place: &Place, options: &QemuLayoutOptions) -> Result<ExitCode> {
    let binary = program(&options.qemu)?;
    let table = dwarf::read(&binary, options.debug_file.as_deref())?;
    if options.compare {
        let differences = Table::builtin().differences(&table);
        let (major, minor) = BUILTIN_SERIES;
        for difference in &differences {
            println!("{difference}");
        }
        println!(
            "{} differences between the plug-in's own table, of QEMU {major}.{minor}, and {}",
            differences.len(),
            binary.display()
        );
        return Ok(match differences.is_empty() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        });
    }
    let text = match options.series {
        true => table.without_addresses().to_string(),
        false => table.to_string(),
    };
    match options.output.as_deref() {
        Some(path) if path == Path::new("-") => print!("{text}"),
        Some(path) => {
            write(path, &text)?;
            println!("{}", path.display());
        }
        None => println!(
            "{}",
            keep(&Cache::open(place.cache.as_deref())?, &table)?.display()
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// The layout file for the user's own QEMU; generated if it is not in the cache yet. None if the
/// plug-in needs none: its own table may fit, or the user has named a file.
///
/// # Errors
///
/// The plug-in cannot work with this QEMU.
pub fn for_qemu(cache: &Cache, qemu: &Path) -> Result<Option<PathBuf>> {
    if std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty()) {
        return Ok(None);
    }
    let id = match dwarf::build_id(qemu) {
        Ok(id) => id,
        // Such as a script that starts one.
        Err(Error::NotAProgram(_)) => return is_qemu(qemu).map(|()| None),
        Err(Error::NoBuildId(_)) if needs_no_file(qemu)? => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let known = directory(cache)?.join(name(&id));
    if fs::read_to_string(&known).is_ok_and(|text| text.parse::<Table>().is_ok()) {
        return Ok(Some(known));
    }
    match dwarf::read(qemu, None) {
        Ok(table) => Ok(Some(keep(cache, &table)?)),
        Err(Error::NoDebugInformation { .. }) if needs_no_file(qemu)? => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A function that QEMU exports for its modules, if it is configured to have any.
const EXPORTED: &str = "type_register_static";

/// Whether the plug-in finds the functions of this QEMU and has the layout of its series, judging
/// by QEMU's version.
fn needs_no_file(qemu: &Path) -> Result<bool> {
    if !dwarf::exports(qemu, EXPORTED)? {
        return Ok(false);
    }
    let said = External::new(qemu).arg("--version").output()?;
    let (major, minor) = BUILTIN_SERIES;
    Ok(said.contains(&format!("version {major}.{minor}.")))
}

/// Checks that a file that cannot be read as a program still starts a QEMU.
fn is_qemu(script: &Path) -> Result<()> {
    let said = External::new(script).arg("--version").output();
    match said {
        Ok(said) if said.contains("QEMU emulator version") => Ok(()),
        Ok(said) => bail!(
            "{} is no QEMU: to --version it says {:?}",
            script.display(),
            said.lines().next().unwrap_or_default()
        ),
        Err(error) => Err(error).with_context(|| {
            format!(
                "{} is no QEMU: give the program {PROGRAM}, a script that starts it, or a build \
                 directory of it",
                script.display()
            )
        }),
    }
}

/// The program: the file itself, or the one in a build directory.
///
/// # Errors
///
/// There is none in the directory.
pub fn program(path: &Path) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let inside = path.join(PROGRAM);
    if !inside.is_file() {
        bail!(
            "{} has no {PROGRAM}: give a build directory of QEMU, or the program itself",
            path.display()
        );
    }
    Ok(inside)
}

fn directory(cache: &Cache) -> Result<PathBuf> {
    cache.directory("layouts")
}

fn name(build_id: &str) -> String {
    format!("{build_id}.layout")
}

/// Puts a table into the cache.
fn keep(cache: &Cache, table: &Table) -> Result<PathBuf> {
    let id = table
        .build_id
        .as_deref()
        .context("the table has no build id")?;
    let path = directory(cache)?.join(name(id));
    write(&path, &table.to_string())?;
    Ok(path)
}

/// Writes a file atomically.
fn write(path: &Path, text: &str) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(parent).with_context(context)?;
    file.write_all(text.as_bytes()).with_context(context)?;
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file()
        .set_permissions(permissions)
        .with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_directory_without_qemu_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = program(directory.path()).unwrap_err().to_string();
        assert!(error.contains("has no qemu-system-x86_64"), "{error}");
        let binary = directory.path().join(PROGRAM);
        fs::write(&binary, "").unwrap();
        assert_eq!(program(directory.path()).unwrap(), binary);
        assert_eq!(program(&binary).unwrap(), binary);
    }

    /// A script that prints a line. Another process writes it, because a file cannot be run while a
    /// child of this process, started by a parallel test, has it open for writing.
    fn script(path: &Path, line: &str) {
        let write = "printf '#!/bin/sh\\necho %s\\n' \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let mut shell = std::process::Command::new("sh");
        let status = shell.args(["-c", write]).arg(path).arg(line).status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn a_script_that_starts_a_qemu_needs_no_layout_file() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&directory.path().join("cache"))).unwrap();
        let path = directory.path().join("qemu");
        script(&path, "'QEMU emulator version 11.1.3'");
        assert_eq!(for_qemu(&cache, &path).unwrap(), None);
        script(&path, "hello");
        let error = for_qemu(&cache, &path).unwrap_err().to_string();
        assert!(error.ends_with("to --version it says \"hello\""), "{error}");
    }
}
