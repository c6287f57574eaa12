// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading descriptors from the submission ring or the array of a batch, several at a time.

use crate::access::{Access, Failure, Piece};
use crate::dma::{Dma, Scratch, Segment};
use crate::operation::Demand;
use pcie_ats::RootPort;
use svm_abi::descriptor::{Descriptor, SIZE};

/// The largest number of descriptors in one read: a page of 4 KiB.
pub(crate) const MAX_FETCH: u64 = 64;

/// A read of descriptors from memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetch {
    address: u64,
    length: u64,
    fetched: usize,
}

impl Fetch {
    /// Reads the submitted descriptors from `head` on, up to the end of the ring of 2^`log2`
    /// descriptors at `ring`. The caller ensures that there is at least one.
    pub fn new(ring: u64, log2: u32, head: u64, tail: u64) -> Self {
        let size = 1u64 << log2;
        let slot = head & (size - 1);
        let count = (tail - head).min(size - slot);
        Fetch::array(ring + slot * SIZE as u64, count)
    }

    /// Reads from an array of `count` descriptors, at least one.
    pub fn array(address: u64, count: u64) -> Self {
        Fetch {
            address,
            length: count.min(MAX_FETCH) * SIZE as u64,
            fetched: 0,
        }
    }

    /// What it needs next.
    pub fn demand(&self) -> Demand {
        if self.fetched != 0 {
            return Demand::Done(0);
        }
        let piece = Piece::forward(self.address, self.length, Access::Read);
        Demand::Access(piece, None)
    }

    /// Reads as many whole descriptors as the segment holds: at least one, because both descriptors
    /// and translations are aligned.
    pub fn perform<P: RootPort + ?Sized>(
        &mut self,
        dma: &mut Dma<'_, P>,
        segments: &[Segment],
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let [segment] = segments else { return Ok(()) };
        self.fetched = dma.read(segment, &mut scratch.first)?.len();
        Ok(())
    }

    /// The descriptors that were read.
    pub fn descriptors<'s>(&self, scratch: &'s Scratch) -> impl Iterator<Item = Descriptor> + 's {
        let bytes = &scratch.first[..self.fetched];
        bytes.chunks_exact(SIZE).map(|chunk| {
            let mut bytes = [0; SIZE];
            bytes.copy_from_slice(chunk);
            Descriptor::from_bytes(&bytes)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fetch_ends_at_the_tail_at_the_end_of_the_ring_and_after_a_page() {
        let piece = |log2, head, tail| match Fetch::new(0x1000, log2, head, tail).demand() {
            Demand::Access(piece, None) => (piece.address, piece.length),
            other => panic!("{other:?}"),
        };
        assert_eq!(piece(4, 0, 1), (0x1000, 64));
        assert_eq!(piece(4, 14, 20), (0x1000 + 14 * 64, 128));
        assert_eq!(piece(4, 16, 20), (0x1000, 256));
        assert_eq!(piece(15, 0, 30000), (0x1000, 4096));
        assert_eq!(piece(0, 7, 8), (0x1000, 64));
    }
}
