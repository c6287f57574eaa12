// SPDX-License-Identifier: GPL-2.0-or-later
//! The machine from below: configuration space, the VT-d unit with its tables and queues, and
//! one context of the device, as firmware, operating system and process would use them.

use std::collections::BTreeMap;

use svm_abi::{completion, descriptor, doorbell, ids, registers};

use crate::client::{Installation, Qemu};

/// The vIOMMU that the device needs.
pub const IOMMU: &str =
    "intel-iommu,scalable-mode=on,fsts=on,svm=on,device-iotlb=on,pasid-bits=20,intremap=off";

/// The vIOMMU of most tests: that one, or that of `SVM_QTEST_IOMMU`.
fn iommu() -> String {
    match std::env::var("SVM_QTEST_IOMMU") {
        Ok(iommu) if !iommu.is_empty() => iommu,
        _ => IOMMU.to_owned(),
    }
}

/// Whether the vIOMMU of most tests is one that waits for a function to complete invalidations.
pub fn awaits_completions() -> bool {
    iommu().starts_with("svm-vtd")
}

/// Configuration space of bus 0 begins here after [`Machine::new`].
const ECAM: u64 = 0xb000_0000;
/// Registers of the VT-d unit.
const VTD: u64 = 0xfed9_0000;
/// First page that [`Machine::page`] gives.
const PAGES: u64 = 0x1000_0000;
/// Offset of the command register.
const COMMAND: u16 = 0x04;

/// Registers of VT-d (11.4).
mod vtd {
    pub const GCMD: u64 = 0x18;
    pub const GSTS: u64 = 0x1c;
    pub const RTADDR: u64 = 0x20;
    pub const IQT: u64 = 0x88;
    pub const IQA: u64 = 0x90;
    pub const PQH: u64 = 0xc0;
    pub const PQT: u64 = 0xc8;
    pub const PQA: u64 = 0xd0;
    pub const PRS: u64 = 0xdc;
}

/// A function by bus and device number (function 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    pub bus: u8,
    pub slot: u8,
}

impl Address {
    /// Requester id.
    pub fn sid(self) -> u64 {
        u64::from(self.bus) << 8 | u64::from(self.slot) << 3
    }
}

/// Where the device is in the machines of most tests.
pub const DEVICE: Address = Address { bus: 0, slot: 4 };

/// A machine.
pub struct Machine {
    pub qemu: Qemu,
    next_page: u64,
    next_bar: u64,
    vtd: Option<Vtd>,
}

/// Addresses of the tables and queues of the VT-d unit.
struct Vtd {
    context: BTreeMap<u8, u64>,
    directory: u64,
    /// First-stage tables by PASID.
    roots: BTreeMap<u32, u64>,
    queue: u64,
    tail: u64,
    page_requests: u64,
    wait: u64,
}

impl Machine {
    /// A machine with one device at [`DEVICE`], with these properties, or None if QEMU is not
    /// given.
    pub fn with(properties: &str) -> Option<Machine> {
        let installation = Installation::find()?;
        Some(Machine::new(
            &installation,
            &["-device", &format!("svm-demo,addr=4.0{properties}")],
        ))
    }

    /// A machine with a vIOMMU and more.
    pub fn new(installation: &Installation, arguments: &[&str]) -> Machine {
        Machine::from(Qemu::start(
            installation,
            &[&["-device", &iommu()], arguments].concat(),
        ))
    }

    /// The machine of a QEMU.
    pub fn from(mut qemu: Qemu) -> Machine {
        // PCIEXBAR of the host bridge: enabled, 256 MiB.
        qemu.outl(0xcf8, 0x8000_0060);
        qemu.outl(0xcfc, ECAM as u32 | 1);
        Machine {
            qemu,
            next_page: PAGES,
            next_bar: 0xe000_0000,
            vtd: None,
        }
    }

    /// A page of memory, zeroed.
    pub fn page(&mut self) -> u64 {
        let page = self.next_page;
        self.next_page += 0x1000;
        page
    }

    /// Address of a configuration register.
    fn config(&self, at: Address, offset: u16) -> u64 {
        ECAM + (u64::from(at.bus) << 20) + (u64::from(at.slot) << 15) + u64::from(offset)
    }

    /// Reads a configuration double word.
    pub fn config_read(&mut self, at: Address, offset: u16) -> u32 {
        let address = self.config(at, offset);
        self.qemu.readl(address)
    }

    /// Writes a configuration double word.
    pub fn config_write(&mut self, at: Address, offset: u16, value: u32) {
        let address = self.config(at, offset);
        self.qemu.writel(address, value);
    }

    /// Writes a configuration word.
    pub fn config_write16(&mut self, at: Address, offset: u16, value: u16) {
        let address = self.config(at, offset);
        self.qemu.writew(address, value);
    }

    /// Offset of a capability below 0x100.
    pub fn capability(&mut self, at: Address, id: u8) -> u16 {
        let mut offset = self.config_read(at, 0x34) as u8;
        while offset != 0 {
            let header = self.config_read(at, offset.into());
            if header as u8 == id {
                return offset.into();
            }
            offset = (header >> 8) as u8;
        }
        panic!("no capability {id:#x} at {at:?}");
    }

    /// Offsets of the extended capabilities by id.
    pub fn extended_capabilities(&mut self, at: Address) -> BTreeMap<u16, u16> {
        let mut found = BTreeMap::new();
        let mut offset = 0x100;
        while offset != 0 {
            let header = self.config_read(at, offset);
            found.insert(header as u16, offset);
            offset = (header >> 20) as u16;
        }
        found
    }

    fn take_bars(&mut self) -> Bars {
        let base = self.next_bar;
        self.next_bar += 0x30_0000;
        Bars {
            registers: base,
            doorbells: base + 0x10_0000,
            msix: base + 0x20_0000,
        }
    }

    /// Opens a root port to bus 1 and to the addresses of BARs.
    pub fn open_root_port(&mut self, at: Address) {
        self.config_write(at, 0x18, 0x0001_0100);
        self.config_write(at, 0x20, 0xefff_e000);
        self.config_write16(at, COMMAND, 0x6);
    }

    /// Gives the device its BARs and enables memory and bus mastering.
    pub fn enable_bars(&mut self, at: Address) -> Bars {
        let bars = self.take_bars();
        for (bar, address) in [
            (ids::REGISTERS_BAR, bars.registers),
            (ids::DOORBELLS_BAR, bars.doorbells),
            (ids::MSIX_BAR, bars.msix),
        ] {
            self.config_write(at, 0x10 + 4 * u16::from(bar), address as u32);
        }
        self.config_write16(at, COMMAND, 0x6);
        bars
    }

    /// Enables PASID, page requests and ATS, in the order that the specification demands.
    pub fn enable_ats(&mut self, at: Address) {
        use svm_endpoint::config_space::{ATS, PASID, PRI};
        self.config_write16(at, PASID + 6, 1);
        self.config_write(at, PRI + 12, 32);
        self.config_write16(at, PRI + 4, 1);
        self.config_write16(at, ATS + 6, 1 << 15);
    }

    /// Function level reset.
    pub fn reset_function(&mut self, at: Address) {
        let express = self.capability(at, 0x10);
        self.config_write16(at, express + 8, 1 << 15);
    }

    /// Reads a register of the VT-d unit.
    fn vtd_read(&mut self, offset: u64) -> u64 {
        self.qemu.readq(VTD + offset)
    }

    /// Switches translation on, in scalable mode, for these functions.
    pub fn enable_vtd(&mut self, functions: &[Address]) {
        let (root, directory, queue) = (self.page(), self.page(), self.page());
        let (page_requests, wait) = (self.page(), self.page());
        let mut context = BTreeMap::new();
        for at in functions {
            let table = match context.get(&at.bus) {
                Some(table) => *table,
                None => {
                    // The lower half of the bus takes one page.
                    let table = self.page();
                    self.qemu.writeq(root + 16 * u64::from(at.bus), table | 1);
                    context.insert(at.bus, table);
                    table
                }
            };
            // Present, device-TLB, PASID, page requests; a directory of 128 entries.
            let entry = table + 32 * (at.sid() & 0xff);
            self.qemu
                .writeq(entry, directory | 1 | 1 << 2 | 1 << 3 | 1 << 4);
        }
        self.vtd = Some(Vtd {
            context,
            directory,
            roots: BTreeMap::new(),
            queue,
            tail: 0,
            page_requests,
            wait,
        });
        // QEMU wants an entry for PASID 0 whatever the PASID of a request.
        self.add_pasid(0);
        self.qemu.writeq(VTD + vtd::RTADDR, root | 1 << 10);
        self.qemu.writel(VTD + vtd::GCMD, 1 << 30);
        // Descriptors of 256 bits, one page of them.
        self.qemu.writeq(VTD + vtd::IQA, queue | 1 << 11);
        self.qemu.writeq(VTD + vtd::IQT, 0);
        self.qemu.writel(VTD + vtd::GCMD, 1 << 26);
        self.qemu.writeq(VTD + vtd::PQA, page_requests);
        self.qemu.writeq(VTD + vtd::PQH, 0);
        self.qemu.writeq(VTD + vtd::PQT, 0);
        self.qemu.writel(VTD + vtd::GCMD, 1 << 31 | 1 << 26);
        let status = self.qemu.readl(VTD + vtd::GSTS);
        assert_eq!(
            status >> 26 & 0x31,
            0x31,
            "translation is not on: {status:#x}"
        );
    }

    fn tables(&mut self) -> &mut Vtd {
        self.vtd.as_mut().expect("enable_vtd comes first")
    }

    /// Adds a PASID with empty first-stage tables.
    pub fn add_pasid(&mut self, pasid: u32) {
        let first_stage = self.page();
        let directory = self.tables().directory + 8 * u64::from(pasid >> 6);
        let mut table = self.qemu.readq(directory) & !0xfff;
        if table == 0 {
            table = self.page();
            self.qemu.writeq(directory, table | 1);
        }
        let entry = table + 64 * u64::from(pasid & 63);
        // The walks are coherent (PWSNP), without which no accessed or dirty flag is set.
        self.qemu.writeq(entry + 8, domain(pasid) | 1 << 23);
        self.qemu.writeq(entry + 16, first_stage);
        // Present, first stage; QEMU takes the number of levels from the second stage's field.
        self.qemu.writeq(entry, 1 | 1 << 6 | 2 << 2);
        self.tables().roots.insert(pasid, first_stage);
    }

    /// Address of the entry that maps a page, with the tables above it made.
    fn entry(&mut self, pasid: u32, address: u64) -> u64 {
        let mut table = self.tables().roots[&pasid];
        for level in [4, 3, 2] {
            let entry = table + 8 * (address >> (12 + 9 * (level - 1)) & 511);
            table = self.qemu.readq(entry) & !0xfff;
            if table == 0 {
                table = self.page();
                // Present, writable, user.
                self.qemu.writeq(entry, table | 7);
            }
        }
        table + 8 * (address >> 12 & 511)
    }

    /// Maps a page of a PASID to a frame, without telling anybody.
    pub fn map(&mut self, pasid: u32, address: u64, frame: u64, writable: bool) {
        let entry = self.entry(pasid, address);
        self.qemu
            .writeq(entry, frame | 0x5 | u64::from(writable) << 1);
    }

    /// Submits an invalidation queue descriptor and waits until it and all before are done.
    fn submit(&mut self, low: u64, high: u64) {
        let wait = self.tables().wait;
        self.qemu.writel(wait, 0);
        // Wait with status write.
        for (low, high) in [(low, high), (0x5 | 1 << 5 | 0x600d << 32, wait)] {
            let vtd = self.tables();
            let at = vtd.queue + 32 * vtd.tail;
            vtd.tail = (vtd.tail + 1) % 128;
            let tail = vtd.tail;
            for (i, word) in [low, high, 0, 0].into_iter().enumerate() {
                self.qemu.writeq(at + 8 * i as u64, word);
            }
            self.qemu.writeq(VTD + vtd::IQT, tail << 5);
        }
        self.qemu
            .until("the invalidation queue", |qemu| qemu.readl(wait) == 0x600d);
    }

    /// Invalidates a page in the IOTLB only.
    pub fn invalidate_iotlb(&mut self, pasid: u32, address: u64) {
        // PASID-based, one page.
        self.submit(
            0x6 | 3 << 4 | domain(pasid) << 16 | u64::from(pasid) << 32,
            address & !0xfff,
        );
    }

    /// Invalidates a page in the IOTLB and in the device, in this order.
    pub fn invalidate(&mut self, at: Address, pasid: u32, address: u64) {
        self.invalidate_iotlb(pasid, address);
        self.invalidate_device(at, pasid, address & !0xfff);
    }

    /// PASID-based device-TLB invalidation; the address carries its size.
    pub fn invalidate_device(&mut self, at: Address, pasid: u32, address: u64) {
        self.submit(0x8 | at.sid() << 16 | u64::from(pasid) << 32, address);
    }

    /// Takes a page request out of the queue, if there is one.
    pub fn page_request(&mut self) -> Option<PageRequest> {
        let (head, tail) = (self.vtd_read(vtd::PQH), self.vtd_read(vtd::PQT));
        if head == tail {
            return None;
        }
        let at = self.tables().page_requests + head;
        let (low, high) = (self.qemu.readq(at), self.qemu.readq(at + 8));
        self.qemu.writeq(VTD + vtd::PQH, (head + 32) % 0x1000);
        Some(PageRequest {
            sid: low >> 16 & 0xffff,
            pasid: (low >> 32 & 0xf_ffff) as u32,
            address: high & !0xfff,
            prgi: (high >> 3 & 0x1ff) as u16,
            read: high & 1 != 0,
            write: high & 2 != 0,
            last: high & 4 != 0,
        })
    }

    /// Waits for a page request.
    pub fn wait_page_request(&mut self) -> PageRequest {
        self.qemu.until("a page request", |qemu| {
            qemu.readq(VTD + vtd::PQH) != qemu.readq(VTD + vtd::PQT)
        });
        self.page_request().unwrap()
    }

    /// Bytes of page requests in the queue.
    pub fn page_requests_waiting(&mut self) -> u64 {
        self.vtd_read(vtd::PQT)
            .wrapping_sub(self.vtd_read(vtd::PQH))
            % 0x1000
    }

    /// Makes the page request queue look full, or look empty again.
    pub fn fill_page_queue(&mut self, full: bool) {
        let tail = self.vtd_read(vtd::PQT);
        let head = if full { (tail + 32) % 0x1000 } else { tail };
        self.qemu.writeq(VTD + vtd::PQH, head);
        // Overflow and pending are cleared by writing ones.
        self.qemu.writel(VTD + vtd::PRS, 3);
    }

    /// Whether the page request queue has overflowed.
    pub fn page_queue_overflowed(&mut self) -> bool {
        self.qemu.readl(VTD + vtd::PRS) & 2 != 0
    }

    /// Answers the group of a page request: 0 success, 1 invalid, 15 failure.
    pub fn respond(&mut self, request: &PageRequest, code: u64) {
        self.submit(
            0x9 | 1 << 4 | code << 12 | request.sid << 16 | u64::from(request.pasid) << 32,
            u64::from(request.prgi) << 3,
        );
    }

    /// Denies page requests to a function in its context entry.
    pub fn deny_page_requests(&mut self, at: Address) {
        let entry = self.tables().context[&at.bus] + 32 * (at.sid() & 0xff);
        let word = self.qemu.readq(entry);
        self.qemu.writeq(entry, word & !(1 << 4));
        // Context cache, global.
        self.submit(0x1 | 1 << 4, 0);
    }
}

/// Domain id of a PASID.
fn domain(pasid: u32) -> u64 {
    u64::from(pasid) + 1
}

/// Addresses of the BARs.
#[derive(Clone, Copy, Debug)]
pub struct Bars {
    pub registers: u64,
    pub doorbells: u64,
    pub msix: u64,
}

/// A page request as the queue has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRequest {
    pub sid: u64,
    pub pasid: u32,
    pub address: u64,
    pub prgi: u16,
    pub read: bool,
    pub write: bool,
    pub last: bool,
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
