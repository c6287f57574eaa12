// SPDX-License-Identifier: MIT OR Apache-2.0
//! A unit with memory, and builders for the tables and queues that software keeps there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;
use vtd::memory::{Memory, MemoryError};
use vtd::spec::context::{ContextEntry, ScalableContextEntry};
use vtd::spec::fault::FaultRecord;
use vtd::spec::invalidation::{
    ContextCacheInvalidate, InterruptEntryCacheInvalidate, InvalidationWait, IotlbInvalidate,
    PageGroupResponse, PasidCacheInvalidate, PasidIotlbInvalidate,
};
use vtd::spec::pasid::{PasidEntry, Pgtt};
use vtd::spec::register::{global, offset};
use vtd::spec::{DomainId, SourceId};
use vtd::{Access, Blocked, Capabilities, Config, Effect, Effects, Request, Translated, Unit};

/// A test's action just before a compare-and-swap.
type BeforeSwap = Box<dyn FnMut(&Ram, u64)>;

/// Memory of a few pages. There is no memory at addresses from `end` on and in the pages of
/// `holes`.
#[derive(Default)]
pub struct Ram {
    pages: RefCell<BTreeMap<u64, Box<[u64; 512]>>>,
    pub end: Cell<u64>,
    pub holes: RefCell<Vec<u64>>,
    /// Read-only pages.
    pub read_only: RefCell<Vec<u64>>,
    pub before_swap: RefCell<Option<BeforeSwap>>,
    pub reads: Cell<u64>,
    /// The previous values of words changed since [`Ram::mark`].
    before: RefCell<BTreeMap<u64, u64>>,
}

impl Clone for Ram {
    fn clone(&self) -> Self {
        Ram {
            pages: self.pages.clone(),
            end: self.end.clone(),
            holes: self.holes.clone(),
            read_only: self.read_only.clone(),
            ..Ram::default()
        }
    }
}

impl Ram {
    pub fn get(&self, address: u64) -> u64 {
        let pages = self.pages.borrow();
        let page = pages.get(&(address >> 12));
        page.map_or(0, |page| page[(address >> 3 & 511) as usize])
    }

    pub fn set(&self, address: u64, value: u64) {
        assert_eq!(address % 8, 0, "{address:#x}");
        let mut pages = self.pages.borrow_mut();
        let page = pages
            .entry(address >> 12)
            .or_insert_with(|| Box::new([0; 512]));
        let word = &mut page[(address >> 3 & 511) as usize];
        self.before.borrow_mut().entry(address).or_insert(*word);
        *word = value;
    }

    /// Forgets the changes.
    pub fn mark(&self) {
        self.before.borrow_mut().clear();
    }

    /// The bits that were changed since [`Ram::mark`].
    pub fn changes(&self) -> BTreeMap<u64, u64> {
        let before = self.before.borrow();
        let changes = before.iter().map(|(at, was)| (*at, was ^ self.get(*at)));
        changes.filter(|(_, bits)| *bits != 0).collect()
    }

    fn check(&self, address: u64, write: bool) -> Result<(), MemoryError> {
        let page = address >> 12 << 12;
        let hole =
            self.holes.borrow().contains(&page) || write && self.read_only.borrow().contains(&page);
        if address >= self.end.get() || hole {
            return Err(MemoryError { address });
        }
        Ok(())
    }
}

impl Memory for Ram {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        self.check(address, false)?;
        self.reads.set(self.reads.get() + 1);
        for (n, byte) in data.iter_mut().enumerate() {
            let at = address + n as u64;
            *byte = (self.get(at & !7) >> (at % 8 * 8)) as u8;
        }
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        self.check(address, true)?;
        for (n, byte) in data.iter().enumerate() {
            let at = address + n as u64;
            let shift = at % 8 * 8;
            let word = self.get(at & !7) & !(0xff << shift) | u64::from(*byte) << shift;
            self.set(at & !7, word);
        }
        Ok(())
    }

    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        self.check(address, true)?;
        let hook = self.before_swap.borrow_mut().take();
        if let Some(mut hook) = hook {
            hook(self, address);
            self.before_swap.borrow_mut().get_or_insert(hook);
        }
        let found = self.get(address);
        if found == current {
            self.set(address, new);
        }
        Ok(found)
    }
}

/// Host address width of the bench's units.
pub const HAW: u8 = 46;

/// Addresses of the structures that every bench has.
pub const ROOT: u64 = 0x1000;
pub const QUEUE: u64 = 0x2000;
pub const STATUS: u64 = 0x4000;
pub const PAGE_REQUESTS: u64 = 0x5000;
pub const INTERRUPTS: u64 = 0x7000;
const FIRST_FREE: u64 = 0x10_0000;

/// P of tables, and the flags of first-stage entries.
pub const P: u64 = 1;
pub const RW: u64 = 2;
pub const US: u64 = 4;
pub const A: u64 = 1 << 5;
pub const D: u64 = 1 << 6;
pub const PS: u64 = 1 << 7;
pub const XD: u64 = 1 << 63;
/// A user page that may be written.
pub const USER: u64 = P | RW | US;

/// Flags of second-stage entries.
pub const R: u64 = 1;
pub const W: u64 = 2;
pub const X: u64 = 4;
pub const SS_A: u64 = 1 << 8;
pub const SS_D: u64 = 1 << 9;
pub const SNP: u64 = 1 << 11;

/// The function that most tests use.
pub const SID: SourceId = SourceId(0x0108);

/// A unit with memory and tables.
pub struct Bench {
    pub ram: Ram,
    pub unit: Unit,
    pub fx: Effects,
    pub now: Duration,
    next: u64,
    tail: u64,
    /// Bytes of a descriptor.
    width: u64,
}

impl Bench {
    /// A unit that has not been programmed.
    pub fn bare(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            host_address_width: HAW,
            ..Config::default()
        };
        change(&mut config);
        let ram = Ram::default();
        ram.end.set(1 << 40);
        Bench {
            ram,
            unit: Unit::new(Capabilities::new(config).expect("a configuration that is possible")),
            fx: Effects::new(),
            now: Duration::ZERO,
            next: FIRST_FREE,
            tail: 0,
            width: 32,
        }
    }

    /// A unit in scalable mode, with its queue.
    pub fn scalable(change: impl FnOnce(&mut Config)) -> Self {
        let mut b = Bench::bare(change);
        b.start(ROOT | 1 << 10);
        b
    }

    /// A unit in scalable mode with the default configuration.
    pub fn new() -> Self {
        Bench::scalable(|_| {})
    }

    /// A unit in legacy mode, with its queue of 128-bit descriptors.
    pub fn legacy(change: impl FnOnce(&mut Config)) -> Self {
        let mut b = Bench::bare(change);
        b.width = 16;
        b.start(ROOT);
        b
    }

    fn start(&mut self, rtaddr: u64) {
        self.write(offset::IQA, QUEUE | u64::from(self.width == 32) << 11);
        self.write(offset::IQT, 0);
        self.write(offset::PQA, PAGE_REQUESTS);
        self.write(offset::RTADDR, rtaddr);
        self.command(global::QIE);
        self.command(global::SRTP);
        self.command(global::TE);
        self.fx.clear();
    }

    /// Writes a register of 64 bits.
    pub fn write(&mut self, at: u16, value: u64) {
        self.unit.write(at, value, 8, &mut self.fx);
    }

    /// Writes a register of 32 bits.
    pub fn write32(&mut self, at: u16, value: u32) {
        self.unit.write(at, value.into(), 4, &mut self.fx);
    }

    pub fn read(&self, at: u16) -> u64 {
        self.unit.read(at, 8)
    }

    pub fn read32(&self, at: u16) -> u32 {
        self.unit.read(at, 4) as u32
    }

    /// Sets a bit of GCMD_REG, and keeps the others as section 11.4.4.1 says.
    pub fn command(&mut self, bit: u32) {
        let status = self.read32(offset::GSTS) & 0x96ff_ffff;
        self.write32(offset::GCMD, status | bit);
    }

    /// Clears a bit of GCMD_REG.
    pub fn uncommand(&mut self, bit: u32) {
        let status = self.read32(offset::GSTS) & 0x96ff_ffff;
        self.write32(offset::GCMD, status & !bit);
    }

    /// A page that nothing uses yet.
    pub fn page(&mut self) -> u64 {
        self.next += 0x1000;
        self.next - 0x1000
    }

    /// The table to which an entry points; it is created if there is none.
    fn table(&mut self, entry: u64, flags: u64) -> u64 {
        let value = self.ram.get(entry);
        if value & 0xffff_ffff_f000 != 0 {
            return value & 0x000f_ffff_ffff_f000;
        }
        let table = self.page();
        self.ram.set(entry, table | flags);
        table
    }

    /// Address of the context entry of a function in legacy mode.
    pub fn legacy_context_at(&mut self, sid: SourceId) -> u64 {
        let table = self.table(ROOT + u64::from(sid.bus()) * 16, P);
        table + u64::from(sid.devfn()) * 16
    }

    /// Writes the context entry of a function in legacy mode.
    pub fn legacy_context(&mut self, sid: SourceId, words: [u64; 2]) {
        let at = self.legacy_context_at(sid);
        self.store(at, &words);
    }

    /// Address of the context entry of a function in scalable mode.
    pub fn context_at(&mut self, sid: SourceId) -> u64 {
        let half = u64::from(sid.devfn() >= 128) * 8;
        let table = self.table(ROOT + u64::from(sid.bus()) * 16 + half, P);
        table + u64::from(sid.devfn() & 127) * 32
    }

    /// Creates a context entry that allows everything, if there is none yet. Returns the PASID
    /// directory, which covers 16384 PASIDs. RID_PASID is 0.
    pub fn context(&mut self, sid: SourceId) -> u64 {
        let at = self.context_at(sid);
        if self.ram.get(at) == 0 {
            let directory = self.page();
            let entry = ScalableContextEntry::ZERO
                .with_p(true)
                .with_dte(true)
                .with_paside(true)
                .with_pre(true)
                .with_pdts(1)
                .with_pasiddirptr(directory);
            self.ram.set(at, entry.0[0]);
        }
        self.ram.get(at) & !0xfff
    }

    /// Address of the PASID table entry of a PASID.
    pub fn pasid_at(&mut self, sid: SourceId, pasid: u32) -> u64 {
        let directory = self.context(sid);
        let table = self.table(directory + u64::from(pasid >> 6) * 8, P);
        table + u64::from(pasid & 63) * 64
    }

    /// Writes the PASID table entry of a PASID.
    pub fn pasid(&mut self, sid: SourceId, pasid: u32, words: [u64; 8]) {
        let at = self.pasid_at(sid, pasid);
        self.store(at, &words);
    }

    pub fn store(&self, at: u64, words: &[u64]) {
        for (n, word) in words.iter().enumerate() {
            self.ram.set(at + n as u64 * 8, *word);
        }
    }

    pub fn load<const N: usize>(&self, at: u64) -> [u64; N] {
        std::array::from_fn(|n| self.ram.get(at + n as u64 * 8))
    }

    /// Maps a page of the given level (1 for 4 KiB) in tables of `levels`. Tables above it get
    /// the permissions `above`. Returns the address of the entry.
    pub fn map(
        &mut self,
        root: u64,
        levels: u8,
        level: u8,
        address: u64,
        entry: u64,
        above: u64,
    ) -> u64 {
        let mut table = root;
        for at in (level + 1..=levels).rev() {
            let place = table + (address >> (3 + 9 * at) & 511) * 8;
            table = self.table(place, above);
        }
        let place = table + (address >> (3 + 9 * level) & 511) * 8;
        self.ram.set(place, entry);
        place
    }

    /// Maps a user page of 4 KiB in a 4-level first stage.
    pub fn map_first(&mut self, root: u64, address: u64, page: u64, flags: u64) -> u64 {
        self.map(root, 4, 1, address, page | flags, USER)
    }

    /// Maps a page of 4 KiB in a 4-level second stage.
    pub fn map_second(&mut self, root: u64, address: u64, page: u64, flags: u64) -> u64 {
        self.map(root, 4, 1, address, page | flags, R | W | X)
    }

    /// A request without PASID of the usual function.
    pub fn access(&mut self, address: u64, access: Access) -> Result<Translated, Blocked> {
        self.ask(&request(None, address, access))
    }

    /// A request with PASID of the usual function.
    pub fn access_pasid(
        &mut self,
        pasid: u32,
        address: u64,
        access: Access,
    ) -> Result<Translated, Blocked> {
        self.ask(&request(Some(pasid), address, access))
    }

    pub fn ask(&mut self, request: &Request) -> Result<Translated, Blocked> {
        self.unit.translate(&self.ram, request, &mut self.fx)
    }

    /// The translated address of a request without PASID, or the code of its fault.
    pub fn goes(&mut self, address: u64, access: Access) -> Result<u64, u8> {
        outcome(self.access(address, access))
    }

    /// The translated address of a request with PASID, or the code of its fault.
    pub fn goes_pasid(&mut self, pasid: u32, address: u64, access: Access) -> Result<u64, u8> {
        outcome(self.access_pasid(pasid, address, access))
    }

    /// The faults recorded, oldest first; they are cleared.
    pub fn faults(&mut self) -> Vec<FaultRecord> {
        let mut faults = Vec::new();
        let first = self.read32(offset::FSTS) >> 8 & 0xff;
        let count = self.unit.capabilities().config().fault_records;
        for n in 0..u32::from(count) {
            let at = offset::FRCD + ((first + n) % u32::from(count)) as u16 * 16;
            let words = [self.read(at), self.read(at + 8)];
            if let Some(fault) = FaultRecord::from_words(words) {
                faults.push(fault);
                self.write32(at + 12, 1 << 31);
            }
        }
        faults
    }

    /// The codes of the faults recorded.
    pub fn codes(&mut self) -> Vec<u8> {
        self.faults().iter().map(|f| f.fr.code()).collect()
    }

    /// Writes descriptors to the queue and lets the unit process them, as far as it can.
    pub fn submit(&mut self, descriptors: &[[u64; 2]]) {
        for words in descriptors {
            let at = QUEUE + self.tail;
            self.store(at, words);
            if self.width == 32 {
                self.store(at + 16, &[0, 0]);
            }
            self.tail = (self.tail + self.width) % 4096;
        }
        self.write(offset::IQT, self.tail);
        self.run();
    }

    /// Processes the queue until the unit does not request it any more. Other effects remain.
    pub fn run(&mut self) {
        while let Some(at) = self.fx.iter().position(|e| *e == Effect::QueueReady) {
            self.fx.remove(at);
            let mut fx = Effects::new();
            drop(self.unit.process_queue(&self.ram, self.now, &mut fx));
            self.fx.append(&mut fx);
        }
    }

    /// Submits descriptors followed by a wait, and returns whether the wait completed.
    pub fn submit_and_wait(&mut self, descriptors: &[[u64; 2]]) -> bool {
        self.ram.set(STATUS, 0);
        self.submit(descriptors);
        self.submit(&[wait(STATUS, 1)]);
        self.ram.get(STATUS) == 1
    }

    /// The effects so far, without notices of invalidations and refusals.
    pub fn effects(&mut self) -> Effects {
        let mut fx = std::mem::take(&mut self.fx);
        fx.retain(|e| !matches!(e, Effect::Invalidated(_) | Effect::Refused(_)));
        fx
    }
}

/// A request of the usual function.
pub fn request(pasid: Option<u32>, address: u64, access: Access) -> Request {
    Request {
        requester: SID,
        pasid: pasid.map(pasid_of),
        address,
        access,
        execute: false,
        privileged: false,
    }
}

pub fn pasid_of(pasid: u32) -> pcie_ats::Pasid {
    pcie_ats::Pasid::new(pasid).expect("a PASID of 20 bits")
}

/// The address, or the code of the fault.
pub fn outcome(result: Result<Translated, Blocked>) -> Result<u64, u8> {
    match result {
        Ok(t) => Ok(t.address),
        Err(Blocked::Fault(reason)) => Err(reason.code()),
        Err(other) => panic!("{other}"),
    }
}

/// A wait descriptor with a status write.
pub fn wait(address: u64, data: u32) -> [u64; 2] {
    let wait = InvalidationWait::new().with_sw(true);
    wait.with_status_data(data).with_status_addr(address).0
}

/// A PASID table entry for the first stage, with snooped walks.
pub fn first_stage(table: u64, domain: u16) -> [u64; 8] {
    entry(Pgtt::FirstStage, domain)
        .with_pwsnp(true)
        .with_fsptptr(table)
        .0
}

/// A PASID table entry for a 4-level second stage, with snooped walks.
pub fn second_stage(table: u64, domain: u16) -> [u64; 8] {
    behind_second(Pgtt::SecondStage, table, domain).0
}

/// A PASID table entry for a 4-level first stage in a 4-level second one.
pub fn nested(first: u64, second: u64, domain: u16) -> [u64; 8] {
    behind_second(Pgtt::Nested, second, domain)
        .with_fsptptr(first)
        .0
}

/// A PASID table entry for pass-through.
pub fn pass_through(domain: u16) -> [u64; 8] {
    entry(Pgtt::PassThrough, domain).0
}

/// A present PASID table entry.
fn entry(pgtt: Pgtt, domain: u16) -> PasidEntry {
    let entry = PasidEntry::ZERO.with_p(true).with_pgtt(pgtt);
    entry.with_did(DomainId(domain))
}

/// One with a 4-level second stage, and with snooped walks.
fn behind_second(pgtt: Pgtt, table: u64, domain: u16) -> PasidEntry {
    let entry = entry(pgtt, domain).with_pwsnp(true);
    entry.with_aw(2).with_ssptptr(table)
}

/// Invalidation of the context cache, all of it.
pub const CONTEXT_GLOBAL: [u64; 2] = ContextCacheInvalidate::new().with_g(1).0;
/// Invalidation of the PASID cache, all of it.
pub const PASID_GLOBAL: [u64; 2] = PasidCacheInvalidate::new().with_g(3).0;
/// Invalidation of the IOTLB, all of it.
pub const IOTLB_GLOBAL: [u64; 2] = IotlbInvalidate::new().with_g(1).0;

/// Invalidation of a page range in a PASID's IOTLB entries.
pub fn pasid_pages(domain: u16, pasid: u32, address: u64, am: u8) -> [u64; 2] {
    let pages = PasidIotlbInvalidate::new().with_g(3).with_pasid(pasid);
    pages
        .with_did(DomainId(domain))
        .with_addr(address)
        .with_am(am)
        .0
}

/// Invalidation of a PASID's IOTLB entries.
pub fn pasid_all(domain: u16, pasid: u32) -> [u64; 2] {
    let all = PasidIotlbInvalidate::new().with_g(2).with_pasid(pasid);
    all.with_did(DomainId(domain)).0
}

/// Invalidation of a page range in a domain's IOTLB entries.
pub fn domain_pages(domain: u16, address: u64, am: u8) -> [u64; 2] {
    let pages = IotlbInvalidate::new().with_g(3).with_did(DomainId(domain));
    pages.with_addr(address).with_am(am).0
}

/// Invalidation of a domain's IOTLB entries.
pub fn domain_all(domain: u16) -> [u64; 2] {
    let all = IotlbInvalidate::new().with_g(2);
    all.with_did(DomainId(domain)).0
}

/// Invalidation of a PASID's entry in the PASID cache.
pub fn pasid_entry(domain: u16, pasid: u32) -> [u64; 2] {
    let entry = PasidCacheInvalidate::new().with_g(1).with_pasid(pasid);
    entry.with_did(DomainId(domain)).0
}

/// Invalidation of a domain's entries in the PASID cache.
pub fn pasid_domain(domain: u16) -> [u64; 2] {
    let entries = PasidCacheInvalidate::new().with_g(0);
    entries.with_did(DomainId(domain)).0
}

/// Invalidation of a function's context entry.
pub fn context_device(sid: SourceId, domain: u16) -> [u64; 2] {
    let entry = ContextCacheInvalidate::new().with_g(3).with_sid(sid);
    entry.with_did(DomainId(domain)).0
}

/// Invalidation of a domain's context entries.
pub fn context_domain(domain: u16) -> [u64; 2] {
    let entries = ContextCacheInvalidate::new().with_g(2);
    entries.with_did(DomainId(domain)).0
}

/// Invalidation of 2^`im` interrupt remapping entries.
pub fn interrupt_entries(index: u16, im: u8) -> [u64; 2] {
    let entries = InterruptEntryCacheInvalidate::new().with_g(true);
    entries.with_iidx(index).with_im(im).0
}

/// A page group response for the usual function.
pub fn response(pasid: Option<u32>, prgi: u16, code: u8) -> [u64; 2] {
    let response = PageGroupResponse::new().with_rid(SID).with_prgi(prgi);
    let of = response
        .with_code(code)
        .with_pasid(pasid.unwrap_or_default());
    of.with_pp(pasid.is_some()).0
}

/// A present context entry of legacy mode, of 48 bits, with a translation type.
pub fn legacy_entry(tt: u8, table: u64) -> ContextEntry {
    let entry = ContextEntry::ZERO.with_p(true).with_tt(tt).with_aw(2);
    entry.with_ssptptr(table)
}
