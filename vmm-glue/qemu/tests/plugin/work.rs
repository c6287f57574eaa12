// SPDX-License-Identifier: GPL-2.0-or-later
//! The device at work in the memory of a PASID, with the test as its operating system.

use svm_abi::completion::{Error, access, status};
use svm_abi::descriptor::{Descriptor, Operation, flags};
use svm_abi::{counters, registers};
use svm_endpoint::config_space::PRI;

use crate::machine::{Bars, Context, DEVICE, Machine, copy};

/// The PASID of most tests; its table entry is not the first of its table.
const PASID: u32 = 0x123;
/// Pages of the process.
const SOURCE: u64 = 0x7f00_1020_0000;
const DESTINATION: u64 = 0x7f00_1020_3000;

/// A machine whose operating system has enabled the device and started context 1.
fn ready(properties: &str) -> Option<(Machine, Context)> {
    let mut machine = Machine::with(properties)?;
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    machine.enable_vtd(&[DEVICE]);
    machine.add_pasid(PASID);
    let context = Context::start(&mut machine, bars, 1, PASID);
    Some((machine, context))
}

/// Maps a new page and returns its frame.
fn map_new(machine: &mut Machine, address: u64) -> u64 {
    let frame = machine.page();
    machine.map(PASID, address, frame, true);
    frame
}

fn fill(destination: u64, length: u64, pattern: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Fill as u8,
        flags: flags::BLOCK_ON_FAULT,
        destination,
        length,
        operand0: pattern,
        ..Default::default()
    }
}

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

#[test]
fn fetch_add_is_performed_in_memory() {
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
    machine.qemu.quit();
}

#[test]
fn a_missing_page_is_requested_and_used_when_it_is_there() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let source = map_new(&mut machine, SOURCE);
    machine.qemu.write(source, b"paged in on demand");
    let number = context.submit(&mut machine, copy(SOURCE, DESTINATION, 18));
    let request = machine.wait_page_request();
    assert_eq!((request.sid, request.pasid), (DEVICE.sid(), PASID));
    assert_eq!(
        (request.address, request.write, request.last),
        (DESTINATION, true, true)
    );
    assert_eq!(
        context.completion(&mut machine, number).status,
        status::PENDING
    );
    let destination = map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    let record = context.wait(&mut machine, number);
    assert_eq!(record.status, status::SUCCESS, "{record:?}");
    assert_eq!(machine.qemu.read(destination, 18), b"paged in on demand");
    assert_eq!(
        context.counter(&mut machine, counters::index::PRG_RESPONSES),
        1
    );
    assert_eq!(machine.page_requests_waiting(), 0);
    machine.qemu.quit();
}

#[test]
fn an_invalid_page_fails_its_descriptor_only() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let number = context.submit(&mut machine, fill(DESTINATION + 8, 8, 1));
    let request = machine.wait_page_request();
    machine.respond(&request, 1);
    let record = context.wait(&mut machine, number);
    assert_eq!(record.status, status::FAILURE, "{record:?}");
    assert_eq!(Error::from_u8(record.error), Some(Error::PageFault));
    assert_eq!(
        (record.fault_address, record.access),
        (DESTINATION + 8, access::WRITE)
    );
    let frame = map_new(&mut machine, DESTINATION);
    let record = context.run(&mut machine, fill(DESTINATION + 8, 8, 1));
    assert_eq!(record.status, status::SUCCESS, "{record:?}");
    assert_eq!(machine.qemu.readq(frame + 8), 1);
    machine.qemu.quit();
}

#[test]
fn a_response_failure_stops_page_requests_until_they_are_enabled_anew() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let request = machine.wait_page_request();
    machine.respond(&request, 15);
    let record = context.wait(&mut machine, number);
    assert_eq!(
        Error::from_u8(record.error),
        Some(Error::ResponseFailure),
        "{record:?}"
    );
    // Response Failure.
    assert_ne!(machine.config_read(DEVICE, PRI + 4) & 1 << 16, 0);
    machine.config_write16(DEVICE, PRI + 4, 0);
    assert_ne!(
        machine.config_read(DEVICE, PRI + 4) & 1 << 24,
        0,
        "not stopped"
    );
    machine.config_write16(DEVICE, PRI + 4, 1);
    assert_eq!(machine.config_read(DEVICE, PRI + 4) & 1 << 16, 0);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let request = machine.wait_page_request();
    map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    machine.qemu.quit();
}

#[test]
fn a_full_page_request_queue_delays_and_loses_nothing() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    machine.fill_page_queue(true);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    // Refused requests are answered in the stead of the guest, and sent again.
    let bars = context.bars;
    let responses = registers::context_block(1)
        + registers::CONTEXT_COUNTERS
        + 8 * counters::index::PRG_RESPONSES as u64;
    machine.qemu.until("two automatic responses", |qemu| {
        qemu.readq(bars.registers + responses) >= 2
    });
    assert!(machine.page_queue_overflowed());
    assert_eq!(
        context.completion(&mut machine, number).status,
        status::PENDING
    );
    machine.fill_page_queue(false);
    let request = machine.wait_page_request();
    assert_eq!(request.address, DESTINATION);
    let frame = map_new(&mut machine, DESTINATION);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(frame), 1);
    machine.qemu.quit();
}

#[test]
fn page_requests_that_the_context_entry_denies_are_invalid() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    // The ring's pages first, which page requests are not needed for.
    map_new(&mut machine, SOURCE);
    assert_eq!(
        context.run(&mut machine, fill(SOURCE, 8, 1)).status,
        status::SUCCESS
    );
    machine.deny_page_requests(DEVICE);
    let record = context.run(&mut machine, fill(DESTINATION, 8, 1));
    assert_eq!(record.status, status::FAILURE, "{record:?}");
    assert_eq!(Error::from_u8(record.error), Some(Error::PageFault));
    assert_eq!(machine.page_requests_waiting(), 0);
    machine.qemu.quit();
}

#[test]
fn an_invalidated_frame_is_not_used_again() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let old = map_new(&mut machine, DESTINATION);
    assert_eq!(
        context.run(&mut machine, fill(DESTINATION, 8, 0x11)).status,
        status::SUCCESS
    );
    let new = map_new(&mut machine, DESTINATION);
    // The device still has the old translation: nobody has told it otherwise.
    assert_eq!(
        context.run(&mut machine, fill(DESTINATION, 8, 0x22)).status,
        status::SUCCESS
    );
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x22, 0)
    );
    machine.invalidate(DEVICE, PASID, DESTINATION);
    assert_eq!(
        context.run(&mut machine, fill(DESTINATION, 8, 0x33)).status,
        status::SUCCESS
    );
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x22, 0x33)
    );
    let device = |machine: &mut Machine, index: usize| {
        let at = context.bars.registers + registers::DEVICE_COUNTERS + 8 * index as u64;
        machine.qemu.readq(at)
    };
    assert_eq!(device(&mut machine, counters::index::INVALIDATIONS), 1);
    assert_eq!(
        device(&mut machine, counters::index::INVALIDATED_ENTRIES),
        1
    );
    machine.qemu.quit();
}

#[test]
fn an_invalidation_of_everything_reaches_the_device() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let old = map_new(&mut machine, DESTINATION);
    assert_eq!(
        context.run(&mut machine, fill(DESTINATION, 8, 0x11)).status,
        status::SUCCESS
    );
    let new = map_new(&mut machine, DESTINATION);
    // One page of the IOTLB; the size bit and no zero below bit 63 for the device: all of it.
    machine.invalidate(DEVICE, PASID, DESTINATION);
    machine.invalidate_device(DEVICE, PASID, 0x7fff_ffff_ffff_f000 | 1 << 11);
    assert_eq!(
        context.run(&mut machine, fill(DESTINATION, 8, 0x33)).status,
        status::SUCCESS
    );
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x11, 0x33)
    );
    machine.qemu.quit();
}

/// Rule: when an invalidation is answered, no access with the old translation is still on its
/// way. Frames change under a busy device; a frame that was given up is zeroed, and stays zero.
#[test]
fn no_write_lands_in_a_frame_after_its_invalidation() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let mut given_up = Vec::new();
    let mut frame = map_new(&mut machine, DESTINATION);
    let mut last = None;
    for round in 1..=40 {
        // Enough for the device to be busy while the page moves.
        for _ in 0..8 {
            last = Some(context.submit(&mut machine, fill(DESTINATION, 0x1000, round)));
        }
        let new = map_new(&mut machine, DESTINATION);
        machine.invalidate(DEVICE, PASID, DESTINATION);
        machine.qemu.write(frame, &[0; 0x1000]);
        given_up.push(frame);
        frame = new;
        let last = last.unwrap();
        assert_eq!(context.wait(&mut machine, last).status, status::SUCCESS);
    }
    for frame in given_up {
        assert_eq!(
            machine.qemu.read(frame, 0x1000),
            [0; 0x1000],
            "a write came late"
        );
    }
    machine.qemu.quit();
}

#[test]
fn a_page_that_is_read_only_is_requested_for_writing() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = machine.page();
    machine.map(PASID, DESTINATION, frame, false);
    let number = context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let request = machine.wait_page_request();
    assert!(request.write, "{request:?}");
    machine.respond(&request, 1);
    let record = context.wait(&mut machine, number);
    assert_eq!(
        Error::from_u8(record.error),
        Some(Error::PageFault),
        "{record:?}"
    );
    assert_eq!(machine.qemu.readq(frame), 0);
    machine.qemu.quit();
}

#[test]
fn without_bus_mastering_nothing_happens() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let frame = map_new(&mut machine, DESTINATION);
    machine.config_write16(DEVICE, 4, 0x2);
    context.submit(&mut machine, fill(DESTINATION, 8, 1));
    let status = registers::context_block(1) + registers::context::STATUS;
    let bars = context.bars;
    machine.qemu.until("the context to halt", |qemu| {
        let status = qemu.readq(bars.registers + status);
        registers::status::state(status) == registers::status::HALTED
    });
    let status = context.status(&mut machine);
    assert_eq!(
        registers::status::error(status),
        registers::halt::FUNCTION_DISABLED
    );
    assert_eq!(machine.qemu.readq(frame), 0);
    machine.qemu.quit();
}

/// Makes a device that has been reset ready again.
fn revive(machine: &mut Machine) -> (Bars, Context) {
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    let context = Context::start(machine, bars, 1, PASID);
    (bars, context)
}

#[test]
fn a_function_level_reset_drops_an_outstanding_page_request() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    context.submit(&mut machine, fill(DESTINATION, 8, 0x11));
    let request = machine.wait_page_request();
    machine.reset_function(DEVICE);
    let frame = map_new(&mut machine, DESTINATION);
    // Too late: nobody waits for it.
    machine.respond(&request, 0);
    assert_eq!(machine.qemu.readq(frame), 0);
    let (_, mut context) = revive(&mut machine);
    let record = context.run(&mut machine, fill(DESTINATION, 8, 0x22));
    assert_eq!(record.status, status::SUCCESS, "{record:?}");
    assert_eq!(machine.qemu.readq(frame), 0x22);
    machine.qemu.quit();
}

#[test]
fn a_reset_forgets_translations() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let old = map_new(&mut machine, DESTINATION);
    assert_eq!(
        context.run(&mut machine, fill(DESTINATION, 8, 0x11)).status,
        status::SUCCESS
    );
    machine.reset_function(DEVICE);
    let new = map_new(&mut machine, DESTINATION);
    machine.invalidate(DEVICE, PASID, DESTINATION);
    let (_, mut context) = revive(&mut machine);
    assert_eq!(
        context.run(&mut machine, fill(DESTINATION, 8, 0x22)).status,
        status::SUCCESS
    );
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x11, 0x22)
    );
    machine.qemu.quit();
}

#[test]
fn an_invalidation_reaches_a_pasid_that_no_context_uses_any_more() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    map_new(&mut machine, DESTINATION);
    assert_eq!(
        context.run(&mut machine, fill(DESTINATION, 8, 1)).status,
        status::SUCCESS
    );
    context.write(
        &mut machine,
        registers::context::CONTROL,
        registers::control::STOP,
    );
    let status = context.status(&mut machine);
    assert_eq!(
        registers::status::state(status),
        registers::status::DISABLED
    );
    machine.invalidate(DEVICE, PASID, DESTINATION);
    let counter = context.bars.registers
        + registers::DEVICE_COUNTERS
        + 8 * counters::index::INVALIDATIONS as u64;
    assert_eq!(machine.qemu.readq(counter), 1);
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
fn a_completion_sends_the_interrupt_of_its_context() {
    // While translation is off, a message can be aimed at memory and seen there.
    let Some(mut machine) = Machine::with("") else {
        return;
    };
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    let mut context = Context::start_untranslated(&mut machine, bars, 2);
    let mailbox = machine.page();
    let msix = machine.capability(DEVICE, 0x11);
    machine.config_write16(DEVICE, msix + 2, 1 << 15);
    let entry = bars.msix + 16 * 5;
    machine.qemu.writeq(entry, mailbox);
    machine.qemu.writel(entry + 8, 0x4321);
    machine.qemu.writel(entry + 12, 0);
    context.write(
        &mut machine,
        registers::context::VECTOR,
        registers::vector::ENABLE | 5,
    );
    let nop = Descriptor {
        flags: flags::INTERRUPT,
        ..Default::default()
    };
    assert_eq!(context.run(&mut machine, nop).status, status::SUCCESS);
    machine
        .qemu
        .until("the message", |qemu| qemu.readl(mailbox) == 0x4321);
    assert_eq!(
        context.counter(&mut machine, counters::index::INTERRUPTS),
        1
    );
    machine.qemu.quit();
}

/// The vIOMMU would end QEMU if the device asked it for what it was not made for.
#[test]
fn a_vt_d_without_device_iotlb_only_disables_ats() {
    use crate::client::{Installation, Qemu};
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
