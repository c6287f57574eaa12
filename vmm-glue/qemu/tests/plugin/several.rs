// SPDX-License-Identifier: GPL-2.0-or-later
//! Several devices in one machine, and PASIDs of all 20 bits: what is sent to one reaches no
//! other.

use svm_abi::completion::status;
use svm_abi::counters::index;
use svm_abi::registers;

use crate::client::Installation;
use crate::context::{Context, DESTINATION, fill};
use crate::machine::{Address, Bars, Machine};

/// Where the devices are.
const FIRST: Address = Address { bus: 0, slot: 4 };
const SECOND: Address = Address { bus: 0, slot: 7 };

/// PASIDs that are equal in their low 8 and 16 bits.
const WIDE: [u32; 3] = [0x0_00de, 0x0_bcde, 0xa_bcde];

/// A machine with both devices enabled, and these PASIDs.
fn devices(pasids: &[u32]) -> Option<(Machine, [Bars; 2])> {
    let installation = Installation::find()?;
    let arguments = ["svm-demo,addr=4.0", "svm-demo,addr=7.0"];
    let arguments: Vec<_> = arguments.iter().flat_map(|d| ["-device", d]).collect();
    let mut machine = Machine::new(&installation, &arguments);
    let bars = [FIRST, SECOND].map(|at| {
        let bars = machine.enable_bars(at);
        machine.enable_ats(at);
        bars
    });
    machine.enable_vtd(&[FIRST, SECOND]);
    for pasid in pasids {
        machine.add_pasid(*pasid);
    }
    Some((machine, bars))
}

/// The first device with a context on each of the wide PASIDs.
fn wide() -> Option<(Machine, Vec<Context>)> {
    let (mut machine, [bars, _]) = devices(&WIDE)?;
    let start = |(number, pasid)| Context::start(&mut machine, bars, number, pasid);
    let contexts = (1..).zip(WIDE).map(start).collect();
    Some((machine, contexts))
}

/// A counter of a device.
fn device_counter(machine: &mut Machine, context: &Context, index: usize) -> u64 {
    let at = context.bars.registers + registers::DEVICE_COUNTERS + 8 * index as u64;
    machine.qemu.readq(at)
}

#[test]
fn pasids_of_20_bits_are_told_apart() {
    let Some((mut machine, mut contexts)) = wide() else {
        return;
    };
    let mut frames = Vec::new();
    for pasid in WIDE {
        let frame = machine.page();
        machine.map(pasid, DESTINATION, frame, true);
        frames.push(frame);
    }
    for (n, context) in contexts.iter_mut().enumerate() {
        context.succeed(&mut machine, fill(DESTINATION, 8, 1 + n as u64));
    }
    let contents = frames.iter().map(|frame| machine.qemu.readq(*frame));
    assert_eq!(contents.collect::<Vec<_>>(), [1, 2, 3]);
    // One of them moves: only its translation is asked for again.
    let translations = contexts
        .iter()
        .map(|context| context.counter(&mut machine, index::TRANSLATION_REQUESTS));
    let before: Vec<_> = translations.collect();
    let moved = machine.page();
    machine.map(WIDE[1], DESTINATION, moved, true);
    machine.invalidate(FIRST, WIDE[1], DESTINATION);
    for (n, context) in contexts.iter_mut().enumerate() {
        context.succeed(&mut machine, fill(DESTINATION, 8, 0x11 + n as u64));
        let now = context.counter(&mut machine, index::TRANSLATION_REQUESTS);
        assert_eq!(now - before[n], u64::from(n == 1), "context {n}");
    }
    frames.push(moved);
    let contents = frames.iter().map(|frame| machine.qemu.readq(*frame));
    assert_eq!(contents.collect::<Vec<_>>(), [0x11, 2, 0x13, 0x12]);
    machine.qemu.quit();
}

#[test]
fn page_requests_of_wide_pasids_get_their_own_responses() {
    let Some((mut machine, mut contexts)) = wide() else {
        return;
    };
    let numbers: Vec<_> = contexts
        .iter_mut()
        .map(|context| context.submit(&mut machine, fill(DESTINATION, 8, 5)))
        .collect();
    let mut requests: Vec<_> = WIDE.iter().map(|_| machine.wait_page_request()).collect();
    requests.sort_by_key(|request| request.pasid);
    assert_eq!(requests.iter().map(|r| r.pasid).collect::<Vec<_>>(), WIDE);
    // Only the last one is given its page; the others are refused.
    let frame = machine.page();
    machine.map(WIDE[2], DESTINATION, frame, true);
    for (request, code) in requests.iter().zip([1, 1, 0]) {
        machine.respond(request, code);
    }
    let ends = contexts.iter().zip(numbers);
    let ends: Vec<_> = ends
        .map(|(context, number)| context.wait(&mut machine, number).status)
        .collect();
    assert_eq!(ends, [status::FAILURE, status::FAILURE, status::SUCCESS]);
    assert_eq!(machine.qemu.readq(frame), 5);
    machine.qemu.quit();
}

#[test]
fn two_devices_share_a_pasid_and_nothing_else() {
    const PASID: u32 = 0x123;
    let Some((mut machine, [first, second])) = devices(&[PASID]) else {
        return;
    };
    let frame = machine.page();
    machine.map(PASID, DESTINATION, frame, true);
    let mut second = Context::start(&mut machine, second, 1, PASID);
    second.succeed(&mut machine, fill(DESTINATION, 8, 0x22));
    // Its ring takes the place of the second one's in the tables, not in the second one's cache.
    let mut first = Context::start(&mut machine, first, 1, PASID);
    first.succeed(&mut machine, fill(DESTINATION, 8, 0x11));
    assert_eq!(machine.qemu.readq(frame), 0x11);
    let counted = device_counter;
    let before = counted(&mut machine, &second, index::INVALIDATIONS);
    machine.invalidate(FIRST, PASID, DESTINATION);
    assert_eq!(counted(&mut machine, &second, index::INVALIDATIONS), before);
    assert_ne!(counted(&mut machine, &first, index::INVALIDATIONS), 0);
    // A page request of the one is answered to it, even if the other has the same group.
    let missing = DESTINATION + 0x1000;
    let number = first.submit(&mut machine, fill(missing, 8, 0x33));
    let request = machine.wait_page_request();
    assert_eq!(request.sid, FIRST.sid());
    let frame = machine.page();
    machine.map(PASID, missing, frame, true);
    machine.respond(&request, 0);
    assert_eq!(first.wait(&mut machine, number).status, status::SUCCESS);
    assert_eq!(machine.qemu.readq(frame), 0x33);
    assert_eq!(counted(&mut machine, &second, index::PRG_RESPONSES), 0);
    machine.qemu.quit();
}
