// SPDX-License-Identifier: MIT OR Apache-2.0
//! A unit of `vtd` whose software programs it by registers, tables and descriptors, above a host:
//! the whole way, with the real tables.

use crate::bench::{FD, device, pasid};
use host_iommu::assigned::Assigned;
use host_iommu::bindings::AssignedDevice;
use host_iommu::host::{
    Errno, FaultQueueId, HostIommu, HwptId, Invalidation, Operation, ParentFlags,
};
use host_iommu::mock::{Call, MockHost};
use host_iommu::tables::UnitTables;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use vtd::memory::{Memory, MemoryError};
use vtd::spec::context::ScalableContextEntry;
use vtd::spec::invalidation::{
    ContextCacheInvalidate, InvalidationWait, PageGroupResponse, PasidCacheInvalidate,
    PasidIotlbInvalidate,
};
use vtd::spec::page_request::PageRequestDescriptor;
use vtd::spec::pasid::{PasidEntry, Pgtt};
use vtd::spec::register::{fsts, global, offset};
use vtd::spec::{DomainId, SourceId};
use vtd::{Capabilities, Config, Effects, Unit};

const SID: SourceId = SourceId(0x0108);
const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const PASIDS: u64 = 0x4000;
const QUEUE: u64 = 0x5000;
const REQUESTS: u64 = 0x6000;
const STATUS: u64 = 0x7000;

/// Memory by words.
#[derive(Default)]
struct Ram(RefCell<BTreeMap<u64, u64>>);

impl Ram {
    fn get(&self, address: u64) -> u64 {
        self.0.borrow().get(&address).copied().unwrap_or(0)
    }

    fn set(&self, address: u64, words: &[u64]) {
        for (n, word) in (0u64..).zip(words) {
            self.0.borrow_mut().insert(address + n * 8, *word);
        }
    }
}

impl Memory for Ram {
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
        for (n, byte) in (0u64..).zip(data) {
            let at = address + n;
            *byte = (self.get(at & !7) >> (at % 8 * 8)) as u8;
        }
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        for (n, byte) in (0u64..).zip(data) {
            let at = address + n;
            let shift = at % 8 * 8;
            let word = self.get(at & !7) & !(0xff << shift) | u64::from(*byte) << shift;
            self.set(at & !7, &[word]);
        }
        Ok(())
    }

    fn compare_exchange(&self, address: u64, current: u64, new: u64) -> Result<u64, MemoryError> {
        let found = self.get(address);
        if found == current {
            self.set(address, &[new]);
        }
        Ok(found)
    }
}

struct World {
    ram: Ram,
    unit: Unit,
    host: MockHost,
    assigned: Assigned,
    device: AssignedDevice,
    parent: HwptId,
    queue: FaultQueueId,
    tail: u64,
    errors: Vec<String>,
}

impl World {
    /// A guest that has switched scalable mode on, with one device and no PASID.
    fn new() -> Self {
        let mut host = MockHost::new();
        let id = host.bind(FD, device());
        let ioas = host.alloc_ioas(FD).unwrap();
        let flags = ParentFlags {
            pasid: true,
            ..ParentFlags::default()
        };
        let parent = host.alloc_parent(id, ioas, flags).unwrap();
        host.attach(id, None, parent).unwrap();
        let queue = host.alloc_fault_queue(FD).unwrap();
        let info = host.hardware_info(id).unwrap().vtd.unwrap();
        let mut config = Config::default().limited_by(info.cap, info.ecap);
        config.confirm_invalidations = true;
        let ram = Ram::default();
        ram.set(ROOT + 16, &[CONTEXTS | 1]);
        let context = ScalableContextEntry::ZERO
            .with_p(true)
            .with_dte(true)
            .with_paside(true)
            .with_pre(true)
            .with_pasiddirptr(DIRECTORY);
        ram.set(CONTEXTS + 8 * 32, &context.0);
        ram.set(DIRECTORY, &[PASIDS | 1]);
        let mut world = World {
            ram,
            unit: Unit::new(Capabilities::new(config).unwrap()),
            host,
            assigned: Assigned::new(),
            device: AssignedDevice {
                requester: SID,
                device: id,
                parent,
                pasid_limit: 1 << 20,
                fault_queue: Some(queue),
            },
            parent,
            queue,
            tail: 0,
            errors: Vec::new(),
        };
        let tables = UnitTables {
            unit: &world.unit,
            memory: &world.ram,
        };
        let (host, device) = (&mut world.host, world.device);
        world.assigned.assign(host, &tables, device).unwrap();
        world.write(offset::IQA, QUEUE | 1 << 11);
        world.write(offset::PQA, REQUESTS);
        world.write(offset::RTADDR, ROOT | 1 << 10);
        for bit in [global::QIE, global::SRTP, global::TE] {
            let status = world.unit.read(offset::GSTS, 4) as u32 & 0x96ff_ffff;
            world.write_sized(offset::GCMD, u64::from(status | bit), 4);
        }
        world
    }

    fn write(&mut self, at: u16, value: u64) {
        self.write_sized(at, value, 8);
    }

    fn write_sized(&mut self, at: u16, value: u64, size: u8) {
        let mut fx = Effects::new();
        self.unit.write(at, value, size, &mut fx);
        self.carry_out(&fx);
        while fx.contains(&vtd::Effect::QueueReady) {
            fx.clear();
            let turn = self.unit.process_queue(&self.ram, Duration::ZERO, &mut fx);
            if !self.carry_out(&fx) {
                let mut more = Effects::new();
                assert!(self.unit.invalidation_failed(&turn, &mut more));
                fx = more;
            }
            drop(turn);
        }
    }

    /// Returns whether the host could do everything.
    fn carry_out(&mut self, fx: &Effects) -> bool {
        let tables = UnitTables {
            unit: &self.unit,
            memory: &self.ram,
        };
        let mut done = true;
        for effect in fx {
            if let Err(error) = self.assigned.carry_out(&mut self.host, &tables, effect) {
                self.errors.push(error.to_string());
                done = false;
            }
        }
        done
    }

    /// Writes the entry of a PASID.
    fn entry(&mut self, number: u32, domain: u16, table: u64) {
        let entry = PasidEntry::ZERO
            .with_p(table != 0)
            .with_pgtt(Pgtt::FirstStage)
            .with_did(DomainId(domain))
            .with_pwsnp(true)
            .with_fsptptr(table);
        self.ram.set(PASIDS + u64::from(number) * 64, &entry.0);
    }

    /// Submits descriptors with a wait behind them. Returns whether it completed.
    fn submit(&mut self, descriptors: &[[u64; 2]]) -> bool {
        self.ram.set(STATUS, &[0]);
        let wait = InvalidationWait::new().with_sw(true);
        let wait = wait.with_status_data(1).with_status_addr(STATUS).0;
        for words in descriptors.iter().chain([&wait]) {
            self.ram.set(QUEUE + self.tail, &[words[0], words[1], 0, 0]);
            self.tail = (self.tail + 32) % 4096;
        }
        self.write(offset::IQT, self.tail);
        self.ram.get(STATUS) == 1
    }

    fn table(&self, number: Option<u32>) -> u64 {
        let number = number.map(pasid);
        match self.host.attached(self.device.device, number) {
            None => 0,
            Some(hwpt) if hwpt == self.parent => 1,
            Some(hwpt) => self.host.stage(hwpt).unwrap().table,
        }
    }
}

fn pasid_cache(domain: u16, number: u32) -> [u64; 2] {
    let one = PasidCacheInvalidate::new().with_g(1).with_pasid(number);
    one.with_did(DomainId(domain)).0
}

fn pages(domain: u16, number: u32, address: u64, am: u8, leaf: bool) -> [u64; 2] {
    let some = PasidIotlbInvalidate::new().with_g(3).with_pasid(number);
    let some = some.with_did(DomainId(domain)).with_am(am).with_ih(leaf);
    some.with_addr(address).0
}

#[test]
fn a_life_of_an_address_space() {
    let mut w = World::new();
    assert_eq!(w.table(None), 0, "no entry: blocked");
    // The driver sets up requests without PASID, then a PASID, as Linux does.
    w.entry(0, 1, 0x1_0000);
    assert!(w.submit(&[pasid_cache(1, 0)]));
    assert_eq!(w.table(None), 0x1_0000);
    w.entry(5, 2, 0x2_0000);
    assert!(w.submit(&[pasid_cache(2, 5)]));
    assert_eq!(w.table(Some(5)), 0x2_0000);
    // Pages come and go.
    w.host.calls.clear();
    assert!(w.submit(&[pages(2, 5, 0x7f00_0000_0000, 3, true)]));
    let hwpt = w.host.attached(w.device.device, Some(pasid(5))).unwrap();
    let entry = Invalidation::Pages {
        address: 0x7f00_0000_0000,
        pages: 8,
        leaf_only: true,
    };
    assert_eq!(w.host.calls, [Call::Invalidate(hwpt, entry)]);
    // It ends.
    w.entry(5, 2, 0);
    assert!(w.submit(&[pasid_cache(2, 5)]));
    assert_eq!((w.table(Some(5)), w.host.page_tables()), (0, 2));
    // Context entries are read again, too.
    w.ram.set(CONTEXTS + 8 * 32, &[0]);
    let context = ContextCacheInvalidate::new().with_g(3).with_sid(SID);
    assert!(w.submit(&[context.0]));
    assert_eq!((w.table(None), w.host.page_tables()), (0, 1));
    // Translation off: the guest's memory as it is.
    w.write_sized(offset::GCMD, u64::from(global::QIE), 4);
    assert_eq!(w.table(None), 1);
    assert_eq!(w.errors, [""; 0]);
}

#[test]
fn another_root_table_is_read_at_once_and_so_is_another_mode() {
    const OTHER: u64 = 0x8000;
    let mut w = World::new();
    w.entry(0, 1, 0x1_0000);
    w.entry(5, 2, 0x2_0000);
    assert!(w.submit(&[PasidCacheInvalidate::new().with_g(3).0]));
    assert_eq!([w.table(None), w.table(Some(5))], [0x1_0000, 0x2_0000]);
    let set_root = |w: &mut World, rtaddr| {
        w.write(offset::RTADDR, rtaddr);
        let status = w.unit.read(offset::GSTS, 4) as u32 & 0x96ff_ffff;
        w.write_sized(offset::GCMD, u64::from(status | global::SRTP), 4);
    };
    // A root table without entries, abort-DMA mode, legacy mode, and back.
    set_root(&mut w, OTHER | 1 << 10);
    assert_eq!([w.table(None), w.table(Some(5))], [0, 0]);
    set_root(&mut w, ROOT | 1 << 10);
    assert_eq!([w.table(None), w.table(Some(5))], [0x1_0000, 0x2_0000]);
    set_root(&mut w, ROOT | 3 << 10);
    assert_eq!([w.table(None), w.table(Some(5))], [0, 0]);
    set_root(&mut w, OTHER);
    assert_eq!([w.table(None), w.table(Some(5))], [1, 0]);
    set_root(&mut w, ROOT | 1 << 10);
    assert_eq!([w.table(None), w.table(Some(5))], [0x1_0000, 0x2_0000]);
    assert_eq!(w.errors, [""; 0]);
}

#[test]
fn what_the_host_cannot_do_stops_the_guests_queue() {
    let mut w = World::new();
    w.entry(5, 2, 0x2_0000);
    w.host.fail(Operation::AllocNested, 0, Errno::NoMemory);
    assert!(!w.submit(&[pasid_cache(2, 5)]));
    let stopped = w.unit.read(offset::FSTS, 4) as u32 & fsts::IQE;
    assert_eq!((stopped, w.unit.read(offset::IQH, 8)), (fsts::IQE, 0));
    assert!(
        w.errors[0].starts_with("1 address spaces are not bound; "),
        "{:?}",
        w.errors
    );
    // The driver tries again.
    w.write_sized(offset::FSTS, u64::from(fsts::IQE), 4);
    assert_eq!((w.ram.get(STATUS), w.table(Some(5))), (1, 0x2_0000));
    // So with invalidations that fail, and fail again.
    for _ in 0..2 {
        w.host.fail(Operation::Invalidate, 0, Errno::NoMemory);
    }
    assert!(!w.submit(&[pages(2, 5, 0x1000, 0, false)]));
    assert!(w.unit.read(offset::FSTS, 4) as u32 & fsts::IQE != 0);
}

#[test]
fn a_guest_cannot_end_its_host_by_what_it_binds() {
    let mut w = World::new();
    // A second stage, which the unit does not offer, is no entry; a table at 0 is an error.
    w.entry(5, 2, 0x2_0000);
    let zero = PasidEntry::ZERO.with_p(true).with_pgtt(Pgtt::FirstStage);
    w.ram.set(PASIDS + 6 * 64, &zero.0);
    assert!(!w.submit(&[PasidCacheInvalidate::new().with_g(3).0]));
    assert_eq!((w.table(Some(5)), w.table(Some(6))), (0x2_0000, 0));
}

#[test]
fn page_requests_go_to_the_guest_and_back() {
    let mut w = World::new();
    w.entry(5, 2, 0x2_0000);
    assert!(w.submit(&[pasid_cache(2, 5)]));
    let (device, five) = (w.device.device, Some(pasid(5)));
    let group = [(0x1000, false), (0x2000, true)];
    let cookie = w.host.page_request(device, five, 0, &group).unwrap();
    let deliver = |w: &mut World| {
        let delivery = w.assigned.page_requests(&mut w.host, w.queue).unwrap();
        let mut fx = Effects::new();
        for (of, request) in &delivery.requests {
            w.unit.page_request(&w.ram, *of, request, &mut fx);
        }
        assert!(w.carry_out(&fx));
    };
    deliver(&mut w);
    assert_eq!(w.unit.read(offset::PQT, 8), 64);
    let words = [0, 1, 2, 3].map(|n| w.ram.get(REQUESTS + 32 + n * 8));
    let last = PageRequestDescriptor::from_words(words).unwrap();
    assert!(last.rid == SID && last.request.last && last.request.address == 0x2000);
    let response = PageGroupResponse::new()
        .with_pp(true)
        .with_rid(SID)
        .with_pasid(5)
        .with_prgi(last.request.prgi.get());
    w.host.calls.clear();
    assert!(w.submit(&[response.0]));
    let code = host_iommu::host::FaultCode::Success;
    assert_eq!(w.host.calls, [Call::Respond(cookie, code)]);
    // A queue that is full: the unit answers by itself, and the host has that answer.
    w.write(offset::PQH, 96);
    let cookie = w.host.page_request(device, five, 0, &group).unwrap();
    w.host.calls.clear();
    deliver(&mut w);
    assert_eq!(w.host.calls, [Call::Respond(cookie, code)]);
    assert_eq!(w.assigned.outstanding(), 0);
    // A PASID that ends with a request outstanding: the host answers.
    w.write_sized(offset::PRS, 3, 4);
    w.write(offset::PQH, 64);
    let cookie = w.host.page_request(device, five, 0, &group).unwrap();
    deliver(&mut w);
    assert_eq!(w.assigned.outstanding(), 1);
    w.entry(5, 2, 0);
    assert!(w.submit(&[pasid_cache(2, 5)]));
    assert_eq!(
        (w.assigned.outstanding(), w.host.answered.clone()),
        (0, vec![cookie])
    );
    // And a machine that is reset.
    w.assigned.reset(&mut w.host);
    assert_eq!(w.table(None), 1);
}
