// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors of the invalidation queue that software writes (sections 6.5.2 and 7.6.1 of the VT-d
//! specification): the lower 128 bits; the upper ones of the wide format are zero.

use pcie_ats::{AlignedRange, Pasid, PrgResponse};
use vtd::spec::invalidation::{
    ContextCacheInvalidate, DeviceTlbInvalidate, InterruptEntryCacheInvalidate, InvalidationWait,
    IotlbInvalidate, PageGroupResponse, PasidCacheInvalidate, PasidDeviceTlbInvalidate,
    PasidIotlbInvalidate,
};
use vtd::spec::{DomainId, SourceId};

/// A descriptor.
pub type Words = [u64; 2];

/// All of the context cache.
pub const CONTEXT_GLOBAL: Words = ContextCacheInvalidate::new().with_g(1).0;
/// All of the PASID cache.
pub const PASID_GLOBAL: Words = PasidCacheInvalidate::new().with_g(3).0;
/// All of the IOTLB.
pub const IOTLB_GLOBAL: Words = drained().with_g(1).0;
/// All of the interrupt entry cache.
pub const INTERRUPTS_GLOBAL: Words = InterruptEntryCacheInvalidate::new().0;

/// An IOTLB invalidation with draining of reads and writes.
const fn drained() -> IotlbInvalidate {
    IotlbInvalidate::new().with_dw(true).with_dr(true)
}

/// AM of a range.
fn address_mask(range: AlignedRange) -> u8 {
    range.shift() - 12
}

/// The context entry of a function.
pub fn context_device(did: u16, function: SourceId) -> Words {
    let entry = ContextCacheInvalidate::new().with_g(3);
    entry.with_did(DomainId(did)).with_sid(function).0
}

/// A PASID's entry of the PASID cache.
pub fn pasid_entry(did: u16, pasid: Pasid) -> Words {
    let entry = PasidCacheInvalidate::new().with_g(1);
    entry.with_did(DomainId(did)).with_pasid(pasid.get()).0
}

/// The IOTLB entries of a PASID.
pub fn iotlb_pasid(did: u16, pasid: Pasid) -> Words {
    let entries = PasidIotlbInvalidate::new().with_g(2);
    entries.with_did(DomainId(did)).with_pasid(pasid.get()).0
}

/// The IOTLB entries of a range in a PASID.
pub fn iotlb_pasid_pages(did: u16, pasid: Pasid, range: AlignedRange) -> Words {
    PasidIotlbInvalidate::new()
        .with_g(3)
        .with_did(DomainId(did))
        .with_pasid(pasid.get())
        .with_addr(range.base())
        .with_am(address_mask(range))
        .0
}

/// The IOTLB entries of a domain, with draining of reads and writes.
pub fn iotlb_domain(did: u16) -> Words {
    drained().with_g(2).with_did(DomainId(did)).0
}

/// The IOTLB entries of a range in a domain, with draining of reads and writes.
pub fn iotlb_domain_pages(did: u16, range: AlignedRange) -> Words {
    let pages = drained().with_g(3).with_did(DomainId(did));
    pages.with_addr(range.base()).with_am(address_mask(range)).0
}

/// A function's Device-TLB entries without PASID in a range.
pub fn device_tlb(function: SourceId, range: AlignedRange) -> Words {
    let (address, s) = range.encode();
    DeviceTlbInvalidate::new()
        .with_sid(function)
        .with_pfsid(function)
        .with_addr(address)
        .with_s(s)
        .0
}

/// A function's Device-TLB entries of a PASID in a range.
pub fn device_tlb_pasid(function: SourceId, pasid: Pasid, range: AlignedRange) -> Words {
    let (address, s) = range.encode();
    PasidDeviceTlbInvalidate::new()
        .with_sid(function)
        .with_pfsid(function)
        .with_pasid(pasid.get())
        .with_addr(address)
        .with_s(s)
        .0
}

/// A page request group response.
pub fn page_group_response(function: SourceId, response: &PrgResponse) -> Words {
    PageGroupResponse::new()
        .with_rid(function)
        .with_pp(response.pasid.is_some())
        .with_pasid(response.pasid.map_or(0, Pasid::get))
        .with_code(response.code.bits())
        .with_prgi(response.prgi.get())
        .0
}

/// A wait that writes a status, behind which page requests that were received are visible too.
fn drain(address: u64, value: u32) -> InvalidationWait {
    let wait = InvalidationWait::new().with_sw(true).with_pd(true);
    wait.with_status_addr(address).with_status_data(value)
}

/// The same, as its words.
pub fn wait(address: u64, value: u32) -> Words {
    drain(address, value).0
}

/// A wait that writes a status and holds back what follows it.
pub fn fence(address: u64, value: u32) -> Words {
    drain(address, value).with_fence(true).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcie_ats::{Prgi, ResponseCode};
    use vtd::spec::descriptor::{
        ContextScope, Descriptor, DeviceTlbInvalidation, IotlbScope, PasidScope, UnitMode,
    };

    fn parse(words: Words) -> Descriptor {
        let caps = vtd::Capabilities::new(crate::unit()).unwrap();
        let context = UnitMode {
            cap: caps.cap(),
            ecap: caps.ecap(),
            host_address_width: 46,
            scalable_types: true,
            always_drain: false,
        };
        Descriptor::parse([words[0], words[1], 0, 0], &context).unwrap()
    }

    #[test]
    fn the_unit_reads_what_software_wrote() {
        let (function, pasid, did) = (SourceId(0x1234), Pasid::new(0xabcde).unwrap(), 0x55);
        let domain = DomainId(did);
        let range = AlignedRange::containing(0x7f12_3456_7000, 21).unwrap();
        let scope = |words| match parse(words) {
            Descriptor::Iotlb {
                scope, drain: true, ..
            } => scope,
            other => panic!("{other:?}"),
        };
        assert_eq!(scope(IOTLB_GLOBAL), IotlbScope::Global);
        assert_eq!(scope(iotlb_domain(did)), IotlbScope::Domain(domain));
        assert_eq!(
            scope(iotlb_domain_pages(did, range)),
            IotlbScope::DomainPages(domain, range)
        );
        assert_eq!(
            scope(iotlb_pasid(did, pasid)),
            IotlbScope::Pasid(domain, pasid)
        );
        assert_eq!(
            scope(iotlb_pasid_pages(did, pasid, range)),
            IotlbScope::PasidPages(domain, pasid, range)
        );
        assert_eq!(
            parse(pasid_entry(did, pasid)),
            Descriptor::PasidCache(PasidScope::Pasid(domain, pasid))
        );
        assert_eq!(
            parse(PASID_GLOBAL),
            Descriptor::PasidCache(PasidScope::Global)
        );
        assert_eq!(
            parse(CONTEXT_GLOBAL),
            Descriptor::ContextCache(ContextScope::Global)
        );
        assert_eq!(
            parse(context_device(did, function)),
            Descriptor::ContextCache(ContextScope::Device {
                did: domain,
                sid: function,
                mask: !0
            })
        );
        assert_eq!(
            parse(INTERRUPTS_GLOBAL),
            Descriptor::InterruptEntryCache(None)
        );
        for (words, pasid, range) in [
            (device_tlb(function, range), None, range),
            (device_tlb_pasid(function, pasid, range), Some(pasid), range),
            (
                device_tlb_pasid(function, pasid, AlignedRange::ALL),
                Some(pasid),
                AlignedRange::ALL,
            ),
        ] {
            assert_eq!(
                parse(words),
                Descriptor::DeviceTlb(DeviceTlbInvalidation {
                    sid: function,
                    pfsid: function,
                    max_pending: 32,
                    pasid,
                    global: false,
                    range,
                })
            );
        }
        for pasid in [None, Some(pasid)] {
            let response = PrgResponse {
                prgi: Prgi::new(0x155).unwrap(),
                pasid,
                code: ResponseCode::InvalidRequest,
            };
            assert_eq!(
                parse(page_group_response(function, &response)),
                Descriptor::PageGroupResponse {
                    rid: function,
                    response
                }
            );
        }
        let Descriptor::Wait(wait) = parse(fence(0x1000, 7)) else {
            panic!("not a wait");
        };
        assert_eq!(wait.status, Some((0x1000, 7)));
        assert!(wait.fence && wait.page_request_drain && !wait.interrupt);
    }
}
