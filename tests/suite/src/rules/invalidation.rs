// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules 36 to 48: invalidations of the device's cache.

use crate::mutant::Mutant::{Device, Hosted, Unit};
use crate::need::Need;
use crate::rule::{Clause, Judged, Rule};
use crate::trial::Trial;
use crate::world::{CANARY, HERE, NOBODY, Outcome, World, pasid_of, seen};
use machine::Moment;
use machine::os::{
    App, Driver, IOTLB_GLOBAL, QueueFault, device_tlb_pasid, fill, iotlb_pasid_pages, nop,
};
use pcie_ats::AlignedRange;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use svm_endpoint::Mutant;
use vtd::mutant::Mutant as UnitMutant;

/// Longer than any unit waits for a completion.
const LONG: Duration = Duration::from_secs(600);

/// Invalidates a range of the process in the device alone.
fn device_range(world: &World, range: AlignedRange) -> Result<(), QueueFault> {
    let pasid = world.process().pasid();
    let words = device_tlb_pasid(world.machine().requester(0), pasid, range);
    world.os().invalidate(0, &[words])
}

fn of_one_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    let other = world.os().process();
    other.bind(0);
    other.map(HERE, 0x1000);
    let before = world.translation_requests().len();
    if let Err(fault) = other.invalidate(HERE, 0x1000) {
        panic!("{fault}");
    }
    world.succeeds("a fill", fill(page, 8, 2))?;
    let after = world.translation_requests().len();
    world.equal("further translation requests", after - before, 0)?;
    seen("the other PASID's entries stay")
}

fn inside_a_large_page(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_large(0x4000_0000, 21);
    world.prepare(fill(page + 0x5000, 8, 1));
    let new = world.os().frames().allocate_range(21);
    let old = world.process().replace_only(page, new);
    world.invalidate(&[IOTLB_GLOBAL]);
    world.store(old + 0x5000, CANARY);
    let range = AlignedRange::page(page + 0x5000);
    world.equal("the invalidation", device_range(&world, range), Ok(()))?;
    world.succeeds("a fill", fill(page + 0x5000, 8, 2))?;
    world.untouched(old + 0x5000)?;
    seen("an entry of 2 MiB went with 4 KiB of it")
}

fn every_size_of_range(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    for shift in [12, 13, 20, 21, 30, 39, 47, 63] {
        world.prepare(fill(page, 8, 1));
        let old = world.replace(page);
        let Ok(range) = AlignedRange::containing(page, shift) else {
            continue;
        };
        world.equal("the invalidation", device_range(&world, range), Ok(()))?;
        world.succeeds("a fill", fill(page, 8, 2))?;
        world.untouched(old)?;
    }
    seen("from 4 KiB to all")
}

/// What a hook has done.
type Note<T> = Arc<Mutex<Option<T>>>;

fn put<T>(note: &Note<T>, value: T) {
    *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
}

fn is_set<T>(note: &Note<T>) -> bool {
    note.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_some()
}

fn take<T>(note: &Note<T>) -> Option<T> {
    note.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn completed_only_when_unused(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    let old = world.process().frame(page);
    let note: Note<(machine::os::Wait, bool)> = Arc::default();
    let hook = {
        let (note, os, process) = (note.clone(), world.os().clone(), world.process().clone());
        move |moment: &Moment| {
            let touches = |m: &Moment| matches!(m, Moment::Access(a) if a.address & !0xfff == old);
            if !touches(moment) || is_set(&note) {
                return;
            }
            process.replace_only(page, os.frames().allocate());
            let (did, pasid) = (process.domain(), process.pasid());
            let range = AlignedRange::page(page);
            let sid = os.machine().requester(0);
            let words = [
                iotlb_pasid_pages(did, pasid, range),
                device_tlb_pasid(sid, pasid, range),
            ];
            if let Some(wait) = os.queue(0).try_submit(&words) {
                put(&note, (wait, os.queue(0).is_done(wait)));
            }
        }
    };
    world.machine().set_hook(Some(Box::new(hook)));
    let ticket = world.submit(fill(page, 8, 2));
    world.wait(ticket);
    world.machine().set_hook(None);
    let Some((wait, early)) = take(&note) else {
        panic!("the device did not access the page");
    };
    world.equal("complete while an access is on its way", early, false)?;
    let done = world.os().wait_for(0, wait);
    world.equal("complete when it has ended", done, Ok(()))?;
    seen("the completion came behind the write")
}

fn overtaken_answers(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let note: Note<u64> = Arc::default();
    let hook = {
        let (note, process) = (note.clone(), world.process().clone());
        let os = world.os().clone();
        move |moment: &Moment| {
            let answers = matches!(moment, Moment::Answer(request) if request.address == page);
            if !answers || is_set(&note) {
                return;
            }
            let old = match process.replace(page, os.frames().allocate()) {
                Ok(old) => old,
                Err(fault) => panic!("{fault}"),
            };
            let _ = os.machine().store(old, CANARY);
            put(&note, old);
        }
    };
    world.machine().set_hook(Some(Box::new(hook)));
    let ticket = world.submit(fill(page, 8, 2));
    world.wait(ticket);
    world.machine().set_hook(None);
    let Some(old) = take(&note) else {
        panic!("the device did not ask for the page");
    };
    world.untouched(old)?;
    world.equal("the new page", world.process().load(page), 2)?;
    seen("the answer was discarded")
}

/// Submits invalidations of a page that is in use, `count` of them, and tells whether all complete.
fn several_at_once(trial: &Trial<'_>, count: usize) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    let frame = world.process().frame(page);
    let note: Note<machine::os::Wait> = Arc::default();
    let hook = {
        let (note, os, process) = (note.clone(), world.os().clone(), world.process().clone());
        move |moment: &Moment| {
            let uses = matches!(moment, Moment::Access(a) if a.address & !0xfff == frame);
            if !uses || is_set(&note) {
                return;
            }
            let sid = os.machine().requester(0);
            let words = device_tlb_pasid(sid, process.pasid(), AlignedRange::page(page));
            if let Some(wait) = os.queue(0).try_submit(&vec![words; count]) {
                put(&note, wait);
            }
        }
    };
    world.machine().set_hook(Some(Box::new(hook)));
    let ticket = world.submit(fill(page, 8, 2));
    world.wait(ticket);
    world.machine().set_hook(None);
    let Some(wait) = take(&note) else {
        panic!("the device did not access the page");
    };
    world.equal("the invalidations", world.os().wait_for(0, wait), Ok(()))?;
    seen(format!("{count} invalidations are complete"))
}

fn all_that_end_together(trial: &Trial<'_>) -> Outcome {
    several_at_once(trial, 8)
}

fn the_tag_that_was_sent(trial: &Trial<'_>) -> Outcome {
    several_at_once(trial, 1)
}

fn while_a_page_is_outstanding(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let _waiting = world.wait_for_a_page();
    let done = device_range(&world, AlignedRange::ALL);
    world.equal(
        "an invalidation while a page request is outstanding",
        done,
        Ok(()),
    )?;
    let many: Vec<_> = (0..40)
        .map(|n| {
            let range = AlignedRange::page(HERE + n * 0x1000);
            let pasid = world.process().pasid();
            device_tlb_pasid(world.machine().requester(0), pasid, range)
        })
        .collect();
    world.equal("forty of them", world.os().invalidate(0, &many), Ok(()))?;
    seen("completed")
}

fn while_ats_is_off(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.ats(false);
    let done = device_range(&world, AlignedRange::ALL);
    world.equal("an invalidation while ATS is off", done, Ok(()))?;
    seen("completed")
}

fn every_invalidation_is_completed(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    let done = device_range(&world, AlignedRange::page(page));
    world.equal("an invalidation", done, Ok(()))?;
    seen("completed")
}

fn a_lost_invalidation_times_out(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.machine().lose_invalidations(true);
    let done = device_range(&world, AlignedRange::ALL);
    world.equal("before its time is out", done, Err(QueueFault::Stuck))?;
    world.machine().advance(LONG);
    let requester = world.machine().requester(0).0;
    let fault = world.os().queue(0).fault();
    world.equal("afterwards", fault, Some(QueueFault::TimeOut { requester }))?;
    world.machine().lose_invalidations(false);
    world.os().queue(0).clear_faults();
    let done = device_range(&world, AlignedRange::ALL);
    world.equal("the next one", done, Ok(()))?;
    seen("ITE with the requester, and the queue goes on")
}

fn global_takes_all(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    let old = world.replace(page);
    let mut words = device_tlb_pasid(
        world.machine().requester(0),
        pasid_of(NOBODY),
        AlignedRange::ALL,
    );
    // G.
    words[1] |= 1;
    world.invalidate(&[words]);
    world.succeeds("a fill", fill(page, 8, 2))?;
    world.untouched(old)?;
    seen("the entries of all PASIDs are gone")
}

fn a_reset_empties_the_cache(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    let old = world.replace(page);
    world.machine().reset_function();
    let driver = Driver::probe(world.os(), 0);
    let app = App::start(&driver, world.process().clone(), 1);
    let done = app.wait(app.submit(fill(page, 8, 2)));
    world.equal(
        "a fill after the reset",
        done.map(|done| done.error),
        Some(0),
    )?;
    world.untouched(old)?;
    seen("the page was asked for anew")
}

fn canary(trial: &Trial<'_>) -> Outcome {
    canaries(trial, 1)
}

fn many_canaries(trial: &Trial<'_>) -> Outcome {
    canaries(trial, 70)
}

/// Invalidates a page again and again, and looks whether its old frame is written to.
fn canaries(trial: &Trial<'_>, rounds: u64) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    for n in 0..rounds {
        world.prepare(fill(page, 8, 2 * n));
        let old = world.replace(page);
        world.equal(
            "the invalidation",
            device_range(&world, AlignedRange::page(page)),
            Ok(()),
        )?;
        world.succeeds("a fill", fill(page, 8, 2 * n + 1))?;
        world.untouched(old)?;
    }
    world.succeeds("a descriptor", nop())?;
    seen(format!("{rounds} old pages are as they were left"))
}

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        number: 36,
        title: "An invalidation is for its range and its PASID",
        section: "PCIe 10.3.8",
        judged: Judged::By(&[
            Clause::new("PASID", of_one_pasid).catching(&[Hosted(Mutant::Rule36)]),
            Clause::new("sizes", every_size_of_range).catching(&[Unit(UnitMutant::S36)]),
        ]),
    },
    Rule {
        number: 37,
        title: "An entry goes if any part of it is invalidated",
        section: "PCIe 10.3.1",
        judged: Judged::By(&[
            Clause::new("4 KiB of 2 MiB", inside_a_large_page).catching(&[Device(Mutant::Rule37)])
        ]),
    },
    Rule {
        number: 38,
        title: "An invalidation is completed when no access uses its range any more",
        section: "PCIe 10.3.3",
        judged: Judged::By(
            &[Clause::new("access on its way", completed_only_when_unused)
                .needing(&[Need::Moments])
                .catching(&[Device(Mutant::Rule38)])],
        ),
    },
    Rule {
        number: 39,
        title: "An answer that an invalidation overtook is not used",
        section: "PCIe 10.3.3",
        judged: Judged::By(&[Clause::new("overtaken", overtaken_answers)
            .needing(&[Need::Moments])
            .catching(&[Device(Mutant::Rule39)])]),
    },
    Rule {
        number: 40,
        title: "Of several invalidations that end together each is completed",
        section: "PCIe 10.3.4",
        judged: Judged::By(&[Clause::new("eight", all_that_end_together)
            .needing(&[Need::Moments])
            .catching(&[Device(Mutant::Rule40)])]),
    },
    Rule {
        number: 41,
        title: "A completion bears the tag of its request",
        section: "PCIe 10.3.4",
        judged: Judged::By(&[Clause::new("one", the_tag_that_was_sent)
            .needing(&[Need::Moments])
            .catching(&[Device(Mutant::Rule41)])]),
    },
    Rule {
        number: 42,
        title: "Invalidations are completed whatever else is outstanding",
        section: "PCIe 10.3.5",
        judged: Judged::By(&[Clause::new("page request", while_a_page_is_outstanding)
            .catching(&[Hosted(Mutant::Rule42)])]),
    },
    Rule {
        number: 43,
        title: "Invalidations are completed while ATS is off",
        section: "PCIe 10.3.1",
        judged: Judged::By(&[
            Clause::new("ATS off", while_ats_is_off).catching(&[Hosted(Mutant::Rule43)])
        ]),
    },
    Rule {
        number: 44,
        title: "An invalidation that is not completed times out, and the queue goes on",
        section: "VT-d 6.5.2.10, 11.4.9.9",
        judged: Judged::By(&[
            Clause::new("the device's completion", every_invalidation_is_completed)
                .catching(&[Hosted(Mutant::Rule44)]),
            Clause::new("the unit's time", a_lost_invalidation_times_out)
                .needing(&[Need::LostMessages])
                .catching(&[Unit(UnitMutant::G19), Unit(UnitMutant::B13)]),
        ]),
    },
    Rule {
        number: 45,
        title: "A global invalidation is for all PASIDs",
        section: "PCIe 10.3.8",
        judged: Judged::By(&[
            Clause::new("G", global_takes_all).catching(&[Hosted(Mutant::Rule45)])
        ]),
    },
    Rule {
        number: 46,
        title: "A function level reset empties the cache",
        section: "PCIe 10.3.7",
        judged: Judged::By(&[Clause::new("reset", a_reset_empties_the_cache)]),
    },
    Rule {
        number: 47,
        title: "After an invalidation nothing reaches the old page",
        section: "PCIe 10.3.3",
        judged: Judged::By(&[Clause::new("canary", canary).catching(&[Device(Mutant::Rule47)])]),
    },
    Rule {
        number: 48,
        title: "So it is for each of many invalidations",
        section: "PCIe 10.3.3",
        judged: Judged::By(&[
            Clause::new("seventy", many_canaries).catching(&[Device(Mutant::Rule48)])
        ]),
    },
];
