// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page request descriptor, which the unit writes (section 7.4.1.1).

use super::SourceId;
use super::layout::layout;
use pcie_ats::{OutOfRange, PageRequest, Pasid, Prgi};

/// Bytes of a page request descriptor.
pub const SIZE: u64 = 32;

layout! {
    /// The bits of a page request descriptor (page_req_dsc, section 7.4.1.1).
    pub struct PageRequestBits([u64; 4]) {
        /// Type: 1.
        kind, with_kind: u8 = 0[7:0];
        /// PP: PASID Present.
        pp, with_pp: bool = 0[8];
        /// RID: requester.
        rid, with_rid: SourceId = 0[31:16];
        /// PASID.
        pasid, with_pasid: u32 = 0[51:32];
        /// EXR: Execute Requested.
        exr, with_exr: bool = 0[52];
        /// PR: Privileged mode Requested.
        pr, with_pr: bool = 0[53];
        /// RD: Read Requested.
        rd, with_rd: bool = 1[0];
        /// WR: Write Requested.
        wr, with_wr: bool = 1[1];
        /// LPIG: Last Page In Group.
        lpig, with_lpig: bool = 1[2];
        /// PRGI: Page Request Group Index.
        prgi, with_prgi: u16 = 1[11:3];
        /// ADDR: address of the page.
        addr, with_addr: pointer = 1[63:12];
    }
}

/// What a page request descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequestDescriptor {
    /// RID: requester.
    pub rid: SourceId,
    /// The page request itself.
    pub request: PageRequest,
}

impl PageRequestDescriptor {
    /// The four 64-bit words; the upper two are reserved and zero.
    pub fn to_words(&self) -> [u64; 4] {
        let r = &self.request;
        PageRequestBits::ZERO
            .with_kind(1)
            .with_pp(r.pasid.is_some())
            .with_rid(self.rid)
            .with_pasid(r.pasid.map_or(0, Pasid::get))
            // EXR means something with a PASID and a read only.
            .with_exr(r.execute && r.read && r.pasid.is_some())
            .with_pr(r.privileged)
            .with_rd(r.read)
            .with_wr(r.write)
            .with_lpig(r.last)
            .with_prgi(r.prgi.get())
            .with_addr(r.address)
            .0
    }

    /// The descriptor that four words carry.
    pub fn from_words(words: [u64; 4]) -> Result<Self, OutOfRange> {
        let bits = PageRequestBits(words);
        let pasid = match bits.pp() {
            true => Some(Pasid::new(bits.pasid())?),
            false => None,
        };
        Ok(PageRequestDescriptor {
            rid: bits.rid(),
            request: PageRequest {
                address: bits.addr(),
                pasid,
                read: bits.rd(),
                write: bits.wr(),
                execute: bits.exr(),
                privileged: bits.pr(),
                prgi: Prgi::new(bits.prgi())?,
                last: bits.lpig(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::bit;
    use super::*;

    #[test]
    fn the_words_carry_every_field_and_end_in_zeros() {
        let descriptor = PageRequestDescriptor {
            rid: SourceId(0x1234),
            request: PageRequest {
                address: 0x7fff_dead_b000,
                pasid: Some(Pasid::new(0xf_edcb).unwrap()),
                read: true,
                write: true,
                execute: true,
                privileged: true,
                prgi: Prgi::new(0x1a5).unwrap(),
                last: true,
            },
        };
        let words = descriptor.to_words();
        assert_eq!(words, [0x003f_edcb_1234_0101, 0x7fff_dead_bd2f, 0, 0]);
        assert_eq!(PageRequestDescriptor::from_words(words), Ok(descriptor));
    }

    #[test]
    fn exr_needs_a_pasid_and_a_read() {
        let mut descriptor = PageRequestDescriptor {
            rid: SourceId(1),
            request: PageRequest {
                address: 0,
                pasid: None,
                read: true,
                write: false,
                execute: true,
                privileged: false,
                prgi: Prgi::new(0).unwrap(),
                last: false,
            },
        };
        assert!(!bit(descriptor.to_words()[0], 52));
        descriptor.request.pasid = Some(Pasid::new(1).unwrap());
        assert!(bit(descriptor.to_words()[0], 52));
        descriptor.request.read = false;
        assert!(!bit(descriptor.to_words()[0], 52));
    }
}
