// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is above the device: its requests go through the model to memory.

use super::machine::{DEVICE, ModelMachine};
use machine::{Moment, Ram};
use pcie_ats::{
    InvalidateCompletion, MemoryError, MemoryRequest, PAGE_SIZE, PageRequest, RootPort,
    Translation, TranslationError, TranslationRequest,
};
use vtd::Access;
use vtd::memory::Memory;

/// The root port of the device.
pub(super) struct Port<'m>(pub &'m ModelMachine);

/// A range of the bytes of an access.
type Part = std::ops::Range<usize>;

impl Port<'_> {
    /// Asks the model for each page of an access, and performs that part of it.
    fn access(
        &self,
        request: &MemoryRequest,
        length: usize,
        access: Access,
        mut perform: impl FnMut(&Ram, u64, Part) -> Result<(), vtd::memory::MemoryError>,
    ) -> Result<(), MemoryError> {
        let mut done = 0;
        loop {
            let refused = MemoryError::Refused {
                address: request.address,
            };
            let address = request.address.checked_add(done as u64).ok_or(refused)?;
            let part = (length - done).min((PAGE_SIZE - address % PAGE_SIZE) as usize);
            let request = MemoryRequest {
                address,
                ..*request
            };
            let place = self
                .0
                .call(|model, platform| model.access(platform, DEVICE.0, &request, access));
            let place = place.ok_or(MemoryError::Refused { address })?;
            self.0.at(&Moment::Access(request));
            perform(&self.0.ram, place, done..done + part)
                .map_err(|_| MemoryError::Refused { address })?;
            done += part;
            if done >= length {
                return Ok(());
            }
        }
    }
}

impl RootPort for Port<'_> {
    fn translate(
        &self,
        request: &TranslationRequest,
        translations: &mut [Translation],
    ) -> Result<usize, TranslationError> {
        let answer = match translations {
            // A device that asks for nothing breaks rule 12, and the model has nothing to answer.
            [] => Ok(0),
            _ => self
                .0
                .call(|model, platform| model.translate(platform, DEVICE.0, request, translations)),
        };
        self.0.at(&Moment::Answer(*request));
        answer
    }

    fn page_request(&self, request: &PageRequest) {
        self.0.at(&Moment::PageRequest(*request));
        self.0
            .call(|model, platform| model.page_request(platform, DEVICE.0, request));
    }

    fn read(&self, request: &MemoryRequest, data: &mut [u8]) -> Result<(), MemoryError> {
        let access = match data.len() {
            0 => Access::ZeroLengthRead,
            _ => Access::Read,
        };
        let length = data.len();
        self.access(request, length, access, |ram, address, part| {
            ram.read(address, &mut data[part])
        })
    }

    fn write(&self, request: &MemoryRequest, data: &[u8]) -> Result<(), MemoryError> {
        let length = data.len();
        self.access(request, length, Access::Write, |ram, address, part| {
            ram.write(address, &data[part])
        })
    }

    fn fetch_add(&self, request: &MemoryRequest, addend: u64) -> Result<u64, MemoryError> {
        let mut old = 0;
        self.access(request, 8, Access::Atomic, |ram, address, _| {
            old = ram.fetch_add(address, addend)?;
            Ok(())
        })?;
        Ok(old)
    }

    fn interrupt(&self, vector: u16) {
        self.0.interrupt(vector);
    }

    fn invalidate_completion(&self, completion: &InvalidateCompletion) {
        self.0.completed(completion);
    }
}
