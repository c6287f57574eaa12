// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rules 49 to 66: page requests and responses.

use crate::mutant::Mutant::{Device, Unit};
use crate::rule::{Clause, Judged, Rule};
use crate::trial::Trial;
use crate::world::{HERE, Outcome, PRI, World, seen};
use machine::os::{
    Behaviour, CONTEXT_GLOBAL, IOTLB_GLOBAL, PASID_GLOBAL, fill, nop, page_group_response,
};
use pcie_ats::{PrgResponse, Prgi, ResponseCode};
use svm_abi::completion::Error;
use svm_abi::registers::attributes::{LAST, READ, WRITE};
use svm_abi::registers::{command, context, control, laboratory, status};
use svm_endpoint::Mutant;
use vtd::mutant::Mutant as UnitMutant;
use vtd::spec::page_request::{PageRequestDescriptor, SIZE};
use vtd::spec::register::{offset, prs};

/// More requests than any device sends for one page.
const MANY: u64 = 4_000;

/// Two contexts that wait for a page each.
fn two_wait(world: &World) {
    let _waiting = world.wait_for_a_page();
    let other = world.further(1);
    let page = world.process().map_absent(HERE + 0x1000, 0x1000);
    let ticket = other.submit(fill(page, 8, 1));
    assert_eq!(other.wait(ticket), None, "the page is not absent");
}

fn groups_have_their_index(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    two_wait(&world);
    let groups: Vec<u64> = world.page_requests().iter().map(|r| r.prgi()).collect();
    world.equal("page requests", groups.len(), 2)?;
    world.holds(
        "group indices",
        groups[0] != groups[1],
        "two",
        format!("{groups:?}"),
    )?;
    seen(format!("groups {groups:?}"))
}

fn requests_ask_for_something(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.refuse(ResponseCode::InvalidRequest);
    let page = world.process().map_absent(HERE, 0x1000);
    let ticket = world.submit(fill(page, 8, 1));
    world.wait(ticket);
    let requests = world.page_requests();
    world.holds(
        "page requests",
        !requests.is_empty(),
        "some",
        requests.len(),
    )?;
    let asks = |bits| requests.iter().all(|r| r.has(bits));
    world.equal("W of requests for a fill", asks(WRITE), true)?;
    seen("W is set")
}

fn stop_markers(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| wish.device.stop_markers = true);
    let _waiting = world.wait_for_a_page();
    let pasid = world.process().pasid();
    let tail = world.unit(offset::PQT, 8);
    world.os().set_behaviour(Behaviour::Ignore);
    assert!(world.driver().stop(0), "the context does not stop");
    let sent = world.page_requests();
    let marker = sent
        .last()
        .is_some_and(|r| r.has(LAST) && !r.has(READ | WRITE));
    assert!(marker, "the device sends no stop marker");
    let now = world.unit(offset::PQT, 8);
    world.equal("PQT behind a stop marker", now, (tail + SIZE) % 4096)?;
    let queue = world.unit(offset::PQA, 8) & !0xfff;
    let words = [0, 8, 16, 24].map(|word| world.load(queue + tail + word));
    let found = PageRequestDescriptor::from_words(words).ok();
    let bits = found.map(|found| {
        let request = found.request;
        (request.pasid, request.read, request.write, request.last)
    });
    world.equal(
        "the descriptor",
        bits,
        Some((Some(pasid), false, false, true)),
    )?;
    seen("a stop marker is in the queue")
}

fn the_last_says_so(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let ticket = world.submit(fill(world.process().map_absent(HERE, 0x5000), 0x5000, 1));
    world.wait(ticket);
    let requests = world.page_requests();
    let pages: Vec<(u64, bool)> = requests.iter().map(|r| (r.address, r.has(LAST))).collect();
    let expected: Vec<(u64, bool)> = (0..5).map(|n| (HERE + n * 0x1000, n == 4)).collect();
    world.equal("page requests", pages, expected)?;
    seen("the fifth of five pages is the last")
}

fn failure_is_no_success(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.refuse(ResponseCode::ResponseFailure);
    let page = world.process().map_absent(HERE, 0x1000);
    world.fails("a fill", fill(page, 8, 1), Error::ResponseFailure)?;
    seen("Response Failure")
}

fn retries_are_bounded(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.refuse(ResponseCode::Success);
    let ticket = world.submit(fill(world.process().map_absent(HERE, 0x1000), 8, 1));
    let over = world.wait_with_time(ticket, MANY);
    let requests = world.page_requests().len();
    world.holds(
        "an end of the requests",
        over,
        "one",
        format!("{requests} and more"),
    )?;
    let error = world.completion(ticket).map(|done| done.error);
    world.equal("the descriptor", error, Some(Error::RetriesExhausted as u8))?;
    seen(format!(
        "after {} page requests",
        world.page_requests().len()
    ))
}

fn invalid_is_of_one_descriptor(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.refuse(ResponseCode::InvalidRequest);
    let page = world.process().map_absent(HERE, 0x2000);
    world.fails("a fill", fill(page, 8, 1), Error::PageFault)?;
    world.os().set_behaviour(Behaviour::Serve);
    world.succeeds("the next one", fill(page + 0x1000, 8, 1))?;
    seen("the interface goes on")
}

fn failure_ends_requests(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.refuse(ResponseCode::ResponseFailure);
    let page = world.process().map_absent(HERE, 0x2000);
    world.fails("a fill", fill(page, 8, 1), Error::ResponseFailure)?;
    world.equal("RF", world.pri_status() & 1, 1)?;
    let before = world.page_requests().len();
    world.fails("the next one", fill(page + 0x1000, 8, 1), Error::NotPresent)?;
    world.equal(
        "further page requests",
        world.page_requests().len() - before,
        0,
    )?;
    seen("RF is set and nothing is requested")
}

fn unknown_groups_are_noted(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.respond(77, world.process().pasid().get(), ResponseCode::Success);
    world.os().settle();
    world.equal("UPRGI", world.pri_status() >> 1 & 1, 1)?;
    seen("UPRGI is set")
}

fn responses_carry_the_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let required = world.config(PRI) >> 31;
    world.equal("PRG Response PASID Required", required, 1)?;
    let ticket = world.wait_for_a_page();
    let other = world.os().process();
    other.bind(0);
    // Its page requests can be answered, too.
    let others = machine::os::App::start(world.driver(), other.clone(), 1);
    others.wait(others.submit(nop()));
    let prgi = world.page_requests()[0].prgi();
    let before = world.translation_requests().len();
    world.respond(prgi, other.pasid().get(), ResponseCode::Success);
    world.os().settle();
    let after = world.translation_requests().len();
    world.equal(
        "requests after a response under another PASID",
        after - before,
        0,
    )?;
    world.os().release_page_requests();
    world.ends("the fill", ticket, 0)?;
    seen("the group waits for its own response")
}

fn responses_without_a_pasid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let Ok(prgi) = Prgi::new(9) else {
        panic!("9 is a group index");
    };
    let response = PrgResponse {
        prgi,
        pasid: None,
        code: ResponseCode::Success,
    };
    let words = page_group_response(world.machine().requester(0), &response);
    let done = world.os().invalidate(0, &[words]);
    world.equal("the queue behind a response without PASID", done, Ok(()))?;
    seen("the queue goes on")
}

fn credits_bound_pages(trial: &Trial<'_>) -> Outcome {
    let world = trial.world_with(|wish| {
        wish.device.pri_capacity = 3;
        // No other one keeps a credit.
        wish.device.contexts = 1;
    });
    world.os().set_behaviour(Behaviour::Delay);
    let ticket = world.submit(fill(world.process().map_absent(HERE, 0x8000), 0x8000, 1));
    world.equal("a fill of 8 pages", world.wait(ticket), None)?;
    world.equal("pages outstanding", world.page_requests().len(), 3)?;
    seen("3 pages outstanding of 3")
}

fn stopped_when_nothing_is_outstanding(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let _waiting = world.wait_for_a_page();
    world.configure(PRI, 0, 1);
    world.equal(
        "Stopped while a page is outstanding",
        world.pri_status() >> 8 & 1,
        0,
    )?;
    world.os().release_page_requests();
    world.os().settle();
    world.equal("Stopped afterwards", world.pri_status() >> 8 & 1, 1)?;
    seen("Stopped follows the last response")
}

fn overflow_is_asked_again(trial: &Trial<'_>) -> Outcome {
    const LENGTH: u64 = 0x8000;
    const CONTEXTS: u16 = 32;
    let world = trial.world_with(|wish| wish.device.pri_capacity = 1024);
    let work = |n: u64| {
        let page = HERE + n * LENGTH;
        fill(world.process().map_absent(page, LENGTH), LENGTH, n)
    };
    let others: Vec<_> = (1..CONTEXTS).map(|n| world.further(n)).collect();
    let ticket = world.submit(work(0));
    let tickets: Vec<_> = others
        .iter()
        .zip(1..)
        .map(|(other, n)| other.submit(work(n)))
        .collect();
    // Nobody reads the queue, which has room for 127 requests.
    let overflow = || world.unit(offset::PRS, 4) as u32 & prs::PRO != 0;
    let overflows = (0..10_000).any(|_| {
        world.machine().step();
        overflow()
    });
    assert!(overflows, "the page request queue does not overflow");
    let asked = world.mark();
    world.wait_with_time(ticket, u64::MAX);
    world.ends("the first fill", ticket, 0)?;
    for (other, ticket) in others.iter().zip(tickets) {
        // What waits for time to pass has had it.
        world.wait_with_time_of(other, ticket, u64::MAX);
        let done = other.wait(ticket).map(|done| done.error);
        world.equal("a further fill", done, Some(0))?;
    }
    world.holds(
        "requests behind the overflow",
        world.mark() > asked,
        "some",
        "none",
    )?;
    seen("all fills are done")
}

fn without_permission_it_is_invalid(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let entry = world.os().context_place(0);
    // PRE.
    world.store(entry, world.load(entry) & !(1 << 4));
    world.invalidate(&[CONTEXT_GLOBAL, PASID_GLOBAL, IOTLB_GLOBAL]);
    let tail = world.unit(offset::PQT, 8);
    let answer = world.raw(command::PAGE_REQUEST, HERE, world.space() | READ | LAST);
    world.equal("the response with PRE clear", answer, Err(Error::PageFault))?;
    world.equal("PQT", world.unit(offset::PQT, 8), tail)?;
    seen("Invalid Request, and nothing in the queue")
}

fn a_full_queue_answers_by_itself(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    // One place is left, which is none.
    let tail = world.unit(offset::PQT, 8);
    world.os().set_behaviour(Behaviour::Ignore);
    world.set_unit(offset::PQH, (tail + SIZE) % 4096, 8);
    world.begin_raw(command::PAGE_REQUEST, HERE, world.space() | READ | LAST);
    // Nobody of software looks at the queue.
    let state = || world.driver().laboratory(laboratory::STATE) & 0xff;
    for _ in 0..1_000 {
        if state() > 1 || !world.machine().step() {
            break;
        }
    }
    let overflow = world.unit(offset::PRS, 4) as u32 & prs::PRO != 0;
    world.equal("PRO", overflow, true)?;
    world.equal("PQT", world.unit(offset::PQT, 8), tail)?;
    // Done: the response is Success.
    world.equal("the state of the request", state(), 2)?;
    seen("PRO, and Success")
}

fn no_request_for_wide_addresses(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let wide = fill(0xdead_0000_0000_0000, 8, 1);
    world.fails(
        "a fill of an address that no process has",
        wide,
        Error::BadAddress,
    )?;
    world.equal("page requests", world.page_requests().len(), 0)?;
    seen("none is requested")
}

fn several_groups(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    two_wait(&world);
    world.equal("groups outstanding", world.os().delayed_page_requests(), 2)?;
    seen("2 groups")
}

fn invalid_ends_the_descriptor(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    world.refuse(ResponseCode::InvalidRequest);
    let page = world.process().map_absent(HERE, 0x1000);
    world.fails("a fill", fill(page, 8, 1), Error::PageFault)?;
    world.succeeds("a descriptor without pages", nop())?;
    seen("its descriptor fails, the next one succeeds")
}

fn a_stop_waits(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let _waiting = world.wait_for_a_page();
    world.set(0, context::CONTROL, control::STOP);
    world.equal(
        "the context before the response",
        world.state().0,
        status::STOPPING,
    )?;
    world.os().release_page_requests();
    world.os().settle();
    world.equal("the context behind it", world.state().0, status::DISABLED)?;
    seen("STOP ends with the last response")
}

fn a_stop_is_done(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    world.set(0, context::CONTROL, control::STOP);
    world.equal("the context behind STOP", world.state().0, status::DISABLED)?;
    seen("DISABLED at once")
}

fn a_stop_takes_the_entries(trial: &Trial<'_>) -> Outcome {
    let world = trial.world();
    let page = world.process().map(HERE, 0x1000);
    world.prepare(fill(page, 8, 1));
    assert!(world.driver().stop(0), "the context does not stop");
    let old = world.replace(page);
    world.is_asked_for_anew(page, old)
}

/// The rules.
pub const RULES: &[Rule] = &[
    Rule {
        number: 49,
        title: "Groups that are outstanding have different indices",
        section: "PCIe 10.4.1",
        judged: Judged::By(&[
            Clause::new("indices", groups_have_their_index).catching(&[Device(Mutant::Rule49)])
        ]),
    },
    Rule {
        number: 50,
        title: "A page request asks for read or write; only a stop marker asks for nothing",
        section: "PCIe 10.4.1, 10.4.1.2; VT-d 7.4.1",
        judged: Judged::By(&[
            Clause::new("read or write", requests_ask_for_something)
                .catching(&[Device(Mutant::Rule50)]),
            Clause::new("stop marker", stop_markers).catching(&[Unit(UnitMutant::G11)]),
        ]),
    },
    Rule {
        number: 51,
        title: "Only the last request of a group says Last",
        section: "PCIe 10.4.1",
        judged: Judged::By(&[
            Clause::new("last", the_last_says_so).catching(&[Device(Mutant::Rule51)])
        ]),
    },
    Rule {
        number: 52,
        title: "Response codes: Success, Invalid Request, Response Failure",
        section: "PCIe 10.4.2.1",
        judged: Judged::By(&[
            Clause::new("failure", failure_is_no_success).catching(&[Device(Mutant::Rule52)])
        ]),
    },
    Rule {
        number: 53,
        title: "After Success the page is asked for anew, a bounded number of times",
        section: "PCIe 10.4.2",
        judged: Judged::By(&[
            Clause::new("bounded", retries_are_bounded).catching(&[Device(Mutant::Rule53)])
        ]),
    },
    Rule {
        number: 54,
        title: "Invalid Request fails its descriptor, and the interface goes on",
        section: "PCIe 10.4.2.1",
        judged: Judged::By(&[Clause::new("goes on", invalid_is_of_one_descriptor)
            .catching(&[Device(Mutant::Rule54)])]),
    },
    Rule {
        number: 55,
        title: "Response Failure ends page requests until they are enabled anew",
        section: "PCIe 10.4.2.1, 10.5.2.3",
        judged: Judged::By(&[
            Clause::new("RF", failure_ends_requests).catching(&[Device(Mutant::Rule55)])
        ]),
    },
    Rule {
        number: 56,
        title: "A response to no group is noted in UPRGI",
        section: "PCIe 10.5.2.3",
        judged: Judged::By(&[
            Clause::new("UPRGI", unknown_groups_are_noted).catching(&[Device(Mutant::Rule56)])
        ]),
    },
    Rule {
        number: 57,
        title: "Responses carry the PASID of their group",
        section: "PCIe 10.4.2.2, 10.5.2.3",
        judged: Judged::By(&[
            Clause::new("PASID", responses_carry_the_pasid)
                .catching(&[Device(Mutant::Rule57), Unit(UnitMutant::G29)]),
            Clause::new("without a PASID", responses_without_a_pasid)
                .catching(&[Unit(UnitMutant::S57)]),
        ]),
    },
    Rule {
        number: 58,
        title: "No more pages are outstanding than were allocated",
        section: "PCIe 10.5.2.5",
        judged: Judged::By(&[
            Clause::new("credits", credits_bound_pages).catching(&[Device(Mutant::Rule58)])
        ]),
    },
    Rule {
        number: 59,
        title: "Stopped is set when no page request is outstanding",
        section: "PCIe 10.5.2.3",
        judged: Judged::By(
            &[Clause::new("Stopped", stopped_when_nothing_is_outstanding)
                .catching(&[Device(Mutant::Rule59)])],
        ),
    },
    Rule {
        number: 60,
        title: "Virtual functions use the credits of their physical function",
        section: "PCIe 10.5.2",
        judged: Judged::Nowhere {
            reason: "the device has no virtual functions: there is no SR-IOV capability",
            holds: |trial| {
                let machine = trial.machine();
                let mut at = 0x100;
                while at != 0 {
                    let header = machine.config_read(0, at);
                    if header as u16 == 0x0010 {
                        return false;
                    }
                    at = (header >> 20) as u16;
                }
                true
            },
        },
    },
    Rule {
        number: 61,
        title: "What an overflow of the page request queue dropped is asked for again",
        section: "VT-d 7.4.1",
        judged: Judged::By(&[
            Clause::new("overflow", overflow_is_asked_again).catching(&[Device(Mutant::Rule61)]),
            Clause::new("full queue", a_full_queue_answers_by_itself)
                .catching(&[Unit(UnitMutant::G22)]),
            Clause::new("PRE clear", without_permission_it_is_invalid)
                .catching(&[Unit(UnitMutant::S61)]),
        ]),
    },
    Rule {
        number: 62,
        title: "Page requests that no process can have made are answered Invalid Request",
        section: "Linux, intel_handle_prq()",
        judged: Judged::By(&[Clause::new(
            "the device's part: addresses",
            no_request_for_wide_addresses,
        )
        .catching(&[Device(Mutant::Rule62)])]),
    },
    Rule {
        number: 63,
        title: "Several groups are outstanding at once",
        section: "PCIe 10.4.1",
        judged: Judged::By(&[
            Clause::new("two", several_groups).catching(&[Device(Mutant::Rule63)])
        ]),
    },
    Rule {
        number: 64,
        title: "Faults of a process that ends are answered Invalid Request: never a hang",
        section: "Linux, iommu_report_device_fault()",
        judged: Judged::By(&[
            Clause::new("ends", invalid_ends_the_descriptor).catching(&[Device(Mutant::Rule64)])
        ]),
    },
    Rule {
        number: 65,
        title: "After the end of a bond no page request of its PASID is left or answered",
        section: "PCIe 10.4.1.2; Linux, intel_iommu_drain_pasid_prq()",
        judged: Judged::By(&[
            Clause::new("waits", a_stop_waits).catching(&[Device(Mutant::Rule65)]),
            Clause::new("nothing outstanding", a_stop_is_done).catching(&[Device(Mutant::Stop65)]),
        ]),
    },
    Rule {
        number: 66,
        title: "Nothing of a PASID is left after its stop",
        section: "PCIe 10.4.1.2",
        judged: Judged::By(&[
            Clause::new("entries", a_stop_takes_the_entries).catching(&[Device(Mutant::Rule66)])
        ]),
    },
];
