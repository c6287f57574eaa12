// SPDX-License-Identifier: MIT OR Apache-2.0
//! The environment of a device, for tests: processes with pages, memory, a translation agent and a
//! page request queue, all of which can be made to misbehave; and the few operations of a driver.

pub mod failure;
mod gate;
mod port;

use crate::{Config, Endpoint, Mutant, Step, config_space};
use gate::Gate;
use pcie_ats::{
    AlignedRange, Function, InvalidateCompletion, InvalidateRequest, Invalidation, Itag,
    MemoryRequest, PageRequest, Pasid, PrgResponse, ResponseCode, TranslationError,
    TranslationRequest,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Mutex;
use svm_abi::completion::Completion;
use svm_abi::descriptor::Descriptor;
use svm_abi::doorbell;
use svm_abi::registers::{
    CONTEXT_COUNTERS, LABORATORY, context, context_block, control, laboratory, pasid, vector,
};

/// A page, or a range of them, of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub range: AlignedRange,
    pub output: u64,
    pub write: bool,
    pub present: bool,
    pub untranslated_only: bool,
    /// Reads are not permitted.
    pub write_only: bool,
    /// For privileged mode only.
    pub supervisor: bool,
}

/// Random numbers, the same in every run (xorshift).
pub struct Numbers(pub u64);

impl Numbers {
    /// A number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }
}

/// What happens to a page request group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The response comes from inside the request.
    Now,
    /// The group waits for [`World::serve`].
    Later,
    /// The response is success, but nothing is done.
    Pretend,
    /// The response has this code.
    Refuse(ResponseCode),
}

thread_local! {
    /// The rule that the devices of this thread's worlds break.
    pub static MUTANT: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// An action in the middle of the next access of a kind, with the world.
pub type Hook = Box<dyn FnMut(&World) + Send>;

#[derive(Default)]
pub struct Inner {
    pub mappings: BTreeMap<(u32, u64), Mapping>,
    pub frames: HashMap<u64, Box<[u8]>>,
    pub next_frame: u64,
    pub queue: VecDeque<PageRequest>,
    pub page_requests: Vec<PageRequest>,
    pub translations: Vec<TranslationRequest>,
    pub interrupts: Vec<u16>,
    pub writes: Vec<(u64, usize)>,
    pub completions: Vec<InvalidateCompletion>,
    pub error: Option<TranslationError>,
    pub refuse_memory: Option<u64>,
    /// Checks every request against the state of the function and the outstanding requests.
    pub judge: bool,
    /// Frames that must not be accessed any more, and the violations.
    pub retired: std::collections::HashSet<u64>,
    pub trespasses: Vec<u64>,
    /// If recorded: memory requests with their lengths, and whether they are writes.
    pub log: Option<Vec<(MemoryRequest, usize, bool)>>,
    /// Stop markers.
    pub markers: Vec<PageRequest>,
    /// The port does not support atomic compare-and-swap.
    pub no_swap: bool,
    /// The port supports reading and writing at one moment.
    pub copies: bool,
    /// Surprise removal: the function's requests reach nothing, and nothing reaches the function.
    pub gone: bool,
}

/// The world.
pub struct World {
    pub endpoint: Endpoint,
    pub inner: Mutex<Inner>,
    pub service: Mutex<Service>,
    pub on_translate: Mutex<Option<Hook>>,
    pub on_write: Mutex<Option<Hook>>,
    pub on_read: Mutex<Option<Hook>>,
    pub on_page: Mutex<Option<Hook>>,
    pub on_interrupt: Mutex<Option<Hook>>,
    pub gate: Gate,
}

pub fn pid(n: u32) -> Pasid {
    Pasid::new(n).unwrap()
}

/// Stands for the address space of requests without a PASID in place of a PASID.
pub const FUNCTION: u32 = 1 << 20;

pub const RING: u64 = 0x10_0000;
pub const RECORDS: u64 = 0x20_0000;
pub const RING_LOG2: u32 = 6;

impl World {
    pub fn new(config: Config) -> World {
        let mutant = MUTANT.get();
        let endpoint = Endpoint::new(Config {
            laboratory: config.laboratory || mutant.is_some(),
            ..config
        })
        .unwrap();
        if let Some(mutant) = mutant {
            let register = LABORATORY + laboratory::MUTANT;
            endpoint.bar_write(0, register, mutant.rule().into(), 8);
        }
        World {
            endpoint,
            inner: Mutex::new(Inner {
                next_frame: 0x1000_0000,
                ..Inner::default()
            }),
            service: Mutex::new(Service::Now),
            on_translate: Mutex::new(None),
            on_write: Mutex::new(None),
            on_read: Mutex::new(None),
            on_page: Mutex::new(None),
            on_interrupt: Mutex::new(None),
            gate: Gate::default(),
        }
    }

    /// A function that is enabled, and context 0 started for PASID 1, with its ring mapped.
    pub fn running() -> World {
        Self::running_with(Config::default())
    }

    pub fn running_with(config: Config) -> World {
        let world = World::new(config);
        world.enable(config.pri_capacity);
        world.start(0, 1);
        world
    }

    pub fn enable(&self, allocation: u32) {
        let e = &self.endpoint;
        e.config_write(4, 4, 4);
        // With execution and privileged mode, if the device supports them.
        e.config_write(config_space::PASID + 4, 7 << 16, 7 << 16);
        e.config_write(config_space::ATS + 4, 1 << 31, 0xffff_0000);
        e.config_write(config_space::PRI + 12, allocation, !0);
        e.config_write(config_space::PRI + 4, 1, 0xffff);
    }

    pub fn start(&self, n: u16, pasid_number: u32) {
        for page in [RING, RECORDS] {
            if self.mapping(pasid_number, page).is_none() {
                self.map(pasid_number, page, true);
            }
        }
        let register = match pasid_number {
            FUNCTION => pasid::NONE,
            number => u64::from(number) | pasid::VALID,
        };
        self.set(n, context::PASID, register);
        self.set(n, context::RING, RING);
        self.set(n, context::RING_LOG2, u64::from(RING_LOG2));
        self.set(n, context::VECTOR, u64::from(n + 1) | vector::ENABLE);
        self.set(n, context::CONTROL, control::START);
    }

    pub fn set(&self, n: u16, register: u64, value: u64) {
        self.endpoint
            .bar_write(0, context_block(n) + register, value, 8);
    }

    pub fn get(&self, n: u16, register: u64) -> u64 {
        self.endpoint.bar_read(0, context_block(n) + register, 8)
    }

    pub fn counter(&self, n: u16, index: usize) -> u64 {
        self.get(n, CONTEXT_COUNTERS + 8 * index as u64)
    }

    /// Runs until there is nothing to do; fails if that never happens.
    pub fn run(&self) -> usize {
        for steps in 0..20_000 {
            if self.endpoint.step(self) == Step::Idle {
                return steps;
            }
        }
        panic!("the device never comes to rest");
    }

    // Processes.

    pub fn frame(&self) -> u64 {
        self.frames(12)
    }

    /// A fresh aligned range of memory.
    pub fn frames(&self, shift: u8) -> u64 {
        let mut inner = self.inner.lock().unwrap();
        let size = 1u64 << shift;
        let at = inner.next_frame.next_multiple_of(size);
        inner.next_frame = at + size;
        at
    }

    /// The address at which a process sees a frame.
    pub fn address_of(&self, pasid: u32, frame: u64) -> Option<u64> {
        let inner = self.inner.lock().unwrap();
        let mut mappings = inner.mappings.iter();
        mappings
            .find(|((process, _), m)| *process == pasid && m.output == frame)
            .map(|(_, m)| m.range.base())
    }

    /// Maps a present page, and returns its frame.
    pub fn map(&self, pasid: u32, address: u64, write: bool) -> u64 {
        let output = self.frame();
        self.map_to(pasid, AlignedRange::page(address), output, write, true);
        output
    }

    pub fn map_to(&self, pasid: u32, range: AlignedRange, output: u64, write: bool, present: bool) {
        self.inner.lock().unwrap().mappings.insert(
            (pasid, range.base()),
            Mapping {
                range,
                output,
                write,
                present,
                untranslated_only: false,
                write_only: false,
                supervisor: false,
            },
        );
    }

    /// Maps a page that a page request makes present.
    pub fn map_absent(&self, pasid: u32, address: u64, write: bool) {
        let output = self.frame();
        self.map_to(pasid, AlignedRange::page(address), output, write, false);
    }

    pub fn mapping(&self, pasid: u32, address: u64) -> Option<Mapping> {
        self.inner.lock().unwrap().mapping(pasid, address)
    }

    pub fn change(&self, pasid: u32, address: u64, change: impl FnOnce(&mut Mapping)) {
        let mut inner = self.inner.lock().unwrap();
        let key = inner.mapping(pasid, address).unwrap().range.base();
        change(inner.mappings.get_mut(&(pasid, key)).unwrap());
    }

    pub fn unmap(&self, pasid: u32, address: u64) {
        let mut inner = self.inner.lock().unwrap();
        let key = inner.mapping(pasid, address).unwrap().range.base();
        inner.mappings.remove(&(pasid, key));
    }

    pub fn invalidate(&self, pasid: u32, range: AlignedRange) -> Invalidation {
        self.invalidate_tagged(pasid, range, 0)
    }

    pub fn invalidate_tagged(&self, pasid: u32, range: AlignedRange, itag: u8) -> Invalidation {
        self.endpoint.invalidate(&InvalidateRequest {
            itag: Itag::new(itag).unwrap(),
            pasid: (pasid != FUNCTION).then(|| pid(pasid)),
            range,
            global: false,
        })
    }

    /// Answers the oldest waiting group, and returns it; empty if there is none.
    pub fn serve(&self, code: ResponseCode) -> Vec<PageRequest> {
        let group: Vec<_> = {
            let mut inner = self.inner.lock().unwrap();
            let Some(last) = inner.queue.iter().find(|p| p.last).copied() else {
                return Vec::new();
            };
            let group = inner.queue.iter().filter(|p| p.prgi == last.prgi);
            let group = group.copied().collect();
            inner.queue.retain(|p| p.prgi != last.prgi);
            group
        };
        self.serve_group(&group, code);
        group
    }

    pub fn serve_group(&self, group: &[PageRequest], code: ResponseCode) {
        if group.is_empty() {
            return;
        }
        let mut code = code;
        if code == ResponseCode::Success {
            let mut inner = self.inner.lock().unwrap();
            for page in group {
                code = match inner.fault(page) {
                    true => code,
                    false => ResponseCode::InvalidRequest,
                };
            }
        }
        self.respond(&group[0], code);
    }

    pub fn respond(&self, to: &PageRequest, code: ResponseCode) {
        self.endpoint.prg_response(&PrgResponse {
            prgi: to.prgi,
            pasid: to.pasid,
            code,
        });
    }

    // The process's view of its memory.

    pub fn poke(&self, pasid: u32, address: u64, data: &[u8]) {
        self.process_access(pasid, address, &mut data.to_vec(), true);
    }

    pub fn peek(&self, pasid: u32, address: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.process_access(pasid, address, &mut data, false);
        data
    }

    fn process_access(&self, pasid: u32, address: u64, data: &mut [u8], write: bool) {
        let mut inner = self.inner.lock().unwrap();
        let mut done = 0;
        while done < data.len() {
            let at = address + done as u64;
            let m = inner.mapping(pasid, at).unwrap();
            let room = (m.range.last() - at) as usize + 1;
            let length = room.min(data.len() - done);
            let output = m.output + (at - m.range.base());
            inner.access(output, &mut data[done..done + length], write);
            done += length;
        }
    }

    pub fn peek_frame(&self, frame: u64, length: usize) -> Vec<u8> {
        let mut inner = self.inner.lock().unwrap();
        let mut data = vec![0; length];
        inner.access(frame, &mut data, false);
        data
    }

    pub fn fill_frame(&self, frame: u64, length: usize, byte: u8) {
        self.inner
            .lock()
            .unwrap()
            .access(frame, &mut vec![byte; length], true);
    }

    /// From now on every access of the device to the frame is an error.
    pub fn retire_frame(&self, frame: u64) {
        self.inner.lock().unwrap().retired.insert(frame);
    }

    // The operations of a program.

    /// Puts a descriptor into the ring of context 0 for PASID 1, with a record, and rings the
    /// doorbell.
    pub fn submit(&self, descriptor: Descriptor) -> u64 {
        self.submit_to(0, 1, descriptor)
    }

    pub fn submit_to(&self, n: u16, pasid: u32, mut descriptor: Descriptor) -> u64 {
        let tail = self.get(n, context::TAIL);
        let slot = tail % (1 << RING_LOG2);
        if descriptor.completion == 0 {
            descriptor.completion = RECORDS + 32 * slot;
            self.poke(pasid, descriptor.completion, &[0; 32]);
        }
        self.poke(pasid, RING + 64 * slot, &descriptor.to_bytes());
        self.doorbell(n, tail + 1);
        descriptor.completion
    }

    pub fn doorbell(&self, n: u16, tail: u64) {
        let page = u64::from(n) * doorbell::PAGE_SIZE;
        self.endpoint.bar_write(2, page + doorbell::TAIL, tail, 8);
    }

    pub fn record(&self, pasid: u32, address: u64) -> Completion {
        let bytes: [u8; 32] = self.peek(pasid, address, 32).try_into().unwrap();
        Completion::from_bytes(&bytes)
    }

    /// Submits, runs, and returns the record.
    pub fn perform(&self, descriptor: Descriptor) -> Completion {
        let address = self.submit(descriptor);
        self.run();
        self.record(1, address)
    }

    /// From now on the world checks each request of the device.
    pub fn judge(&self) {
        self.inner.lock().unwrap().judge = true;
    }
}
