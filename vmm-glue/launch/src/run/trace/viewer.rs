// SPDX-License-Identifier: MIT OR Apache-2.0
//! The joined trace as viewers read it: Chrome trace JSON, an array of events. Times are those since
//! L1's time stamp counter was 0.
//!
//! Each level has its processes. Besides their events, each process that page requests pass has
//! tracks on which it is seen how long each was there; arrows (flow events) join the slices of one,
//! and their id is its number in the order of sending.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::device::DeviceTrace;
use super::kernel::{Detail, Line};
use super::ways::Way;

/// The processes of the viewer.
const DEVICE: u32 = 1;
const UNIT: u32 = 2;
const FIRST_KERNEL: u32 = 3;
const FIRST_QEMU: u32 = 4;
const FIRST_PROGRAMS: u32 = 5;
const SECOND_KERNEL: u32 = 6;
const SECOND_PROGRAMS: u32 = 7;

/// Their names, in the order in which they are shown.
const PROCESSES: &[(u32, &str)] = &[
    (SECOND_PROGRAMS, "L2: programs"),
    (SECOND_KERNEL, "L2: kernel"),
    (FIRST_QEMU, "L1: QEMU with its unit"),
    (FIRST_KERNEL, "L1: kernel"),
    (FIRST_PROGRAMS, "L1: programs"),
    (UNIT, "L0: svm-vtd"),
    (DEVICE, "L0: svm-demo"),
];

/// Which stop begins and which ends a slice, in which process, and its name.
const SLICES: &[(usize, usize, u32, &str)] = &[
    (0, 9, DEVICE, "page request"),
    (1, 2, UNIT, "request"),
    (2, 3, FIRST_KERNEL, "request"),
    (3, 4, FIRST_QEMU, "request"),
    (4, 5, SECOND_KERNEL, "handled"),
    (6, 7, FIRST_QEMU, "response"),
    (7, 8, FIRST_KERNEL, "response"),
    (8, 9, UNIT, "response"),
];

/// The first of the tracks of page requests: above the numbers of tasks.
const LANES: u32 = 10_000_000;

/// The track of the unit in the device's trace.
const UNIT_TRACK: u64 = 6;

/// Collects the events.
struct Output {
    ticks_per_micro: f64,
    events: Vec<Value>,
    tracks: BTreeSet<(u32, u32)>,
}

impl Output {
    fn micros(&self, ticks: u64) -> f64 {
        // Nanoseconds are enough.
        (ticks as f64 / self.ticks_per_micro * 1000.0).round() / 1000.0
    }

    /// Names a track, once.
    fn track(&mut self, pid: u32, tid: u32, name: &str) {
        if self.tracks.insert((pid, tid)) {
            self.events.push(json!({
                "name": "thread_name", "ph": "M", "pid": pid, "tid": tid,
                "args": { "name": name },
            }));
        }
    }

    fn instant(&mut self, pid: u32, line: &Line) {
        self.track(pid, line.pid, &line.task);
        self.events.push(json!({
            "name": line.event, "cat": "kernel", "ph": "i", "s": "t", "pid": pid, "tid": line.pid,
            "ts": self.micros(line.at), "args": { "text": line.text, "cpu": line.cpu },
        }));
    }

    fn slice(&mut self, (pid, tid): (u32, u32), name: &str, (from, to): (u64, u64), args: Value) {
        let (from, to) = (self.micros(from), self.micros(to));
        self.events.push(json!({
            "name": name, "cat": "way", "ph": "X", "pid": pid, "tid": tid, "ts": from,
            "dur": ((to - from) * 1000.0).round() / 1000.0, "args": args,
        }));
    }

    /// The events of a level's kernel, and what its programs have marked.
    fn level(&mut self, lines: &[Line], kernel: u32, programs: u32) {
        let mut begun: BTreeMap<u32, (u64, String)> = BTreeMap::new();
        for line in lines {
            match &line.detail {
                Detail::Begin(name) => {
                    begun.insert(line.pid, (line.at, name.clone()));
                }
                Detail::End(_) => {
                    if let Some((at, name)) = begun.remove(&line.pid) {
                        self.track(programs, line.pid, &line.task);
                        self.slice((programs, line.pid), &name, (at, line.at), json!({}));
                    }
                }
                Detail::Given { .. } | Detail::Answered(_) => self.instant(FIRST_QEMU, line),
                // What a process asked of the driver. An interrupt comes in any task.
                _ if line.event.starts_with("svm_demo") && line.event != "svm_demo_interrupt" => {
                    self.instant(programs, line);
                }
                _ => self.instant(kernel, line),
            }
        }
    }

    /// The slices of the ways, on as many tracks as were there at a time, and the arrows.
    fn ways(&mut self, ways: &[Way]) {
        let mut slices = Vec::new();
        for (number, way) in ways.iter().enumerate() {
            for &(from, to, pid, name) in SLICES {
                if let (Some(from), Some(to)) = (way.at[from], way.at[to]) {
                    slices.push((from, to, pid, name, number));
                }
            }
        }
        slices.sort_unstable();
        // When each track of a process is free.
        let mut lanes: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut arrows: BTreeMap<usize, Vec<(u64, u32, u32)>> = BTreeMap::new();
        for (from, to, pid, name, number) in slices {
            let free = lanes.entry(pid).or_default();
            let lane = free.iter().position(|free| *free <= from);
            let lane = lane.unwrap_or_else(|| {
                free.push(0);
                free.len() - 1
            });
            free[lane] = to;
            let tid = LANES + lane as u32;
            self.track(pid, tid, "page requests");
            let way = &ways[number];
            let args = json!({
                "number": number, "pasid": way.pasid, "address": format!("{:#x}", way.address),
                "prgi": way.index, "prgi in L2": way.second_index,
            });
            self.slice((pid, tid), &format!("{name} {number}"), (from, to), args);
            arrows.entry(number).or_default().push((from, pid, tid));
        }
        for (number, points) in arrows {
            let last = points.len() - 1;
            for (n, (at, pid, tid)) in points.into_iter().enumerate().filter(|_| last > 0) {
                let phase = match n {
                    0 => "s",
                    n if n == last => "f",
                    _ => "t",
                };
                self.events.push(json!({
                    "name": "way", "cat": "way", "ph": phase, "bp": "e", "id": number, "pid": pid,
                    "tid": tid, "ts": self.micros(at),
                }));
            }
        }
    }

    /// The events of L0.
    fn device(&mut self, device: &DeviceTrace) {
        for (at, event) in &device.events {
            let mut event = event.clone();
            // It has the name of the level instead.
            if event["name"] == "process_name" {
                continue;
            }
            let of_unit = event["tid"] == UNIT_TRACK;
            event["pid"] = json!(if of_unit { UNIT } else { DEVICE });
            if event["ph"] != "M" {
                event["ts"] = json!(self.micros(*at));
            }
            self.events.push(event);
        }
    }
}

/// The text of the joined trace.
pub fn write(device: &DeviceTrace, first: &[Line], second: &[Line], ways: &[Way]) -> String {
    let mut output = Output {
        ticks_per_micro: device.ticks_per_micro(),
        events: Vec::new(),
        tracks: BTreeSet::new(),
    };
    for (order, (pid, name)) in PROCESSES.iter().enumerate() {
        output.events.push(json!({
            "name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": { "name": name },
        }));
        output.events.push(json!({
            "name": "process_sort_index", "ph": "M", "pid": pid, "tid": 0,
            "args": { "sort_index": order },
        }));
    }
    output.device(device);
    output.level(first, FIRST_KERNEL, FIRST_PROGRAMS);
    output.level(second, SECOND_KERNEL, SECOND_PROGRAMS);
    output.ways(ways);
    let lines: Vec<_> = output.events.iter().map(Value::to_string).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slice_of_a_way_has_an_arrow_from_the_one_before() {
        let device = DeviceTrace::with_clock(1.0);
        let mut one = Way::default();
        let mut other = Way::default();
        for n in 0..one.at.len() {
            one.at[n] = Some(100 + 10 * n as u64);
            other.at[n] = Some(105 + 10 * n as u64);
        }
        // Of the other one L2 has no trace.
        other.at[4] = None;
        other.at[5] = None;
        let text = write(&device, &[], &[], &[one, other]);
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        let of = |phase: &str, id: usize| -> Vec<&Value> {
            let is = |event: &&Value| event["ph"] == phase && event["id"] == id;
            events.iter().filter(is).collect()
        };
        let slices = |id: usize| -> Vec<&Value> {
            let is = |event: &&Value| event["ph"] == "X" && event["args"]["number"] == id;
            events.iter().filter(is).collect()
        };
        assert_eq!(
            (slices(0).len(), slices(1).len()),
            (SLICES.len(), SLICES.len() - 2)
        );
        for id in [0, 1] {
            let mut arrows = of("s", id);
            arrows.extend(of("t", id));
            arrows.extend(of("f", id));
            let place = |event: &&Value| ["pid", "tid", "ts"].map(|key| event[key].to_string());
            let mut found: Vec<_> = slices(id).iter().map(place).collect();
            let mut joined: Vec<_> = arrows.iter().map(place).collect();
            found.sort();
            joined.sort();
            assert_eq!(found, joined);
            assert_eq!((of("s", id).len(), of("f", id).len()), (1, 1));
        }
        // Both were at the device at a time, so they are on two tracks.
        let track = |id: usize| slices(id)[0]["tid"].clone();
        assert_ne!(track(0), track(1));
    }
}
