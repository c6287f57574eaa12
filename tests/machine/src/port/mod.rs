// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is above a function: its root port, behind which the unit translates, checks and remaps.

mod copies;

use crate::interrupts::Sender;
use crate::link::Up;
use crate::machine::{FunctionId, FunctionSlot, Machine, UnitSlot};
use crate::memory::Ram;
use crate::moment::Moment;
use crate::sync::point;
use pcie_ats::{
    CopyError, Function, InvalidateCompletion, MemoryAddressType, MemoryCopy, MemoryError,
    MemoryRequest, PAGE_SIZE, PageRequest, RootPort, Translation, TranslationError,
    TranslationRequest,
};
use std::fmt;
use std::sync::atomic::Ordering;
use vtd::memory::Memory;
use vtd::spec::interrupt::{Message, in_range};
use vtd::{Access, Remapped, Request};

/// Offset of the command register.
const COMMAND: u16 = 4;
/// Bus Master Enable.
const BUS_MASTER: u32 = 1 << 2;
/// The interrupt address range has this size and alignment; the protected memory regions and the
/// host address width have larger ones.
const GRANULE: u64 = 1 << 20;

/// The root port of a function.
#[derive(Clone, Copy)]
pub struct Port<'m> {
    machine: &'m Machine,
    slot: &'m FunctionSlot,
    unit: &'m UnitSlot,
}

impl fmt::Debug for Port<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requester = &self.slot.requester;
        f.debug_struct("Port")
            .field("requester", requester)
            .finish_non_exhaustive()
    }
}

impl Machine {
    /// The way upstream of a function.
    pub fn port(&self, function: FunctionId) -> Port<'_> {
        let slot = &self.0.functions[function];
        Port {
            machine: self,
            slot,
            unit: &self.0.units[slot.unit],
        }
    }
}

impl<'m> Port<'m> {
    fn slot(&self) -> &'m FunctionSlot {
        self.slot
    }

    fn ram(&self) -> &'m Ram {
        &self.machine.0.ram
    }

    /// Lets the experiment have its say, if there is one.
    #[inline]
    fn hook(&self, moment: impl FnOnce() -> Moment) {
        if self.is_watched() {
            self.call_hook(&moment());
        }
    }

    /// Whether there is one.
    #[inline]
    fn is_watched(&self) -> bool {
        point();
        self.slot().has_hook.load(Ordering::Acquire)
    }

    #[cold]
    fn call_hook(&self, moment: &Moment) {
        let slot = self.slot();
        let hook = slot.hook.lock().take();
        if let Some(mut hook) = hook {
            hook(self.machine, moment);
            let mut place = slot.hook.lock();
            if slot.has_hook.load(Ordering::Acquire) && place.is_none() {
                *place = Some(hook);
            }
        }
    }

    /// Makes the unit check translated requests, each with its length and what it does. The error
    /// bears the number of the request that is refused.
    #[inline(always)]
    fn check<const N: usize>(
        &self,
        requests: [(&MemoryRequest, usize, Access); N],
    ) -> Result<(), (usize, MemoryError)> {
        let slot = self.slot();
        // What a unit refuses begins and ends at multiples of GRANULE, and is larger than what a
        // function accesses at once: both ends say all.
        let granted = requests.iter().all(|(request, length, _)| {
            let last = last(request, *length);
            request.pasid.is_none()
                && last.is_some_and(|last| slot.is_granted(self.unit, request.address, last))
        });
        if !granted {
            self.ask(&requests)?;
        }
        for (request, ..) in requests {
            self.hook(|| Moment::Access(*request));
        }
        Ok(())
    }

    /// Asks the unit about translated requests, for [`Port::check`].
    #[cold]
    fn ask(
        &self,
        requests: &[(&MemoryRequest, usize, Access)],
    ) -> Result<(), (usize, MemoryError)> {
        let slot = self.slot();
        self.machine.with_unit(slot.unit, |unit, ram, fx| {
            for (n, (request, length, access)) in requests.iter().enumerate() {
                let first = request.address;
                let refused = |address| (n, MemoryError::Refused { address });
                let mut check = |at| {
                    unit.translated_request(ram, slot.requester, request.pasid, at, *access, fx)
                        .map_err(|_| refused(at))
                };
                check(first)?;
                let last = last(request, *length).ok_or(refused(first))?;
                if first / GRANULE != last / GRANULE {
                    check(last)?;
                }
            }
            self.machine.grant(slot, unit);
            Ok(())
        })
    }

    /// As [`Port::check`], for one request.
    fn check_one(
        &self,
        request: &MemoryRequest,
        length: usize,
        access: Access,
    ) -> Result<(), MemoryError> {
        self.check([(request, length, access)])
            .map_err(|(_, error)| error)
    }

    /// Translates an untranslated request page by page (section 3.13), and accesses memory.
    fn untranslated(
        &self,
        request: &MemoryRequest,
        length: usize,
        access: Access,
        mut perform: impl FnMut(&Ram, u64, usize, usize) -> Result<(), MemoryError>,
    ) -> Result<(), MemoryError> {
        let slot = self.slot();
        let mut done = 0;
        loop {
            let address = request
                .address
                .checked_add(done as u64)
                .ok_or(MemoryError::Refused {
                    address: request.address,
                })?;
            let piece = (length - done).min((PAGE_SIZE - address % PAGE_SIZE) as usize);
            let request = Request {
                requester: slot.requester,
                pasid: request.pasid,
                address,
                access,
                execute: false,
                privileged: request.privileged,
            };
            let (translated, ticket) = self.machine.with_unit(slot.unit, |unit, ram, fx| {
                let translated = unit
                    .translate(ram, &request, fx)
                    .map_err(|_| MemoryError::Refused { address })?;
                Ok((translated, unit.begin_access()))
            })?;
            let access = MemoryRequest::untranslated(address, request.pasid);
            self.hook(|| Moment::Access(access));
            let result = perform(self.ram(), translated.address, done, piece);
            self.machine.with_unit(slot.unit, |unit, ram, fx| {
                unit.end_access(ram, ticket, fx);
            });
            result?;
            done += piece;
            if done >= length {
                return Ok(());
            }
        }
    }

    /// Sends the messages that were held back and may be sent now.
    pub(crate) fn send_messages(&self) {
        let slot = self.slot();
        loop {
            let master = slot.endpoint.config_read(COMMAND) & BUS_MASTER != 0;
            let message = master.then(|| slot.msix.lock().take()).flatten();
            let Some(message) = message else { return };
            let _ = self.interrupt_request(message);
        }
    }

    /// Sends an interrupt request through remapping.
    fn interrupt_request(&self, message: Message) -> Result<(), MemoryError> {
        let slot = self.slot();
        let remapped = self.machine.with_unit(slot.unit, |unit, ram, fx| {
            unit.remap_interrupt(ram, Some(slot.requester), message, fx)
        });
        let sender = Sender::Function(slot.requester);
        match remapped {
            Ok(Remapped::Deliver(message) | Remapped::Posted(Some(message))) => {
                self.machine.0.interrupts.deliver(sender, message);
                self.machine.0.news.signal();
                Ok(())
            }
            Ok(Remapped::Posted(None)) => Ok(()),
            Err(_) => Err(MemoryError::Refused {
                address: message.address,
            }),
        }
    }
}

/// The last address of a request of so many bytes; none beyond all addresses.
#[inline(always)]
fn last(request: &MemoryRequest, length: usize) -> Option<u64> {
    request.address.checked_add(length.saturating_sub(1) as u64)
}

/// Where memory does not answer.
fn refused(error: vtd::memory::MemoryError) -> MemoryError {
    MemoryError::Refused {
        address: error.address,
    }
}

impl RootPort for Port<'_> {
    fn translate(
        &self,
        request: &TranslationRequest,
        translations: &mut [Translation],
    ) -> Result<usize, TranslationError> {
        let slot = self.slot();
        let answer = self.machine.with_unit(slot.unit, |unit, ram, fx| {
            unit.translation_request(ram, slot.requester, request, translations, fx)
        });
        self.hook(|| Moment::Answer(*request));
        answer
    }

    fn page_request(&self, request: &PageRequest) {
        self.hook(|| Moment::PageRequest(*request));
        self.machine.send_up(self.slot(), Up::PageRequest(*request));
    }

    fn read(&self, request: &MemoryRequest, data: &mut [u8]) -> Result<(), MemoryError> {
        let access = match data.len() {
            0 => Access::ZeroLengthRead,
            _ => Access::Read,
        };
        match request.address_type {
            MemoryAddressType::Translated => {
                self.check_one(request, data.len(), access)?;
                self.ram().read(request.address, data).map_err(refused)
            }
            MemoryAddressType::Untranslated => {
                let length = data.len();
                self.untranslated(request, length, access, |ram, address, done, piece| {
                    ram.read(address, &mut data[done..done + piece])
                        .map_err(refused)
                })
            }
        }
    }

    fn write(&self, request: &MemoryRequest, data: &[u8]) -> Result<(), MemoryError> {
        match request.address_type {
            MemoryAddressType::Translated => {
                self.check_one(request, data.len(), Access::Write)?;
                self.ram().write(request.address, data).map_err(refused)
            }
            MemoryAddressType::Untranslated => {
                if let (None, true, Ok(word)) = (
                    request.pasid,
                    in_range(request.address),
                    <[u8; 4]>::try_from(data),
                ) {
                    return self.interrupt_request(Message {
                        address: request.address,
                        data: u32::from_le_bytes(word),
                    });
                }
                self.untranslated(
                    request,
                    data.len(),
                    Access::Write,
                    |ram, address, done, piece| {
                        ram.write(address, &data[done..done + piece])
                            .map_err(refused)
                    },
                )
            }
        }
    }

    fn copy(
        &self,
        source: &MemoryRequest,
        destination: &MemoryRequest,
        buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        self.copy_directly(source, destination, buffer.len())
    }

    #[inline]
    fn expect(&self, next: &MemoryCopy) {
        self.fetch_ahead(next);
    }

    fn copy_all(
        &self,
        copies: &[MemoryCopy],
        buffer: &mut [u8],
        permitted: &dyn Fn() -> bool,
    ) -> (usize, Option<CopyError>) {
        self.copy_each(copies, buffer, permitted)
    }

    fn publish(
        &self,
        request: &MemoryRequest,
        data: &[u8],
        head: usize,
    ) -> Option<Result<(), MemoryError>> {
        if request.address_type != MemoryAddressType::Translated {
            return None;
        }
        let write = || {
            self.check_one(request, data.len(), Access::Write)?;
            let (first, rest) = data.split_at(head);
            let address = request.address;
            // Each write releases what came before it.
            self.ram()
                .write(address + head as u64, rest)
                .and_then(|()| self.ram().write(address, first))
                .map_err(refused)
        };
        Some(write())
    }

    fn fetch_add(&self, request: &MemoryRequest, addend: u64) -> Result<u64, MemoryError> {
        match request.address_type {
            MemoryAddressType::Translated => {
                self.check_one(request, 8, Access::Atomic)?;
                self.ram()
                    .fetch_add(request.address, addend)
                    .map_err(refused)
            }
            MemoryAddressType::Untranslated => {
                let mut old = 0;
                self.untranslated(request, 8, Access::Atomic, |ram, address, _, _| {
                    old = ram.fetch_add(address, addend).map_err(refused)?;
                    Ok(())
                })?;
                Ok(old)
            }
        }
    }

    fn interrupt(&self, vector: u16) {
        let message = self.slot().msix.lock().raise(vector);
        if let Some(message) = message {
            // A blocked interrupt is recorded by the unit, and the function never knows.
            let _ = self.interrupt_request(message);
        }
    }

    fn invalidate_completion(&self, completion: &InvalidateCompletion) {
        self.machine.send_up(self.slot(), Up::Complete(*completion));
    }
}
