// SPDX-License-Identifier: MIT OR Apache-2.0
//! What always holds.

use crate::world::{CANARY, FORBIDDEN, MEMORY, Statistics, World};
use pcie_ats::{Translation, TranslationError};
use svm_abi::registers::{self, context, context_block, status};
use vtd::memory::Memory;
use vtd::spec::fault::FaultRecord;
use vtd::spec::register::{fsts, global, offset, prs};
use vtd::{Access, Blocked, Effects, Request, Translated, Unit};

impl World {
    /// The registers of the unit and of the endpoints are what they can be.
    pub fn check_registers(&self) {
        let read = |at, size| self.machine.unit_read(0, at, size);
        let caps = self.machine.with_unit(0, |unit, _, _| *unit.capabilities());
        assert_eq!(read(offset::CAP, 8), caps.cap().0);
        assert_eq!(read(offset::ECAP, 8), caps.ecap().0);

        let known = global::TE
            | global::SRTP
            | global::WBF
            | global::QIE
            | global::IRE
            | global::SIRTP
            | global::CFI;
        let gsts = read(offset::GSTS, 4) as u32;
        assert_eq!(gsts & !known, 0, "GSTS {gsts:#x}");

        let status = read(offset::FSTS, 4) as u32;
        let known = fsts::PFO | fsts::PPF | fsts::IQE | fsts::ICE | fsts::ITE | 0xff00;
        assert_eq!(status & !known, 0, "FSTS {status:#x}");
        let count = caps.cap().fault_recording_registers();
        assert!(status >> 8 < u32::from(count), "FRI of FSTS {status:#x}");
        let mut pending = false;
        for n in 0..count {
            let words = [0, 8].map(|word| read(offset::FRCD + n * 16 + word, 8));
            let set = words[1] >> 63 != 0;
            pending |= set;
            let record = FaultRecord::from_words(words);
            assert_eq!(record.is_some(), set, "fault record {words:x?}");
        }
        assert_eq!(status & fsts::PPF != 0, pending, "PPF of FSTS {status:#x}");
        let page_requests = read(offset::PRS, 4) as u32;
        assert_eq!(page_requests & !(prs::PPR | prs::PRO), 0);
        assert_eq!(read(offset::ICS, 4) & !1, 0);

        // Nothing is in flight between two actions, so no command waits for a drain.
        assert_eq!(read(offset::CCMD, 8) >> 63, 0, "ICC");
        assert_eq!(read(offset::IOTLB, 8) >> 63, 0, "IVT");
        assert_eq!(read(offset::IQH, 8) & !0x7_fff0, 0, "IQH");
        let pending = self
            .machine
            .with_unit(0, |unit, _, _| unit.pending_invalidations());
        // A requester id has 32 tags; two are functions, the rest the fuzzer's inventions.
        assert!(pending <= 1 << 16, "{pending} invalidation requests");

        for function in 0..self.machine.functions() {
            let read = |at| self.machine.bar_read(function, 0, at, 8);
            for n in 0..self.machine.endpoint(function).config().contexts {
                let block = context_block(n);
                let state = read(block + context::STATUS);
                assert!(status::state(state) <= status::HALTED, "STATUS {state:#x}");
                let halted = status::state(state) == status::HALTED;
                assert_eq!(status::error(state) != 0, halted, "STATUS {state:#x}");
                let (head, tail) = (read(block + context::HEAD), read(block + context::TAIL));
                assert!(head <= tail, "HEAD {head} TAIL {tail}");
            }
            let enables = read(registers::device::FUNCTION);
            let master = self.machine.config_read(function, 4) & 4 != 0;
            assert_eq!(enables & registers::function::BUS_MASTER != 0, master);
        }
    }

    /// Nothing reached what nothing points to.
    pub fn check_canary(&self) {
        if !self.tame {
            return;
        }
        for at in (FORBIDDEN..MEMORY).step_by(8) {
            let word = self.machine.ram().load(at);
            assert_eq!(word, Ok(CANARY), "memory at {at:#x} was written");
        }
    }

    /// A checksum of what the tables and queues are made of: if it stays the same, so have they.
    fn fingerprint(&self) -> u32 {
        let mut page = [0; 4096];
        let end = crate::world::POOL + self.snapshot.len() as u64;
        (crate::world::POOL..end)
            .step_by(page.len())
            .fold(0, |sum, at| {
                assert_eq!(self.machine.ram().read(at, &mut page), Ok(()));
                crc32c::crc32c_append(sum, &page)
            })
    }

    /// After an invalidation of everything, the unit answers as one that has never cached
    /// anything: the first time, and when the answer comes from its caches.
    pub fn compare(&mut self, statistics: &mut Statistics) {
        let faults = |unit: &Unit| unit.read(offset::FSTS, 4) & u64::from(fsts::PPF);
        for _ in 0..4 {
            let (request, ats) = (self.request(), self.translation_request());
            // Flags that are set on the way change tables; then all is asked again.
            for _ in 0..4 {
                let before = self.fingerprint();
                let requester = request.requester;
                let (answers, empty) = self.machine.with_unit(0, |unit, ram, fx| {
                    let rtaddr = unit.read(offset::RTADDR, 8);
                    let status = unit.read(offset::GSTS, 4) & 0x96ff_ffff;
                    let srtp = status | u64::from(global::SRTP);
                    unit.write(offset::GCMD, srtp, 4, fx);
                    let mut ask = |unit: &mut Unit| {
                        let mut places = [Translation::from_word(0); 16];
                        let count = unit.translation_request(ram, requester, &ats, &mut places, fx);
                        (
                            unit.translate(ram, &request, fx),
                            count.map(|count| places[..count].to_vec()),
                        )
                    };
                    let first = ask(unit);
                    // Other requests fill the caches with what this one must not take for its own.
                    prime(unit, ram, &request);
                    let answers = [first, ask(unit)];
                    let mut fresh = Unit::new(*unit.capabilities());
                    for at in [
                        offset::PLMBASE,
                        offset::PLMLIMIT,
                        offset::PHMBASE,
                        offset::PHMLIMIT,
                        offset::PMEN,
                    ] {
                        let size = if at >= offset::PHMBASE { 8 } else { 4 };
                        let mut fx = Effects::new();
                        fresh.write(at, unit.read(at, size), size, &mut fx);
                    }
                    let mut fx = Effects::new();
                    fresh.write(offset::RTADDR, rtaddr, 8, &mut fx);
                    fresh.write(offset::GCMD, global::SRTP.into(), 4, &mut fx);
                    fresh.write(offset::GCMD, status & u64::from(global::TE), 4, &mut fx);
                    let empty = ask(&mut fresh);
                    statistics.faults += u64::from(faults(&fresh) != 0);
                    (answers, empty)
                });
                if self.fingerprint() != before {
                    continue;
                }
                statistics.compared += 1;
                for (n, answer) in answers.iter().enumerate() {
                    let same = same_access(&answer.0, &empty.0) && same_ats(&answer.1, &empty.1);
                    assert!(
                        same,
                        "answer {n} to {request:x?} and {ats:x?} is {answer:x?}, of an empty unit \
                         {empty:x?}"
                    );
                }
                break;
            }
        }
    }
}

/// Asks for the same address in every other way.
fn prime(unit: &mut Unit, ram: &machine::Ram, request: &Request) {
    let mut fx = Effects::new();
    for access in [Access::Read, Access::Write, Access::Atomic] {
        for privileged in [false, true] {
            for execute in [false, true] {
                let other = Request {
                    access,
                    privileged,
                    execute,
                    ..*request
                };
                let _ = unit.translate(ram, &other, &mut fx);
            }
        }
    }
}

/// Whether two answers are the same, but for writes that one has to ask for again.
fn same_access(ours: &Result<Translated, Blocked>, empty: &Result<Translated, Blocked>) -> bool {
    match (ours, empty) {
        (Ok(ours), Ok(empty)) => {
            let careful = Translated {
                write: ours.write,
                ..*empty
            };
            *ours == careful && (empty.write || !ours.write)
        }
        _ => ours == empty,
    }
}

fn same_ats(
    ours: &Result<Vec<Translation>, TranslationError>,
    empty: &Result<Vec<Translation>, TranslationError>,
) -> bool {
    ours == empty
}
