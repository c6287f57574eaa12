// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules 74 to 81: the remapping unit.

use crate::mutant::Mutant::Unit;
use crate::need::Need;
use crate::rule::{Clause, Judged, Rule};
use crate::trial::Trial;
use crate::world::{HERE, Outcome, Verdict, World, pasid_of, seen};
use machine::os::{
    Behaviour, CONTEXT_GLOBAL, IOTLB_GLOBAL, PASID_GLOBAL, Words, device_tlb_pasid, fill,
    iotlb_domain, iotlb_pasid, iotlb_pasid_pages, pasid_entry,
};
use pcie_ats::AlignedRange;
use svm_abi::completion::Error;
use svm_abi::registers::attributes::{EXECUTE, GROUP_SHIFT, LAST, PASID_PRESENT, READ};
use svm_abi::registers::command;
use vtd::mutant::Mutant;
use vtd::spec::capability::{Capability, ExtendedCapability};
use vtd::spec::page_request::{PageRequestBits, SIZE};
use vtd::spec::register::{fsts, global, offset};

/// A descriptor of a type that there is not (VT-d 6.5.2).
const NO_TYPE: Words = [0xf, 0];
/// IQEI of such a descriptor (VT-d 11.4.9.9).
const INVALID_TYPE: u8 = 3;

fn submit_no_type(world: &World) {
    assert!(
        world.os().queue(0).try_submit_only(&[NO_TYPE]),
        "the queue is full"
    );
}

fn a_bad_descriptor_stops_the_queue(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let head = world.unit(offset::IQH, 8);
    submit_no_type(&world);
    let stopped = world.unit(offset::FSTS, 4) as u32 & fsts::IQE != 0;
    world.equal("IQE", stopped, true)?;
    world.equal("IQH", world.unit(offset::IQH, 8), head)?;
    let Some(wait) = world.os().queue(0).try_submit(&[]) else {
        panic!("the queue is full");
    };
    world.os().settle();
    world.equal("a wait behind it", world.os().queue(0).is_done(wait), false)?;
    // Software replaces the descriptor, and clears the error.
    let queue = world.unit(offset::IQA, 8) & !0xfff;
    world.store(queue + head, IOTLB_GLOBAL[0]);
    world.os().queue(0).clear_faults();
    world.set_unit(offset::IQT, world.unit(offset::IQT, 8), 8);
    world.equal("the wait afterwards", world.os().wait_for(0, wait), Ok(()))?;
    seen("the queue stops and is resumed")
}

fn the_upper_half_is_checked(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let queue = world.unit(offset::IQA, 8) & !0xfff;
    let tail = world.unit(offset::IQT, 8);
    for (word, value) in [IOTLB_GLOBAL[0], IOTLB_GLOBAL[1], 1, 0]
        .into_iter()
        .enumerate()
    {
        world.store(queue + tail + 8 * word as u64, value);
    }
    world.set_unit(offset::IQT, tail + 32, 8);
    let stopped = world.unit(offset::FSTS, 4) as u32 & fsts::IQE != 0;
    world.equal("IQE behind a reserved bit in the upper half", stopped, true)?;
    seen("IQE")
}

fn the_reason_is_told(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    submit_no_type(&world);
    let reason = world.unit(offset::IQERCD, 8) as u8 & 15;
    world.equal("IQEI", reason, INVALID_TYPE)?;
    seen("IQEI 3")
}

/// Caches a page's translation in the unit, puts another frame behind the page, invalidates, and
/// judges what a request is answered.
fn sufficient(world: &World, what: &str, words: impl FnOnce(u64) -> Vec<Words>) -> Verdict {
    let page = world.process().map(HERE, 0x1000);
    let old = world.process().frame(page);
    let before = world.translate(page, world.space());
    world.equal(what, before.map(|answer| answer.address), Ok(old))?;
    let new = world.os().frames().allocate();
    world.process().replace_only(page, new);
    let done = world.os().invalidate(0, &words(page));
    world.equal(&format!("the queue behind {what}"), done, Ok(()))?;
    let after = world.translate(page, world.space());
    world.equal(what, after.map(|answer| answer.address), Ok(new))
}

fn ranges_are_sufficient(trial: &Trial<'_>, shifts: &[u8]) -> Outcome {
    for shift in shifts {
        let world = trial.world();
        let what = format!("an invalidation of 2^{shift} bytes of a PASID");
        let (did, pasid) = (world.process().domain(), world.process().pasid());
        let Ok(range) = AlignedRange::containing(HERE, *shift) else {
            panic!("no range of 2^{shift} bytes");
        };
        sufficient(&world, &what, |_| {
            vec![iotlb_pasid_pages(did, pasid, range)]
        })?;
    }
    seen(format!("{shifts:?}"))
}

fn small_ranges(trial: &Trial<'_>) -> Outcome {
    ranges_are_sufficient(trial, &[12, 13, 21, 30])
}

fn large_ranges(trial: &Trial<'_>) -> Outcome {
    ranges_are_sufficient(trial, &[31, 47])
}

fn all_of_a_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let (did, pasid) = (world.process().domain(), world.process().pasid());
    sufficient(&world, "an invalidation of a PASID", |_| {
        vec![iotlb_pasid(did, pasid)]
    })?;
    seen("the new page")
}

fn all_of_a_domain(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let did = world.process().domain();
    sufficient(&world, "an invalidation of a domain", |_| {
        vec![iotlb_domain(did)]
    })?;
    seen("the new page")
}

fn everything(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    sufficient(&world, "a global invalidation", |_| vec![IOTLB_GLOBAL])?;
    seen("the new page")
}

fn events_are_masked_at_first(trial: &Trial<'_>) -> Outcome {
    let machine = trial.machine();
    let world = trial.world();
    for (name, at) in [
        ("FECTL", offset::FECTL),
        ("IECTL", offset::IECTL),
        ("PECTL", offset::PECTL),
    ] {
        let masked = machine.unit_read(0, at, 4) >> 31;
        world.equal(&format!("{name}.IM after power-up"), masked, 1)?;
    }
    seen("IM is 1 in all three")
}

fn the_queue_wraps(trial: &Trial<'_>) -> Outcome {
    const PAGES: u64 = 150;
    let world = trial.world();
    let first = world.process().map_absent(HERE, PAGES * 0x1000);
    for n in 0..PAGES {
        let what = format!("page {n} of a queue of 128");
        let tail = world.unit(offset::PQT, 8);
        world.succeeds(&what, fill(first + n * 0x1000, 8, n))?;
        let next = (tail + SIZE) % 4096;
        world.equal(
            &format!("PQT behind {what}"),
            world.unit(offset::PQT, 8),
            next,
        )?;
    }
    seen(format!("{PAGES} page requests"))
}

/// Sends a raw page request that nobody answers, and returns its descriptor.
fn descriptor(world: &World, attributes: u64) -> Option<PageRequestBits> {
    let queue = world.unit(offset::PQA, 8) & !0xfff;
    let tail = world.unit(offset::PQT, 8);
    for word in [0, 8, 16, 24] {
        world.store(queue + tail + word, !0);
    }
    world.os().set_behaviour(Behaviour::Ignore);
    world.begin_raw(command::PAGE_REQUEST, HERE, attributes | LAST | READ);
    world.os().settle();
    let written = world.unit(offset::PQT, 8) == (tail + SIZE) % 4096;
    let words = [0, 8, 16, 24].map(|word| world.load(queue + tail + word));
    written.then_some(PageRequestBits(words))
}

fn reserved_words_are_zero(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let found = descriptor(&world, world.space() | 5 << GROUP_SHIFT);
    let words = found.map(|bits| (bits.prgi(), bits.0[2], bits.0[3]));
    world.equal("PRGI, and words 2 and 3", words, Some((5, 0, 0)))?;
    seen("zeros")
}

fn execute_is_told(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| wish.device.execute = true);
    let found = descriptor(&world, world.space() | EXECUTE);
    world.equal("EXR", found.map(|bits| bits.exr()), Some(true))?;
    seen("EXR is set")
}

fn without_a_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let found = descriptor(&world, 0);
    world.equal("PP", found.map(|bits| bits.pp()), Some(false))?;
    seen("a descriptor without PASID")
}

fn faults_fill_the_records(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let _ = world.faults();
    let records = Capability(world.unit(offset::CAP, 8)).fault_recording_registers();
    let overflow = || world.unit(offset::FSTS, 4) as u32 & fsts::PFO != 0;
    for n in 0..u64::from(records) {
        let _ = world.raw(command::UNTRANSLATED_READ, HERE + n * 0x1000, 0);
        world.equal(
            &format!("PFO after fault {} of {records}", n + 1),
            overflow(),
            false,
        )?;
    }
    // One more overflows, or is taken for one with a fault of the same requester.
    let _ = world.raw(command::UNTRANSLATED_READ, HERE + 0x10_0000, 0);
    let overflows = overflow();
    let found = world.faults().len();
    let fits = (1..=usize::from(records)).contains(&found);
    world.holds("records", fits, &format!("1 to {records}"), found)?;
    seen(format!("{found} records, PFO {overflows}"))
}

fn fpd_suppresses(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let place = world.os().pasid_place(0, pasid_of(0));
    // FPD.
    world.store(place, world.load(place) | 1 << 1);
    world.invalidate(&[PASID_GLOBAL, IOTLB_GLOBAL]);
    let _ = world.faults();
    let answer = world.raw(command::UNTRANSLATED_READ, HERE, 0);
    world.equal("a read of an absent page", answer, Err(Error::MemoryAccess))?;
    world.equal("faults", world.faults(), Vec::new())?;
    seen("no record with FPD")
}

fn fpd_of_a_context_entry(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    // A page that nothing else keeps from being read.
    let page = 0x40_0000;
    let frame = world.os().frames().allocate();
    world.own().map_frame(page, 12, frame);
    let place = world.os().context_place(0);
    // A reserved bit: of SCT.3, which is qualified.
    world.store(place + 24, 1);
    let read = || {
        world.invalidate(&[CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL]);
        let _ = world.faults();
        let answer = world.raw(command::UNTRANSLATED_READ, page, 0);
        (answer, world.faults().len())
    };
    let refused = Err(Error::MemoryAccess);
    world.equal("a read, and faults, without FPD", read(), (refused, 1))?;
    // FPD.
    world.store(place, world.load(place) | 1 << 1);
    world.equal("a read, and faults, with FPD", read(), (refused, 0))?;
    seen("a record without FPD, and none with it")
}

/// Takes the present bit of the process's entry away, invalidates, and judges the answer.
fn retired(trial: &Trial<'_>, cache: impl FnOnce(&World) -> Words) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let before = world.translate(page, world.space());
    world.equal(
        "permission before",
        before.map(|answer| answer.permits()),
        Ok(true),
    )?;
    let (did, pasid) = (world.process().domain(), world.process().pasid());
    let place = world.os().pasid_place(0, pasid);
    // All but the present bit stays, as Linux has it at that moment.
    world.store(place, world.load(place) & !1);
    world.invalidate(&[
        cache(&world),
        iotlb_pasid(did, pasid),
        device_tlb_pasid(world.machine().requester(0), pasid, AlignedRange::ALL),
    ]);
    let after = world.translate(page, world.space());
    let permits = after.is_ok_and(|answer| answer.permits());
    world.equal("permission of a PASID that is not present", permits, false)?;
    seen("no permission")
}

fn retired_selectively(trial: &Trial<'_>) -> Outcome {
    retired(trial, |world| {
        pasid_entry(world.process().domain(), world.process().pasid())
    })
}

fn retired_globally(trial: &Trial<'_>) -> Outcome {
    retired(trial, |_| PASID_GLOBAL)
}

fn another_domain(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let before = world.translate(page, world.space());
    world.equal(
        "permission before",
        before.map(|answer| answer.permits()),
        Ok(true),
    )?;
    let (old, pasid) = (world.process().domain(), world.process().pasid());
    let new = old + 100;
    let place = world.os().pasid_place(0, pasid);
    // DID.
    world.store(place + 8, world.load(place + 8) & !0xffff | u64::from(new));
    world.invalidate(&[pasid_entry(old, pasid), iotlb_pasid(old, pasid)]);
    let frame = world.process().frame(page);
    let again = world.translate(page, world.space());
    world.equal("the page", again.map(|answer| answer.address), Ok(frame))?;
    let other = world.os().frames().allocate();
    world.process().replace_only(page, other);
    world.invalidate(&[iotlb_pasid(new, pasid)]);
    let after = world.translate(page, world.space());
    world.equal(
        "behind an invalidation of the new domain",
        after.map(|a| a.address),
        Ok(other),
    )?;
    seen("what was cached is the new domain's")
}

fn pasid_0_is_one_of_many(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let place = world.os().pasid_place(0, pasid_of(0));
    for word in 0..8 {
        world.store(place + 8 * word, 0);
    }
    world.invalidate(&[CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL]);
    let answer = world.translate(page, world.space());
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission without an entry for PASID 0", permits, true)?;
    seen("translated")
}

fn beyond_the_directory(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    // PDTS 1: 256 entries of the directory, for 2^14 PASIDs.
    let wide = u64::from(world.process().pasid().get()) | 1 << 14;
    let directory = world.load(world.os().context_place(0)) & !0xfff;
    // Behind its end lies what looks like an entry.
    world.store(directory + 256 * 8, world.load(directory));
    let answer = world.translate(page, PASID_PRESENT | wide);
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission of a PASID beyond the directory", permits, false)?;
    seen("no permission")
}

fn reserved_bits(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let place = world.os().pasid_place(0, world.process().pasid());
    // Word 7 is reserved.
    world.store(place + 56, 1);
    world.invalidate(&[PASID_GLOBAL, IOTLB_GLOBAL]);
    let answer = world.translate(page, world.space());
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission of an entry with a reserved bit", permits, false)?;
    seen("no permission")
}

fn no_pages_of_1_gib(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| wish.one_gib_pages = false);
    let page = 1 << 39;
    world.process().map_frame(page, 30, 0);
    let answer = world.translate(page, world.space());
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission of a page of 1 GiB", permits, false)?;
    seen("no permission")
}

fn levels_are_those_of_fspm(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let place = world.os().pasid_place(0, world.process().pasid());
    // AW, which is of the second stage.
    world.store(place, world.load(place) & !(7 << 2));
    world.invalidate(&[PASID_GLOBAL, IOTLB_GLOBAL]);
    let answer = world.translate(page, world.space());
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission of a first stage with AW 0", permits, true)?;
    seen("translated")
}

fn levels_that_there_are_not(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let pasid = world.process().pasid();
    let place = world.os().pasid_place(0, pasid);
    // FSPM 2, which is reserved.
    world.store(place + 16, world.load(place + 16) | 2 << 2);
    let directory = world.load(world.os().context_place(0)) & !0xfff;
    let of_table = directory + u64::from(pasid.get() >> 6) * 8;
    for fpd in [false, true] {
        // FPD of the directory entry, which is about records alone.
        world.store(of_table, world.load(of_table) & !2 | u64::from(fpd) << 1);
        world.invalidate(&[CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL]);
        let answer = world.translate(page, world.space());
        let permits = answer.is_ok_and(|answer| answer.permits());
        world.equal(&format!("permission by FSPM 2, FPD {fpd}"), permits, false)?;
    }
    seen("no permission, with FPD and without")
}

fn one_gib_is_reported(trial: &Trial<'_>) -> Outcome {
    for has in [true, false] {
        let world = trial.world_with(|wish| wish.one_gib_pages = has);
        let cap = Capability(world.unit(offset::CAP, 8));
        world.equal("CAP.FS1GP", cap.fs1gp(), has)?;
    }
    seen("as it was made")
}

fn rid_pasid_is_reported(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| wish.rid_pasid = false);
    let ecap = ExtendedCapability(world.unit(offset::ECAP, 8));
    world.equal("ECAP.RPS of a unit without it", ecap.rps(), false)?;
    seen("0")
}

fn coherent_walks_are_reported(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let ecap = world.unit(offset::ECAP, 8);
    // Flags are set by walks, as rule 26 shows: the walks are coherent.
    world.equal("ECAP.SMPWCS", ecap >> 48 & 1, 1)?;
    seen("1")
}

fn every_register_can_be_read(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let mut differing = Vec::new();
    for at in (0..0x400).step_by(8) {
        let halves = world.unit(at, 4) | world.unit(at + 4, 4) << 32;
        let whole = world.unit(at, 8);
        if halves != whole {
            differing.push((at, halves, whole));
        }
    }
    world.equal("registers that differ in halves", differing, Vec::new())?;
    world.succeeds("a descriptor afterwards", machine::os::nop())?;
    seen("as two halves and as a whole")
}

fn a_reset_leaves_nothing(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    // A page of the function's own address space: its requests mean something in every mode.
    let page = 0x40_0000;
    let frame = world.os().frames().allocate();
    world.own().map_frame(page, 12, frame);
    let before = world.raw(command::UNTRANSLATED_READ, page, 0);
    world.equal("a read before", before, Ok(()))?;
    world.machine().reset_system();
    world.equal("GSTS", world.unit(offset::GSTS, 4), 0)?;
    world.equal("RTADDR", world.unit(offset::RTADDR, 8), 0)?;
    // Translation, by a root table at address 0 that has no entry.
    world.set_unit(offset::GCMD, global::TE.into(), 4);
    machine::os::Driver::probe(world.os(), 0);
    let after = world.raw(command::UNTRANSLATED_READ, page, 0);
    world.equal(
        "a read without a root table",
        after,
        Err(Error::MemoryAccess),
    )?;
    seen("nothing is cached over a reset")
}

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        number: 74,
        title: "A descriptor with an error stops the invalidation queue, which says why",
        section: "VT-d 6.5.2.10, 11.4.9.9",
        judged: Judged::By(&[
            Clause::new("stops", a_bad_descriptor_stops_the_queue)
                .catching(&[Unit(Mutant::Rule74)]),
            Clause::new("reserved bits", the_upper_half_is_checked).catching(&[Unit(Mutant::B12)]),
            Clause::new("reason", the_reason_is_told).catching(&[Unit(Mutant::S74)]),
        ]),
    },
    Rule {
        number: 75,
        title: "Invalidations of every granularity are sufficient",
        section: "VT-d 6.5.2.4, 6.5.2.5",
        judged: Judged::By(&[
            Clause::new("up to 1 GiB", small_ranges).catching(&[Unit(Mutant::Rule28)]),
            Clause::new("above 1 GiB", large_ranges).catching(&[Unit(Mutant::Rule28)]),
            Clause::new("PASID", all_of_a_pasid).catching(&[Unit(Mutant::Rule28)]),
            Clause::new("domain", all_of_a_domain).catching(&[Unit(Mutant::S75A)]),
            Clause::new("global", everything).catching(&[Unit(Mutant::S75B)]),
        ]),
    },
    Rule {
        number: 76,
        title: "The page request queue wraps, and its descriptors say all; events begin masked",
        section: "VT-d 7.4.1, 11.4.11",
        judged: Judged::By(&[
            Clause::new("wrap", the_queue_wraps).catching(&[Unit(Mutant::Rule76)]),
            Clause::new("masked", events_are_masked_at_first).catching(&[Unit(Mutant::S76A)]),
            Clause::new("reserved words", reserved_words_are_zero).catching(&[Unit(Mutant::B06)]),
            Clause::new("EXR", execute_is_told).catching(&[Unit(Mutant::S76B)]),
            Clause::new("without a PASID", without_a_pasid).catching(&[Unit(Mutant::G10)]),
        ]),
    },
    Rule {
        number: 77,
        title: "Faults fill the records and then set PFO; FPD suppresses them",
        section: "VT-d 7.2.1, 7.2.1.1, 9.6",
        judged: Judged::By(&[
            Clause::new("overflow", faults_fill_the_records).catching(&[Unit(Mutant::B11)]),
            Clause::new("FPD", fpd_suppresses).catching(&[Unit(Mutant::Rule77)]),
            Clause::new("FPD of a context entry", fpd_of_a_context_entry)
                .catching(&[Unit(Mutant::Rule77)]),
        ]),
    },
    Rule {
        number: 78,
        title: "A PASID table entry is what it says, and nothing after it was taken away",
        section: "VT-d 6.5.3.3, 9.4, 9.6",
        judged: Judged::By(&[
            Clause::new("taken away, selectively", retired_selectively)
                .catching(&[Unit(Mutant::B05)]),
            Clause::new("taken away, globally", retired_globally).catching(&[Unit(Mutant::Rule78)]),
            Clause::new("another domain", another_domain).catching(&[Unit(Mutant::B05)]),
            Clause::new("PASID 0", pasid_0_is_one_of_many).catching(&[Unit(Mutant::B02)]),
            Clause::new("beyond the directory", beyond_the_directory)
                .catching(&[Unit(Mutant::G26)]),
            Clause::new("reserved bits", reserved_bits).catching(&[Unit(Mutant::G27)]),
        ]),
    },
    Rule {
        number: 79,
        title: "Page sizes and levels are those that unit and entry have",
        section: "VT-d 3.6, 9.6 (FSPM), 11.4.2 (FS1GP)",
        judged: Judged::By(&[
            Clause::new("1 GiB", no_pages_of_1_gib)
                .needing(&[Need::WithoutOneGibPages])
                .catching(&[Unit(Mutant::Rule79)]),
            Clause::new("FSPM", levels_are_those_of_fspm).catching(&[Unit(Mutant::B04)]),
            Clause::new("levels that there are not", levels_that_there_are_not)
                .catching(&[Unit(Mutant::S79)]),
        ]),
    },
    Rule {
        number: 80,
        title: "The capability registers report what the unit does",
        section: "VT-d 11.4.2, 11.4.3",
        judged: Judged::By(&[
            Clause::new("FS1GP", one_gib_is_reported)
                .catching(&[Unit(Mutant::S80A)])
                .needing(&[Need::WithoutOneGibPages]),
            Clause::new("RPS", rid_pasid_is_reported)
                .needing(&[Need::WithoutRidPasid])
                .catching(&[Unit(Mutant::Rule80)]),
            Clause::new("SMPWCS", coherent_walks_are_reported).catching(&[Unit(Mutant::S80B)]),
            Clause::new("accesses", every_register_can_be_read).catching(&[Unit(Mutant::S80C)]),
        ]),
    },
    Rule {
        number: 81,
        title: "A reset leaves nothing of what was cached",
        section: "VT-d 11.4.4, PCIe 6.6.1",
        judged: Judged::By(&[
            Clause::new("system reset", a_reset_leaves_nothing).catching(&[Unit(Mutant::Rule81)])
        ]),
    },
];
