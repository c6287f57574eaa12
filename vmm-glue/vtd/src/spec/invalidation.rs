// SPDX-License-Identifier: MIT OR Apache-2.0
//! The descriptors of the invalidation queue, bit by bit (sections 6.5.2 and 7.6.1): the lower 128
//! bits of each, the upper ones of the wide format being reserved. What they mean, and whether they
//! are valid, is told by [`super::descriptor::Descriptor`].

use super::layout::layout;
use super::{SourceId, field};

/// The type of a descriptor: bits 11:9 above bits 3:0 (table 26).
pub const fn kind(w0: u64) -> u8 {
    (field(w0, 11, 9) << 4 | field(w0, 3, 0)) as u8
}

/// Declares descriptors, each with its number (table 26).
macro_rules! descriptors {
    ($(
        $(#[$meta:meta])*
        $number:literal $name:ident { $($fields:tt)* }
    )*) => {
        $(
            layout! {
                $(#[$meta])*
                pub struct $name([u64; 2]) {
                    /// Type, bits 3:0.
                    type_low, with_type_low: u8 = 0[3:0];
                    /// Type, bits 6:4.
                    type_high, with_type_high: u8 = 0[11:9];
                    $($fields)*
                }
            }

            impl $name {
                /// Its type (table 26).
                pub const TYPE: u8 = $number;

                /// One of its type, whose other fields are zero.
                pub const fn new() -> Self {
                    Self::ZERO.with_type_low(Self::TYPE & 15).with_type_high(Self::TYPE >> 4)
                }
            }

            impl Default for $name {
                fn default() -> Self {
                    Self::new()
                }
            }
        )*

        /// The fields of a descriptor, as text.
        #[derive(Clone, Copy)]
        pub struct Fields(pub [u64; 2]);

        impl core::fmt::Debug for Fields {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                match kind(self.0[0]) {
                    $($name::TYPE => $name(self.0).fmt(f),)*
                    0 => f.write_str("no descriptor"),
                    _ => f.write_str("of an unknown type"),
                }
            }
        }
    };
}

descriptors! {
    /// Context-cache invalidate descriptor (cc_inv_dsc, section 6.5.2.1).
    1 ContextCacheInvalidate {
        /// G: granularity. 1 is global, 2 a domain, 3 a device.
        g, with_g: u8 = 0[5:4];
        /// DID: domain.
        did, with_did: DomainId = 0[31:16];
        /// SID: requester.
        sid, with_sid: SourceId = 0[47:32];
        /// FM: function mask (table 21).
        fm, with_fm: u8 = 0[49:48];
    }

    /// IOTLB invalidate descriptor (iotlb_inv_dsc, section 6.5.2.3).
    2 IotlbInvalidate {
        /// G: granularity. 1 is global, 2 a domain, 3 pages of a domain.
        g, with_g: u8 = 0[5:4];
        /// DW: drain writes.
        dw, with_dw: bool = 0[6];
        /// DR: drain reads.
        dr, with_dr: bool = 0[7];
        /// DID: domain.
        did, with_did: DomainId = 0[31:16];
        /// AM: log2 of the number of pages.
        am, with_am: u8 = 1[5:0];
        /// IH: only leaf entries have changed.
        ih, with_ih: bool = 1[6];
        /// ADDR: address.
        addr, with_addr: pointer = 1[63:12];
    }

    /// Device-TLB invalidate descriptor (dev_tlb_inv_dsc, section 6.5.2.5).
    3 DeviceTlbInvalidate {
        /// PFSID, bits 3:0.
        pfsid_low, with_pfsid_low: u8 = 0[15:12];
        /// MIP: how many invalidations the function takes at a time; 0 is 32.
        mip, with_mip: u8 = 0[20:16];
        /// SID: function.
        sid, with_sid: SourceId = 0[47:32];
        /// PFSID, bits 15:4.
        pfsid_high, with_pfsid_high: u16 = 0[63:52];
        /// S: size, with the lowest zero of the address.
        s, with_s: bool = 1[0];
        /// ADDR: address.
        addr, with_addr: pointer = 1[63:12];
    }

    /// Interrupt entry cache invalidate descriptor (iec_inv_dsc, section 6.5.2.8).
    4 InterruptEntryCacheInvalidate {
        /// G: granularity: some entries, and not all.
        g, with_g: bool = 0[4];
        /// IM: index mask, log2 of the number of entries.
        im, with_im: u8 = 0[31:27];
        /// IIDX: interrupt index.
        iidx, with_iidx: u16 = 0[47:32];
    }

    /// Invalidation wait descriptor (inv_wait_dsc, section 6.5.2.9).
    5 InvalidationWait {
        /// IF: interrupt flag.
        interrupt, with_interrupt: bool = 0[4];
        /// SW: status write.
        sw, with_sw: bool = 0[5];
        /// FN: fence flag.
        fence, with_fence: bool = 0[6];
        /// PD: page-request drain.
        pd, with_pd: bool = 0[7];
        /// STATUSDATA: what is written.
        status_data, with_status_data: u32 = 0[63:32];
        /// STATUSADDR: where it is written.
        status_addr, with_status_addr: pointer = 1[63:2];
    }

    /// PASID-based IOTLB invalidate descriptor (p_iotlb_inv_dsc, section 6.5.2.4).
    6 PasidIotlbInvalidate {
        /// G: granularity. 2 is a PASID, 3 pages of a PASID.
        g, with_g: u8 = 0[5:4];
        /// DID: domain.
        did, with_did: DomainId = 0[31:16];
        /// PASID.
        pasid, with_pasid: u32 = 0[51:32];
        /// AM: log2 of the number of pages.
        am, with_am: u8 = 1[5:0];
        /// IH: only leaf entries have changed.
        ih, with_ih: bool = 1[6];
        /// ADDR: address.
        addr, with_addr: pointer = 1[63:12];
    }

    /// PASID-cache invalidate descriptor (pc_inv_dsc, section 6.5.2.2).
    7 PasidCacheInvalidate {
        /// G: granularity. 0 is a domain, 1 a PASID, 3 global.
        g, with_g: u8 = 0[5:4];
        /// DID: domain.
        did, with_did: DomainId = 0[31:16];
        /// PASID.
        pasid, with_pasid: u32 = 0[51:32];
    }

    /// PASID-based Device-TLB invalidate descriptor (p_dev_tlb_inv_dsc, section 6.5.2.6).
    8 PasidDeviceTlbInvalidate {
        /// MIP: how many invalidations the function takes at a time; 0 is 32.
        mip, with_mip: u8 = 0[8:4];
        /// PFSID, bits 3:0.
        pfsid_low, with_pfsid_low: u8 = 0[15:12];
        /// SID: function.
        sid, with_sid: SourceId = 0[31:16];
        /// PASID.
        pasid, with_pasid: u32 = 0[51:32];
        /// PFSID, bits 15:4.
        pfsid_high, with_pfsid_high: u16 = 0[63:52];
        /// G: global, all PASIDs.
        g, with_g: bool = 1[0];
        /// S: size, with the lowest zero of the address.
        s, with_s: bool = 1[11];
        /// ADDR: address.
        addr, with_addr: pointer = 1[63:12];
    }

    /// Page group response descriptor (page_grp_resp_dsc, section 7.6.1).
    9 PageGroupResponse {
        /// PP: PASID Present.
        pp, with_pp: bool = 0[4];
        /// Response code.
        code, with_code: u8 = 0[15:12];
        /// RID: function.
        rid, with_rid: SourceId = 0[31:16];
        /// PASID.
        pasid, with_pasid: u32 = 0[51:32];
        /// LPIG: last page in group; ignored, for the sake of older software.
        lpig, with_lpig: bool = 1[2];
        /// PRGI: page request group index.
        prgi, with_prgi: u16 = 1[11:3];
    }
}

/// PFSID in two parts.
macro_rules! with_pfsid {
    ($($name:ident)*) => {
        $(impl $name {
            /// PFSID: the physical function.
            pub const fn pfsid(&self) -> SourceId {
                SourceId(self.pfsid_high() << 4 | self.pfsid_low() as u16)
            }

            /// The same with [`Self::pfsid`] set.
            #[must_use]
            pub const fn with_pfsid(self, pfsid: SourceId) -> Self {
                self.with_pfsid_high(pfsid.0 >> 4).with_pfsid_low((pfsid.0 & 15) as u8)
            }
        })*
    };
}

with_pfsid!(DeviceTlbInvalidate PasidDeviceTlbInvalidate);

#[cfg(test)]
mod tests {
    use super::super::DomainId;
    use super::*;

    #[test]
    fn descriptors_are_built_as_the_figures_have_them() {
        let (did, sid) = (DomainId(0x55), SourceId(0x1234));
        let context = ContextCacheInvalidate::new().with_g(3).with_did(did);
        assert_eq!(context.with_sid(sid).with_fm(2).0, [0x2_1234_0055_0031, 0]);
        let iotlb = IotlbInvalidate::new().with_g(3).with_did(did).with_dw(true);
        let pages = iotlb
            .with_dr(true)
            .with_am(9)
            .with_ih(true)
            .with_addr(0x20_0fff);
        assert_eq!(pages.0, [0x55_00f2, 0x20_0049]);
        let device = DeviceTlbInvalidate::new()
            .with_sid(sid)
            .with_mip(5)
            .with_pfsid(SourceId(0xabcd));
        let device = device.with_s(true).with_addr(0xf000);
        assert_eq!(device.0, [0xabc0_1234_0005_d003, 0xf001]);
        assert_eq!(device.pfsid(), SourceId(0xabcd));
        let entries = InterruptEntryCacheInvalidate::new()
            .with_g(true)
            .with_im(3)
            .with_iidx(0x18);
        assert_eq!(entries.0, [0x18_1800_0014, 0]);
        let wait = InvalidationWait::new()
            .with_interrupt(true)
            .with_sw(true)
            .with_fence(true);
        let wait = wait
            .with_pd(true)
            .with_status_data(7)
            .with_status_addr(0x1004);
        assert_eq!(wait.0, [0x7_0000_00f5, 0x1004]);
        let pasid = PasidIotlbInvalidate::new()
            .with_g(2)
            .with_did(did)
            .with_pasid(0xabcde);
        assert_eq!(pasid.0, [0xa_bcde_0055_0026, 0]);
        let cache = PasidCacheInvalidate::new().with_g(3);
        assert_eq!(cache.0, [0x37, 0]);
        let device = PasidDeviceTlbInvalidate::new()
            .with_sid(sid)
            .with_pasid(5)
            .with_mip(1);
        let device = device.with_pfsid(sid).with_g(true).with_s(true);
        assert_eq!(device.0, [0x1230_0005_1234_4018, 0x801]);
        let response = PageGroupResponse::new()
            .with_pp(true)
            .with_code(1)
            .with_rid(sid);
        let response = response.with_pasid(6).with_prgi(0x155);
        assert_eq!(response.0, [0x6_1234_1019, 0xaa8]);
    }

    #[test]
    fn the_fields_of_any_descriptor_are_printed() {
        let wait = InvalidationWait::new()
            .with_sw(true)
            .with_status_addr(0x1000);
        assert_eq!(
            format!("{:?}", Fields([wait.0[0] | 1 << 8, wait.0[1]])),
            "InvalidationWait { type_low: 0x5, sw: true, status_addr: 0x1000, \
             reserved bits of word 0: 0x100 }"
        );
        assert_eq!(format!("{:?}", Fields([0xe, 0])), "of an unknown type");
        assert_eq!(format!("{:?}", Fields([0, 0])), "no descriptor");
    }
}
