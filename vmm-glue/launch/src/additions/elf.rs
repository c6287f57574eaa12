// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads ELF files: their machine, and their loader.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader as _, SectionHeader as _};

use crate::external::External;

/// Names of machines, as ELF numbers them.
const MACHINES: &[(u16, &str)] = &[
    (elf::EM_AARCH64, "AArch64"),
    (elf::EM_ARM, "Arm"),
    (elf::EM_LOONGARCH, "LoongArch"),
    (elf::EM_MIPS, "MIPS"),
    (elf::EM_PPC64, "PowerPC"),
    (elf::EM_RISCV, "RISC-V"),
    (elf::EM_S390, "S/390"),
];

/// The kind of a file, as far as copying it is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not an ELF file.
    Data,
    /// An ELF file for another machine.
    Foreign(String),
    /// A program or a library that needs nothing else, or an object.
    Static,
    /// A program that a loader starts.
    Dynamic {
        /// The loader's path in the program.
        loader: PathBuf,
        /// Its word size.
        bits: u8,
    },
}

/// A library that a program needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    /// The name under which the loader searches for it.
    pub name: String,
    /// Its path on this machine, if it exists.
    pub path: Option<PathBuf>,
}

/// The kind of a file.
pub fn kind(path: &Path) -> Result<Kind> {
    let Some(data) = read(path)? else {
        return Ok(Kind::Data);
    };
    let damaged = || format!("{} is a damaged ELF file", path.display());
    match data.get(4) {
        Some(&elf::ELFCLASS64) => of::<FileHeader64<Endianness>>(&data, 64),
        _ => of::<FileHeader32<Endianness>>(&data, 32),
    }
    .with_context(damaged)
}

fn of<E: FileHeader<Endian = Endianness>>(data: &[u8], bits: u8) -> object::read::Result<Kind> {
    let header = E::parse(data)?;
    let endian = header.endian()?;
    let machine = header.e_machine(endian);
    if ![elf::EM_X86_64, elf::EM_386].contains(&machine) {
        let known = MACHINES.iter().find(|(number, _)| *number == machine);
        return Ok(Kind::Foreign(known.map_or_else(
            || format!("the machine number {machine}"),
            |(_, name)| (*name).to_owned(),
        )));
    }
    for part in header.program_headers(endian, data)? {
        if let Some(loader) = part.interpreter(endian, data)? {
            let loader = String::from_utf8_lossy(loader).into_owned();
            return Ok(Kind::Dynamic {
                loader: loader.into(),
                bits,
            });
        }
    }
    Ok(Kind::Static)
}

/// The libraries of a program, as its own loader finds them.
pub fn libraries(program: &Path, loader: &Path) -> Result<Vec<Library>> {
    ensure!(
        loader.is_file(),
        "{} is linked dynamically, and its loader {} is not on this machine: install the C library \
         that it was built for, or link it statically",
        program.display(),
        loader.display()
    );
    // With these variables the loader lists the libraries and does not start the program. Through
    // `env`, because the program that starts it has a loader, too.
    let list = External::new("env")
        .args(["-u", "LD_PRELOAD", "LD_TRACE_LOADED_OBJECTS=1"])
        .arg(loader)
        .arg(program)
        .output()
        .with_context(|| format!("cannot list the libraries of {}", program.display()))?;
    Ok(list.lines().filter_map(library).collect())
}

/// The libraries of a program of another root file system, and of a library that is preloaded into
/// it, as the loader of that root finds them in one of its directories.
pub fn libraries_of_root(
    program: &Path,
    preloaded: Option<&Path>,
    loader: &Path,
    directory: &Path,
) -> Result<Vec<Library>> {
    let preload = preloaded.map(|library| [OsStr::new("--preload"), library.as_os_str()]);
    let list = External::new(loader)
        .arg("--library-path")
        .arg(directory)
        .args(preload.into_iter().flatten())
        .arg("--list")
        .arg(program)
        .output()
        .with_context(|| format!("cannot list the libraries of {}", program.display()))?;
    let libraries = list.lines().filter_map(library);
    // The loader lists itself by its path.
    Ok(libraries
        .filter(|library| !library.name.contains('/'))
        .collect())
}

/// A line of the loader's list: `NAME => PATH (ADDRESS)` or `NAME => not found`. A line without an
/// arrow is the loader itself, or the kernel's vDSO.
fn library(line: &str) -> Option<Library> {
    let (name, place) = line.trim().split_once(" => ")?;
    let path = match place {
        "not found" => None,
        place => {
            let path = place.rsplit_once(" (").map_or(place, |(path, _)| path);
            Some(PathBuf::from(path))
        }
    };
    Some(Library {
        name: name.to_owned(),
        path,
    })
}

/// The version magic of a kernel module: release and build options of its kernel.
pub fn module_magic(path: &Path) -> Result<String> {
    let data = read(path)?.with_context(|| {
        format!(
            "{} is no kernel module: an ELF file was expected, such as the kernel's build makes \
             (one that is compressed has to be unpacked first)",
            path.display()
        )
    })?;
    let magic = match data.get(4) {
        Some(&elf::ELFCLASS64) => magic(&data).unwrap_or_default(),
        _ => None,
    };
    match (kind(path)?, magic) {
        (Kind::Foreign(machine), _) => bail!(
            "{} is a module for {machine}, and the guest is x86-64",
            path.display()
        ),
        (_, Some(magic)) => Ok(magic),
        (_, None) => bail!(
            "{} is no kernel module: it does not say which kernel it is for (`vermagic`)",
            path.display()
        ),
    }
}

fn magic(data: &[u8]) -> object::read::Result<Option<String>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let Some((_, section)) = sections.section_by_name(endian, b".modinfo") else {
        return Ok(None);
    };
    let info = section.data(endian, data)?;
    let magic = info
        .split(|&byte| byte == 0)
        .find_map(|entry| entry.strip_prefix(b"vermagic="));
    Ok(magic.map(|magic| String::from_utf8_lossy(magic).trim().to_owned()))
}

/// The content of an ELF file; none for other files, which may be large.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let context = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let mut data = Vec::new();
    let head = elf::ELFMAG.len() as u64;
    (&mut file)
        .take(head)
        .read_to_end(&mut data)
        .with_context(context)?;
    if data != elf::ELFMAG {
        return Ok(None);
    }
    file.read_to_end(&mut data).with_context(context)?;
    Ok(Some(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_loaders_list_is_read() {
        let line = "\tlibm.so.6 => /lib/a b/libm.so.6 (0x00007f1cda300000)";
        let found = library(line).unwrap();
        assert_eq!(found.name, "libm.so.6");
        assert_eq!(found.path.unwrap(), Path::new("/lib/a b/libm.so.6"));
        assert_eq!(library("\tlibx.so => not found").unwrap().path, None);
        for line in [
            "\tlinux-vdso.so.1 (0x00007f)",
            "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)",
            "\tstatically linked",
        ] {
            assert_eq!(library(line), None);
        }
    }

    #[test]
    fn this_program_is_dynamic_and_its_libraries_are_found() {
        let own = std::env::current_exe().unwrap();
        let Kind::Dynamic { loader, bits: 64 } = kind(&own).unwrap() else {
            panic!("{:?}", kind(&own));
        };
        let found = libraries(&own, &loader).unwrap();
        let libc = found.iter().find(|library| library.name == "libc.so.6");
        assert!(libc.unwrap().path.as_ref().unwrap().is_file(), "{found:?}");
        let error = libraries(&own, Path::new("/lib/none.so.1")).unwrap_err();
        assert!(error.to_string().contains("/lib/none.so.1"), "{error}");
    }

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let kind_of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            kind(&path)
        };
        assert_eq!(kind_of(b"#!/bin/sh\n").unwrap(), Kind::Data);
        assert_eq!(kind_of(b"").unwrap(), Kind::Data);
        assert!(
            kind_of(b"\x7fELF")
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
        // The header of a 64-bit Arm program, without sections.
        let mut head = [0; 64];
        head[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        head[18] = 183;
        head[52] = 64;
        assert_eq!(kind_of(&head).unwrap(), Kind::Foreign("AArch64".into()));
        head[18] = 62;
        assert_eq!(kind_of(&head).unwrap(), Kind::Static);
        let error = module_magic(&path).unwrap_err().to_string();
        assert!(error.contains("vermagic"), "{error}");
    }
}
