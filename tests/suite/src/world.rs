// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a rule works with: software on a machine, a process that uses the device, and the raw
//! requests of the device's laboratory. Rules judge by [`World::equal`] and [`World::holds`]; what
//! goes wrong elsewhere is a panic, and no verdict.

use crate::bench::Shared;
use crate::verdict::{Evidence, Failure};
use machine::os::{
    App, Behaviour, Driver, IOTLB_GLOBAL, Mode, Os, Process, Ticket, fill, page_group_response,
};
use pcie_ats::{Pasid, PrgResponse, Prgi, ResponseCode};
use std::fmt::{self, Debug, Display};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use svm_abi::completion::Error;
use svm_abi::descriptor::Descriptor;
use svm_abi::registers::{attributes, command, context, control, laboratory, pasid, sent, status};
use svm_endpoint::{Mutant, config_space};
use vtd::memory::MemoryError;
use vtd::spec::DomainId;
use vtd::spec::fault::FaultRecord;
use vtd::spec::pasid::{PasidEntry, Pgtt};

/// Offset of the command register.
pub const COMMAND: u16 = 4;
/// Offsets of the control registers of ATS, PASID and page requests.
pub const ATS: u16 = config_space::ATS + 4;
/// See [`ATS`].
pub const PASID: u16 = config_space::PASID + 4;
/// See [`ATS`].
pub const PRI: u16 = config_space::PRI + 4;

/// Where processes have their pages.
pub const HERE: u64 = 0x10_0000;
/// What is in a frame that nobody may write to any more.
pub const CANARY: u64 = 0xc3c3_c3c3_c3c3_c3c3;
/// A PASID that nobody has.
pub const NOBODY: u32 = 4000;

/// What a function that judges returns.
pub type Outcome = Result<Evidence, Failure>;
/// What a comparison returns.
pub type Verdict = Result<(), Failure>;

/// How much time passes at once for a device that waits for it: more than it ever waits.
const ROUND: Duration = Duration::from_secs(1);
/// How long nothing may happen, by the clock of the host, before it is taken for the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Requests that results show.
const SHOWN: u64 = 16;

/// A process that uses the device, on a machine with an operating system.
pub struct World {
    app: App<Shared>,
    /// The address space of the function itself: that of its requests without PASID.
    own: Process<Shared>,
    /// Requests that the device had sent when the rule began.
    begun: u64,
    /// Where the last requests are noted when the machine is given up.
    noted: Option<Arc<Mutex<Vec<String>>>>,
}

impl Deref for World {
    type Target = App<Shared>;

    fn deref(&self) -> &App<Shared> {
        &self.app
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.machine().set_hook(None);
        // A machine that a panic comes from may be gone.
        if std::thread::panicking() {
            return;
        }
        if let Some(Ok(mut noted)) = self.noted.as_ref().map(|noted| noted.lock()) {
            *noted = self.last_requests();
        }
    }
}

/// A request that the device has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    what: u64,
    /// Address.
    pub address: u64,
    /// Bytes of an access, pages of a translation request.
    pub length: u64,
}

impl Sent {
    /// Its kind, as [`command`] and [`sent`] have it.
    pub fn kind(&self) -> u64 {
        self.what >> sent::KIND_SHIFT
    }

    /// Whether it has a bit of [`attributes`].
    pub fn has(&self, bit: u64) -> bool {
        self.what & bit != 0
    }

    /// Its PASID.
    pub fn pasid(&self) -> Option<u64> {
        self.has(attributes::PASID_PRESENT)
            .then_some(self.what & attributes::PASID)
    }

    /// Page Request Group Index.
    pub fn prgi(&self) -> u64 {
        (self.what & attributes::GROUP) >> attributes::GROUP_SHIFT
    }

    /// Whether it is an access with a translated address.
    pub fn is_translated_access(&self) -> bool {
        matches!(
            self.kind(),
            command::TRANSLATED_READ
                | command::TRANSLATED_WRITE
                | command::TRANSLATED_PROBE
                | sent::TRANSLATED_ATOMIC
        )
    }

    /// Whether it is an access whose address is not translated.
    pub fn is_untranslated_access(&self) -> bool {
        matches!(
            self.kind(),
            command::UNTRANSLATED_READ
                | command::UNTRANSLATED_WRITE
                | command::UNTRANSLATED_PROBE
                | sent::UNTRANSLATED_ATOMIC
        )
    }
}

impl Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind() {
            command::TRANSLATE => "translation request",
            command::PAGE_REQUEST => "page request",
            command::UNTRANSLATED_READ => "untranslated read",
            command::UNTRANSLATED_WRITE => "untranslated write",
            command::TRANSLATED_READ => "translated read",
            command::TRANSLATED_WRITE => "translated write",
            command::UNTRANSLATED_PROBE => "untranslated zero-length read",
            command::TRANSLATED_PROBE => "translated zero-length read",
            sent::UNTRANSLATED_ATOMIC => "untranslated atomic operation",
            sent::TRANSLATED_ATOMIC => "translated atomic operation",
            sent::INTERRUPT => return write!(f, "interrupt of vector {}", self.address),
            other => return write!(f, "request of kind {other}"),
        };
        write!(f, "{kind} {:#x}", self.address)?;
        match self.kind() {
            command::TRANSLATE => write!(f, ", {} pages", self.length)?,
            command::PAGE_REQUEST => write!(f, ", group {}", self.prgi())?,
            _ => write!(f, ", {} bytes", self.length)?,
        }
        if let Some(pasid) = self.pasid() {
            write!(f, ", PASID {pasid:#x}")?;
        }
        for (bit, name) in [
            (attributes::PRIVILEGED, "privileged"),
            (attributes::EXECUTE, "execute"),
            (attributes::NO_WRITE, "no write"),
            (attributes::READ, "read"),
            (attributes::WRITE, "write"),
            (attributes::LAST, "last"),
        ] {
            if self.has(bit) {
                write!(f, ", {name}")?;
            }
        }
        Ok(())
    }
}

/// The answer to a translation request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Address.
    pub address: u64,
    /// Log2 of the size.
    pub size: u8,
    /// R, W, Exe, Priv, Global and U.
    pub flags: Flags,
}

/// The flags of a translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// R.
    pub read: bool,
    /// W.
    pub write: bool,
    /// Exe.
    pub execute: bool,
    /// Priv.
    pub privileged: bool,
    /// Global.
    pub global: bool,
    /// U.
    pub untranslated_only: bool,
}

impl Translated {
    /// The answer that two registers of the device's laboratory tell: TRANSLATED and COMPLETION.
    pub fn of(address: u64, completion: u64) -> Self {
        let bit = |n: u32| completion >> n & 1 != 0;
        Translated {
            address,
            size: completion as u8,
            flags: Flags {
                read: bit(8),
                write: bit(9),
                execute: bit(10),
                privileged: bit(11),
                global: bit(12),
                untranslated_only: bit(13),
            },
        }
    }

    /// Whether it permits anything.
    pub fn permits(&self) -> bool {
        self.flags.read || self.flags.write
    }
}

impl World {
    /// Boots a machine, and starts a process on it.
    ///
    /// As Linux does, software gives the function an address space of its own (RID_PASID, which is
    /// PASID 0).
    ///
    /// # Panics
    ///
    /// If the machine cannot do that.
    pub fn new(machine: Shared, mutant: Option<Mutant>) -> World {
        let os = Os::boot(&machine, Mode::Scalable);
        let own = os.process();
        let pasid = pasid_of(0);
        let entry = PasidEntry::ZERO
            .with_p(true)
            .with_did(DomainId(own.domain()))
            .with_pgtt(Pgtt::FirstStage)
            .with_aw(2)
            .with_pwsnp(true)
            .with_fsptptr(own.first_stage().pointer());
        for (n, word) in entry.0.iter().enumerate().rev() {
            store(&machine, os.pasid_place(0, pasid) + 8 * n as u64, *word);
        }
        if let Some(mailbox) = machine.mailbox() {
            own.map_frame(mailbox, 12, mailbox);
        }
        let driver = Driver::probe(&os, 0);
        if let Some(mutant) = mutant {
            driver.set_laboratory(laboratory::MUTANT, mutant.rule().into());
        }
        let app = App::start(&driver, os.process(), 0);
        let begun = driver.laboratory(laboratory::SENT);
        World {
            app,
            own,
            begun,
            noted: None,
        }
    }

    /// The same, which notes the last requests of the device when it is dropped.
    #[must_use]
    pub fn noting(self, place: &Arc<Mutex<Vec<String>>>) -> World {
        let mut world = self;
        world.noted = Some(Arc::clone(place));
        world
    }

    /// The address space of the function itself: that of its requests without PASID.
    pub fn own(&self) -> &Process<Shared> {
        &self.own
    }

    // Verdicts.

    /// A verdict on what was found.
    ///
    /// # Errors
    ///
    /// It is not as expected.
    pub fn equal<T: PartialEq + Debug>(&self, what: &str, found: T, expected: T) -> Verdict {
        if found == expected {
            return Ok(());
        }
        Err(self.failure(what, &format!("{expected:#x?}"), &format!("{found:#x?}")))
    }

    /// A verdict on whether something holds.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn holds(&self, what: &str, holds: bool, expected: &str, found: impl Display) -> Verdict {
        if holds {
            return Ok(());
        }
        Err(self.failure(what, expected, &found.to_string()))
    }

    fn failure(&self, what: &str, expected: &str, found: &str) -> Failure {
        Failure {
            what: what.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
            requests: self.last_requests(),
        }
    }

    /// The last requests of the device as text, oldest first.
    fn last_requests(&self) -> Vec<String> {
        let from = self.begun.max(self.mark().saturating_sub(SHOWN));
        self.sent_since(from).iter().map(Sent::to_string).collect()
    }

    /// A verdict on the end of a descriptor. One that never ends is not as expected.
    ///
    /// # Errors
    ///
    /// It did not end so.
    pub fn ends(&self, what: &str, ticket: Ticket, expected: u8) -> Verdict {
        self.equal(
            what,
            self.wait(ticket).map(|done| done.error),
            Some(expected),
        )
    }

    /// A verdict on a descriptor that must succeed.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn succeeds(&self, what: &str, descriptor: Descriptor) -> Verdict {
        self.ends(what, self.submit(descriptor), 0)
    }

    /// A verdict on a descriptor that must fail.
    ///
    /// # Errors
    ///
    /// It does not, or otherwise.
    pub fn fails(&self, what: &str, descriptor: Descriptor, error: Error) -> Verdict {
        self.ends(what, self.submit(descriptor), error as u8)
    }

    /// Waits for a descriptor of the process, also if that takes time to pass, until the device has
    /// sent `most` requests. Returns whether it is over.
    pub fn wait_with_time(&self, ticket: Ticket, most: u64) -> bool {
        self.wait_with_time_of(&self.app, ticket, most)
    }

    /// The same for another context.
    pub fn wait_with_time_of(&self, app: &App<Shared>, ticket: Ticket, most: u64) -> bool {
        let done = || app.completion(ticket).is_some();
        let exhausted = || self.mark() - self.begun > most;
        let mut seen = (self.mark(), Instant::now());
        // A machine that is driven by a thread of its own hears of the time a little later.
        while seen.1.elapsed() < PATIENCE && !done() && !exhausted() {
            self.os().wait_until(|| done() || exhausted());
            let mark = self.mark();
            if mark != seen.0 {
                seen = (mark, Instant::now());
            }
            self.machine().advance(ROUND);
        }
        app.completion(ticket).is_some()
    }

    /// What has to succeed for the rule to be tried at all.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn prepare(&self, descriptor: Descriptor) {
        let done = self.perform(descriptor);
        assert_eq!(done.error, 0, "{done:?}");
    }

    // What the device has sent.

    /// How many requests the device has sent.
    pub fn mark(&self) -> u64 {
        self.driver().laboratory(laboratory::SENT)
    }

    /// The requests that the device has sent since the rule began.
    pub fn sent(&self) -> Vec<Sent> {
        self.sent_since(self.begun)
    }

    /// The requests that the device has sent since a mark.
    pub fn sent_since(&self, mark: u64) -> Vec<Sent> {
        let get = |number| {
            self.driver()
                .set_laboratory(laboratory::SENT_NUMBER, number);
            Sent {
                what: self.driver().laboratory(laboratory::SENT_WHAT),
                address: self.driver().laboratory(laboratory::SENT_ADDRESS),
                length: self.driver().laboratory(laboratory::SENT_LENGTH),
            }
        };
        let count = self.mark();
        // In D3 all registers read as ones.
        if count == u64::MAX {
            return Vec::new();
        }
        (mark..count).map(get).collect()
    }

    /// Those of a kind.
    pub fn sent_of(&self, kind: u64) -> Vec<Sent> {
        let mut sent = self.sent();
        sent.retain(|sent| sent.kind() == kind);
        sent
    }

    /// The translation requests since the rule began.
    pub fn translation_requests(&self) -> Vec<Sent> {
        self.sent_of(command::TRANSLATE)
    }

    /// The page requests since the rule began.
    pub fn page_requests(&self) -> Vec<Sent> {
        self.sent_of(command::PAGE_REQUEST)
    }

    // The laboratory.

    /// Sends a raw request: the state of the laboratory afterwards, and the reason of a failure.
    pub fn raw(&self, command: u64, address: u64, attributes: u64) -> Result<(), Error> {
        self.begin_raw(command, address, attributes);
        self.end_raw()
    }

    /// Sends a raw request and waits for nothing.
    pub fn begin_raw(&self, command: u64, address: u64, attributes: u64) {
        let lab = |register, value| self.driver().set_laboratory(register, value);
        lab(laboratory::STATE, 0);
        lab(laboratory::ADDRESS, address);
        lab(laboratory::ATTRIBUTES, attributes);
        lab(laboratory::COMMAND, command);
    }

    /// Waits for the end of a raw request.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub fn end_raw(&self) -> Result<(), Error> {
        let state = || self.driver().laboratory(laboratory::STATE);
        let over = self.os().wait_until(|| state() & 0xff > 1);
        assert!(over, "a raw request does not end");
        let state = state();
        match state & 0xff {
            2 => Ok(()),
            _ => Err(Error::from_u8((state >> 8) as u8).unwrap_or(Error::BadOperation)),
        }
    }

    /// Sends a raw translation request.
    pub fn translate(&self, address: u64, attributes: u64) -> Result<Translated, Error> {
        self.raw(command::TRANSLATE, address, attributes)?;
        let driver = self.driver();
        Ok(Translated::of(
            driver.laboratory(laboratory::TRANSLATED),
            driver.laboratory(laboratory::COMPLETION),
        ))
    }

    /// The attributes of the process's requests.
    pub fn space(&self) -> u64 {
        attributes::PASID_PRESENT | u64::from(self.process().pasid().get())
    }

    // Configuration space and registers.

    /// Reads configuration space.
    pub fn config(&self, at: u16) -> u32 {
        self.machine().config_read(0, at)
    }

    /// Writes the bits of a mask in configuration space.
    pub fn configure(&self, at: u16, value: u32, mask: u32) {
        self.machine().config_write(0, at, value, mask);
    }

    /// Enables or disables ATS.
    pub fn ats(&self, on: bool) {
        self.configure(ATS, u32::from(on) << 31, 1 << 31);
    }

    /// The status of page requests.
    pub fn pri_status(&self) -> u32 {
        self.config(PRI) >> 16
    }

    /// State and reason of the process's context.
    pub fn state(&self) -> (u8, u8) {
        state(self.status())
    }

    /// A register of a context.
    pub fn set(&self, context: u16, register: u64, value: u64) {
        self.driver().set_register(context, register, value);
    }

    /// A register of the unit.
    pub fn unit(&self, offset: u16, size: u8) -> u64 {
        self.machine().unit_read(0, offset, size)
    }

    /// Sets a register of the unit.
    pub fn set_unit(&self, offset: u16, value: u64, size: u8) {
        self.machine().unit_write(0, offset, value, size);
    }

    /// Takes the faults that the unit has recorded.
    pub fn faults(&self) -> Vec<FaultRecord> {
        self.os().faults(0)
    }

    // Software.

    /// The `n`-th context after the first, for the same process.
    pub fn further(&self, n: u16) -> App<Shared> {
        App::start(self.driver(), self.process().clone(), n)
    }

    /// Starts a context for a PASID, without a ring that is there.
    pub fn start_bare(&self, context: u16, number: u32) -> (u8, u8) {
        self.set(context, context::PASID, pasid::VALID | u64::from(number));
        self.set(context, context::RING, HERE);
        self.set(context, context::RING_LOG2, 6);
        self.set(context, context::CONTROL, control::START);
        state(self.driver().register(context, context::STATUS))
    }

    /// Reads memory.
    pub fn load(&self, address: u64) -> u64 {
        load(self.machine(), address)
    }

    /// Writes memory.
    pub fn store(&self, address: u64, value: u64) {
        store(self.machine(), address, value);
    }

    /// The entry that maps a page of the process: where it lies.
    pub fn leaf(&self, address: u64) -> u64 {
        let stage = self.process().first_stage();
        match stage.find(self.os().frames(), address) {
            Some(leaf) => leaf.at,
            None => panic!("{address:#x} is not mapped"),
        }
    }

    /// Submits descriptors of the invalidation queue.
    ///
    /// # Panics
    ///
    /// If they do not complete.
    pub fn invalidate(&self, words: &[[u64; 2]]) {
        if let Err(fault) = self.os().invalidate(0, words) {
            panic!("{fault}");
        }
    }

    /// Puts another frame behind a page, tells the unit and not the function, and guards the old
    /// frame.
    pub fn replace(&self, page: u64) -> u64 {
        let fresh = self.os().frames().allocate();
        let old = self.process().replace_only(page, fresh);
        self.invalidate(&[IOTLB_GLOBAL]);
        self.store(old, CANARY);
        old
    }

    /// A verdict on a frame that is guarded.
    ///
    /// # Errors
    ///
    /// It was written to.
    pub fn untouched(&self, frame: u64) -> Verdict {
        self.equal("the old page", self.load(frame), CANARY)
    }

    /// Another context asks for a page anew: the frame where it was stays as it is.
    ///
    /// # Errors
    ///
    /// What the device did instead.
    pub fn is_asked_for_anew(&self, page: u64, old: u64) -> Outcome {
        let other = self.further(1);
        let done = other.wait(other.submit(fill(page, 8, 2)));
        self.equal("a fill", done.map(|done| done.error), Some(0))?;
        self.untouched(old)?;
        seen("the page was asked for anew")
    }

    /// Answers all page requests with a code.
    pub fn refuse(&self, code: ResponseCode) {
        self.os().set_behaviour(Behaviour::Refuse(code));
    }

    /// Submits work for a page that somebody else brings, or not.
    ///
    /// # Panics
    ///
    /// If the device does not ask for it.
    pub fn wait_for_a_page(&self) -> Ticket {
        self.os().set_behaviour(Behaviour::Delay);
        let ticket = self.submit(fill(self.process().map_absent(HERE, 0x1000), 8, 1));
        assert_eq!(self.wait(ticket), None, "the page is not absent");
        assert_eq!(self.os().delayed_page_requests(), 1, "no page request");
        ticket
    }

    /// Sends a response to a group.
    pub fn respond(&self, prgi: u64, number: u32, code: ResponseCode) {
        let prgi = match Prgi::new(prgi as u16) {
            Ok(prgi) => prgi,
            Err(error) => panic!("{error}"),
        };
        let response = PrgResponse {
            prgi,
            pasid: Some(pasid_of(number)),
            code,
        };
        let words = page_group_response(self.machine().requester(0), &response);
        self.invalidate(&[words]);
    }
}

/// What was seen.
pub fn seen(text: impl Display) -> Outcome {
    Ok(Evidence(text.to_string()))
}

/// State and reason of a context.
pub fn state(value: u64) -> (u8, u8) {
    (status::state(value), status::error(value))
}

/// A PASID of a number that is one.
pub fn pasid_of(number: u32) -> Pasid {
    match Pasid::new(number) {
        Ok(pasid) => pasid,
        Err(error) => panic!("{error}"),
    }
}

fn load(machine: &Shared, address: u64) -> u64 {
    value(machine.load(address))
}

fn store(machine: &Shared, address: u64, number: u64) {
    value(machine.store(address, number));
}

/// Software's addresses are memory.
fn value<T>(result: Result<T, MemoryError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
