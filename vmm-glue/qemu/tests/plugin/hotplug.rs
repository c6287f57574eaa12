// SPDX-License-Identifier: GPL-2.0-or-later
//! Devices that come and go, and several at once.

use serde_json::json;
use svm_abi::completion::status;
use svm_abi::registers;

use crate::client::Installation;
use crate::context::{Context, copy};
use crate::machine::{Address, Machine, is_svm_vtd};

const ROOT_PORT: Address = Address { bus: 0, slot: 3 };
const PLUGGED: Address = Address { bus: 1, slot: 0 };
const PASID: u32 = 5;
const SOURCE: u64 = 0x10_0000_0000;
const DESTINATION: u64 = 0x20_0000_0000;

/// Ports of the machine's hotplug registers: which slots to empty, eject, and the bus
/// that the others are about.
const DOWN: u16 = 0x0cc4;
const EJECT: u16 = 0x0cc8;
const SELECT: u16 = 0x0cd0;

/// A machine with an empty root port.
fn empty() -> Option<Machine> {
    let installation = Installation::find()?;
    let port = "pcie-root-port,id=rp0,addr=3.0,chassis=1";
    let mut machine = Machine::new(&installation, &["-device", port]);
    machine.open_root_port(ROOT_PORT);
    machine.enable_vtd(&[PLUGGED]);
    machine.add_pasid(PASID);
    Some(machine)
}

/// Plugs the device in and starts its context 1.
fn plug(machine: &mut Machine) -> Context {
    let device = json!({ "driver": "svm-demo", "id": "plugged", "bus": "rp0" });
    machine.qemu.qmp("device_add", device).unwrap();
    let bars = machine.enable_bars(PLUGGED);
    machine.enable_ats(PLUGGED);
    Context::start(machine, bars, 1, PASID)
}

/// Takes a device out, as an operating system does when it is asked to.
pub fn unplug(machine: &mut Machine, id: &str) {
    machine.qemu.qmp("device_del", json!({ "id": id })).unwrap();
    let mut ejected = false;
    for bus in 0..8 {
        machine.qemu.outl(SELECT, bus);
        let slots = machine.qemu.inl(DOWN);
        if slots != 0 && slots != u32::MAX {
            machine.qemu.outl(EJECT, slots);
            ejected = true;
        }
    }
    assert!(ejected, "nobody asks for an ejection");
    let event = machine.qemu.wait_event("DEVICE_DELETED");
    assert_eq!(event["data"]["device"], id);
}

/// Copies from a mapped page to another.
fn works(machine: &mut Machine, context: &mut Context) {
    let (source, destination) = (machine.page(), machine.page());
    machine.map(PASID, SOURCE, source, true);
    machine.map(PASID, DESTINATION, destination, true);
    machine.invalidate(PLUGGED, PASID, SOURCE);
    machine.invalidate(PLUGGED, PASID, DESTINATION);
    machine.qemu.write(source, b"hot");
    let record = context.run(machine, copy(SOURCE, DESTINATION, 3));
    assert_eq!(record.status, status::SUCCESS, "{record:?}");
    assert_eq!(machine.qemu.read(destination, 3), b"hot");
}

#[test]
fn a_device_comes_works_goes_and_comes_again() {
    let Some(mut machine) = empty() else { return };
    for _ in 0..3 {
        let mut context = plug(&mut machine);
        works(&mut machine, &mut context);
        unplug(&mut machine, "plugged");
        assert_eq!(machine.config_read(PLUGGED, 0), u32::MAX);
    }
    machine.qemu.quit();
}

#[test]
fn a_device_may_go_while_it_waits_for_a_page() {
    let Some(mut machine) = empty() else { return };
    let mut context = plug(&mut machine);
    context.submit(&mut machine, copy(SOURCE, DESTINATION, 3));
    let request = machine.wait_page_request();
    assert_eq!(request.sid, PLUGGED.sid());
    unplug(&mut machine, "plugged");
    // Nobody is there to hear it.
    machine.respond(&request, 0);
    if is_svm_vtd() {
        // That of a function that is gone would never come.
        machine.invalidate_iotlb(PASID, SOURCE);
    } else {
        machine.invalidate(PLUGGED, PASID, SOURCE);
    }
    let mut context = plug(&mut machine);
    works(&mut machine, &mut context);
    machine.qemu.quit();
}

#[test]
fn a_device_may_go_while_it_works() {
    let Some(mut machine) = empty() else { return };
    let mut context = plug(&mut machine);
    let (source, destination) = (machine.page(), machine.page());
    machine.map(PASID, SOURCE, source, true);
    machine.map(PASID, DESTINATION, destination, true);
    for _ in 0..32 {
        context.submit(&mut machine, copy(SOURCE, DESTINATION, 0x1000));
    }
    unplug(&mut machine, "plugged");
    let mut context = plug(&mut machine);
    works(&mut machine, &mut context);
    machine.qemu.quit();
}

#[test]
fn qemu_may_end_while_the_device_works_and_while_it_waits() {
    for mapped in [true, false] {
        let Some(mut machine) = empty() else { return };
        let mut context = plug(&mut machine);
        let (source, destination) = (machine.page(), machine.page());
        if mapped {
            machine.map(PASID, SOURCE, source, true);
            machine.map(PASID, DESTINATION, destination, true);
        }
        for _ in 0..32 {
            context.submit(&mut machine, copy(SOURCE, DESTINATION, 0x1000));
        }
        machine.qemu.quit();
    }
}

#[test]
fn a_device_may_go_while_an_automatic_response_is_on_its_way() {
    let Some(mut machine) = empty() else { return };
    let mut context = plug(&mut machine);
    machine.fill_page_queue(true);
    context.submit(&mut machine, copy(SOURCE, DESTINATION, 3));
    while !machine.page_queue_overflowed() {}
    unplug(&mut machine, "plugged");
    machine.fill_page_queue(false);
    let mut context = plug(&mut machine);
    works(&mut machine, &mut context);
    machine.qemu.quit();
}

#[test]
fn two_devices_know_nothing_of_each_other() {
    let Some(installation) = Installation::find() else {
        return;
    };
    let places = [Address { bus: 0, slot: 4 }, Address { bus: 0, slot: 5 }];
    let arguments = [
        "-device",
        "svm-demo,addr=4.0",
        "-device",
        "svm-demo,addr=5.0,contexts=2",
    ];
    let mut machine = Machine::new(&installation, &arguments);
    machine.enable_vtd(&places);
    let mut contexts = Vec::new();
    for (at, pasid) in places.into_iter().zip([5, 6]) {
        let bars = machine.enable_bars(at);
        machine.enable_ats(at);
        machine.add_pasid(pasid);
        contexts.push(Context::start(&mut machine, bars, 1, pasid));
    }
    // Both wait for the same page, each in its own address space.
    let numbers: Vec<u64> = contexts
        .iter_mut()
        .map(|context| context.submit(&mut machine, copy(SOURCE, SOURCE + 0x800, 8)))
        .collect();
    let mut requests = [machine.wait_page_request(), machine.wait_page_request()];
    requests.sort_by_key(|request| request.pasid);
    for (request, at) in requests.iter().zip(places) {
        assert_eq!((request.sid, request.address), (at.sid(), SOURCE));
    }
    // The second is answered first.
    for index in [1, 0] {
        let frame = machine.page();
        machine.qemu.writeq(frame, 0x1000 + index as u64);
        machine.map(requests[index].pasid, SOURCE, frame, true);
        machine.respond(&requests[index], 0);
        let record = contexts[index].wait(&mut machine, numbers[index]);
        assert_eq!(record.status, status::SUCCESS, "{record:?}");
        assert_eq!(machine.qemu.readq(frame + 0x800), 0x1000 + index as u64);
    }
    // A reset of one leaves the other as it is.
    machine.reset_function(places[0]);
    let status = contexts[1].status(&mut machine);
    assert_eq!(registers::status::state(status), registers::status::ENABLED);
    machine.qemu.quit();
}
