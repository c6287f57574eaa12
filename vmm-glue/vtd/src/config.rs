// SPDX-License-Identifier: MIT OR Apache-2.0
//! The features of a unit.
//!
//! A [`Config`] nests every feature in the one that it needs, so that most contradictions cannot be
//! expressed; [`crate::Capabilities::new`] refuses the rest (the conditions of sections 11.4.2 and
//! 11.4.3).

use pcie_ats::PasidWidth;
use std::time::Duration;

/// Width of input addresses of the second stage: SAGAW (section 11.4.2). A unit that supports a
/// width also supports the smaller ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressWidth {
    /// 39 bits, 3 levels.
    Bits39,
    /// 48 bits, 4 levels.
    Bits48,
    /// 57 bits, 5 levels.
    Bits57,
}

impl AddressWidth {
    /// The number of bits.
    pub const fn bits(self) -> u8 {
        match self {
            AddressWidth::Bits39 => 39,
            AddressWidth::Bits48 => 48,
            AddressWidth::Bits57 => 57,
        }
    }

    /// The AW field of context and PASID table entries, which is also the bit of SAGAW.
    pub const fn aw(self) -> u8 {
        match self {
            AddressWidth::Bits39 => 1,
            AddressWidth::Bits48 => 2,
            AddressWidth::Bits57 => 3,
        }
    }
}

/// Large pages of the second stage: SSLPS (section 11.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargePages {
    /// None.
    None,
    /// 2 MiB.
    TwoMib,
    /// 2 MiB and 1 GiB.
    OneGib,
}

/// Device-TLBs: DT (section 11.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTlbs {
    /// How long an invalidation request may take before it times out (section 4.3).
    pub timeout: Duration,
    /// DIT: the unit counts pending invalidations by physical function.
    pub throttle: bool,
    /// NWFS: the unit honours the No Write flag of translation requests.
    pub no_write_flag: bool,
    /// PRS, with PDS and SMS. Has an effect in scalable mode only.
    pub page_requests: bool,
}

/// Interrupt remapping: IR (section 11.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterruptRemapping {
    /// EIM: APIC ids of 32 bits.
    pub extended_mode: bool,
    /// PI: interrupts can be posted.
    pub posted: bool,
}

/// First-stage translation: FSTS (section 11.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStage {
    /// FS5LP: 5-level paging.
    pub five_levels: bool,
    /// FS1GP: pages of 1 GiB.
    pub one_gib_pages: bool,
    /// EAFS: the extended-accessed flag. Needs coherent walks.
    pub extended_accessed: bool,
}

/// The stages of scalable mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// FSTS alone.
    First(FirstStage),
    /// SSTS alone.
    Second,
    /// FSTS and SSTS.
    Both {
        /// The first stage.
        first: FirstStage,
        /// NEST: the two can be nested.
        nested: bool,
    },
}

/// Requests with PASID: PASID (section 11.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pasids {
    /// PSS: number of bits.
    pub width: PasidWidth,
    /// ERS: execute requests, with ERE, NXE, SMEP and SSEE as in revision 3.4. Later revisions have
    /// removed them; units up to major version 7 may have them.
    pub execute_requests: bool,
}

/// Scalable mode: SMTS (section 11.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalable {
    /// FSTS, SSTS and NEST.
    pub stages: Stages,
    /// PASID.
    pub pasids: Option<Pasids>,
    /// SMPWCS: page walks are coherent where PWSNP says so. Without it, no A or D flag is set.
    pub coherent_walks: bool,
    /// SSADS: accessed and dirty flags of the second stage. Needs coherent walks and a second
    /// stage.
    pub second_stage_dirty: bool,
    /// SRS, with RPRIVS: privileged requests.
    pub supervisor_requests: bool,
    /// RPS: the RID_PASID field of context entries.
    pub rid_pasid: bool,
}

/// Sizes of the caches, in entries. They bound the unit's memory and are not visible to software.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSizes {
    /// Context cache.
    pub contexts: u32,
    /// PASID cache.
    pub pasids: u32,
    /// IOTLB; rounded up to a power of two.
    pub iotlb: u32,
    /// Interrupt entry cache; rounded up to a power of two.
    pub interrupts: u32,
}

impl Default for CacheSizes {
    fn default() -> Self {
        CacheSizes {
            contexts: 4096,
            pasids: 16384,
            iotlb: 1 << 17,
            interrupts: 4096,
        }
    }
}

/// The features of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// VER_REG: major and minor version. From major version 2 on, IOTLB invalidations always drain;
    /// up to version 5, the unit has register-based invalidation.
    pub version: (u8, u8),
    /// Host address width (HAW): 32 to 52 bits.
    pub host_address_width: u8,
    /// SAGAW and MGAW: the widest second stage.
    pub second_stage_width: AddressWidth,
    /// SSLPS.
    pub large_pages: LargePages,
    /// ND: number of bits of a domain id; even, 4 to 16.
    pub domain_id_width: u8,
    /// CM: software also invalidates entries that were not present before. In either case the unit
    /// does not cache entries that are not present.
    pub caching_mode: bool,
    /// PT: pass-through.
    pub pass_through: bool,
    /// SC: snoop control.
    pub snoop_control: bool,
    /// PLMR and PHMR: protected memory regions.
    pub protected_memory: bool,
    /// ADMS: abort-DMA mode.
    pub abort_dma: bool,
    /// VCS: virtual commands, by which software asks the host for PASIDs.
    pub virtual_commands: bool,
    /// NFR: number of fault recording registers, 1 to 14.
    pub fault_records: u8,
    /// DT.
    pub device_tlbs: Option<DeviceTlbs>,
    /// IR.
    pub interrupt_remapping: Option<InterruptRemapping>,
    /// SMTS.
    pub scalable: Option<Scalable>,
    /// Whether the unit refuses everything that software must not do. Without this it also accepts
    /// 128-bit descriptors in scalable and abort-DMA mode, where section 6.5.2 requires 256-bit
    /// ones (IQEI 5): for software that was written for a more lenient model. Nothing else changes.
    pub strict: bool,
    /// Whether the host may fail to carry an invalidation out, and says so by
    /// [`crate::Unit::invalidation_failed`]: then the queue ends its round behind each descriptor
    /// that invalidates something. Software does not see it. Not of the specification.
    pub confirm_invalidations: bool,
    /// Sizes of the caches.
    pub caches: CacheSizes,
}

impl Default for Config {
    /// Everything that Linux uses: scalable mode with both stages and nesting, PASIDs of 20 bits,
    /// Device-TLBs with page requests, interrupt remapping.
    fn default() -> Self {
        Config {
            version: (4, 0),
            host_address_width: 52,
            second_stage_width: AddressWidth::Bits48,
            large_pages: LargePages::OneGib,
            domain_id_width: 16,
            caching_mode: false,
            pass_through: true,
            snoop_control: true,
            protected_memory: false,
            abort_dma: true,
            virtual_commands: false,
            fault_records: 8,
            device_tlbs: Some(DeviceTlbs {
                timeout: Duration::from_secs(1),
                throttle: true,
                no_write_flag: true,
                page_requests: true,
            }),
            interrupt_remapping: Some(InterruptRemapping {
                extended_mode: true,
                posted: false,
            }),
            scalable: Some(Scalable {
                stages: Stages::Both {
                    first: FirstStage {
                        five_levels: true,
                        one_gib_pages: true,
                        extended_accessed: true,
                    },
                    nested: true,
                },
                pasids: Some(Pasids {
                    width: PasidWidth::MAX,
                    execute_requests: false,
                }),
                coherent_walks: true,
                second_stage_dirty: true,
                supervisor_requests: true,
                rid_pasid: true,
            }),
            strict: true,
            confirm_invalidations: false,
            caches: CacheSizes::default(),
        }
    }
}

/// A configuration that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A number is out of its range.
    #[error("{what} is {value}; give a value from {min} to {max}")]
    OutOfRange {
        /// The number.
        what: &'static str,
        /// The given value.
        value: u32,
        /// The smallest value.
        min: u32,
        /// The largest value.
        max: u32,
    },
    /// The domain id width is odd.
    #[error("the domain id width is {0} bits; give an even number")]
    OddDomainIdWidth(u8),
    /// A feature needs another one.
    #[error("{what} needs {needs}; add that, or take {what} away")]
    Needs {
        /// The feature.
        what: &'static str,
        /// The missing feature.
        needs: &'static str,
    },
}
