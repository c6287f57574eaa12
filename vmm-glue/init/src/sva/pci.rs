// SPDX-License-Identifier: MIT OR Apache-2.0
//! The three extended capabilities of a PCI Express function that shared virtual addressing
//! needs, read from its configuration space.

/// Extended capability ID of ATS (PCIe 10.5.1.1).
const ATS_ID: u16 = 0x000f;
/// Extended capability ID of the Page Request Interface (PCIe 10.5.2.1).
const PRI_ID: u16 = 0x0013;
/// Extended capability ID of PASID (PCIe 7.8.9.1).
const PASID_ID: u16 = 0x001b;

/// Offset of the first extended capability (PCIe 7.6.2).
const FIRST_EXTENDED: usize = 0x100;
/// Size of the configuration space of a function, in bytes.
const CONFIG_BYTES: usize = 0x1000;

/// A function and its capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciDevice {
    /// Domain, bus, device and function, as Linux writes them.
    pub address: String,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Address Translation Services, where it has them.
    pub ats: Option<Ats>,
    /// Page Request Interface, where it has it.
    pub pri: Option<Pri>,
    /// PASID, where it has it.
    pub pasid: Option<Pasid>,
}

/// ATS capability (PCIe 10.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ats {
    /// Page Aligned Request: untranslated addresses in requests are aligned to 4096 bytes.
    pub page_aligned: bool,
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
}

/// PASID capability (PCIe 7.8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pasid {
    /// Max PASID Width, in bits.
    pub width: u8,
    /// PASID Enable.
    pub enabled: bool,
}

impl PciDevice {
    /// Reads a function from its configuration space. `None` where `config` is too short to hold
    /// extended capabilities: conventional PCI, or not read by root.
    pub fn parse(address: &str, config: &[u8]) -> Option<Self> {
        if config.len() < CONFIG_BYTES {
            return None;
        }
        let mut device = Self {
            address: address.to_owned(),
            vendor: word(config, 0)?,
            device: word(config, 2)?,
            ats: None,
            pri: None,
            pasid: None,
        };
        let mut offset = FIRST_EXTENDED;
        // A list that loops ends here: no two capabilities share their four header bytes.
        for _ in 0..(CONFIG_BYTES - FIRST_EXTENDED) / 4 {
            let header =
                u32::from(word(config, offset)?) | u32::from(word(config, offset + 2)?) << 16;
            if header == 0 || header == u32::MAX {
                break;
            }
            match (header & 0xffff) as u16 {
                ATS_ID => {
                    device.ats = Some(Ats {
                        page_aligned: word(config, offset + 4)? & 1 << 5 != 0,
                        enabled: word(config, offset + 6)? & 1 << 15 != 0,
                    });
                }
                PRI_ID => {
                    device.pri = Some(Pri {
                        enabled: word(config, offset + 4)? & 1 != 0,
                        response_pasid_required: word(config, offset + 6)? & 1 << 15 != 0,
                    });
                }
                PASID_ID => {
                    device.pasid = Some(Pasid {
                        width: (word(config, offset + 4)? >> 8 & 0x1f) as u8,
                        enabled: word(config, offset + 6)? & 1 != 0,
                    });
                }
                _ => {}
            }
            offset = (header >> 20) as usize & !3;
            if offset < FIRST_EXTENDED {
                break;
            }
        }
        Some(device)
    }
}

fn word(config: &[u8], offset: usize) -> Option<u16> {
    let bytes = config.get(offset..offset + 2)?;
    Some(u16::from_le_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A configuration space with the given capabilities: ID, and the six bytes after the header.
    pub fn config(capabilities: &[(u16, u16, u16)]) -> Vec<u8> {
        let mut config = vec![0; CONFIG_BYTES];
        config[..4].copy_from_slice(&[0x36, 0x1b, 0x10, 0x00]);
        for (index, &(id, first, second)) in capabilities.iter().enumerate() {
            let offset = FIRST_EXTENDED + index * 0x10;
            let next = if index + 1 == capabilities.len() {
                0
            } else {
                offset + 0x10
            };
            let header = u32::from(id) | 1 << 16 | (next as u32) << 20;
            config[offset..offset + 4].copy_from_slice(&header.to_le_bytes());
            config[offset + 4..offset + 6].copy_from_slice(&first.to_le_bytes());
            config[offset + 6..offset + 8].copy_from_slice(&second.to_le_bytes());
        }
        config
    }

    #[test]
    fn capabilities_are_found_wherever_they_stand() {
        let config = config(&[
            (0x0001, 0, 0),
            (PASID_ID, 20 << 8, 1),
            (PRI_ID, 1, 1 << 15),
            (ATS_ID, 1 << 5, 0),
        ]);
        let device = PciDevice::parse("0000:00:03.0", &config).unwrap();
        assert_eq!(
            device.pasid,
            Some(Pasid {
                width: 20,
                enabled: true
            })
        );
        assert_eq!(
            device.pri,
            Some(Pri {
                response_pasid_required: true,
                enabled: true
            })
        );
        assert_eq!(
            device.ats,
            Some(Ats {
                page_aligned: true,
                enabled: false
            })
        );
    }

    #[test]
    fn a_list_that_loops_ends() {
        let mut config = config(&[(ATS_ID, 0, 0)]);
        let header = u32::from(ATS_ID) | 1 << 16 | (FIRST_EXTENDED as u32) << 20;
        config[FIRST_EXTENDED..FIRST_EXTENDED + 4].copy_from_slice(&header.to_le_bytes());
        assert!(PciDevice::parse("x", &config).unwrap().ats.is_some());
    }

    #[test]
    fn a_short_configuration_space_has_no_extended_capabilities() {
        assert_eq!(PciDevice::parse("x", &[0; 64]), None);
    }
}
