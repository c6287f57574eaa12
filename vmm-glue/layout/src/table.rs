// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table and its file format.
//!
//! The file is text, one value per line: a kind, a name, and its values. Lines that begin with `#`
//! and empty lines are ignored. The first other line is `qemu-layout 1`.
//!
//! ```text
//! build-id fc693c98cb6d8b9e45f9a391a4a94a17863053a5
//! size PCIDevice 2768
//! offset PCIDevice.config 168 8
//! bits MemTxAttrs.requester_id 6 16
//! value IOMMU_NOTIFIER_MAP 2
//! signature pci_register_bar (ptr, 32, 8, ptr)
//! address pci_register_bar 0x4d1230
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The series of QEMU that [`Table::builtin`] describes: major and minor version.
pub const BUILTIN_SERIES: (i64, i64) = (11, 1);

/// The first line of a file: the name of the format, and its version.
const HEADER: &str = "qemu-layout 1";

/// The kind of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `size STRUCTURE BYTES`
    Size,
    /// `offset STRUCTURE.MEMBER BYTES SIZE`: the offset of the member, and its size.
    Offset,
    /// `bits STRUCTURE.MEMBER BIT WIDTH`: the first bit of a bit field, counted from the lowest bit
    /// of the structure's first byte, and the number of its bits.
    Bits,
    /// `value CONSTANT NUMBER`: an enumerator.
    Value,
    /// `signature FUNCTION (PARAMETERS) -> RESULT`, of a function or of a member that points to
    /// one. A type is `ptr`, `bool`, the width of an integer in bits, or the name of a structure.
    Signature,
    /// `address SYMBOL ADDRESS`: the address of a function or variable in the binary.
    Address,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::Size,
        Kind::Offset,
        Kind::Bits,
        Kind::Value,
        Kind::Signature,
        Kind::Address,
    ];

    /// The first word of a line.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Size => "size",
            Kind::Offset => "offset",
            Kind::Bits => "bits",
            Kind::Value => "value",
            Kind::Signature => "signature",
            Kind::Address => "address",
        }
    }

    /// Number of values after the name.
    fn numbers(self) -> usize {
        match self {
            Kind::Offset | Kind::Bits => 2,
            Kind::Size | Kind::Value | Kind::Address => 1,
            Kind::Signature => 0,
        }
    }
}

/// Why a text is not a valid table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The first line is wrong.
    #[error("it does not begin with the line '{HEADER}'")]
    Header,
    /// A line is invalid.
    #[error("line {number} is not understood: '{line}'")]
    Line {
        /// Its number, from 1.
        number: usize,
        /// What it says.
        line: String,
    },
    /// A value is defined twice.
    #[error("line {number} says '{line}', and an earlier line says another thing of the same name")]
    Twice {
        /// Its number, from 1.
        number: usize,
        /// What it says.
        line: String,
    },
}

/// The values of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Numbers(u64, u64),
    Text(String),
}

/// Sizes, offsets, values, signatures and addresses of one binary, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The build id of the binary, in hexadecimal digits; None for a table of a whole series.
    pub build_id: Option<String>,
    entries: BTreeMap<(Kind, String), Entry>,
}

impl Table {
    /// The table of the series that needs no file.
    pub fn builtin() -> Table {
        match include_str!("qemu-11.1.layout").parse() {
            Ok(table) => table,
            // A test parses it.
            Err(error) => unreachable!("the table of this crate: {error}"),
        }
    }

    /// Adds a line with numbers; `second` is 0 if the kind has one number.
    pub fn set(&mut self, kind: Kind, name: &str, first: u64, second: u64) {
        let entry = Entry::Numbers(first, second);
        self.entries.insert((kind, name.to_owned()), entry);
    }

    /// Adds a signature.
    pub fn set_signature(&mut self, name: &str, signature: &str) {
        let entry = Entry::Text(signature.to_owned());
        self.entries
            .insert((Kind::Signature, name.to_owned()), entry);
    }

    /// The numbers of a line; the second is 0 if the kind has one number.
    pub fn get(&self, kind: Kind, name: &str) -> Option<(u64, u64)> {
        match self.entries.get(&(kind, name.to_owned()))? {
            Entry::Numbers(first, second) => Some((*first, *second)),
            Entry::Text(_) => None,
        }
    }

    /// A signature.
    pub fn signature(&self, name: &str) -> Option<&str> {
        match self.entries.get(&(Kind::Signature, name.to_owned()))? {
            Entry::Text(text) => Some(text),
            Entry::Numbers(..) => None,
        }
    }

    /// All lines except the build id: kind, name, and the rest as text.
    pub fn lines(&self) -> impl Iterator<Item = (Kind, &str, String)> {
        self.entries.iter().map(|((kind, name), entry)| {
            let rest = match entry {
                Entry::Numbers(first, _) if *kind == Kind::Address => format!("{first:#x}"),
                Entry::Numbers(first, second) if kind.numbers() == 2 => format!("{first} {second}"),
                Entry::Numbers(first, _) => first.to_string(),
                Entry::Text(text) => text.clone(),
            };
            (*kind, name.as_str(), rest)
        })
    }

    /// The table without the values that differ between binaries of a series: build id and
    /// addresses.
    pub fn without_addresses(&self) -> Table {
        let mut table = self.clone();
        table.build_id = None;
        table.entries.retain(|(kind, _), _| *kind != Kind::Address);
        table
    }

    /// The differences of two tables, including values in only one of them, as sentences. Ignores
    /// addresses.
    pub fn differences(&self, other: &Table) -> Vec<String> {
        let sides = [self.without_addresses(), other.without_addresses()];
        let names: std::collections::BTreeSet<_> =
            sides.iter().flat_map(|side| side.entries.keys()).collect();
        let mut found = Vec::new();
        for key in names {
            let [here, there] = [0, 1].map(|side: usize| sides[side].entries.get(key));
            if here != there {
                let say = |entry: Option<&Entry>| match entry {
                    None => "missing".to_owned(),
                    Some(Entry::Text(text)) => text.clone(),
                    Some(Entry::Numbers(first, second)) if key.0.numbers() == 2 => {
                        format!("{first} {second}")
                    }
                    Some(Entry::Numbers(first, _)) => first.to_string(),
                };
                let (kind, name) = (key.0.word(), &key.1);
                found.push(format!("{kind} {name}: {} and {}", say(here), say(there)));
            }
        }
        found
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{HEADER}")?;
        if let Some(id) = &self.build_id {
            writeln!(f, "build-id {id}")?;
        }
        for (kind, name, rest) in self.lines() {
            writeln!(f, "{} {name} {rest}", kind.word())?;
        }
        Ok(())
    }
}

impl FromStr for Table {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Table, ParseError> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        if lines.next().is_none_or(|(_, line)| line != HEADER) {
            return Err(ParseError::Header);
        }
        let mut table = Table::default();
        for (number, line) in lines {
            let misunderstood = || ParseError::Line {
                number,
                line: line.to_owned(),
            };
            let (word, rest) = line.split_once(' ').ok_or_else(misunderstood)?;
            if word == "build-id" {
                let good = rest.len() >= 2 && rest.chars().all(|c| c.is_ascii_hexdigit());
                if !good || table.build_id.is_some() {
                    return Err(misunderstood());
                }
                table.build_id = Some(rest.to_lowercase());
                continue;
            }
            let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
            let kind = kind.ok_or_else(misunderstood)?;
            let (name, rest) = rest.split_once(' ').ok_or_else(misunderstood)?;
            let entry = match kind {
                Kind::Signature => Entry::Text(rest.to_owned()),
                _ => {
                    let numbers: Option<Vec<u64>> = rest.split(' ').map(number_of).collect();
                    let numbers = numbers.filter(|numbers| numbers.len() == kind.numbers());
                    let numbers = numbers.ok_or_else(misunderstood)?;
                    Entry::Numbers(numbers[0], numbers.get(1).copied().unwrap_or(0))
                }
            };
            if table
                .entries
                .insert((kind, name.to_owned()), entry)
                .is_some()
            {
                return Err(ParseError::Twice {
                    number,
                    line: line.to_owned(),
                });
            }
        }
        Ok(table)
    }
}

/// A number, decimal or, after `0x`, hexadecimal.
fn number_of(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# of a test\nqemu-layout 1\nbuild-id 0A1b\n\nsize A 24\noffset A.b 8 2\n\
                        bits A.c 6 16\nvalue D 2\nsignature e (ptr, 32) -> bool\naddress e 0x1f0\n";

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let table: Table = TEXT.parse().unwrap();
        assert_eq!(table.build_id.as_deref(), Some("0a1b"));
        assert_eq!(table.get(Kind::Size, "A"), Some((24, 0)));
        assert_eq!(table.get(Kind::Offset, "A.b"), Some((8, 2)));
        assert_eq!(table.get(Kind::Bits, "A.c"), Some((6, 16)));
        assert_eq!(table.get(Kind::Value, "D"), Some((2, 0)));
        assert_eq!(table.get(Kind::Address, "e"), Some((0x1f0, 0)));
        assert_eq!(table.signature("e"), Some("(ptr, 32) -> bool"));
        assert_eq!(table.get(Kind::Size, "e"), None);
        assert_eq!(table.to_string().parse(), Ok(table));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        assert_eq!("size A 1".parse::<Table>(), Err(ParseError::Header));
        for line in [
            "size",
            "size A",
            "size A x",
            "size A 1 2",
            "offset A.b 1",
            "shape A 1",
            "build-id xyz",
            "value D -1",
        ] {
            let error = format!("{HEADER}\n{line}").parse::<Table>().unwrap_err();
            let expected = format!("line 2 is not understood: '{line}'");
            assert_eq!(error.to_string(), expected);
        }
        let twice = format!("{HEADER}\nsize A 1\nsize A 2").parse::<Table>();
        assert!(matches!(twice, Err(ParseError::Twice { number: 3, .. })));
    }

    #[test]
    fn differences_name_both_sides_and_leave_addresses_out() {
        let one: Table = TEXT.parse().unwrap();
        let other = TEXT
            .replace("A.b 8 2", "A.b 16 2")
            .replace("value D 2\n", "")
            .replace("0x1f0", "0x2f0");
        let found = one.differences(&other.parse().unwrap());
        assert_eq!(
            found,
            ["offset A.b: 8 2 and 16 2", "value D: 2 and missing"]
        );
        assert!(one.differences(&one).is_empty());
    }

    #[test]
    fn the_builtin_table_says_all_that_the_interface_names() {
        let table = Table::builtin();
        assert_eq!(crate::interface::missing(&table), Vec::<String>::new());
        assert_eq!(table, table.without_addresses());
        assert!(crate::Layout::new(&table).is_ok());
    }
}
