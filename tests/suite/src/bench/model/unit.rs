// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a model is, and what it can do: reach memory, and send messages to functions.

use machine::Ram;
use pcie_ats::{
    InvalidateCompletion, InvalidateRequest, MemoryRequest, PageRequest, PrgResponse, Translation,
    TranslationError, TranslationRequest,
};
use std::collections::VecDeque;
use std::time::Duration;
use vtd::Access;
use vtd::memory::Memory;

/// A model of a VT-d remapping unit in scalable mode.
///
/// Software, which the suite is, programs it by its registers, and builds tables and queues in
/// memory, where the model finds them by a [`Platform`]. Its calls do not overlap. Requesters are
/// 16-bit requester IDs: bus, device and function.
pub trait Model: Send {
    /// Reads 4 or 8 bytes of its registers, whose offsets are those of VT-d 11.3.
    fn read(&mut self, offset: u16, size: u8) -> u64;

    /// Writes 4 or 8 bytes of its registers. What follows, as the processing of the invalidation
    /// queue, is done before it returns, or waits for [`Model::completed`] or [`Model::advance`].
    fn write(&mut self, platform: &mut Platform<'_>, offset: u16, value: u64, size: u8);

    /// A memory request of a function, which does not leave its page: the address that it goes to.
    /// With a translated address ([`MemoryRequest::address_type`]) that is its own, if it may pass
    /// (VT-d 4.2.3). None if it is blocked; a fault is recorded in the registers (VT-d 7.2).
    fn access(
        &mut self,
        platform: &mut Platform<'_>,
        requester: u16,
        request: &MemoryRequest,
        access: Access,
    ) -> Option<u64>;

    /// A translation request of a function (PCIe 10.2.2). Fills `answer`, which has room for one at
    /// least, from the front with ranges that follow each other, and returns their number. PCIe
    /// permits an answer of one; the rules of page request groups (51, 58, 61) expect one for each
    /// page that was asked for, as far as these are alike.
    ///
    /// # Errors
    ///
    /// The completion is not successful: see VT-d 7.2.1 for which faults it is not.
    fn translate(
        &mut self,
        platform: &mut Platform<'_>,
        requester: u16,
        request: &TranslationRequest,
        answer: &mut [Translation],
    ) -> Result<usize, TranslationError>;

    /// A page request of a function: it goes into the page request queue (VT-d 7.4).
    fn page_request(&mut self, platform: &mut Platform<'_>, requester: u16, request: &PageRequest);

    /// A function has completed invalidation requests that [`Platform::invalidate`] sent to it.
    fn completed(
        &mut self,
        platform: &mut Platform<'_>,
        requester: u16,
        completion: &InvalidateCompletion,
    );

    /// Time has passed: nothing else tells the model of it.
    fn advance(&mut self, platform: &mut Platform<'_>, by: Duration);

    /// Everything is as after power-up.
    fn reset(&mut self);
}

/// A message to a function.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    Invalidate(InvalidateRequest),
    Respond(PrgResponse),
}

/// What is around a model while it is called.
#[derive(Debug)]
pub struct Platform<'a> {
    pub(super) ram: &'a Ram,
    /// Messages that are on their way, with the requester IDs of those that they are for.
    pub(super) messages: &'a mut VecDeque<(u16, Message)>,
}

impl Platform<'_> {
    /// Reads 8 bytes at an aligned address. None where there is no memory.
    pub fn load(&self, address: u64) -> Option<u64> {
        self.ram.load(address).ok()
    }

    /// Writes 8 bytes at an aligned address. False where there is no memory.
    pub fn store(&mut self, address: u64, value: u64) -> bool {
        self.ram.store(address, value).is_ok()
    }

    /// Writes 4 bytes, as the status of a wait descriptor has (VT-d 6.5.2.8). False where there is
    /// no memory.
    pub fn store32(&mut self, address: u64, value: u32) -> bool {
        self.ram.write(address, &value.to_le_bytes()).is_ok()
    }

    /// Writes 8 bytes at an aligned address if they are what is expected, and returns what they
    /// were. None where there is no memory.
    pub fn compare_exchange(&mut self, address: u64, expected: u64, new: u64) -> Option<u64> {
        self.ram.compare_exchange(address, expected, new).ok()
    }

    /// Sends an invalidation request to a function. It arrives behind this call of the model, and
    /// [`Model::completed`] tells when it is complete, unless it is lost on its way. One to
    /// a function that there is not is never completed.
    pub fn invalidate(&mut self, requester: u16, request: InvalidateRequest) {
        self.messages
            .push_back((requester, Message::Invalidate(request)));
    }

    /// Sends a page request group response to a function. It arrives behind this call of the model.
    pub fn respond(&mut self, requester: u16, response: PrgResponse) {
        self.messages
            .push_back((requester, Message::Respond(response)));
    }
}
