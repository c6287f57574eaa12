// SPDX-License-Identifier: MIT OR Apache-2.0
//! Generates a [`Table`] from the debug information of a binary (DWARF 4 and 5).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use gimli::{
    AttributeValue, DebuggingInformationEntry, DwTag, EndianSlice, LittleEndian, UnitHeader,
    UnitOffset, constants as dw,
};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::interface::{self, FUNCTIONS, VALUES, VARIABLES, all_structures};
use crate::table::{Kind, Table};

/// Directory of distributions' separate debug information.
pub const DEBUG_DIRECTORY: &str = "/usr/lib/debug";

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not a program for x86-64 Linux.
    #[error("{} is not an ELF program for x86-64", .0.display())]
    NotAProgram(PathBuf),
    /// It has no build id to match a file with.
    #[error(
        "{} has no build id, so that no layout file can be told to be its own: \
         link it with -Wl,--build-id", .0.display()
    )]
    NoBuildId(PathBuf),
    /// There is no debug information.
    #[error(
        "{} has no debug information, and there is no {}: build it with --enable-debug-info, \
         install the debug symbols of its package, or name their file by \
         `svm-vm qemu-layout --debug-file`",
        binary.display(), looked_at.display()
    )]
    NoDebugInformation {
        /// The program.
        binary: PathBuf,
        /// Its expected place.
        looked_at: PathBuf,
    },
    /// The given file belongs to another program.
    #[error(
        "{} is not the debug information of {}: their build ids differ, {found} and {expected}",
        file.display(), binary.display()
    )]
    OtherBuildId {
        /// The file of debug information.
        file: PathBuf,
        /// The program.
        binary: PathBuf,
        /// The build id of the file, or "none".
        found: String,
        /// The build id of the program.
        expected: String,
    },
    /// The debug information is in files that are not supported.
    #[error(
        "the debug information of {} lies in other files ({what}), which is not supported: \
         build it without", path.display()
    )]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// The compiler's name for that.
        what: &'static str,
    },
    /// It is malformed.
    #[error("the debug information of {} cannot be read: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// It is not a QEMU, or lacks something.
    #[error("{} lacks what the plug-in uses: {}", path.display(), missing.join(", "))]
    Lacks {
        /// The program.
        path: PathBuf,
        /// Kinds and names.
        missing: Vec<String>,
    },
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'e, 'a> = DebuggingInformationEntry<'e, 'e, Slice<'a>>;

/// The build id of a program, in hexadecimal digits.
///
/// # Errors
///
/// It cannot be read, is not a program for x86-64, or has none.
pub fn build_id(binary: &Path) -> Result<String, Error> {
    let file = map(binary)?;
    id_of(&parse(binary, &file)?).ok_or_else(|| Error::NoBuildId(binary.to_owned()))
}

/// Whether a program exports a symbol to loaded libraries.
///
/// # Errors
///
/// It cannot be read, or is not a program for x86-64.
pub fn exports(binary: &Path, symbol: &str) -> Result<bool, Error> {
    let file = map(binary)?;
    let program = parse(binary, &file)?;
    let mut exported = program
        .dynamic_symbols()
        .filter(|found| found.is_definition());
    Ok(exported.any(|found| found.name() == Ok(symbol)))
}

/// Reads the table of a program. Its debug information is in `debug_file`, in the program itself,
/// or below [`DEBUG_DIRECTORY`] by its build id.
///
/// # Errors
///
/// There is no debug information, or the program lacks what the plug-in uses.
pub fn read(binary: &Path, debug_file: Option<&Path>) -> Result<Table, Error> {
    let data = map(binary)?;
    let program = parse(binary, &data)?;
    let id = id_of(&program).ok_or_else(|| Error::NoBuildId(binary.to_owned()))?;
    let mut table = Table::default();
    table.build_id = Some(id.clone());
    let apart = match debug_file {
        Some(file) => Some(file.to_owned()),
        None if has_debug_information(&program) => None,
        None => {
            let (first, rest) = id.split_at(2);
            let path = Path::new(DEBUG_DIRECTORY).join(format!(".build-id/{first}/{rest}.debug"));
            if !path.is_file() {
                return Err(Error::NoDebugInformation {
                    binary: binary.to_owned(),
                    looked_at: path,
                });
            }
            Some(path)
        }
    };
    add_addresses(&mut table, &program);
    match apart {
        None => add_types(&mut table, binary, &program)?,
        Some(path) => {
            let data = map(&path)?;
            let file = parse(&path, &data)?;
            let found = id_of(&file);
            if found.as_deref() != Some(id.as_str()) {
                return Err(Error::OtherBuildId {
                    file: path,
                    binary: binary.to_owned(),
                    found: found.unwrap_or_else(|| "none".to_owned()),
                    expected: id,
                });
            }
            if !has_debug_information(&file) {
                return Err(Error::NoDebugInformation {
                    binary: binary.to_owned(),
                    looked_at: path,
                });
            }
            add_addresses(&mut table, &file);
            add_types(&mut table, &path, &file)?;
        }
    }
    let mut missing = interface::missing(&table);
    let addresses = FUNCTIONS.iter().chain(VARIABLES);
    missing.extend(
        addresses
            .filter(|name| table.get(Kind::Address, name).is_none())
            .map(|name| format!("address {name}")),
    );
    if missing.is_empty() {
        Ok(table)
    } else {
        let path = binary.to_owned();
        Err(Error::Lacks { path, missing })
    }
}

fn map(path: &Path) -> Result<memmap2::Mmap, Error> {
    let failed = |error| Error::Read {
        path: path.to_owned(),
        error,
    };
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is only read. If the program is rewritten meanwhile, this reads wrong bytes,
    // or ends this process.
    unsafe { memmap2::Mmap::map(&file) }.map_err(failed)
}

fn parse<'a>(path: &Path, data: &'a [u8]) -> Result<object::File<'a>, Error> {
    let good = |file: &object::File| file.architecture() == object::Architecture::X86_64;
    let parsed = object::File::parse(data).ok().filter(good);
    parsed.ok_or_else(|| Error::NotAProgram(path.to_owned()))
}

fn id_of(file: &object::File) -> Option<String> {
    let id = file.build_id().ok()??;
    Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn has_debug_information(file: &object::File) -> bool {
    file.section_by_name(".debug_info").is_some()
}

/// Adds the addresses of functions and variables, exported or not.
fn add_addresses(table: &mut Table, file: &object::File) {
    for symbol in file.symbols().chain(file.dynamic_symbols()) {
        let Ok(name) = symbol.name() else { continue };
        let wanted = FUNCTIONS.contains(&name) || VARIABLES.contains(&name);
        // A local symbol of the same name is something else.
        if wanted && symbol.is_definition() && symbol.is_global() {
            table.set(Kind::Address, name, symbol.address(), 0);
        }
    }
}

/// Adds structures, constants and signatures.
fn add_types(table: &mut Table, path: &Path, file: &object::File) -> Result<(), Error> {
    let elsewhere = |what| Error::Elsewhere {
        path: path.to_owned(),
        what,
    };
    if file.section_by_name(".gnu_debugaltlink").is_some() {
        return Err(elsewhere("a common file of dwz"));
    }
    let malformed = |error: String| Error::Malformed {
        path: path.to_owned(),
        error,
    };
    let load = |id: gimli::SectionId| -> Result<Cow<[u8]>, object::Error> {
        match file.section_by_name(id.name()) {
            Some(section) => section.uncompressed_data(),
            None => Ok(Cow::Borrowed(&[])),
        }
    };
    let sections =
        gimli::DwarfSections::load(load).map_err(|error| malformed(error.to_string()))?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let mut types = Types::new(dwarf).map_err(|error| malformed(error.to_string()))?;
    if types.is_split {
        return Err(elsewhere("-gsplit-dwarf"));
    }
    types
        .collect(table)
        .map_err(|error| malformed(error.to_string()))
}

/// A reference into the debug information: a unit, and an entry in it.
#[derive(Clone, Copy)]
struct EntryRef {
    unit: usize,
    entry: UnitOffset,
}

/// A member of a structure.
struct Member {
    /// Its first bit in the structure, and its width for a bit field.
    bit: u64,
    bits: Option<u64>,
    kind: Option<EntryRef>,
}

/// The types in the debug information.
struct Types<'a> {
    dwarf: gimli::Dwarf<Slice<'a>>,
    headers: Vec<UnitHeader<Slice<'a>>>,
    units: Vec<gimli::Unit<Slice<'a>>>,
    is_split: bool,
}

impl<'a> Types<'a> {
    fn new(dwarf: gimli::Dwarf<Slice<'a>>) -> gimli::Result<Types<'a>> {
        let (mut headers, mut units) = (Vec::new(), Vec::new());
        let mut all = dwarf.units();
        let mut is_split = false;
        while let Some(header) = all.next()? {
            let unit = dwarf.unit(header)?;
            is_split |= unit.dwo_id.is_some();
            headers.push(header);
            units.push(unit);
        }
        Ok(Types {
            dwarf,
            headers,
            units,
            is_split,
        })
    }

    /// Searches the top level of each unit, until everything is found.
    fn collect(&mut self, table: &mut Table) -> gimli::Result<()> {
        let mut structures = BTreeSet::new();
        let names: BTreeSet<_> = all_structures().map(|s| s.name).collect();
        let mut values = 0;
        let mut signatures = 0;
        for unit in 0..self.units.len() {
            let mut tree = self.units[unit].entries_tree(None)?;
            let mut children = tree.root()?.children();
            while let Some(child) = children.next()? {
                let entry = child.entry();
                let place = EntryRef {
                    unit,
                    entry: entry.offset(),
                };
                match entry.tag() {
                    dw::DW_TAG_structure_type | dw::DW_TAG_typedef => {
                        let Some(name) = self.name(unit, entry)? else {
                            continue;
                        };
                        if structures.contains(name) || all_structures().all(|s| s.name != name) {
                            continue;
                        }
                        if let Some(place) = self.complete_structure(place)? {
                            for wanted in all_structures().filter(|s| s.name == name) {
                                self.add_structure(table, wanted, place)?;
                                structures.insert(wanted.name);
                            }
                        }
                    }
                    dw::DW_TAG_enumeration_type => {
                        let mut enumerators = child.children();
                        while let Some(enumerator) = enumerators.next()? {
                            let entry = enumerator.entry();
                            let name = self.name(unit, entry)?.unwrap_or("");
                            if VALUES.contains(&name) && table.get(Kind::Value, name).is_none() {
                                if let Some(value) = constant(entry, dw::DW_AT_const_value)? {
                                    table.set(Kind::Value, name, value, 0);
                                    values += 1;
                                }
                            }
                        }
                    }
                    dw::DW_TAG_subprogram => {
                        let Some(name) = self.name(unit, entry)? else {
                            continue;
                        };
                        let external = entry.attr_value(dw::DW_AT_external)?.is_some();
                        if external && FUNCTIONS.contains(&name) && table.signature(name).is_none()
                        {
                            let signature = self.signature(place)?;
                            table.set_signature(name, &signature);
                            signatures += 1;
                        }
                    }
                    _ => {}
                }
            }
            if structures.len() == names.len()
                && values == VALUES.len()
                && signatures == FUNCTIONS.len()
            {
                break;
            }
        }
        Ok(())
    }

    fn entry(&self, place: EntryRef) -> gimli::Result<Entry<'_, 'a>> {
        self.units[place.unit].entry(place.entry)
    }

    fn name(&self, unit: usize, entry: &Entry<'_, 'a>) -> gimli::Result<Option<&'a str>> {
        let Some(value) = entry.attr_value(dw::DW_AT_name)? else {
            return Ok(None);
        };
        let text = self.dwarf.attr_string(&self.units[unit], value)?;
        Ok(std::str::from_utf8(text.slice()).ok())
    }

    /// The target of an attribute's reference, in the same unit or in another.
    fn reference(
        &self,
        unit: usize,
        entry: &Entry<'_, 'a>,
        attribute: gimli::DwAt,
    ) -> gimli::Result<Option<EntryRef>> {
        Ok(match entry.attr_value(attribute)? {
            Some(AttributeValue::UnitRef(entry)) => Some(EntryRef { unit, entry }),
            Some(AttributeValue::DebugInfoRef(offset)) => {
                let after = self.headers.partition_point(|header| {
                    header
                        .offset()
                        .as_debug_info_offset()
                        .is_some_and(|begin| begin.0 <= offset.0)
                });
                after.checked_sub(1).and_then(|unit| {
                    let entry = offset.to_unit_offset(&self.headers[unit])?;
                    Some(EntryRef { unit, entry })
                })
            }
            _ => None,
        })
    }

    fn type_of(&self, place: EntryRef) -> gimli::Result<Option<EntryRef>> {
        self.reference(place.unit, &self.entry(place)?, dw::DW_AT_type)
    }

    /// Strips names and qualifiers from a type; None is `void`.
    fn strip(&self, mut place: Option<EntryRef>) -> gimli::Result<Option<(EntryRef, DwTag)>> {
        while let Some(at) = place {
            match self.entry(at)?.tag() {
                dw::DW_TAG_typedef
                | dw::DW_TAG_const_type
                | dw::DW_TAG_volatile_type
                | dw::DW_TAG_restrict_type
                | dw::DW_TAG_atomic_type => place = self.type_of(at)?,
                tag => return Ok(Some((at, tag))),
            }
        }
        Ok(None)
    }

    /// The structure, if the entry is a complete one, or a `typedef` of a complete one without a
    /// name.
    fn complete_structure(&self, place: EntryRef) -> gimli::Result<Option<EntryRef>> {
        let mut place = place;
        if self.entry(place)?.tag() == dw::DW_TAG_typedef {
            match self.strip(Some(place))? {
                Some((at, dw::DW_TAG_structure_type)) => {
                    if self.name(at.unit, &self.entry(at)?)?.is_some() {
                        return Ok(None);
                    }
                    place = at;
                }
                _ => return Ok(None),
            }
        }
        let whole = self
            .entry(place)?
            .attr_value(dw::DW_AT_byte_size)?
            .is_some();
        Ok(whole.then_some(place))
    }

    fn add_structure(
        &self,
        table: &mut Table,
        wanted: &interface::Structure,
        place: EntryRef,
    ) -> gimli::Result<()> {
        let size = constant(&self.entry(place)?, dw::DW_AT_byte_size)?;
        table.set(Kind::Size, wanted.name, size.unwrap_or(0), 0);
        for path in wanted.members {
            let Some(member) = self.member(place, path)? else {
                continue;
            };
            let name = format!("{}.{path}", wanted.name);
            let size = self.size(member.kind)?.unwrap_or(0);
            table.set(Kind::Offset, &name, member.bit / 8, size);
            if let Some(function) = self.function_behind(member.kind)? {
                table.set_signature(&name, &self.signature(function)?);
            }
        }
        for field in wanted.bit_fields {
            let name = format!("{}.{field}", wanted.name);
            if let Some(member) = self.member(place, field)? {
                if let Some(width) = member.bits {
                    table.set(Kind::Bits, &name, member.bit, width);
                }
            }
        }
        Ok(())
    }

    /// A member by its name, or a nested member by names with dots between them.
    fn member(&self, structure: EntryRef, path: &str) -> gimli::Result<Option<Member>> {
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        let Some(found) = self.direct_member(structure, first)? else {
            return Ok(None);
        };
        let Some(rest) = rest else {
            return Ok(Some(found));
        };
        let Some((inner, _)) = self.strip(found.kind)? else {
            return Ok(None);
        };
        let inner = self.member(inner, rest)?;
        Ok(inner.map(|member| Member {
            bit: found.bit + member.bit,
            ..member
        }))
    }

    /// A member of a structure or of an anonymous structure in it.
    fn direct_member(&self, structure: EntryRef, name: &str) -> gimli::Result<Option<Member>> {
        let unit = &self.units[structure.unit];
        let mut tree = unit.entries_tree(Some(structure.entry))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            if entry.tag() != dw::DW_TAG_member {
                continue;
            }
            let kind = self.reference(structure.unit, entry, dw::DW_AT_type)?;
            let byte = constant(entry, dw::DW_AT_data_member_location)?.unwrap_or(0);
            let bit = match constant(entry, dw::DW_AT_data_bit_offset)? {
                Some(bit) => bit,
                None => byte * 8,
            };
            match self.name(structure.unit, entry)? {
                Some(found) if found == name => {
                    let bits = constant(entry, dw::DW_AT_bit_size)?;
                    return Ok(Some(Member { bit, bits, kind }));
                }
                Some(_) => {}
                None => {
                    if let Some((inner, _)) = self.strip(kind)? {
                        if let Some(member) = self.direct_member(inner, name)? {
                            let bit = bit + member.bit;
                            return Ok(Some(Member { bit, ..member }));
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// The size of a type in bytes; None for `void` and types without a size.
    fn size(&self, kind: Option<EntryRef>) -> gimli::Result<Option<u64>> {
        let Some((place, tag)) = self.strip(kind)? else {
            return Ok(None);
        };
        match constant(&self.entry(place)?, dw::DW_AT_byte_size)? {
            None if tag == dw::DW_TAG_pointer_type => Ok(Some(8)),
            None if tag == dw::DW_TAG_array_type => self.array_size(place),
            size => Ok(size),
        }
    }

    fn array_size(&self, array: EntryRef) -> gimli::Result<Option<u64>> {
        let Some(mut size) = self.size(self.type_of(array)?)? else {
            return Ok(None);
        };
        let mut tree = self.units[array.unit].entries_tree(Some(array.entry))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            let count = match constant(entry, dw::DW_AT_count)? {
                Some(count) => Some(count),
                None => constant(entry, dw::DW_AT_upper_bound)?.map(|last| last + 1),
            };
            match count {
                Some(count) => size *= count,
                None => return Ok(None),
            }
        }
        Ok(Some(size))
    }

    /// The function type that a pointer points to.
    fn function_behind(&self, kind: Option<EntryRef>) -> gimli::Result<Option<EntryRef>> {
        let Some((pointer, dw::DW_TAG_pointer_type)) = self.strip(kind)? else {
            return Ok(None);
        };
        match self.strip(self.type_of(pointer)?)? {
            Some((function, dw::DW_TAG_subroutine_type)) => Ok(Some(function)),
            _ => Ok(None),
        }
    }

    /// Parameters and result of a function or a type of functions.
    fn signature(&self, place: EntryRef) -> gimli::Result<String> {
        let mut parameters = Vec::new();
        let mut tree = self.units[place.unit].entries_tree(Some(place.entry))?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            let entry = child.entry();
            match entry.tag() {
                dw::DW_TAG_formal_parameter => {
                    let kind = self.reference(place.unit, entry, dw::DW_AT_type)?;
                    parameters.push(self.word(kind)?);
                }
                dw::DW_TAG_unspecified_parameters => parameters.push("...".to_owned()),
                _ => {}
            }
        }
        let parameters = parameters.join(", ");
        Ok(match self.type_of(place)? {
            None => format!("({parameters})"),
            result => format!("({parameters}) -> {}", self.word(result)?),
        })
    }

    /// A type in a signature.
    fn word(&self, kind: Option<EntryRef>) -> gimli::Result<String> {
        let Some((place, tag)) = self.strip(kind)? else {
            return Ok("void".to_owned());
        };
        let entry = self.entry(place)?;
        Ok(match tag {
            dw::DW_TAG_pointer_type | dw::DW_TAG_array_type => "ptr".to_owned(),
            dw::DW_TAG_base_type | dw::DW_TAG_enumeration_type => {
                let bits = constant(&entry, dw::DW_AT_byte_size)?.unwrap_or(0) * 8;
                match entry.attr_value(dw::DW_AT_encoding)? {
                    Some(AttributeValue::Encoding(dw::DW_ATE_boolean)) => "bool".to_owned(),
                    Some(AttributeValue::Encoding(dw::DW_ATE_float)) => format!("float{bits}"),
                    _ => bits.to_string(),
                }
            }
            _ => match self.name(place.unit, &entry)? {
                Some(name) => name.to_owned(),
                None => self.typedef_name(kind)?,
            },
        })
    }

    /// The name of an anonymous structure from its `typedef`.
    fn typedef_name(&self, mut kind: Option<EntryRef>) -> gimli::Result<String> {
        while let Some(place) = kind {
            let entry = self.entry(place)?;
            if let Some(name) = self.name(place.unit, &entry)? {
                return Ok(name.to_owned());
            }
            kind = self.type_of(place)?;
        }
        Ok("?".to_owned())
    }
}

/// A number in an attribute that is not an expression.
fn constant(entry: &Entry<'_, '_>, attribute: gimli::DwAt) -> gimli::Result<Option<u64>> {
    let value = entry.attr_value(attribute)?;
    Ok(value.and_then(|value| {
        value
            .udata_value()
            .or_else(|| value.sdata_value().map(|value| value as u64))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_exports_is_seen() {
        let program = std::env::current_exe().unwrap();
        assert!(!exports(&program, "malloc").unwrap());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let library = maps.lines().filter_map(|line| line.split_once('/'));
        let library = library.map(|(_, path)| format!("/{path}"));
        let mut library = library;
        let library = library.find(|path| path.contains("/libc.so"));
        assert!(exports(Path::new(&library.unwrap()), "malloc").unwrap());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let error = exports(&script, "malloc").unwrap_err();
        assert!(matches!(error, Error::NotAProgram(_)), "{error}");
    }
}
