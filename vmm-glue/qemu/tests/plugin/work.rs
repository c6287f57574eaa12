// SPDX-License-Identifier: GPL-2.0-or-later
//! The device at work in the memory of a PASID, with the test as its operating system.

use std::time::Duration;

use serde_json::json;
use svm_abi::completion::{Error, access, status};
use svm_abi::descriptor::{Descriptor, Operation, flags};
use svm_abi::{counters, registers};

use crate::client::{Installation, Qemu, has_clock, setting, skip};
use crate::context::{Context, DESTINATION, PASID, SOURCE, copy, fill, map_new, ready};
use crate::machine::{DEVICE, Machine};
use crate::msix::{MESSAGE, Msix, VECTOR};

#[test]
fn a_copy_reads_and_writes_the_memory_of_its_pasid() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let source = map_new(&mut machine, SOURCE);
    let destination = map_new(&mut machine, DESTINATION);
    let data: Vec<u8> = (0..0x400u32).map(|n| (n * 7) as u8).collect();
    machine.qemu.write(source + 0x10, &data);
    let record = context.run(&mut machine, copy(SOURCE + 0x10, DESTINATION + 0x21, 0x400));
    assert_eq!(
        (record.status, record.bytes_done),
        (status::SUCCESS, 0x400),
        "{record:?}"
    );
    assert_eq!(machine.qemu.read(destination + 0x21, 0x400), data);
    assert_eq!(machine.qemu.read(destination, 0x21), [0; 0x21]);
    assert!(context.counter(&mut machine, counters::index::TRANSLATION_REQUESTS) > 0);
    assert_eq!(
        context.counter(&mut machine, counters::index::PAGE_REQUESTS),
        0
    );
    machine.qemu.quit();
}

/// The machine's number of a byte in a pattern whose pages differ.
fn pattern(n: u64) -> u8 {
    (n * 7 + (n >> 12) * 13) as u8
}

#[test]
fn long_copies_move_every_byte_between_pages_that_lie_anywhere() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    const PAGES: u64 = 5;
    const LENGTH: u64 = PAGES << 12;
    let frames = |machine: &mut Machine, at: u64| -> Vec<u64> {
        // Neighbours in the process are none in memory.
        let pages = (0..PAGES).rev();
        let mut frames: Vec<_> = pages.map(|n| map_new(machine, at + (n << 12))).collect();
        frames.reverse();
        frames
    };
    let (from, to) = (SOURCE + 0x10_0000, SOURCE + 0x20_0000);
    let sources = frames(&mut machine, from);
    let destinations = frames(&mut machine, to);
    for (n, frame) in (0..).zip(&sources) {
        let data: Vec<u8> = (0..0x1000).map(|at| pattern((n << 12) + at)).collect();
        machine.qemu.write(*frame, &data);
    }
    // Neither aligned alike, nor to anything.
    let (skipped, moved) = (0x123, LENGTH - 0x1000);
    let record = context.run(&mut machine, copy(from + skipped, to + 0x7, moved));
    assert_eq!(
        (record.status, record.bytes_done),
        (status::SUCCESS, moved),
        "{record:?}"
    );
    let read = |machine: &mut Machine, frames: &[u64]| -> Vec<u8> {
        let pages = frames.iter().map(|frame| machine.qemu.read(*frame, 0x1000));
        pages.collect::<Vec<_>>().concat()
    };
    let found = read(&mut machine, &destinations);
    let expected: Vec<u8> = (0..moved).map(|n| pattern(skipped + n)).collect();
    assert_eq!(found[..7], [0; 7]);
    assert!(
        found[7..][..moved as usize] == expected,
        "bytes are missing"
    );
    assert!(found[7 + moved as usize..].iter().all(|byte| *byte == 0));
    // Ranges that overlap, in either direction, within a page and beyond it.
    for (shift, length) in [(0x40, 0x800), (0x40, 0x2000), (0x1040, 0x2000)] {
        for (from, to) in [(0x100, 0x100 + shift), (0x100 + shift, 0x100)] {
            let before = read(&mut machine, &sources);
            context.succeed(
                &mut machine,
                copy(SOURCE + 0x10_0000 + from, SOURCE + 0x10_0000 + to, length),
            );
            let mut expected = before;
            expected.copy_within(from as usize..(from + length) as usize, to as usize);
            assert!(
                read(&mut machine, &sources) == expected,
                "{length:#x} bytes from {from:#x} to {to:#x}"
            );
        }
    }
    machine.qemu.quit();
}

#[test]
fn a_long_copy_from_or_to_no_memory_fails_there() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    // Below the firmware: nothing answers there.
    const NOTHING: u64 = 0xf800_0000;
    let memory = map_new(&mut machine, SOURCE);
    machine.qemu.write(memory, &[7; 0x1000]);
    machine.map(PASID, DESTINATION, NOTHING, true);
    for (source, destination, failed) in [
        (SOURCE, DESTINATION, access::WRITE),
        (DESTINATION, SOURCE, 0),
    ] {
        let record = context.run(&mut machine, copy(source, destination, 0x1000));
        assert_eq!(
            (record.error, record.access, record.fault_address),
            (Error::MemoryAccess as u8, failed, DESTINATION),
            "{record:?}"
        );
        assert_eq!(machine.qemu.read(memory, 0x1000), [7; 0x1000]);
    }
    machine.qemu.quit();
}

#[test]
fn atomic_operations_are_performed_in_memory() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = map_new(&mut machine, DESTINATION);
    machine.qemu.writeq(frame + 8, 40);
    let add = Descriptor {
        operation: Operation::FetchAdd as u8,
        flags: flags::BLOCK_ON_FAULT,
        destination: DESTINATION + 8,
        operand0: 2,
        ..Default::default()
    };
    let record = context.run(&mut machine, add);
    assert_eq!(
        (record.status, record.result),
        (status::SUCCESS, 40),
        "{record:?}"
    );
    assert_eq!(machine.qemu.readq(frame + 8), 42);
    let swap = |expected, new| Descriptor {
        operation: Operation::CompareSwap as u8,
        operand0: expected,
        operand1: new,
        ..add
    };
    for (expected, new, before, after) in [(41, 7, 42, 42), (42, 7, 42, 7)] {
        let record = context.run(&mut machine, swap(expected, new));
        assert_eq!(
            (record.status, record.result),
            (status::SUCCESS, before),
            "{record:?}"
        );
        assert_eq!(machine.qemu.readq(frame + 8), after);
    }
    machine.qemu.quit();
}

#[test]
fn an_interrupt_that_is_held_back_is_sent_after_its_time() {
    if !has_clock() {
        return;
    }
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let told = registers::CONTEXT_COUNTERS + 8 * counters::index::INTERRUPTS as u64;
    context.write(
        &mut machine,
        registers::context::VECTOR,
        registers::vector::ENABLE,
    );
    // The last of the three would wait for ever.
    let setting = registers::moderation::encode(2, 0);
    context.write(&mut machine, registers::context::MODERATION, setting);
    let nop = Descriptor {
        flags: flags::INTERRUPT,
        ..Default::default()
    };
    for _ in 0..3 {
        context.succeed(&mut machine, nop);
    }
    assert_eq!(context.read(&mut machine, told), 1);
    // A write has it sent; from now on the time does.
    let setting = registers::moderation::encode(100, 2000);
    context.write(&mut machine, registers::context::MODERATION, setting);
    let at = context.bars.registers + registers::context_block(context.number) + told;
    machine
        .qemu
        .until("the interrupt of a write", |qemu| qemu.readq(at) == 2);
    for _ in 0..3 {
        context.succeed(&mut machine, nop);
    }
    assert_eq!(context.read(&mut machine, told), 2);
    // The wait is timed from when the device was first idle, which nothing tells.
    machine.qemu.until("the interrupt", |qemu| {
        qemu.clock_step(Duration::from_millis(2));
        qemu.readq(at) == 3
    });
    machine.qemu.quit();
}

/// No other thread takes part, and no time passes in which the processor waits.
#[test]
fn a_small_operation_is_done_when_the_write_to_the_doorbell_is() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = map_new(&mut machine, DESTINATION);
    context.succeed(&mut machine, fill(DESTINATION, 8, 1));
    for value in 2..200 {
        let number = context.submit(&mut machine, fill(DESTINATION, 8, value));
        let record = context.completion(&mut machine, number);
        assert_eq!(record.status, status::SUCCESS, "{value}: {record:?}");
        assert_eq!(machine.qemu.readq(frame), value);
    }
    machine.qemu.quit();
}

/// A device that reaches its own registers by memory writes must not wait for itself.
#[test]
fn the_device_may_ring_its_own_doorbell() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = map_new(&mut machine, DESTINATION);
    let doorbell = context.doorbell();
    machine.map(PASID, SOURCE, doorbell & !0xfff, true);
    let first = context.place(&mut machine, fill(SOURCE + (doorbell & 0xfff), 8, 2));
    let second = context.place(&mut machine, fill(DESTINATION, 8, 0x77));
    machine.qemu.writeq(doorbell, 1);
    assert_eq!(context.wait(&mut machine, first).status, status::SUCCESS);
    assert_eq!(context.wait(&mut machine, second).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(frame), 0x77);
    machine.qemu.quit();
}

#[test]
fn a_stopped_machine_keeps_its_memory() {
    if setting("SVM_QTEST_ACCEL").is_some() {
        return skip("with SVM_QTEST_ACCEL no machine ever runs");
    }
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = map_new(&mut machine, DESTINATION);
    // How many reads long it takes a machine that runs.
    context.submit(&mut machine, fill(DESTINATION, 8, 0x22));
    let mut taken = 1;
    while machine.qemu.readq(frame) != 0x22 {
        taken += 1;
        assert!(taken < 10_000_000, "the device does not work");
    }
    machine.qemu.writeq(frame, 0);
    machine.qemu.qmp("stop", json!({})).unwrap();
    machine.qemu.wait_event("STOP");
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 0x11));
    // Far longer than the device took otherwise.
    for _ in 0..(20 * taken).max(2000) {
        assert_eq!(machine.qemu.readq(frame), 0);
    }
    assert_eq!(
        context.completion(&mut machine, number).status,
        status::PENDING
    );
    machine.qemu.qmp("cont", json!({})).unwrap();
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(frame), 0x11);
    machine.qemu.quit();
}

#[test]
fn a_completion_sends_the_interrupt_of_its_context() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    // The message is a request without PASID.
    let msix = Msix::enable(&mut machine, DEVICE, &context);
    let nop = Descriptor {
        flags: flags::INTERRUPT,
        ..Default::default()
    };
    context.succeed(&mut machine, nop);
    machine
        .qemu
        .until("the message", |qemu| qemu.readl(msix.mailbox) == MESSAGE);
    assert_eq!(
        context.counter(&mut machine, counters::index::INTERRUPTS),
        1
    );
    machine.qemu.quit();
}

#[test]
fn rule_72_a_masked_interrupt_is_pending_until_it_is_unmasked() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let msix = Msix::enable(&mut machine, DEVICE, &context);
    msix.mask(&mut machine, true);
    let nop = Descriptor {
        flags: flags::INTERRUPT,
        ..Default::default()
    };
    for _ in 0..2 {
        assert_eq!(context.run(&mut machine, nop).status, status::SUCCESS);
    }
    machine.qemu.until("the pending bit", |qemu| {
        qemu.readq(msix.pending) == 1 << VECTOR
    });
    assert_eq!(machine.qemu.readl(msix.mailbox), 0);
    msix.mask(&mut machine, false);
    machine
        .qemu
        .until("the message", |qemu| qemu.readl(msix.mailbox) == MESSAGE);
    assert_eq!(machine.qemu.readq(msix.pending), 0);
    machine.qemu.quit();
}

/// The vIOMMU would end QEMU if the device asked it for what it was not made for.
#[test]
fn a_vt_d_without_device_iotlb_only_disables_ats() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let iommu = "intel-iommu,scalable-mode=on,fsts=on,pasid-bits=20,intremap=off";
    let arguments = ["-device", iommu, "-device", "svm-demo,addr=4.0"];
    let mut machine = Machine::from(Qemu::start(&installation, &arguments));
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    let mut context = Context::start_untranslated(&mut machine, bars, 1);
    context.submit(&mut machine, Descriptor::default());
    let status = bars.registers + registers::context_block(1) + registers::context::STATUS;
    machine.qemu.until("the context to halt", |qemu| {
        registers::status::state(qemu.readq(status)) == registers::status::HALTED
    });
    let status = context.status(&mut machine);
    assert_eq!(
        registers::status::error(status),
        registers::halt::RING_FAULT
    );
    let said = machine.qemu.quit();
    assert!(said.contains("device-iotlb=on"), "{said}");
}
