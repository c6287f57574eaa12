// SPDX-License-Identifier: GPL-2.0-or-later
//! One context of the device, with its ring in the memory of a PASID, as a process would use it;
//! and the machine that most tests begin with.

use svm_abi::descriptor::{Descriptor, Operation, flags};
use svm_abi::{completion, descriptor, doorbell, registers};

use crate::machine::{Bars, DEVICE, Machine};

/// The PASID of most tests; its table entry is not the first of its table.
pub const PASID: u32 = 0x123;
/// Pages of its process.
pub const SOURCE: u64 = 0x7f00_1020_0000;
pub const DESTINATION: u64 = 0x7f00_1020_3000;

/// A machine whose operating system has enabled the device and started context 1.
pub fn ready(properties: &str) -> Option<(Machine, Context)> {
    Some(enabled(Machine::with(properties)?))
}

/// The same of a machine that is there.
pub fn enabled(mut machine: Machine) -> (Machine, Context) {
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    machine.enable_vtd(&[DEVICE]);
    machine.add_pasid(PASID);
    let context = Context::start(&mut machine, bars, 1, PASID);
    (machine, context)
}

/// Maps a new page and returns its frame.
pub fn map_new(machine: &mut Machine, address: u64) -> u64 {
    let frame = machine.page();
    machine.map(PASID, address, frame, true);
    frame
}

/// A fill that waits for pages that are not present.
pub fn fill(destination: u64, length: u64, pattern: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Fill as u8,
        flags: flags::BLOCK_ON_FAULT,
        destination,
        length,
        operand0: pattern,
        ..Default::default()
    }
}

/// A context of the device with its ring, in the memory of one PASID.
pub struct Context {
    pub bars: Bars,
    pub number: u16,
    ring: u64,
    records: u64,
    submitted: u64,
    /// Distance from the physical to the virtual address of the ring, and of the records.
    shifts: (u64, u64),
}

/// Log2 of the descriptors of a ring; its completion records take a page as well.
const RING_LOG2: u64 = 6;
/// Where the ring lies in the address space of a PASID, and the records behind it.
const RING: u64 = 0x7f00_0000_0000;
/// A page of 2 MiB, beyond those that [`Machine::page`] gives.
const LARGE_MEMORY: u64 = 0x1f00_0000;

impl Context {
    /// Starts a context on a PASID whose tables exist.
    pub fn start(machine: &mut Machine, bars: Bars, number: u16, pasid: u32) -> Context {
        let (ring, records) = (machine.page(), machine.page());
        machine.map(pasid, RING, ring, true);
        machine.map(pasid, RING + 0x1000, records, true);
        // An earlier context may have had its ring there.
        machine.invalidate_iotlb(pasid, RING);
        machine.invalidate_iotlb(pasid, RING + 0x1000);
        let shifts = (RING - ring, RING + 0x1000 - records);
        Context::start_at(machine, bars, number, pasid, (ring, records), shifts)
    }

    /// Starts a context whose ring and records lie in one page of 2 MiB.
    pub fn start_large(machine: &mut Machine, bars: Bars, number: u16, pasid: u32) -> Context {
        machine.map_large(pasid, RING, LARGE_MEMORY);
        let pages = (LARGE_MEMORY, LARGE_MEMORY + 0x1000);
        let shift = RING - LARGE_MEMORY;
        Context::start_at(machine, bars, number, pasid, pages, (shift, shift))
    }

    /// Starts a context while translation is off: all addresses are physical ones.
    pub fn start_untranslated(machine: &mut Machine, bars: Bars, number: u16) -> Context {
        let pages = (machine.page(), machine.page());
        Context::start_at(machine, bars, number, 1, pages, (0, 0))
    }

    fn start_at(
        machine: &mut Machine,
        bars: Bars,
        number: u16,
        pasid: u32,
        (ring, records): (u64, u64),
        shifts: (u64, u64),
    ) -> Context {
        let context = Context {
            bars,
            number,
            ring,
            records,
            submitted: 0,
            shifts,
        };
        use registers::{context as register, control, pasid as field};
        context.write(machine, register::PASID, field::VALID | u64::from(pasid));
        context.write(machine, register::RING, ring + shifts.0);
        context.write(machine, register::RING_LOG2, RING_LOG2);
        context.write(machine, register::CONTROL, control::START);
        let status = context.status(machine);
        assert_eq!(
            registers::status::state(status),
            registers::status::ENABLED,
            "{status:#x}"
        );
        context
    }

    /// Stops the context, be it that it halted.
    pub fn stop(self, machine: &mut Machine) {
        use registers::{context, control, status};
        self.write(machine, context::CONTROL, control::STOP);
        let state = status::state(self.status(machine));
        assert_eq!(state, status::DISABLED);
    }

    /// Writes a register of the context.
    pub fn write(&self, machine: &mut Machine, register: u64, value: u64) {
        let block = self.bars.registers + registers::context_block(self.number);
        machine.qemu.writeq(block + register, value);
    }

    /// Reads a register of the context.
    pub fn read(&self, machine: &mut Machine, register: u64) -> u64 {
        let block = self.bars.registers + registers::context_block(self.number);
        machine.qemu.readq(block + register)
    }

    /// The status register.
    pub fn status(&self, machine: &mut Machine) -> u64 {
        self.read(machine, registers::context::STATUS)
    }

    /// A counter of the context.
    pub fn counter(&self, machine: &mut Machine, index: usize) -> u64 {
        self.read(machine, registers::CONTEXT_COUNTERS + 8 * index as u64)
    }

    /// Puts a descriptor with a completion record into the ring without ringing the doorbell, and
    /// returns its number.
    pub fn place(&mut self, machine: &mut Machine, mut work: descriptor::Descriptor) -> u64 {
        let number = self.submitted;
        let slot = number % (1 << RING_LOG2);
        let record = self.records + slot * completion::SIZE as u64;
        work.completion = record + self.shifts.1;
        machine.qemu.write(record, &[0; completion::SIZE]);
        let at = self.ring + slot * descriptor::SIZE as u64;
        machine.qemu.write(at, &work.to_bytes());
        self.submitted += 1;
        number
    }

    /// Physical address of the doorbell.
    pub fn doorbell(&self) -> u64 {
        let page = self.bars.doorbells + u64::from(self.number) * doorbell::PAGE_SIZE;
        page + doorbell::TAIL
    }

    /// Submits a descriptor with a completion record, and returns its number.
    pub fn submit(&mut self, machine: &mut Machine, work: descriptor::Descriptor) -> u64 {
        let number = self.place(machine, work);
        let doorbell = self.doorbell();
        machine.qemu.writeq(doorbell, self.submitted);
        number
    }

    /// The completion record of a descriptor, as it stands.
    pub fn completion(&self, machine: &mut Machine, number: u64) -> completion::Completion {
        let slot = number % (1 << RING_LOG2);
        let at = self.records + slot * completion::SIZE as u64;
        let bytes = machine.qemu.read(at, completion::SIZE);
        completion::Completion::from_bytes(bytes.as_slice().try_into().unwrap())
    }

    /// Waits for the completion of a descriptor.
    pub fn wait(&self, machine: &mut Machine, number: u64) -> completion::Completion {
        let slot = number % (1 << RING_LOG2);
        let at = self.records + slot * completion::SIZE as u64;
        machine
            .qemu
            .until("a completion record", |qemu| qemu.readl(at) as u8 != 0);
        self.completion(machine, number)
    }

    /// Submits and waits.
    pub fn run(
        &mut self,
        machine: &mut Machine,
        work: descriptor::Descriptor,
    ) -> completion::Completion {
        let number = self.submit(machine, work);
        self.wait(machine, number)
    }

    /// Submits what must succeed, and waits.
    pub fn succeed(&mut self, machine: &mut Machine, work: descriptor::Descriptor) {
        let record = self.run(machine, work);
        assert_eq!(record.status, completion::status::SUCCESS, "{record:?}");
    }
}

/// A copy that waits for pages that are not present.
pub fn copy(source: u64, destination: u64, length: u64) -> descriptor::Descriptor {
    descriptor::Descriptor {
        operation: descriptor::Operation::Copy as u8,
        flags: descriptor::flags::BLOCK_ON_FAULT,
        source,
        destination,
        length,
        ..Default::default()
    }
}
