// SPDX-License-Identifier: MIT OR Apache-2.0
//! A context without PASID in a domain, as a program in user space has it: ATS with the tables of
//! requests without PASID, in both modes of the unit, and invalidations when a page is unmapped.

use machine::os::{Domain, Driver, Mode, Os};
use machine::{Machine, MachineConfig};
use svm_abi::completion::{self, Completion, Error};
use svm_abi::counters::index;
use svm_abi::descriptor::{Descriptor, Operation, flags};
use svm_abi::registers::{context, control, pasid, status};
use svm_abi::{doorbell, ids};

const RING: u64 = 0x10_0000;
const RECORDS: u64 = 0x11_0000;
const DATA: u64 = 0x20_0000;

/// A context at work in a domain whose pages are known.
struct World {
    machine: Machine,
    os: Os,
    domain: Domain,
    driver: Driver,
    records: u64,
    ring: u64,
    tail: std::cell::Cell<u64>,
}

impl World {
    fn new(mode: Mode) -> World {
        let machine = Machine::new(&MachineConfig::default()).unwrap();
        let os = Os::boot(&machine, mode);
        let domain = Domain::attach(&os, 0);
        let driver = Driver::probe(&os, 0);
        let page = |iova| {
            let frame = os.frames().allocate();
            domain.map(iova, 12, frame, true);
            frame
        };
        let (ring, records) = (page(RING), page(RECORDS));
        driver.set_register(0, context::PASID, pasid::NONE);
        driver.set_register(0, context::RING, RING);
        driver.set_register(0, context::RING_LOG2, 4);
        driver.set_register(0, context::CONTROL, control::START);
        let state = driver.register(0, context::STATUS);
        assert_eq!(
            status::state(state),
            status::ENABLED,
            "{mode:?}: {state:#x}"
        );
        World {
            machine,
            os,
            domain,
            driver,
            records,
            ring,
            tail: 0.into(),
        }
    }

    fn perform(&self, mut descriptor: Descriptor) -> Completion {
        let number = self.tail.get();
        let slot = number % 16;
        descriptor.completion = RECORDS + 32 * slot;
        let store = |at: u64, bytes: &[u8]| {
            for (n, word) in bytes.chunks_exact(8).enumerate() {
                let word = u64::from_le_bytes(word.try_into().unwrap());
                self.machine.ram().store(at + 8 * n as u64, word).unwrap();
            }
        };
        let record = self.records + 32 * slot;
        store(record, &[0; completion::SIZE]);
        store(self.ring + 64 * slot, &descriptor.to_bytes());
        self.tail.set(number + 1);
        let tail = doorbell::TAIL;
        self.machine
            .bar_write(0, ids::DOORBELLS_BAR, tail, number + 1, 8);
        let load = |at| self.machine.ram().load(at).unwrap();
        assert!(
            self.os.wait_until(|| load(record) as u8 != 0),
            "it never ends"
        );
        let mut bytes = [0; completion::SIZE];
        for (n, word) in bytes.chunks_exact_mut(8).enumerate() {
            word.copy_from_slice(&load(record + 8 * n as u64).to_le_bytes());
        }
        Completion::from_bytes(&bytes)
    }

    fn counter(&self, index: usize) -> u64 {
        self.driver.counter(0, index)
    }
}

fn fill(destination: u64, pattern: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Fill as u8,
        flags: flags::BLOCK_ON_FAULT,
        destination,
        length: 64,
        operand0: pattern,
        ..Descriptor::default()
    }
}

#[test]
fn a_context_without_pasid_works_in_the_domain_of_its_function() {
    for mode in [Mode::Legacy, Mode::Scalable] {
        let world = World::new(mode);
        let frame = world.os.frames().allocate();
        world.domain.map(DATA, 12, frame, true);
        let record = world.perform(fill(DATA, 0x1122));
        assert_eq!(
            record.status,
            completion::status::SUCCESS,
            "{mode:?}: {record:?}"
        );
        assert_eq!(world.machine.ram().load(frame + 8), Ok(0x1122));
        let asked = world.counter(index::TRANSLATION_REQUESTS);
        world.perform(fill(DATA, 0x3344));
        assert_eq!(
            world.counter(index::TRANSLATION_REQUESTS),
            asked,
            "{mode:?}: not cached"
        );
    }
}

#[test]
fn what_is_unmapped_is_invalidated_and_fails_without_a_page_request() {
    for mode in [Mode::Legacy, Mode::Scalable] {
        let world = World::new(mode);
        let old = world.os.frames().allocate();
        world.domain.map(DATA, 12, old, true);
        world.perform(fill(DATA, 1));
        world.domain.unmap(DATA).unwrap();
        assert_eq!(world.counter(index::INVALIDATED_ENTRIES), 1, "{mode:?}");
        let record = world.perform(fill(DATA + 16, 2));
        let error = Error::from_u8(record.error);
        assert_eq!(error, Some(Error::NotPresent), "{mode:?}: {record:?}");
        assert_eq!(record.fault_address, DATA + 16);
        assert_eq!(world.counter(index::PAGE_REQUESTS), 0);
        assert_eq!(world.machine.ram().load(old + 16), Ok(1), "{mode:?}");
        // Mapped anew, other memory is reached.
        let new = world.os.frames().allocate();
        world.domain.map(DATA, 12, new, true);
        let record = world.perform(fill(DATA, 3));
        assert_eq!(
            record.status,
            completion::status::SUCCESS,
            "{mode:?}: {record:?}"
        );
        let load = |at| world.machine.ram().load(at);
        assert_eq!((load(new), load(old)), (Ok(3), Ok(1)));
    }
}
