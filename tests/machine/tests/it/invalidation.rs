// SPDX-License-Identifier: MIT OR Apache-2.0
//! The invalidation contract, end to end: when software sees an invalidation complete, nothing
//! reaches the old page any more (rules 37 to 48).

use machine::os::{
    App, CONTEXT_GLOBAL, Driver, IOTLB_GLOBAL, Mode, Os, QueueFault, copy, device_tlb_pasid, fill,
    iotlb_domain, iotlb_domain_pages, iotlb_pasid, iotlb_pasid_pages,
};
use machine::{Engines, Machine, MachineConfig, Moment};
use pcie_ats::AlignedRange;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vtd::memory::Memory;
use vtd::spec::register::offset;

const CANARY: u8 = 0xa5;

/// Whether a request is about to access a frame.
fn touches(moment: &Moment, frame: u64) -> bool {
    matches!(moment, Moment::Access(request) if request.address & !0xfff == frame)
}

fn put_canary(app: &App, frame: u64) {
    app.machine().ram().fill(frame, 4096, CANARY).unwrap();
}

fn canary_lives(app: &App, frame: u64) -> bool {
    let mut bytes = [0; 4096];
    app.machine().ram().read(frame, &mut bytes).unwrap();
    bytes.iter().all(|byte| *byte == CANARY)
}

#[test]
fn without_an_invalidation_the_device_goes_on_with_the_old_page() {
    let app = App::quick();
    let page = app.process().map(0x10_0000, 0x1000);
    assert_eq!(app.perform(fill(page, 0x1000, 1)).error, 0);
    let new = app.os().frames().allocate();
    let old = app.process().replace_only(page, new);
    put_canary(&app, old);
    assert_eq!(app.perform(fill(page, 0x1000, 2)).error, 0);
    assert!(!canary_lives(&app, old), "the translation was not cached");
    app.process().invalidate(page, 0x1000).unwrap();
    put_canary(&app, old);
    assert_eq!(app.perform(fill(page, 0x1000, 3)).error, 0);
    assert!(canary_lives(&app, old));
    assert_eq!(app.process().load(page), 3);
}

#[test]
fn rule_38_an_invalidation_waits_for_the_access_that_uses_the_page() {
    let app = Arc::new(App::quick());
    let page = app.process().map(0x10_0000, 0x1000);
    assert_eq!(app.perform(fill(page, 0x1000, 1)).error, 0);
    let old = app.process().frame(page);
    let ticket = Arc::new(Mutex::new(None));
    let hook = {
        let (app, ticket) = (Arc::clone(&app), Arc::clone(&ticket));
        move |machine: &Machine, moment: &Moment| {
            if !touches(moment, old) || ticket.lock().unwrap().is_some() {
                return;
            }
            // The write is past all checks, and memory is not changed yet.
            let new = app.os().frames().allocate();
            app.process().replace_only(page, new);
            let (sid, range) = (machine.requester(0), AlignedRange::page(page));
            let (did, pasid) = (app.process().domain(), app.process().pasid());
            let queue = app.os().queue(0);
            let wait = queue.try_submit(&[
                iotlb_pasid_pages(did, pasid, range),
                device_tlb_pasid(sid, pasid, range),
            ]);
            let wait = wait.expect("the queue is empty");
            assert!(!queue.is_done(wait), "completed before the write was");
            *ticket.lock().unwrap() = Some(wait);
        }
    };
    app.machine().set_hook(0, Some(Box::new(hook)));
    assert_eq!(app.perform(fill(page, 0x1000, 2)).error, 0);
    app.machine().set_hook(0, None);
    let wait = ticket.lock().unwrap().expect("the hook was called");
    assert!(app.os().queue(0).is_done(wait));
    assert_eq!(
        app.machine().ram().load(old),
        Ok(2),
        "the write went where it was to go"
    );
    put_canary(&app, old);
    assert_eq!(app.perform(fill(page, 0x1000, 3)).error, 0);
    assert!(canary_lives(&app, old));
}

#[test]
fn rule_39_an_answer_that_an_invalidation_overtook_is_not_used() {
    let app = Arc::new(App::quick());
    let page = app.process().map(0x10_0000, 0x1000);
    let old = Arc::new(Mutex::new(None));
    let hook = {
        let (app, old) = (Arc::clone(&app), Arc::clone(&old));
        move |_: &Machine, moment: &Moment| {
            let mut old = old.lock().unwrap();
            match moment {
                Moment::Answer(request) if request.address == page && old.is_none() => {
                    let new = app.os().frames().allocate();
                    // Nothing is pinned, so that this completes at once.
                    let frame = app.process().replace(page, new).unwrap();
                    put_canary(&app, frame);
                    *old = Some(frame);
                }
                _ => {}
            }
        }
    };
    app.machine().set_hook(0, Some(Box::new(hook)));
    assert_eq!(app.perform(fill(page, 0x1000, 2)).error, 0);
    app.machine().set_hook(0, None);
    let old = old.lock().unwrap().expect("the page was asked for");
    assert!(canary_lives(&app, old));
    assert_eq!(app.process().load(page), 2);
}

#[test]
fn rule_40_many_invalidations_are_outstanding_and_complete() {
    let app = Arc::new(App::quick());
    let page = app.process().map(0x10_0000, 0x1000);
    assert_eq!(app.perform(fill(page, 0x1000, 1)).error, 0);
    let frame = app.process().frame(page);
    let waits = Arc::new(Mutex::new(Vec::new()));
    let most = Arc::new(AtomicUsize::new(0));
    let hook = {
        let (app, waits, most) = (Arc::clone(&app), Arc::clone(&waits), Arc::clone(&most));
        move |machine: &Machine, moment: &Moment| {
            let mut waits = waits.lock().unwrap();
            if !touches(moment, frame) || !waits.is_empty() {
                return;
            }
            let (sid, pasid) = (machine.requester(0), app.process().pasid());
            for _ in 0..100 {
                let words = device_tlb_pasid(sid, pasid, AlignedRange::page(page));
                waits.push(
                    app.os()
                        .queue(0)
                        .try_submit(&[words])
                        .expect("there is room"),
                );
            }
            let pending = machine.with_unit(0, |unit, _, _| unit.pending_invalidations());
            most.store(pending, Ordering::SeqCst);
        }
    };
    app.machine().set_hook(0, Some(Box::new(hook)));
    assert_eq!(app.perform(fill(page, 0x1000, 2)).error, 0);
    app.machine().set_hook(0, None);
    assert_eq!(most.load(Ordering::SeqCst), 32);
    for wait in waits.lock().unwrap().iter() {
        assert!(app.os().queue(0).is_done(*wait));
    }
}

#[test]
fn rule_47_the_canary_in_the_old_page_survives_with_dma_in_flight() {
    const ROUNDS: usize = 4000;
    for engines in [1, 2, 3] {
        let machine = Machine::new(&MachineConfig::default()).unwrap();
        let os = Os::boot(&machine, Mode::Scalable);
        let driver = Driver::probe(&os, 0);
        let process = os.process();
        let apps = [0, 1, 2].map(|context| App::start(&driver, process.clone(), context));
        let base = process.map(0x10_0000, 0x8000);
        // Between its look-up and its access, an engine often loses the processor to others.
        let mut requests = 0u32;
        let hook = move |_: &Machine, _: &Moment| {
            requests += 1;
            if requests % 8 == 0 {
                for _ in 0..requests / 8 % 16 {
                    std::thread::yield_now();
                }
            }
        };
        machine.set_hook(0, Some(Box::new(hook)));
        let _engines = Engines::start(&machine, engines);
        let work = [
            fill(base, 0x8000, 1),
            copy(base, base + 0x100, 0x7f00),
            fill(base + 0x800, 0x7000, 2),
        ];
        let mut last = apps.each_ref().map(|app| app.submit_all(&work)[2]);
        let mut retired = Vec::new();
        let mut submitted = 0;
        let mut round = 0;
        while round < ROUNDS || submitted == 0 {
            round += 1;
            assert!(round < ROUNDS * 1000, "no work is ever done");
            for (app, last) in apps.iter().zip(&mut last) {
                if let Some(done) = app.completion(*last) {
                    assert_eq!(done.error, 0, "{done:?}");
                    *last = app.submit_all(&work)[2];
                    submitted += 1;
                }
            }
            let page = base + (round as u64 * 5 % 8) * 0x1000;
            let old = process.replace(page, os.frames().allocate()).unwrap();
            put_canary(&apps[0], old);
            retired.push(old);
            if retired.len() == 64 {
                for frame in retired.drain(..) {
                    assert!(
                        canary_lives(&apps[0], frame),
                        "engines {engines}, round {round}"
                    );
                    os.frames().free(frame);
                }
            }
        }
        for frame in retired {
            assert!(
                canary_lives(&apps[0], frame),
                "engines {engines}, at the end"
            );
        }
        for (app, last) in apps.iter().zip(last) {
            assert_eq!(app.wait(last).map(|done| done.error), Some(0));
        }
    }
}

#[test]
fn pages_that_migrate_under_dma_lose_nothing() {
    const ROUNDS: u64 = 5000;
    let app = App::quick();
    let _engines = Engines::start(app.machine(), 2);
    let from = app.process().map(0x10_0000, 0x8000);
    let to = app.process().map(0x20_0000, 0x8000);
    for round in 0..ROUNDS {
        let value = round.wrapping_mul(0x0101_0101_0101_0101);
        let tickets = app.submit_all(&[fill(from, 0x8000, value), copy(from, to, 0x8000)]);
        for page in [from + round % 8 * 0x1000, to + round % 7 * 0x1000] {
            let old = app.process().migrate(page).unwrap();
            app.os().frames().free(old);
        }
        for ticket in tickets {
            assert_eq!(app.wait(ticket).map(|done| done.error), Some(0));
        }
        let data = app.process().read(to, 0x8000);
        let whole = data.chunks(8).all(|word| word == value.to_le_bytes());
        assert!(whole, "round {round}");
    }
}

#[test]
fn an_invalidation_that_is_lost_times_out_and_the_queue_recovers() {
    let app = App::quick();
    let page = app.process().map(0x10_0000, 0x1000);
    assert_eq!(app.perform(fill(page, 8, 1)).error, 0);
    for completions in [false, true] {
        let link = app.machine().link(0);
        let lost = if completions {
            &link.loses_completions
        } else {
            &link.loses_invalidations
        };
        lost.store(true, Ordering::Relaxed);
        assert_eq!(app.process().evict(page), Err(QueueFault::Stuck));
        app.machine().advance(Duration::from_millis(999));
        assert_eq!(app.os().queue(0).fault(), None);
        app.machine().advance(Duration::from_millis(1));
        let requester = app.machine().requester(0).0;
        let fault = Some(QueueFault::TimeOut { requester });
        assert_eq!(app.os().queue(0).fault(), fault);
        lost.store(false, Ordering::Relaxed);
        app.os().queue(0).clear_faults();
        app.process().invalidate(page, 0x1000).unwrap();
        assert_eq!(app.perform(fill(page, 8, 2)).error, 0);
    }
    let events = app.machine().interrupts().take();
    let fault_event = Os::event_message(0, 0);
    assert_eq!(
        events.iter().filter(|e| e.message == fault_event).count(),
        2
    );
}

#[test]
fn a_wrong_descriptor_stops_the_queue_until_software_mends_it() {
    let app = App::quick();
    let wrong = [IOTLB_GLOBAL[0] | 1 << 60, 0];
    let Err(QueueFault::Descriptor { reason: 4, .. }) = app.os().invalidate(0, &[wrong]) else {
        panic!("not refused for its reserved bits");
    };
    // Its place holds a good one now.
    let machine = app.machine();
    let head = machine.unit_read(0, vtd::spec::register::offset::IQH, 8);
    let base = machine.unit_read(0, vtd::spec::register::offset::IQA, 8) & !0xfff;
    machine.ram().store(base + head, IOTLB_GLOBAL[0]).unwrap();
    app.os().queue(0).clear_faults();
    assert_eq!(app.os().invalidate(0, &[CONTEXT_GLOBAL]), Ok(()));
}

#[test]
fn each_scope_of_an_iotlb_invalidation_reaches_a_changed_page() {
    let app = App::quick();
    let page = app.process().map(0x10_0000, 0x1000);
    let (did, pasid) = (app.process().domain(), app.process().pasid());
    let range = AlignedRange::page(page);
    let goes = || {
        let request = vtd::Request {
            requester: app.machine().requester(0),
            pasid: Some(pasid),
            address: page,
            access: vtd::Access::Read,
            execute: false,
            privileged: false,
        };
        let ask = |unit: &mut vtd::Unit, ram: &machine::Ram, fx: &mut vtd::Effects| {
            unit.translate(ram, &request, fx)
        };
        app.machine().with_unit(0, ask).map(|t| t.address)
    };
    for words in [
        IOTLB_GLOBAL,
        iotlb_domain(did),
        iotlb_domain_pages(did, range),
        iotlb_pasid(did, pasid),
        iotlb_pasid_pages(did, pasid, range),
    ] {
        let old = goes();
        let new = app.os().frames().allocate();
        app.process().replace_only(page, new);
        assert_eq!(goes(), old, "the translation was not cached");
        app.os().invalidate(0, &[words]).unwrap();
        assert_eq!(goes(), Ok(new), "{words:x?}");
    }
}

#[test]
fn several_threads_of_software_share_a_queue() {
    const ROUNDS: usize = 2000;
    let app = App::quick();
    let base = app.process().map(0x10_0000, 0x4_0000);
    let _engines = Engines::start(app.machine(), 2);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let process = app.process();
            scope.spawn(move || {
                for round in 0..ROUNDS as u64 {
                    let page = base + (thread * 16 + round % 16) * 0x1000;
                    process.evict(page).unwrap();
                }
            });
        }
        let stop = &stop;
        let worker = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) || count == 0 {
                assert_eq!(app.perform(fill(base, 0x4_0000, count)).error, 0);
                count += 1;
            }
            count
        });
        for _ in 0..ROUNDS {
            app.os().invalidate(0, &[IOTLB_GLOBAL]).unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        assert!(worker.join().unwrap() > 0);
    });
}

#[test]
fn a_context_entry_without_device_tlb_stops_translated_requests_once_it_is_invalidated() {
    let app = App::quick();
    let page = app.process().map(0x10_0000, 0x1000);
    let os = app.os();
    assert_eq!(app.perform(fill(page, 8, 1)).error, 0);
    let (machine, ram) = (app.machine(), app.machine().ram());
    let requester = machine.requester(app.driver().function());
    let root = machine.unit_read(0, offset::RTADDR, 8) & !0xfff;
    let place = (ram.load(root).unwrap() & !0xfff) + u64::from(requester.devfn()) * 32;
    let good = ram.load(place).unwrap();
    // Without DTE. The cached entry is good until it is invalidated.
    ram.store(place, good & !(1 << 2)).unwrap();
    assert_eq!(app.perform(fill(page, 8, 2)).error, 0);
    assert!(os.faults(0).is_empty());
    os.invalidate(0, &[CONTEXT_GLOBAL]).unwrap();
    let ticket = app.submit(fill(page, 8, 3));
    os.settle();
    // Neither the descriptor nor a record goes through.
    assert_eq!(app.completion(ticket), None);
    assert_eq!(app.process().load(page), 2);
    let faults = os.faults(0);
    assert!(!faults.is_empty());
    assert!(faults.iter().all(|fault| fault.sid == requester));
}
