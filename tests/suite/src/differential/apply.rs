// SPDX-License-Identifier: MIT OR Apache-2.0
//! Applies a case to a machine, and says what was seen.

use super::case::{
    At, Case, Change, Cover, Invalidated, Invalidation, Kind, PageRequest, Request, Space, Step,
};
use super::tables::{NOWHERE, Tables, domain, load, store};
use crate::bench::Shared;
use crate::world::Translated;
use machine::os::{
    CONTEXT_GLOBAL, Driver, IOTLB_GLOBAL, Mode, Os, PASID_GLOBAL, QueueFault, Words,
    context_device, iotlb_domain, iotlb_domain_pages, iotlb_pasid, iotlb_pasid_pages,
    page_group_response, pasid_entry, shift,
};
use pcie_ats::{AlignedRange, Pasid, PrgResponse, Prgi, ResponseCode};
use svm_abi::completion::Error;
use svm_abi::registers::{attributes, command, context, control, laboratory, pasid};
use vtd::spec::DomainId;
use vtd::spec::capability::ExtendedCapability;
use vtd::spec::fault::FaultRecord;
use vtd::spec::invalidation::{
    ContextCacheInvalidate, DeviceTlbInvalidate, InvalidationWait, IotlbInvalidate,
    PasidCacheInvalidate, PasidDeviceTlbInvalidate, PasidIotlbInvalidate,
};
use vtd::spec::page_request::{PageRequestDescriptor, SIZE};
use vtd::spec::register::{
    ContextCommand, InvalidateAddress, InvalidationQueueAddress, IotlbCommand,
    PageRequestQueueAddress, global, offset, prs,
};

/// What was seen of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// How the function's request was answered.
    pub answer: Answer,
    /// The faults that the unit has recorded.
    pub faults: Vec<FaultRecord>,
    /// The entry that maps the page of the request, afterwards.
    pub leaf: Option<u64>,
    /// What the page has at its beginning, afterwards.
    pub data: Option<u64>,
    /// What came into the page request queue.
    pub page_requests: Vec<PageRequestDescriptor>,
    /// Where the invalidation queue has stopped.
    pub queue: Option<QueueFault>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// None is due.
    None,
    /// A translation.
    Translated(Translated),
    /// What was read.
    Data(u64),
    /// Success.
    Done,
    /// A failure.
    Failed(Error),
    /// There is none, though one is due.
    Missing,
}

/// The number of steps of the machine after which it counts as restless.
const RESTLESS: usize = 20_000;
/// The address that no space has a page at.
const HOLE: u64 = 0x40_0000;
/// Memory that nothing else uses.
const UNUSED: u64 = 0x8000;
/// The group of responses to no group.
const NO_GROUP: u16 = 300;

/// A machine with the tables of a case.
struct Bed<'a> {
    machine: &'a Shared,
    os: Os<Shared>,
    driver: Driver<Shared>,
    tables: Tables,
    /// The case as its tables are now.
    case: Case,
}

/// Applies a case to a machine, which is as it was when it was made.
///
/// # Panics
///
/// If the machine does not do what has nothing to do with the case.
pub fn apply(machine: &Shared, case: &Case, mut see: impl FnMut(Seen)) {
    let os = Os::boot(machine, case.mode);
    let driver = Driver::probe(&os, 0);
    let tables = Tables::new(&os, case);
    let mut bed = Bed {
        machine,
        os: os.clone(),
        driver,
        tables,
        case: case.clone(),
    };
    bed.use_pasids();
    let everything = [CONTEXT_GLOBAL, IOTLB_GLOBAL];
    match os.invalidate(0, &everything) {
        Ok(()) => {}
        Err(fault) => panic!("{fault}"),
    }
    if !case.queued {
        // QEMU's unit leaves it behind a wait descriptor alone.
        bed.leave_queue();
    }
    bed.faults();
    for (n, step) in case.steps.iter().enumerate() {
        let seen = bed.step(n as u64, step);
        let missing = seen.answer == Answer::Missing;
        see(seen);
        if missing {
            break;
        }
    }
}

impl Bed<'_> {
    fn step(&mut self, number: u64, step: &Step) -> Seen {
        let mut seen = Seen {
            answer: Answer::None,
            faults: Vec::new(),
            leaf: None,
            data: None,
            page_requests: Vec::new(),
            queue: None,
        };
        match step {
            Step::Request(request) => {
                seen.answer = self.request(number, request);
                self.look_at(request.space, request.at, &mut seen);
            }
            Step::PageRequest(request) => {
                (seen.answer, seen.page_requests, seen.queue) = self.page_request(request);
                self.look_at(request.space, request.at, &mut seen);
            }
            Step::Invalidate(invalidation) => seen.queue = self.invalidate(invalidation),
            Step::Change(change, cover) => seen.queue = self.change(*change, *cover),
        }
        seen.faults = self.faults();
        seen
    }

    fn look_at(&self, space: usize, at: At, seen: &mut Seen) {
        if let At::Page(page, _) = at {
            seen.leaf = Some(self.tables.leaf(self.machine, space, page));
            seen.data = Some(load(self.machine, self.tables.frame(space, page)));
        }
    }

    fn faults(&self) -> Vec<FaultRecord> {
        self.os.faults(0)
    }

    /// Lets the machine go on until it rests, or something holds.
    fn run_until(&self, mut done: impl FnMut() -> bool) -> bool {
        for _ in 0..RESTLESS {
            if done() {
                return true;
            }
            if !self.machine.step() {
                return done();
            }
        }
        false
    }

    // The function.

    /// Starts a context for each PASID, so that responses under it reach the function everywhere.
    fn use_pasids(&self) {
        if self.case.mode == Mode::Legacy {
            return;
        }
        let pasids = self.case.spaces.iter().filter_map(|space| space.pasid);
        for (n, number) in pasids.enumerate() {
            let set = |register, value| self.driver.set_register(n as u16, register, value);
            set(context::PASID, pasid::VALID | u64::from(number));
            set(context::RING, HOLE);
            set(context::RING_LOG2, 6);
            set(context::CONTROL, control::START);
        }
        self.run_until(|| false);
    }

    fn laboratory(&self, register: u64) -> u64 {
        self.driver.laboratory(register)
    }

    /// Sends a raw request and waits for its end, if it does not wait for software.
    fn raw(&self, command: u64, address: u64, attributes: u64) {
        let set = |register, value| self.driver.set_laboratory(register, value);
        set(laboratory::STATE, 0);
        set(laboratory::ADDRESS, address);
        set(laboratory::ATTRIBUTES, attributes);
        set(laboratory::COMMAND, command);
        self.run_until(|| self.laboratory(laboratory::STATE) & 0xff > 1);
    }

    /// How the raw request ended.
    fn end(&self) -> Answer {
        let state = self.laboratory(laboratory::STATE);
        match state & 0xff {
            2 => Answer::Done,
            3 => Answer::Failed(Error::from_u8((state >> 8) as u8).unwrap_or(Error::BadOperation)),
            _ => Answer::Missing,
        }
    }

    fn address(&self, space: usize, at: At, translated: bool) -> u64 {
        match at {
            At::Page(page, offset) => {
                let offset = u64::from(offset);
                if translated {
                    return self.tables.frame(space, page) + offset;
                }
                let place = self.case.spaces[space].pages[page].place;
                let distance = self.tables.distance(&self.case, space, page);
                self.case.address(place) + distance + offset
            }
            At::Hole if translated => UNUSED,
            At::Hole => HOLE,
            At::Beyond => 1 << (12 + 9 * self.case.levels()),
            At::Wide => 1 << 52,
            At::Nowhere => NOWHERE,
            At::Interrupts => 0xfee0_0000,
        }
    }

    fn request(&self, number: u64, request: &Request) -> Answer {
        let space = &self.case.spaces[request.space];
        let mut flags = space_attributes(space);
        for (is, bit) in [
            (request.no_write, attributes::NO_WRITE),
            (request.execute, attributes::EXECUTE),
            (request.privileged, attributes::PRIVILEGED),
        ] {
            flags |= if is { bit } else { 0 };
        }
        let command = match request.kind {
            Kind::Translate => command::TRANSLATE,
            Kind::Read => command::UNTRANSLATED_READ,
            Kind::Write => command::UNTRANSLATED_WRITE,
            Kind::TranslatedRead => command::TRANSLATED_READ,
            Kind::TranslatedWrite => command::TRANSLATED_WRITE,
        };
        self.driver.set_laboratory(laboratory::DATA, number + 1);
        let address = self.address(request.space, request.at, request.kind.is_translated());
        self.raw(command, address, flags);
        match (self.end(), request.kind) {
            (Answer::Done, Kind::Translate) => {
                let mut translated = self.translated();
                if space.pass_through && translated.size > 12 {
                    // A unit chooses how much it answers at once.
                    let inside = address & ((1 << translated.size) - 1) & !0xfff;
                    translated.address += inside;
                    translated.size = 12;
                }
                Answer::Translated(translated)
            }
            // What lies there is software's own, and not the same everywhere.
            (Answer::Done, Kind::Read) if space.pass_through => Answer::Done,
            (Answer::Done, Kind::Read | Kind::TranslatedRead) => {
                Answer::Data(self.laboratory(laboratory::DATA))
            }
            (answer, _) => answer,
        }
    }

    fn translated(&self) -> Translated {
        let translated = Translated::of(
            self.laboratory(laboratory::TRANSLATED),
            self.laboratory(laboratory::COMPLETION),
        );
        // Address and size of what permits nothing are nobody's business.
        match translated.permits() || translated.flags.untranslated_only {
            true => translated,
            false => Translated {
                address: 0,
                size: 12,
                ..translated
            },
        }
    }

    fn page_request(
        &mut self,
        request: &PageRequest,
    ) -> (Answer, Vec<PageRequestDescriptor>, Option<QueueFault>) {
        let space = &self.case.spaces[request.space];
        let mut flags = space_attributes(space) | u64::from(request.group) << 48;
        for (is, bit) in [
            (request.read, attributes::READ),
            (request.write, attributes::WRITE),
            (request.execute, attributes::EXECUTE),
            (request.privileged, attributes::PRIVILEGED),
            (request.last, attributes::LAST),
        ] {
            flags |= if is { bit } else { 0 };
        }
        let pasid = space.pasid;
        let address = self.address(request.space, request.at, false);
        self.raw(command::PAGE_REQUEST, address, flags);
        let arrived = self.arrived();
        let mut queue = None;
        let waits = self.end() == Answer::Missing;
        if waits && !arrived.is_empty() {
            let words = self.response(request.group, pasid, request.code);
            queue = self.forget(&[words]);
            self.run_until(|| self.laboratory(laboratory::STATE) & 0xff > 1);
        }
        (self.end(), arrived, queue)
    }

    /// Takes what is in the page request queue.
    fn arrived(&self) -> Vec<PageRequestDescriptor> {
        let read = |at| self.machine.unit_read(0, at, 8);
        let queue = PageRequestQueueAddress(read(offset::PQA));
        let (mut head, tail) = (read(offset::PQH), read(offset::PQT));
        let mut arrived = Vec::new();
        while head != tail {
            let words = [0, 8, 16, 24].map(|word| load(self.machine, queue.pqa() + head + word));
            arrived.extend(PageRequestDescriptor::from_words(words));
            head = (head + SIZE) % (4096 << queue.pqs());
        }
        let all = prs::PPR | prs::PRO;
        self.machine.unit_write(0, offset::PQH, head, 8);
        self.machine.unit_write(0, offset::PRS, all.into(), 4);
        arrived
    }

    fn response(&self, group: u16, pasid: Option<u32>, code: ResponseCode) -> Words {
        let response = PrgResponse {
            prgi: checked(Prgi::new(group)),
            pasid: pasid.map(|pasid| checked(Pasid::new(pasid))),
            code,
        };
        page_group_response(self.machine.requester(0), &response)
    }

    // Invalidation.

    /// Submits descriptors, and says where the queue stopped. A wrong one is taken out of it.
    fn forget(&self, descriptors: &[Words]) -> Option<QueueFault> {
        if !self.case.queued {
            for words in descriptors {
                self.by_register(*words);
            }
            return None;
        }
        let queue = self.os.queue(0);
        let Some(ticket) = queue.try_submit(descriptors) else {
            return Some(QueueFault::Stuck);
        };
        let mut first = None;
        for _ in 0..=descriptors.len() {
            self.run_until(|| queue.is_done(ticket) || queue.fault().is_some());
            if queue.is_done(ticket) {
                return first;
            }
            let fault = queue.fault().unwrap_or(QueueFault::Stuck);
            first = first.or(Some(fault));
            let QueueFault::Descriptor { head, .. } = fault else {
                break;
            };
            self.replace(head);
            queue.clear_faults();
        }
        first.or(Some(QueueFault::Stuck))
    }

    /// Puts a descriptor that changes no answer in the place of a wrong one, as software does that
    /// goes on.
    fn replace(&self, head: u64) {
        let queue = InvalidationQueueAddress(self.machine.unit_read(0, offset::IQA, 8));
        let words = CONTEXT_GLOBAL;
        let at = queue.iqa() + head;
        store(self.machine, at, words[0]);
        store(self.machine, at + 8, words[1]);
    }

    /// Switches the invalidation queue off.
    fn leave_queue(&self) {
        // The one-shot bits are not repeated (section 11.4.4.1).
        let status = self.machine.unit_read(0, offset::GSTS, 4) as u32 & 0x96ff_ffff;
        let command = u64::from(status & !global::QIE);
        self.machine.unit_write(0, offset::GCMD, command, 4);
    }

    /// Does by registers what a descriptor of legacy mode says, and waits for its end.
    fn by_register(&self, words: Words) {
        let context = ContextCacheInvalidate(words);
        let iotlb = IotlbInvalidate(words);
        let ecap = ExtendedCapability(self.machine.unit_read(0, offset::ECAP, 8));
        let place = ecap.iotlb_offset();
        match iotlb.type_low() {
            ContextCacheInvalidate::TYPE => {
                let command = ContextCommand::ZERO
                    .with_icc(true)
                    .with_cirg(context.g())
                    .with_did(context.did().0)
                    .with_sid(context.sid())
                    .with_fm(context.fm());
                self.machine.unit_write(0, offset::CCMD, command.0, 8);
                let done = || !ContextCommand(self.machine.unit_read(0, offset::CCMD, 8)).icc();
                assert!(self.run_until(done), "CCMD.ICC is not cleared");
            }
            IotlbInvalidate::TYPE => {
                let address = InvalidateAddress::ZERO
                    .with_am(iotlb.am())
                    .with_ih(iotlb.ih())
                    .with_addr(iotlb.addr());
                let command = IotlbCommand::ZERO
                    .with_ivt(true)
                    .with_iirg(iotlb.g())
                    .with_did(iotlb.did().0)
                    .with_dr(true)
                    .with_dw(true);
                self.machine.unit_write(0, place, address.0, 8);
                self.machine.unit_write(0, place + 8, command.0, 8);
                let done = || !IotlbCommand(self.machine.unit_read(0, place + 8, 8)).ivt();
                assert!(self.run_until(done), "IOTLB.IVT is not cleared");
            }
            // There are no PASIDs in legacy mode.
            _ => {}
        }
    }

    fn invalidate(&self, invalidation: &Invalidation) -> Option<QueueFault> {
        let Invalidation {
            what,
            granularity: g,
            space,
            mask,
            ..
        } = *invalidation;
        let sid = self.machine.requester(0);
        let did = DomainId(domain(space));
        let pasid = self.case.spaces[space].pasid;
        let number = pasid.unwrap_or(0);
        let address = self.address(space, invalidation.at, false) & !0xfff;
        let mut words = match what {
            Invalidated::Contexts => {
                let words = ContextCacheInvalidate::new().with_g(g).with_did(did);
                words.with_sid(sid).0
            }
            Invalidated::Pasids => {
                let words = PasidCacheInvalidate::new().with_g(g).with_did(did);
                words.with_pasid(number).0
            }
            Invalidated::Iotlb => {
                let words = IotlbInvalidate::new().with_g(g).with_did(did);
                words.with_am(mask).with_addr(address).0
            }
            Invalidated::PasidIotlb => {
                let words = PasidIotlbInvalidate::new().with_g(g).with_did(did);
                let words = words.with_pasid(number).with_am(mask);
                words.with_addr(address).0
            }
            Invalidated::DeviceTlb => {
                let words = DeviceTlbInvalidate::new().with_sid(sid);
                words.with_s(g & 1 != 0).with_addr(address).0
            }
            Invalidated::PasidDeviceTlb => {
                let words = PasidDeviceTlbInvalidate::new().with_sid(sid);
                let words = words.with_pasid(number).with_g(g & 2 != 0);
                words.with_s(g & 1 != 0).with_addr(address).0
            }
            Invalidated::Wait => InvalidationWait::new().with_fence(g & 1 != 0).0,
            Invalidated::Response => self.response(NO_GROUP, Some(number), ResponseCode::Success),
            Invalidated::ResponseWithoutPasid => {
                self.response(NO_GROUP, None, ResponseCode::Success)
            }
            Invalidated::UnknownType => [0xf, 0],
        };
        if let Some((word, bit)) = invalidation.reserved {
            words[usize::from(word)] |= 1 << bit;
        }
        self.forget(&[words])
    }

    fn change(&mut self, change: Change, cover: Cover) -> Option<QueueFault> {
        self.case.change(change);
        match change {
            Change::Page(space, page, _) => {
                self.tables
                    .write_page(self.machine, &self.case, space, page);
            }
            Change::Space(space, _) => self.tables.write_space(self.machine, &self.case, space),
            Change::Context(_) => self.tables.write_context(self.machine, &self.case),
        }
        self.forget(&self.covering(change, cover))
    }

    /// The invalidations of what depends on a change: enough, or more.
    fn covering(&self, change: Change, cover: Cover) -> Vec<Words> {
        let legacy = self.case.mode == Mode::Legacy;
        let everything = vec![CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL];
        let everything = match legacy {
            true => vec![CONTEXT_GLOBAL, IOTLB_GLOBAL],
            false => everything,
        };
        let by_pasid = |space: usize| {
            let space = &self.case.spaces[space];
            let pasid = checked(Pasid::new(space.pasid.unwrap_or(0)));
            (self.case.is_first_stage() && !space.pass_through).then_some(pasid)
        };
        match (change, cover) {
            (Change::Page(..), Cover::Global) => vec![IOTLB_GLOBAL],
            (Change::Space(..), Cover::Global) if !legacy => vec![PASID_GLOBAL, IOTLB_GLOBAL],
            (_, Cover::Global) => everything,
            (Change::Context(_) | Change::Space(..), Cover::Domain) if legacy => {
                let did = DomainId(domain(0));
                let contexts = ContextCacheInvalidate::new().with_g(2).with_did(did);
                vec![contexts.0, iotlb_domain(did.0)]
            }
            (Change::Context(_) | Change::Space(..), _) if legacy => {
                let sid = self.machine.requester(0);
                vec![context_device(domain(0), sid), iotlb_domain(domain(0))]
            }
            (Change::Context(_), _) => everything,
            // A directory entry is shared.
            (Change::Space(_, fault), _) if fault.is_of_directory() => {
                vec![PASID_GLOBAL, IOTLB_GLOBAL]
            }
            (Change::Space(space, _), Cover::Domain) => {
                let did = DomainId(domain(space));
                let pasids = PasidCacheInvalidate::new().with_g(0).with_did(did);
                vec![pasids.0, iotlb_domain(did.0)]
            }
            (Change::Space(space, _), Cover::Selective) => {
                let (did, number) = (domain(space), self.case.spaces[space].pasid.unwrap_or(0));
                let cache = pasid_entry(did, checked(Pasid::new(number)));
                match by_pasid(space) {
                    Some(pasid) => vec![cache, iotlb_pasid(did, pasid)],
                    None => vec![cache, iotlb_domain(did)],
                }
            }
            (Change::Page(space, ..), Cover::Domain) => vec![iotlb_domain(domain(space))],
            (Change::Page(space, page, fault), Cover::Selective) => {
                let did = domain(space);
                let place = self.case.spaces[space].pages[page].place;
                let range =
                    AlignedRange::containing(self.case.address(place), shift(place.level()));
                let range = checked(range);
                // An entry of a table further up is that of other pages, too.
                let is_leaf = fault.level <= place.level();
                match by_pasid(space) {
                    Some(pasid) if is_leaf => vec![iotlb_pasid_pages(did, pasid, range)],
                    Some(pasid) => vec![iotlb_pasid(did, pasid)],
                    None if is_leaf => vec![iotlb_domain_pages(did, range)],
                    None => vec![iotlb_domain(did)],
                }
            }
        }
    }
}

/// The attributes that say whose request it is.
fn space_attributes(space: &Space) -> u64 {
    match space.pasid {
        Some(pasid) => attributes::PASID_PRESENT | u64::from(pasid),
        None => 0,
    }
}

/// What cannot be wrong in a case.
fn checked<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
