// SPDX-License-Identifier: MIT OR Apache-2.0
//! The capability registers (sections 11.4.2 and 11.4.3).

use super::{bit, field};

/// CAP_REG: Capability Register (section 11.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability(pub u64);

impl Capability {
    /// Number of bits of a domain id, from ND: 4 + 2 * ND.
    pub const fn domain_id_width(self) -> u32 {
        4 + 2 * field(self.0, 2, 0) as u32
    }

    /// PLMR: Protected Low-Memory Region.
    pub const fn plmr(self) -> bool {
        bit(self.0, 5)
    }

    /// PHMR: Protected High-Memory Region.
    pub const fn phmr(self) -> bool {
        bit(self.0, 6)
    }

    /// CM: Caching Mode.
    pub const fn cm(self) -> bool {
        bit(self.0, 7)
    }

    /// SAGAW: Supported Adjusted Guest Address Widths. Bit 1 is 39 bits, 2 is 48, 3 is 57.
    pub const fn sagaw(self) -> u8 {
        field(self.0, 12, 8) as u8
    }

    /// MGAW: Maximum Guest Address Width, in bits.
    pub const fn mgaw(self) -> u8 {
        field(self.0, 21, 16) as u8 + 1
    }

    /// ZLR: Zero Length Read to write-only pages.
    pub const fn zlr(self) -> bool {
        bit(self.0, 22)
    }

    /// FRO: offset of the first fault recording register in bytes.
    pub const fn fault_recording_offset(self) -> u16 {
        field(self.0, 33, 24) as u16 * 16
    }

    /// SSLPS: Second Stage Large Page Support. Bit 0 is 2 MiB, bit 1 is 1 GiB.
    pub const fn sslps(self) -> u8 {
        field(self.0, 37, 34) as u8
    }

    /// PSI: Page Selective Invalidation.
    pub const fn psi(self) -> bool {
        bit(self.0, 39)
    }

    /// NFR: how many fault recording registers there are.
    pub const fn fault_recording_registers(self) -> u16 {
        field(self.0, 47, 40) as u16 + 1
    }

    /// MAMV: Maximum Address Mask Value.
    pub const fn mamv(self) -> u8 {
        field(self.0, 53, 48) as u8
    }

    /// DWD: Write Draining.
    pub const fn dwd(self) -> bool {
        bit(self.0, 54)
    }

    /// DRD: Read Draining.
    pub const fn drd(self) -> bool {
        bit(self.0, 55)
    }

    /// FS1GP: First Stage 1-GByte Page Support.
    pub const fn fs1gp(self) -> bool {
        bit(self.0, 56)
    }

    /// PI: Posted Interrupts Support.
    pub const fn pi(self) -> bool {
        bit(self.0, 59)
    }

    /// FS5LP: First Stage 5-level Paging Support.
    pub const fn fs5lp(self) -> bool {
        bit(self.0, 60)
    }

    /// ESIRTPS: Enhanced Set Interrupt Remap Table Pointer Support.
    pub const fn esirtps(self) -> bool {
        bit(self.0, 62)
    }

    /// ESRTPS: Enhanced Set Root Table Pointer Support.
    pub const fn esrtps(self) -> bool {
        bit(self.0, 63)
    }
}

/// ECAP_REG: Extended Capability Register (section 11.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability(pub u64);

/// Declares the one-bit fields of the extended capability register.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl ExtendedCapability {
            $($(#[$doc])* pub const fn $name(self) -> bool { bit(self.0, $bit) })*
        }
    };
}

flags! {
    /// C: Page-walk Coherency.
    c = 0;
    /// QI: Queued Invalidation support.
    qi = 1;
    /// DT: Device-TLB support.
    dt = 2;
    /// IR: Interrupt Remapping support.
    ir = 3;
    /// EIM: Extended Interrupt Mode.
    eim = 4;
    /// PT: Pass Through.
    pt = 6;
    /// SC: Snoop Control.
    sc = 7;
    /// NEST: Nested Translation Support.
    nest = 26;
    /// PRS: Page Request Support.
    prs = 29;
    /// ERS: Execute Request Support (revision 3.4).
    ers = 30;
    /// SRS: Supervisor Request Support.
    srs = 31;
    /// NWFS: No Write Flag Support.
    nwfs = 33;
    /// EAFS: Extended Accessed Flag Support.
    eafs = 34;
    /// PASID: Process Address Space ID Support.
    pasid = 40;
    /// DIT: Device-TLB Invalidation Throttle.
    dit = 41;
    /// PDS: Page-request Drain Support.
    pds = 42;
    /// SMTS: Scalable Mode Translation Support.
    smts = 43;
    /// SSADS: Second-Stage Accessed/Dirty Support.
    ssads = 45;
    /// SSTS: Second-stage Translation Support.
    ssts = 46;
    /// FSTS: First-stage Translation Support.
    fsts = 47;
    /// SMPWCS: Scalable-Mode Page-walk Coherency Support.
    smpwcs = 48;
    /// RPS: RID-PASID Support.
    rps = 49;
    /// ADMS: Abort DMA Mode Support.
    adms = 52;
    /// RPRIVS: RID_PRIV Support.
    rprivs = 53;
    /// SMS: Stop Marker Support.
    sms = 58;
}

impl ExtendedCapability {
    /// IRO: offset of the IOTLB registers in bytes.
    pub const fn iotlb_offset(self) -> u16 {
        field(self.0, 17, 8) as u16 * 16
    }

    /// MHMV: Maximum Handle Mask Value.
    pub const fn mhmv(self) -> u8 {
        field(self.0, 23, 20) as u8
    }

    /// PSS: number of bits of a PASID; 0 without scalable mode.
    pub const fn pasid_width(self) -> u8 {
        if self.pasid() {
            field(self.0, 39, 35) as u8 + 1
        } else {
            0
        }
    }
}
