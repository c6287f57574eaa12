// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page request engine against a simple model of the interface: outstanding requests, the
//! status register, and the outcome of each descriptor. A million random operations.

use super::*;
use crate::testing::failure::caught;
use crate::testing::{MUTANT, Numbers, Service, World, pid};
use crate::{Config, Mutant, Step, config_space};
use pcie_ats::{AlignedRange, Function, PageRequest, PrgResponse, Prgi, ResponseCode};
use svm_abi::registers::{context, control, pasid};

const OPERATIONS: u64 = 1_000_000;
/// Number of operations within which a mutant must be caught.
const ATTEMPTS: u64 = 50_000;
const SEED: u64 = 0x5eed_0049;

const CONTEXTS: u16 = 6;
const CAPACITY: u32 = 12;
/// Pages of each context: of the last two, one is read-only and one does not exist.
const PAGES: u64 = 8;
const READ_ONLY: u64 = PAGES - 2;
const MISSING: u64 = PAGES - 1;
const PAGE: u64 = 0x1000;

/// A group as seen upstream.
#[derive(Clone, Debug)]
struct Group {
    context: u16,
    requests: Vec<PageRequest>,
    /// Another group was answered with a failure: no access waits for this one any more.
    given_up: bool,
}

/// A descriptor at work.
#[derive(Clone, Copy, Debug)]
struct Work {
    first: u64,
    count: u64,
    value: u64,
    blocks: bool,
    /// The operation that submitted it.
    since: u64,
}

/// A context as software sees it.
#[derive(Clone, Debug, Default)]
struct Slot {
    work: Option<Work>,
    stopping: bool,
    /// When each page was last absent, and when a request for it was last refused.
    absent: [u64; PAGES as usize],
    refused: [u64; PAGES as usize],
}

/// The simple model of the interface.
#[derive(Debug)]
struct Model {
    enabled: bool,
    stopped: bool,
    failed: bool,
    unexpected: bool,
    allocation: u32,
    groups: Vec<Group>,
    slots: Vec<Slot>,
    /// When page requests were last not possible.
    closed: u64,
    /// When a failure was last sent as an answer.
    failure: u64,
    now: u64,
}

impl Model {
    fn accepts(&self) -> bool {
        self.enabled && !self.failed && self.allocation > 0
    }

    fn outstanding(&self) -> usize {
        self.groups.iter().map(|group| group.requests.len()).sum()
    }

    /// Whether a context waits for a response.
    fn waits(&self, n: u16) -> bool {
        let theirs = |group: &Group| group.context == n && !group.given_up;
        self.groups.iter().any(theirs)
    }

    fn settle(&mut self) {
        self.stopped |= !self.enabled && self.groups.is_empty();
        if !self.accepts() {
            self.closed = self.now;
        }
    }

    /// A page request has arrived upstream.
    fn request(&mut self, request: &PageRequest) {
        let n = ((request.address - HERE) / (PAGES * PAGE)) as u16;
        assert_eq!(request.pasid, Some(pid(pasid_of(n))));
        assert_eq!((request.read, request.write), (false, true));
        assert!(!request.privileged, "rule 73");
        let slot = &self.slots[usize::from(n)];
        let work = slot.work.expect("somebody works there");
        let page = request.address / PAGE - first_page(n);
        assert!((work.first..work.first + work.count).contains(&page));
        match self.groups.last_mut() {
            // A group is sent completely before anything else happens.
            Some(group) if !group.requests.iter().any(|r| r.last) => {
                let before = group.requests[group.requests.len() - 1];
                assert_eq!(request.prgi, before.prgi);
                assert_eq!(request.address, before.address + PAGE);
                group.requests.push(*request);
            }
            _ => {
                assert!(self.accepts(), "rules 55 and 59");
                let same = |group: &Group| group.requests[0].prgi == request.prgi;
                assert!(!self.groups.iter().any(same), "rule 49");
                assert!(!self.waits(n), "it waits already");
                self.groups.push(Group {
                    context: n,
                    requests: vec![*request],
                    given_up: false,
                });
            }
        }
        assert!(self.outstanding() <= self.allocation as usize, "rule 58");
    }

    /// A response is sent downstream. Returns the group that it answers.
    fn respond(&mut self, prgi: Prgi, pasid: u32, code: ResponseCode) -> Option<Group> {
        let known = |group: &Group| {
            let first = &group.requests[0];
            first.prgi == prgi && first.pasid == Some(pid(pasid))
        };
        let Some(found) = self.groups.iter().position(known) else {
            self.unexpected |= self.enabled || !self.stopped;
            return None;
        };
        let group = self.groups.swap_remove(found);
        if code == ResponseCode::ResponseFailure {
            self.failed = true;
            self.failure = self.now;
            for group in &mut self.groups {
                group.given_up = true;
            }
        }
        if let [request] = group.requests[..] {
            if code == ResponseCode::InvalidRequest {
                let page = (request.address / PAGE - first_page(group.context)) as usize;
                self.slots[usize::from(group.context)].refused[page] = self.now;
            }
        }
        self.settle();
        Some(group)
    }
}

/// Contexts share address spaces, but not pages.
fn pasid_of(n: u16) -> u32 {
    1 + u32::from(n) % 3
}

fn first_page(n: u16) -> u64 {
    HERE / PAGE + u64::from(n) * PAGES
}

fn address(n: u16, page: u64) -> u64 {
    (first_page(n) + page) * PAGE
}

/// The ring of a context, and its completion record behind it.
fn ring(n: u16) -> u64 {
    THERE + u64::from(n) * 2 * PAGE
}

struct Bench {
    world: World,
    model: Model,
    numbers: Numbers,
    /// How many descriptors succeeded, and how many failed, by error.
    ends: [u64; 256],
}

impl Bench {
    fn new(seed: u64) -> Self {
        let world = World::new(Config {
            contexts: CONTEXTS,
            pri_capacity: CAPACITY,
            ..Config::default()
        });
        world.judge();
        *world.service.lock().unwrap() = Service::Later;
        world.enable(CAPACITY);
        for n in 0..CONTEXTS {
            for page in 0..MISSING {
                world.map_absent(pasid_of(n), address(n, page), page != READ_ONLY);
            }
            world.map(pasid_of(n), ring(n), true);
            world.map(pasid_of(n), ring(n) + PAGE, true);
        }
        let bench = Bench {
            world,
            model: Model {
                enabled: true,
                stopped: false,
                failed: false,
                unexpected: false,
                allocation: CAPACITY,
                groups: Vec::new(),
                slots: vec![Slot::default(); CONTEXTS.into()],
                closed: 0,
                failure: 0,
                now: 1,
            },
            numbers: Numbers(seed),
            ends: [0; 256],
        };
        for n in 0..CONTEXTS {
            bench.start(n);
        }
        bench
    }

    fn start(&self, n: u16) {
        let world = &self.world;
        world.set(n, context::PASID, u64::from(pasid_of(n)) | pasid::VALID);
        world.set(n, context::RING, ring(n));
        world.set(n, context::RING_LOG2, 6);
        world.set(n, context::CONTROL, control::START);
    }

    /// Whether a write can bring in the page.
    fn exists(page: u64) -> bool {
        page < READ_ONLY
    }

    fn submit(&mut self, n: u16) {
        let first = self.numbers.below(PAGES);
        let count = 1 + self.numbers.below(PAGES - first);
        let value = self.numbers.below(u64::MAX);
        let blocks = self.numbers.below(8) != 0;
        let mut descriptor = fill(address(n, first), count * PAGE);
        descriptor.operand0 = value;
        descriptor.completion = ring(n) + PAGE;
        if !blocks {
            descriptor.flags = 0;
        }
        let (world, pasid) = (&self.world, pasid_of(n));
        world.poke(pasid, descriptor.completion, &[0; 32]);
        let tail = world.get(n, context::TAIL);
        world.poke(pasid, ring(n) + 64 * (tail % 64), &descriptor.to_bytes());
        world.doorbell(n, tail + 1);
        self.model.slots[usize::from(n)].work = Some(Work {
            first,
            count,
            value,
            blocks,
            since: self.model.now,
        });
    }

    /// Answers an outstanding group, or one that does not exist.
    fn respond(&mut self) {
        let known = self.model.groups.len() as u64;
        let chosen = self.numbers.below(known + 1);
        let group = self.model.groups.get(chosen as usize).cloned();
        let (prgi, pasid) = match &group {
            Some(group) if self.numbers.below(50) != 0 => {
                let first = &group.requests[0];
                (first.prgi, first.pasid.unwrap().get())
            }
            // To a group that does not exist, or to the wrong address space.
            Some(group) => (group.requests[0].prgi, 1 + self.numbers.below(4) as u32),
            None if self.numbers.below(20) != 0 => return,
            None => {
                let prgi = Prgi::new(self.numbers.below(512) as u16).unwrap();
                (prgi, 1 + self.numbers.below(4) as u32)
            }
        };
        let mut code = ResponseCode::Success;
        match self.numbers.below(40) {
            // The page was not brought in, or has been evicted again.
            0..3 => {}
            3 => code = ResponseCode::InvalidRequest,
            4 if self.numbers.below(4) == 0 => code = ResponseCode::ResponseFailure,
            _ => {
                for request in group.iter().flat_map(|group| &group.requests) {
                    let n = ((request.address - HERE) / (PAGES * PAGE)) as u16;
                    let page = request.address / PAGE - first_page(n);
                    if Self::exists(page) {
                        let pasid = pasid_of(n);
                        self.world
                            .change(pasid, request.address, |m| m.present = true);
                    } else {
                        code = ResponseCode::InvalidRequest;
                    }
                }
            }
        }
        self.model.respond(prgi, pasid, code);
        self.world.endpoint.prg_response(&PrgResponse {
            prgi,
            pasid: Some(pid(pasid)),
            code,
        });
        let answered = |request: &PageRequest| request.prgi == prgi;
        let mut inner = self.world.inner.lock().unwrap();
        if !self.model.groups.iter().any(|g| g.requests[0].prgi == prgi) {
            inner.queue.retain(|request| !answered(request));
        }
    }

    fn evict(&mut self, n: u16) {
        let page = self.numbers.below(READ_ONLY);
        let at = address(n, page);
        self.world.change(pasid_of(n), at, |m| m.present = false);
        let _ = self.world.invalidate(pasid_of(n), AlignedRange::page(at));
    }

    /// Writes the interface's control register.
    fn control(&mut self, value: u32, mask: u32) {
        let bits = value & mask;
        let model = &mut self.model;
        model.failed &= bits >> 16 & 1 == 0;
        model.unexpected &= bits >> 17 & 1 == 0;
        match (model.enabled, mask & 1 != 0, bits & 1 != 0) {
            (false, true, true) if model.stopped => {
                model.enabled = true;
                model.stopped = false;
                model.failed = false;
                model.unexpected = false;
            }
            (false, true, true) => {}
            (true, true, false) => model.enabled = false,
            (false, ..) if bits & 2 != 0 => {
                // Reset: outstanding requests are forgotten.
                model.groups.clear();
                model.failed = false;
                model.unexpected = false;
                self.world.inner.lock().unwrap().queue.clear();
            }
            _ => {}
        }
        model.settle();
        self.world
            .endpoint
            .config_write(config_space::PRI + 4, value, mask);
    }

    fn allocate(&mut self, allocation: u32) {
        if !self.model.enabled {
            self.model.allocation = allocation.min(CAPACITY);
        }
        self.model.settle();
        self.world
            .endpoint
            .config_write(config_space::PRI + 12, allocation, !0);
    }

    fn stop(&mut self, n: u16) {
        self.world.set(n, context::CONTROL, control::STOP);
        let slot = &mut self.model.slots[usize::from(n)];
        slot.work = None;
        slot.stopping = true;
    }

    /// One operation of a random context.
    fn operate(&mut self) {
        self.model.now += 1;
        // The current conditions also held during this operation.
        self.model.settle();
        for n in 0..CONTEXTS {
            for page in 0..READ_ONLY {
                let mapping = self.world.mapping(pasid_of(n), address(n, page)).unwrap();
                if !mapping.present {
                    self.model.slots[usize::from(n)].absent[page as usize] = self.model.now;
                }
            }
        }
        let n = self.numbers.below(CONTEXTS.into()) as u16;
        match self.numbers.below(1000) {
            0..450 => {
                self.world.endpoint.step(&self.world);
            }
            450..650 => {
                let slot = &self.model.slots[usize::from(n)];
                if slot.work.is_none() && !slot.stopping {
                    self.submit(n);
                }
            }
            650..900 => self.respond(),
            900..970 => self.evict(n),
            970..980 => self.stop(n),
            980..984 => self.control(0, 1),
            984..994 => self.control(1, 1),
            994 => self.control(2, 3),
            995 => self.control(self.model.enabled.into(), 0xffff_0001),
            996 => self.control(0x3_0001 & !u32::from(!self.model.enabled), 0xffff_0001),
            997 | 998 => {
                let allocation = self.numbers.below(20) as u32;
                self.allocate(allocation);
            }
            _ => self.drain(),
        }
        self.compare();
    }

    /// Compares requests, registers and completions with the model.
    fn compare(&mut self) {
        let requests = std::mem::take(&mut self.world.inner.lock().unwrap().page_requests);
        for request in &requests {
            self.model.request(request);
        }
        let whole = |group: &Group| group.requests.last().is_some_and(|r| r.last);
        assert!(self.model.groups.iter().all(whole), "rule 51");
        let status = self.world.endpoint.config_read(config_space::PRI + 4);
        let bit = |bit: u32| status >> bit & 1 != 0;
        let seen = [bit(0), bit(16), bit(17), bit(24)];
        let model = &self.model;
        let expected = [model.enabled, model.failed, model.unexpected, model.stopped];
        assert_eq!(seen, expected, "enable, RF, UPRGI, stopped");
        for n in 0..CONTEXTS {
            let waits = self.model.groups.iter().any(|group| group.context == n);
            if self.model.slots[usize::from(n)].stopping {
                let disabled = self.world.get(n, context::STATUS) == 0;
                assert_eq!(disabled, !waits, "rule 65: context {n}");
                if disabled {
                    self.model.slots[usize::from(n)].stopping = false;
                    self.start(n);
                }
            }
            if let Some(work) = self.model.slots[usize::from(n)].work {
                self.judge(n, &work);
            }
        }
    }

    /// Checks that a descriptor has ended for a valid reason.
    fn judge(&mut self, n: u16, work: &Work) {
        let record = self.world.record(pasid_of(n), ring(n) + PAGE);
        if record.status == status::PENDING {
            return;
        }
        assert!(!self.model.waits(n), "it has not waited for its pages");
        self.ends[usize::from(record.error)] += 1;
        let slot = &mut self.model.slots[usize::from(n)];
        slot.work = None;
        let pages = work.first..work.first + work.count;
        if record.status == status::SUCCESS {
            assert!(pages.clone().all(Self::exists), "{work:?}");
            for page in pages {
                let data = self.world.peek(pasid_of(n), address(n, page), 8);
                assert_eq!(data, work.value.to_le_bytes());
            }
            assert_eq!(record.bytes_done, work.count * PAGE);
            return;
        }
        let (error, fault, access) = failure(record);
        assert_eq!(access, 1);
        let page = fault / PAGE - first_page(n);
        assert!(pages.contains(&page));
        assert_eq!(record.bytes_done, (page - work.first) * PAGE);
        let absent = !Self::exists(page) || slot.absent[page as usize] >= work.since;
        let right = match error {
            Error::PageFault => !Self::exists(page) || slot.refused[page as usize] >= work.since,
            Error::NotPresent => absent && (!work.blocks || self.model.closed >= work.since),
            Error::ResponseFailure => absent && self.model.failure >= work.since,
            _ => false,
        };
        assert!(right, "{error:?} of {work:?}");
    }

    /// With page requests enabled and answered, all work ends.
    fn drain(&mut self) {
        if !self.model.accepts() {
            self.control(0, 1);
            self.control(2, 3);
            self.allocate(CAPACITY);
            self.control(1, 1);
        }
        for _ in 0..10_000 {
            while self.world.endpoint.step(&self.world) == Step::Worked {
                self.compare();
            }
            let waits = !self.model.groups.is_empty();
            if !waits && self.model.slots.iter().all(|slot| slot.work.is_none()) {
                return;
            }
            assert!(
                waits || !self.model.accepts(),
                "work that waits for nothing"
            );
            self.respond();
            self.compare();
            if !self.model.accepts() {
                return;
            }
        }
        panic!("the work never comes to an end");
    }
}

fn compare_with_the_model(operations: u64) -> [u64; 256] {
    let mut bench = Bench::new(SEED);
    for _ in 0..operations {
        bench.operate();
    }
    bench.ends
}

#[test]
fn rule_49_to_65_the_engine_agrees_with_a_naive_model_for_a_million_operations() {
    let ends = compare_with_the_model(OPERATIONS);
    for error in [
        0,
        Error::PageFault as u8,
        Error::NotPresent as u8,
        Error::ResponseFailure as u8,
    ] {
        assert!(ends[usize::from(error)] > 1000, "{error}: {ends:?}");
    }
}

#[test]
fn the_model_of_the_engine_notices_a_device_that_breaks_its_rules() {
    let mutants = [
        Mutant::Rule09,
        Mutant::Rule49,
        Mutant::Rule50,
        Mutant::Rule51,
        Mutant::Rule52,
        Mutant::Rule54,
        Mutant::Rule55,
        Mutant::Rule56,
        Mutant::Rule57,
        Mutant::Rule58,
        Mutant::Rule59,
        Mutant::Rule65,
        Mutant::Rule73,
    ];
    // The functions in which the model checks its expectations. The model does not detect failures
    // elsewhere.
    let judges = ["request", "compare", "judge", "drain"];
    let mut escaped = Vec::new();
    for mutant in mutants {
        MUTANT.set(Some(mutant));
        let test = || {
            compare_with_the_model(ATTEMPTS);
        };
        let result = caught(
            test,
            &[("/tests/engine.rs", include_str!("engine.rs"))],
            &judges,
        );
        MUTANT.set(None);
        if let Err(place) = result {
            escaped.push((mutant, place));
        }
    }
    assert!(escaped.is_empty(), "not caught: {escaped:?}");
}
