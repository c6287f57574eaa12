// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page request descriptor, which the unit writes (section 7.4.1.1).

use super::{SourceId, bit, field, mask};
use pcie_ats::{OutOfRange, PageRequest, Pasid, Prgi};

/// Bytes of a page request descriptor.
pub const SIZE: u64 = 32;

/// A page request descriptor (page_req_dsc, section 7.4.1.1).
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
        let (pp, pasid) = match r.pasid {
            Some(pasid) => (1, pasid.get() as u64),
            None => (0, 0),
        };
        // EXR means something with a PASID and a read only.
        let exr = r.execute && r.read && r.pasid.is_some();
        [
            1 | pp << 8
                | (self.rid.0 as u64) << 16
                | pasid << 32
                | (exr as u64) << 52
                | (r.privileged as u64) << 53,
            r.read as u64
                | (r.write as u64) << 1
                | (r.last as u64) << 2
                | (r.prgi.get() as u64) << 3
                | r.address & mask(63, 12),
            0,
            0,
        ]
    }

    /// The descriptor that four words carry.
    pub fn from_words(words: [u64; 4]) -> Result<Self, OutOfRange> {
        let [w0, w1, ..] = words;
        let pasid = match bit(w0, 8) {
            true => Some(Pasid::new(field(w0, 51, 32) as u32)?),
            false => None,
        };
        Ok(PageRequestDescriptor {
            rid: SourceId(field(w0, 31, 16) as u16),
            request: PageRequest {
                address: w1 & mask(63, 12),
                pasid,
                read: bit(w1, 0),
                write: bit(w1, 1),
                execute: bit(w0, 52),
                privileged: bit(w0, 53),
                prgi: Prgi::new(field(w1, 11, 3) as u16)?,
                last: bit(w1, 2),
            },
        })
    }
}

#[cfg(test)]
mod tests {
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
