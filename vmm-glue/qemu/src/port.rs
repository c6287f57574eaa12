// SPDX-License-Identifier: GPL-2.0-or-later
//! The endpoint's root port: turns the requests of a step into calls of QEMU's functions.

use pcie_ats::{
    AlignedRange, CopyError, InvalidateCompletion, MAX_TRANSLATIONS, MemoryAddressType,
    MemoryError, MemoryRequest, PAGE_SHIFT, PAGE_SIZE, PageRequest, Pasid, PrgResponse, RootPort,
    Translation, TranslationError, TranslationRequest,
};

use crate::abi::layout::{IOMMUTLBEntry, MemTxAttrs, NO_PASID, perm};
use crate::ats::{PageQuery, RequestError, TranslationQuery};
use crate::bql::Bql;
use crate::device::Device;
use crate::memory::{AccessRefused, Space};
use crate::message;
use crate::refused::automatic;
use crate::remedy::{self, pasid_entries};
use crate::trace::MemoryOperation;

/// The port during one step.
pub struct Port<'a> {
    device: &'a Device,
    bql: &'a Bql,
}

impl<'a> Port<'a> {
    /// The port above a device.
    pub fn new(device: &'a Device, bql: &'a Bql) -> Port<'a> {
        Port { device, bql }
    }

    /// Asks the vIOMMU.
    fn request_translation(
        &self,
        request: &TranslationRequest,
        translations: &mut [Translation],
    ) -> Result<usize, TranslationError> {
        // A translation whose invalidation would not arrive must not be used.
        if !self
            .device
            .notifiers
            .ensure(self.bql, request.pasid)
            .invalidations
        {
            return Err(TranslationError::UnsupportedRequest);
        }
        if self.names_absent_pasid(request.pasid) {
            // Condition SPT.2 (reason 59h): success without permissions.
            return match translations.first_mut() {
                Some(first) => {
                    *first = nothing(AlignedRange::page(request.address));
                    Ok(1)
                }
                None => Err(TranslationError::CompleterAbort),
            };
        }
        // QEMU fails the whole request if the translations do not fit; each covers a page or more.
        let most = translations.len().min(MAX_TRANSLATIONS);
        let pages = usize::from(request.pages).clamp(1, most.max(1));
        let query = TranslationQuery {
            pasid: number(request.pasid),
            privileged: request.privileged,
            execute: request.execute,
            address: request.address,
            length: pages << PAGE_SHIFT,
            no_write: request.no_write,
        };
        let mut entries = [NO_ENTRY; MAX_TRANSLATIONS];
        let count = self
            .device
            .pci
            .translate(self.bql, &query, &mut entries[..pages])
            .map_err(|refusal| match refusal {
                RequestError::NotPermitted | RequestError::NoIommu => {
                    TranslationError::UnsupportedRequest
                }
                _ => TranslationError::CompleterAbort,
            })?;
        let refused = count > 0 && entries[0].perm & (perm::READ | perm::WRITE) == 0;
        if refused && self.refuses_interrupt_range(request) {
            return Err(TranslationError::CompleterAbort);
        }
        for (entry, translation) in entries[..count].iter().zip(&mut *translations) {
            *translation = completion(entry)?;
        }
        if count == 0 {
            // QEMU's loop does not run if the range ends at the top of the address space.
            let Some(first) = translations.first_mut() else {
                return Err(TranslationError::CompleterAbort);
            };
            *first = nothing(AlignedRange::page(0));
        }
        Ok(count.max(1))
    }

    /// Whether a request without permission was refused for its address. QEMU's own unit also
    /// refuses requests to the interrupt address range with a PASID, and records condition SGN.8,
    /// which a completion reports as Completer Abort; QEMU's interface cannot report it. In the
    /// specification such an address is like any other (VT-d 3.15), and so it is in `svm-vtd`.
    fn refuses_interrupt_range(&self, request: &TranslationRequest) -> bool {
        request.address >> 20 == 0xfee && remedy::intel_iommu(self.bql).is_some()
    }

    /// Whether a request is for a PASID whose entry is not present, if the unit does not check that
    /// itself.
    fn names_absent_pasid(&self, pasid: Option<Pasid>) -> bool {
        self.device.checks_pasids(self.bql)
            && pasid.is_some_and(|pasid| {
                let requester = self.device.pci.requester_id(self.bql);
                !pasid_entries::admits(self.bql, requester, pasid.get())
            })
    }

    /// Sends a page request; the error is the reason why no response will come.
    fn send_page_request(&self, request: &PageRequest) -> Result<(), RequestError> {
        if !self
            .device
            .notifiers
            .ensure(self.bql, request.pasid)
            .responses
        {
            return Err(RequestError::NotPermitted);
        }
        let query = PageQuery {
            pasid: number(request.pasid),
            privileged: request.privileged,
            execute: request.execute,
            address: request.address,
            last: request.last,
            prgi: request.prgi.get(),
            read: request.read,
            write: request.write,
        };
        // A stop marker requests nothing, and has no response. The unit may answer from within the
        // call.
        let is_stop_marker = !request.read && !request.write;
        if !is_stop_marker {
            self.device
                .notifiers
                .page_requested(request.pasid, request.prgi);
        }
        self.device.pci.request_page(self.bql, &query)
    }

    /// Makes a memory access with the attributes of a request, and records it in the trace.
    fn access<T>(
        &self,
        kind: MemoryOperation,
        request: &MemoryRequest,
        length: usize,
        access: impl FnOnce(Space, u32) -> Result<T, AccessRefused>,
    ) -> Result<T, MemoryError> {
        let attributes = match request.address_type {
            MemoryAddressType::Translated => MemTxAttrs::TRANSLATED,
            MemoryAddressType::Untranslated if request.pasid.is_none() => 0,
            MemoryAddressType::Untranslated => {
                return Err(MemoryError::Unsupported {
                    what: "an untranslated memory request with a PASID",
                });
            }
        };
        let trace = self.device.trace.as_ref().map(|trace| (trace, trace.now()));
        let result = access(self.device.pci.dma_space(self.bql), attributes);
        if let Some((trace, begin)) = trace {
            trace.access(begin, kind, request, length, result.is_ok());
        }
        result.map_err(|AccessRefused| MemoryError::Refused {
            address: request.address,
        })
    }
}

impl RootPort for Port<'_> {
    fn translate(
        &self,
        request: &TranslationRequest,
        translations: &mut [Translation],
    ) -> Result<usize, TranslationError> {
        let begin = self.device.trace.as_ref().map(|trace| (trace, trace.now()));
        let result = self.request_translation(request, translations);
        if let Some((trace, begin)) = begin {
            let result = result.map(|count| &translations[..count.min(translations.len())]);
            trace.translation(begin, request, result);
        }
        result
    }

    fn page_request(&self, request: &PageRequest) {
        let sent = self.device.trace.as_ref().map(|trace| {
            trace.set_requester(self.device.pci.requester_id(self.bql));
            (trace, trace.now())
        });
        let result = self.send_page_request(request);
        if let Some((trace, sent)) = sent {
            let refused = result.err().map(|refusal| format!("{refusal:?}"));
            trace.page_request(sent, request, refused);
        }
        let Err(refusal) = result else { return };
        if let Some(code) = automatic(request, refusal) {
            self.device.answer(&PrgResponse {
                prgi: request.prgi,
                pasid: request.pasid,
                code,
            });
        }
    }

    fn read(&self, request: &MemoryRequest, data: &mut [u8]) -> Result<(), MemoryError> {
        self.access(
            MemoryOperation::Read,
            request,
            data.len(),
            |space, attributes| space.read(request.address, attributes, data),
        )
    }

    fn write(&self, request: &MemoryRequest, data: &[u8]) -> Result<(), MemoryError> {
        self.access(
            MemoryOperation::Write,
            request,
            data.len(),
            |space, attributes| space.write(request.address, attributes, data),
        )
    }

    fn copy(
        &self,
        source: &MemoryRequest,
        destination: &MemoryRequest,
        buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        let translated =
            |request: &MemoryRequest| request.address_type == MemoryAddressType::Translated;
        if buffer.len() < LEAST_COPY || !translated(source) || !translated(destination) {
            return Err(CopyError::Apart);
        }
        let begin = self.device.trace.as_ref().map(|trace| (trace, trace.now()));
        let copied = self.device.pci.dma_space(self.bql).copy(
            self.bql,
            source.address,
            destination.address,
            buffer.len() as u64,
            MemTxAttrs::TRANSLATED,
        );
        if !copied {
            // The read or the write finds out why.
            return Err(CopyError::Apart);
        }
        if let Some((trace, begin)) = begin {
            trace.access(begin, MemoryOperation::Read, source, buffer.len(), true);
            trace.access(
                begin,
                MemoryOperation::Write,
                destination,
                buffer.len(),
                true,
            );
        }
        Ok(())
    }

    fn fetch_add(&self, request: &MemoryRequest, addend: u64) -> Result<u64, MemoryError> {
        self.access(
            MemoryOperation::FetchAdd,
            request,
            size_of::<u64>(),
            |space, attributes| space.fetch_add(self.bql, request.address, attributes, addend),
        )
    }

    fn compare_and_swap(
        &self,
        request: &MemoryRequest,
        expected: u64,
        new: u64,
    ) -> Result<u64, MemoryError> {
        self.access(
            MemoryOperation::CompareSwap,
            request,
            size_of::<u64>(),
            |space, attributes| space.compare_exchange(request.address, attributes, expected, new),
        )
    }

    fn interrupt(&self, vector: u16) {
        if vector < self.device.endpoint.vectors() {
            self.device.pci.notify_msix(self.bql, vector);
            if let Some(trace) = &self.device.trace {
                trace.interrupt(vector);
            }
        }
    }

    fn invalidate_completion(&self, _completion: &InvalidateCompletion) {
        // QEMU counts an invalidation as completed when its notifier returns. The BQL around each
        // step keeps invalidations of others out of a step; an invalidation from inside an access,
        // through a register of the vIOMMU, is caused by the access itself.
    }
}

/// Bytes from which on a copy where the memory lies is faster than a read and a write, which have no
/// mapping to end.
const LEAST_COPY: usize = 1024;

/// A PASID as QEMU takes it.
fn number(pasid: Option<Pasid>) -> u32 {
    pasid.map_or(NO_PASID, Pasid::get)
}

/// An entry that QEMU has not filled in.
const NO_ENTRY: IOMMUTLBEntry = IOMMUTLBEntry {
    target_as: std::ptr::null_mut(),
    iova: 0,
    translated_addr: 0,
    addr_mask: PAGE_SIZE - 1,
    perm: 0,
    pasid: NO_PASID,
};

/// A translation without any permission.
const fn nothing(range: AlignedRange) -> Translation {
    Translation {
        range,
        read: false,
        write: false,
        execute: false,
        privileged: false,
        global: false,
        untranslated_only: false,
        non_snooped: false,
    }
}

/// The translation of an entry.
fn completion(entry: &IOMMUTLBEntry) -> Result<Translation, TranslationError> {
    if !Space::system().is(entry.target_as) {
        message::error("IOMMUTLBEntry is not laid out as expected: translation aborted");
        return Err(TranslationError::CompleterAbort);
    }
    let may = |bit| entry.perm & bit != 0;
    let bits = u64::BITS - entry.addr_mask.leading_zeros();
    let size = if entry.addr_mask & entry.addr_mask.wrapping_add(1) == 0 {
        (bits as u8).max(PAGE_SHIFT)
    } else {
        PAGE_SHIFT
    };
    let range = AlignedRange::containing(entry.translated_addr, size)
        .map_err(|_| TranslationError::CompleterAbort)?;
    Ok(Translation {
        read: may(perm::READ),
        write: may(perm::WRITE),
        execute: may(perm::EXECUTE),
        privileged: may(perm::PRIVILEGED),
        global: may(perm::GLOBAL),
        untranslated_only: may(perm::UNTRANSLATED_ONLY),
        ..nothing(range)
    })
}
