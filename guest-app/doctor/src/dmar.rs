// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of the firmware's table of remapping units (VT-d 8.1) that say where ATS may be used:
//! the root port ATS capability structures (ATSR, VT-d 8.5) and the SoC integrated address
//! translation cache structures (SATC, VT-d 8.8). The module only parses bytes.

/// Length of the ACPI header and of the fields of DMAR behind it.
const HEADER_BYTES: usize = 48;
/// Types of remapping structures.
const ATSR: u16 = 2;
const SATC: u16 = 5;

/// Bus, device and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bdf {
    /// Bus number.
    pub bus: u8,
    /// Device number.
    pub device: u8,
    /// Function number.
    pub function: u8,
}

impl Bdf {
    /// Segment and function of an address as Linux writes it: `0000:00:03.0`.
    pub fn parse(address: &str) -> Option<(u16, Self)> {
        let (segment, rest) = address.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        let hex = |text| u8::from_str_radix(text, 16).ok();
        let bdf = Self {
            bus: hex(bus)?,
            device: hex(device)?,
            function: hex(function)?,
        };
        Some((u16::from_str_radix(segment, 16).ok()?, bdf))
    }
}

/// A structure that names devices of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// PCI segment.
    pub segment: u16,
    /// Bit 0 of its flags: ALL_PORTS of ATSR, ATC_REQUIRED of SATC.
    pub flag: bool,
    /// The devices on the bus where their path starts; devices behind bridges are left out.
    pub devices: Vec<Bdf>,
}

/// The relevant structures of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dmar {
    /// Root ports below which ATS may be used.
    pub root_ports: Vec<Scope>,
    /// Integrated devices with an address translation cache.
    pub integrated: Vec<Scope>,
}

impl Dmar {
    /// Reads the table, up to the first structure that is truncated or malformed.
    pub fn parse(table: &[u8]) -> Option<Self> {
        if table.get(..4)? != b"DMAR" {
            return None;
        }
        let mut dmar = Self::default();
        let mut rest = table.get(HEADER_BYTES..)?;
        while let Some(kind) = word(rest, 0) {
            let length = usize::from(word(rest, 2)?);
            let Some(structure) = rest.get(..length).filter(|_| length >= 4) else {
                break;
            };
            match kind {
                ATSR => dmar.root_ports.extend(scope(structure)),
                SATC => dmar.integrated.extend(scope(structure)),
                _ => {}
            }
            rest = &rest[length..];
        }
        Some(dmar)
    }

    /// Whether a device may use ATS, and which structure permits it. `root_port` is the one on its
    /// path; an integrated device has none.
    pub fn ats_permitted(&self, device: &str, root_port: Option<&str>) -> bool {
        let named = |scopes: &[Scope], address: &str| {
            Bdf::parse(address).is_some_and(|(segment, bdf)| {
                scopes
                    .iter()
                    .any(|scope| scope.segment == segment && scope.devices.contains(&bdf))
            })
        };
        let Some(root_port) = root_port else {
            return true;
        };
        let all = Bdf::parse(root_port).is_some_and(|(segment, _)| {
            self.root_ports
                .iter()
                .any(|scope| scope.segment == segment && scope.flag)
        });
        all || named(&self.integrated, device) || named(&self.root_ports, root_port)
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?;
    Some(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// ATSR and SATC have the same form: flags, segment, device scopes.
fn scope(structure: &[u8]) -> Option<Scope> {
    let mut scope = Scope {
        segment: word(structure, 6)?,
        flag: structure.get(4)? & 1 != 0,
        devices: Vec::new(),
    };
    let mut rest = structure.get(8..)?;
    while let Some(&length) = rest.get(1) {
        let length = usize::from(length);
        // At least six bytes and one path entry.
        let Some(entry) = rest.get(..length).filter(|_| length >= 8) else {
            break;
        };
        if length == 8 {
            scope.devices.push(Bdf {
                bus: entry[5],
                device: entry[6],
                function: entry[7],
            });
        }
        rest = &rest[length..];
    }
    Some(scope)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A table with structures of these types, flags and scopes of (length, bus, path).
    pub fn table(structures: &[(u16, u8, &[&[u8]])]) -> Vec<u8> {
        let mut table = b"DMAR".to_vec();
        table.resize(HEADER_BYTES, 0);
        // A hardware unit comes first; the parser skips it.
        table.extend([0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0]);
        for (kind, flags, scopes) in structures {
            let length = 8 + scopes.iter().map(|path| 6 + path.len() - 1).sum::<usize>();
            table.extend(kind.to_le_bytes());
            table.extend((length as u16).to_le_bytes());
            table.extend([*flags, 0, 0, 0]);
            for path in *scopes {
                table.extend([1, (6 + path.len() - 1) as u8, 0, 0, 0, path[0]]);
                table.extend(&path[1..]);
            }
        }
        table
    }

    #[test]
    fn root_ports_and_integrated_devices_are_found() {
        let table = table(&[
            (ATSR, 0, &[&[0, 0x1c, 0], &[0, 0x1d, 2]]),
            (SATC, 1, &[&[0x6a, 1, 0], &[0, 3, 0, 1, 0]]),
        ]);
        let dmar = Dmar::parse(&table).unwrap();
        assert_eq!(dmar.root_ports[0].devices.len(), 2);
        // The second one is behind a bridge and is left out.
        assert_eq!(dmar.integrated[0].devices.len(), 1);
        assert!(dmar.integrated[0].flag);
        let below = |device, port| dmar.ats_permitted(device, Some(port));
        assert!(below("0000:05:00.0", "0000:00:1d.2"));
        assert!(!below("0000:05:00.0", "0000:00:1d.1"));
        assert!(!below("0000:05:00.0", "0001:00:1d.2"));
        assert!(below("0000:6a:01.0", "0000:00:01.0"));
        assert!(dmar.ats_permitted("0000:00:03.0", None));
    }

    #[test]
    fn one_structure_can_mean_all_ports() {
        let dmar = Dmar::parse(&table(&[(ATSR, 1, &[])])).unwrap();
        assert!(dmar.ats_permitted("0000:05:00.0", Some("0000:00:1c.0")));
        assert!(!dmar.ats_permitted("0001:05:00.0", Some("0001:00:1c.0")));
    }

    #[test]
    fn what_is_cut_off_ends_the_table() {
        let table = table(&[(ATSR, 0, &[&[0, 0x1c, 0]])]);
        for length in 0..table.len() {
            let dmar = Dmar::parse(&table[..length]);
            assert!(
                dmar.is_none_or(|dmar| dmar.root_ports.is_empty()),
                "{length}"
            );
        }
        assert_eq!(Dmar::parse(&[0; 100]), None);
    }

    #[test]
    fn addresses_are_read_as_linux_writes_them() {
        let (segment, bdf) = Bdf::parse("0001:ff:1f.7").unwrap();
        assert_eq!(
            (segment, bdf.bus, bdf.device, bdf.function),
            (1, 0xff, 0x1f, 7)
        );
        assert_eq!(Bdf::parse("00:1f.7"), None);
        assert_eq!(Bdf::parse("0000:00:1f"), None);
    }
}
