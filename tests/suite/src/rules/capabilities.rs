// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules 1 to 10: capabilities and enabling.

use crate::mutant::Mutant::{Device, Hosted, Unit};
use crate::rule::{Clause, Judged, Rule};
use crate::trial::Trial;
use crate::world::{ATS, HERE, NOBODY, Outcome, PASID, PRI, pasid_of, seen};
use machine::os::{fill, nop};
use pcie_ats::PasidWidth;
use svm_abi::completion::Error;
use svm_abi::registers::attributes::{EXECUTE, PASID_PRESENT, PRIVILEGED};
use svm_abi::registers::{command, halt, status};
use svm_endpoint::Mutant;
use vtd::mutant::Mutant as UnitMutant;

/// First extended capability.
const EXTENDED: u16 = 0x100;

fn capabilities_are_listed(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let mut at = EXTENDED;
    let mut found = Vec::new();
    while at != 0 {
        let header = world.config(at);
        found.push((header as u16, header >> 16 & 0xf));
        at = (header >> 20) as u16;
    }
    for (id, version) in [(0x000f, 1), (0x0013, 1), (0x001b, 1)] {
        let listed = found.contains(&(id, version));
        let list = format!("{found:x?}");
        world.holds(
            "extended capabilities",
            listed,
            &format!("{id:#06x} version 1"),
            list,
        )?;
    }
    seen(format!("{found:x?}"))
}

fn queue_depth(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.equal("Invalidate Queue Depth", world.config(ATS) & 31, 0)?;
    seen("0, which means 32")
}

fn page_aligned_requests(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.equal("Page Aligned Request", world.config(ATS) >> 5 & 1, 1)?;
    let ticket = world.submit(fill(world.process().map(HERE, 0x1000) + 0x801, 3, 1));
    world.wait(ticket);
    let requests = world.translation_requests();
    let aligned = requests.iter().all(|request| request.address % 4096 == 0);
    let addresses: Vec<u64> = requests.iter().map(|request| request.address).collect();
    world.holds(
        "addresses of translation requests",
        aligned && !requests.is_empty(),
        "multiples of 4096",
        format!("{addresses:x?}"),
    )?;
    seen(format!("{} translation requests", requests.len()))
}

fn smaller_than_the_unit(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.ats(false);
    // STU 1: 8 KiB.
    world.configure(ATS, 1 << 16 | 1 << 31, 0x801f_0000);
    world.equal("STU", world.config(ATS) >> 16 & 31, 1)?;
    let ring = world.further(1);
    let ticket = ring.submit(nop());
    world.equal("a descriptor in a page of 4 KiB", ring.wait(ticket), None)?;
    let state = crate::world::state(ring.status());
    world.equal("the context", state, (status::HALTED, halt::RING_FAULT))?;
    seen("answers of 4 KiB are not used with STU 1")
}

fn all_of_stu_is_writable(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.ats(false);
    world.configure(ATS, 0x1f << 16, 0x1f << 16);
    world.equal("STU after a write of 31", world.config(ATS) >> 16 & 31, 31)?;
    seen("5 bits")
}

fn nothing_starts_while_ats_is_off(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.ats(false);
    let number = world.process().pasid().get();
    let started = world.start_bare(1, number);
    world.equal("START", started, (status::HALTED, halt::FUNCTION_DISABLED))?;
    let asked = world.translate(HERE, world.space());
    world.equal("a translation request", asked, Err(Error::NotPresent))?;
    seen("neither a context nor a request")
}

fn pasid_enable_is_stable(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.configure(PASID, 0, 1 << 16);
    world.equal("PASID Enable", world.config(PASID) >> 16 & 1, 1)?;
    world.succeeds("a descriptor", nop())?;
    seen("PASID Enable stays set while ATS is on")
}

fn width_is_kept(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| {
        if let Ok(width) = PasidWidth::new(8) {
            wish.device.pasid_width = width;
        }
    });
    let started = world.start_bare(1, 256);
    world.equal(
        "START with PASID 256",
        started,
        (status::HALTED, halt::BAD_PASID),
    )?;
    seen("of 8 bits")
}

fn wide_pasids(trial: &Trial<'_>) -> Outcome {
    const WIDE: u32 = 0x1234;
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    let from = world.os().pasid_place(0, world.process().pasid());
    let to = world.os().pasid_place(0, pasid_of(WIDE));
    for word in (0..8).rev() {
        world.store(to + 8 * word, world.load(from + 8 * word));
    }
    let answer = world.translate(page, PASID_PRESENT | u64::from(WIDE));
    let frame = world.process().frame(page);
    world.equal(
        "the translation",
        answer.map(|answer| answer.address),
        Ok(frame),
    )?;
    let answer = world.translate(page, PASID_PRESENT | u64::from(WIDE & 0xff));
    let permits = answer.is_ok_and(|answer| answer.permits());
    world.equal(
        "permission of another PASID with the same low bits",
        permits,
        false,
    )?;
    seen("PASID 0x1234 is another one than 0x34")
}

fn asks_only_what_is_enabled(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    for bit in [EXECUTE, PRIVILEGED] {
        let answer = world.translate(HERE, world.space() | bit);
        world.equal(
            "a request that is not enabled",
            answer,
            Err(Error::NotPresent),
        )?;
        let raw = PASID_PRESENT | u64::from(NOBODY) | bit;
        let answer = world.raw(command::PAGE_REQUEST, HERE, raw);
        world.equal(
            "a page request that is not enabled",
            answer,
            Err(Error::NotPresent),
        )?;
    }
    seen("no Execute Requested and no Privileged Mode Requested")
}

fn enabled_only_when_stopped(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let _waiting = world.wait_for_a_page();
    world.configure(PRI, 0, 1);
    world.configure(PRI, 1, 1);
    world.equal(
        "PRI Enable while a page is outstanding",
        world.config(PRI) & 1,
        0,
    )?;
    seen("not enabled")
}

fn enabling_empties_the_cache(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    let old = world.replace(page);
    world.ats(false);
    world.ats(true);
    world.is_asked_for_anew(page, old)
}

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        number: 1,
        title: "ATS, page request and PASID capabilities are listed with their versions",
        section: "PCIe 10.5.1, 10.5.2, 7.8.9",
        judged: Judged::By(&[
            Clause::new("listed", capabilities_are_listed).catching(&[Hosted(Mutant::Rule01)])
        ]),
    },
    Rule {
        number: 2,
        title: "Invalidate Queue Depth 0 means 32",
        section: "PCIe 10.5.1.2",
        judged: Judged::By(
            &[Clause::new("depth", queue_depth).catching(&[Device(Mutant::Rule02)])],
        ),
    },
    Rule {
        number: 3,
        title: "Page Aligned Request is set, and translation requests are aligned",
        section: "PCIe 10.5.1.2",
        judged: Judged::By(&[
            Clause::new("aligned", page_aligned_requests).catching(&[Device(Mutant::Rule03)])
        ]),
    },
    Rule {
        number: 4,
        title: "No translation is smaller than the Smallest Translation Unit",
        section: "PCIe 10.5.1.3",
        judged: Judged::By(&[
            Clause::new("smaller", smaller_than_the_unit).catching(&[Device(Mutant::Rule04)]),
            Clause::new("writable", all_of_stu_is_writable).catching(&[Device(Mutant::Width04)]),
        ]),
    },
    Rule {
        number: 5,
        title: "Nothing is asked for while ATS or bus mastering is off",
        section: "PCIe 10.5.1.3",
        judged: Judged::By(&[Clause::new("ATS off", nothing_starts_while_ats_is_off)
            .catching(&[Device(Mutant::Rule05)])]),
    },
    Rule {
        number: 6,
        title: "PASID Enable does not change while ATS is on",
        section: "PCIe 7.8.9.3",
        judged: Judged::By(&[
            Clause::new("stable", pasid_enable_is_stable).catching(&[Device(Mutant::Rule06)])
        ]),
    },
    Rule {
        number: 7,
        title: "No PASID is wider than Max PASID Width; nothing is asked for that is not enabled",
        section: "PCIe 7.8.9.2, 6.20.2",
        judged: Judged::By(&[
            Clause::new("width", width_is_kept).catching(&[Device(Mutant::Rule07)]),
            Clause::new("all bits count", wide_pasids).catching(&[Unit(UnitMutant::G30)]),
            Clause::new("enables", asks_only_what_is_enabled).catching(&[Device(Mutant::Enable07)]),
        ]),
    },
    Rule {
        number: 8,
        title: "PASID needs prefix support and ACS on the path above the function",
        section: "Linux, pci_enable_pasid()",
        judged: Judged::Nowhere {
            reason: "Linux asks the ports above the function; here it is on the root bus itself",
            holds: |trial| {
                let machine = trial.machine();
                machine.requester(0).bus() == 0
            },
        },
    },
    Rule {
        number: 9,
        title: "Page requests are enabled only when Stopped is set",
        section: "PCIe 10.5.2.2",
        judged: Judged::By(&[
            Clause::new("enable", enabled_only_when_stopped).catching(&[Device(Mutant::Rule09)])
        ]),
    },
    Rule {
        number: 10,
        title: "The address translation cache is empty when ATS is enabled",
        section: "PCIe 10.3.7",
        judged: Judged::By(&[
            Clause::new("empty", enabling_empties_the_cache).catching(&[Device(Mutant::Rule10)])
        ]),
    },
];
