// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the tests of the rules have in common: a process that uses a device, which may break a
//! rule, and all that the device is seen to do.

use machine::os::{App, Behaviour, IOTLB_GLOBAL, Ticket, fill, page_group_response};
use machine::{Machine, MachineConfig, Moment};
use pcie_ats::{PageRequest, PrgResponse, Prgi, ResponseCode, TranslationRequest};
use std::cell::Cell;
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use svm_abi::completion::Error;
use svm_abi::descriptor::Descriptor;
use svm_abi::registers::{context, context_block, control, laboratory, pasid, status};
use svm_endpoint::{Mutant, config_space};

pub const COMMAND: u16 = 4;
pub const ATS: u16 = config_space::ATS + 4;
pub const PASID: u16 = config_space::PASID + 4;
pub const PRI: u16 = config_space::PRI + 4;

pub const HERE: u64 = 0x10_0000;
pub const CANARY: u64 = 0xc3c3_c3c3_c3c3_c3c3;

thread_local! {
    /// The rule that the devices of this thread break.
    pub static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// A process that uses the device, and all that the device was seen to do.
pub struct Bench {
    app: App,
    pub moments: Arc<Mutex<Vec<Moment>>>,
}

impl Deref for Bench {
    type Target = App;

    fn deref(&self) -> &App {
        &self.app
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.machine().set_hook(0, None);
    }
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut svm_endpoint::Config)) -> Bench {
        let mut config = MachineConfig::default();
        let endpoint = &mut config.functions[0].endpoint;
        endpoint.laboratory = true;
        change(endpoint);
        let app = App::on(&config, Default::default());
        if let Some(mutant) = MUTANT.get() {
            app.driver()
                .set_laboratory(laboratory::MUTANT, mutant.rule().into());
        }
        let moments: Arc<Mutex<Vec<Moment>>> = Arc::default();
        let seen = moments.clone();
        let hook = move |_: &Machine, moment: &Moment| seen.lock().unwrap().push(*moment);
        app.machine().set_hook(0, Some(Box::new(hook)));
        Bench { app, moments }
    }

    pub fn seen<T>(&self, which: impl Fn(&Moment) -> Option<T>) -> Vec<T> {
        self.moments
            .lock()
            .unwrap()
            .iter()
            .filter_map(which)
            .collect()
    }

    pub fn page_requests(&self) -> Vec<PageRequest> {
        self.seen(|moment| match moment {
            Moment::PageRequest(request) => Some(*request),
            _ => None,
        })
    }

    pub fn translation_requests(&self) -> Vec<TranslationRequest> {
        self.seen(|moment| match moment {
            Moment::Answer(request) => Some(*request),
            _ => None,
        })
    }

    pub fn config(&self, at: u16) -> u32 {
        self.machine().config_read(0, at)
    }

    pub fn configure(&self, at: u16, value: u32, mask: u32) {
        self.machine().config_write(0, at, value, mask);
    }

    pub fn ats(&self, on: bool) {
        self.configure(ATS, u32::from(on) << 31, 1 << 31);
    }

    pub fn pri_status(&self) -> u32 {
        self.config(PRI) >> 16
    }

    pub fn state(&self) -> (u8, u8) {
        state(self.status())
    }

    /// Another context of the process.
    pub fn another(&self) -> App {
        self.further(1)
    }

    /// The `n`-th after the bench's context, for the same process.
    pub fn further(&self, n: u16) -> App {
        App::start(self.driver(), self.process().clone(), self.context() + n)
    }

    pub fn set(&self, context: u16, register: u64, value: u64) {
        let at = context_block(context) + register;
        self.machine().bar_write(0, 0, at, value, 8);
    }

    pub fn get(&self, context: u16, register: u64) -> u64 {
        self.machine()
            .bar_read(0, 0, context_block(context) + register, 8)
    }

    /// Starts a context for a PASID, without a ring that is there.
    pub fn start_bare(&self, context: u16, number: u32) -> (u8, u8) {
        self.set(context, context::PASID, pasid::VALID | u64::from(number));
        self.set(context, context::RING, HERE);
        self.set(context, context::RING_LOG2, 6);
        self.set(context, context::CONTROL, control::START);
        state(self.get(context, context::STATUS))
    }

    /// Puts another frame behind a page and tells the unit, but not the function.
    pub fn replace(&self, page: u64) -> u64 {
        let fresh = self.os().frames().allocate();
        let old = self.process().replace_only(page, fresh);
        self.os().invalidate(0, &[IOTLB_GLOBAL]).unwrap();
        self.machine().ram().store(old, CANARY).unwrap();
        old
    }

    #[track_caller]
    pub fn untouched(&self, frame: u64) {
        assert_eq!(self.machine().ram().load(frame), Ok(CANARY));
    }

    #[track_caller]
    pub fn succeeds(&self, descriptor: Descriptor) {
        assert_eq!(self.perform(descriptor).error, 0);
    }

    #[track_caller]
    pub fn fails(&self, descriptor: Descriptor, error: Error) {
        assert_eq!(self.perform(descriptor).error, error as u8);
    }

    pub fn refuse(&self, code: ResponseCode) {
        self.os().set_behaviour(Behaviour::Refuse(code));
    }

    /// Submits work for a page that somebody else brings, or not.
    pub fn wait_for_a_page(&self) -> Ticket {
        self.os().set_behaviour(Behaviour::Delay);
        let ticket = self.submit(fill(self.process().map_absent(HERE, 0x1000), 8, 1));
        assert_eq!(self.wait(ticket), None);
        assert_eq!(self.os().delayed_page_requests(), 1);
        ticket
    }

    /// Sends a response to a group.
    pub fn respond(&self, prgi: Prgi, number: u32) {
        let response = PrgResponse {
            prgi,
            pasid: Some(pcie_ats::Pasid::new(number).unwrap()),
            code: ResponseCode::Success,
        };
        let words = page_group_response(self.machine().requester(0), &response);
        self.os().invalidate(0, &[words]).unwrap();
    }
}

pub fn state(value: u64) -> (u8, u8) {
    (status::state(value), status::error(value))
}
