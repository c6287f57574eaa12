// SPDX-License-Identifier: GPL-2.0-or-later
//! The machine from below: memory, configuration space and BARs, as firmware would use them.

use std::collections::BTreeMap;

use svm_abi::ids;

use crate::client::{Installation, Qemu, setting};
use crate::vtd::Vtd;

/// The vIOMMU that the device needs.
pub const IOMMU: &str =
    "intel-iommu,scalable-mode=on,fsts=on,svm=on,device-iotlb=on,pasid-bits=20,intremap=off";

/// The vIOMMU of most tests: that one, or that of `SVM_QTEST_IOMMU`.
fn iommu() -> String {
    setting("SVM_QTEST_IOMMU").unwrap_or_else(|| IOMMU.to_owned())
}

/// Whether the vIOMMU of most tests is this project's unit. It waits for functions to complete
/// invalidations, and has none of the shortcomings of QEMU's.
pub fn is_svm_vtd() -> bool {
    iommu().starts_with("svm-vtd")
}

/// Configuration space of bus 0 begins here after [`Machine::new`].
const ECAM: u64 = 0xb000_0000;
/// First page that [`Machine::page`] gives.
const PAGES: u64 = 0x1000_0000;
/// Offset of the command register.
const COMMAND: u16 = 0x04;

/// A function by bus and device number (function 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub bus: u8,
    pub slot: u8,
}

impl Address {
    /// Requester id.
    pub fn sid(self) -> u64 {
        u64::from(self.bus) << 8 | u64::from(self.slot) << 3
    }
}

/// Where the device is in the machines of most tests.
pub const DEVICE: Address = Address { bus: 0, slot: 4 };

/// A machine.
pub struct Machine {
    pub qemu: Qemu,
    next_page: u64,
    next_bar: u64,
    /// The VT-d unit, when it is on.
    pub vtd: Option<Vtd>,
}

impl Machine {
    /// A machine with one device at [`DEVICE`], with these properties, or None if QEMU is not
    /// given.
    pub fn with(properties: &str) -> Option<Machine> {
        let installation = Installation::find()?;
        Some(Machine::new(
            &installation,
            &["-device", &format!("svm-demo,addr=4.0{properties}")],
        ))
    }

    /// A machine with a vIOMMU and more.
    pub fn new(installation: &Installation, arguments: &[&str]) -> Machine {
        Machine::from(Qemu::start(
            installation,
            &[&["-device", &iommu()], arguments].concat(),
        ))
    }

    /// The machine of a QEMU.
    pub fn from(mut qemu: Qemu) -> Machine {
        // PCIEXBAR of the host bridge: enabled, 256 MiB.
        qemu.outl(0xcf8, 0x8000_0060);
        qemu.outl(0xcfc, ECAM as u32 | 1);
        Machine {
            qemu,
            next_page: PAGES,
            next_bar: 0xe000_0000,
            vtd: None,
        }
    }

    /// A page of memory, zeroed.
    pub fn page(&mut self) -> u64 {
        self.pages(1)
    }

    /// Pages of memory, one behind the other, zeroed.
    pub fn pages(&mut self, number: u64) -> u64 {
        let first = self.next_page;
        self.next_page += number * 0x1000;
        first
    }

    /// Address of a configuration register.
    fn config(&self, at: Address, offset: u16) -> u64 {
        ECAM + (u64::from(at.bus) << 20) + (u64::from(at.slot) << 15) + u64::from(offset)
    }

    /// Reads a configuration double word.
    pub fn config_read(&mut self, at: Address, offset: u16) -> u32 {
        let address = self.config(at, offset);
        self.qemu.readl(address)
    }

    /// Writes a configuration double word.
    pub fn config_write(&mut self, at: Address, offset: u16, value: u32) {
        let address = self.config(at, offset);
        self.qemu.writel(address, value);
    }

    /// Writes a configuration byte.
    pub fn config_write8(&mut self, at: Address, offset: u16, value: u8) {
        let address = self.config(at, offset);
        self.qemu.writeb(address, value);
    }

    /// Writes a configuration word.
    pub fn config_write16(&mut self, at: Address, offset: u16, value: u16) {
        let address = self.config(at, offset);
        self.qemu.writew(address, value);
    }

    /// Offset of a capability below 0x100.
    pub fn capability(&mut self, at: Address, id: u8) -> u16 {
        let mut offset = self.config_read(at, 0x34) as u8;
        while offset != 0 {
            let header = self.config_read(at, offset.into());
            if header as u8 == id {
                return offset.into();
            }
            offset = (header >> 8) as u8;
        }
        panic!("no capability {id:#x} at {at:?}");
    }

    /// Offsets of the extended capabilities by id.
    pub fn extended_capabilities(&mut self, at: Address) -> BTreeMap<u16, u16> {
        let mut found = BTreeMap::new();
        let mut offset = 0x100;
        while offset != 0 {
            let header = self.config_read(at, offset);
            found.insert(header as u16, offset);
            offset = (header >> 20) as u16;
        }
        found
    }

    fn take_bars(&mut self) -> Bars {
        let base = self.next_bar;
        self.next_bar += 0x30_0000;
        Bars {
            registers: base,
            doorbells: base + 0x10_0000,
            msix: base + 0x20_0000,
        }
    }

    /// Opens a root port to bus 1 and to the addresses of BARs.
    pub fn open_root_port(&mut self, at: Address) {
        self.number_bus(at, 1);
        self.config_write(at, 0x20, 0xefff_e000);
        self.config_write16(at, COMMAND, 0x6);
    }

    /// Gives the bus below a root port its number.
    pub fn number_bus(&mut self, at: Address, number: u8) {
        let number = u32::from(number);
        self.config_write(at, 0x18, number << 16 | number << 8);
    }

    /// Gives the device its BARs and enables memory and bus mastering.
    pub fn enable_bars(&mut self, at: Address) -> Bars {
        let bars = self.take_bars();
        for (bar, address) in [
            (ids::REGISTERS_BAR, bars.registers),
            (ids::DOORBELLS_BAR, bars.doorbells),
            (ids::MSIX_BAR, bars.msix),
        ] {
            self.config_write(at, 0x10 + 4 * u16::from(bar), address as u32);
        }
        self.config_write16(at, COMMAND, 0x6);
        bars
    }

    /// Enables PASID, page requests and ATS, in the order that the specification demands.
    pub fn enable_ats(&mut self, at: Address) {
        use svm_endpoint::config_space::{ATS, PASID, PRI};
        // With execution and privileged mode, if the device offers them.
        self.config_write16(at, PASID + 6, 7);
        self.config_write(at, PRI + 12, 32);
        self.config_write16(at, PRI + 4, 1);
        self.config_write16(at, ATS + 6, 1 << 15);
    }

    /// Function level reset.
    pub fn reset_function(&mut self, at: Address) {
        let express = self.capability(at, 0x10);
        self.config_write16(at, express + 8, 1 << 15);
    }
}

/// Addresses of the BARs.
#[derive(Clone, Copy, Debug)]
pub struct Bars {
    pub registers: u64,
    pub doorbells: u64,
    pub msix: u64,
}
