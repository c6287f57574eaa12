// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules 29 to 35: memory requests.

use crate::mutant::Mutant::{Device, Unit};
use crate::need::Need;
use crate::rule::{Clause, Judged, Rule};
use crate::trial::Trial;
use crate::world::{CANARY, HERE, Outcome, seen};
use machine::os::{CONTEXT_GLOBAL, IOTLB_GLOBAL, PASID_GLOBAL, copy, crc32c, fetch_add, fill};
use svm_abi::completion::Error;
use svm_abi::registers::{command, laboratory};
use svm_endpoint::Mutant;
use vtd::mutant::Mutant as UnitMutant;
use vtd::spec::fault::{AddressType, RequestKind};

fn accesses_end_with_their_translation(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let first = world.os().frames().allocate_range(13);
    world.process().map_frame(HERE, 12, first);
    world.process().map(HERE + 0x1000, 0x1000);
    world.store(first + 0x1000, CANARY);
    world.succeeds("a fill over the border", fill(HERE + 0xfe8, 0x30, 7))?;
    world.equal(
        "what lies behind the first page",
        world.load(first + 0x1000),
        CANARY,
    )?;
    world.equal("the second page", world.process().load(HERE + 0x1000), 7)?;
    seen("an access that crosses a border is two")
}

fn translated_accesses_have_no_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let ticket = world.submit(fill(page, 8, 1));
    world.wait(ticket);
    let sent = world.sent();
    let accesses: Vec<_> = sent.iter().filter(|s| s.is_translated_access()).collect();
    world.holds(
        "translated accesses",
        !accesses.is_empty(),
        "some",
        accesses.len(),
    )?;
    let with = accesses.iter().filter(|s| s.pasid().is_some()).count();
    world.equal("those with a PASID", with, 0)?;
    seen(format!(
        "{} translated accesses without PASID",
        accesses.len()
    ))
}

fn translated_with_pasid_is_blocked(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let frame = world.process().frame(page);
    let answer = world.raw(command::TRANSLATED_READ, frame, world.space());
    world.equal(
        "a translated read with a PASID",
        answer,
        Err(Error::MemoryAccess),
    )?;
    seen("blocked")
}

fn translated_without_dte_is_blocked(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let frame = world.os().frames().allocate();
    let answer = world.raw(command::TRANSLATED_READ, frame, 0);
    world.equal("a translated read with DTE set", answer, Ok(()))?;
    let entry = world.os().context_place(0);
    world.store(entry, world.load(entry) & !(1 << 2));
    world.invalidate(&[CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL]);
    let answer = world.raw(command::TRANSLATED_READ, frame, 0);
    world.equal(
        "a translated read with DTE clear",
        answer,
        Err(Error::MemoryAccess),
    )?;
    seen("blocked")
}

fn translated_interrupt_range_is_blocked(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    for address in [0xfee0_0000, 0xfeef_f000] {
        let _ = world.faults();
        let answer = world.raw(command::TRANSLATED_READ, address, 0);
        let what = format!("a translated read of {address:#x}");
        world.equal(&what, answer, Err(Error::MemoryAccess))?;
        let faults = world.faults();
        let faults: Vec<(u64, u8)> = faults.iter().map(|f| (f.fi, f.at as u8)).collect();
        // AT is 10b, translated.
        world.equal(&format!("the record of {what}"), faults, vec![(address, 2)])?;
    }
    seen("blocked and recorded at both ends")
}

fn untranslated_with_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_read_only(HERE, 0x1000);
    world.process().store(page, 77);
    let _ = world.faults();
    let answer = world.raw(command::UNTRANSLATED_READ, page, world.space());
    world.equal("a read", answer, Ok(()))?;
    world.equal(
        "what was read",
        world.driver().laboratory(laboratory::DATA),
        77,
    )?;
    let answer = world.raw(command::UNTRANSLATED_WRITE, page, world.space());
    world.equal(
        "a write to a read-only page",
        answer,
        Err(Error::MemoryAccess),
    )?;
    let faults = world.faults();
    world.equal("faults", faults.len(), 1)?;
    let pasid = Some(world.process().pasid().get());
    let found = (faults[0].pasid, faults[0].kind, faults[0].fi);
    world.equal("the record", found, (pasid, RequestKind::Write, page))?;
    seen(format!("{:?}", faults[0]))
}

fn the_record_of_a_translation_request(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let place = world.os().pasid_place(0, world.process().pasid());
    // PGTT that there is not.
    world.store(place, world.load(place) | 7 << 6);
    world.invalidate(&[PASID_GLOBAL, IOTLB_GLOBAL]);
    let _ = world.faults();
    let answer = world.translate(page, world.space());
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal("permission of an invalid entry", permits, false)?;
    let faults: Vec<_> = world
        .faults()
        .iter()
        .map(|fault| (fault.fr.code(), fault.at, fault.pasid))
        .collect();
    let pasid = Some(world.process().pasid().get());
    let expected = vec![(0x5b, AddressType::TranslationRequest, pasid)];
    world.equal(
        "reason, address type and PASID of the record",
        faults,
        expected,
    )?;
    seen("reason 5Bh with PASID and address type")
}

fn untranslated_without_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let _ = world.faults();
    let answer = world.raw(command::UNTRANSLATED_READ, HERE, 0);
    world.equal(
        "a read of a page that is not mapped",
        answer,
        Err(Error::MemoryAccess),
    )?;
    let faults = world.faults();
    world.equal("faults", faults.len(), 1)?;
    let fault = faults[0];
    let sid = world.machine().requester(0);
    let found = (fault.sid, fault.kind, fault.at, fault.fi);
    let expected = (sid, RequestKind::Read, AddressType::Untranslated, HERE);
    world.equal("the record", found, expected)?;
    // FSFS.2: P of the entry of a first-stage table is 0 (VT-d, table 30).
    world.equal("the reason", fault.fr.code(), 0x71)?;
    seen(format!("{fault:?}"))
}

fn a_write_after_a_read_is_checked(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    // The function's own address space.
    let page = 0x40_0000;
    let frame = world.os().frames().allocate();
    world.own().map_frame(page, 12, frame);
    if let Err(fault) = world.own().protect(page, false) {
        panic!("{fault}");
    }
    let _ = world.faults();
    let answer = world.raw(command::UNTRANSLATED_READ, page, 0);
    world.equal("a read of a read-only page", answer, Ok(()))?;
    world.equal("faults of the read", world.faults(), Vec::new())?;
    let answer = world.raw(command::UNTRANSLATED_WRITE, page, 0);
    world.equal("a write to it", answer, Err(Error::MemoryAccess))?;
    world.equal("faults of the write", world.faults().len(), 1)?;
    seen("the write is recorded though the read was cached")
}

fn zero_length_reads(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let frame = world.os().frames().allocate();
    world.driver().set_laboratory(laboratory::DATA, CANARY);
    let answer = world.raw(command::TRANSLATED_PROBE, frame, 0);
    world.equal("a zero-length read", answer, Ok(()))?;
    let data = world.driver().laboratory(laboratory::DATA);
    world.equal("what it brought", data, CANARY)?;
    let sent = world.sent_of(command::TRANSLATED_PROBE);
    let lengths: Vec<u64> = sent.iter().map(|sent| sent.length).collect();
    world.equal("the lengths", lengths, vec![0])?;
    seen("of no bytes")
}

fn every_alignment(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let source = world.process().map(HERE, 0x3000);
    let bytes: Vec<u8> = (0..0x3000u32).map(|n| (n * 7 % 251) as u8).collect();
    world.process().write(source, &bytes);
    let other = world.process().map(HERE + 0x10_0000, 0x3000);
    for (from, to, length) in [
        (1, 2, 1),
        (3, 5, 7),
        (0xffd, 0x7, 0x1006),
        (0x805, 0xffb, 0x1111),
    ] {
        let ticket = world.submit(copy(source + from, other + to, length));
        let what = format!("{length:#x} bytes from {from:#x} to {to:#x}");
        world.ends(&what, ticket, 0)?;
        let found = world.process().read(other + to, length as usize);
        let expected = &bytes[from as usize..(from + length) as usize];
        world.equal(&what, found == expected, true)?;
    }
    seen("four copies")
}

fn atomics_need_write(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_read_only(HERE, 0x1000);
    world.prepare(crc32c(page, 8));
    world.fails("an atomic addition", fetch_add(page, 1), Error::PageFault)?;
    world.equal("the page", world.process().load(page), 0)?;
    seen("refused")
}

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        number: 29,
        title: "A translated access lies within one translation",
        section: "PCIe 10.2.4; Arm BSA exerciser",
        judged: Judged::By(&[Clause::new("border", accesses_end_with_their_translation)
            .catching(&[Device(Mutant::Rule29)])]),
    },
    Rule {
        number: 30,
        title: "Translated requests carry no PASID, and are blocked where ATS is not permitted",
        section: "VT-d 4.2.3, 7.1.3",
        judged: Judged::By(&[
            Clause::new("the device's requests", translated_accesses_have_no_pasid)
                .catching(&[Device(Mutant::Rule30)]),
            Clause::new("with a PASID", translated_with_pasid_is_blocked)
                .needing(&[Need::AccessWithPasid])
                .catching(&[Unit(UnitMutant::Rule30)]),
            Clause::new("DTE clear", translated_without_dte_is_blocked)
                .catching(&[Unit(UnitMutant::G17)]),
        ]),
    },
    Rule {
        number: 31,
        title: "Translated requests to the interrupt address range are blocked",
        section: "VT-d 3.14",
        judged: Judged::By(&[
            Clause::new("0xfeexxxxx", translated_interrupt_range_is_blocked)
                .catching(&[Unit(UnitMutant::Rule31)]),
        ]),
    },
    Rule {
        number: 32,
        title: "Untranslated requests are checked, and their faults recorded with all fields",
        section: "VT-d 7.1, 11.4.7.6",
        judged: Judged::By(&[
            Clause::new("with a PASID", untranslated_with_pasid)
                .needing(&[Need::AccessWithPasid])
                .catching(&[Unit(UnitMutant::Rule32)]),
            Clause::new("without", untranslated_without_pasid).catching(&[Unit(UnitMutant::S32)]),
            Clause::new("translation request", the_record_of_a_translation_request)
                .catching(&[Unit(UnitMutant::Rule32)]),
            Clause::new("cached page", a_write_after_a_read_is_checked)
                .catching(&[Unit(UnitMutant::B03)]),
        ]),
    },
    Rule {
        number: 33,
        title: "A zero-length read brings no data",
        section: "PCIe 2.2.5",
        judged: Judged::By(&[
            Clause::new("length", zero_length_reads).catching(&[Device(Mutant::Rule33)])
        ]),
    },
    Rule {
        number: 34,
        title: "Transfers of every alignment and length are exact",
        section: "PCIe 2.2.5",
        judged: Judged::By(&[
            Clause::new("copies", every_alignment).catching(&[Device(Mutant::Rule34)])
        ]),
    },
    Rule {
        number: 35,
        title: "Atomic operations need the permission to write",
        section: "PCIe 10.2.3.3",
        judged: Judged::By(&[
            Clause::new("read only", atomics_need_write).catching(&[Device(Mutant::Rule35)])
        ]),
    },
];
