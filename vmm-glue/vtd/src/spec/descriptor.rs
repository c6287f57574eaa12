// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the descriptors of the invalidation queue mean (sections 6.5.2 and 7.6.1), checked. Their
//! bits are in [`super::invalidation`].

use super::capability::{Capability, ExtendedCapability};
use super::invalidation::{
    ContextCacheInvalidate, DeviceTlbInvalidate, InterruptEntryCacheInvalidate, InvalidationWait,
    IotlbInvalidate, PageGroupResponse, PasidCacheInvalidate, PasidDeviceTlbInvalidate,
    PasidIotlbInvalidate, kind,
};
use super::{DomainId, SourceId, mask};
use pcie_ats::{AlignedRange, Pasid, PrgResponse, Prgi, ResponseCode};

/// IQEI: why the invalidation queue stopped (section 11.4.9.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// No information: the host could not carry the descriptor out
    /// ([`crate::Unit::invalidation_failed`]).
    NoInformation = 0,
    /// The tail pointer is beyond the queue.
    Tail = 1,
    /// The descriptor could not be fetched.
    Fetch = 2,
    /// The descriptor's type is not valid in this mode (table 26).
    Type = 3,
    /// The descriptor has reserved bits or values.
    Reserved = 4,
    /// The descriptor width does not go with the translation table mode.
    Width = 5,
    /// The tail is not aligned to the descriptor width.
    TailAlignment = 6,
    /// The translation table mode is not valid.
    TranslationTableMode = 7,
}

/// What of a descriptor or of an entry was wrong, which tells why a queue has stopped or a request
/// was blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A field has a value that is not valid; its name.
    Field(&'static str),
    /// Reserved bits are set.
    Reserved {
        /// The word of 64 bits, from 0.
        word: u8,
        /// The reserved bits of it that are set.
        bits: u64,
    },
}

impl Wrong {
    /// The first reserved bits of these words that are set, if there are any.
    #[inline]
    pub fn reserved(words: &[u64]) -> Option<Wrong> {
        let found = (0u8..).zip(words).find(|(_, bits)| **bits != 0);
        found.map(|(word, bits)| Wrong::Reserved { word, bits: *bits })
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wrong::Field(name) => f.write_str(name),
            Wrong::Reserved { word, bits } => write!(f, "reserved bits {bits:#x} of word {word}"),
        }
    }
}

/// Why a descriptor is not executed: what IQEI says of it, and what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorError {
    /// IQEI.
    pub error: QueueError,
    /// What was wrong.
    pub wrong: Wrong,
}

/// A field has a value that is not valid.
const fn invalid(name: &'static str) -> DescriptorError {
    DescriptorError {
        error: QueueError::Reserved,
        wrong: Wrong::Field(name),
    }
}

/// Refuses the reserved bits that are set.
fn no_reserved(words: [u64; 4]) -> Result<(), DescriptorError> {
    match Wrong::reserved(&words) {
        None => Ok(()),
        Some(wrong) => Err(DescriptorError {
            error: QueueError::Reserved,
            wrong,
        }),
    }
}

/// Scope of a context-cache invalidation (section 6.5.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextScope {
    /// All entries.
    Global,
    /// The entries of a domain.
    Domain(DomainId),
    /// The entries of a domain's devices.
    Device {
        /// Domain.
        did: DomainId,
        /// Requester.
        sid: SourceId,
        /// The bits of the requester id that count, from FM (table 21).
        mask: u16,
    },
}

/// Scope of a PASID-cache invalidation (section 6.5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasidScope {
    /// All entries.
    Global,
    /// The entries of a domain.
    Domain(DomainId),
    /// The entries of a PASID in a domain.
    Pasid(DomainId, Pasid),
}

/// Scope of an IOTLB invalidation (sections 6.5.2.3 and 6.5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IotlbScope {
    /// All entries.
    Global,
    /// The entries of a domain.
    Domain(DomainId),
    /// Of a domain, the second-stage and pass-through entries of a range, and all entries that
    /// went through the first stage.
    DomainPages(DomainId, AlignedRange),
    /// The entries of a PASID in a domain.
    Pasid(DomainId, Pasid),
    /// The entries of a PASID in a domain that went through the first stage, in a range.
    PasidPages(DomainId, Pasid, AlignedRange),
}

/// A Device-TLB invalidation (sections 6.5.2.5 and 6.5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTlbInvalidation {
    /// SID: the function whose Device-TLB is meant.
    pub sid: SourceId,
    /// PFSID: the physical function whose pending invalidations are counted.
    pub pfsid: SourceId,
    /// MIP: how many invalidations the function takes at a time, 1 to 32.
    pub max_pending: u8,
    /// PASID; none for translations without one.
    pub pasid: Option<Pasid>,
    /// GI: all PASIDs.
    pub global: bool,
    /// Range of input addresses.
    pub range: AlignedRange,
}

/// An invalidation wait descriptor (section 6.5.2.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// IF: raise the invalidation completion event.
    pub interrupt: bool,
    /// SW: where to write the status, and what.
    pub status: Option<(u64, u32)>,
    /// FN: what follows waits for this descriptor's completion.
    pub fence: bool,
    /// PD: order the completion behind the page requests received.
    pub page_request_drain: bool,
}

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descriptor {
    /// Type 1 (section 6.5.2.1).
    ContextCache(ContextScope),
    /// Types 2 and 6 (sections 6.5.2.3 and 6.5.2.4).
    Iotlb {
        /// Its scope.
        scope: IotlbScope,
        /// IH of an invalidation of pages: only leaf entries have changed.
        leaf_only: bool,
        /// Untranslated requests in flight are drained before the next wait completes.
        drain: bool,
    },
    /// Types 3 and 8 (sections 6.5.2.5 and 6.5.2.6).
    DeviceTlb(DeviceTlbInvalidation),
    /// Type 4 (section 6.5.2.8): the first index and log2 of how many; none for all.
    InterruptEntryCache(Option<(u16, u8)>),
    /// Type 5 (section 6.5.2.9).
    Wait(Wait),
    /// Type 7 (section 6.5.2.2).
    PasidCache(PasidScope),
    /// Type 9 (section 7.6.1).
    PageGroupResponse {
        /// RID: the function that is answered.
        rid: SourceId,
        /// The response.
        response: PrgResponse,
    },
}

/// What the meaning of a descriptor depends on.
#[derive(Clone, Copy, Debug)]
pub struct UnitMode {
    /// Capabilities.
    pub cap: Capability,
    /// Extended capabilities.
    pub ecap: ExtendedCapability,
    /// Host address width.
    pub host_address_width: u8,
    /// Whether the descriptor types of scalable mode are valid (table 26).
    pub scalable_types: bool,
    /// Whether IOTLB invalidations drain without being asked (major version 2 and above).
    pub always_drain: bool,
}

impl Descriptor {
    /// The descriptor that the words carry: two of them and two zeros from a queue of 128-bit
    /// descriptors.
    ///
    /// An index mask beyond MHMV is not valid: such a descriptor selects more entries than the
    /// unit said it takes (section 6.5.2.8).
    pub fn parse(w: [u64; 4], mode: &UnitMode) -> Result<Self, DescriptorError> {
        const UNKNOWN: DescriptorError = DescriptorError {
            error: QueueError::Type,
            wrong: Wrong::Field("type"),
        };
        const GRANULARITY: DescriptorError = invalid("granularity (G)");
        let UnitMode { cap, ecap, .. } = *mode;
        let kind = kind(w[0]);
        if kind >= 6 && !mode.scalable_types {
            return Err(UNKNOWN);
        }
        let low = [w[0], w[1]];
        // Refuses bits that belong to no field, and those of fields that the unit has not.
        let check = |fields: [u64; 2], missing: [u64; 2]| {
            let reserved = |n: usize| w[n] & (!fields[n] | missing[n]);
            no_reserved([reserved(0), reserved(1), w[2], w[3]])
        };
        // Hardware ignores the bits beyond the width of a domain id.
        let domain = |did: DomainId| DomainId(did.0 & mask(cap.domain_id_width() - 1, 0) as u16);
        let pasid_of = |pasid: u32| Pasid::new(pasid).map_err(|_| invalid("PASID"));
        let pages = |am: u8, addr: u64, max: u8| {
            if am > max {
                return Err(invalid("address mask (AM)"));
            }
            AlignedRange::containing(addr, (12 + am).min(64))
                .map_err(|_| invalid("address mask (AM)"))
        };
        match kind {
            ContextCacheInvalidate::TYPE => {
                let d = ContextCacheInvalidate(low);
                check(ContextCacheInvalidate::FIELDS, [0; 2])?;
                let did = domain(d.did());
                Ok(Descriptor::ContextCache(match d.g() {
                    1 => ContextScope::Global,
                    2 => ContextScope::Domain(did),
                    3 => ContextScope::Device {
                        did,
                        sid: d.sid(),
                        mask: function_mask(d.fm().into()),
                    },
                    _ => return Err(GRANULARITY),
                }))
            }
            IotlbInvalidate::TYPE => {
                let d = IotlbInvalidate(low);
                check(IotlbInvalidate::FIELDS, [0; 2])?;
                let drain = mode.always_drain || d.dw() && cap.dwd() || d.dr() && cap.drd();
                let did = domain(d.did());
                let leaf_only = d.g() == 3 && d.ih();
                let scope = match d.g() {
                    1 => IotlbScope::Global,
                    2 => IotlbScope::Domain(did),
                    3 if cap.psi() => {
                        IotlbScope::DomainPages(did, pages(d.am(), d.addr(), cap.mamv())?)
                    }
                    _ => return Err(GRANULARITY),
                };
                Ok(Descriptor::Iotlb {
                    scope,
                    leaf_only,
                    drain,
                })
            }
            DeviceTlbInvalidate::TYPE if ecap.dt() => {
                let d = DeviceTlbInvalidate(low);
                let pfsid = DeviceTlbInvalidate::ZERO.with_pfsid(SourceId(!0));
                let missing = if ecap.dit() { [0; 2] } else { pfsid.0 };
                check(DeviceTlbInvalidate::FIELDS, missing)?;
                Ok(Descriptor::DeviceTlb(DeviceTlbInvalidation {
                    sid: d.sid(),
                    pfsid: if ecap.dit() { d.pfsid() } else { d.sid() },
                    max_pending: max_pending(d.mip()),
                    pasid: None,
                    global: false,
                    range: AlignedRange::decode(d.addr(), d.s()),
                }))
            }
            InterruptEntryCacheInvalidate::TYPE if ecap.ir() => {
                let d = InterruptEntryCacheInvalidate(low);
                check(InterruptEntryCacheInvalidate::FIELDS, [0; 2])?;
                let mask = d.im();
                if d.g() && mask > ecap.mhmv() {
                    return Err(invalid("index mask (IM)"));
                }
                let some = d.g().then(|| (d.iidx() & (!0 << mask), mask));
                Ok(Descriptor::InterruptEntryCache(some))
            }
            InvalidationWait::TYPE => {
                let d = InvalidationWait(low);
                let drain = InvalidationWait::ZERO.with_pd(true);
                let missing = if ecap.pds() { [0; 2] } else { drain.0 };
                check(InvalidationWait::FIELDS, missing)?;
                // Hardware ignores the bits beyond the host address width.
                let address = d.status_addr() & mask(mode.host_address_width as u32 - 1, 2);
                Ok(Descriptor::Wait(Wait {
                    interrupt: d.interrupt(),
                    status: d.sw().then(|| (address, d.status_data())),
                    fence: d.fence(),
                    page_request_drain: d.pd(),
                }))
            }
            PasidIotlbInvalidate::TYPE => {
                let d = PasidIotlbInvalidate(low);
                check(PasidIotlbInvalidate::FIELDS, [0; 2])?;
                let (did, pasid) = (domain(d.did()), pasid_of(d.pasid()));
                let leaf_only = d.g() == 3 && d.ih();
                let scope = match d.g() {
                    2 => IotlbScope::Pasid(did, pasid?),
                    3 => IotlbScope::PasidPages(did, pasid?, pages(d.am(), d.addr(), 63)?),
                    _ => return Err(GRANULARITY),
                };
                Ok(Descriptor::Iotlb {
                    scope,
                    leaf_only,
                    drain: true,
                })
            }
            PasidCacheInvalidate::TYPE => {
                let d = PasidCacheInvalidate(low);
                check(PasidCacheInvalidate::FIELDS, [0; 2])?;
                let did = domain(d.did());
                Ok(Descriptor::PasidCache(match d.g() {
                    0 => PasidScope::Domain(did),
                    1 => PasidScope::Pasid(did, pasid_of(d.pasid())?),
                    3 => PasidScope::Global,
                    _ => return Err(GRANULARITY),
                }))
            }
            PasidDeviceTlbInvalidate::TYPE if ecap.dt() => {
                let d = PasidDeviceTlbInvalidate(low);
                let pfsid = PasidDeviceTlbInvalidate::ZERO.with_pfsid(SourceId(!0));
                let missing = if ecap.dit() { [0; 2] } else { pfsid.0 };
                check(PasidDeviceTlbInvalidate::FIELDS, missing)?;
                Ok(Descriptor::DeviceTlb(DeviceTlbInvalidation {
                    sid: d.sid(),
                    pfsid: if ecap.dit() { d.pfsid() } else { d.sid() },
                    max_pending: max_pending(d.mip()),
                    pasid: Some(pasid_of(d.pasid())?),
                    global: d.g(),
                    range: AlignedRange::decode(d.addr(), d.s()),
                }))
            }
            PageGroupResponse::TYPE if ecap.prs() => {
                let d = PageGroupResponse(low);
                check(PageGroupResponse::FIELDS, [0; 2])?;
                let prgi = Prgi::new(d.prgi()).map_err(|_| invalid("PRGI"))?;
                let pasid = pasid_of(d.pasid());
                Ok(Descriptor::PageGroupResponse {
                    rid: d.rid(),
                    response: PrgResponse {
                        prgi,
                        pasid: if d.pp() { Some(pasid?) } else { None },
                        code: ResponseCode::from_bits(d.code()),
                    },
                })
            }
            _ => Err(UNKNOWN),
        }
    }
}

/// The bits of a requester id that a Function Mask leaves (table 21).
pub const fn function_mask(fm: u64) -> u16 {
    match fm {
        0 => !0,
        1 => !4,
        2 => !6,
        _ => !7,
    }
}

/// MIP, where 0 means 32.
const fn max_pending(mip: u8) -> u8 {
    if mip == 0 { 32 } else { mip }
}

#[cfg(test)]
mod tests {
    use super::super::bit;
    use super::*;

    /// Everything is supported, with DIT only where `dit` says so.
    fn context(dit: bool) -> UnitMode {
        let ecap = 1 << 1 | 1 << 2 | 1 << 3 | 15 << 20 | 1 << 29 | 1 << 40 | 1 << 42 | 1 << 43;
        UnitMode {
            cap: Capability(6 | 1 << 39 | 18 << 48 | 3 << 54),
            ecap: ExtendedCapability(ecap | (dit as u64) << 41),
            host_address_width: 46,
            scalable_types: true,
            always_drain: false,
        }
    }

    /// A valid descriptor of each type and granularity, with its reserved bits by word as the
    /// figures of section 6.5.2 and 7.6.1 show them.
    const VALID: &[([u64; 2], [u64; 2])] = &[
        ([0x0011, 0], [0xfffc_0000_0000_f1c0, !0]),
        ([0x0021, 0], [0xfffc_0000_0000_f1c0, !0]),
        ([0x0031, 0], [0xfffc_0000_0000_f1c0, !0]),
        ([0x0012, 0], [0xffff_ffff_0000_f100, 0xf80]),
        ([0x0022, 0], [0xffff_ffff_0000_f100, 0xf80]),
        ([0x0032, 0], [0xffff_ffff_0000_f100, 0xf80]),
        ([0x0003, 0], [0xffff_0000_ffe0_f1f0, 0xffe]),
        ([0x0004, 0], [0xffff_0000_07ff_f1e0, !0]),
        ([0x0014, 0], [0xffff_0000_07ff_f1e0, !0]),
        ([0x0005, 0], [0xffff_f100, 3]),
        ([0x0026, 0], [0xfff0_0000_0000_f1c0, 0xf80]),
        ([0x0036, 0], [0xfff0_0000_0000_f1c0, 0xf80]),
        ([0x0007, 0], [0xfff0_0000_0000_f1c0, !0]),
        ([0x0017, 0], [0xfff0_0000_0000_f1c0, !0]),
        ([0x0037, 0], [0xfff0_0000_0000_f1c0, !0]),
        ([0x0008, 0], [0xfff0_0000_0000_f000, 0x7fe]),
        ([0x0009, 0], [0xfff0_0000_0000_01e0, 0xffff_ffff_ffff_f003]),
    ];

    #[test]
    fn exactly_the_reserved_bits_are_refused() {
        for &([w0, w1], reserved) in VALID {
            let parse = |w| Descriptor::parse(w, &context(false)).map_err(|e| e.error);
            assert!(parse([w0, w1, 0, 0]).is_ok(), "{w0:#x}");
            for n in 0..64 {
                // Bits of the type and of the granularity make another descriptor.
                let identity = n < 6 && !matches!(w0 & 0xf, 3 | 4 | 5 | 8 | 9)
                    || n < 4
                    || (9..12).contains(&n)
                    || w0 & 0xf == 4 && n == 4;
                if !identity {
                    let refused = parse([w0 | 1 << n, w1, 0, 0]) == Err(QueueError::Reserved);
                    // The index mask is bounded by MHMV.
                    let beyond = w0 & 0x1f == 0x14 && n == 31;
                    assert_eq!(refused, bit(reserved[0], n) || beyond, "{w0:#x} bit {n}");
                }
                // The address mask of a page-selective IOTLB invalidation is bounded by MAMV.
                let beyond = w0 & 0x3f == 0x32 && n == 5;
                let refused = parse([w0, w1 | 1 << n, 0, 0]) == Err(QueueError::Reserved);
                assert_eq!(
                    refused,
                    bit(reserved[1], n) || beyond,
                    "{w0:#x} bit {}",
                    64 + n
                );
                assert_eq!(parse([w0, w1, 1 << n, 0]), Err(QueueError::Reserved));
                assert_eq!(parse([w0, w1, 0, 1 << n]), Err(QueueError::Reserved));
            }
        }
    }

    #[test]
    fn reserved_granularities_are_refused() {
        for w0 in [0x01, 0x02, 0x06, 0x16, 0x27] {
            let got = Descriptor::parse([w0, 0, 0, 0], &context(false));
            let wrong = got.map_err(|e| e.wrong);
            assert_eq!(wrong, Err(Wrong::Field("granularity (G)")), "{w0:#x}");
        }
    }

    #[test]
    fn types_are_valid_where_table_26_says_so() {
        let mut legacy = context(false);
        legacy.scalable_types = false;
        for kind in 0..128u64 {
            let w0 = kind & 15 | (kind >> 4) << 9 | 0x20;
            // A granularity of 2 is reserved in some types; the type itself is known.
            let known = |c: &UnitMode| {
                let got = Descriptor::parse([w0, 0, 0, 0], c);
                got.map_err(|e| e.error) != Err(QueueError::Type)
            };
            assert_eq!(known(&context(false)), (1..=9).contains(&kind), "{kind}");
            assert_eq!(known(&legacy), (1..=5).contains(&kind), "{kind}");
        }
        let mut without = context(false);
        without.ecap = ExtendedCapability(1 << 1 | 1 << 43);
        for w0 in [3, 4, 8, 9] {
            let got = Descriptor::parse([w0, 0, 0, 0], &without).map_err(|e| e.error);
            assert_eq!(got, Err(QueueError::Type), "{w0}");
        }
    }

    #[test]
    fn an_index_mask_beyond_mhmv_is_refused() {
        let im = |im: u64| Descriptor::parse([im << 27 | 1 << 4 | 4, 0, 0, 0], &context(false));
        for selective in 0..16 {
            let all_low = Descriptor::InterruptEntryCache(Some((0, selective as u8)));
            assert_eq!(im(selective), Ok(all_low));
        }
        for beyond in 16..32 {
            let wrong = im(beyond).map_err(|e| (e.error, e.wrong));
            let expected = (QueueError::Reserved, Wrong::Field("index mask (IM)"));
            assert_eq!(wrong, Err(expected), "{beyond}");
            // The mask of a global invalidation means nothing.
            let global = Descriptor::parse([beyond << 27 | 4, 0, 0, 0], &context(false));
            assert_eq!(global, Ok(Descriptor::InterruptEntryCache(None)));
        }
    }

    #[test]
    fn what_was_wrong_is_told() {
        let wrong = |w| Descriptor::parse(w, &context(false)).map_err(|e| e.wrong.to_string());
        let told = |text: &str| Err(text.to_string());
        assert_eq!(wrong([0x0f, 0, 0, 0]), told("type"));
        assert_eq!(
            wrong([0x115, 0, 0, 0]),
            told("reserved bits 0x100 of word 0")
        );
        assert_eq!(wrong([0x11, 0, 5, 0]), told("reserved bits 0x5 of word 2"));
        assert_eq!(wrong([0x32, 19, 0, 0]), told("address mask (AM)"));
    }

    #[test]
    fn fields_of_device_tlb_invalidations() {
        let w = [
            0xabc0_0000_0000_0000 | 0x1234 << 32 | 5 << 16 | 0xd << 12 | 3,
            0x7fff_ffff_ffff_f001,
            0,
            0,
        ];
        let Ok(Descriptor::DeviceTlb(d)) = Descriptor::parse(w, &context(true)) else {
            panic!("not a device-TLB invalidation");
        };
        assert_eq!((d.sid, d.pfsid), (SourceId(0x1234), SourceId(0xabcd)));
        assert_eq!((d.max_pending, d.pasid, d.global), (5, None, false));
        assert_eq!(d.range, AlignedRange::ALL);

        let w = [
            0x54321 << 32 | 0x1234 << 16 | 8,
            0x20_0000 | 0xf_f000 | 0x801,
            0,
            0,
        ];
        let Ok(Descriptor::DeviceTlb(d)) = Descriptor::parse(w, &context(false)) else {
            panic!("not a device-TLB invalidation");
        };
        assert_eq!((d.sid, d.pfsid), (SourceId(0x1234), SourceId(0x1234)));
        assert_eq!((d.max_pending, d.global), (32, true));
        assert_eq!(d.pasid.map(Pasid::get), Some(0x54321));
        assert_eq!((d.range.base(), d.range.shift()), (0x20_0000, 21));
    }

    #[test]
    fn a_response_may_have_no_pasid() {
        let w = [0x1234 << 16 | 0xf << 12 | 9, 0x1ff << 3 | 4, 0, 0];
        let got = Descriptor::parse(w, &context(false));
        let Ok(Descriptor::PageGroupResponse { rid, response }) = got else {
            panic!("{got:?}");
        };
        assert_eq!((rid, response.pasid), (SourceId(0x1234), None));
        assert_eq!(response.prgi.get(), 0x1ff);
        assert_eq!(response.code, ResponseCode::ResponseFailure);
    }

    #[test]
    fn a_wait_ignores_address_bits_beyond_the_host() {
        let w = [0xdead_beef << 32 | 0xf5, 0xffff_0000_1234_5678, 0, 0];
        assert_eq!(
            Descriptor::parse(w, &context(false)),
            Ok(Descriptor::Wait(Wait {
                interrupt: true,
                status: Some((0x1234_5678, 0xdead_beef)),
                fence: true,
                page_request_drain: true,
            }))
        );
    }
}
