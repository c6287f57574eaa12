// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the operating system knows of the machine: its units, their tables and queues, and how it
//! waits.

use super::board::Board;
use super::descriptors::Words;
use super::frames::Frames;
use super::page_request_queue::{Behaviour, Handler};
use super::queue::{Queue, QueueFault, Wait};
use crate::machine::{FunctionId, Machine};
use crate::sync::Mutex;
use pcie_ats::Pasid;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use vtd::spec::capability::{Capability, ExtendedCapability};
use vtd::spec::context::ScalableContextEntry;
use vtd::spec::fault::FaultRecord;
use vtd::spec::interrupt::{Irte, Message};
use vtd::spec::register::{global, offset};

/// The mode that the units are run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Legacy mode: no PASIDs, descriptors of 128 bits.
    Legacy,
    /// Scalable mode, descriptors of 256 bits.
    Scalable,
}

/// How many steps are made at most before software looks at the page requests: an endpoint whose
/// requests overflow always has work.
const STEPS_A_LOOK: usize = 32;
/// How long a wait takes at most when there are engines. Tests do not wait for it unless they fail.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait for news before looking again: an engine that never rests brings none.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Log2 of the interrupt remapping table's entries.
const INTERRUPTS_LOG2: u64 = 11;
/// The first processor vector of functions; each takes one of its own.
const FIRST_VECTOR: u32 = 0x30;
/// Processor vectors below which events of the units are.
const EVENT_VECTOR: u32 = 0x20;
/// PDTS: the PASID directory reaches 2^(PDTS + 13) PASIDs.
const PDTS: u8 = 1;

/// What became of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FaultOutcome {
    /// The page is there now, with the permission.
    Served,
    /// The page is on the move.
    Busy,
    /// There is no such page, or not with the permission.
    Bad,
}

/// An address space, as a page fault finds it.
pub(crate) trait AddressSpace: Send + Sync {
    /// Makes a page present, if it may be accessed so.
    fn fault(&self, address: u64, write: bool) -> FaultOutcome;
}

/// A unit as software knows it.
pub(crate) struct UnitState<B = Machine> {
    /// The root table.
    root: u64,
    pub queue: Queue<B>,
    pub handler: Mutex<Handler<B>>,
    interrupt_table: u64,
    next_interrupt: AtomicU16,
}

/// What software knows.
pub(crate) struct Kernel<B = Machine> {
    pub machine: B,
    pub frames: Frames<B>,
    pub mode: Mode,
    pub units: Vec<UnitState<B>>,
    /// PASID directory of each function, in scalable mode.
    directories: Vec<u64>,
    next_pasid: AtomicU32,
    pub free_pasids: Mutex<Vec<Pasid>>,
    next_domain: AtomicU16,
    /// The address spaces of processes.
    pub processes: Mutex<HashMap<Pasid, Weak<dyn AddressSpace>>>,
    pub behaviour: Mutex<Behaviour>,
    /// Steps since software last looked at the page requests.
    steps: AtomicUsize,
}

/// The operating system of a board; clones are the same one.
pub struct Os<B = Machine>(pub(crate) Arc<Kernel<B>>);

impl<B> Clone for Os<B> {
    fn clone(&self) -> Self {
        Os(self.0.clone())
    }
}

impl<B: Board> std::fmt::Debug for Os<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Os")
            .field("machine", &self.0.machine)
            .field("mode", &self.0.mode)
            .finish_non_exhaustive()
    }
}

impl<B: Board + Clone> Os<B> {
    /// Boots on a machine: all units translate and remap interrupts, and nothing is mapped.
    pub fn boot(machine: &B, mode: Mode) -> Self {
        let frames = Frames::new(machine);
        let units = (0..machine.units())
            .map(|unit| boot_unit(machine, &frames, mode, unit))
            .collect::<Vec<_>>();
        let mut os = Kernel {
            machine: machine.clone(),
            frames,
            mode,
            units,
            directories: Vec::new(),
            next_pasid: AtomicU32::new(1),
            free_pasids: Mutex::default(),
            // Domain 0 is reserved in caching mode.
            next_domain: AtomicU16::new(1),
            processes: Mutex::default(),
            behaviour: Mutex::default(),
            steps: AtomicUsize::new(0),
        };
        if mode == Mode::Scalable {
            for function in 0..machine.functions() {
                let directory = os.frames.allocate();
                os.directories.push(directory);
                let place = os.context_place(function);
                let entry = ScalableContextEntry::ZERO
                    .with_p(true)
                    .with_dte(true)
                    .with_paside(true)
                    .with_pre(true)
                    .with_pdts(PDTS)
                    .with_pasiddirptr(directory);
                os.store_all(place, &entry.0);
            }
        }
        Os(Arc::new(os))
    }

    /// The machine.
    pub fn machine(&self) -> &B {
        &self.0.machine
    }

    /// The page allocator.
    pub fn frames(&self) -> &Frames<B> {
        &self.0.frames
    }

    /// The invalidation queue of a unit.
    pub fn queue(&self, unit: usize) -> &Queue<B> {
        &self.0.units[unit].queue
    }

    // Waiting.

    /// Waits until something holds. Returns whether it does: it may not if nothing more happens
    /// by itself.
    pub fn wait_until(&self, mut done: impl FnMut() -> bool) -> bool {
        if !self.0.machine.is_driven() {
            for _ in 0..self.0.machine.most_steps() {
                if done() {
                    return true;
                }
                if !self.progress() {
                    return done();
                }
            }
            return false;
        }
        let begin = Instant::now();
        loop {
            let seen = self.0.machine.news();
            if done() {
                return true;
            }
            if self.handle_page_requests() != 0 {
                continue;
            }
            if begin.elapsed() > PATIENCE {
                return false;
            }
            self.0.machine.wait_for_news(seen, LOOK_AGAIN);
        }
    }

    /// Steps the machine once, or handles page requests if there is nothing to step or it was
    /// stepped often. Returns whether anything was done.
    pub fn progress(&self) -> bool {
        let steps = self.0.steps.fetch_add(1, Ordering::Relaxed);
        if steps < STEPS_A_LOOK && self.0.machine.step() {
            return true;
        }
        self.0.steps.store(0, Ordering::Relaxed);
        // Once more when nothing moves: a machine that makes its steps by itself may have sent its
        // last page request between the first look and the end of its work.
        self.handle_page_requests() != 0
            || self.0.machine.step()
            || self.handle_page_requests() != 0
    }

    /// Steps the machine and handles page requests until nothing more happens by itself.
    pub fn settle(&self) {
        let settled = (0..self.0.machine.most_steps()).any(|_| !self.progress());
        assert!(settled, "the machine never comes to rest");
    }

    /// Submits invalidations to a unit, and waits until they are complete.
    pub fn invalidate(&self, unit: usize, descriptors: &[Words]) -> Result<(), QueueFault> {
        let queue = self.queue(unit);
        for part in descriptors.chunks(64) {
            let mut ticket = None;
            let submitted = self.wait_until(|| {
                ticket = ticket.or_else(|| queue.try_submit(part));
                ticket.is_some() || queue.fault().is_some()
            });
            if let Some(fault) = queue.fault() {
                return Err(fault);
            }
            let Some(ticket) = ticket.filter(|_| submitted) else {
                return Err(QueueFault::Stuck);
            };
            self.wait_for(unit, ticket)?;
        }
        Ok(())
    }

    /// Waits until a wait descriptor is complete.
    pub fn wait_for(&self, unit: usize, ticket: Wait) -> Result<(), QueueFault> {
        let queue = self.queue(unit);
        self.wait_until(|| queue.is_done(ticket) || queue.fault().is_some());
        if queue.is_done(ticket) {
            return Ok(());
        }
        Err(queue.fault().unwrap_or(QueueFault::Stuck))
    }

    // What units report.

    /// Takes the faults that a unit has recorded, oldest first.
    pub fn faults(&self, unit: usize) -> Vec<FaultRecord> {
        let machine = &self.0.machine;
        let cap = Capability(machine.unit_read(unit, offset::CAP, 8));
        let count = u32::from(cap.fault_recording_registers());
        let first = machine.unit_read(unit, offset::FSTS, 4) as u32 >> 8 & 0xff;
        let mut faults = Vec::new();
        for n in 0..count {
            let at = cap.fault_recording_offset() + ((first + n) % count) as u16 * 16;
            let words = [0, 8].map(|word| machine.unit_read(unit, at + word, 8));
            if let Some(fault) = FaultRecord::from_words(words) {
                faults.push(fault);
                machine.unit_write(unit, at + 12, 1 << 31, 4);
            }
        }
        let all = vtd::spec::register::fsts::PFO;
        machine.unit_write(unit, offset::FSTS, all.into(), 4);
        faults
    }

    // Tables.

    /// Where the context entry of a function lies.
    pub fn context_place(&self, function: FunctionId) -> u64 {
        self.0.context_place(function)
    }

    /// Where the PASID table entry of a function lies.
    ///
    /// # Panics
    ///
    /// In legacy mode, which has none.
    pub fn pasid_place(&self, function: FunctionId, pasid: Pasid) -> u64 {
        self.0.pasid_place(function, pasid.get())
    }

    // Interrupts.

    /// Routes a function's MSI-X vector through interrupt remapping, and returns the message that
    /// processors will see.
    pub fn route(&self, function: FunctionId, vector: u16) -> Message {
        let kernel = &self.0;
        let unit = &kernel.units[kernel.machine.unit_of(function)];
        let index = unit.next_interrupt.fetch_add(1, Ordering::Relaxed);
        assert!(
            u64::from(index) < 1 << INTERRUPTS_LOG2,
            "the interrupt remapping table is full"
        );
        let sid = kernel.machine.requester(function);
        let processor_vector = FIRST_VECTOR + u32::from(index) % (0xff - FIRST_VECTOR);
        let destination = u32::from(index);
        let at = unit.interrupt_table + u64::from(index) * 16;
        let entry = Irte::ZERO
            .with_p(true)
            .with_vector(processor_vector as u8)
            .with_dst(destination)
            // Only this function may use the entry.
            .with_svt_bits(1)
            .with_sid(sid.0);
        kernel.store_all(at, &entry.0);
        let handle = u64::from(index);
        let request = Message {
            // Remappable format, no subhandle.
            address: 0xfee0_0010 | (handle & 0x7fff) << 5 | handle >> 15 << 2,
            data: 0,
        };
        kernel.machine.set_msix(function, vector, Some(request));
        vtd::spec::interrupt::message(u32::from(index), processor_vector as u8, false, false)
    }

    // Numbers of address spaces.

    pub(super) fn allocate_pasid(&self) -> Pasid {
        if let Some(pasid) = self.0.free_pasids.lock().pop() {
            return pasid;
        }
        let number = self.0.next_pasid.fetch_add(1, Ordering::Relaxed);
        match Pasid::new(number) {
            Ok(pasid) if number < 1 << (PDTS + 13) => pasid,
            _ => panic!("the PASID directory is full"),
        }
    }

    pub(super) fn allocate_domain(&self) -> u16 {
        self.0.next_domain.fetch_add(1, Ordering::Relaxed)
    }
}

impl Os {
    /// The messages of a unit's events: fault, invalidation completion, page request.
    pub fn event_message(unit: usize, event: usize) -> Message {
        event_message(unit, event)
    }
}

/// The messages of a unit's events: fault, invalidation completion, page request.
fn event_message(unit: usize, event: usize) -> Message {
    Message {
        address: 0xfee0_0000,
        data: EVENT_VECTOR + (unit * 3 + event) as u32,
    }
}

/// Boots one unit.
fn boot_unit<B: Board + Clone>(
    machine: &B,
    frames: &Frames<B>,
    mode: Mode,
    unit: usize,
) -> UnitState<B> {
    let write = |at, value| machine.unit_write(unit, at, value, 8);
    let write32 = |at, value: u32| machine.unit_write(unit, at, value.into(), 4);
    let command = |bit: u32| {
        // The one-shot bits are not repeated (section 11.4.4.1).
        let status = machine.unit_read(unit, offset::GSTS, 4) as u32 & 0x96ff_ffff;
        write32(offset::GCMD, status | bit);
    };
    let root = frames.allocate();
    let interrupt_table = frames.allocate_range(INTERRUPTS_LOG2 as u8 + 4);
    let queue = Queue::new(machine, unit, frames, mode == Mode::Scalable);
    let handler = Handler::new(machine, unit, frames);
    for (event, at) in [offset::FECTL, offset::IECTL, offset::PECTL]
        .into_iter()
        .enumerate()
    {
        let message = event_message(unit, event);
        write32(at + 4, message.data);
        write32(at + 8, message.address as u32);
        write32(at + 12, (message.address >> 32) as u32);
        write32(at, 0);
    }
    let scalable = u64::from(mode == Mode::Scalable) << 10;
    write(offset::RTADDR, root | scalable);
    command(global::SRTP);
    command(global::QIE);
    let ecap = ExtendedCapability(machine.unit_read(unit, offset::ECAP, 8));
    if ecap.ir() {
        let eime = u64::from(ecap.eim()) << 11;
        write(offset::IRTA, interrupt_table | eime | (INTERRUPTS_LOG2 - 1));
        command(global::SIRTP);
        command(global::IRE);
    }
    command(global::TE);
    UnitState {
        root,
        queue,
        handler: Mutex::new(handler),
        interrupt_table,
        next_interrupt: AtomicU16::new(0),
    }
}

impl<B: Board + Clone> Kernel<B> {
    /// Writes to a table of software's own, which is memory.
    pub fn store(&self, at: u64, value: u64) {
        let _ = self.machine.store(at, value);
    }

    /// Writes an entry to a table of software's own: the word with its present bit comes last.
    pub fn store_all(&self, at: u64, words: &[u64]) {
        for (n, word) in words.iter().enumerate().rev() {
            self.store(at + n as u64 * 8, *word);
        }
    }

    /// Reads from a table of software's own, which is memory.
    pub fn load(&self, at: u64) -> u64 {
        self.machine.load(at).unwrap_or_default()
    }

    /// The table that an entry points to; it is made if there is none.
    fn table(&self, entry: u64, flags: u64) -> u64 {
        let value = self.load(entry);
        if value != 0 {
            return value & !0xfff;
        }
        let table = self.frames.allocate();
        self.store(entry, table | flags);
        table
    }

    /// Where the context entry of a function lies.
    pub fn context_place(&self, function: FunctionId) -> u64 {
        let sid = self.machine.requester(function);
        let root = self.units[self.machine.unit_of(function)].root;
        let (bus, devfn) = (u64::from(sid.bus()), u64::from(sid.devfn()));
        match self.mode {
            Mode::Legacy => self.table(root + bus * 16, 1) + devfn * 16,
            Mode::Scalable => {
                let half = root + bus * 16 + devfn / 128 * 8;
                self.table(half, 1) + devfn % 128 * 32
            }
        }
    }

    /// Where the PASID table entry of a function lies.
    pub fn pasid_place(&self, function: FunctionId, pasid: u32) -> u64 {
        let directory = self.directories[function];
        let table = self.table(directory + u64::from(pasid >> 6) * 8, 1);
        table + u64::from(pasid & 63) * 64
    }
}
