// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each operation of the endpoint, through the unit, in a process's memory.

use machine::os::{
    App, FRAME, Layout, chase, compare, copy, crc32c, fetch_add, fill, nop, unblocked,
};
use machine::{Engines, Machine, MachineConfig, Moment, Sender};
use pcie_ats::Function;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use svm_abi::completion::Error;
use svm_abi::counters::index;
use svm_abi::descriptor::{Descriptor, Operation, flags, operand, translation};
use svm_abi::ids;
use svm_abi::registers::{context, context_block, moderation};

/// Bytes that are nowhere the same.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    (0..length as u64)
        .map(|n| ((n ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

#[test]
fn a_copy_moves_bytes_of_any_alignment() {
    let app = App::quick();
    let (from, to) = (0x10_0000, 0x40_0000);
    app.process().map(from, 0x2_0000);
    app.process().map(to, 0x2_0000);
    for (source, destination, length) in [(0, 0, 0x1_0000), (0xfff, 3, 0x1_2345), (5, 0xffb, 1)] {
        let data = pattern(length, source);
        app.process().write(from + source, &data);
        let done = app.perform(copy(from + source, to + destination, length as u64));
        assert_eq!((done.error, done.bytes_done), (0, length as u64));
        assert_eq!(app.process().read(to + destination, length), data);
    }
    assert_eq!(app.os().faults(0), []);
}

#[test]
fn a_copy_of_overlapping_ranges_is_a_move() {
    let app = App::quick();
    let base = app.process().map(0x10_0000, 0x2_0000);
    let data = pattern(0x1_0000, 1);
    app.process().write(base, &data);
    assert_eq!(app.perform(copy(base, base + 0x123, 0x1_0000)).error, 0);
    assert_eq!(app.process().read(base + 0x123, 0x1_0000), data);
}

#[test]
fn checksum_comparison_fill_and_addition_are_right() {
    let app = App::quick();
    let base = app.process().map(0x10_0000, 0x8000);
    let data = pattern(0x3000, 2);
    app.process().write(base + 7, &data);
    let done = app.perform(crc32c(base + 7, 0x3000));
    assert_eq!(done.result, u64::from(crc32c::crc32c(&data)));

    assert_eq!(
        app.perform(fill(base, 0x4000, 0x1122_3344_5566_7788)).error,
        0
    );
    assert_eq!(app.process().load(base + 0x3ff8), 0x1122_3344_5566_7788);
    assert_eq!(
        app.perform(fill(base + 0x4000, 0x4000, 0x1122_3344_5566_7788))
            .error,
        0
    );
    assert_eq!(
        app.perform(compare(base, base + 0x4000, 0x4000)).result,
        0x4000
    );
    app.process().write(base + 0x4000 + 0x2345, &[0]);
    assert_eq!(
        app.perform(compare(base, base + 0x4000, 0x4000)).result,
        0x2345
    );

    app.process().store(base + 8, 40);
    let done = app.perform(fetch_add(base + 8, 2));
    assert_eq!((done.result, app.process().load(base + 8)), (40, 42));
}

#[test]
fn a_chase_follows_pointers_that_mean_the_same_to_process_and_device() {
    let app = App::quick();
    let base = app.process().map(0x7fff_0000_0000, 0x10_0000);
    let mut expected = 0;
    for n in 0..200 {
        let at = base + n * 7919 % 200 * 0x1000;
        let next = base + (n + 1) * 7919 % 200 * 0x1000;
        app.process()
            .store(at + 16, if n == 199 { 0 } else { next });
        app.process().store(at + 24, n * n);
        expected += n * n;
    }
    let done = app.perform(chase(base, 1000, 16, 24));
    assert_eq!(
        (done.error, done.result, done.bytes_done),
        (0, expected, 200)
    );
}

#[test]
fn pages_that_are_not_present_are_requested_and_brought() {
    let app = App::quick();
    let base = app.process().map_absent(0x10_0000, 0x2_0000);
    assert_eq!(app.perform(fill(base, 0x2_0000, 7)).error, 0);
    assert_eq!(app.process().load(base + 0x1_fff8), 7);
    // 32 pages in groups of at most 16.
    assert_eq!(app.counter(index::PAGE_REQUESTS), 32);
    assert_eq!(app.counter(index::PRG_RESPONSES), 2);
    assert_eq!(app.os().faults(0), []);
}

#[test]
fn without_blocking_a_page_that_is_not_present_ends_the_descriptor() {
    let app = App::quick();
    let base = app.process().map(0x10_0000, 0x2000);
    app.process().evict(base + 0x1000).unwrap();
    let done = app.perform(unblocked(fill(base, 0x2000, 7)));
    assert_eq!(done.error, Error::NotPresent as u8);
    assert_eq!(
        (done.bytes_done, done.fault_address),
        (0x1000, base + 0x1000)
    );
    assert!(!app.process().is_present(base + 0x1000));
}

#[test]
fn what_is_not_mapped_or_read_only_is_a_fault_of_the_descriptor() {
    let app = App::quick();
    let base = app.process().map_read_only(0x10_0000, 0x1000);
    for descriptor in [
        fill(0x50_0000, 8, 1),
        fill(base, 8, 1),
        copy(0x50_0000, base, 8),
    ] {
        assert_eq!(app.perform(descriptor).error, Error::PageFault as u8);
    }
    assert_eq!(app.perform(crc32c(base, 0x1000)).error, 0);
    // Recoverable faults are not recorded (section 7.5 of the VT-d specification).
    assert_eq!(app.os().faults(0), []);
}

#[test]
fn accessed_and_dirty_flags_are_set_where_the_device_was() {
    use machine::os::{A, D};
    let app = App::quick();
    let base = app.process().map(0x10_0000, 0x4000);
    let flags = |address| {
        let stage = *app.process().first_stage();
        let leaf = stage.find(app.os().frames(), address).unwrap();
        leaf.entry & (A | D)
    };
    assert_eq!(app.perform(crc32c(base, 8)).error, 0);
    assert_eq!(app.perform(fill(base + 0x1000, 8, 1)).error, 0);
    assert_eq!(flags(base), A);
    assert_eq!(flags(base + 0x1000), A | D);
    assert_eq!(flags(base + 0x3000), 0);
}

#[test]
fn a_batch_is_read_and_performed_in_pages_that_are_not_there_yet() {
    for engines in [0, 2] {
        let app = App::quick();
        let _engines = Engines::start(app.machine(), engines);
        let (array, records) = (0x50_0000, 0x60_0000);
        let data = app.process().map_absent(0x10_0000, 0x4_0000);
        app.process().map_absent(array, 0x4000);
        app.process().map_absent(records, 0x2000);
        let entries: Vec<_> = (0..64)
            .flat_map(|n| {
                let page = data + n * 0x1000;
                [fill(page, 0x800, n), copy(page, page + 0x800, 0x800)]
            })
            .collect();
        for (n, entry) in (0u64..).zip(&entries) {
            let entry = Descriptor {
                completion: records + 32 * n,
                ..*entry
            };
            app.process().write(array + 64 * n, &entry.to_bytes());
        }
        let done = app.perform(Descriptor {
            operation: Operation::Batch as u8,
            flags: flags::BLOCK_ON_FAULT,
            source: array,
            length: entries.len() as u64,
            ..Descriptor::default()
        });
        assert_eq!((done.error, done.result), (0, 128), "{done:?}");
        for n in 0..64 {
            let page = app.process().read(data + n * 0x1000, 0x1000);
            let expected: Vec<u8> = n.to_le_bytes().repeat(0x200);
            assert_eq!(page, expected, "page {n}");
        }
        // Where the array ends in nothing, what came before is done.
        let done = app.perform(Descriptor {
            operation: Operation::Batch as u8,
            flags: flags::BLOCK_ON_FAULT,
            source: array + 0x3f80,
            length: 4,
            ..Descriptor::default()
        });
        assert_eq!(done.error, Error::PageFault as u8);
        assert_eq!((done.fault_address, done.bytes_done), (array + 0x4000, 2));
        assert_eq!(app.os().faults(0), []);
    }
}

#[test]
fn interrupts_are_remapped_and_delivered() {
    let app = App::quick();
    let ticket = app.submit(Descriptor {
        flags: flags::INTERRUPT,
        ..nop()
    });
    assert_eq!(app.wait(ticket).unwrap().error, 0);
    app.os().settle();
    let delivered = app.machine().interrupts().take();
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0].message, app.message());
    let function = app.machine().requester(0);
    assert_eq!(delivered[0].sender, Sender::Function(function));
}

#[test]
fn rule_07_and_19_execution_is_asked_for_where_it_is_enabled_and_the_unit_judges() {
    let config = |execute| {
        let endpoint = svm_endpoint::Config {
            execute,
            ..svm_endpoint::Config::default()
        };
        MachineConfig::with_functions(0).function(0, endpoint)
    };
    for execute in [false, true] {
        let app = App::on(&config(execute), Layout::default());
        let base = app.process().map(0x10_0000, 0x1000);
        let done = app.perform(Descriptor {
            operation: Operation::Translate as u8,
            source: base,
            operand0: operand::EXECUTE,
            ..nop()
        });
        if execute {
            assert_eq!(done.error, 0);
            // The unit has no execute requests, which are retired: it permits nothing.
            let permitted = translation::READ | translation::EXECUTE;
            assert_eq!(done.result & permitted, 0, "{:#x}", done.result);
        } else {
            assert_eq!(done.error, Error::UnsupportedAccess as u8);
        }
    }
}

#[test]
fn an_interrupt_that_is_held_back_is_sent_when_time_has_passed() {
    for engines in [0, 2] {
        let app = App::quick();
        let _engines = Engines::start(app.machine(), engines);
        let register = context_block(app.context()) + context::MODERATION;
        let setting = moderation::encode(100, 50);
        app.machine()
            .bar_write(0, ids::REGISTERS_BAR, register, setting, 8);
        let telling = Descriptor {
            flags: flags::INTERRUPT,
            ..nop()
        };
        for _ in 0..99 {
            assert_eq!(app.perform(telling).error, 0);
        }
        app.os().settle();
        assert_eq!(app.machine().interrupts().take().len(), 0);
        // Whatever an engine does late, the wait began before the time passes twice.
        app.machine().advance(Duration::from_micros(50));
        app.machine().advance(Duration::from_micros(50));
        assert!(app.os().wait_until(|| app.counter(index::INTERRUPTS) == 1));
        app.os().settle();
        assert_eq!(app.machine().interrupts().take().len(), 1);
    }
}

#[test]
fn engines_do_the_same_as_steps() {
    for engines in [1, 2, 4] {
        let app = App::quick();
        let _engines = Engines::start(app.machine(), engines);
        let from = app.process().map_absent(0x10_0000, 0x1_0000);
        let to = app.process().map_absent(0x20_0000, 0x1_0000);
        let data = pattern(0x1_0000, 3);
        app.process().write(from, &data);
        for _ in 0..50 {
            assert_eq!(app.perform(fill(to, 0x1_0000, 0)).error, 0);
            assert_eq!(app.perform(copy(from, to, 0x1_0000)).error, 0);
            assert_eq!(app.process().read(to, 0x1_0000), data);
        }
    }
}

/// Pages of a process from an address on, whose frames lie about: each is below the one before.
fn scattered(app: &App, base: u64, count: u64) -> Vec<u64> {
    let mut frames: Vec<u64> = (0..count).map(|_| app.os().frames().allocate()).collect();
    frames.sort_unstable_by_key(|frame| std::cmp::Reverse(*frame));
    for (page, frame) in (0..).zip(&frames) {
        app.process().map_frame(base + page * FRAME, 12, *frame);
    }
    frames
}

#[test]
fn rule_68_a_copy_of_pages_that_lie_about_ends_with_the_page_at_which_bus_mastering_ends() {
    const PAGES: u64 = 4;
    let app = App::quick();
    let (from, to) = (0x10_0000, 0x40_0000);
    let sources = scattered(&app, from, PAGES);
    let destinations = scattered(&app, to, PAGES);
    // So that all translations are known, and it is one piece of work.
    assert_eq!(app.perform(copy(from, to, PAGES * FRAME)).error, 0);
    let data = pattern((PAGES * FRAME) as usize, 3);
    app.process().write(from, &data);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hook = {
        let (seen, pages) = (
            Arc::clone(&seen),
            [sources.clone(), destinations.clone()].concat(),
        );
        move |machine: &Machine, moment: &Moment| {
            let Moment::Access(request) = moment else {
                return;
            };
            if request.address % FRAME == 0 && pages.contains(&request.address) {
                let mut seen = seen.lock().unwrap();
                seen.push(request.address);
                if seen.len() == 4 {
                    // The write of the second page is on its way.
                    machine.endpoint(0).config_write(4, 0, 4);
                }
            }
        }
    };
    app.machine().set_hook(0, Some(Box::new(hook)));
    let _ = app.submit(copy(from, to, PAGES * FRAME));
    app.machine().run_until_idle(1000).unwrap();
    app.machine().set_hook(0, None);
    let order = [sources[0], destinations[0], sources[1], destinations[1]];
    assert_eq!(*seen.lock().unwrap(), order);
    let copied = app.process().read(to, data.len());
    assert_eq!(copied[..2 * FRAME as usize], data[..2 * FRAME as usize]);
    assert!(copied[2 * FRAME as usize..].iter().all(|byte| *byte == 0));
}
