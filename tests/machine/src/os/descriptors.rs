// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors of the invalidation queue as software writes them (sections 6.5.2 and 7.6.1 of the
//! VT-d specification): the lower 128 bits; the upper ones of the wide format are zero.

use pcie_ats::{AlignedRange, Pasid, PrgResponse};
use vtd::spec::SourceId;

/// A descriptor.
pub type Words = [u64; 2];

/// All of the context cache.
pub const CONTEXT_GLOBAL: Words = [0x11, 0];
/// All of the PASID cache.
pub const PASID_GLOBAL: Words = [0x37, 0];
/// All of the IOTLB.
pub const IOTLB_GLOBAL: Words = [0x12 | 0xc0, 0];
/// All of the interrupt entry cache.
pub const INTERRUPTS_GLOBAL: Words = [0x04, 0];

fn domain_field(did: u16) -> u64 {
    u64::from(did) << 16
}

fn pasid_field(pasid: Pasid) -> u64 {
    u64::from(pasid.get()) << 32
}

/// AM and the address of a range.
fn pages(range: AlignedRange) -> u64 {
    range.base() | u64::from(range.shift() - 12)
}

/// The context entry of a function.
pub fn context_device(did: u16, function: SourceId) -> Words {
    [u64::from(function.0) << 32 | domain_field(did) | 0x31, 0]
}

/// A PASID's entry of the PASID cache.
pub fn pasid_entry(did: u16, pasid: Pasid) -> Words {
    [pasid_field(pasid) | domain_field(did) | 0x17, 0]
}

/// The IOTLB entries of a PASID.
pub fn iotlb_pasid(did: u16, pasid: Pasid) -> Words {
    [pasid_field(pasid) | domain_field(did) | 0x26, 0]
}

/// The IOTLB entries of a range in a PASID.
pub fn iotlb_pasid_pages(did: u16, pasid: Pasid, range: AlignedRange) -> Words {
    [pasid_field(pasid) | domain_field(did) | 0x36, pages(range)]
}

/// The IOTLB entries of a domain, with draining of reads and writes.
pub fn iotlb_domain(did: u16) -> Words {
    [domain_field(did) | 0x22 | 0xc0, 0]
}

/// The IOTLB entries of a range in a domain, with draining of reads and writes.
pub fn iotlb_domain_pages(did: u16, range: AlignedRange) -> Words {
    [domain_field(did) | 0x32 | 0xc0, pages(range)]
}

/// A function's Device-TLB entries without PASID in a range.
pub fn device_tlb(function: SourceId, range: AlignedRange) -> Words {
    let sid = u64::from(function.0);
    let (address, s) = range.encode();
    [
        sid >> 4 << 52 | sid << 32 | (sid & 15) << 12 | 0x03,
        address | u64::from(s),
    ]
}

/// A function's Device-TLB entries of a PASID in a range.
pub fn device_tlb_pasid(function: SourceId, pasid: Pasid, range: AlignedRange) -> Words {
    let sid = u64::from(function.0);
    let (address, s) = range.encode();
    [
        sid >> 4 << 52 | pasid_field(pasid) | sid << 16 | (sid & 15) << 12 | 0x08,
        address | u64::from(s) << 11,
    ]
}

/// The type field has its upper bits in 11:9, which makes 9 (page group response) 9 and nothing
/// more: all types up to 15 fit into bits 3:0.
const PAGE_GROUP_RESPONSE: u64 = 0x09;

/// A page request group response.
pub fn page_group_response(function: SourceId, response: &PrgResponse) -> Words {
    let pasid = match response.pasid {
        Some(pasid) => pasid_field(pasid) | 1 << 4,
        None => 0,
    };
    [
        pasid
            | u64::from(function.0) << 16
            | u64::from(response.code.bits()) << 12
            | PAGE_GROUP_RESPONSE,
        u64::from(response.prgi.get()) << 3,
    ]
}

/// A wait that writes a status, behind which page requests that were received are visible too.
pub fn wait(address: u64, value: u32) -> Words {
    [u64::from(value) << 32 | 1 << 7 | 1 << 5 | 0x05, address]
}

/// A wait that writes a status and holds back what follows it.
pub fn fence(address: u64, value: u32) -> Words {
    let [low, high] = wait(address, value);
    [low | 1 << 6, high]
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcie_ats::{Prgi, ResponseCode};
    use vtd::spec::DomainId;
    use vtd::spec::descriptor::{
        Context, ContextScope, Descriptor, DeviceTlbInvalidation, IotlbScope, PasidScope,
    };

    fn parse(words: Words) -> Descriptor {
        let caps = vtd::Capabilities::new(crate::unit()).unwrap();
        let context = Context {
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
            Descriptor::Iotlb { scope, drain: true } => scope,
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
