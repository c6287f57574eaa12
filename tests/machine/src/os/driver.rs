// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small driver of the endpoint, and a program that uses one of its contexts.

use super::board::Board;
use super::kernel::{Mode, Os};
use super::process::{Layout, Process};
use super::queue::QueueFault;
use crate::config::MachineConfig;
use crate::machine::{FunctionId, Machine};
use crate::sync::Mutex;
use svm_abi::completion::{self, Completion};
use svm_abi::descriptor::{self, Descriptor, Operation, flags};
use svm_abi::registers::{CONTEXT_COUNTERS, context, context_block, control, pasid, status};
use svm_abi::{doorbell, ids};
use svm_endpoint::config_space;
use vtd::spec::interrupt::Message;

/// Command register (PCIe 7.5.1.1.3), and its Bus Master Enable.
const COMMAND: u16 = 4;
const BUS_MASTER: u32 = 1 << 2;

/// Where rings lie in a process: one region for each context.
const RINGS: u64 = 0x6000_0000_0000;
/// Room of each context: its ring, and its completion records behind that.
const REGION: u64 = 1 << 20;

/// The driver of a function.
#[derive(Debug)]
pub struct Driver<B: Board + Clone = Machine> {
    os: Os<B>,
    function: FunctionId,
}

impl<B: Board + Clone> Clone for Driver<B> {
    fn clone(&self) -> Self {
        Driver {
            os: self.os.clone(),
            function: self.function,
        }
    }
}

impl<B: Board + Clone> Driver<B> {
    /// Enables a function: bus master, PASID with execution and privileged mode if it offers them,
    /// ATS and page requests.
    pub fn probe(os: &Os<B>, function: FunctionId) -> Self {
        let machine = os.machine();
        let write = |offset, value, mask| machine.config_write(function, offset, value, mask);
        write(COMMAND, BUS_MASTER, BUS_MASTER);
        write(config_space::PASID + 4, 7 << 16, 7 << 16);
        write(config_space::ATS + 4, 1 << 31, 0xffff_0000);
        let capacity = machine.config_read(function, config_space::PRI + 8);
        write(config_space::PRI + 12, capacity, !0);
        write(config_space::PRI + 4, 1, 0xffff);
        Driver {
            os: os.clone(),
            function,
        }
    }

    /// The function.
    pub fn function(&self) -> FunctionId {
        self.function
    }

    /// The operating system.
    pub fn os(&self) -> &Os<B> {
        &self.os
    }

    /// Reads a register of a context, of [`svm_abi::registers::context`].
    pub fn register(&self, context: u16, offset: u64) -> u64 {
        let machine = self.os.machine();
        let at = context_block(context) + offset;
        machine.bar_read(self.function, ids::REGISTERS_BAR, at, 8)
    }

    /// Writes a register of a context.
    pub fn set_register(&self, context: u16, offset: u64, value: u64) {
        let machine = self.os.machine();
        let at = context_block(context) + offset;
        machine.bar_write(self.function, ids::REGISTERS_BAR, at, value, 8);
    }

    /// Reads a counter of [`svm_abi::counters::index`] of a context.
    pub fn counter(&self, context: u16, index: usize) -> u64 {
        self.register(context, CONTEXT_COUNTERS + 8 * index as u64)
    }

    /// Stops a context, and waits until it has.
    pub fn stop(&self, context: u16) -> bool {
        self.set_register(context, context::CONTROL, control::STOP);
        let state = || status::state(self.register(context, context::STATUS));
        self.os.wait_until(|| state() == status::DISABLED)
    }

    /// A register of the laboratory.
    pub fn laboratory(&self, offset: u64) -> u64 {
        let at = svm_abi::registers::LABORATORY + offset;
        self.os
            .machine()
            .bar_read(self.function, ids::REGISTERS_BAR, at, 8)
    }

    /// Sets a register of the laboratory.
    pub fn set_laboratory(&self, offset: u64, value: u64) {
        let at = svm_abi::registers::LABORATORY + offset;
        self.os
            .machine()
            .bar_write(self.function, ids::REGISTERS_BAR, at, value, 8);
    }
}

#[derive(Debug)]
struct Tail {
    /// Descriptors submitted.
    count: u64,
}

/// A descriptor that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the descriptor is over when its record says so"]
pub struct Ticket {
    /// Address of the completion record.
    pub record: u64,
}

/// A process that uses a context of a function. What it submits is completed in order.
#[derive(Debug)]
pub struct App<B: Board + Clone = Machine> {
    driver: Driver<B>,
    process: Process<B>,
    context: u16,
    ring: u64,
    ring_log2: u32,
    message: Message,
    tail: Mutex<Tail>,
}

impl App {
    /// A machine of one unit and one endpoint with an operating system and a process on it.
    ///
    /// # Panics
    ///
    /// If the host has no room for the memory.
    pub fn quick() -> App {
        App::on(&MachineConfig::default(), Layout::default())
    }

    /// A machine with an operating system and a process on it, that uses the first function.
    ///
    /// # Panics
    ///
    /// If the machine cannot be made.
    pub fn on(config: &MachineConfig, layout: Layout) -> App {
        let machine = match Machine::new(config) {
            Ok(machine) => machine,
            Err(error) => panic!("{error}"),
        };
        let os = Os::boot(&machine, Mode::Scalable);
        App::start(&Driver::probe(&os, 0), os.process_with(layout), 0)
    }
}

impl<B: Board + Clone> App<B> {
    /// Binds a process to a function, unless it is already, and starts a context for it.
    pub fn start(driver: &Driver<B>, process: Process<B>, context: u16) -> Self {
        App::start_with(driver, process, context, 6)
    }

    /// As [`App::start`], with 2^`ring_log2` descriptors in the ring, at most 2^13.
    pub fn start_with(
        driver: &Driver<B>,
        process: Process<B>,
        context: u16,
        ring_log2: u32,
    ) -> Self {
        assert!(ring_log2 <= 13, "the ring has at most 2^13 descriptors");
        process.bind(driver.function);
        let ring = RINGS + u64::from(context) * REGION;
        process.map(ring, (descriptor::SIZE as u64) << ring_log2);
        process.map(ring + REGION / 2, (completion::SIZE as u64) << ring_log2);
        let message = driver.os.route(driver.function, context);
        let vector = u64::from(context) | svm_abi::registers::vector::ENABLE;
        let valid = pasid::VALID | u64::from(process.pasid().get());
        driver.set_register(context, context::PASID, valid);
        driver.set_register(context, context::RING, ring);
        driver.set_register(context, context::RING_LOG2, ring_log2.into());
        driver.set_register(context, context::VECTOR, vector);
        driver.set_register(context, context::CONTROL, control::START);
        App {
            driver: driver.clone(),
            process,
            context,
            ring,
            ring_log2,
            message,
            tail: Mutex::new(Tail { count: 0 }),
        }
    }

    /// Starts the context again after it was stopped. Its ring is empty then.
    pub fn restart(&self) {
        let mut tail = self.tail.lock();
        self.driver
            .set_register(self.context, context::CONTROL, control::START);
        tail.count = 0;
    }

    /// The process.
    pub fn process(&self) -> &Process<B> {
        &self.process
    }

    /// The operating system.
    pub fn os(&self) -> &Os<B> {
        &self.driver.os
    }

    /// The machine.
    pub fn machine(&self) -> &B {
        self.driver.os.machine()
    }

    /// The driver of its function.
    pub fn driver(&self) -> &Driver<B> {
        &self.driver
    }

    /// Number of its context.
    pub fn context(&self) -> u16 {
        self.context
    }

    /// The interrupt of its context, as processors see it.
    pub fn message(&self) -> Message {
        self.message
    }

    /// Reads a counter of [`svm_abi::counters::index`] of its context.
    pub fn counter(&self, index: usize) -> u64 {
        self.driver.counter(self.context, index)
    }

    /// The STATUS register of its context.
    pub fn status(&self) -> u64 {
        self.driver.register(self.context, context::STATUS)
    }

    /// Submits a descriptor, and waits for room in the ring if there is none.
    ///
    /// # Panics
    ///
    /// If there never is any.
    pub fn submit(&self, descriptor: Descriptor) -> Ticket {
        self.submit_all(&[descriptor])[0]
    }

    /// Submits descriptors with one doorbell, at most as many as the ring has.
    ///
    /// # Panics
    ///
    /// If there never is room for them.
    pub fn submit_all(&self, descriptors: &[Descriptor]) -> Vec<Ticket> {
        let tickets = self.stage(descriptors);
        self.ring();
        tickets
    }

    /// Puts descriptors into the ring, at most as many as it has, and rings no doorbell.
    ///
    /// # Panics
    ///
    /// If there never is room for them.
    pub fn stage(&self, descriptors: &[Descriptor]) -> Vec<Ticket> {
        let size = 1u64 << self.ring_log2;
        let more = descriptors.len() as u64;
        let mut tail = self.tail.lock();
        let head = || self.driver.register(self.context, context::HEAD);
        let room = || head() + size >= tail.count + more;
        assert!(
            room() || self.driver.os.wait_until(room),
            "the context does not consume its ring: status {:#x}",
            self.status()
        );
        let mut tickets = Vec::with_capacity(descriptors.len());
        for descriptor in descriptors {
            let slot = tail.count % size;
            let record = self.ring + REGION / 2 + slot * completion::SIZE as u64;
            self.process.store(record, 0);
            let descriptor = Descriptor {
                completion: record,
                ..*descriptor
            };
            let at = self.ring + slot * descriptor::SIZE as u64;
            self.process.write(at, &descriptor.to_bytes());
            tail.count += 1;
            tickets.push(Ticket { record });
        }
        tickets
    }

    /// Rings the doorbell for all that was put into the ring.
    pub fn ring(&self) {
        let tail = self.tail.lock();
        let page = u64::from(self.context) * doorbell::PAGE_SIZE;
        self.machine().bar_write(
            self.driver.function,
            ids::DOORBELLS_BAR,
            page + doorbell::TAIL,
            tail.count,
            8,
        );
    }

    /// The completion record of a descriptor, if it is over.
    pub fn completion(&self, ticket: Ticket) -> Option<Completion> {
        if self.process.load(ticket.record) as u8 == completion::status::PENDING {
            return None;
        }
        let bytes = self.process.read(ticket.record, completion::SIZE);
        let bytes: [u8; completion::SIZE] = bytes.try_into().ok()?;
        Some(Completion::from_bytes(&bytes))
    }

    /// Waits for a descriptor; none if it never ends.
    pub fn wait(&self, ticket: Ticket) -> Option<Completion> {
        let over = || self.completion(ticket).is_some();
        self.driver.os.wait_until(over);
        self.completion(ticket)
    }

    /// Submits a descriptor, and waits for it.
    ///
    /// # Panics
    ///
    /// If it never ends.
    pub fn perform(&self, descriptor: Descriptor) -> Completion {
        let ticket = self.submit(descriptor);
        match self.wait(ticket) {
            Some(completion) => completion,
            None => panic!(
                "the descriptor never ends: context status {:#x}, faults {:?}",
                self.status(),
                self.os()
                    .faults(self.machine().unit_of(self.driver.function))
            ),
        }
    }

    /// Stops the context and ends the bond, in this order. Returns the process.
    pub fn exit(self) -> Result<Process<B>, QueueFault> {
        self.driver.stop(self.context);
        self.process.unbind(self.driver.function)?;
        Ok(self.process)
    }
}

/// A descriptor of an operation that waits for pages.
fn operation(operation: Operation) -> Descriptor {
    Descriptor {
        operation: operation as u8,
        flags: flags::BLOCK_ON_FAULT,
        ..Descriptor::default()
    }
}

/// The descriptor, failing where a page is not present.
#[must_use]
pub fn unblocked(mut descriptor: Descriptor) -> Descriptor {
    descriptor.flags &= !flags::BLOCK_ON_FAULT;
    descriptor
}

/// Does nothing.
pub fn nop() -> Descriptor {
    operation(Operation::Nop)
}

/// Copies.
pub fn copy(source: u64, destination: u64, length: u64) -> Descriptor {
    Descriptor {
        source,
        destination,
        length,
        ..operation(Operation::Copy)
    }
}

/// Fills with the 8 bytes of a number.
pub fn fill(destination: u64, length: u64, value: u64) -> Descriptor {
    Descriptor {
        destination,
        length,
        operand0: value,
        ..operation(Operation::Fill)
    }
}

/// Compares.
pub fn compare(source: u64, destination: u64, length: u64) -> Descriptor {
    Descriptor {
        source,
        destination,
        length,
        ..operation(Operation::Compare)
    }
}

/// Computes a checksum.
pub fn crc32c(source: u64, length: u64) -> Descriptor {
    Descriptor {
        source,
        length,
        ..operation(Operation::Crc32c)
    }
}

/// Adds atomically.
pub fn fetch_add(destination: u64, addend: u64) -> Descriptor {
    Descriptor {
        destination,
        operand0: addend,
        ..operation(Operation::FetchAdd)
    }
}

/// Follows a chain of at most `most` nodes: the next pointer at offset `next`, the number at
/// offset `value`.
pub fn chase(first: u64, most: u64, next: u64, value: u64) -> Descriptor {
    Descriptor {
        source: first,
        length: most,
        operand0: next,
        operand1: value,
        ..operation(Operation::Chase)
    }
}
