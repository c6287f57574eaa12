// SPDX-License-Identifier: MIT OR Apache-2.0
//! The root port above the device: it answers requests, and checks them against the rules.

use super::{FUNCTION, Hook, Inner, MUTANT, Mapping, Service, World};
use crate::sync::model;
use crate::{Mutant, config_space};
use pcie_ats::{
    AlignedRange, CopyError, Function, InvalidateCompletion, MemoryAddressType, MemoryError,
    MemoryRequest, PAGE_SIZE, PageRequest, Pasid, ResponseCode, RootPort, Translation,
    TranslationError, TranslationRequest,
};
use std::sync::Mutex;

/// A requirement that the world checks in every test. It ignores a violation by the mutant of this
/// rule: the test of the rule has to notice it.
#[track_caller]
fn demand(rule: u8, holds: bool) {
    let broken = MUTANT.get().is_some_and(|mutant| mutant.rule() == rule);
    assert!(holds || broken, "rule {rule}");
}

impl Inner {
    pub fn mapping(&self, pasid: u32, address: u64) -> Option<Mapping> {
        let (key, m) = self.mappings.range(..=(pasid, address)).next_back()?;
        (key.0 == pasid && m.range.contains(address)).then_some(*m)
    }

    fn note(&mut self, request: &MemoryRequest, length: usize, write: bool) {
        if let Some(log) = &mut self.log {
            log.push((*request, length, write));
        }
    }

    pub fn access(&mut self, address: u64, data: &mut [u8], write: bool) {
        let mut done = 0;
        while done < data.len() {
            let at = address + done as u64;
            let offset = (at & 0xfff) as usize;
            let length = (data.len() - done).min(4096 - offset);
            let page = self
                .frames
                .entry(at & !0xfff)
                .or_insert_with(|| vec![0; 4096].into_boxed_slice());
            let (page, part) = (
                &mut page[offset..offset + length],
                &mut data[done..done + length],
            );
            if write {
                page.copy_from_slice(part);
            } else {
                part.copy_from_slice(page);
            }
            done += length;
        }
    }

    /// The page fault handler: whether the page exists with this permission.
    pub fn fault(&mut self, page: &PageRequest) -> bool {
        let number = page.pasid.unwrap().get();
        let Some(m) = self.mapping(number, page.address) else {
            return false;
        };
        let refused = page.write && !m.write || page.read && m.write_only;
        if refused || m.supervisor && !page.privileged {
            return false;
        }
        self.mappings
            .get_mut(&(number, m.range.base()))
            .unwrap()
            .present = true;
        true
    }

    fn translation(&self, request: &TranslationRequest, address: u64) -> Translation {
        let hole = self.mapping(request.pasid.map_or(FUNCTION, Pasid::get), address);
        let m = hole.filter(|m| m.present && (request.privileged || !m.supervisor));
        let range = match m {
            Some(m) => AlignedRange::containing(m.output, m.range.shift()).unwrap(),
            // The size of the hole (rule 16).
            None => hole.map_or(AlignedRange::page(0), |m| m.range),
        };
        Translation {
            range,
            read: m.is_some_and(|m| !m.write_only),
            // With No Write the request is for a read (PCIe 10.2.2), which such a page refuses.
            write: m.is_some_and(|m| m.write && !(m.write_only && request.no_write)),
            execute: m.is_some() && request.execute,
            privileged: request.privileged,
            untranslated_only: m.is_some_and(|m| m.untranslated_only),
            ..Translation::from_word(0)
        }
    }

    fn locate(
        &mut self,
        request: &MemoryRequest,
        length: usize,
        write: bool,
    ) -> Result<u64, MemoryError> {
        let refused = Err(MemoryError::Refused {
            address: request.address,
        });
        if self.gone {
            return refused;
        }
        let address = match request.address_type {
            MemoryAddressType::Translated => {
                demand(30, request.pasid.is_none());
                request.address
            }
            MemoryAddressType::Untranslated => {
                let pasid = request.pasid.map_or(FUNCTION, Pasid::get);
                match self.mapping(pasid, request.address) {
                    Some(m)
                        if m.present
                            && (m.write || !write)
                            && (write || !m.write_only)
                            && (request.privileged || !m.supervisor) =>
                    {
                        m.output + (request.address - m.range.base())
                    }
                    _ => return refused,
                }
            }
        };
        let pages = (address & !0xfff..address + length as u64).step_by(0x1000);
        let retired = pages.filter(|page| self.retired.contains(page));
        self.trespasses.extend(retired);
        if self.refuse_memory == Some(address & !0xfff) {
            return refused;
        }
        Ok(address)
    }
}

impl World {
    /// Performs a write.
    fn store(&self, request: &MemoryRequest, data: &[u8]) -> Result<(), MemoryError> {
        self.hook(&self.on_write);
        self.gate.pass(request.address, data.len());
        model::point();
        let mut inner = self.inner.lock().unwrap();
        inner.note(request, data.len(), true);
        let address = inner.locate(request, data.len(), true)?;
        inner.writes.push((address, data.len()));
        inner.access(address, &mut data.to_vec(), true);
        Ok(())
    }

    /// Rules 5 to 7: what the function may send in its current state.
    fn check(&self, ats: bool, pasid: Option<Pasid>) {
        if !self.inner.lock().unwrap().judge {
            return;
        }
        let e = &self.endpoint;
        assert_ne!(e.config_read(4) & 4, 0, "bus master");
        if ats {
            let enabled = e.config_read(config_space::ATS + 4) >> 31 != 0;
            assert!(enabled, "ATS");
        }
        if let Some(pasid) = pasid {
            let enabled = e.config_read(config_space::PASID + 4) >> 16 & 1 != 0;
            assert!(enabled, "PASID");
            demand(66, e.pasids().contains(&pasid));
        }
    }

    /// Rule 7: the modes that a request may ask for. Another rule also covers privileged mode.
    fn check_attributes(&self, execute: bool, privileged: bool, rule: u8) {
        if self.inner.lock().unwrap().judge {
            let control = self.endpoint.config_read(config_space::PASID + 4);
            assert!(!execute || control >> 17 & 1 != 0, "execute");
            demand(rule, !privileged || control >> 18 & 1 != 0);
        }
    }

    fn hook(&self, slot: &Mutex<Option<Hook>>) {
        model::point();
        let hook = slot.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook(self);
        }
    }
}

impl RootPort for World {
    fn translate(
        &self,
        request: &TranslationRequest,
        translations: &mut [Translation],
    ) -> Result<usize, TranslationError> {
        demand(3, request.address % PAGE_SIZE == 0);
        demand(12, request.pages >= 1);
        assert!(request.pages as usize <= translations.len());
        self.check(true, request.pasid);
        self.check_attributes(request.execute, request.privileged, 20);
        let count = {
            let mut inner = self.inner.lock().unwrap();
            if inner.gone {
                return Err(TranslationError::CompletionTimeout);
            }
            inner.translations.push(*request);
            if let Some(error) = inner.error {
                return Err(error);
            }
            let mut address = request.address;
            let first = inner.translation(request, address);
            let mut count = 0;
            for slot in translations.iter_mut() {
                let next = inner.translation(request, address);
                // All of one size, as rule 14 requires.
                if next.range.shift() != first.range.shift() {
                    break;
                }
                *slot = next;
                count += 1;
                let shift = next.range.shift();
                let range = AlignedRange::containing(address, shift).unwrap();
                match range.last().checked_add(1) {
                    Some(more) => address = more,
                    None => break,
                }
            }
            count
        };
        // From here on the completion is in flight.
        self.hook(&self.on_translate);
        std::thread::yield_now();
        Ok(count)
    }

    fn page_request(&self, request: &PageRequest) {
        demand(51, request.address % PAGE_SIZE == 0);
        self.check(false, request.pasid);
        self.check_attributes(request.execute, request.privileged, 73);
        if self.inner.lock().unwrap().gone {
            return;
        }
        if !request.read && !request.write && request.last {
            demand(50, request.pasid.is_some());
            self.inner.lock().unwrap().markers.push(*request);
            return;
        }
        demand(50, request.read || request.write);
        if self.inner.lock().unwrap().judge {
            let e = &self.endpoint;
            let control = e.config_read(config_space::PRI + 4);
            demand(55, control >> 16 & 1 == 0);
            // A group that was begun is sent to its end, and Stopped stays clear until then.
            let begun = self.inner.lock().unwrap().queue.back().copied();
            let begun = begun.is_some_and(|p| p.prgi == request.prgi && !p.last);
            let stopped = control >> 24 & 1 != 0;
            demand(59, control & 1 != 0 || begun && !stopped);
            // Before the lock: a read of a register lets the model checker switch tasks.
            let allocation = e.config_read(config_space::PRI + 12);
            let waiting = &self.inner.lock().unwrap().queue;
            demand(58, waiting.len() < allocation as usize);
            let same = |p: &&PageRequest| p.prgi == request.prgi;
            // Two last requests with one index also break rule 51.
            let all_last = MUTANT.get() == Some(Mutant::Rule51);
            demand(49, all_last || waiting.iter().filter(same).all(|p| !p.last));
        }
        self.hook(&self.on_page);
        let service = *self.service.lock().unwrap();
        let group: Vec<_> = {
            let mut inner = self.inner.lock().unwrap();
            inner.page_requests.push(*request);
            inner.queue.push_back(*request);
            if !request.last || service == Service::Later {
                return;
            }
            let group = inner.queue.iter().copied();
            let group: Vec<_> = group.filter(|p| p.prgi == request.prgi).collect();
            inner.queue.retain(|p| p.prgi != request.prgi);
            group
        };
        match service {
            Service::Now => self.serve_group(&group, ResponseCode::Success),
            Service::Pretend => self.respond(request, ResponseCode::Success),
            Service::Refuse(code) => self.respond(request, code),
            Service::Later => {}
        }
    }

    fn read(&self, request: &MemoryRequest, data: &mut [u8]) -> Result<(), MemoryError> {
        self.check(
            request.address_type == MemoryAddressType::Translated,
            request.pasid,
        );
        self.hook(&self.on_read);
        let mut inner = self.inner.lock().unwrap();
        inner.note(request, data.len(), false);
        let address = inner.locate(request, data.len(), false)?;
        inner.access(address, data, false);
        Ok(())
    }

    fn write(&self, request: &MemoryRequest, data: &[u8]) -> Result<(), MemoryError> {
        self.check(
            request.address_type == MemoryAddressType::Translated,
            request.pasid,
        );
        self.store(request, data)
    }

    fn copy(
        &self,
        source: &MemoryRequest,
        destination: &MemoryRequest,
        buffer: &mut [u8],
    ) -> Result<(), CopyError> {
        if !self.inner.lock().unwrap().copies {
            return Err(CopyError::Apart);
        }
        for request in [source, destination] {
            let translated = request.address_type == MemoryAddressType::Translated;
            self.check(translated, request.pasid);
        }
        self.hook(&self.on_read);
        let mut inner = self.inner.lock().unwrap();
        let from = inner
            .locate(source, buffer.len(), false)
            .map_err(CopyError::Read)?;
        let to = inner
            .locate(destination, buffer.len(), true)
            .map_err(CopyError::Write)?;
        inner.writes.push((to, buffer.len()));
        inner.access(from, buffer, false);
        inner.access(to, buffer, true);
        Ok(())
    }

    fn compare_and_swap(
        &self,
        request: &MemoryRequest,
        expected: u64,
        new: u64,
    ) -> Result<u64, MemoryError> {
        self.check(true, request.pasid);
        self.hook(&self.on_write);
        let mut inner = self.inner.lock().unwrap();
        if inner.no_swap {
            return Err(MemoryError::Unsupported { what: "a swap" });
        }
        let address = inner.locate(request, 8, true)?;
        let mut word = [0; 8];
        inner.access(address, &mut word, false);
        let old = u64::from_le_bytes(word);
        if old == expected {
            inner.access(address, &mut new.to_le_bytes(), true);
            inner.writes.push((address, 8));
        }
        Ok(old)
    }

    fn fetch_add(&self, request: &MemoryRequest, addend: u64) -> Result<u64, MemoryError> {
        self.check(true, request.pasid);
        self.hook(&self.on_write);
        let mut inner = self.inner.lock().unwrap();
        let address = inner.locate(request, 8, true)?;
        let mut word = [0; 8];
        inner.access(address, &mut word, false);
        let old = u64::from_le_bytes(word);
        inner.access(address, &mut old.wrapping_add(addend).to_le_bytes(), true);
        inner.writes.push((address, 8));
        Ok(old)
    }

    fn interrupt(&self, vector: u16) {
        self.check(false, None);
        if self.inner.lock().unwrap().gone {
            return;
        }
        self.inner.lock().unwrap().interrupts.push(vector);
        self.hook(&self.on_interrupt);
    }

    fn invalidate_completion(&self, completion: &InvalidateCompletion) {
        self.inner.lock().unwrap().completions.push(*completion);
    }
}
