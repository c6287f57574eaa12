// SPDX-License-Identifier: MIT OR Apache-2.0
//! The endpoint's rules, one short test each, with the real unit above it. `table.rs` has for each
//! rule a device that breaks it, which its test must notice; `docs/rules.md` shows that table.

mod bench;
mod table;

use bench::{ATS, Bench, COMMAND, HERE, MUTANT, PASID, PRI};
use machine::Moment;
use machine::os::{
    App, Behaviour, CONTEXT_GLOBAL, IOTLB_GLOBAL, copy, crc32c, device_tlb_pasid, fetch_add, fill,
    nop,
};
use pcie_ats::{AlignedRange, MemoryAddressType, PasidWidth, Prgi, Reset, ResponseCode};
use svm_abi::completion::Error;
use svm_abi::counters::index;
use svm_abi::descriptor::{Descriptor, flags};
use svm_abi::registers::{context, control, halt, status};
use svm_endpoint::{Power, Step};
use vtd::spec::register::offset;

#[test]
fn rule_01_ats_pri_and_pasid_are_listed() {
    let bench = Bench::new();
    let mut at = 0x100;
    let mut found = Vec::new();
    while at != 0 {
        let header = bench.config(at);
        found.push((header as u16, header >> 16 & 0xf));
        at = (header >> 20) as u16;
    }
    assert_eq!(found, [(0x000f, 1), (0x0013, 1), (0x001b, 1)]);
}

#[test]
fn rule_02_the_queue_depth_is_that_of_all_tags() {
    assert_eq!(Bench::new().config(ATS) & 31, 0);
}

#[test]
fn rule_03_requests_are_aligned_to_a_page() {
    let bench = Bench::new();
    bench.succeeds(fill(bench.process().map(HERE, 0x1000) + 0x801, 3, 1));
    let requests = bench.translation_requests();
    assert!(!requests.is_empty() && requests.iter().all(|r| r.address % 4096 == 0));
}

#[test]
fn rule_05_no_context_starts_while_ats_is_off() {
    let bench = Bench::new();
    bench.ats(false);
    let number = bench.process().pasid().get();
    let started = bench.start_bare(1, number);
    assert_eq!(started, (status::HALTED, halt::FUNCTION_DISABLED));
}

#[test]
fn rule_06_pasid_enable_does_not_change_while_ats_is_on() {
    let bench = Bench::new();
    bench.configure(PASID, 0, 1 << 16);
    assert_ne!(bench.config(PASID) & 1 << 16, 0);
    bench.succeeds(nop());
}

#[test]
fn rule_07_no_pasid_is_wider_than_the_capability_says() {
    let bench = Bench::with(|config| config.pasid_width = PasidWidth::new(8).unwrap());
    let started = bench.start_bare(1, 256);
    assert_eq!(started, (status::HALTED, halt::BAD_PASID));
}

#[test]
fn rule_09_page_requests_are_enabled_only_when_stopped() {
    let bench = Bench::new();
    let _waiting = bench.wait_for_a_page();
    bench.configure(PRI, 0, 1);
    bench.configure(PRI, 1, 1);
    assert_eq!(bench.config(PRI) & 1, 0);
}

#[test]
fn rule_10_the_cache_is_empty_when_ats_is_enabled() {
    let bench = Bench::new();
    let page = bench.process().map(HERE, 0x1000);
    bench.succeeds(fill(page, 8, 1));
    let old = bench.replace(page);
    bench.ats(false);
    bench.ats(true);
    assert_eq!(bench.another().perform(fill(page, 8, 2)).error, 0);
    bench.untouched(old);
}

#[test]
fn rule_11_what_is_translated_is_sent_as_translated() {
    let bench = Bench::new();
    let page = bench.process().map(HERE, 0x1000);
    bench.succeeds(fill(page, 8, 1));
    let accesses = bench.seen(|moment| match moment {
        Moment::Access(request) => Some(request.address_type),
        _ => None,
    });
    assert!(accesses.contains(&MemoryAddressType::Translated));
    assert!(!accesses.contains(&MemoryAddressType::Untranslated));
}

#[test]
fn rule_13_a_function_that_may_not_ask_is_told_so() {
    let bench = Bench::new();
    // PRE and DTE of the scalable-mode context entry.
    let machine = bench.machine();
    let (ram, devfn) = (machine.ram(), u64::from(machine.requester(0).devfn()));
    let root = machine.unit_read(0, offset::RTADDR, 8) & !0xfff;
    let entry = (ram.load(root).unwrap() & !0xfff) + devfn * 32;
    ram.store(entry, ram.load(entry).unwrap() & !0x14).unwrap();
    let all = [CONTEXT_GLOBAL, IOTLB_GLOBAL];
    bench.os().invalidate(0, &all).unwrap();
    let ticket = bench.submit(nop());
    assert_eq!(bench.wait(ticket), None);
    assert_eq!(bench.translation_requests().len(), 1);
    assert!(bench.page_requests().is_empty());
    assert_eq!(bench.state(), (status::HALTED, halt::RING_FAULT));
}

#[test]
fn rule_24_the_interrupt_range_of_a_process_is_memory() {
    let bench = Bench::new();
    let page = bench.process().map(0xfee0_0000, 0x1000);
    bench.succeeds(fill(page, 8, 0x1234));
    assert_eq!(bench.process().read(page, 8), 0x1234u64.to_le_bytes());
    assert_eq!(bench.machine().interrupts().count(), 0);
    assert_eq!(bench.os().faults(0), []);
}

#[test]
fn rule_35_atomic_operations_need_the_permission_to_write() {
    let bench = Bench::new();
    let page = bench.process().map_read_only(HERE, 0x1000);
    bench.succeeds(crc32c(page, 8));
    bench.fails(fetch_add(page, 1), Error::PageFault);
    assert_eq!(bench.process().load(page), 0);
}

#[test]
fn rule_36_an_invalidation_is_for_its_pasid_only() {
    let bench = Bench::new();
    let page = bench.process().map(HERE, 0x1000);
    bench.succeeds(fill(page, 8, 1));
    let other = bench.os().process();
    other.bind(0);
    let before = bench.translation_requests().len();
    other.map(HERE, 0x1000);
    other.invalidate(HERE, 0x1000).unwrap();
    bench.succeeds(fill(page, 8, 2));
    assert_eq!(bench.translation_requests().len(), before);
}

#[test]
fn rule_43_an_invalidation_while_ats_is_off_is_answered() {
    let bench = Bench::new();
    bench.ats(false);
    let pasid = bench.process().pasid();
    let words = device_tlb_pasid(bench.machine().requester(0), pasid, AlignedRange::ALL);
    assert_eq!(bench.os().invalidate(0, &[words]), Ok(()));
}

#[test]
fn rule_45_a_global_invalidation_is_for_all_pasids() {
    let bench = Bench::new();
    let page = bench.process().map(HERE, 0x1000);
    bench.succeeds(fill(page, 8, 1));
    let old = bench.replace(page);
    let nobody = pcie_ats::Pasid::new(4000).unwrap();
    let mut words = device_tlb_pasid(bench.machine().requester(0), nobody, AlignedRange::ALL);
    // G.
    words[1] |= 1;
    bench.os().invalidate(0, &[words]).unwrap();
    bench.succeeds(fill(page, 8, 2));
    bench.untouched(old);
}

#[test]
fn rule_51_the_last_request_of_a_group_says_so() {
    let bench = Bench::new();
    bench.succeeds(fill(bench.process().map_absent(HERE, 0x5000), 0x5000, 1));
    let requests: Vec<_> = bench.page_requests();
    let pages: Vec<_> = requests.iter().map(|r| (r.address, r.last)).collect();
    let expected: Vec<_> = (0..5).map(|n| (HERE + n * 0x1000, n == 4)).collect();
    assert_eq!(pages, expected);
}

#[test]
fn rule_52_a_response_failure_is_no_success() {
    let bench = Bench::new();
    bench.refuse(ResponseCode::ResponseFailure);
    let page = bench.process().map_absent(HERE, 0x1000);
    bench.fails(fill(page, 8, 1), Error::ResponseFailure);
}

#[test]
fn rule_53_a_page_that_is_gone_again_is_requested_a_bounded_number_of_times() {
    let bench = Bench::new();
    bench.refuse(ResponseCode::Success);
    let ticket = bench.submit(fill(bench.process().map_absent(HERE, 0x1000), 8, 1));
    let over = (0..10_000).any(|_| {
        bench.os().progress();
        bench.completion(ticket).is_some()
    });
    assert!(over, "there is no end of it");
    let error = bench.completion(ticket).unwrap().error;
    assert_eq!(error, Error::RetriesExhausted as u8);
}

#[test]
fn rule_55_a_failure_ends_page_requests_until_they_are_enabled_anew() {
    let bench = Bench::new();
    bench.refuse(ResponseCode::ResponseFailure);
    let page = bench.process().map_absent(HERE, 0x2000);
    bench.fails(fill(page, 8, 1), Error::ResponseFailure);
    let before = bench.page_requests().len();
    bench.fails(fill(page + 0x1000, 8, 1), Error::NotPresent);
    assert_eq!(bench.page_requests().len(), before);
}

#[test]
fn rule_56_a_response_to_no_group_is_noted() {
    let bench = Bench::new();
    bench.respond(Prgi::new(77).unwrap(), bench.process().pasid().get());
    assert_eq!(bench.pri_status() & 2, 2, "UPRGI");
}

#[test]
fn rule_57_a_response_under_another_pasid_is_not_the_groups() {
    let bench = Bench::new();
    let ticket = bench.wait_for_a_page();
    let prgi = bench.page_requests()[0].prgi;
    let before = bench.translation_requests().len();
    bench.respond(prgi, bench.process().pasid().get() + 1);
    bench.machine().run_until_idle(1000).unwrap();
    assert_eq!(bench.translation_requests().len(), before);
    bench.os().release_page_requests();
    assert_eq!(bench.wait(ticket).map(|done| done.error), Some(0));
}

#[test]
fn rule_58_credits_bound_the_pages_outstanding() {
    let bench = Bench::with(|config| {
        config.pri_capacity = 3;
        // No other one keeps a credit.
        config.contexts = 1;
    });
    bench.os().set_behaviour(Behaviour::Delay);
    let ticket = bench.submit(fill(bench.process().map_absent(HERE, 0x8000), 0x8000, 1));
    assert_eq!(bench.wait(ticket), None);
    assert_eq!(bench.page_requests().len(), 3);
}

#[test]
fn rule_59_stopped_is_set_when_nothing_is_outstanding() {
    let bench = Bench::new();
    let _waiting = bench.wait_for_a_page();
    bench.configure(PRI, 0, 1);
    assert_eq!(bench.pri_status() >> 8 & 1, 0);
    bench.os().release_page_requests();
    bench.os().settle();
    assert_eq!(bench.pri_status() >> 8 & 1, 1);
}

#[test]
fn rule_61_what_an_overflow_answered_is_asked_for_again() {
    const LENGTH: u64 = 0x8000;
    // All contexts together request more than the unit's queue has room for.
    let bench = Bench::with(|config| config.pri_capacity = 1024);
    let work = |n: u64| {
        let page = HERE + n * LENGTH;
        fill(bench.process().map_absent(page, LENGTH), LENGTH, n)
    };
    let others: Vec<App> = (1..32).map(|n| bench.further(n)).collect();
    let ticket = bench.submit(work(0));
    let tickets: Vec<_> = others
        .iter()
        .zip(1..)
        .map(|(other, n)| other.submit(work(n)))
        .collect();
    // The unit's queue has room for 127 requests, and nobody reads it: it answers the rest itself,
    // by Success.
    let refused = || {
        let counters = bench.machine().with_unit(0, |unit, _, _| *unit.counters());
        counters.page_requests_refused
    };
    let mut steps = 0;
    while refused() == 0 {
        steps += 1;
        assert!(
            steps < 10_000,
            "the queue of page requests does not overflow"
        );
        bench.machine().step();
    }
    let asked = bench.page_requests().len();
    assert_eq!(bench.wait(ticket).map(|done| done.error), Some(0));
    for (other, ticket) in others.iter().zip(tickets) {
        assert_eq!(other.wait(ticket).map(|done| done.error), Some(0));
    }
    assert!(
        bench.page_requests().len() > asked,
        "nothing was asked again"
    );
}

#[test]
fn rule_62_no_page_is_requested_that_no_process_can_have() {
    let bench = Bench::new();
    bench.fails(fill(0xdead_0000_0000_0000, 8, 1), Error::BadAddress);
    assert!(bench.page_requests().is_empty());
}

#[test]
fn rule_63_several_groups_are_outstanding_at_once() {
    let bench = Bench::new();
    let _waiting = bench.wait_for_a_page();
    let other = bench.another();
    let ticket = other.submit(fill(
        bench.process().map_absent(HERE + 0x1000, 0x1000),
        8,
        1,
    ));
    assert_eq!(other.wait(ticket), None);
    assert_eq!(bench.os().delayed_page_requests(), 2);
}

#[test]
fn rule_64_an_invalid_request_ends_its_descriptor() {
    let bench = Bench::new();
    bench.refuse(ResponseCode::InvalidRequest);
    let page = bench.process().map_absent(HERE, 0x1000);
    bench.fails(fill(page, 8, 1), Error::PageFault);
    bench.succeeds(nop());
}

#[test]
fn rule_65_a_stop_waits_for_the_responses() {
    let bench = Bench::new();
    let _waiting = bench.wait_for_a_page();
    bench.set(0, context::CONTROL, control::STOP);
    assert_eq!(bench.state().0, status::STOPPING);
    bench.os().release_page_requests();
    bench.os().settle();
    assert_eq!(bench.state().0, status::DISABLED);
}

#[test]
fn rule_66_a_stopped_context_leaves_nothing_in_the_cache() {
    let bench = Bench::new();
    let page = bench.process().map(HERE, 0x1000);
    bench.succeeds(fill(page, 8, 1));
    assert!(bench.driver().stop(0));
    let old = bench.replace(page);
    assert_eq!(bench.another().perform(fill(page, 8, 2)).error, 0);
    bench.untouched(old);
}

#[test]
fn rule_67_a_reset_makes_the_contexts_as_new() {
    let bench = Bench::new();
    let _waiting = bench.wait_for_a_page();
    bench.machine().reset_function(0, Reset::FunctionLevel);
    assert_eq!(bench.state().0, status::DISABLED);
    assert_eq!(bench.config(ATS) >> 31, 0);
}

#[test]
fn rule_68_nothing_is_sent_when_bus_mastering_is_taken_away() {
    let bench = Bench::new();
    let page = bench.process().map(HERE, 0x1000);
    bench.stage(&[fill(page, 8, 1)]);
    bench.configure(COMMAND, 0, 4);
    bench.ring();
    bench.os().settle();
    assert!(bench.moments.lock().unwrap().is_empty());
    assert_eq!(bench.state(), (status::HALTED, halt::FUNCTION_DISABLED));
}

#[test]
fn rule_69_nothing_is_translated_when_ats_is_taken_away() {
    let bench = Bench::new();
    let page = bench.process().map(HERE, 0x1000);
    bench.stage(&[fill(page, 8, 1)]);
    bench.ats(false);
    bench.ring();
    bench.os().settle();
    assert!(bench.moments.lock().unwrap().is_empty());
    assert_eq!(bench.state(), (status::HALTED, halt::FUNCTION_DISABLED));
}

#[test]
fn rule_70_no_context_starts_while_pasid_is_off() {
    let bench = Bench::new();
    bench.ats(false);
    bench.configure(PASID, 0, 1 << 16);
    bench.ats(true);
    let started = bench.start_bare(1, bench.process().pasid().get());
    assert_eq!(started, (status::HALTED, halt::FUNCTION_DISABLED));
}

#[test]
fn rule_71_nothing_is_sent_in_d3() {
    let bench = Bench::new();
    let page = bench.process().map(HERE, 0x1000);
    bench.submit_all(&[fill(page, 8, 1)]);
    let endpoint = bench.machine().endpoint(0);
    endpoint.set_power(Power::D3Hot);
    while bench.machine().step_function(0) == Step::Worked {}
    assert!(bench.moments.lock().unwrap().is_empty());
    endpoint.set_power(Power::D0);
    assert_eq!(bench.state().0, status::HALTED);
}

#[test]
fn rule_72_each_completion_that_asks_for_it_is_told() {
    let bench = Bench::new();
    for _ in 0..4 {
        bench.succeeds(Descriptor {
            flags: flags::INTERRUPT,
            ..nop()
        });
        bench.os().settle();
    }
    assert_eq!(bench.counter(index::INTERRUPTS), 4);
    assert_eq!(bench.machine().interrupts().take().len(), 4);
}

#[test]
fn rule_73_nothing_is_asked_for_in_privileged_mode() {
    let bench = Bench::new();
    let page = bench.process().map_absent(HERE, 0x2000);
    bench.succeeds(copy(page, page + 0x1000, 8));
    assert!(bench.page_requests().iter().all(|r| !r.privileged));
    assert!(bench.translation_requests().iter().all(|r| !r.privileged));
}
