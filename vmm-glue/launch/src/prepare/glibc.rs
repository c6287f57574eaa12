// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks that a library does not need a newer C library than the one that it will run with.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use object::elf;
use object::read::elf::{FileHeader as _, SectionHeader as _};

/// Prefix of the C library's symbol versions.
const PREFIX: &str = "GLIBC_";

/// A version of the C library's symbols: 2.34, or 2.2.5.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(Vec<u32>);

/// Fails if `library` needs a version that `libc` does not have.
pub fn check(library: &Path, libc: &Path) -> Result<()> {
    let needed = newest(library, Names::Needed)?;
    let Some(offered) = newest(libc, Names::Defined)? else {
        bail!("{} defines no version of the C library", libc.display());
    };
    match needed {
        Some(needed) if needed > offered => bail!(
            "{} needs GLIBC_{needed}, and the prepared root has GLIBC_{offered}: this host's C \
             library is newer, and the linker took it instead of the root's; does cargo's \
             configuration on this machine set a linker of its own?",
            library.display()
        ),
        _ => Ok(()),
    }
}

/// The kind of version names to read.
#[derive(Clone, Copy)]
enum Names {
    Needed,
    Defined,
}

fn newest(path: &Path, names: Names) -> Result<Option<Version>> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = version_names(&data, names)
        .with_context(|| format!("{} is no 64-bit ELF file", path.display()))?;
    Ok(found.iter().filter_map(|name| Version::parse(name)).max())
}

fn version_names(data: &[u8], which: Names) -> object::read::Result<Vec<String>> {
    let header = elf::FileHeader64::<object::Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let mut names = Vec::new();
    for section in sections.iter() {
        match which {
            Names::Needed => {
                let Some((mut needs, link)) = section.gnu_verneed(endian, data)? else {
                    continue;
                };
                let strings = sections.strings(endian, data, link)?;
                while let Some((_, mut versions)) = needs.next()? {
                    while let Some(version) = versions.next()? {
                        names.push(text(version.name(endian, strings)?));
                    }
                }
            }
            Names::Defined => {
                let Some((mut definitions, link)) = section.gnu_verdef(endian, data)? else {
                    continue;
                };
                let strings = sections.strings(endian, data, link)?;
                while let Some((_, mut versions)) = definitions.next()? {
                    while let Some(version) = versions.next()? {
                        names.push(text(version.name(endian, strings)?));
                    }
                }
            }
        }
    }
    Ok(names)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Version {
    /// Reads a name such as `GLIBC_2.34`; others, such as `GLIBC_PRIVATE`, are not versions.
    fn parse(name: &str) -> Option<Self> {
        let numbers = name
            .strip_prefix(PREFIX)?
            .split('.')
            .map(|digits| digits.parse().ok());
        numbers.collect::<Option<_>>().map(Self)
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&words.join("."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_number() {
        let version = |name| Version::parse(name).unwrap();
        assert!(version("GLIBC_2.4") < version("GLIBC_2.34"));
        assert!(version("GLIBC_2.2.5") < version("GLIBC_2.3"));
        assert_eq!(Version::parse("GLIBC_PRIVATE"), None);
        assert_eq!(Version::parse("GCC_3.0"), None);
        assert_eq!(version("GLIBC_2.34").to_string(), "2.34");
    }

    #[test]
    fn the_needs_of_this_test_are_found_and_met() {
        // This very program is a dynamic ELF file, and runs with the C library in its maps.
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.ends_with("/libc.so.6"))
            .unwrap();
        let own = std::env::current_exe().unwrap();
        let needed = newest(&own, Names::Needed).unwrap().unwrap();
        let offered = newest(Path::new(libc), Names::Defined).unwrap().unwrap();
        assert!(Version::parse("GLIBC_2.2.5").unwrap() <= needed && needed <= offered);
        check(&own, Path::new(libc)).unwrap();
        // It defines none of the C library's versions.
        check(&own, &own).unwrap_err();
    }

    #[test]
    fn what_is_no_elf_file_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = newest(file.path(), Names::Needed).unwrap_err();
        assert!(
            format!("{error:#}").contains("no 64-bit ELF file"),
            "{error:#}"
        );
    }
}
