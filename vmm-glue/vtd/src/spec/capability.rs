// SPDX-License-Identifier: MIT OR Apache-2.0
//! The capability registers (sections 11.4.2 and 11.4.3).

use super::layout::layout;

layout! {
    /// CAP_REG: Capability Register (section 11.4.2).
    pub struct Capability(u64) {
        /// ND: Number of Domains, 2^(4 + 2 * ND): see [`Self::domain_id_width`].
        nd, with_nd: u8 = 0[2:0];
        /// PLMR: Protected Low-Memory Region.
        plmr, with_plmr: bool = 0[5];
        /// PHMR: Protected High-Memory Region.
        phmr, with_phmr: bool = 0[6];
        /// CM: Caching Mode.
        cm, with_cm: bool = 0[7];
        /// SAGAW: Supported Adjusted Guest Address Widths. Bit 1 is 39 bits, 2 is 48, 3 is 57.
        sagaw, with_sagaw: u8 = 0[12:8];
        /// MGAW as it stands there, less 1: see [`Self::mgaw`].
        mgaw_less_1, with_mgaw_less_1: u8 = 0[21:16];
        /// ZLR: Zero Length Read to write-only pages.
        zlr, with_zlr: bool = 0[22];
        /// FRO in units of 16 bytes: see [`Self::fault_recording_offset`].
        fro, with_fro: u16 = 0[33:24];
        /// SSLPS: Second Stage Large Page Support. Bit 0 is 2 MiB, bit 1 is 1 GiB.
        sslps, with_sslps: u8 = 0[37:34];
        /// PSI: Page Selective Invalidation.
        psi, with_psi: bool = 0[39];
        /// NFR as it stands there, less 1: see [`Self::fault_recording_registers`].
        nfr_less_1, with_nfr_less_1: u8 = 0[47:40];
        /// MAMV: Maximum Address Mask Value.
        mamv, with_mamv: u8 = 0[53:48];
        /// DWD: Write Draining.
        dwd, with_dwd: bool = 0[54];
        /// DRD: Read Draining.
        drd, with_drd: bool = 0[55];
        /// FS1GP: First Stage 1-GByte Page Support.
        fs1gp, with_fs1gp: bool = 0[56];
        /// PI: Posted Interrupts Support.
        pi, with_pi: bool = 0[59];
        /// FS5LP: First Stage 5-level Paging Support.
        fs5lp, with_fs5lp: bool = 0[60];
        /// ESIRTPS: Enhanced Set Interrupt Remap Table Pointer Support.
        esirtps, with_esirtps: bool = 0[62];
        /// ESRTPS: Enhanced Set Root Table Pointer Support.
        esrtps, with_esrtps: bool = 0[63];
    }
}

impl Capability {
    /// Number of bits of a domain id, from ND.
    pub const fn domain_id_width(&self) -> u32 {
        4 + 2 * self.nd() as u32
    }

    /// MGAW: Maximum Guest Address Width, in bits.
    pub const fn mgaw(&self) -> u8 {
        self.mgaw_less_1() + 1
    }

    /// FRO: offset of the first fault recording register in bytes.
    pub const fn fault_recording_offset(&self) -> u16 {
        self.fro() * 16
    }

    /// NFR: number of fault recording registers.
    pub const fn fault_recording_registers(&self) -> u16 {
        self.nfr_less_1() as u16 + 1
    }
}

layout! {
    /// ECAP_REG: Extended Capability Register (section 11.4.3).
    pub struct ExtendedCapability(u64) {
        /// C: Page-walk Coherency.
        c, with_c: bool = 0[0];
        /// QI: Queued Invalidation support.
        qi, with_qi: bool = 0[1];
        /// DT: Device-TLB support.
        dt, with_dt: bool = 0[2];
        /// IR: Interrupt Remapping support.
        ir, with_ir: bool = 0[3];
        /// EIM: Extended Interrupt Mode.
        eim, with_eim: bool = 0[4];
        /// PT: Pass Through.
        pt, with_pt: bool = 0[6];
        /// SC: Snoop Control.
        sc, with_sc: bool = 0[7];
        /// IRO in units of 16 bytes: see [`Self::iotlb_offset`].
        iro, with_iro: u16 = 0[17:8];
        /// MHMV: Maximum Handle Mask Value.
        mhmv, with_mhmv: u8 = 0[23:20];
        /// NEST: Nested Translation Support.
        nest, with_nest: bool = 0[26];
        /// PRS: Page Request Support.
        prs, with_prs: bool = 0[29];
        /// ERS: Execute Request Support (revision 3.4).
        ers, with_ers: bool = 0[30];
        /// SRS: Supervisor Request Support.
        srs, with_srs: bool = 0[31];
        /// NWFS: No Write Flag Support.
        nwfs, with_nwfs: bool = 0[33];
        /// EAFS: Extended Accessed Flag Support.
        eafs, with_eafs: bool = 0[34];
        /// PSS as it stands there, less 1: see [`Self::pasid_width`].
        pss_less_1, with_pss_less_1: u8 = 0[39:35];
        /// PASID: Process Address Space ID Support.
        pasid, with_pasid: bool = 0[40];
        /// DIT: Device-TLB Invalidation Throttle.
        dit, with_dit: bool = 0[41];
        /// PDS: Page-request Drain Support.
        pds, with_pds: bool = 0[42];
        /// SMTS: Scalable Mode Translation Support.
        smts, with_smts: bool = 0[43];
        /// VCS: Virtual Command Support.
        vcs, with_vcs: bool = 0[44];
        /// SSADS: Second-Stage Accessed/Dirty Support.
        ssads, with_ssads: bool = 0[45];
        /// SSTS: Second-stage Translation Support.
        ssts, with_ssts: bool = 0[46];
        /// FSTS: First-stage Translation Support.
        fsts, with_fsts: bool = 0[47];
        /// SMPWCS: Scalable-Mode Page-walk Coherency Support.
        smpwcs, with_smpwcs: bool = 0[48];
        /// RPS: RID-PASID Support.
        rps, with_rps: bool = 0[49];
        /// ADMS: Abort DMA Mode Support.
        adms, with_adms: bool = 0[52];
        /// RPRIVS: RID_PRIV Support.
        rprivs, with_rprivs: bool = 0[53];
        /// SMS: Stop Marker Support.
        sms, with_sms: bool = 0[58];
    }
}

impl ExtendedCapability {
    /// IRO: offset of the IOTLB registers in bytes.
    pub const fn iotlb_offset(&self) -> u16 {
        self.iro() * 16
    }

    /// PSS: number of bits of a PASID; 0 without scalable mode.
    pub const fn pasid_width(&self) -> u8 {
        if self.pasid() {
            self.pss_less_1() + 1
        } else {
            0
        }
    }
}
