// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules 67 to 73: the state of the function.

use crate::mutant::Mutant::Device;
use crate::rule::{Clause, Judged, Rule};
use crate::trial::Trial;
use crate::world::{ATS, COMMAND, HERE, Outcome, PASID, World, seen};
use machine::os::{copy, fill, nop};
use svm_abi::counters::index;
use svm_abi::descriptor::{Descriptor, flags};
use svm_abi::registers::attributes::PRIVILEGED;
use svm_abi::registers::{halt, sent, status};
use svm_endpoint::Mutant;

fn a_reset_makes_contexts_new(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let _waiting = world.wait_for_a_page();
    world.machine().reset_function();
    world.equal("the context", world.state().0, status::DISABLED)?;
    world.equal("ATS Enable", world.config(ATS) >> 31, 0)?;
    world.equal("PASID Enable", world.config(PASID) >> 16 & 1, 0)?;
    seen("as new")
}

/// The context halts because its function is disabled, and has sent nothing.
fn nothing_was_sent(world: &World, requests: usize) -> Outcome {
    world.equal("requests", requests, 0)?;
    let disabled = (status::HALTED, halt::FUNCTION_DISABLED);
    world.equal("the context", world.state(), disabled)?;
    seen("nothing was sent")
}

fn nothing_without_bus_mastering(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.stage(&[fill(page, 8, 1)]);
    world.configure(COMMAND, 0, 4);
    world.ring();
    world.os().settle();
    nothing_was_sent(&world, world.sent().len())
}

fn nothing_without_ats(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.stage(&[fill(page, 8, 1)]);
    world.ats(false);
    world.ring();
    world.os().settle();
    // The halt has its interrupt: messages need no ATS.
    let requests = world
        .sent()
        .iter()
        .filter(|s| s.kind() != sent::INTERRUPT)
        .count();
    nothing_was_sent(&world, requests)
}

fn nothing_starts_without_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.ats(false);
    world.configure(PASID, 0, 1 << 16);
    world.ats(true);
    let started = world.start_bare(1, world.process().pasid().get());
    world.equal("START", started, (status::HALTED, halt::FUNCTION_DISABLED))?;
    seen("no context starts")
}

fn nothing_in_d3(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_absent(HERE, 0x1000);
    world.stage(&[fill(page, 8, 1)]);
    let before = world.mark();
    world.machine().set_power(false);
    world.ring();
    world.os().settle();
    world.machine().set_power(true);
    // The halt has its interrupt in D0.
    let sent = world.sent_since(before);
    let requests = sent.iter().filter(|s| s.kind() != sent::INTERRUPT).count();
    world.equal("requests in D3hot", requests, 0)?;
    world.equal("the context", world.state().0, status::HALTED)?;
    seen("nothing was sent")
}

fn each_interrupt_comes(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.machine().take_interrupts();
    for n in 1..=4 {
        world.prepare(Descriptor {
            flags: flags::INTERRUPT,
            ..nop()
        });
        world.os().settle();
        let what = format!("interrupts of completion {n}");
        world.equal(&what, world.machine().take_interrupts(), 1)?;
    }
    world.equal("interrupts counted", world.counter(index::INTERRUPTS), 4)?;
    seen("4 of 4")
}

fn nothing_in_privileged_mode(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map_absent(HERE, 0x2000);
    let ticket = world.submit(copy(page, page + 0x1000, 8));
    world.wait(ticket);
    let requests = world.page_requests();
    world.holds(
        "page requests",
        !requests.is_empty(),
        "some",
        requests.len(),
    )?;
    let privileged = world.sent().iter().filter(|s| s.has(PRIVILEGED)).count();
    world.equal("privileged requests", privileged, 0)?;
    seen("user mode alone")
}

/// The rules.
pub const RULES: &[Rule] =
    &[
        Rule {
            number: 67,
            title: "A function level reset makes contexts and capabilities as new",
            section: "PCIe 6.6.2",
            judged: Judged::By(
                &[Clause::new("page outstanding", a_reset_makes_contexts_new)
                    .catching(&[Device(Mutant::Rule67)])],
            ),
        },
        Rule {
            number: 68,
            title: "Nothing is sent when bus mastering is taken away",
            section: "PCIe 7.5.1.1.3",
            judged: Judged::By(&[Clause::new("staged work", nothing_without_bus_mastering)
                .catching(&[Device(Mutant::Rule68)])]),
        },
        Rule {
            number: 69,
            title: "Nothing is sent when ATS is taken away",
            section: "PCIe 10.5.1.3",
            judged: Judged::By(&[
                Clause::new("staged work", nothing_without_ats).catching(&[Device(Mutant::Rule69)])
            ]),
        },
        Rule {
            number: 70,
            title: "No context starts while PASID is off",
            section: "PCIe 7.8.9.3",
            judged: Judged::By(&[Clause::new("START", nothing_starts_without_pasid)
                .catching(&[Device(Mutant::Rule70)])]),
        },
        Rule {
            number: 71,
            title: "Nothing is sent in D3hot; no end of a user leaks or breaks anything",
            section: "PCIe 5.3.1.4.1",
            judged: Judged::By(&[
                Clause::new("D3hot", nothing_in_d3).catching(&[Device(Mutant::Rule71)])
            ]),
        },
        Rule {
            number: 72,
            title: "Each completion that asks for an interrupt has one",
            section: "PCIe 6.1.4",
            judged: Judged::By(&[
                Clause::new("four", each_interrupt_comes).catching(&[Device(Mutant::Rule72)])
            ]),
        },
        Rule {
            number: 73,
            title: "Nothing is asked for in privileged mode on behalf of a process",
            section: "PCIe 6.20.2.3",
            judged: Judged::By(&[Clause::new("requests", nothing_in_privileged_mode)
                .catching(&[Device(Mutant::Rule73)])]),
        },
    ];
