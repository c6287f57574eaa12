// SPDX-License-Identifier: MIT OR Apache-2.0
//! The endpoint and the unit together under the schedules of a model checker: engines work, links
//! deliver, and software invalidates and serves page faults, in any order.

use crate::failure::caught;
use crate::os::{
    App, Driver, Mode, Os, Process, copy, device_tlb_pasid, fill, iotlb_pasid_pages,
    page_group_response,
};
use crate::sync::model::{check, pause, until};
use crate::{Machine, MachineConfig};
use pcie_ats::{AlignedRange, PrgResponse, Prgi, ResponseCode};
use shuttle::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use svm_abi::registers::laboratory;
use svm_endpoint::{Mutant, Step, config_space};
use vtd::Effect;
use vtd::spec::register::offset;

/// How many schedules are tried, and how many a mutant has to be noticed in.
const SCHEDULES: usize = 1000;

const HERE: u64 = 0x10_0000;
const THERE: u64 = 0x20_0000;
const CANARY: u64 = 0xc3c3_c3c3_c3c3_c3c3;

/// A machine with a process on it, and whether its tasks must end.
struct World {
    os: Os,
    process: Process,
    apps: Vec<App>,
    over: AtomicBool,
}

impl World {
    /// A process with a number of contexts. Messages take their time on the link.
    fn new(contexts: u16, mutant: Option<Mutant>) -> Arc<World> {
        let mut config = MachineConfig {
            memory: 4 << 20,
            ..MachineConfig::default()
        };
        config.functions[0].endpoint.laboratory = mutant.is_some();
        let machine = Machine::new(&config).unwrap();
        let os = Os::boot(&machine, Mode::Scalable);
        let driver = Driver::probe(&os, 0);
        let process = os.process();
        let apps = (0..contexts)
            .map(|context| App::start(&driver, process.clone(), context))
            .collect();
        if let Some(mutant) = mutant {
            driver.set_laboratory(laboratory::MUTANT, mutant.rule().into());
        }
        machine.link(0).holds.store(true, Ordering::Relaxed);
        Arc::new(World {
            os,
            process,
            apps,
            over: AtomicBool::new(false),
        })
    }

    fn machine(&self) -> &Machine {
        self.os.machine()
    }

    /// A task that goes on until the world is over.
    fn always(self: &Arc<Self>, task: fn(&World) -> bool) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || {
            while !world.over.load(Ordering::Relaxed) {
                if !task(&world) {
                    pause();
                }
            }
        })
    }

    fn engine(self: &Arc<Self>) -> thread::JoinHandle<()> {
        self.always(|world| world.machine().step_function(0) == Step::Worked)
    }

    fn link(self: &Arc<Self>) -> thread::JoinHandle<()> {
        self.always(|world| world.machine().deliver(0))
    }

    /// A task of software, which the world waits for.
    fn software(
        self: &Arc<Self>,
        task: impl FnOnce(&World) + Send + 'static,
    ) -> thread::JoinHandle<()> {
        let world = self.clone();
        thread::spawn(move || task(&world))
    }

    /// Waits for software, and ends the rest.
    #[track_caller]
    fn join(
        &self,
        software: impl IntoIterator<Item = thread::JoinHandle<()>>,
        others: impl IntoIterator<Item = thread::JoinHandle<()>>,
    ) {
        for task in software {
            task.join().unwrap();
        }
        self.over.store(true, Ordering::Relaxed);
        for task in others {
            task.join().unwrap();
        }
        assert_eq!(self.os.queue(0).fault(), None);
        assert_eq!(self.os.faults(0), []);
    }

    /// Invalidates a page in the IOTLB and in the Device-TLB, and waits for both.
    #[track_caller]
    fn invalidate(&self, page: u64) {
        let (process, range) = (&self.process, AlignedRange::page(page));
        let (did, pasid) = (process.domain(), process.pasid());
        let words = [
            iotlb_pasid_pages(did, pasid, range),
            device_tlb_pasid(self.machine().requester(0), pasid, range),
        ];
        let mut wait = None;
        until(|| {
            wait = wait.or_else(|| self.os.queue(0).try_submit(&words));
            wait.is_some()
        });
        let wait = wait.unwrap();
        until(|| self.os.queue(0).is_done(wait));
    }

    /// Puts a canary where a page was, which belongs to somebody else now.
    fn retire(&self, frame: u64) {
        self.machine().ram().store(frame, CANARY).unwrap();
    }

    #[track_caller]
    fn assert_untouched(&self, frame: u64) {
        assert_eq!(self.machine().ram().load(frame), Ok(CANARY));
    }

    /// Waits for all that each context was given, which must succeed.
    fn perform(self: &Arc<Self>, work: &[svm_abi::descriptor::Descriptor]) -> Vec<Waiter> {
        let waiter = |context: usize| {
            let tickets = self.apps[context].submit_all(work);
            self.software(move |world| {
                for ticket in tickets {
                    let app = &world.apps[context];
                    until(|| app.completion(ticket).is_some());
                    assert_eq!(app.completion(ticket).unwrap().error, 0);
                }
            })
        };
        (0..self.apps.len()).map(waiter).collect()
    }
}

type Waiter = thread::JoinHandle<()>;

/// Two contexts write to a page, and read from it, while the kernel puts another frame behind it,
/// twice.
fn pin_invalidate_complete(mutant: Option<Mutant>) {
    let world = World::new(2, mutant);
    let page = world.process.map(HERE, 0x1000);
    world.process.map(THERE, 0x1000);
    world.process.store(page, 7);
    let old = world.process.frame(page);
    let frames = [0, 1].map(|_| world.os.frames().allocate());
    for frame in frames {
        world.machine().ram().store(frame, 7).unwrap();
    }
    let mut software = world.perform(&[fill(page, 8, 7), copy(page, THERE, 8)]);
    software.push(world.software(move |world| {
        for frame in frames {
            let before = world.process.replace_only(page, frame);
            world.invalidate(page);
            world.retire(before);
        }
    }));
    world.join(software, [world.engine(), world.engine(), world.link()]);
    world.assert_untouched(old);
    world.assert_untouched(frames[0]);
    for address in [page, THERE] {
        assert_eq!(world.process.load(address), 7);
    }
}

/// Two processors invalidate at the same time, several requests each, while two contexts are at
/// work: tags are many, and completions come together.
fn invalidate_from_two_sides(mutant: Option<Mutant>) {
    let world = World::new(2, mutant);
    let page = world.process.map(HERE, 0x2000);
    let mut software = world.perform(&[copy(page, page + 0x1000, 64)]);
    for _ in 0..2 {
        software.push(world.software(move |world| {
            for page in [page, page + 0x1000] {
                world.invalidate(page);
            }
        }));
    }
    world.join(software, [world.engine(), world.engine(), world.link()]);
}

/// A page is requested, brought and taken away again; the thread that brings it invalidates
/// before it answers, and so does the thread that takes it away.
fn request_respond_invalidate(mutant: Option<Mutant>) {
    let world = World::new(2, mutant);
    let pages = world.process.map_absent(HERE, 0x2000);
    let mut software = world.perform(&[fill(pages + 0xffc, 8, !0)]);
    software.push(world.software(move |world| {
        for page in [pages, pages + 0x1000] {
            world.process.evict_only(page);
            world.invalidate(page);
        }
    }));
    let faults = world.always(|world| {
        if world.machine().unit_read(0, offset::PRS, 4) == 0 {
            return false;
        }
        world.invalidate(HERE);
        world.os.handle_page_requests() > 0
    });
    world.join(software, [world.engine(), world.link(), faults]);
    assert_eq!(world.process.read(pages + 0xffc, 8), [0xff; 8]);
    let counters = |unit: &mut vtd::Unit, _: &_, _: &mut _| *unit.counters();
    let counters = world.machine().with_unit(0, counters);
    assert_eq!(counters.unexpected_responses, 0);
    assert!(counters.page_requests > 0);
}

/// A processor submits to the queue while another thread is told, too, that the queue can go on.
/// When a wait is complete, all ahead of it has been carried out: what one round of the queue asked
/// for, before the next round began.
fn one_round_after_the_other() {
    let world = World::new(1, None);
    let response = PrgResponse {
        prgi: Prgi::new(77).unwrap(),
        pasid: Some(world.process.pasid()),
        code: ResponseCode::Success,
    };
    let words = page_group_response(world.machine().requester(0), &response);
    let responds = world.software(move |world| {
        let queue = world.os.queue(0);
        let mut wait = None;
        until(|| {
            wait = wait.or_else(|| queue.try_submit(&[words]));
            wait.is_some()
        });
        until(|| queue.is_done(wait.unwrap()));
        // What has been sent arrives.
        while world.machine().deliver(0) {}
        // UPRGI: the function has received a response, to no request.
        let status = world.machine().config_read(0, config_space::PRI + 4);
        assert_eq!(
            status >> 17 & 1,
            1,
            "the wait is complete, the response is not sent"
        );
    });
    let processes = world.software(|world| {
        for _ in 0..8 {
            world.machine().carry_out(0, vec![Effect::QueueReady]);
        }
    });
    world.join([responds, processes], []);
}

#[test]
fn the_queue_is_processed_by_one_thread_at_a_time() {
    check(SCHEDULES, one_round_after_the_other);
}

#[test]
fn rule_38_to_41_no_invalidation_is_complete_while_an_access_is_on_its_way() {
    check(SCHEDULES, || pin_invalidate_complete(None));
}

#[test]
fn rule_40_to_44_invalidations_from_several_sides_all_complete() {
    check(SCHEDULES, || invalidate_from_two_sides(None));
}

#[test]
fn rule_42_page_requests_and_invalidations_wait_for_each_other_in_no_order() {
    check(SCHEDULES, || request_respond_invalidate(None));
}

/// A test under the checker, of a device that breaks a rule or none.
type Model = fn(Option<Mutant>);

/// A test with its name.
macro_rules! named {
    ($model:ident) => {
        (stringify!($model), $model as Model)
    };
}

/// Found is what breaks the protocol by what the model itself waits for and compares, there or in
/// what judges its work ([`World::perform`]).
#[test]
fn the_models_find_what_breaks_the_protocol() {
    let sources = [("/machine/src/models.rs", include_str!("models.rs"))];
    let models: [((&str, Model), &[Mutant]); 3] = [
        (
            named!(pin_invalidate_complete),
            &[
                Mutant::Rule38,
                Mutant::Rule39,
                Mutant::Rule41,
                Mutant::Rule44,
                Mutant::Rule47,
            ],
        ),
        (
            named!(invalidate_from_two_sides),
            &[Mutant::Rule40, Mutant::Rule41, Mutant::Rule44],
        ),
        (
            named!(request_respond_invalidate),
            &[
                Mutant::Rule42,
                Mutant::Rule44,
                Mutant::Rule49,
                Mutant::Rule50,
            ],
        ),
    ];
    let mut escaped = Vec::new();
    for ((name, model), mutants) in models {
        for &mutant in mutants {
            let test = || check(SCHEDULES, move || model(Some(mutant)));
            if let Err(place) = caught(test, &sources, &[name, "perform"]) {
                escaped.push((name, mutant, place));
            }
        }
    }
    assert!(escaped.is_empty(), "not found by these models: {escaped:?}");
}
