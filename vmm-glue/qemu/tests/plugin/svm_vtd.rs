// SPDX-License-Identifier: GPL-2.0-or-later
//! `-device svm-vtd`: the unit's registers, and what QEMU's own unit cannot do: time-outs and a
//! queue that recovers, a queue that is processed by a thread, faults with their reasons.

use std::time::Duration;

use serde_json::json;
use svm_abi::completion::status;
use svm_abi::descriptor::{Descriptor, flags};
use svm_abi::registers;

use crate::client::{Installation, Qemu, has_clock, remapped_interrupts};
use crate::context::{Context, copy};
use crate::machine::{Address, DEVICE, Machine};
use crate::unit::{CAP, ECAP, FSTS, GCMD, GSTS, IQA, IQERCD, IQH, IQT, IRTA, RTADDR, VTD};

/// Bits of FSTS.
const IQE: u32 = 1 << 4;
const ITE: u32 = 1 << 6;

/// Bits of ECAP that the tests look at, with their names.
const ABILITIES: [(&str, u32); 13] = [
    ("dt", 2),
    ("ir", 3),
    ("sc", 7),
    ("nest", 26),
    ("prs", 29),
    ("srs", 31),
    ("pasid", 40),
    ("pds", 42),
    ("smts", 43),
    ("ssads", 45),
    ("ssts", 46),
    ("fsts", 47),
    ("smpwcs", 48),
];

const PASID: u32 = 0x123;
const SOURCE: u64 = 0x7f00_1020_0000;
const DESTINATION: u64 = 0x7f00_1020_3000;

/// A machine with the unit, with these properties, and one device at [`DEVICE`].
fn with(properties: &str) -> Option<Machine> {
    let installation = Installation::find()?;
    let unit = format!("svm-vtd,id=unit{properties}");
    let mut arguments = vec!["-device", &unit, "-device", "svm-demo,addr=4.0"];
    arguments.extend(remapped_interrupts());
    Some(Machine::from(Qemu::start(&installation, &arguments)))
}

/// The same, with context 1 of the device started on a PASID.
fn ready(properties: &str) -> Option<(Machine, Context)> {
    let mut machine = with(properties)?;
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    machine.enable_vtd(&[DEVICE]);
    machine.add_pasid(PASID);
    let context = Context::start(&mut machine, bars, 1, PASID);
    Some((machine, context))
}

/// Puts a descriptor into the invalidation queue, behind what is there, and rings its tail.
fn push(machine: &mut Machine, low: u64, high: u64) {
    let qemu = &mut machine.qemu;
    let (base, tail) = (qemu.readq(IQA) & !0xfff, qemu.readq(IQT));
    for (i, word) in [low, high, 0, 0].into_iter().enumerate() {
        qemu.writeq(base + tail + 8 * i as u64, word);
    }
    qemu.writeq(IQT, (tail + 32) % 0x1000);
}

/// A wait descriptor that writes a number to memory.
fn push_wait(machine: &mut Machine, at: u64, number: u32) {
    push(machine, 0x5 | 1 << 5 | u64::from(number) << 32, at);
}

/// An invalidation of a page of the PASID in the device.
fn push_device_invalidation(machine: &mut Machine) {
    push(
        machine,
        0x8 | DEVICE.sid() << 16 | u64::from(PASID) << 32,
        DESTINATION,
    );
}

/// Maps a new page of the PASID and returns its frame.
fn map_new(machine: &mut Machine, address: u64) -> u64 {
    let frame = machine.page();
    machine.map(PASID, address, frame, true);
    frame
}

/// Copies 16 bytes with the device and sees that they arrive.
fn works(machine: &mut Machine, context: &mut Context) {
    let source = map_new(machine, SOURCE);
    let destination = map_new(machine, DESTINATION);
    machine.invalidate(DEVICE, PASID, SOURCE);
    machine.invalidate(DEVICE, PASID, DESTINATION);
    machine.qemu.write(source, b"through svm-vtd!");
    let record = context.run(machine, copy(SOURCE, DESTINATION, 16));
    assert_eq!(record.status, status::SUCCESS, "{record:?}");
    assert_eq!(machine.qemu.read(destination, 16), b"through svm-vtd!");
}

/// The abilities that ECAP reports.
fn abilities(machine: &mut Machine) -> Vec<&'static str> {
    let ecap = machine.qemu.readq(ECAP);
    let has = |bit: &u32| ecap >> bit & 1 != 0;
    let names = ABILITIES.iter().filter(|(_, bit)| has(bit));
    names.map(|(name, _)| *name).collect()
}

#[test]
fn the_unit_reports_what_its_properties_leave_it() {
    let all: Vec<&str> = ABILITIES.iter().map(|(name, _)| *name).collect();
    for (properties, lacking) in [
        (",intremap=on", &[][..]),
        (",intremap=off", &["ir"][..]),
        (",intremap=on,nest=off", &["nest"]),
        (",intremap=on,ssts=off", &["nest", "ssads", "ssts"]),
        (",intremap=on,fsts=off", &["nest", "prs", "pds", "fsts"]),
        (",intremap=on,svm=off", &["prs", "pds"]),
        (",intremap=on,device-iotlb=off", &["dt", "prs", "pds"]),
        (",intremap=on,snoop-control=off", &["sc"]),
        (",intremap=on,pasid-bits=0", &["prs", "pasid", "pds"]),
    ] {
        let Some(mut machine) = with(properties) else {
            return;
        };
        let mut expected = all.clone();
        expected.retain(|name| !lacking.contains(name));
        assert_eq!(abilities(&mut machine), expected, "{properties}");
        machine.qemu.quit();
    }
}

#[test]
fn the_version_can_be_chosen() {
    for (properties, version) in [("", 0x40), (",version=49", 0x31)] {
        let Some(mut machine) = with(properties) else {
            return;
        };
        assert_eq!(machine.qemu.readl(VTD), version, "{properties}");
        machine.qemu.quit();
    }
}

#[test]
fn one_unit_that_stays_and_does_not_move() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for other in ["svm-vtd", "intel-iommu"] {
        let arguments = ["-M", "q35", "-display", "none", "-device", "svm-vtd"];
        let said = installation.says(&[&arguments[..], &["-device", other]].concat());
        assert!(said.contains("multiple vIOMMUs"), "{other}: {said}");
    }
    let mut qemu = Qemu::start(&installation, &["-device", "svm-vtd,id=unit"]);
    let mut refused = |command: &str, arguments| qemu.qmp(command, arguments).unwrap_err();
    let removed = refused("device_del", json!({ "id": "unit" }));
    assert!(
        removed.contains("does not support hotplugging"),
        "{removed}"
    );
    let moved = refused("migrate", json!({ "uri": "exec:cat >/dev/null" }));
    assert!(moved.contains("non-migratable device 'svm-vtd'"), "{moved}");
    let late = json!({ "path": "unit", "property": "nest", "value": false });
    let changed = refused("qom-set", late);
    assert!(changed.contains("cannot be changed"), "{changed}");
    qemu.quit();
}

#[test]
fn legacy_mode_alone_has_nothing_of_scalable_mode() {
    let Some(mut machine) = with(",scalable-mode=off,intremap=on,caching-mode=on") else {
        return;
    };
    assert_eq!(abilities(&mut machine), ["dt", "ir", "sc"]);
    // CM.
    assert_ne!(machine.qemu.readq(CAP) & 1 << 7, 0);
    machine.qemu.quit();
}

#[test]
fn page_walk_coherency_is_the_units_own() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let arguments = ["-device", "svm-vtd", "-device", "svm-demo,smpwcs=off"];
    let mut qemu = Qemu::start(&installation, &arguments);
    let ecap = qemu.readq(ECAP);
    assert_ne!(ecap & 1 << 48, 0, "{ecap:#x}");
    // The register is one, not two regions with a seam.
    assert_eq!(u64::from(qemu.readl(ECAP + 4)), ecap >> 32);
    qemu.quit();
}

#[test]
fn contradictions_are_refused_with_a_reason() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for (properties, reason) in [
        ("fsts=off,ssts=off", "switch fsts or ssts on"),
        (
            "scalable-mode=off,dma-translation=off",
            "leave out dma-translation=off",
        ),
        ("invalidation-timeout=0", "must be 1 to 60000, not 0"),
        (
            "invalidation-delay=2000000",
            "must be 0 to 1000000, not 2000000",
        ),
        ("aw-bits=40", "aw-bits must be 39 or 48, not 40"),
        ("dma-translation=off", "leave out dma-translation=off"),
        ("invalidation-delay=5", "add invalidation-thread=on"),
        ("stale-tm=on", "leave out stale-tm=on"),
        ("version=128", "give a value from 1 to 7"),
        ("version=256", "at most 0xff, not 0x100"),
    ] {
        let device = format!("svm-vtd,{properties}");
        let said = installation.says(&["-M", "q35", "-display", "none", "-device", &device]);
        assert!(said.contains(reason), "{properties}: {said}");
    }
}

#[test]
fn what_has_no_effect_is_named_with_the_reason() {
    let Some(installation) = Installation::find() else {
        return;
    };
    for (properties, expected) in [
        ("", None),
        ("version=0", None),
        ("fsts=off,svm=off", None),
        ("nest=on,ssts=off", None),
        (
            "scalable-mode=off,svm=on",
            Some("scalable-mode=off: fsts, svm, pasid-bits"),
        ),
        ("svm=on,fsts=off", Some("fsts=off: svm")),
        ("device-iotlb=off,svm=on", Some("device-iotlb=off: svm")),
        ("pasid-bits=0", Some("pasid-bits=0: svm")),
        ("aw-bits=39", Some("aw-bits=39: fsts, svm")),
    ] {
        let device = format!("svm-vtd,{properties}");
        let said = Qemu::start(&installation, &["-device", &device]).quit();
        let found = said
            .lines()
            .find_map(|line| line.split("without effect because of ").nth(1));
        assert_eq!(found, expected, "{properties}: {said}");
    }
}

#[test]
fn small_accesses_to_registers_are_ignored() {
    let Some(mut machine) = with("") else { return };
    machine.enable_vtd(&[DEVICE]);
    let table = machine.qemu.readq(RTADDR);
    assert_ne!(table, 0);
    machine.qemu.writew(RTADDR, 0xffff);
    assert_eq!(machine.qemu.readq(RTADDR), table);
    machine.qemu.quit();
}

/// Bits of a first-stage entry (VT-d 9.8): accessed, and dirty.
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;

#[test]
fn a_ring_works_through_the_unit_and_flags_are_set() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    works(&mut machine, &mut context);
    // A page that is read is accessed, and not dirty; one that may be written is both (VT-d 3.6.2).
    let mut flags = |address| machine.mapping(PASID, address) & (ACCESSED | DIRTY);
    assert_eq!(flags(SOURCE), ACCESSED);
    assert_eq!(flags(DESTINATION), ACCESSED | DIRTY);
    // A page that is not there is requested.
    let missing = DESTINATION + 0x1000;
    let number = context.submit(&mut machine, copy(SOURCE, missing, 16));
    let request = machine.wait_page_request();
    assert_eq!(
        (request.sid, request.pasid, request.address, request.write),
        (DEVICE.sid(), PASID, missing, true)
    );
    let frame = map_new(&mut machine, missing);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.read(frame, 16), b"through svm-vtd!");
    // No fault was recorded.
    assert_eq!(machine.qemu.readl(FSTS), 0);
    assert_eq!(
        machine.mapping(PASID, missing) & (ACCESSED | DIRTY),
        ACCESSED | DIRTY
    );
    machine.qemu.quit();
}

#[test]
fn a_lost_completion_times_out_and_the_queue_recovers() {
    if !has_clock() {
        return;
    }
    let Some((mut machine, mut context)) = ready(",invalidation-timeout=20") else {
        return;
    };
    works(&mut machine, &mut context);
    let lose = |machine: &mut Machine, every: u64| {
        let property = json!({ "path": "unit", "property": "lose-every", "value": every });
        machine.qemu.qmp("qom-set", property).unwrap();
    };
    lose(&mut machine, 1);
    let wait = machine.page();
    push_device_invalidation(&mut machine);
    push_wait(&mut machine, wait, 1);
    // Not yet: neither completed nor timed out.
    machine.qemu.clock_step(Duration::from_millis(10));
    assert_eq!((machine.qemu.readl(wait), machine.qemu.readl(FSTS)), (0, 0));
    machine.qemu.clock_step(Duration::from_millis(20));
    assert_eq!(machine.qemu.readl(FSTS), ITE);
    assert_eq!(machine.qemu.readl(wait), 0);
    // ITESID names the device (11.4.9.9).
    assert_eq!(machine.qemu.readq(IQERCD) >> 32 & 0xffff, DEVICE.sid());
    // While the error stands, nothing is fetched.
    let head = machine.qemu.readq(IQH);
    push_wait(&mut machine, wait, 2);
    assert_eq!(machine.qemu.readq(IQH), head);
    // Software clears it and submits what was aborted again.
    lose(&mut machine, 0);
    machine.qemu.writel(FSTS, ITE);
    machine
        .qemu
        .until("the queue to go on", |qemu| qemu.readl(wait) == 2);
    push_device_invalidation(&mut machine);
    push_wait(&mut machine, wait, 3);
    machine
        .qemu
        .until("the repeated invalidation", |qemu| qemu.readl(wait) == 3);
    assert_eq!(machine.qemu.readl(FSTS), 0);
    machine.qemu.quit();
}

#[test]
fn a_function_that_is_not_there_never_completes() {
    if !has_clock() {
        return;
    }
    let Some((mut machine, _context)) = ready(",invalidation-timeout=5") else {
        return;
    };
    let nobody = 9u64 << 3;
    let wait = machine.page();
    push(&mut machine, 0x3 | nobody << 32, 0x1000);
    push_wait(&mut machine, wait, 1);
    machine.qemu.clock_step(Duration::from_millis(10));
    assert_eq!(
        (machine.qemu.readl(wait), machine.qemu.readl(FSTS)),
        (0, ITE)
    );
    assert_eq!(machine.qemu.readq(IQERCD) >> 32 & 0xffff, nobody);
    machine.qemu.quit();
}

#[test]
fn a_bad_descriptor_stops_the_queue_until_it_is_replaced() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let wait = machine.page();
    let tail = machine.qemu.readq(IQT);
    // There is no type 0xf.
    push(&mut machine, 0xf, 0);
    push_wait(&mut machine, wait, 7);
    assert_eq!(machine.qemu.readl(FSTS), IQE);
    assert_eq!(machine.qemu.readq(IQH), tail);
    // IQEI: invalid descriptor type.
    assert_eq!(machine.qemu.readq(IQERCD) & 0xf, 3);
    let at = (machine.qemu.readq(IQA) & !0xfff) + tail;
    machine.qemu.writeq(at, 0x5);
    machine.qemu.writel(FSTS, IQE);
    machine
        .qemu
        .until("the queue to go on", |qemu| qemu.readl(wait) == 7);
    assert_eq!(machine.qemu.readl(FSTS), 0);
    let nop = Descriptor::default();
    context.succeed(&mut machine, nop);
    machine.qemu.quit();
}

#[test]
fn a_thread_processes_the_queue_if_there_is_to_be_one() {
    for (properties, expected) in [
        ("", false),
        (",invalidation-thread=on,invalidation-delay=500", true),
    ] {
        let Some((mut machine, mut context)) = ready(properties) else {
            return;
        };
        let threads = machine.qemu.threads();
        let found = threads.iter().any(|name| name == "svm-vtd-queue");
        assert_eq!(found, expected, "{threads:?}");
        // What is mapped anew is seen after its invalidation, each time.
        for _ in 0..20 {
            works(&mut machine, &mut context);
        }
        machine.qemu.quit();
    }
}

/// An interrupt remapping table of 256 entries with its first entry for this requester.
pub fn remap_interrupts(machine: &mut Machine, requester: u64) {
    let table = machine.page();
    // Present, vector 0x41, destination 0; the requester is verified in full.
    machine.qemu.writeq(table, 1 | 0x41 << 16);
    machine.qemu.writeq(table + 8, requester | 1 << 18);
    machine.qemu.writeq(IRTA, table | 7);
    let on = machine.qemu.readl(GSTS) & (1 << 31 | 1 << 26);
    machine.qemu.writel(GCMD, on | 1 << 24);
    machine.qemu.writel(GCMD, on | 1 << 25);
    assert_ne!(machine.qemu.readl(GSTS) & 1 << 25, 0);
}

/// Makes the device at an address send an interrupt with this interrupt index, in remappable
/// format.
pub fn interrupt(machine: &mut Machine, at: Address, context: &mut Context, index: u64) {
    let msix = machine.capability(at, 0x11);
    machine.config_write16(at, msix + 2, 1 << 15);
    let entry = context.bars.msix + 16 * 5;
    machine.qemu.writeq(entry, 0xfee0_0010 | index << 5);
    machine.qemu.writel(entry + 8, 0);
    machine.qemu.writel(entry + 12, 0);
    context.write(
        machine,
        registers::context::VECTOR,
        registers::vector::ENABLE | 5,
    );
    let nop = Descriptor {
        flags: flags::INTERRUPT,
        ..Default::default()
    };
    let counters = registers::CONTEXT_COUNTERS + 8 * svm_abi::counters::index::INTERRUPTS as u64;
    let at = context.bars.registers + registers::context_block(context.number) + counters;
    let before = machine.qemu.readq(at);
    assert_eq!(context.run(machine, nop).status, status::SUCCESS);
    machine
        .qemu
        .until("the interrupt", |qemu| qemu.readq(at) > before);
}

/// Takes the first entry of the interrupt remapping table away.
pub fn forbid_interrupts(machine: &mut Machine) {
    let table = machine.qemu.readq(IRTA) & !0xfff;
    machine.qemu.writeq(table, 0);
    let wait = machine.page();
    // Interrupt entry cache, global.
    push(machine, 0x4, 0);
    push_wait(machine, wait, 1);
    machine
        .qemu
        .until("the invalidation", |qemu| qemu.readl(wait) == 1);
}

/// The first fault record: reason and requester, if there is one.
fn fault(machine: &mut Machine) -> Option<(u64, u64)> {
    let records = VTD + (machine.qemu.readq(CAP) >> 24 & 0x3ff) * 16;
    let high = machine.qemu.readq(records + 8);
    (high >> 63 != 0).then_some((high >> 32 & 0xff, high & 0xffff))
}

#[test]
fn an_interrupt_goes_where_its_entry_says_or_is_blocked_with_a_reason() {
    // The requester of the entry, the index that the device uses, the reason of the fault.
    for (requester, index, expected) in [
        (DEVICE.sid(), 0, None),
        (0x55, 0, Some(0x26)),
        (DEVICE.sid(), 3, Some(0x22)),
        (DEVICE.sid(), 0x200, Some(0x21)),
    ] {
        let Some((mut machine, mut context)) = ready(",intremap=on") else {
            return;
        };
        remap_interrupts(&mut machine, requester);
        interrupt(&mut machine, DEVICE, &mut context, index);
        let expected = expected.map(|reason| (reason, DEVICE.sid()));
        assert_eq!(fault(&mut machine), expected, "{requester:#x} {index:#x}");
        machine.qemu.quit();
    }
}

#[test]
fn a_reset_of_the_machine_resets_the_unit() {
    let Some((mut machine, mut context)) = ready(",intremap=on") else {
        return;
    };
    works(&mut machine, &mut context);
    remap_interrupts(&mut machine, DEVICE.sid());
    assert_ne!(machine.qemu.readl(GSTS), 0);
    machine.qemu.qmp("system_reset", json!({})).unwrap();
    machine.qemu.wait_event("RESET");
    let registers = [GSTS, FSTS].map(|register| machine.qemu.readl(register));
    assert_eq!(registers, [0, 0]);
    let queue = [IQH, IQT, IQA, IRTA].map(|register| machine.qemu.readq(register));
    assert_eq!(queue, [0; 4]);
    machine.qemu.quit();
}
