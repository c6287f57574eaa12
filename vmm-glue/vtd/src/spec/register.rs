// SPDX-License-Identifier: MIT OR Apache-2.0
//! Offsets and fields of the registers (section 11.4).

use super::layout::layout;

/// Offsets of the registers from the register base (section 11.3).
pub mod offset {
    /// VER_REG (section 11.4.1), 32 bits.
    pub const VER: u16 = 0x00;
    /// CAP_REG (section 11.4.2), 64 bits.
    pub const CAP: u16 = 0x08;
    /// ECAP_REG (section 11.4.3), 64 bits.
    pub const ECAP: u16 = 0x10;
    /// GCMD_REG (section 11.4.4.1), 32 bits.
    pub const GCMD: u16 = 0x18;
    /// GSTS_REG (section 11.4.4.2), 32 bits.
    pub const GSTS: u16 = 0x1c;
    /// RTADDR_REG (section 11.4.5), 64 bits.
    pub const RTADDR: u16 = 0x20;
    /// CCMD_REG (section 11.4.6.1), 64 bits.
    pub const CCMD: u16 = 0x28;
    /// FSTS_REG (section 11.4.7.1), 32 bits.
    pub const FSTS: u16 = 0x34;
    /// FECTL_REG (section 11.4.7.2), 32 bits; data, address and upper address follow.
    pub const FECTL: u16 = 0x38;
    /// PMEN_REG (section 11.4.8.1), 32 bits.
    pub const PMEN: u16 = 0x64;
    /// PLMBASE_REG (section 11.4.8.2), 32 bits.
    pub const PLMBASE: u16 = 0x68;
    /// PLMLIMIT_REG (section 11.4.8.3), 32 bits.
    pub const PLMLIMIT: u16 = 0x6c;
    /// PHMBASE_REG (section 11.4.8.4), 64 bits.
    pub const PHMBASE: u16 = 0x70;
    /// PHMLIMIT_REG (section 11.4.8.5), 64 bits.
    pub const PHMLIMIT: u16 = 0x78;
    /// IQH_REG (section 11.4.9.1), 64 bits.
    pub const IQH: u16 = 0x80;
    /// IQT_REG (section 11.4.9.2), 64 bits.
    pub const IQT: u16 = 0x88;
    /// IQA_REG (section 11.4.9.3), 64 bits.
    pub const IQA: u16 = 0x90;
    /// ICS_REG (section 11.4.9.4), 32 bits.
    pub const ICS: u16 = 0x9c;
    /// IECTL_REG (section 11.4.9.5), 32 bits; data, address and upper address follow.
    pub const IECTL: u16 = 0xa0;
    /// IQERCD_REG (section 11.4.9.9), 64 bits.
    pub const IQERCD: u16 = 0xb0;
    /// IRTA_REG (section 11.4.10), 64 bits.
    pub const IRTA: u16 = 0xb8;
    /// PQH_REG (section 11.4.11.1), 64 bits.
    pub const PQH: u16 = 0xc0;
    /// PQT_REG (section 11.4.11.2), 64 bits.
    pub const PQT: u16 = 0xc8;
    /// PQA_REG (section 11.4.11.3), 64 bits.
    pub const PQA: u16 = 0xd0;
    /// PRS_REG (section 11.4.11.4), 32 bits.
    pub const PRS: u16 = 0xdc;
    /// PECTL_REG (section 11.4.11.5), 32 bits; data, address and upper address follow.
    pub const PECTL: u16 = 0xe0;
    /// IVA_REG (section 11.4.6.4), 64 bits, where ECAP_REG.IRO says: this unit's choice.
    pub const IVA: u16 = 0xf0;
    /// IOTLB_REG (section 11.4.6.3), 64 bits, behind IVA_REG.
    pub const IOTLB: u16 = 0xf8;
    /// FRCD_REG (section 11.4.7.6), 128 bits each, where CAP_REG.FRO says: this unit's choice.
    pub const FRCD: u16 = 0x220;
    /// End of the room for fault recording registers.
    pub const FRCD_END: u16 = 0x300;
    /// VCMD_REG (section 11.4), 64 bits.
    pub const VCMD: u16 = 0xe00;
    /// VCMD_EO_REG: the extended operand (section 11.4), 64 bits.
    pub const VCMD_EO: u16 = 0xe08;
    /// VCRSP_REG (section 11.4), 64 bits.
    pub const VCRSP: u16 = 0xe10;
    /// VCCAP_REG (section 11.4), 64 bits.
    pub const VCCAP: u16 = 0xe30;
}

/// Fields of GCMD_REG, and of GSTS_REG at the same places (section 11.4.4).
pub mod global {
    /// TE and TES: Translation Enable.
    pub const TE: u32 = 1 << 31;
    /// SRTP and RTPS: Set Root Table Pointer.
    pub const SRTP: u32 = 1 << 30;
    /// WBF and WBFS: Write Buffer Flush.
    pub const WBF: u32 = 1 << 27;
    /// QIE and QIES: Queued Invalidation Enable.
    pub const QIE: u32 = 1 << 26;
    /// IRE and IRES: Interrupt Remapping Enable.
    pub const IRE: u32 = 1 << 25;
    /// SIRTP and IRTPS: Set Interrupt Remap Table Pointer.
    pub const SIRTP: u32 = 1 << 24;
    /// CFI and CFIS: Compatibility Format Interrupt.
    pub const CFI: u32 = 1 << 23;
}

/// Fields of FSTS_REG (section 11.4.7.1).
pub mod fsts {
    /// PFO: Primary Fault Overflow.
    pub const PFO: u32 = 1 << 0;
    /// PPF: Primary Pending Fault.
    pub const PPF: u32 = 1 << 1;
    /// IQE: Invalidation Queue Error.
    pub const IQE: u32 = 1 << 4;
    /// ICE: Invalidation Completion Error.
    pub const ICE: u32 = 1 << 5;
    /// ITE: Invalidation Time-out Error.
    pub const ITE: u32 = 1 << 6;
}

/// Fields of PRS_REG (section 11.4.11.4).
pub mod prs {
    /// PPR: Pending Page Request.
    pub const PPR: u32 = 1 << 0;
    /// PRO: Page Request Overflow.
    pub const PRO: u32 = 1 << 1;
}

layout! {
    /// RTADDR_REG: Root Table Address Register (section 11.4.5).
    pub struct RootTableAddress(u64) {
        /// TTM: Translation Table Mode: see [`Self::mode`].
        ttm, with_ttm: u8 = 0[11:10];
        /// RTA: Root Table Address.
        rta, with_rta: pointer = 0[63:12];
    }
}

/// TTM: Translation Table Mode of RTADDR_REG (section 11.4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TranslationTableMode {
    /// 00b: legacy mode.
    #[default]
    Legacy,
    /// 01b: scalable mode.
    Scalable,
    /// 10b: reserved.
    Reserved,
    /// 11b: abort-DMA mode.
    AbortDma,
}

impl RootTableAddress {
    /// The mode that TTM names.
    pub const fn mode(&self) -> TranslationTableMode {
        match self.ttm() {
            0 => TranslationTableMode::Legacy,
            1 => TranslationTableMode::Scalable,
            2 => TranslationTableMode::Reserved,
            _ => TranslationTableMode::AbortDma,
        }
    }
}

layout! {
    /// CCMD_REG: Context Command Register (section 11.4.6.1).
    pub struct ContextCommand(u64) {
        /// DID: Domain-ID.
        did, with_did: u16 = 0[15:0];
        /// SID: Source-ID.
        sid, with_sid: SourceId = 0[31:16];
        /// FM: Function Mask.
        fm, with_fm: u8 = 0[33:32];
        /// CAIG: Context Actual Invalidation Granularity. 0: nothing was invalidated.
        caig, with_caig: u8 = 0[60:59];
        /// CIRG: Context Invalidation Request Granularity. 1: global, 2: domain, 3: device.
        cirg, with_cirg: u8 = 0[62:61];
        /// ICC: Invalidate Context-Cache.
        icc, with_icc: bool = 0[63];
    }
}

layout! {
    /// IOTLB_REG: IOTLB Invalidate Register (section 11.4.6.3).
    pub struct IotlbCommand(u64) {
        /// DID: Domain-ID.
        did, with_did: u16 = 0[47:32];
        /// DW: Drain Writes.
        dw, with_dw: bool = 0[48];
        /// DR: Drain Reads.
        dr, with_dr: bool = 0[49];
        /// IAIG: IOTLB Actual Invalidation Granularity. 0: nothing was invalidated.
        iaig, with_iaig: u8 = 0[58:57];
        /// IIRG: IOTLB Invalidation Request Granularity. 1: global, 2: domain, 3: pages.
        iirg, with_iirg: u8 = 0[61:60];
        /// IVT: Invalidate IOTLB.
        ivt, with_ivt: bool = 0[63];
    }
}

layout! {
    /// IVA_REG: Invalidate Address Register (section 11.4.6.4).
    pub struct InvalidateAddress(u64) {
        /// AM: Address Mask, log2 of a number of pages of 4 KiB.
        am, with_am: u8 = 0[5:0];
        /// IH: Invalidation Hint.
        ih, with_ih: bool = 0[6];
        /// ADDR: Address.
        addr, with_addr: pointer = 0[63:12];
    }
}

layout! {
    /// IQA_REG: Invalidation Queue Address Register (section 11.4.9.3).
    pub struct InvalidationQueueAddress(u64) {
        /// QS: Queue Size, log2 of a number of pages of 4 KiB.
        qs, with_qs: u8 = 0[2:0];
        /// DW: Descriptor Width. Set: 256 bits.
        dw, with_dw: bool = 0[11];
        /// IQA: Invalidation Queue Base Address.
        iqa, with_iqa: pointer = 0[63:12];
    }
}

layout! {
    /// IQERCD_REG: Invalidation Queue Error Record Register (section 11.4.9.9).
    pub struct InvalidationQueueErrorRecord(u64) {
        /// IQEI: Invalidation Queue Error Info.
        iqei, with_iqei: u8 = 0[3:0];
        /// ITESID: Invalidation Time-out Error Source Identifier.
        itesid, with_itesid: SourceId = 0[47:32];
        /// ICESID: Invalidation Completion Error Source Identifier.
        icesid, with_icesid: SourceId = 0[63:48];
    }
}

layout! {
    /// IRTA_REG: Interrupt Remapping Table Address Register (section 11.4.10).
    pub struct InterruptRemappingTableAddress(u64) {
        /// S: Size, 2^(S + 1) entries.
        s, with_s: u8 = 0[3:0];
        /// EIME: Extended Interrupt Mode Enable.
        eime, with_eime: bool = 0[11];
        /// IRTA: Interrupt Remapping Table Address.
        irta, with_irta: pointer = 0[63:12];
    }
}

layout! {
    /// PQA_REG: Page Request Queue Address Register (section 11.4.11.3).
    pub struct PageRequestQueueAddress(u64) {
        /// PQS: Page Queue Size, log2 of a number of pages of 4 KiB.
        pqs, with_pqs: u8 = 0[2:0];
        /// PQA: Page Request Queue Base Address.
        pqa, with_pqa: pointer = 0[63:12];
    }
}
