// SPDX-License-Identifier: MIT OR Apache-2.0
//! Fault reasons (table 30 of section 7.1.3, table 15 of section 5.1.4.1) and the fault recording
//! register (section 11.4.7.6).

use super::SourceId;
use super::layout::layout;

/// What becomes of a translation request that meets a fault condition (table 30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtsOutcome {
    /// The condition is recoverable: a successful completion without permission, or with what
    /// permission there is. Nothing is recorded.
    Success,
    /// As `Success`, and recorded all the same.
    SuccessRecorded,
    /// Unsupported Request: the function is not to use ATS. Recorded.
    UnsupportedRequest,
    /// Completer Abort: a table is wrong. Recorded.
    CompleterAbort,
}

/// Declares the fault reasons with their conditions' properties.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $condition:literal, $qualified:literal, $ats:ident;)*) => {
        /// Why a request was blocked: the FR field of a fault recording register.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FaultReason {
            $(
                #[doc = concat!("Condition ", $condition, ", reason ", stringify!($code), ".")]
                $(#[$doc])*
                $name = $code,
            )*
        }

        impl FaultReason {
            /// All of them.
            pub const ALL: &[FaultReason] = &[$(FaultReason::$name),*];

            /// The condition code of table 30, without its number within the condition.
            pub const fn condition(self) -> &'static str {
                match self { $(FaultReason::$name => $condition),* }
            }

            /// Whether software can suppress the report by Fault Processing Disable
            /// (section 7.1.1).
            pub const fn qualified(self) -> bool {
                match self { $(FaultReason::$name => $qualified),* }
            }

            /// What a translation request gets that meets the condition.
            pub const fn ats_outcome(self) -> AtsOutcome {
                match self { $(FaultReason::$name => AtsOutcome::$ats),* }
            }
        }
    };
}

reasons! {
    /// The root entry is not present.
    RootEntryNotPresent = 0x01, "LRT.2", false, UnsupportedRequest;
    /// The context entry is not present.
    ContextEntryNotPresent = 0x02, "LCT.2", true, UnsupportedRequest;
    /// The context entry's AW or TT is not supported, or the table at SSPTPTR cannot be read.
    ContextEntryInvalid = 0x03, "LCT.4", true, CompleterAbort;
    /// The address is beyond the width of the second stage or of the host.
    AddressBeyondMgaw = 0x04, "LGN.1", true, Success;
    /// The request needs write permission.
    Write = 0x05, "LGN.2", true, Success;
    /// The request needs read permission.
    Read = 0x06, "LGN.3", true, Success;
    /// A second-stage paging entry cannot be read.
    SecondStageEntryAccess = 0x07, "LSS.1", true, CompleterAbort;
    /// The root entry cannot be read.
    RootEntryAccess = 0x08, "LRT.1", false, CompleterAbort;
    /// The context entry cannot be read.
    ContextEntryAccess = 0x09, "LCT.1", false, CompleterAbort;
    /// The root entry has reserved bits set.
    RootEntryReserved = 0x0a, "LRT.3", false, CompleterAbort;
    /// The context entry has reserved bits set.
    ContextEntryReserved = 0x0b, "LCT.3", true, CompleterAbort;
    /// A second-stage paging entry has reserved bits set.
    SecondStageEntryReserved = 0x0c, "LSS.2", true, CompleterAbort;
    /// TT blocks translation requests and translated requests.
    TranslationRequestBlocked = 0x0d, "LCT.5", true, UnsupportedRequest;
    /// The output address lies in the interrupt range.
    InterruptAddress = 0x0e, "LGN.4", true, CompleterAbort;

    /// Reserved fields of the interrupt request are set.
    InterruptRequestReserved = 0x20, "IR.20", false, UnsupportedRequest;
    /// The interrupt_index is beyond the table.
    InterruptIndexBeyondTable = 0x21, "IR.21", false, UnsupportedRequest;
    /// The IRTE is not present.
    IrteNotPresent = 0x22, "IR.22", true, UnsupportedRequest;
    /// The IRTE cannot be read.
    IrteAccess = 0x23, "IR.23", false, UnsupportedRequest;
    /// The IRTE has reserved fields set, or conditions of its fields violated.
    IrteReserved = 0x24, "IR.24", true, UnsupportedRequest;
    /// An interrupt request in compatibility format is blocked.
    CompatibilityFormatBlocked = 0x25, "IR.25", false, UnsupportedRequest;
    /// The source-id is not the one that the IRTE allows.
    IrteSourceId = 0x26, "IR.26", true, UnsupportedRequest;
    /// The posted interrupt descriptor cannot be accessed.
    PostedDescriptorAccess = 0x27, "IR.27", true, UnsupportedRequest;
    /// The posted interrupt descriptor has reserved fields set.
    PostedDescriptorReserved = 0x28, "IR.28", true, UnsupportedRequest;

    /// RTADDR_REG has a TTM that is reserved or not supported.
    RootTableAddressInvalid = 0x30, "RTA.1", false, CompleterAbort;
    /// A request with PASID in legacy mode.
    RequestWithPasidInLegacyMode = 0x31, "RTA.2", false, UnsupportedRequest;
    /// A page request in legacy mode.
    PageRequestInLegacyMode = 0x32, "RTA.3", false, UnsupportedRequest;
    /// A request in abort-DMA mode.
    AbortDmaMode = 0x33, "RTA.4", false, UnsupportedRequest;
    /// The scalable-mode root entry cannot be read.
    ScalableRootEntryAccess = 0x38, "SRT.1", false, CompleterAbort;
    /// The half of the scalable-mode root entry is not present.
    ScalableRootEntryNotPresent = 0x39, "SRT.2", false, UnsupportedRequest;
    /// The half of the scalable-mode root entry has reserved bits set.
    ScalableRootEntryReserved = 0x3a, "SRT.3", false, CompleterAbort;
    /// The scalable-mode context entry cannot be read.
    ScalableContextEntryAccess = 0x40, "SCT.1", false, CompleterAbort;
    /// The scalable-mode context entry is not present.
    ScalableContextEntryNotPresent = 0x41, "SCT.2", true, UnsupportedRequest;
    /// The scalable-mode context entry has reserved bits set.
    ScalableContextEntryReserved = 0x42, "SCT.3", true, CompleterAbort;
    /// PRE without DTE, or RID_PASID beyond the directory.
    ScalableContextEntryInvalid = 0x43, "SCT.4", true, CompleterAbort;
    /// DTE is clear.
    DeviceTlbDisabled = 0x44, "SCT.5", true, UnsupportedRequest;
    /// PASIDE is clear.
    PasidDisabled = 0x45, "SCT.6", true, UnsupportedRequest;
    /// The PASID is beyond the directory.
    PasidBeyondDirectory = 0x46, "SCT.7", true, UnsupportedRequest;
    /// PRE is clear.
    PageRequestDisabled = 0x47, "SCT.8", true, UnsupportedRequest;
    /// The PASID of the request is RID_PASID.
    PasidIsRidPasid = 0x48, "SCT.9", true, UnsupportedRequest;
    /// The PASID directory entry cannot be read.
    PasidDirectoryAccess = 0x50, "SPD.1", false, CompleterAbort;
    /// The PASID directory entry is not present.
    PasidDirectoryNotPresent = 0x51, "SPD.2", true, Success;
    /// The PASID directory entry has reserved bits set.
    PasidDirectoryReserved = 0x52, "SPD.3", true, CompleterAbort;
    /// The PASID table entry cannot be read.
    PasidEntryAccess = 0x58, "SPT.1", false, CompleterAbort;
    /// The PASID table entry is not present.
    PasidEntryNotPresent = 0x59, "SPT.2", true, Success;
    /// The PASID table entry has reserved bits set.
    PasidEntryReserved = 0x5a, "SPT.3", true, CompleterAbort;
    /// AW, PGTT, FSPM or FSPTPTR of the PASID table entry is not supported.
    PasidEntryInvalid = 0x5b, "SPT.4", true, CompleterAbort;
    /// Execute was requested where execute requests are not supported or not enabled (ERE).
    ExecuteRequestDisabled = 0x5c, "SPT.5", true, Success;
    /// Privileged mode was requested and SRE is clear.
    SupervisorRequestDisabled = 0x5d, "SPT.6", true, Success;
    /// A first-stage paging entry cannot be read.
    FirstStageEntryAccess = 0x70, "SFS.1", true, Success;
    /// A first-stage paging entry is not present.
    FirstStageEntryNotPresent = 0x71, "SFS.2", true, Success;
    /// A first-stage paging entry has reserved bits set.
    FirstStageEntryReserved = 0x72, "SFS.3", true, Success;
    /// The first-stage table at FSPTPTR cannot be read.
    FirstStageTableAccess = 0x73, "SFS.4", true, Success;
    /// A first-stage paging entry's address is beyond the second stage.
    FirstStageEntryBeyondMgaw = 0x74, "SFS.5", true, Success;
    /// The second stage does not permit reading the table at FSPTPTR.
    NestedTableRead = 0x75, "SFS.6", true, Success;
    /// The second stage does not permit reading a first-stage paging entry.
    NestedEntryRead = 0x76, "SFS.7", true, Success;
    /// The second stage does not permit setting A, D or EA in a first-stage paging entry.
    NestedEntryWrite = 0x77, "SFS.8", true, Success;
    /// A second-stage paging entry cannot be read.
    ScalableSecondStageEntryAccess = 0x78, "SSS.1", true, CompleterAbort;
    /// A second-stage paging entry, or all of them together, permit nothing.
    SecondStageNoPermission = 0x79, "SSS.2", true, Success;
    /// A second-stage paging entry has reserved bits set.
    ScalableSecondStageEntryReserved = 0x7a, "SSS.3", true, CompleterAbort;
    /// The second-stage table at SSPTPTR cannot be read.
    SecondStageTableAccess = 0x7b, "SSS.4", true, CompleterAbort;
    /// A or D of a second-stage paging entry had to be set, and walks are not snooped.
    SecondStageUpdateNotSnooped = 0x7c, "SSS.5", true, CompleterAbort;
    /// A or D of a second-stage paging entry could not be set.
    SecondStageUpdateFailed = 0x7d, "SSS.6", true, CompleterAbort;
    /// The input address is not canonical.
    NotCanonical = 0x80, "SGN.1", true, Success;
    /// A user request met a supervisor entry.
    SupervisorPage = 0x81, "SGN.2", true, Success;
    /// Execution is not permitted (revision 3.4).
    NoExecute = 0x82, "SGN.3", true, Success;
    /// The input address is a host address beyond the host address width.
    AddressBeyondHost = 0x83, "SGN.4", true, Success;
    /// The input address is beyond the width of the second stage.
    AddressBeyondSecondStage = 0x84, "SGN.5", true, Success;
    /// The request needs write permission.
    ScalableWrite = 0x85, "SGN.6", true, Success;
    /// The request needs read permission.
    ScalableRead = 0x86, "SGN.7", true, Success;
    /// The output address lies in the interrupt range.
    ScalableInterruptAddress = 0x87, "SGN.8", true, CompleterAbort;
    /// The PASID is wider than PSS.
    PasidBeyondWidth = 0x89, "SGN.10", true, UnsupportedRequest;
    /// A, D or EA of a first-stage paging entry had to be set, and walks are not snooped.
    FirstStageUpdateNotSnooped = 0x90, "SFS.9", true, Success;
    /// A, D or EA of a first-stage paging entry could not be set.
    FirstStageUpdateFailed = 0x91, "SFS.10", true, SuccessRecorded;
}

impl FaultReason {
    /// The FR field.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason of a code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.code() == code)
    }

    /// Whether interrupt remapping reports it.
    pub const fn is_interrupt(self) -> bool {
        self.code() & 0xf0 == 0x20
    }
}

/// Kind of the faulted request: T1 and T2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// Write request.
    Write,
    /// Page request.
    Page,
    /// Read request.
    Read,
    /// AtomicOp request.
    Atomic,
}

/// AT: address type of the faulted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    /// 00b.
    Untranslated = 0,
    /// 01b.
    TranslationRequest = 1,
    /// 10b.
    Translated = 2,
}

layout! {
    /// A fault recording register (FRCD_REG, section 11.4.7.6).
    pub struct FaultRecordingRegister([u64; 2]) {
        /// FI: Fault Info.
        fi, with_fi: pointer = 0[63:12];
        /// SID: Source Identifier.
        sid, with_sid: SourceId = 1[15:0];
        /// T2: type, its second bit.
        t2, with_t2: bool = 1[28];
        /// PRIV: Privileged Mode Requested.
        privileged, with_privileged: bool = 1[29];
        /// EXE: Execute Permission Requested.
        exe, with_exe: bool = 1[30];
        /// PP: PASID Present.
        pp, with_pp: bool = 1[31];
        /// FR: Fault Reason.
        fr, with_fr: u8 = 1[39:32];
        /// PV: PASID Value.
        pv, with_pv: u32 = 1[59:40];
        /// AT: Address Type.
        at, with_at: u8 = 1[61:60];
        /// T1: type, its first bit.
        t1, with_t1: bool = 1[62];
        /// F: Fault.
        f, with_f: bool = 1[63];
    }
}

/// What a fault recording register says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRecord {
    /// FI: the page address, or the interrupt_index in bits 63:48.
    pub fi: u64,
    /// SID: requester of the faulted request.
    pub sid: SourceId,
    /// FR: reason.
    pub fr: FaultReason,
    /// PP and PV: PASID of the faulted request.
    pub pasid: Option<u32>,
    /// EXE: execute was requested.
    pub exe: bool,
    /// PRIV: privileged mode was requested.
    pub privileged: bool,
    /// T1 and T2.
    pub kind: RequestKind,
    /// AT.
    pub at: AddressType,
}

impl FaultRecord {
    /// The two 64-bit words, with the F field set.
    pub const fn to_words(&self) -> [u64; 2] {
        let (t1, t2) = match self.kind {
            RequestKind::Write => (false, false),
            RequestKind::Page => (false, true),
            RequestKind::Read => (true, false),
            RequestKind::Atomic => (true, true),
        };
        let (pp, pv) = match self.pasid {
            Some(pasid) => (true, pasid & 0xf_ffff),
            None => (false, 0),
        };
        FaultRecordingRegister::ZERO
            .with_f(true)
            .with_fi(self.fi)
            .with_sid(self.sid)
            .with_t1(t1)
            .with_t2(t2)
            .with_privileged(self.privileged)
            .with_exe(self.exe)
            .with_pp(pp)
            .with_fr(self.fr.code())
            .with_pv(pv)
            .with_at(self.at as u8)
            .0
    }

    /// The record that two words carry; none if F is clear or the reason unknown.
    pub fn from_words(words: [u64; 2]) -> Option<Self> {
        let register = FaultRecordingRegister(words);
        if !register.f() {
            return None;
        }
        Some(FaultRecord {
            fi: register.fi(),
            sid: register.sid(),
            fr: FaultReason::from_code(register.fr())?,
            pasid: register.pp().then(|| register.pv()),
            exe: register.exe(),
            privileged: register.privileged(),
            kind: match (register.t1(), register.t2()) {
                (false, false) => RequestKind::Write,
                (false, true) => RequestKind::Page,
                (true, false) => RequestKind::Read,
                (true, true) => RequestKind::Atomic,
            },
            at: match register.at() {
                0 => AddressType::Untranslated,
                1 => AddressType::TranslationRequest,
                _ => AddressType::Translated,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_code_and_is_found_by_it() {
        for &reason in FaultReason::ALL {
            assert_eq!(FaultReason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(FaultReason::from_code(0), None);
        assert_eq!(FaultReason::PasidEntryNotPresent.code(), 0x59);
        assert_eq!(FaultReason::FirstStageUpdateFailed.condition(), "SFS.10");
    }

    #[test]
    fn what_table_30_calls_recoverable_succeeds() {
        let recoverable: Vec<u8> = FaultReason::ALL
            .iter()
            .filter(|r| r.ats_outcome() == AtsOutcome::Success)
            .map(|r| r.code())
            .collect();
        assert_eq!(
            recoverable,
            [
                0x04, 0x05, 0x06, 0x51, 0x59, 0x5c, 0x5d, 0x70, 0x71, 0x72, 0x73, 0x74, 0x75, 0x76,
                0x77, 0x79, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x90
            ]
        );
    }

    #[test]
    fn a_record_keeps_every_field() {
        let mut record = FaultRecord {
            fi: 0xffff_8000_1234_5000,
            sid: SourceId(0xabcd),
            fr: FaultReason::NoExecute,
            pasid: Some(0xf_edcb),
            exe: true,
            privileged: true,
            kind: RequestKind::Read,
            at: AddressType::TranslationRequest,
        };
        for kind in [
            RequestKind::Write,
            RequestKind::Page,
            RequestKind::Read,
            RequestKind::Atomic,
        ] {
            for at in [
                AddressType::Untranslated,
                AddressType::TranslationRequest,
                AddressType::Translated,
            ] {
                (record.kind, record.at) = (kind, at);
                assert_eq!(FaultRecord::from_words(record.to_words()), Some(record));
            }
        }
        let [low, high] = record.to_words();
        assert_eq!(low, 0xffff_8000_1234_5000);
        assert_eq!(high, 0xefed_cb82_f000_abcd);
    }
}
