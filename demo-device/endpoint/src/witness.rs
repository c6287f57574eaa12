// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a device with a laboratory has sent: the last requests, kept as its registers show them. A
//! [`Witness`] stands between the device and its root port and changes nothing.

use crate::sync::{Arc, Mutex};
use pcie_ats::{
    CopyError, InvalidateCompletion, MemoryAddressType, MemoryError, MemoryRequest, PageRequest,
    Pasid, RootPort, Translation, TranslationError, TranslationRequest,
};
use std::collections::VecDeque;
use svm_abi::registers::{attributes, command, sent};

/// How many requests are kept; older ones are forgotten.
const KEPT: usize = 1024;

/// A request as the registers show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Kind and attributes.
    pub what: u64,
    /// Address.
    pub address: u64,
    /// Bytes of an access, pages of a translation request.
    pub length: u64,
}

/// The last requests.
#[derive(Debug, Default)]
pub(crate) struct Log {
    kept: VecDeque<Sent>,
    /// How many were ever sent.
    count: u64,
}

impl Log {
    /// How many requests were sent.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// A request by its number from 0 on; zeros if it was not sent yet, or is forgotten.
    pub fn get(&self, number: u64) -> Sent {
        let first = self.count - self.kept.len() as u64;
        let at = number.checked_sub(first).map(|at| at as usize);
        at.and_then(|at| self.kept.get(at))
            .copied()
            .unwrap_or_default()
    }

    fn push(&mut self, request: Sent) {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(request);
        self.count += 1;
    }
}

/// A log that the device and its witnesses share.
pub(crate) type SharedLog = Arc<Mutex<Log>>;

/// A root port whose requests are noted.
pub(crate) struct Witness<'a, P: ?Sized> {
    port: &'a P,
    log: &'a SharedLog,
}

impl<'a, P: RootPort + ?Sized> Witness<'a, P> {
    /// Notes what goes to a port.
    pub fn new(port: &'a P, log: &'a SharedLog) -> Self {
        Witness { port, log }
    }

    fn note(&self, kind: u64, bits: u64, address: u64, length: usize) {
        self.log.lock().push(Sent {
            what: kind << sent::KIND_SHIFT | bits,
            address,
            length: length as u64,
        });
    }

    /// Notes an access: `untranslated` is its kind if its address is not translated, and the kind
    /// of the same access with a translated address is two more.
    fn access(&self, untranslated: u64, request: &MemoryRequest, length: usize) {
        let kind = match (request.address_type, length) {
            (MemoryAddressType::Untranslated, 0) => command::UNTRANSLATED_PROBE,
            (MemoryAddressType::Translated, 0) => command::TRANSLATED_PROBE,
            (MemoryAddressType::Untranslated, _) => untranslated,
            (MemoryAddressType::Translated, _) => untranslated + 2,
        };
        let bits = space(request.pasid, request.privileged);
        self.note(kind, bits, request.address, length);
    }
}

/// A bit of the attributes, if a condition holds.
fn bit(condition: bool, bit: u64) -> u64 {
    if condition { bit } else { 0 }
}

/// The attributes of an address space.
fn space(pasid: Option<Pasid>, privileged: bool) -> u64 {
    pasid.map_or(0, |pasid| {
        attributes::PASID_PRESENT | u64::from(pasid.get())
    }) | bit(privileged, attributes::PRIVILEGED)
}

impl<P: RootPort + ?Sized> RootPort for Witness<'_, P> {
    fn translate(
        &self,
        request: &TranslationRequest,
        translations: &mut [Translation],
    ) -> Result<usize, TranslationError> {
        let bits = space(request.pasid, request.privileged)
            | bit(request.execute, attributes::EXECUTE)
            | bit(request.no_write, attributes::NO_WRITE);
        let pages = usize::from(request.pages);
        self.note(command::TRANSLATE, bits, request.address, pages);
        self.port.translate(request, translations)
    }

    fn page_request(&self, request: &PageRequest) {
        let bits = space(request.pasid, request.privileged)
            | bit(request.execute, attributes::EXECUTE)
            | bit(request.read, attributes::READ)
            | bit(request.write, attributes::WRITE)
            | bit(request.last, attributes::LAST)
            | u64::from(request.prgi.get()) << attributes::GROUP_SHIFT;
        self.note(command::PAGE_REQUEST, bits, request.address, 0);
        self.port.page_request(request);
    }

    fn read(&self, request: &MemoryRequest, data: &mut [u8]) -> Result<(), MemoryError> {
        self.access(command::UNTRANSLATED_READ, request, data.len());
        self.port.read(request, data)
    }

    fn write(&self, request: &MemoryRequest, data: &[u8]) -> Result<(), MemoryError> {
        self.access(command::UNTRANSLATED_WRITE, request, data.len());
        self.port.write(request, data)
    }

    fn copy(
        &self,
        source: &MemoryRequest,
        destination: &MemoryRequest,
        buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        let length = buffer.len();
        let result = self.port.copy(source, destination, buffer);
        // Apart, it is sent as two requests, which are noted then.
        if !matches!(result, Err(CopyError::Apart)) {
            self.access(command::UNTRANSLATED_READ, source, length);
            self.access(command::UNTRANSLATED_WRITE, destination, length);
        }
        result
    }

    fn publish(
        &self,
        request: &MemoryRequest,
        data: &[u8],
        head: usize,
    ) -> Option<Result<(), MemoryError>> {
        let result = self.port.publish(request, data, head);
        if result.is_some() {
            self.access(command::UNTRANSLATED_WRITE, request, data.len());
        }
        result
    }

    fn fetch_add(&self, request: &MemoryRequest, addend: u64) -> Result<u64, MemoryError> {
        self.access(sent::UNTRANSLATED_ATOMIC, request, size_of::<u64>());
        self.port.fetch_add(request, addend)
    }

    fn compare_and_swap(
        &self,
        request: &MemoryRequest,
        expected: u64,
        new: u64,
    ) -> Result<u64, MemoryError> {
        self.access(sent::UNTRANSLATED_ATOMIC, request, size_of::<u64>());
        self.port.compare_and_swap(request, expected, new)
    }

    fn interrupt(&self, vector: u16) {
        self.note(sent::INTERRUPT, 0, vector.into(), 0);
        self.port.interrupt(vector);
    }

    fn invalidate_completion(&self, completion: &InvalidateCompletion) {
        self.port.invalidate_completion(completion);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_requests_are_kept_by_their_numbers() {
        let mut log = Log::default();
        assert_eq!(log.get(0), Sent::default());
        for address in 0..KEPT as u64 + 2 {
            let sent = Sent {
                address,
                ..Sent::default()
            };
            log.push(sent);
        }
        assert_eq!(log.count(), KEPT as u64 + 2);
        assert_eq!(log.get(1), Sent::default());
        assert_eq!(log.get(2).address, 2);
        assert_eq!(log.get(KEPT as u64 + 1).address, KEPT as u64 + 1);
        assert_eq!(log.get(KEPT as u64 + 2), Sent::default());
    }
}
