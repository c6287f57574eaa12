// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory accesses through translations that are pinned during the access. Knows the root port's
//! memory requests, but not where translations come from.

use crate::access::{Access, Failure, Piece};
use crate::atc::Hit;
use crate::permit::{Permit, Ticket};
use pcie_ats::{
    CopyError, MAX_TRANSLATIONS, MemoryAddressType, MemoryCopy, MemoryError, MemoryRequest, Pasid,
    RootPort, Translation,
};
use svm_abi::completion::Error;

/// The largest number of bytes that one action reads or writes at one end.
pub(crate) const MAX_CHUNK: usize = 256 << 10;

/// Bytes that one translation covers, or several translations with contiguous translated ranges,
/// ready for an access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// The memory request for the first byte.
    request: MemoryRequest,
    /// Virtual address of the first byte.
    address: u64,
    /// Number of bytes, at most [`MAX_CHUNK`].
    length: usize,
}

impl Segment {
    /// The bytes of a piece from its focus on that an entry of the cache covers, at most `limit`.
    /// `untranslated` says how to reach untranslated memory.
    #[inline]
    pub fn new(piece: &Piece, hit: &Hit, untranslated: &MemoryRequest, limit: u64) -> Self {
        let focus = piece.focus();
        let covered = if piece.backward {
            focus - hit.first
        } else {
            hit.last - focus
        };
        let length = piece
            .length
            .min(limit)
            .min(covered.saturating_add(1))
            .min(MAX_CHUNK as u64);
        let below = if piece.backward { length - 1 } else { 0 };
        let first = Hit {
            output: hit.output.wrapping_sub(below),
            ..*hit
        };
        Segment::at(focus - below, &first, untranslated, length as usize)
    }

    /// Bytes from an address on that a found entry of the cache covers.
    #[inline]
    pub fn at(address: u64, hit: &Hit, untranslated: &MemoryRequest, length: usize) -> Self {
        let request = if hit.untranslated_only {
            MemoryRequest {
                address,
                ..*untranslated
            }
        } else {
            MemoryRequest::translated(hit.output)
        };
        Segment {
            request,
            address,
            length,
        }
    }

    /// The same with a PASID, for a device that breaks rule 30.
    pub fn with_pasid(mut self, pasid: Pasid) -> Self {
        self.request.pasid = Some(pasid);
        self
    }

    /// Number of bytes.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Virtual address of the first byte.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Whether a translation continues in memory where this segment ends.
    pub fn precedes(&self, next: &Hit) -> bool {
        self.request.address_type == MemoryAddressType::Translated
            && !next.untranslated_only
            && next.output.wrapping_sub(self.request.address) == self.length as u64
    }

    /// Adds bytes that follow.
    pub fn grow(&mut self, length: usize) {
        self.length += length;
    }

    /// `length` bytes from `offset` on.
    pub fn part(&self, offset: usize, length: usize) -> Segment {
        debug_assert!(offset + length <= self.length);
        let mut request = self.request;
        request.address += offset as u64;
        Segment {
            request,
            address: self.address + offset as u64,
            length,
        }
    }

    /// The first `length` bytes.
    pub fn head(&self, length: usize) -> Segment {
        self.part(0, length)
    }

    /// The last `length` bytes.
    pub fn tail(&self, length: usize) -> Segment {
        self.part(self.length - length, length)
    }
}

/// Buffers of one thread. The device keeps them from step to step.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// Bytes of the first segment.
    pub first: Box<[u8]>,
    /// Bytes of the second segment.
    pub second: Box<[u8]>,
    /// Copies that follow each other.
    pub copies: Vec<MemoryCopy>,
    /// The translations of a completion.
    pub translations: Box<[Translation]>,
}

impl Scratch {
    /// New buffers.
    pub fn new() -> Self {
        Scratch {
            first: vec![0; MAX_CHUNK].into_boxed_slice(),
            second: vec![0; MAX_CHUNK].into_boxed_slice(),
            copies: Vec::new(),
            translations: Box::new([Translation::from_word(0); MAX_TRANSLATIONS]),
        }
    }
}

/// The path to memory, which counts the bytes.
pub(crate) struct Dma<'a, P: ?Sized> {
    port: &'a P,
    permit: &'a Permit,
    ticket: Ticket,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

impl<'a, P: RootPort + ?Sized> Dma<'a, P> {
    /// The path through a root port.
    pub fn new(port: &'a P, permit: &'a Permit, ticket: Ticket) -> Self {
        Dma {
            port,
            permit,
            ticket,
            read: 0,
            written: 0,
        }
    }

    /// Fails if the work was cancelled after the decision on this access. The error is discarded
    /// with the work.
    fn check(&self, segment: &Segment, access: Access) -> Result<(), Failure> {
        if self.permit.holds(self.ticket) {
            Ok(())
        } else {
            Err(refused(segment, access))
        }
    }

    /// Reads a segment into the front of `data`, and returns that part.
    pub fn read<'d>(&mut self, segment: &Segment, data: &'d mut [u8]) -> Result<&'d [u8], Failure> {
        self.check(segment, Access::Read)?;
        let data = &mut data[..segment.length];
        self.port
            .read(&segment.request, data)
            .map_err(|_| refused(segment, Access::Read))?;
        self.read += segment.length as u64;
        Ok(data)
    }

    /// Writes as many bytes of `data` as the segment has.
    pub fn write(&mut self, segment: &Segment, data: &[u8]) -> Result<(), Failure> {
        self.check(segment, Access::Write)?;
        self.port
            .write(&segment.request, &data[..segment.length])
            .map_err(|_| refused(segment, Access::Write))?;
        self.written += segment.length as u64;
        Ok(())
    }

    /// Writes as many bytes of `data` as the segment has. The first `head` bytes become visible
    /// last.
    pub fn publish(&mut self, segment: &Segment, data: &[u8], head: usize) -> Result<(), Failure> {
        self.check(segment, Access::Write)?;
        match self
            .port
            .publish(&segment.request, &data[..segment.length], head)
        {
            Some(Ok(())) => {
                self.written += segment.length as u64;
                Ok(())
            }
            Some(Err(_)) => Err(refused(segment, Access::Write)),
            // Rule 68: each is a separate request, and checks again that it may be sent.
            None => {
                self.write(&segment.part(head, segment.length - head), &data[head..])?;
                self.write(&segment.head(head), data)
            }
        }
    }

    /// Copies between segments of the same length, which may overlap, through `buffer` if the port
    /// cannot copy directly.
    pub fn copy(&mut self, from: &Segment, to: &Segment, buffer: &mut [u8]) -> Result<(), Failure> {
        debug_assert_eq!(from.length, to.length);
        let buffer = &mut buffer[..from.length];
        // Both requests are sent at one moment, at which they are permitted.
        self.check(from, Access::Read)?;
        match self.port.copy(&from.request, &to.request, buffer) {
            Ok(()) => {
                self.read += from.length as u64;
                self.written += to.length as u64;
                Ok(())
            }
            Err(error) => self.not_copied(from, to, buffer, error),
        }
    }

    /// Copies between pairs of segments, each of the same length, like [`Dma::copy`] one after
    /// another.
    pub fn copy_all(
        &mut self,
        mut pairs: impl Iterator<Item = [Segment; 2]> + Clone,
        scratch: &mut Scratch,
    ) -> Result<(), Failure> {
        let (copies, buffer) = (&mut scratch.copies, &mut scratch.first);
        copies.clear();
        copies.extend(pairs.clone().map(|[from, to]| MemoryCopy {
            source: from.request,
            destination: to.request,
            length: from.length,
        }));
        let permitted = || self.permit.holds(self.ticket);
        let (done, error) = self.port.copy_all(copies, buffer, &permitted);
        let bytes: usize = copies.iter().take(done).map(|copy| copy.length).sum();
        self.read += bytes as u64;
        self.written += bytes as u64;
        let Some([from, to]) = pairs.nth(done) else {
            return Ok(());
        };
        let Some(error) = error else {
            return Err(refused(&from, Access::Read));
        };
        self.not_copied(&from, &to, &mut buffer[..from.length], error)?;
        for [from, to] in pairs {
            self.copy(&from, &to, buffer)?;
        }
        Ok(())
    }

    /// Handles a copy that the port has not done.
    #[cold]
    fn not_copied(
        &mut self,
        from: &Segment,
        to: &Segment,
        buffer: &mut [u8],
        error: CopyError,
    ) -> Result<(), Failure> {
        match error {
            CopyError::Read(_) => Err(refused(from, Access::Read)),
            CopyError::Write(_) => {
                self.read += from.length as u64;
                Err(refused(to, Access::Write))
            }
            // Rule 68: the write is a separate request, and checks again that it may be sent.
            CopyError::Apart => {
                let data = self.read(from, buffer)?;
                self.write(to, data)
            }
        }
    }

    /// Adds to the 8 bytes of a segment, and returns their old value.
    pub fn fetch_add(&mut self, segment: &Segment, addend: u64) -> Result<u64, Failure> {
        self.check(segment, Access::ReadWrite)?;
        let old = self.port.fetch_add(&segment.request, addend);
        self.atomic(segment, old)
    }

    /// Replaces the 8 bytes of a segment if they have the expected value, and returns their old
    /// value.
    pub fn compare_and_swap(
        &mut self,
        segment: &Segment,
        expected: u64,
        new: u64,
    ) -> Result<u64, Failure> {
        self.check(segment, Access::ReadWrite)?;
        let old = self.port.compare_and_swap(&segment.request, expected, new);
        self.atomic(segment, old)
    }

    /// Counts an AtomicOp, or returns its failure.
    fn atomic(&mut self, segment: &Segment, old: Result<u64, MemoryError>) -> Result<u64, Failure> {
        let old = old.map_err(|error| {
            let failure = refused(segment, Access::ReadWrite);
            match error {
                MemoryError::Refused { .. } => failure,
                MemoryError::Unsupported { .. } => Failure {
                    error: Error::UnsupportedAccess,
                    ..failure
                },
            }
        })?;
        self.read += 8;
        self.written += 8;
        Ok(old)
    }
}

/// The failure of an access that memory refused.
fn refused(segment: &Segment, access: Access) -> Failure {
    Failure {
        error: Error::MemoryAccess,
        address: segment.address,
        write: access.writes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(first: u64, last: u64, output: u64) -> Hit {
        Hit {
            first,
            last,
            output,
            untranslated_only: false,
        }
    }

    #[test]
    fn rule_29_a_span_ends_where_its_translation_ends() {
        let pasid = Pasid::new(1).unwrap();
        let request = MemoryRequest::untranslated(0, Some(pasid));
        let piece = Piece::forward(0x1ff0, 0x100, Access::Read);
        let segment = Segment::new(&piece, &hit(0x1000, 0x1fff, 0xaff0), &request, u64::MAX);
        assert_eq!((segment.address, segment.len()), (0x1ff0, 0x10));
        assert_eq!(segment.request, MemoryRequest::translated(0xaff0));

        let down = Piece {
            backward: true,
            ..Piece::forward(0x1f00, 0x110, Access::Read)
        };
        let segment = Segment::new(&down, &hit(0x2000, 0x2fff, 0xb00f), &request, u64::MAX);
        assert_eq!((segment.address, segment.len()), (0x2000, 0x10));
        assert_eq!(segment.request, MemoryRequest::translated(0xb000));
        assert_eq!(segment.tail(4).request, MemoryRequest::translated(0xb00c));

        let all = Piece::forward(0, u64::MAX, Access::Read);
        let segment = Segment::new(&all, &hit(0, u64::MAX, 0), &request, u64::MAX);
        assert_eq!(segment.len(), MAX_CHUNK);
    }

    #[test]
    fn rule_22_untranslated_only_ranges_are_reached_by_untranslated_requests() {
        let pasid = Pasid::new(7).unwrap();
        let piece = Piece::forward(0x1008, 8, Access::Read);
        let entry = Hit {
            untranslated_only: true,
            ..hit(0x1000, 0x1fff, 0xa008)
        };
        let request = MemoryRequest::untranslated(0, Some(pasid));
        let segment = Segment::new(&piece, &entry, &request, u64::MAX);
        assert_eq!(
            segment.request,
            MemoryRequest::untranslated(0x1008, Some(pasid))
        );
    }
}
