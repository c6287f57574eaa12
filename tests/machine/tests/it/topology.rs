// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several endpoints, several units, and what keeps them apart.

use crate::end_to_end::pattern;
use machine::os::{App, Driver, Mode, Os, copy, crc32c, fetch_add, fill};
use machine::{Engines, Machine, MachineConfig, MachineError};
use pcie_ats::{MemoryRequest, RootPort};
use svm_abi::completion::Error;
use vtd::spec::fault::FaultReason;

/// Four endpoints behind two units.
fn two_units() -> MachineConfig {
    let mut config = MachineConfig::with_functions(4);
    config.units.push(machine::unit());
    config.functions[2].unit = 1;
    config.functions[3].unit = 1;
    config
}

#[test]
fn functions_of_several_units_share_a_process() {
    for engines in [0, 2] {
        let machine = Machine::new(&two_units()).unwrap();
        let os = Os::boot(&machine, Mode::Scalable);
        let process = os.process();
        let apps: Vec<_> = (0..4)
            .map(|function| {
                let driver = Driver::probe(&os, function);
                App::start(&driver, process.clone(), function as u16)
            })
            .collect();
        let _engines = (engines != 0).then(|| Engines::start(&machine, engines));
        let counter = process.map(0x10_0000, 0x1000);
        let buffer = process.map(0x20_0000, 0x1_0000);
        let data = pattern(0x1000, 7);
        process.write(buffer, &data);
        for round in 0..30 {
            let mut tickets = Vec::new();
            for app in &apps {
                tickets.push((app, app.submit(fetch_add(counter, 1))));
                let (from, to) = (buffer, buffer + 0x4000);
                tickets.push((app, app.submit(copy(from, to, 0x1000))));
            }
            // An invalidation reaches all of them.
            for page in [counter, buffer, buffer + 0x4000] {
                let old = process.migrate(page).unwrap();
                machine.ram().fill(old, 4096, 0xee).unwrap();
                os.frames().free(old);
            }
            for (app, ticket) in tickets {
                assert_eq!(app.wait(ticket).map(|done| done.error), Some(0));
            }
            assert_eq!(process.load(counter), (round + 1) * 4);
            assert_eq!(process.read(buffer + 0x4000, 0x1000), data);
        }
    }
}

#[test]
fn a_function_reaches_only_the_processes_that_it_is_bound_to() {
    let machine = Machine::new(&MachineConfig::with_functions(2)).unwrap();
    let os = Os::boot(&machine, Mode::Scalable);
    let first = App::start(&Driver::probe(&os, 0), os.process(), 0);
    let second = App::start(&Driver::probe(&os, 1), os.process(), 0);
    let secret = first.process().map(0x10_0000, 0x1000);
    assert_eq!(
        second.perform(crc32c(secret, 8)).error,
        Error::PageFault as u8
    );
    // The first process's PASID means nothing to the second function.
    let pasid = Some(first.process().pasid());
    let request = MemoryRequest::untranslated(secret, pasid);
    let port = machine.port(1);
    assert!(port.read(&request, &mut [0; 8]).is_err());
    assert!(machine.port(0).read(&request, &mut [0; 8]).is_ok());
    let faults = os.faults(0);
    assert_eq!(faults.len(), 1);
    assert_eq!(faults[0].sid, machine.requester(1));
    assert_eq!(faults[0].pasid, pasid.map(pcie_ats::Pasid::get));
}

#[test]
fn an_interrupt_entry_is_for_its_function_only() {
    let machine = Machine::new(&MachineConfig::with_functions(2)).unwrap();
    let os = Os::boot(&machine, Mode::Scalable);
    let message = os.route(0, 0);
    let came = || {
        let taken = machine.interrupts().take();
        taken.iter().filter(|i| i.message == message).count()
    };
    // The second function sends the request of the first one's vector.
    let request = MemoryRequest::untranslated(0xfee0_0010, None);
    let refused = machine.port(1).write(&request, &0u32.to_le_bytes());
    assert!(refused.is_err());
    assert_eq!(came(), 0);
    let reasons: Vec<_> = os.faults(0).iter().map(|fault| fault.fr).collect();
    assert_eq!(reasons, [FaultReason::IrteSourceId]);
    assert!(machine.port(0).write(&request, &0u32.to_le_bytes()).is_ok());
    assert_eq!(came(), 1);
}

#[test]
fn units_see_the_functions_behind_them_only() {
    let machine = Machine::new(&two_units()).unwrap();
    let os = Os::boot(&machine, Mode::Scalable);
    let app = App::start(&Driver::probe(&os, 2), os.process(), 0);
    let base = app.process().map(0x10_0000, 0x1000);
    assert_eq!(app.perform(fill(base, 0x1000, 1)).error, 0);
    let walks = |unit| machine.with_unit(unit, |unit, _, _| unit.counters().page_walks);
    assert_eq!(walks(0), 0);
    assert!(walks(1) > 0);
    // An invalidation that the wrong unit sends is never completed.
    let range = pcie_ats::AlignedRange::ALL;
    let words = machine::os::device_tlb_pasid(machine.requester(2), app.process().pasid(), range);
    assert_eq!(
        os.invalidate(0, &[words]),
        Err(machine::os::QueueFault::Stuck)
    );
    assert_eq!(os.invalidate(1, &[words]), Ok(()));
}

#[test]
fn a_function_that_is_switched_off_in_the_middle_stops() {
    let app = App::quick();
    let base = app.process().map(0x10_0000, 0x10_0000);
    let ticket = app.submit(fill(base, 0x10_0000, 1));
    app.machine().step();
    app.machine().config_write(0, 4, 0, 4);
    assert_eq!(app.wait(ticket), None);
    assert_eq!(svm_abi::registers::status::state(app.status()), 3);
    assert_eq!(app.os().faults(0), []);
}

#[test]
fn machines_that_cannot_be_are_refused_with_the_reason() {
    let bad = |change: fn(&mut MachineConfig)| {
        let mut config = MachineConfig::with_functions(2);
        change(&mut config);
        Machine::new(&config).unwrap_err()
    };
    assert!(matches!(bad(|c| c.memory = 5), MachineError::Ram(_)));
    assert!(matches!(
        bad(|c| c.units.clear()),
        MachineError::NoUnit { .. }
    ));
    let same = bad(|c| c.functions[1].requester = c.functions[0].requester);
    assert!(matches!(same, MachineError::SameRequester(_)));
    let endpoint = bad(|c| c.functions[0].endpoint.contexts = 0);
    assert!(endpoint.to_string().contains("00:01.0"), "{endpoint}");
    assert!(matches!(
        bad(|c| c.units[0].fault_records = 0),
        MachineError::Unit { unit: 0, .. }
    ));
}
