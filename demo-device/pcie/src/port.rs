// SPDX-License-Identifier: MIT OR Apache-2.0
//! The two traits between an endpoint and the root complex above it.
//!
//! Neither side may hold a lock of its own while it calls the other: a memory write can reach the
//! function's own BAR, the response to a page request can arrive before its call returns, and an
//! invalidation can arrive at any time.

use crate::{
    CopyError, InvalidateCompletion, InvalidateRequest, Invalidation, MemoryCopy, MemoryError,
    MemoryRequest, PageRequest, PrgResponse, Translation, TranslationError, TranslationRequest,
};

/// What a function sends upstream. A virtual machine monitor, an in-process machine, a mock and a
/// fuzzer implement it.
pub trait RootPort {
    /// Sends a translation request and waits for its completion. Fills `translations` from the
    /// front and returns their number, at least 1: contiguous ranges from the request's address on.
    /// Fewer than requested is legal (PCIe 10.2.3).
    fn translate(
        &self,
        request: &TranslationRequest,
        translations: &mut [Translation],
    ) -> Result<usize, TranslationError>;

    /// Sends a page request. It is a posted message: the result arrives with the response to its
    /// group in [`Function::prg_response`], possibly before this returns.
    fn page_request(&self, request: &PageRequest);

    /// Reads memory.
    fn read(&self, request: &MemoryRequest, data: &mut [u8]) -> Result<(), MemoryError>;

    /// Writes memory. When it returns, the data is visible to every reader.
    fn write(&self, request: &MemoryRequest, data: &[u8]) -> Result<(), MemoryError>;

    /// Copies as many bytes of memory as `buffer` has. It reads all of them before it writes any,
    /// so the two ranges may overlap. The contents of `buffer` afterwards are unspecified.
    ///
    /// It is not a separate request, but a read and a write at one moment; it saves the copy
    /// through a buffer. An implementation in which anything could happen between the two keeps
    /// this default, or returns the same error for some requests: the function then sends the read,
    /// checks that its state still permits the write, and sends that.
    fn copy(
        &self,
        _source: &MemoryRequest,
        _destination: &MemoryRequest,
        _buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        Err(CopyError::Apart)
    }

    /// Takes note of the copy that comes after the current one: an implementation can fetch its first
    /// bytes into the processor's cache in the meantime. It may never come.
    fn expect(&self, _next: &MemoryCopy) {}

    /// Performs copies one after another, each as [`RootPort::copy`] does, with as many bytes of
    /// `buffer` as it has. Asks before each whether it is still permitted. Returns the number of
    /// copies done, and the error of the one after, unless that was not permitted.
    ///
    /// Says no more than the calls one by one, but announces which copy is next.
    fn copy_all(
        &self,
        copies: &[MemoryCopy],
        buffer: &mut [u8],
        permitted: &dyn Fn() -> bool,
    ) -> (usize, Option<CopyError>) {
        for (done, copy) in copies.iter().enumerate() {
            if !permitted() {
                return (done, None);
            }
            if let Some(next) = copies.get(done + 1) {
                self.expect(next);
            }
            let buffer = &mut buffer[..copy.length];
            if let Err(error) = self.copy(&copy.source, &copy.destination, buffer) {
                return (done, Some(error));
            }
        }
        (copies.len(), None)
    }

    /// Writes memory so that its first `head` bytes become visible last: a reader that sees one of
    /// them sees all of the others. Returns none, and writes nothing, if this port cannot do that
    /// at one moment.
    ///
    /// Like [`RootPort::copy`] it replaces two requests, the rest and then the head, and takes less
    /// time than they do.
    fn publish(
        &self,
        _request: &MemoryRequest,
        _data: &[u8],
        _head: usize,
    ) -> Option<Result<(), MemoryError>> {
        None
    }

    /// Adds to the 8-byte number at an address aligned to 8 bytes, in one atomic access, and
    /// returns its previous value (AtomicOp FetchAdd, PCIe 6.15).
    fn fetch_add(&self, request: &MemoryRequest, addend: u64) -> Result<u64, MemoryError>;

    /// Writes `new` to the 8-byte number at an address aligned to 8 bytes, if the number is
    /// `expected`, in one atomic access, and returns its previous value (AtomicOp CAS, PCIe 6.15).
    ///
    /// An implementation has to compare and write without another access in between; for mapped
    /// memory it uses the processor's own instruction. An implementation that cannot do this keeps
    /// this default: a completer refuses an AtomicOp that it does not support, and changes nothing.
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
    /// Fundamental or hot reset: the state after power-up (PCIe 6.6.1).
    Conventional,
    /// Function Level Reset (PCIe 6.6.2).
    FunctionLevel,
}

/// What a function receives from upstream.
///
/// Any thread may call these methods, also from inside a call of [`RootPort`]. They return without
/// waiting.
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

    /// Resets the function.
    fn reset(&self, kind: Reset);
}
