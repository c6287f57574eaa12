// SPDX-License-Identifier: GPL-2.0-or-later
//! The trace file: all that passes is in it, and it can be read whatever ends QEMU.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use svm_abi::completion::status;
use svm_abi::descriptor::flags;
use svm_abi::registers;

use crate::context::{Context, copy};
use crate::machine::{DEVICE, Machine};

const PASID: u32 = 0x321;
const SOURCE: u64 = 0x7f00_0040_0000;
const DESTINATION: u64 = 0x7f00_0080_0000;

/// Lets a device with a trace do one of everything.
fn traced(trace: &Path) -> Option<Machine> {
    let mut machine = Machine::with(&format!(",id=traced,trace={}", trace.display()))?;
    let bars = machine.enable_bars(DEVICE);
    machine.enable_ats(DEVICE);
    machine.enable_vtd(&[DEVICE]);
    machine.add_pasid(PASID);
    let mut context = Context::start(&mut machine, bars, 1, PASID);
    context.write(
        &mut machine,
        registers::context::VECTOR,
        registers::vector::ENABLE | 1,
    );
    let source = machine.page();
    machine.map(PASID, SOURCE, source, true);
    let mut work = copy(SOURCE, DESTINATION, 0x40);
    work.flags |= flags::INTERRUPT;
    let number = context.submit(&mut machine, work);
    let request = machine.wait_page_request();
    let destination = machine.page();
    machine.map(PASID, DESTINATION, destination, true);
    machine.respond(&request, 0);
    assert_eq!(context.wait(&mut machine, number).status, status::SUCCESS);
    machine.invalidate(DEVICE, PASID, DESTINATION);
    // What the device does after the completion record is in the trace when it rests.
    let interrupts = registers::CONTEXT_COUNTERS + 8 * svm_abi::counters::index::INTERRUPTS as u64;
    let at = bars.registers + registers::context_block(1) + interrupts;
    machine
        .qemu
        .until("the interrupt", |qemu| qemu.readq(at) == 1);
    Some(machine)
}

fn parse(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Number of events by name and phase.
fn kinds(events: &[Value]) -> BTreeMap<(String, String), usize> {
    let mut kinds = BTreeMap::new();
    for event in events {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        *kinds.entry((text("name"), text("ph"))).or_insert(0) += 1;
    }
    kinds
}

#[test]
fn a_trace_holds_all_that_passed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace.json");
    let Some(machine) = traced(&path) else { return };
    machine.qemu.quit();
    let events = parse(&std::fs::read_to_string(&path).unwrap());
    let kinds = kinds(&events);
    let count = |name: &str, phase: &str| {
        kinds
            .get(&(name.to_owned(), phase.to_owned()))
            .copied()
            .unwrap_or(0)
    };
    let groups = format!("page request groups, PASID {PASID:#x}");
    assert!(count("translation request", "X") >= 3, "{kinds:?}");
    assert!(count("translated read", "X") >= 2, "{kinds:?}");
    assert!(count("translated write", "X") >= 2, "{kinds:?}");
    assert_eq!(count(&groups, "b"), 1, "{kinds:?}");
    assert_eq!(count(&groups, "e"), 1, "{kinds:?}");
    assert_eq!(count("page request", "i"), 1, "{kinds:?}");
    assert_eq!(count("PRG response", "i"), 1, "{kinds:?}");
    assert_eq!(count("invalidation", "X"), 1, "{kinds:?}");
    assert_eq!(count("interrupt", "i"), 1, "{kinds:?}");
    let named = |name: &'static str| events.iter().filter(move |e| e["name"] == name);
    let invalidation = named("invalidation").next().unwrap();
    assert_eq!(invalidation["args"]["pasid"], PASID);
    assert_eq!(invalidation["args"]["address"], format!("{DESTINATION:#x}"));
    assert_eq!(invalidation["args"]["size_log2"], 12);
    let asked: Vec<_> = named("translation request")
        .filter(|e| e["args"]["address"] == format!("{SOURCE:#x}"))
        .collect();
    assert!(!asked.is_empty());
    assert!(named("thread_name").any(|e| e["args"]["name"] == format!("PASID {PASID:#x}")));
    assert!(named("process_name").any(|e| e["args"]["name"] == "svm-demo traced"));
    // Viewers sort by time, but each event has one.
    assert!(
        events
            .iter()
            .all(|e| e["ph"] == "M" || e["ts"].as_f64().is_some_and(|ts| ts >= 0.0))
    );
}

#[test]
fn the_trace_of_a_killed_qemu_lacks_only_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace.json");
    let Some(mut machine) = traced(&path) else {
        return;
    };
    // The thread writes when it comes to rest, which nothing but the file tells.
    machine.qemu.until("the trace to be written", |_| {
        std::fs::read_to_string(&path)
            .unwrap()
            .contains("\"interrupt\"")
    });
    machine.qemu.kill();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.trim_end().ends_with(']'));
    let events = parse(&(text + "]"));
    assert!(kinds(&events).contains_key(&("translation request".to_owned(), "X".to_owned())));
}
