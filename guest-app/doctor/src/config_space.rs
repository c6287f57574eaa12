// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of a PCI function's configuration space that matter for shared virtual addressing: its
//! kind, the PCI Express capability, and the extended capabilities ATS, PRI, PASID and ACS.
//!
//! The module only parses bytes. It does not depend on their source or on how Linux uses them.

/// Size of the part that conventional PCI has. Linux shows some of it to every user.
const CONVENTIONAL_BYTES: usize = 0x100;
/// Size of the header of a function: the part that a non-root user may read.
const HEADER_BYTES: usize = 0x40;
/// Size of the configuration space of a PCI Express function.
const CONFIG_BYTES: usize = 0x1000;
/// Offset of the first extended capability (PCIe 7.6.2).
const FIRST_EXTENDED: usize = 0x100;

/// Capability ID of PCI Express (PCIe 7.5.3.1).
const EXPRESS_ID: u8 = 0x10;
/// Extended capability IDs: ACS (PCIe 7.7.11), ATS (10.5.1), PRI (10.5.2), PASID (7.8.9).
const ACS_ID: u16 = 0x000d;
const ATS_ID: u16 = 0x000f;
const PRI_ID: u16 = 0x0013;
const PASID_ID: u16 = 0x001b;

/// Why bytes are not a configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// There are too few bytes for a header.
    #[error(
        "{length} bytes of configuration space, at least {HEADER_BYTES} expected: run this as root"
    )]
    Short {
        /// How many there are.
        length: usize,
    },
    /// All bytes are ones: no function answers.
    #[error("the function does not answer: it is in D3cold, or gone")]
    Absent,
}

/// A function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, sub-class and programming interface.
    pub class: u32,
    /// Bus Master Enable.
    pub bus_master: bool,
    /// The device has more than one function.
    pub multifunction: bool,
    /// It is a bridge: header type 1.
    pub bridge: bool,
    /// PCI Express capability. `None` for a conventional device.
    pub express: Option<Express>,
    /// How much of the configuration space was readable: the capabilities below are known only for
    /// [`Depth::Extended`].
    pub depth: Depth,
    /// Access Control Services.
    pub acs: Option<Acs>,
    /// Address Translation Services.
    pub ats: Option<Ats>,
    /// Page Request Interface.
    pub pri: Option<Pri>,
    /// PASID.
    pub pasid: Option<Pasid>,
}

/// How much of a configuration space could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// 64 bytes: the part that Linux shows to non-root users.
    #[default]
    Header,
    /// 256 bytes: the function is conventional PCI, or the platform gives even Linux no access to
    /// more.
    Conventional,
    /// All of it.
    Extended,
}

/// PCI Express capability (PCIe 7.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Express {
    /// Device/Port Type.
    pub port: Port,
    /// End-End TLP Prefix Supported, and the maximum number; a PASID is such a prefix (PCIe
    /// 7.5.3.15).
    pub end_to_end_prefixes: Option<u8>,
}

/// Device/Port Type (PCIe 7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// PCI Express Endpoint.
    Endpoint,
    /// Legacy PCI Express Endpoint.
    LegacyEndpoint,
    /// Root Port of the root complex.
    RootPort,
    /// Upstream Port of a switch.
    Upstream,
    /// Downstream Port of a switch.
    Downstream,
    /// PCI Express to PCI bridge.
    ToPci,
    /// PCI to PCI Express bridge.
    FromPci,
    /// Root Complex Integrated Endpoint.
    Integrated,
    /// Root Complex Event Collector.
    EventCollector,
    /// A value that the specification does not define.
    Other(u8),
}

/// ACS capability (PCIe 7.7.11): what is implemented and what is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acs {
    /// ACS Capability Register.
    pub capability: u16,
    /// ACS Control Register.
    pub control: u16,
}

impl Acs {
    /// P2P Request Redirect.
    pub const REQUEST_REDIRECT: u16 = 1 << 2;
    /// Upstream Forwarding.
    pub const UPSTREAM_FORWARDING: u16 = 1 << 4;

    /// The bits of `wanted` that are implemented and off. An unimplemented bit does not have to be
    /// on.
    pub fn lacking(&self, wanted: u16) -> u16 {
        wanted & self.capability & !self.control
    }
}

/// ATS capability (PCIe 10.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ats {
    /// Invalidate Queue Depth: the number of requests that the function accepts without a pause, 1
    /// to 32.
    pub queue_depth: u8,
    /// Page Aligned Request: untranslated addresses in requests are aligned to 4096 bytes.
    pub page_aligned: bool,
    /// Global Invalidate Supported.
    pub global_invalidate: bool,
    /// Smallest Translation Unit: log2 of its bytes.
    pub stu: u8,
    /// E, enable.
    pub enabled: bool,
}

/// Page request capability (PCIe 10.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pri {
    /// PRG Response PASID Required.
    pub response_pasid_required: bool,
    /// E, enable.
    pub enabled: bool,
    /// Response Failure was received.
    pub response_failure: bool,
    /// Unexpected Page Request Group Index was received.
    pub unexpected_index: bool,
    /// Outstanding Page Request Capacity.
    pub capacity: u32,
    /// Outstanding Page Request Allocation.
    pub allocation: u32,
}

/// PASID capability (PCIe 7.8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pasid {
    /// Max PASID Width, in bits.
    pub width: u8,
    /// Execute Permission Supported.
    pub execute: bool,
    /// Privileged Mode Supported.
    pub privileged: bool,
    /// PASID Enable.
    pub enabled: bool,
}

impl Function {
    /// Reads a function from its configuration space: 64 bytes, 256, or all 4096. Capabilities
    /// beyond the given bytes remain unknown.
    ///
    /// # Errors
    ///
    /// [`ParseError`].
    pub fn parse(config: &[u8]) -> Result<Self, ParseError> {
        let length = config.len();
        if length < HEADER_BYTES {
            return Err(ParseError::Short { length });
        }
        let bytes = Bytes(config);
        if bytes.word(0) == Some(0xffff) {
            return Err(ParseError::Absent);
        }
        let word = |offset| bytes.word(offset).unwrap_or(0);
        let header_type = config[0x0e];
        let mut function = Self {
            vendor: word(0),
            device: word(2),
            class: u32::from(word(0x0a)) << 8 | u32::from(config[0x09]),
            bus_master: word(0x04) & 1 << 2 != 0,
            multifunction: header_type & 0x80 != 0,
            bridge: header_type & 0x7f == 1,
            ..Self::default()
        };
        // Status: Capabilities List.
        if word(0x06) & 1 << 4 != 0 {
            function.express = bytes.express();
        }
        if length >= CONFIG_BYTES {
            function.depth = Depth::Extended;
            function.read_extended(bytes);
        } else if length >= CONVENTIONAL_BYTES {
            function.depth = Depth::Conventional;
        }
        Ok(function)
    }

    fn read_extended(&mut self, bytes: Bytes<'_>) {
        for (id, offset) in bytes.extended_capabilities() {
            match id {
                ACS_ID => self.acs = bytes.acs(offset),
                ATS_ID => self.ats = bytes.ats(offset),
                PRI_ID => self.pri = bytes.pri(offset),
                PASID_ID => self.pasid = bytes.pasid(offset),
                _ => {}
            }
        }
    }
}

/// Bytes of a configuration space, little-endian.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn word(self, offset: usize) -> Option<u16> {
        let bytes = self.0.get(offset..offset.checked_add(2)?)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn dword(self, offset: usize) -> Option<u32> {
        Some(u32::from(self.word(offset)?) | u32::from(self.word(offset + 2)?) << 16)
    }

    /// The PCI Express capability, from the list that begins at offset 0x34 (PCIe 7.5.1.1.11).
    fn express(self) -> Option<Express> {
        let mut offset = usize::from(*self.0.get(0x34)? & !3);
        // A looping list ends here: no more capabilities fit.
        for _ in 0..CONVENTIONAL_BYTES / 4 {
            if offset < HEADER_BYTES {
                return None;
            }
            let header = self.word(offset)?;
            if (header & 0xff) as u8 == EXPRESS_ID {
                return self.express_at(offset);
            }
            offset = usize::from(header >> 8) & !3;
        }
        None
    }

    fn express_at(self, offset: usize) -> Option<Express> {
        let capabilities = self.word(offset + 2)?;
        // Device Capabilities 2 came with version 2.
        let prefixes = if capabilities & 0xf >= 2 {
            let capabilities2 = self.dword(offset + 0x24)?;
            let supported = capabilities2 & 1 << 21 != 0;
            supported.then_some(match (capabilities2 >> 22 & 3) as u8 {
                0 => 4,
                count => count,
            })
        } else {
            None
        };
        Some(Express {
            port: Port::from_bits((capabilities >> 4 & 0xf) as u8),
            end_to_end_prefixes: prefixes,
        })
    }

    /// ID and offset of each extended capability (PCIe 7.6.3).
    fn extended_capabilities(self) -> Vec<(u16, usize)> {
        let mut found = Vec::new();
        let mut offset = FIRST_EXTENDED;
        // A looping list ends here: no two capabilities share their four header bytes.
        for _ in 0..(CONFIG_BYTES - FIRST_EXTENDED) / 4 {
            let header = match self.dword(offset) {
                None | Some(0 | u32::MAX) => break,
                Some(header) => header,
            };
            found.push(((header & 0xffff) as u16, offset));
            offset = (header >> 20) as usize & !3;
            if offset < FIRST_EXTENDED {
                break;
            }
        }
        found
    }

    fn acs(self, offset: usize) -> Option<Acs> {
        Some(Acs {
            capability: self.word(offset + 4)?,
            control: self.word(offset + 6)?,
        })
    }

    fn ats(self, offset: usize) -> Option<Ats> {
        let (capability, control) = (self.word(offset + 4)?, self.word(offset + 6)?);
        Some(Ats {
            queue_depth: match (capability & 0x1f) as u8 {
                0 => 32,
                depth => depth,
            },
            page_aligned: capability & 1 << 5 != 0,
            global_invalidate: capability & 1 << 6 != 0,
            stu: 12 + (control & 0x1f) as u8,
            enabled: control & 1 << 15 != 0,
        })
    }

    fn pri(self, offset: usize) -> Option<Pri> {
        let (control, status) = (self.word(offset + 4)?, self.word(offset + 6)?);
        Some(Pri {
            enabled: control & 1 != 0,
            response_failure: status & 1 != 0,
            unexpected_index: status & 1 << 1 != 0,
            response_pasid_required: status & 1 << 15 != 0,
            capacity: self.dword(offset + 8)?,
            allocation: self.dword(offset + 12)?,
        })
    }

    fn pasid(self, offset: usize) -> Option<Pasid> {
        let (capability, control) = (self.word(offset + 4)?, self.word(offset + 6)?);
        Some(Pasid {
            execute: capability & 1 << 1 != 0,
            privileged: capability & 1 << 2 != 0,
            width: (capability >> 8 & 0x1f) as u8,
            enabled: control & 1 != 0,
        })
    }
}

impl Port {
    fn from_bits(bits: u8) -> Self {
        match bits {
            0x0 => Self::Endpoint,
            0x1 => Self::LegacyEndpoint,
            0x4 => Self::RootPort,
            0x5 => Self::Upstream,
            0x6 => Self::Downstream,
            0x7 => Self::ToPci,
            0x8 => Self::FromPci,
            0x9 => Self::Integrated,
            0xa => Self::EventCollector,
            other => Self::Other(other),
        }
    }

    /// Its name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::LegacyEndpoint => "legacy endpoint",
            Self::RootPort => "root port",
            Self::Upstream => "upstream port",
            Self::Downstream => "downstream port",
            Self::ToPci => "PCIe-to-PCI bridge",
            Self::FromPci => "PCI-to-PCIe bridge",
            Self::Integrated => "integrated endpoint",
            Self::EventCollector => "event collector",
            Self::Other(_) => "unknown kind",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes configuration spaces.
    #[derive(Clone)]
    pub struct Dump {
        bytes: Vec<u8>,
        next: usize,
        last: Option<usize>,
    }

    impl Dump {
        /// A PCI Express function of this kind, with End-End TLP prefixes and no extended
        /// capability.
        pub fn new(port: u16) -> Self {
            let mut dump = Dump {
                bytes: vec![0; CONFIG_BYTES],
                next: FIRST_EXTENDED,
                last: None,
            };
            dump.set(0x00, &[0x36, 0x1b, 0x10, 0x00]);
            dump.set(0x04, &[0x06, 0x00, 0x10, 0x00]);
            dump.set(0x08, &[1, 0x02, 0x08, 0x01]);
            dump.set(0x34, &[0x40]);
            // A power management capability comes first, so that the parser must follow the list.
            dump.set(0x40, &[0x01, 0x60, 0x03, 0x00]);
            dump.set(0x60, &[0x10, 0x00]);
            dump.set(0x62, &(2 | port << 4).to_le_bytes());
            dump.set(0x60 + 0x24, &(1u32 << 21 | 2 << 22).to_le_bytes());
            dump
        }

        pub fn set(&mut self, offset: usize, bytes: &[u8]) -> &mut Self {
            self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
            self
        }

        /// Adds an extended capability with these 16-bit words behind its header.
        pub fn extended(mut self, id: u16, words: &[u16]) -> Self {
            let offset = self.next;
            self.set(offset, &(u32::from(id) | 1 << 16).to_le_bytes());
            for (n, word) in words.iter().enumerate() {
                self.set(offset + 4 + 2 * n, &word.to_le_bytes());
            }
            if let Some(last) = self.last {
                let header = Bytes(&self.bytes).dword(last).unwrap();
                let header = header | (offset as u32) << 20;
                self.set(last, &header.to_le_bytes());
            }
            self.last = Some(offset);
            self.next += 0x40;
            self
        }

        pub fn bytes(&self) -> &[u8] {
            &self.bytes
        }

        pub fn parse(&self) -> Function {
            Function::parse(&self.bytes).unwrap()
        }
    }

    pub const ENDPOINT: u16 = 0;
    pub const ROOT_PORT: u16 = 4;
    pub const UPSTREAM: u16 = 5;
    pub const DOWNSTREAM: u16 = 6;
    pub const INTEGRATED: u16 = 9;

    /// A device that has all that shared virtual addressing needs.
    pub fn accelerator(port: u16) -> Dump {
        Dump::new(port)
            .extended(0x0001, &[0; 4])
            .extended(PASID_ID, &[20 << 8 | 1 << 1, 1])
            .extended(PRI_ID, &[1, 1 << 15, 64, 0, 32, 0])
            .extended(ATS_ID, &[1 << 5 | 8, 1 << 15])
    }

    #[test]
    fn the_header_says_who_it_is() {
        let function = Dump::new(ENDPOINT).parse();
        assert_eq!((function.vendor, function.device), (0x1b36, 0x0010));
        assert_eq!(function.class, 0x01_0802);
        assert!(function.bus_master && !function.multifunction && !function.bridge);
        let multi = Dump::new(ENDPOINT).set(0x0e, &[0x81]).parse();
        assert!(multi.multifunction && multi.bridge);
    }

    #[test]
    fn capabilities_are_found_wherever_they_stand() {
        let function = accelerator(ENDPOINT).parse();
        assert_eq!(
            function.pasid,
            Some(Pasid {
                width: 20,
                execute: true,
                privileged: false,
                enabled: true
            })
        );
        assert_eq!(
            function.pri,
            Some(Pri {
                response_pasid_required: true,
                enabled: true,
                response_failure: false,
                unexpected_index: false,
                capacity: 64,
                allocation: 32
            })
        );
        assert_eq!(
            function.ats,
            Some(Ats {
                queue_depth: 8,
                page_aligned: true,
                global_invalidate: false,
                stu: 12,
                enabled: true
            })
        );
        assert_eq!(function.acs, None);
    }

    #[test]
    fn zeros_stand_for_the_largest_numbers() {
        let function = Dump::new(ENDPOINT).extended(ATS_ID, &[0, 0]).parse();
        assert_eq!(function.ats.unwrap().queue_depth, 32);
        let prefixes = |capabilities2: u32| {
            let mut dump = Dump::new(ENDPOINT);
            dump.set(0x84, &capabilities2.to_le_bytes());
            dump.parse().express.unwrap().end_to_end_prefixes
        };
        assert_eq!(prefixes(1 << 21), Some(4));
        assert_eq!(prefixes(1 << 21 | 1 << 22), Some(1));
        // A number without the bit that makes it valid.
        assert_eq!(prefixes(1 << 22), None);
    }

    #[test]
    fn an_old_express_capability_has_no_prefixes() {
        let mut dump = Dump::new(ROOT_PORT);
        dump.set(0x62, &(1u16 | ROOT_PORT << 4).to_le_bytes());
        let express = dump.parse().express.unwrap();
        assert_eq!(express.port, Port::RootPort);
        assert_eq!(express.end_to_end_prefixes, None);
    }

    #[test]
    fn acs_lacks_what_is_implemented_and_off() {
        let acs = Dump::new(ROOT_PORT)
            .extended(ACS_ID, &[0b1_1101, 0b0_0001])
            .parse()
            .acs
            .unwrap();
        let wanted = Acs::REQUEST_REDIRECT | Acs::UPSTREAM_FORWARDING;
        assert_eq!(acs.lacking(wanted), wanted);
        let hard_wired = Acs {
            capability: 0,
            control: 0,
        };
        assert_eq!(hard_wired.lacking(wanted), 0);
    }

    #[test]
    fn lists_that_loop_end() {
        let mut dump = Dump::new(ENDPOINT).extended(ATS_ID, &[0, 0]);
        let header = u32::from(ATS_ID) | 1 << 16 | (FIRST_EXTENDED as u32) << 20;
        dump.set(FIRST_EXTENDED, &header.to_le_bytes());
        dump.set(0x40, &[0x01, 0x40]);
        let function = dump.parse();
        assert!(function.ats.is_some());
        assert_eq!(function.express, None);
    }

    #[test]
    fn what_is_cut_off_is_not_known() {
        let dump = accelerator(ENDPOINT);
        let header = Function::parse(&dump.bytes()[..64]).unwrap();
        assert_eq!((header.express, header.depth), (None, Depth::Header));
        let conventional = Function::parse(&dump.bytes()[..256]).unwrap();
        assert!(conventional.express.is_some());
        assert_eq!(conventional.depth, Depth::Conventional);
        assert_eq!(conventional.ats, None);
        assert_eq!(
            Function::parse(&[0; 10]),
            Err(ParseError::Short { length: 10 })
        );
        assert_eq!(Function::parse(&[0xff; 256]), Err(ParseError::Absent));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Sets each byte in turn to each of a few values, in a space with all capabilities.
        let dump = accelerator(INTEGRATED);
        for offset in (0..0x90).chain(0x100..0x210) {
            for value in [0x00, 0x0f, 0x34, 0xf0, 0xfc, 0xff] {
                let mut bytes = dump.bytes().to_vec();
                bytes[offset] = value;
                let _ = Function::parse(&bytes);
            }
        }
    }
}
