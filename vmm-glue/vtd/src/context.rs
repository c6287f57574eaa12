// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a requester and a PASID to the translation of its addresses: root, context, PASID directory
//! and PASID table entries, each read from memory and checked (sections 3.4 and 9.1 to 9.6, faults
//! of table 30). This module caches nothing.

use crate::capabilities::Capabilities;
use crate::memory::{Memory, read_words};
use crate::mutant::{Mutant, breaks};
use crate::spec::context::{ContextEntry, ScalableContextEntry};
use crate::spec::descriptor::Wrong;
use crate::spec::fault::FaultReason as R;
use crate::spec::pasid::{PasidDirectoryEntry, PasidEntry, Pgtt};
use crate::spec::root::{RootEntry, ScalableRootHalf};
use crate::spec::{DomainId, SourceId, mask};

/// A fault condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FaultCondition {
    /// Its reason.
    pub reason: R,
    /// An entry on the path had Fault Processing Disable set.
    pub fpd: bool,
    /// What was wrong with the entry, if the reason alone does not tell.
    pub wrong: Option<Wrong>,
}

impl FaultCondition {
    /// A fault; no entry so far disables its report.
    pub const fn new(reason: R) -> Self {
        FaultCondition {
            reason,
            fpd: false,
            wrong: None,
        }
    }

    /// The fault, with the FPD bit of an entry on the path.
    pub const fn with_fpd(self, fpd: bool) -> Self {
        FaultCondition {
            reason: self.reason,
            fpd: self.fpd || fpd,
            wrong: self.wrong,
        }
    }

    /// The fault, with what was wrong with the entry.
    pub const fn of(self, wrong: Wrong) -> Self {
        FaultCondition {
            wrong: Some(wrong),
            ..self
        }
    }
}

/// The parameters of the first stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FirstStageTables {
    /// FSPTPTR.
    pub table: u64,
    /// Levels, from FSPM: 4 or 5.
    pub levels: u8,
    /// WPE.
    pub wpe: bool,
    /// NXE.
    pub nxe: bool,
    /// SMEP.
    pub smep: bool,
    /// EAFE.
    pub eafe: bool,
    /// PWSNP: walks are snooped, so that flags can be set.
    pub snooped: bool,
}

/// The parameters of the second stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SecondStageTables {
    /// SSPTPTR.
    pub table: u64,
    /// Levels, from AW: 3 to 5.
    pub levels: u8,
    /// Number of bits of input addresses: the smaller of AW and MGAW.
    pub bits: u8,
    /// SSADE.
    pub ssade: bool,
    /// SSEE.
    pub ssee: bool,
    /// PWSNP: walks are snooped, so that flags can be set.
    pub snooped: bool,
    /// Scalable mode: its fault reasons apply.
    pub scalable: bool,
}

/// The stages that translate addresses (PGTT, or TT of legacy mode).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TranslationType {
    First(FirstStageTables),
    Second(SecondStageTables),
    Nested(FirstStageTables, SecondStageTables),
    PassThrough,
}

/// The translation of the addresses of an address space of a requester.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Regime {
    /// DID.
    pub domain: DomainId,
    /// The type of its translation.
    pub translation: TranslationType,
    /// Fault Processing Disable of any entry on the path.
    pub fpd: bool,
    /// Scalable mode: its fault reasons apply.
    pub scalable: bool,
    /// PGSNP.
    pub page_snoop: bool,
    /// SRE.
    pub supervisor: bool,
    /// ERE.
    pub execute: bool,
}

/// A context entry, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckedContext {
    /// Of legacy mode.
    Legacy {
        /// The translation of all requests.
        regime: Regime,
        /// TT = 01b: translation and translated requests are allowed.
        device_tlb: bool,
    },
    /// Of scalable mode.
    Scalable(ScalableContext),
}

/// A scalable-mode context entry, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScalableContext {
    pub fpd: bool,
    pub dte: bool,
    pub paside: bool,
    pub pre: bool,
    pub directory: u64,
    pub pasid_limit: u32,
    pub rid_pasid: u32,
    pub rid_priv: bool,
}

impl CheckedContext {
    /// FPD of the entry.
    pub const fn fpd(&self) -> bool {
        match self {
            CheckedContext::Legacy { regime, .. } => regime.fpd,
            CheckedContext::Scalable(c) => c.fpd,
        }
    }

    /// DID of the entry; only entries of legacy mode have one.
    pub const fn domain(&self) -> Option<DomainId> {
        match self {
            CheckedContext::Legacy { regime, .. } => Some(regime.domain),
            CheckedContext::Scalable(_) => None,
        }
    }
}

/// Reads and checks the context entry of a requester in legacy mode.
pub(crate) fn legacy_context(
    memory: &impl Memory,
    caps: &Capabilities,
    root_table: u64,
    requester: SourceId,
) -> Result<CheckedContext, FaultCondition> {
    let haw = caps.host_address_width();
    let at = root_table | (requester.bus() as u64) << 4;
    let root = read_words(memory, at).map_err(|_| FaultCondition::new(R::RootEntryAccess))?;
    let root = RootEntry(root);
    if !root.p() {
        return Err(FaultCondition::new(R::RootEntryNotPresent));
    }
    if let Some(wrong) = Wrong::reserved(&root.reserved(haw)) {
        return Err(FaultCondition::new(R::RootEntryReserved).of(wrong));
    }
    let at = root.ctp() | (requester.devfn() as u64) << 4;
    let entry = read_words(memory, at).map_err(|_| FaultCondition::new(R::ContextEntryAccess))?;
    let entry = ContextEntry(entry);
    let fault = |reason| FaultCondition::new(reason).with_fpd(entry.fpd());
    if !entry.p() {
        return Err(fault(R::ContextEntryNotPresent));
    }
    if let Some(wrong) = Wrong::reserved(&entry.reserved(haw, caps.cap())) {
        return Err(fault(R::ContextEntryReserved).of(wrong));
    }
    let Some((levels, bits)) = caps.second_stage(entry.aw()) else {
        return Err(fault(R::ContextEntryInvalid).of(Wrong::Field("AW")));
    };
    let second = TranslationType::Second(SecondStageTables {
        table: entry.ssptptr(),
        levels,
        bits,
        ssade: false,
        ssee: false,
        snooped: true,
        scalable: false,
    });
    let (translation, device_tlb) = match entry.tt() {
        0 => (second, false),
        1 if caps.ecap().dt() => (second, true),
        2 if caps.ecap().pt() => (TranslationType::PassThrough, false),
        _ => return Err(fault(R::ContextEntryInvalid).of(Wrong::Field("TT"))),
    };
    Ok(CheckedContext::Legacy {
        regime: Regime {
            domain: entry.did(),
            translation,
            fpd: entry.fpd(),
            scalable: false,
            page_snoop: false,
            supervisor: false,
            execute: false,
        },
        device_tlb,
    })
}

/// Reads and checks the context entry of a requester in scalable mode.
pub(crate) fn scalable_context(
    memory: &impl Memory,
    caps: &Capabilities,
    root_table: u64,
    requester: SourceId,
) -> Result<CheckedContext, FaultCondition> {
    let haw = caps.host_address_width();
    let upper = requester.devfn() >= 128;
    let at = root_table | (requester.bus() as u64) << 4 | (upper as u64) << 3;
    let root = memory.read_u64(at);
    let root = ScalableRootHalf(root.map_err(|_| FaultCondition::new(R::ScalableRootEntryAccess))?);
    if !root.p() {
        return Err(FaultCondition::new(R::ScalableRootEntryNotPresent));
    }
    if let Some(wrong) = Wrong::reserved(&[root.reserved(haw)]) {
        return Err(FaultCondition::new(R::ScalableRootEntryReserved).of(wrong));
    }
    let at = root.ctp() | (requester.devfn() as u64 & 127) << 5;
    let entry = read_words(memory, at);
    let entry = ScalableContextEntry(
        entry.map_err(|_| FaultCondition::new(R::ScalableContextEntryAccess))?,
    );
    let fault = |reason| Err(FaultCondition::new(reason).with_fpd(entry.fpd()));
    if !entry.p() {
        return fault(R::ScalableContextEntryNotPresent);
    }
    if let Some(wrong) = Wrong::reserved(&entry.reserved(haw, caps.ecap())) {
        return fault(R::ScalableContextEntryReserved).map_err(|fault| fault.of(wrong));
    }
    let invalid = |name| {
        let fault = fault(R::ScalableContextEntryInvalid);
        fault.map_err(|fault| fault.of(Wrong::Field(name)))
    };
    if entry.pre() && !entry.dte() {
        return invalid("PRE without DTE");
    }
    if entry.rid_pasid() >= entry.pasid_limit() {
        return invalid("RID_PASID");
    }
    Ok(CheckedContext::Scalable(ScalableContext {
        fpd: entry.fpd(),
        dte: entry.dte(),
        paside: entry.paside(),
        pre: entry.pre(),
        directory: entry.pasiddirptr(),
        pasid_limit: entry.pasid_limit(),
        // Reserved, and so zero, where they are not supported.
        rid_pasid: entry.rid_pasid(),
        rid_priv: entry.rid_priv(),
    }))
}

/// Reads and checks the PASID table entry of a PASID, which lies within the directory.
pub(crate) fn pasid_entry(
    memory: &impl Memory,
    caps: &Capabilities,
    context: &ScalableContext,
    pasid: u32,
) -> Result<Regime, FaultCondition> {
    let haw = caps.host_address_width();
    let at = context.directory + (pasid as u64 >> 6) * 8;
    let directory = memory.read_u64(at);
    // The reason itself is not qualified, but a reason that takes precedence over it may be.
    let access = |reason, fpd| FaultCondition::new(reason).with_fpd(fpd);
    let directory =
        PasidDirectoryEntry(directory.map_err(|_| access(R::PasidDirectoryAccess, context.fpd))?);
    let fpd = context.fpd || directory.fpd();
    let fault = |reason| Err(FaultCondition::new(reason).with_fpd(fpd));
    if !directory.p() {
        return fault(R::PasidDirectoryNotPresent);
    }
    if let Some(wrong) = Wrong::reserved(&[directory.reserved(haw)]) {
        return fault(R::PasidDirectoryReserved).map_err(|fault| fault.of(wrong));
    }
    let at = directory.smptblptr() | (pasid as u64 & 63) << 6;
    let entry = read_words(memory, at).map_err(|_| access(R::PasidEntryAccess, fpd))?;
    let entry = PasidEntry(entry);
    let fpd = fpd || entry.fpd();
    let fault = |reason| Err(FaultCondition::new(reason).with_fpd(fpd));
    if breaks(Mutant::B01) && translation_type(caps, &entry).is_none() {
        return fault(R::PasidEntryInvalid);
    }
    if !entry.p() {
        return fault(R::PasidEntryNotPresent);
    }
    if let Some(wrong) = Wrong::reserved(&entry.reserved(haw, caps.cap(), caps.ecap())) {
        if !breaks(Mutant::G27) {
            return fault(R::PasidEntryReserved).map_err(|fault| fault.of(wrong));
        }
    }
    let Some(translation) = translation_type(caps, &entry) else {
        let wrong = Wrong::Field("PGTT, or AW, FSPM or FSPTPTR of its stages");
        return fault(R::PasidEntryInvalid).map_err(|fault| fault.of(wrong));
    };
    Ok(Regime {
        domain: entry.did(),
        translation,
        fpd,
        scalable: true,
        page_snoop: entry.pgsnp(),
        supervisor: entry.sre(),
        execute: caps.ecap().ers() && entry.ere(),
    })
}

/// The type of translation that a PASID table entry selects; none if the unit does not support it
/// (SPT.4).
fn translation_type(caps: &Capabilities, entry: &PasidEntry) -> Option<TranslationType> {
    let pgtt = entry.pgtt().filter(|p| p.supported(caps.ecap()))?;
    let ers = caps.ecap().ers();
    let first = || {
        Some(FirstStageTables {
            table: entry.fsptptr(),
            levels: match entry.fspm() {
                _ if breaks(Mutant::B04) => entry.aw() + 2,
                _ if breaks(Mutant::G04) => 4,
                2.. if breaks(Mutant::S79) => 4,
                0 => 4,
                1 if caps.cap().fs5lp() => 5,
                _ => return None,
            },
            wpe: entry.wpe() && !breaks(Mutant::G07),
            nxe: ers && entry.nxe() && !breaks(Mutant::G06),
            smep: ers && entry.smep(),
            eafe: entry.eafe(),
            snooped: entry.pwsnp(),
        })
    };
    let second = || {
        let (levels, bits) = caps.second_stage(entry.aw())?;
        Some(SecondStageTables {
            table: entry.ssptptr(),
            levels,
            bits,
            ssade: entry.ssade() && !breaks(Mutant::G08),
            ssee: ers && entry.ssee(),
            snooped: entry.pwsnp(),
            scalable: true,
        })
    };
    Some(match pgtt {
        Pgtt::FirstStage => TranslationType::First(first()?),
        Pgtt::SecondStage if breaks(Mutant::G02) => return None,
        Pgtt::SecondStage => TranslationType::Second(second()?),
        Pgtt::Nested if breaks(Mutant::G01) => return None,
        Pgtt::Nested => {
            let (first, second) = (first()?, second()?);
            // The second stage translates FSPTPTR.
            if first.table & mask(63, second.bits.into()) != 0 {
                return None;
            }
            TranslationType::Nested(first, second)
        }
        Pgtt::PassThrough => TranslationType::PassThrough,
    })
}
