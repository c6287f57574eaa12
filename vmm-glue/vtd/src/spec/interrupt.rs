// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt requests (section 5.1.2), interrupt remapping table entries (sections 9.9 and 9.10)
//! and the posted interrupt descriptor (section 9.11).

use super::layout::layout;
use super::{SourceId, above, bit, field, mask};

/// First address of the interrupt address range, FEEx_xxxxh (section 3.15).
pub const RANGE_BASE: u64 = 0xfee0_0000;
/// Last address of the interrupt address range.
pub const RANGE_LAST: u64 = 0xfeef_ffff;

/// Whether an address lies in the interrupt address range.
pub const fn in_range(address: u64) -> bool {
    address >= RANGE_BASE && address <= RANGE_LAST
}

/// An interrupt message: a write of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Address of the write.
    pub address: u64,
    /// Data of the write.
    pub data: u32,
}

/// An interrupt request in remappable format (section 5.1.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemappableRequest(pub Message);

impl RemappableRequest {
    /// The Interrupt Format field of an address: set for the remappable format.
    pub const fn is_remappable(address: u64) -> bool {
        bit(address, 4)
    }

    /// SHV: Subhandle Valid.
    pub const fn shv(&self) -> bool {
        bit(self.0.address, 3)
    }

    /// Handle, 16 bits.
    pub const fn handle(&self) -> u16 {
        (field(self.0.address, 19, 5) | (bit(self.0.address, 2) as u64) << 15) as u16
    }

    /// The interrupt_index (section 5.1.3).
    pub const fn index(&self) -> u32 {
        let subhandle = if self.shv() { self.0.data & 0xffff } else { 0 };
        self.handle() as u32 + subhandle
    }

    /// The reserved bits of the data that are set; they are ignored without SHV.
    pub const fn reserved(&self) -> u32 {
        if self.shv() {
            self.0.data & 0xffff_0000
        } else {
            0
        }
    }
}

/// SVT and SQ: how the requester is verified (section 9.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceValidation {
    /// 00b: not at all.
    None,
    /// 01b: by SID, less the bits that SQ masks.
    Requester {
        /// The bits of the source-id that count.
        mask: u16,
    },
    /// 10b: the bus number lies between the upper and the lower byte of SID.
    Bus,
    /// 11b: reserved.
    Reserved,
}

layout! {
    /// An interrupt remapping table entry of a remapped interrupt (section 9.9): 128 bits. One with
    /// IM set is a [`PostedIrte`].
    pub struct Irte([u64; 2]) {
        /// P: Present.
        p, with_p: bool = 0[0];
        /// FPD: Fault Processing Disable; evaluated also when the entry is not present.
        fpd, with_fpd: bool = 0[1];
        /// DM: Destination Mode, set for logical.
        dm, with_dm: bool = 0[2];
        /// RH: Redirection Hint.
        rh, with_rh: bool = 0[3];
        /// TM: Trigger Mode, set for level.
        tm, with_tm: bool = 0[4];
        /// DLM: Delivery Mode.
        dlm, with_dlm: u8 = 0[7:5];
        /// AVAIL: for software.
        avail, with_avail: u8 = 0[11:8];
        /// IM: IRTE Mode, set for posted interrupts.
        im, with_im: bool = 0[15];
        /// V: vector.
        vector, with_vector: u8 = 0[23:16];
        /// DST: Destination ID.
        dst, with_dst: u32 = 0[63:32];
        /// SID: Source Identifier.
        sid, with_sid: u16 = 1[15:0];
        /// SQ: Source-id Qualifier.
        sq, with_sq: u8 = 1[17:16];
        /// The bits of SVT: Source Validation Type.
        svt_bits, with_svt_bits: u8 = 1[19:18];
    }
}

layout! {
    /// An interrupt remapping table entry of a posted interrupt (section 9.10): 128 bits.
    pub struct PostedIrte([u64; 2]) {
        /// P: Present.
        p, with_p: bool = 0[0];
        /// FPD: Fault Processing Disable.
        fpd, with_fpd: bool = 0[1];
        /// AVAIL: for software.
        avail, with_avail: u8 = 0[11:8];
        /// URG: the posted interrupt is urgent.
        urg, with_urg: bool = 0[14];
        /// IM: IRTE Mode, set for posted interrupts.
        im, with_im: bool = 0[15];
        /// VV: virtual vector.
        vv, with_vv: u8 = 0[23:16];
        /// PDAL: Posted Descriptor Address, bits 31:6.
        pdal, with_pdal: u32 = 0[63:38];
        /// SID: Source Identifier.
        sid, with_sid: u16 = 1[15:0];
        /// SQ: Source-id Qualifier.
        sq, with_sq: u8 = 1[17:16];
        /// The bits of SVT: Source Validation Type.
        svt_bits, with_svt_bits: u8 = 1[19:18];
        /// PDAH: Posted Descriptor Address, bits 63:32.
        pdah, with_pdah: u32 = 1[63:32];
    }
}

impl Irte {
    /// The entry as that of a posted interrupt.
    pub const fn posted(&self) -> PostedIrte {
        PostedIrte(self.0)
    }

    /// URG of a posted interrupt.
    pub const fn urg(&self) -> bool {
        self.posted().urg()
    }

    /// PDAH and PDAL of a posted interrupt: Posted Descriptor Address.
    pub const fn posted_descriptor(&self) -> u64 {
        let posted = self.posted();
        (posted.pdah() as u64) << 32 | (posted.pdal() as u64) << 6
    }

    /// SVT with SQ.
    pub const fn svt(&self) -> SourceValidation {
        match self.svt_bits() {
            0 => SourceValidation::None,
            1 => SourceValidation::Requester {
                mask: match self.sq() {
                    0 => !0,
                    1 => !4,
                    2 => !6,
                    _ => !7,
                },
            },
            2 => SourceValidation::Bus,
            _ => SourceValidation::Reserved,
        }
    }

    /// Whether the requester may use the entry.
    pub const fn allows(&self, requester: SourceId) -> bool {
        match self.svt() {
            SourceValidation::None => true,
            SourceValidation::Requester { mask } => requester.0 & mask == self.sid() & mask,
            SourceValidation::Bus => {
                let bus = requester.bus();
                bus >= (self.sid() >> 8) as u8 && bus <= self.sid() as u8
            }
            SourceValidation::Reserved => false,
        }
    }

    /// The reserved bits that are set, by word. `eime` is Extended Interrupt Mode Enable, `pi`
    /// says whether posted interrupts are supported.
    pub const fn reserved(&self, host_address_width: u8, eime: bool, pi: bool) -> [u64; 2] {
        let svt = if matches!(self.svt(), SourceValidation::Reserved) {
            mask(19, 18)
        } else {
            0
        };
        if self.im() && pi {
            // A host address above 32 bits has its upper part in bits 127:96.
            let high = above(host_address_width) & mask(63, 32);
            return [
                self.0[0] & !PostedIrte::FIELDS[0],
                self.0[1] & (!PostedIrte::FIELDS[1] | svt | high),
            ];
        }
        let dst = if eime { 0 } else { mask(63, 48) | mask(39, 32) };
        // Two delivery modes are reserved: their bits are none that the entry may have.
        let dlm = if matches!(self.dlm(), 0b011 | 0b110) {
            mask(7, 5)
        } else {
            0
        };
        [
            self.0[0] & (!Self::FIELDS[0] | Self::ZERO.with_im(true).0[0] | dst | dlm),
            self.0[1] & (!Self::FIELDS[1] | svt),
        ]
    }

    /// The message of a remapped interrupt.
    pub const fn message(&self, eime: bool) -> Message {
        let destination = if eime {
            self.dst()
        } else {
            self.dst() >> 8 & 0xff
        };
        let mut message = message(destination, self.vector(), self.dm(), self.rh());
        message.data |= (self.dlm() as u32) << 8 | (self.tm() as u32) << 15;
        message
    }
}

/// An edge-triggered fixed interrupt message to an APIC id (sections 5.1.2.1 and 5.1.6): its
/// upper 24 bits are in address bits 63:40.
pub const fn message(destination: u32, vector: u8, logical: bool, redirection: bool) -> Message {
    Message {
        address: RANGE_BASE
            | (destination as u64 & 0xff) << 12
            | (destination as u64 >> 8) << 40
            | (redirection as u64) << 3
            | (logical as u64) << 2,
        // Trigger Mode Level is always asserted.
        data: vector as u32 | 1 << 14,
    }
}

layout! {
    /// The control word of a posted interrupt descriptor (section 9.11): bits 319:256.
    pub struct PostedControl(u64) {
        /// ON: Outstanding Notification.
        on, with_on: bool = 0[0];
        /// SN: Suppress Notification.
        sn, with_sn: bool = 0[1];
        /// NV: Notification Vector.
        nv, with_nv: u8 = 0[23:16];
        /// The bits of NDST: Notification Destination.
        ndst_bits, with_ndst_bits: u32 = 0[63:32];
    }
}

impl PostedControl {
    /// Offset of the control word in the descriptor.
    pub const OFFSET: u64 = 32;

    /// NDST: Notification Destination, an APIC id.
    pub const fn ndst(&self, eime: bool) -> u32 {
        let raw = self.ndst_bits();
        if eime { raw } else { raw >> 8 & 0xff }
    }

    /// The reserved bits that are set.
    pub const fn reserved(&self, eime: bool) -> u64 {
        let dst = if eime { 0 } else { mask(63, 48) | mask(39, 32) };
        self.0 & (!Self::FIELDS[0] | dst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_made_of_handle_and_subhandle() {
        let request = |address, data| RemappableRequest(Message { address, data });
        assert_eq!(request(0xfee0_0010 | 0x7fff << 5 | 4, 5).index(), 0xffff);
        assert_eq!(request(0xfee0_0018 | 3 << 5, 5).index(), 8);
        assert_eq!(request(0xfee0_0018, 0x1_0000).reserved(), 0x1_0000);
        assert_eq!(request(0xfee0_0010, 0x1_0000).reserved(), 0);
    }

    #[test]
    fn the_requester_is_verified_as_svt_and_sq_say() {
        let irte = |svt: u64, sq: u64, sid: u64| Irte([1, sid | sq << 16 | svt << 18]);
        assert!(irte(0, 0, 5).allows(SourceId(9)));
        assert!(irte(1, 0, 0x105).allows(SourceId(0x105)));
        assert!(!irte(1, 0, 0x105).allows(SourceId(0x101)));
        assert!(irte(1, 1, 0x105).allows(SourceId(0x101)));
        assert!(irte(1, 2, 0x107).allows(SourceId(0x101)));
        assert!(!irte(1, 2, 0x107).allows(SourceId(0x100)));
        assert!(irte(1, 3, 0x107).allows(SourceId(0x100)));
        assert!(!irte(1, 3, 0x107).allows(SourceId(0x108)));
        for (bus, allowed) in [(1, false), (2, true), (3, true), (4, true), (5, false)] {
            assert_eq!(irte(2, 0, 0x204).allows(SourceId(bus << 8)), allowed);
        }
        assert!(!irte(3, 0, 0).allows(SourceId(0)));
    }

    #[test]
    fn the_message_has_the_destination_of_the_mode() {
        let irte = Irte([
            0x1234_5600u64 << 32 | 0x41 << 16 | 1 << 5 | 1 << 4 | 1 << 2,
            0,
        ]);
        assert_eq!(irte.message(true).address, 0x1234_5600_fee0_0004);
        assert_eq!(irte.message(true).data, 0xc141);
        let irte = Irte([0x0000_5600u64 << 32 | 0x41 << 16, 0]);
        assert_eq!(irte.message(false).address, 0xfee5_6000);
    }

    #[test]
    fn reserved_bits_depend_on_the_mode() {
        let bits = |low, high, eime, pi| Irte([low, high]).reserved(46, eime, pi);
        assert_eq!(bits(0xffff_ffff_00ff_0fff, 0, true, true), [0, 0]);
        for mode in 0..8 {
            let reserved = bits(mode << 5, 0, true, true)[0] != 0;
            assert_eq!(reserved, mode == 3 || mode == 6, "delivery mode {mode}");
        }
        assert_ne!(bits(1 << 32, 0, false, true)[0], 0);
        assert_eq!(bits(1 << 40, 0, false, true)[0], 0);
        assert_ne!(bits(1 << 24, 0, true, true)[0], 0);
        assert_ne!(bits(1 << 12, 0, true, true)[0], 0);
        assert_ne!(bits(0, 1 << 20, true, true)[1], 0);
        assert_ne!(bits(0, 3 << 18, true, true)[1], 0);
        // Posted.
        assert_ne!(bits(1 << 15, 0, true, false)[0], 0);
        assert_eq!(
            bits(1 << 15 | 1 << 14 | 0xff << 16, 1 << 32, true, true),
            [0, 0]
        );
        assert_ne!(bits(1 << 15 | 1 << 2, 0, true, true)[0], 0);
        assert_ne!(bits(1 << 15, 1 << 63, true, true)[1], 0);
    }
}
