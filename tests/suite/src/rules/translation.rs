// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules 11 to 28: translation requests and completions.

use crate::mutant::Mutant::{Device, Unit};
use crate::need::Need;
use crate::rule::{Clause, Judged, Rule};
use crate::trial::Trial;
use crate::world::{CANARY, Flags, HERE, NOBODY, Outcome, World, pasid_of, seen, state};
use machine::os::{
    A, App, CONTEXT_GLOBAL, D, Driver, IOTLB_GLOBAL, P, PASID_GLOBAL, US, copy, crc32c,
    device_tlb_pasid, fill, iotlb_pasid_pages, nop, unblocked,
};
use pcie_ats::AlignedRange;
use svm_abi::completion::Error;
use svm_abi::registers::attributes::{EXECUTE, NO_WRITE, PASID_PRESENT, PRIVILEGED};
use svm_abi::registers::{command, halt, status};
use svm_endpoint::Mutant;
use vtd::mutant::Mutant as UnitMutant;
use vtd::spec::pasid::{PasidEntry, Pgtt};

/// DTE and PRE of a scalable-mode context entry (VT-d 9.4).
const DTE_AND_PRE: u64 = 1 << 2 | 1 << 4;

fn translated_addresses_are_used(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let ticket = world.submit(fill(page, 8, 1));
    world.wait(ticket);
    let sent = world.sent();
    let translated = sent.iter().filter(|s| s.is_translated_access()).count();
    let untranslated = sent.iter().filter(|s| s.is_untranslated_access()).count();
    world.holds("accesses", translated > 0, "translated ones", translated)?;
    world.equal("untranslated accesses", untranslated, 0)?;
    seen(format!("{translated} translated accesses"))
}

fn at_least_one_is_asked_for(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let ticket = world.submit(fill(page, 8, 1));
    world.wait(ticket);
    let requests = world.translation_requests();
    let lengths: Vec<u64> = requests.iter().map(|request| request.length).collect();
    // Read Completion Boundary of 64 bytes: 8 translations.
    let bounded = lengths.iter().all(|length| (1..=8).contains(length));
    let found = format!("{lengths:?}");
    world.holds(
        "translations asked for",
        bounded && !lengths.is_empty(),
        "1 to 8",
        found,
    )?;
    seen(format!("{lengths:?} translations asked for"))
}

/// Takes DTE and PRE away from the function.
fn forbid(world: &World) {
    let entry = world.os().context_place(0);
    world.store(entry, world.load(entry) & !DTE_AND_PRE);
    world.invalidate(&[CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL]);
}

fn forbidden_requests_are_unsupported(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    forbid(&world);
    let answer = world.translate(page, world.space());
    world.equal(
        "the answer with DTE clear",
        answer,
        Err(Error::UnsupportedRequest),
    )?;
    seen("Unsupported Request")
}

fn pasids_that_are_not_enabled(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let entry = world.os().context_place(0);
    // PASIDE.
    world.store(entry, world.load(entry) & !(1 << 3));
    world.invalidate(&[CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL]);
    let answer = world.translate(page, world.space());
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission with PASIDE clear", permits, false)?;
    seen("no permission")
}

fn unsupported_is_not_absent(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    forbid(&world);
    let ticket = world.submit(nop());
    world.equal(
        "a descriptor of a function that may not ask",
        world.wait(ticket),
        None,
    )?;
    world.equal("page requests", world.page_requests().len(), 0)?;
    world.equal(
        "the context",
        world.state(),
        (status::HALTED, halt::RING_FAULT),
    )?;
    seen("the context halted, and no page was requested")
}

fn each_translation_of_a_completion(trial: &Trial<'_>) -> Outcome {
    const PAGES: u64 = 8;
    let world = trial.world();
    let source = world.process().map(HERE, PAGES * 0x1000);
    // The frames are in another order than the pages.
    let other = HERE + 0x10_0000;
    for n in (0..PAGES).rev() {
        world.process().map(other + n * 0x1000, 0x1000);
    }
    for n in 0..PAGES {
        world.process().store(source + n * 0x1000, n + 1);
    }
    let ticket = world.submit(copy(source, other, PAGES * 0x1000));
    world.ends("a copy of 8 pages", ticket, 0)?;
    let expected: Vec<u64> = (1..=PAGES).collect();
    let found: Vec<u64> = (0..PAGES)
        .map(|n| world.process().load(other + n * 0x1000))
        .collect();
    world.equal("the first words of the pages", found, expected)?;
    seen("8 pages in 8 frames in another order")
}

fn a_translation_ends_where_it_says(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    // Two neighbours whose frames are apart, and the frame behind the first one's.
    let behind = HERE + 0x1000;
    world.process().map(behind, 0x1000);
    let first = world.os().frames().allocate_range(13);
    world.process().map_frame(HERE, 12, first);
    world.store(first + 0x1000, CANARY);
    world.prepare(fill(HERE, 8, 1));
    world.succeeds("a fill over the border", fill(HERE + 0xff8, 16, 7))?;
    world.equal(
        "what lies behind the translation",
        world.load(first + 0x1000),
        CANARY,
    )?;
    world.equal("the next page", world.process().load(behind), 7)?;
    seen("4 KiB and not more")
}

fn large_pages_are_answered_by_their_size(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    for shift in [21, 30] {
        // Nobody accesses it: there need not be as much memory.
        let frame = 1u64 << shift;
        let address = 1u64 << (shift + 9);
        world.process().map_frame(address, shift, frame);
        let inside = address + 0x3000;
        let answer = world.translate(inside, world.space());
        let size = answer.map(|answer| answer.size);
        let fits = size.is_ok_and(|size| (12..=shift).contains(&size));
        world.holds(
            "the size",
            fits,
            &format!("12 to {shift}"),
            format!("{size:?}"),
        )?;
        let size = size.unwrap_or(12);
        let expected = (frame + 0x3000) >> size << size;
        world.equal("the address", answer.map(|a| a.address), Ok(expected))?;
    }
    seen("2 MiB and 1 GiB, or parts of them")
}

fn a_large_translation_serves_its_range(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_large(0x4000_0000, 21);
    let answer = world.translate(page, world.space());
    let size = answer.map_or(12, |answer| answer.size);
    world.prepare(fill(page, 8, 1));
    let before = world.translation_requests().len();
    // As far as one answer goes.
    let last = page + (1 << size) - 8;
    world.succeeds("a fill at the end of the translation", fill(last, 8, 2))?;
    let asked = world.translation_requests().len() - before;
    world.equal("further translation requests", asked, 0)?;
    seen(format!("2^{size} bytes by one request"))
}

fn nothing_has_a_size(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let answer = world.translate(HERE, world.space());
    let found = format!("{answer:?}");
    let valid = answer.is_ok_and(|answer| answer.size >= 12 && !answer.permits());
    world.holds(
        "the answer for a page that is absent",
        valid,
        "R=W=0 with a size",
        found,
    )?;
    seen("R=W=0")
}

fn nothing_is_no_permission(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_absent(HERE, 0x1000);
    for _ in 0..2 {
        let ticket = world.submit(unblocked(crc32c(page, 8)));
        world.ends("a read of an absent page", ticket, Error::NotPresent as u8)?;
    }
    seen("refused twice")
}

fn read_only_pages(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_read_only(HERE, 0x1000);
    let readable = Flags {
        read: true,
        ..Flags::default()
    };
    for (bits, name) in [
        (NO_WRITE, "No Write"),
        (0, "no No Write"),
        (0, "no No Write, again"),
    ] {
        let answer = world.translate(page, world.space() | bits);
        world.equal(name, answer.map(|answer| answer.flags), Ok(readable))?;
    }
    world.equal("faults", world.faults(), Vec::new())?;
    seen("R=1, W=0")
}

fn nothing_is_asked_for_that_no_operation_needs(trial: &Trial<'_>, bit: u64) -> Outcome {
    let world = trial.world();
    let page = world.process().map_absent(HERE, 0x2000);
    let ticket = world.submit(copy(page, page + 0x1000, 8));
    world.wait(ticket);
    let asked = |s: &&crate::world::Sent| s.has(bit);
    let requests = world.translation_requests();
    world.holds(
        "translation requests",
        !requests.is_empty(),
        "some",
        requests.len(),
    )?;
    world.equal(
        "requests with the bit",
        requests.iter().filter(asked).count(),
        0,
    )?;
    seen(format!("{} translation requests without", requests.len()))
}

fn no_execute(trial: &Trial<'_>) -> Outcome {
    nothing_is_asked_for_that_no_operation_needs(trial, EXECUTE)
}

fn no_privilege(trial: &Trial<'_>) -> Outcome {
    nothing_is_asked_for_that_no_operation_needs(trial, PRIVILEGED)
}

fn supervisor_pages(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| wish.device.privileged = true);
    let page = world.process().map(HERE, 0x1000);
    let leaf = world.leaf(page);
    world.store(leaf, world.load(leaf) & !US);
    let place = world.os().pasid_place(0, world.process().pasid());
    let words = std::array::from_fn(|n| world.load(place + 8 * n as u64));
    let entry = PasidEntry(words).with_sre(true);
    for (n, word) in entry.0.iter().enumerate() {
        world.store(place + 8 * n as u64, *word);
    }
    world.invalidate(&[PASID_GLOBAL, IOTLB_GLOBAL]);
    let answer = world.translate(page, world.space());
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission of a request in user mode", permits, false)?;
    let answer = world.translate(page, world.space() | PRIVILEGED);
    let flags = answer.map(|answer| (answer.flags.read, answer.flags.privileged));
    world.equal(
        "R and Priv of one in privileged mode",
        flags,
        Ok((true, true)),
    )?;
    seen("a page of the supervisor is for privileged requests alone")
}

fn no_execute_without_request(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let answer = world.translate(page, world.space());
    world.equal("Exe", answer.map(|answer| answer.flags.execute), Ok(false))?;
    seen("Exe is 0 where it is not asked for")
}

fn spaces_are_apart(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let other = world.os().process();
    let others = App::start(world.driver(), other.clone(), 1);
    world.process().map(HERE, 0x1000);
    other.map(HERE, 0x1000);
    world.prepare(fill(HERE, 8, 1));
    let done = others.wait(others.submit(fill(HERE, 8, 2)));
    world.equal(
        "a fill of the other process",
        done.map(|done| done.error),
        Some(0),
    )?;
    world.equal("the first process's page", world.process().load(HERE), 1)?;
    world.equal("the other process's page", other.load(HERE), 2)?;
    seen("one address, two pages")
}

fn global_is_never_set(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let leaf = world.leaf(page);
    // G of a first-stage entry.
    world.store(leaf, world.load(leaf) | 1 << 8);
    let answer = world.translate(page, world.space());
    world.equal(
        "Global",
        answer.map(|answer| answer.flags.global),
        Ok(false),
    )?;
    seen("Global is 0 for a global page")
}

fn memory_is_reached_translated(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let answer = world.translate(page, world.space());
    let untranslated = answer.map(|answer| answer.flags.untranslated_only);
    world.equal("U", untranslated, Ok(false))?;
    seen("U is 0 for memory")
}

fn success_logs_nothing(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let _ = world.faults();
    let answer = world.translate(HERE, world.space());
    world.equal(
        "R or W of an absent page",
        answer.map(|a| a.permits()),
        Ok(false),
    )?;
    world.equal("faults of an absent page", world.faults(), Vec::new())?;
    seen("no permission, no record")
}

fn an_absent_pasid_logs_nothing(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    // Its table is there.
    let _ = world.os().pasid_place(0, pasid_of(NOBODY));
    let _ = world.faults();
    let answer = world.translate(HERE, PASID_PRESENT | u64::from(NOBODY));
    world.equal(
        "R or W of an absent PASID",
        answer.map(|a| a.permits()),
        Ok(false),
    )?;
    world.equal("faults of an absent PASID", world.faults(), Vec::new())?;
    seen("no permission, no record")
}

fn the_interrupt_range_of_a_process(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(0xfee0_0000, 0x1000);
    let answer = world.translate(page, world.space());
    let frame = world.process().frame(page);
    world.equal(
        "the translation with a PASID",
        answer.map(|a| a.address),
        Ok(frame),
    )?;
    world.succeeds("a fill", fill(page, 8, 0x1234))?;
    world.equal("the page", world.process().load(page), 0x1234)?;
    world.equal("faults", world.faults(), Vec::new())?;
    seen("translated like any other address")
}

fn the_interrupt_range_without_a_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let frame = world.os().frames().allocate();
    world.store(frame, CANARY);
    world.own().map_frame(0xfee0_0000, 12, frame);
    let answer = world.raw(command::UNTRANSLATED_READ, 0xfee0_0000, 0);
    world.equal("a read without a PASID", answer, Err(Error::MemoryAccess))?;
    seen("no read reaches what the tables have there")
}

fn translated_into_the_interrupt_range(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.process().map_frame(HERE, 12, 0xfee0_0000);
    let answer = world.translate(HERE, world.space());
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission to reach the range", permits, false)?;
    seen("no permission")
}

fn privileged_without_sre(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| wish.device.privileged = true);
    let page = world.process().map(HERE, 0x1000);
    let _ = world.faults();
    let answer = world.translate(page, world.space() | PRIVILEGED);
    let expected = Flags {
        privileged: true,
        ..Flags::default()
    };
    world.equal(
        "the answer",
        answer.map(|answer| answer.flags),
        Ok(expected),
    )?;
    world.equal("faults", world.faults(), Vec::new())?;
    seen("Priv=1 and nothing else, no record")
}

fn privileged_on_a_second_stage(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| {
        wish.device.privileged = true;
        wish.first_stage = false;
    });
    let place = world.os().pasid_place(0, world.process().pasid());
    let table = world.os().frames().allocate();
    let entry = PasidEntry::ZERO
        .with_p(true)
        .with_pgtt(Pgtt::SecondStage)
        .with_aw(2)
        .with_did(vtd::spec::DomainId(9))
        .with_ssptptr(table);
    for (n, word) in entry.0.iter().enumerate().rev() {
        world.store(place + 8 * n as u64, *word);
    }
    let answer = world.translate(HERE, world.space() | PRIVILEGED);
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission on an empty second stage", permits, false)?;
    seen("answered without permission")
}

/// The A and D flags of a page.
fn flags_of(world: &World, page: u64) -> u64 {
    world.load(world.leaf(page)) & (A | D)
}

fn dirty_after_accessed(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let leaf = world.leaf(page);
    // The processor has read the page.
    world.store(leaf, world.load(leaf) | A);
    let answer = world.translate(page, world.space());
    world.equal("W", answer.map(|answer| answer.flags.write), Ok(true))?;
    world.equal("A and D after W was granted", flags_of(&world, page), A | D)?;
    seen("D is set though A was")
}

fn dirty_after_a_read(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let read = world.translate(page, world.space() | NO_WRITE);
    world.equal("R", read.map(|answer| answer.flags.read), Ok(true))?;
    let write = world.translate(page, world.space());
    world.equal("W", write.map(|answer| answer.flags.write), Ok(true))?;
    world.equal("A and D after W was granted", flags_of(&world, page), A | D)?;
    seen("D is set by the second request")
}

fn written_pages_are_dirty(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(crc32c(page, 8));
    world.succeeds("a fill", fill(page, 8, 1))?;
    world.equal(
        "A and D of a page that the device wrote",
        flags_of(&world, page),
        A | D,
    )?;
    seen("a page that was read and then written is dirty")
}

fn dirty_after_an_untranslated_read(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = 0x40_0000;
    let frame = world.os().frames().allocate();
    world.own().map_frame(page, 12, frame);
    let read = world.raw(command::UNTRANSLATED_READ, page, 0);
    world.equal("a read", read, Ok(()))?;
    let write = world.raw(command::UNTRANSLATED_WRITE, page, 0);
    world.equal("a write", write, Ok(()))?;
    let stage = world.own().first_stage();
    let leaf = stage.find(world.os().frames(), page);
    let flags = leaf.map(|leaf| leaf.entry & (A | D));
    world.equal("A and D of a page that was written", flags, Some(A | D))?;
    seen("a page that was read and then written is dirty")
}

fn read_only_pages_stay_clean(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_read_only(HERE, 0x1000);
    world.equal("the entry", world.load(world.leaf(page)) & (P | US), P | US)?;
    let answer = world.translate(page, world.space());
    world.equal("W", answer.map(|answer| answer.flags.write), Ok(false))?;
    world.equal("D of a read-only page", flags_of(&world, page) & D, 0)?;
    seen("D is clear")
}

fn wide_addresses(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    for address in [page | 1 << 47, page | 1 << 48, page | 1 << 63, !0xfff] {
        let answer = world.translate(address, world.space());
        let permits = answer.is_ok_and(|answer| answer.permits());
        let what = format!("permission at {address:#x}");
        world.equal(&what, permits, false)?;
    }
    seen("four addresses that are not canonical or not mapped")
}

fn no_stale_translation(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let before = world.translate(page, world.space());
    let old = world.process().frame(page);
    world.equal(
        "the translation",
        before.map(|answer| answer.address),
        Ok(old),
    )?;
    let new = world.os().frames().allocate();
    world.process().replace_only(page, new);
    let (did, pasid) = (world.process().domain(), world.process().pasid());
    let range = AlignedRange::page(page);
    world.invalidate(&[
        iotlb_pasid_pages(did, pasid, range),
        device_tlb_pasid(world.machine().requester(0), pasid, range),
    ]);
    let after = world.translate(page, world.space());
    world.equal(
        "after the invalidation",
        after.map(|answer| answer.address),
        Ok(new),
    )?;
    seen("the new page")
}

fn further_pasids(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let driver: &Driver<_> = world.driver();
    let other = App::start(driver, world.os().process(), 3);
    let ticket = other.submit(nop());
    let done = other.wait(ticket).map(|done| done.error);
    world.equal("a descriptor of a second process", done, Some(0))?;
    world.equal("its context", state(other.status()).0, status::ENABLED)?;
    seen("two processes")
}

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        number: 11,
        title: "What was translated is sent as translated",
        section: "PCIe 10.2.1",
        judged: Judged::By(&[Clause::new("address type", translated_addresses_are_used)
            .catching(&[Device(Mutant::Rule11)])]),
    },
    Rule {
        number: 12,
        title: "A translation request asks for one translation at least",
        section: "PCIe 10.2.2",
        judged: Judged::By(&[
            Clause::new("length", at_least_one_is_asked_for).catching(&[Device(Mutant::Rule12)])
        ]),
    },
    Rule {
        number: 13,
        title: "Unsupported Request says that ATS is not permitted",
        section: "PCIe 10.2.3.1; VT-d 9.4 (DTE)",
        judged: Judged::By(&[
            Clause::new("the unit's answer", forbidden_requests_are_unsupported)
                .catching(&[Unit(UnitMutant::G16)]),
            Clause::new("the device's conclusion", unsupported_is_not_absent)
                .catching(&[Device(Mutant::Rule13)]),
            Clause::new("PASIDE clear", pasids_that_are_not_enabled)
                .catching(&[Unit(UnitMutant::S13)]),
        ]),
    },
    Rule {
        number: 14,
        title: "The translations of a completion follow each other",
        section: "PCIe 10.2.3.2",
        judged: Judged::By(&[Clause::new("several", each_translation_of_a_completion)
            .catching(&[Device(Mutant::Rule14)])]),
    },
    Rule {
        number: 15,
        title: "The size of a translation is read from its address",
        section: "PCIe 10.2.3.2",
        judged: Judged::By(&[
            Clause::new("4 KiB", a_translation_ends_where_it_says)
                .catching(&[Device(Mutant::Rule15)]),
            Clause::new("large pages", large_pages_are_answered_by_their_size)
                .catching(&[Unit(UnitMutant::S15)]),
            Clause::new("all of it", a_large_translation_serves_its_range)
                .catching(&[Device(Mutant::Page15)]),
        ]),
    },
    Rule {
        number: 16,
        title: "An answer without permission has a size, too",
        section: "PCIe 10.2.3.5",
        judged: Judged::By(&[
            Clause::new("size", nothing_has_a_size).catching(&[Unit(UnitMutant::S16)])
        ]),
    },
    Rule {
        number: 17,
        title: "An answer without permission is not kept as one",
        section: "PCIe 10.2.3.5",
        judged: Judged::By(&[
            Clause::new("absent", nothing_is_no_permission).catching(&[Device(Mutant::Rule17)])
        ]),
    },
    Rule {
        number: 18,
        title: "A read-only page is answered R=1, W=0",
        section: "PCIe 10.2.2.5",
        judged: Judged::By(&[
            Clause::new("read only", read_only_pages).catching(&[Unit(UnitMutant::Rule18)])
        ]),
    },
    Rule {
        number: 19,
        title: "Exe is granted only where it was asked for",
        section: "PCIe 10.2.3.6, 6.20.2.2",
        judged: Judged::By(&[
            Clause::new("requests", no_execute).catching(&[Device(Mutant::Rule19)]),
            Clause::new("answers", no_execute_without_request).catching(&[Unit(UnitMutant::S19)]),
        ]),
    },
    Rule {
        number: 20,
        title: "Permissions hold for the mode that was asked for",
        section: "PCIe 10.2.3.7, 6.20.2.3",
        judged: Judged::By(&[
            Clause::new("requests", no_privilege).catching(&[Device(Mutant::Rule20)]),
            Clause::new("pages of the supervisor", supervisor_pages)
                .needing(&[Need::Supervisor])
                .catching(&[Unit(UnitMutant::G05)]),
        ]),
    },
    Rule {
        number: 21,
        title: "Translations of a PASID are for that PASID; VT-d never sets Global",
        section: "PCIe 10.2.3.8; VT-d 4.1.2",
        judged: Judged::By(&[
            Clause::new("two processes", spaces_are_apart).catching(&[Device(Mutant::Rule21)]),
            Clause::new("Global", global_is_never_set).catching(&[Unit(UnitMutant::S21A)]),
            Clause::new("contexts", further_pasids).catching(&[Unit(UnitMutant::S21B)]),
        ]),
    },
    Rule {
        number: 22,
        title: "U says that a range is for untranslated requests; memory is not",
        section: "PCIe 10.2.3.4",
        judged: Judged::By(&[
            Clause::new("memory", memory_is_reached_translated).catching(&[Unit(UnitMutant::S22)])
        ]),
    },
    Rule {
        number: 23,
        title: "A translation request that is answered with success records no fault",
        section: "VT-d 7.2.1, table 30",
        judged: Judged::By(&[
            Clause::new("absent page", success_logs_nothing).catching(&[Unit(UnitMutant::Rule23)]),
            Clause::new("absent PASID", an_absent_pasid_logs_nothing)
                .catching(&[Unit(UnitMutant::Rule23), Unit(UnitMutant::B01)]),
        ]),
    },
    Rule {
        number: 24,
        title: "The interrupt address range is for requests without PASID alone",
        section: "VT-d 3.14, 3.15",
        judged: Judged::By(&[
            Clause::new("with a PASID", the_interrupt_range_of_a_process)
                .catching(&[Unit(UnitMutant::S24A)]),
            Clause::new("without", the_interrupt_range_without_a_pasid)
                .catching(&[Unit(UnitMutant::Rule24)]),
            Clause::new("an output there", translated_into_the_interrupt_range)
                .catching(&[Unit(UnitMutant::S24B)]),
        ]),
    },
    Rule {
        number: 25,
        title: "A privileged request that is not permitted is answered Priv=1 and nothing else",
        section: "VT-d 4.2.3, 9.6 (SRE)",
        judged: Judged::By(&[
            Clause::new("SRE clear", privileged_without_sre)
                .catching(&[Unit(UnitMutant::Rule25), Unit(UnitMutant::B10)]),
            Clause::new("second stage", privileged_on_a_second_stage)
                .catching(&[Unit(UnitMutant::S16)])
                .needing(&[Need::WithoutFirstStage]),
        ]),
    },
    Rule {
        number: 26,
        title: "A is set with a translation, D with the permission to write",
        section: "VT-d 3.6.2",
        judged: Judged::By(&[
            Clause::new("A was set", dirty_after_accessed).catching(&[Unit(UnitMutant::S26)]),
            Clause::new("a read was cached", dirty_after_a_read).catching(&[Unit(UnitMutant::S26)]),
            Clause::new("the device's write", written_pages_are_dirty)
                .catching(&[Unit(UnitMutant::S26)]),
            Clause::new("untranslated write", dirty_after_an_untranslated_read)
                .catching(&[Unit(UnitMutant::G09)]),
            Clause::new("read-only page", read_only_pages_stay_clean)
                .catching(&[Unit(UnitMutant::Rule26)]),
        ]),
    },
    Rule {
        number: 27,
        title: "An address that is not canonical is granted nothing",
        section: "VT-d 3.6.1",
        judged: Judged::By(&[
            Clause::new("wide addresses", wide_addresses).catching(&[Unit(UnitMutant::Rule27)])
        ]),
    },
    Rule {
        number: 28,
        title: "A request behind an invalidation is answered with what is there now",
        section: "VT-d 6.5.2.5, 6.5.5",
        judged: Judged::By(&[
            Clause::new("stale", no_stale_translation).catching(&[Unit(UnitMutant::Rule28)])
        ]),
    },
];
