// SPDX-License-Identifier: GPL-2.0-or-later
//! The VT-d unit: its registers, scalable-mode tables, invalidation queue and page request queue,
//! as an operating system would use them.

use std::collections::BTreeMap;

use crate::machine::{Address, Machine};
use crate::unit;

/// Addresses of the tables and queues of the VT-d unit.
pub struct Vtd {
    root: u64,
    /// Context tables by bus.
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
    /// Switches translation on, in scalable mode, for these functions.
    pub fn enable_vtd(&mut self, functions: &[Address]) {
        let (root, queue) = (self.page(), self.page());
        // For all PASIDs: 2^14 entries.
        let directory = self.pages(32);
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
            // Present, device-TLB, PASID, page requests; the size of the directory (PDTS).
            let entry = table + 32 * (at.sid() & 0xff);
            self.qemu
                .writeq(entry, directory | 1 | 1 << 2 | 1 << 3 | 1 << 4 | 7 << 9);
        }
        self.vtd = Some(Vtd {
            root,
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
        self.qemu.writeq(unit::RTADDR, root | 1 << 10);
        self.qemu.writel(unit::GCMD, 1 << 30);
        // Descriptors of 256 bits, one page of them.
        self.qemu.writeq(unit::IQA, queue | 1 << 11);
        self.qemu.writeq(unit::IQT, 0);
        self.qemu.writel(unit::GCMD, 1 << 26);
        self.qemu.writeq(unit::PQA, page_requests);
        self.qemu.writeq(unit::PQH, 0);
        self.qemu.writeq(unit::PQT, 0);
        self.qemu.writel(unit::GCMD, 1 << 31 | 1 << 26);
        let status = self.qemu.readl(unit::GSTS);
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

    /// Address of the entry of a PASID in its PASID table.
    fn pasid_entry(&mut self, pasid: u32) -> u64 {
        let directory = self.tables().directory + 8 * u64::from(pasid >> 6);
        let table = self.qemu.readq(directory) & !0xfff;
        table + 64 * u64::from(pasid & 63)
    }

    /// Takes a PASID away as an operating system does when its address space ends, first part: the
    /// entry is no longer present, and nothing that was cached of it is left. Everything but the
    /// present bit is as before.
    pub fn retire_pasid(&mut self, at: Address, pasid: u32) {
        let entry = self.pasid_entry(pasid);
        let low = self.qemu.readq(entry);
        self.qemu.writeq(entry, low & !1);
        let tags = domain(pasid) << 16 | u64::from(pasid) << 32;
        // PASID cache, PASID-selective; IOTLB, all of the PASID; device-TLB, all of the PASID.
        self.submit(0x7 | 1 << 4 | tags, 0);
        self.submit(0x6 | 2 << 4 | tags, 0);
        self.invalidate_device(at, pasid, 0x7fff_ffff_ffff_f000 | 1 << 11);
    }

    /// The second part, and the next user of the PASID: its entry is cleared, and made anew with
    /// empty tables. Nothing is invalidated: of an entry that was not present nothing is cached.
    pub fn reuse_pasid(&mut self, pasid: u32) {
        let entry = self.pasid_entry(pasid);
        for word in 0..8 {
            self.qemu.writeq(entry + 8 * word, 0);
        }
        self.add_pasid(pasid);
    }

    /// Gives a PASID first-stage tables of five levels: the ones of four levels that it has are
    /// reached at each of these addresses, multiples of 2^48.
    pub fn five_levels(&mut self, pasid: u32, at: &[u64]) {
        let (root, below) = (self.page(), self.tables().roots[&pasid]);
        for address in at {
            self.qemu.writeq(root + 8 * (address >> 48), below | 7);
        }
        let entry = self.pasid_entry(pasid);
        // FSPM.
        self.qemu.writeq(entry + 16, root | 1 << 2);
    }

    /// Address of the entry of a level that maps an address, with the tables above it made. Level 1
    /// has pages of 4 KiB, level 2 those of 2 MiB.
    fn entry(&mut self, pasid: u32, address: u64, level: u64) -> u64 {
        let index = |level: u64| 8 * (address >> (3 + 9 * level) & 511);
        let mut table = self.tables().roots[&pasid];
        for above in (level + 1..=4).rev() {
            let entry = table + index(above);
            table = self.qemu.readq(entry) & !0xfff;
            if table == 0 {
                table = self.page();
                // Present, writable, user.
                self.qemu.writeq(entry, table | 7);
            }
        }
        table + index(level)
    }

    /// Maps a page of a PASID to a frame, without telling anybody.
    pub fn map(&mut self, pasid: u32, address: u64, frame: u64, writable: bool) {
        let entry = self.entry(pasid, address, 1);
        self.qemu
            .writeq(entry, frame | 0x5 | u64::from(writable) << 1);
    }

    /// Maps 2 MiB of a PASID to memory, all to be written, without telling anybody.
    pub fn map_large(&mut self, pasid: u32, address: u64, memory: u64) {
        let entry = self.entry(pasid, address, 2);
        // PS.
        self.qemu.writeq(entry, memory | 0x7 | 1 << 7);
    }

    /// The entry that maps a page of a PASID, as it is now.
    pub fn mapping(&mut self, pasid: u32, address: u64) -> u64 {
        let entry = self.entry(pasid, address, 1);
        self.qemu.readq(entry)
    }

    /// Submits an invalidation queue descriptor and waits until it and all before are done.
    fn submit(&mut self, low: u64, high: u64) {
        let wait = self.tables().wait;
        self.qemu.writel(wait, 0);
        // Wait with status write.
        self.push(low, high);
        self.push(0x5 | 1 << 5 | 0x600d << 32, wait);
        self.qemu
            .until("the invalidation queue", |qemu| qemu.readl(wait) == 0x600d);
    }

    /// Submits an invalidation queue descriptor.
    fn push(&mut self, low: u64, high: u64) {
        let vtd = self.tables();
        let at = vtd.queue + 32 * vtd.tail;
        vtd.tail = (vtd.tail + 1) % 128;
        let tail = vtd.tail;
        for (i, word) in [low, high, 0, 0].into_iter().enumerate() {
            self.qemu.writeq(at + 8 * i as u64, word);
        }
        self.qemu.writeq(unit::IQT, tail << 5);
    }

    /// Invalidates the IOTLB for 2^`order` pages of a PASID that begin at a multiple of that, and
    /// returns whether the queue goes on.
    pub fn invalidate_iotlb_pages(&mut self, pasid: u32, address: u64, order: u64) -> bool {
        let tags = domain(pasid) << 16 | u64::from(pasid) << 32;
        self.push(0x6 | 3 << 4 | tags, address | order);
        // IQE.
        self.qemu.readl(unit::FSTS) & 1 << 4 == 0
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

    /// Gives a bus the context entries of another one, which has none after that.
    pub fn move_context_entries(&mut self, from: u8, to: u8) {
        let tables = self.tables();
        let root = tables.root;
        let table = tables.context.remove(&from).expect("a bus with entries");
        tables.context.insert(to, table);
        self.qemu.writeq(root + 16 * u64::from(from), 0);
        self.qemu.writeq(root + 16 * u64::from(to), table | 1);
        self.invalidate_all();
    }

    /// Invalidates all that the unit has cached: contexts, PASIDs and translations.
    pub fn invalidate_all(&mut self) {
        self.submit(0x1 | 1 << 4, 0);
        self.submit(0x7 | 3 << 4, 0);
        self.submit(0x2 | 1 << 4, 0);
    }

    /// Makes the unit complete a wait that asks for an interrupt.
    pub fn wait_with_interrupt(&mut self) {
        self.submit(0x5 | 1 << 4, 0);
    }

    /// Puts the page request queue, which is empty, where it was or somewhere else.
    pub fn put_page_queue(&mut self, at: Option<u64>) {
        let at = at.unwrap_or(self.tables().page_requests);
        self.qemu.writeq(unit::PQA, at);
    }

    /// Whether a page request is pending (PPR).
    pub fn page_request_is_pending(&mut self) -> bool {
        self.qemu.readl(unit::PRS) & 1 != 0
    }

    /// Takes the first fault that is recorded, if there is one: its reason and its requester.
    pub fn take_fault(&mut self) -> Option<(u64, u64)> {
        let status = self.qemu.readl(unit::FSTS);
        // PPF.
        if status & 1 << 1 == 0 {
            return None;
        }
        // FRO, and FRI.
        let records = (self.qemu.readq(unit::CAP) >> 24 & 0x3ff) * 16;
        let record = unit::VTD + records + u64::from(status >> 8 & 0xff) * 16;
        let high = self.qemu.readq(record + 8);
        assert_ne!(high >> 63, 0, "{status:#x}: {high:#x}");
        // F is cleared by writing a one.
        self.qemu.writel(record + 12, 1 << 31);
        Some((high >> 32 & 0xff, high & 0xffff))
    }

    /// Takes a page request out of the queue, if there is one.
    pub fn page_request(&mut self) -> Option<PageRequest> {
        let (head, tail) = (self.qemu.readq(unit::PQH), self.qemu.readq(unit::PQT));
        if head == tail {
            return None;
        }
        let at = self.tables().page_requests + head;
        let (low, high) = (self.qemu.readq(at), self.qemu.readq(at + 8));
        self.qemu.writeq(unit::PQH, (head + 32) % 0x1000);
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
            qemu.readq(unit::PQH) != qemu.readq(unit::PQT)
        });
        self.page_request().unwrap()
    }

    /// Bytes of page requests in the queue.
    pub fn page_requests_waiting(&mut self) -> u64 {
        self.qemu
            .readq(unit::PQT)
            .wrapping_sub(self.qemu.readq(unit::PQH))
            % 0x1000
    }

    /// Makes the page request queue look full, or look empty again.
    pub fn fill_page_queue(&mut self, full: bool) {
        let tail = self.qemu.readq(unit::PQT);
        let head = if full { (tail + 32) % 0x1000 } else { tail };
        self.qemu.writeq(unit::PQH, head);
        // Overflow and pending are cleared by writing ones.
        self.qemu.writel(unit::PRS, 3);
    }

    /// Whether the page request queue has overflowed.
    pub fn page_queue_overflowed(&mut self) -> bool {
        self.qemu.readl(unit::PRS) & 2 != 0
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
    u64::from(pasid & 0x7fff) + 1
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
