// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two traits between an endpoint and what is above it.
//!
//! Neither side may hold a lock of its own while it calls the other: a memory write can reach
//! the function's own BAR, a page request can be answered before its call returns, and an
//! invalidation can arrive at any time.

use crate::{
    CopyError, InvalidateCompletion, InvalidateRequest, Invalidation, MemoryError, MemoryRequest,
    PageRequest, PrgResponse, Translation, TranslationError, TranslationRequest,
};

/// What a function sends upstream. A virtual machine monitor, an in-process machine, a mock and a
/// fuzzer are implementations.
pub trait RootPort {
    /// Sends a translation request and waits for its completion. Fills `translations` from the
    /// front and returns their number, at least 1: contiguous ranges from the request's address
    /// on. Fewer than asked for is legal (PCIe 10.2.3).
    fn translate(
        &self,
        request: &TranslationRequest,
        translations: &mut [Translation],
    ) -> Result<usize, TranslationError>;

    /// Sends a page request. It is a posted message: nothing is known until the response to its
    /// group comes to [`Function::prg_response`], which may be before this returns.
    fn page_request(&self, request: &PageRequest);

    /// Reads memory.
    fn read(&self, request: &MemoryRequest, data: &mut [u8]) -> Result<(), MemoryError>;

    /// Writes memory. When it returns, the data is visible to every reader.
    fn write(&self, request: &MemoryRequest, data: &[u8]) -> Result<(), MemoryError>;

    /// Reads memory and writes what was read to another place, as many bytes as `buffer` has: all
    /// is read before any is written, so that the two may overlap. What `buffer` holds then is not
    /// said.
    ///
    /// It is no request of its own, but a read and a write that are sent at one moment, for
    /// callers that can do without the copy in the middle. An implementation in which
    /// anything could happen between the two leaves this as it is, or answers so for some requests:
    /// the function then sends the one, looks whether its state still permits the other, and sends
    /// that.
    fn copy(
        &self,
        _source: &MemoryRequest,
        _destination: &MemoryRequest,
        _buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        Err(CopyError::Apart)
    }

    /// Writes memory so that its first `head` bytes are visible last: a reader that sees one of
    /// them sees all of the others. None if nothing was written, because that cannot be done at one
    /// moment here.
    ///
    /// Like [`RootPort::copy`] it stands for two requests, the rest and then the head, for
    /// callers that need less time than it takes to send two.
    fn publish(
        &self,
        _request: &MemoryRequest,
        _data: &[u8],
        _head: usize,
    ) -> Option<Result<(), MemoryError>> {
        None
    }

    /// Adds to the 8-byte number at an address aligned to 8 bytes, in one atomic access, and
    /// returns what it was before (AtomicOp FetchAdd, PCIe 6.15).
    fn fetch_add(&self, request: &MemoryRequest, addend: u64) -> Result<u64, MemoryError>;

    /// Writes `new` to the 8-byte number at an address aligned to 8 bytes, if the number is
    /// `expected`, in one atomic access, and returns what it was before (AtomicOp CAS, PCIe 6.15).
    ///
    /// An implementation has to compare and write without another access between the two, by the
    /// processor's own instruction where memory is mapped. One that cannot leaves this as it is:
    /// an AtomicOp that a completer does not know is refused and changes nothing.
    fn compare_and_swap(
        &self,
        _request: &MemoryRequest,
        _expected: u64,
        _new: u64,
    ) -> Result<u64, MemoryError> {
        Err(MemoryError::Unsupported {
            what: "an atomic compare-and-swap",
        })
    }

    /// Sends the message of an MSI-X vector.
    fn interrupt(&self, vector: u16);

    /// Completes invalidation requests that were pending.
    fn invalidate_completion(&self, completion: &InvalidateCompletion);
}

/// Kinds of reset that reach a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Fundamental or hot reset: everything is as after power-up (PCIe 6.6.1).
    Conventional,
    /// Function Level Reset (PCIe 6.6.2).
    FunctionLevel,
}

/// What comes down to a function.
///
/// Every method may be called from any thread, also from inside a call of [`RootPort`], and
/// returns without waiting.
pub trait Function {
    /// Reads the configuration double word at `offset`, a multiple of 4.
    fn config_read(&self, offset: u16) -> u32;

    /// Writes the bytes of a configuration double word whose bits are set in `mask`.
    fn config_write(&self, offset: u16, value: u32, mask: u32);

    /// Reads `size` bytes of a BAR.
    fn bar_read(&self, bar: u8, offset: u64, size: u8) -> u64;

    /// Writes `size` bytes of a BAR.
    fn bar_write(&self, bar: u8, offset: u64, value: u64, size: u8);

    /// Receives an invalidation request.
    fn invalidate(&self, request: &InvalidateRequest) -> Invalidation;

    /// Receives a page request group response.
    fn prg_response(&self, response: &PrgResponse);

    /// Is reset.
    fn reset(&self, kind: Reset);
}
