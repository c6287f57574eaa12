// SPDX-License-Identifier: GPL-2.0-or-later
//! Writes a trace as Chrome trace JSON, which Perfetto and chrome://tracing show.
//!
//! The file is an array of events. The format permits an array without its end, and events are
//! written whole, so if QEMU is killed, the trace is readable except for the last moments. Each
//! PASID is a track, and so is each kind of event without a PASID; a page request group is one
//! asynchronous event, from its first request to its response.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use pcie_ats::{Pasid, Prgi};
use serde_json::{Value, json};

use super::guest_clock::Sample;

/// Bytes to buffer before writing.
const BUFFER: usize = 1 << 16;

/// The process that viewers show: the device.
pub const DEVICE: u64 = 1;

/// Tracks, in the order in which viewers show them. The track with the number of the process is its
/// main track.
pub const FUNCTION: u64 = DEVICE;
pub const WITHOUT_PASID: u64 = 2;
pub const TRANSLATED: u64 = 3;
pub const UNTRANSLATED: u64 = 4;
pub const INTERRUPTS: u64 = 5;
pub const UNIT: u64 = 6;
/// The track of PASID 0; the others follow.
const PASIDS: u64 = 1000;

/// A moment, in nanoseconds since the start of the trace.
#[derive(Clone, Copy)]
pub struct Moment(pub u128);

/// The key of a page request group.
pub type Group = (Option<Pasid>, Prgi);

/// The file, and the state of the events written so far.
pub struct Output {
    /// None if it was closed, or writing has failed.
    file: Option<File>,
    buffer: Vec<u8>,
    tracks: HashSet<u64>,
    pub open_groups: HashSet<Group>,
    /// Bytes in the file.
    written: u64,
    /// The limit of bytes in the file; the end may exceed it a little.
    limit: u64,
    /// Why the trace has ended early, until it is reported.
    pub end: Option<String>,
}

impl Output {
    /// Creates the file for a device of this name, replacing an existing one. It ends at `limit`
    /// bytes.
    pub fn create(path: &Path, device: &str, limit: u64) -> io::Result<Output> {
        let file = File::create(path)?;
        let first = json!({
            "name": "process_name", "ph": "M", "pid": DEVICE, "tid": FUNCTION,
            "args": { "name": format!("svm-demo {device}") },
        });
        let mut output = Output {
            file: Some(file),
            buffer: format!("[\n{first}").into_bytes(),
            tracks: HashSet::new(),
            open_groups: HashSet::new(),
            written: 0,
            limit,
            end: None,
        };
        output.write()?;
        Ok(output)
    }

    /// An event at a moment.
    pub fn instant(&mut self, name: &str, category: &str, tid: u64, at: Moment, args: Value) {
        self.event(
            tid,
            &json!({
                "name": name, "cat": category, "ph": "i", "s": "t", "pid": DEVICE, "tid": tid,
                "ts": micros(at), "args": args,
            }),
        );
    }

    /// The begin or end (`b`, `e`) of a group's outstanding time.
    pub fn group(&mut self, phase: &str, (pasid, prgi): Group, at: Moment, args: Value) {
        let tid = track(pasid);
        let name = format!("page request groups, {}", track_name(tid));
        self.event(
            tid,
            &json!({
                "name": name, "cat": "prg", "ph": phase, "pid": DEVICE, "tid": tid,
                "id2": { "local": format!("{tid:#x}.{}", prgi.get()) }, "ts": micros(at),
                "args": args,
            }),
        );
    }

    /// Ends all outstanding groups.
    pub fn end_groups(&mut self, at: Moment, why: &str) {
        for group in std::mem::take(&mut self.open_groups) {
            self.group("e", group, at, json!({ "code": why }));
        }
    }

    /// Adds an event, and the name of its track if it is the first on it.
    pub fn event(&mut self, tid: u64, event: &Value) {
        if self.file.is_none() {
            return;
        }
        if self.tracks.insert(tid) {
            self.add(&json!({
                "name": "thread_name", "ph": "M", "pid": DEVICE, "tid": tid,
                "args": { "name": track_name(tid) },
            }));
            self.add(&json!({
                "name": "thread_sort_index", "ph": "M", "pid": DEVICE, "tid": tid,
                "args": { "sort_index": tid },
            }));
        }
        self.add(event);
        if self.written + self.buffer.len() as u64 >= self.limit {
            self.end_at_limit(&event["ts"]);
        } else if self.buffer.len() >= BUFFER {
            self.flush();
        }
    }

    /// Adds a sample of the guest's clock, as metadata: viewers show none of it.
    pub fn guest_clock(&mut self, sample: &Sample) {
        if self.file.is_some() {
            self.add(&json!({
                "name": "guest_clock", "ph": "M", "pid": DEVICE, "tid": FUNCTION,
                "ts": micros(Moment(sample.at.into())),
                "args": { "ticks": sample.ticks, "within_ns": sample.within },
            }));
        }
    }

    /// Adds an element to the array.
    fn add(&mut self, element: &Value) {
        self.buffer
            .extend_from_slice(format!(",\n{element}").as_bytes());
    }

    /// Writes the buffer, and gives up if that fails.
    pub fn flush(&mut self) {
        if let Err(error) = self.write() {
            self.end = Some(error.to_string());
            self.file = None;
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.buffer)?;
            self.written += self.buffer.len() as u64;
        }
        self.buffer.clear();
        Ok(())
    }

    /// Ends the array and closes the file.
    pub fn close(&mut self) {
        if self.file.is_some() {
            self.buffer.extend_from_slice(b"\n]\n");
            self.flush();
            self.file = None;
        }
    }

    /// Ends the trace at its size limit, with an event that reports it.
    fn end_at_limit(&mut self, event_time: &Value) {
        let reason = format!("it has reached its limit of {} MiB", self.limit >> 20);
        self.add(&json!({
            "name": "trace limit", "cat": "function", "ph": "i", "s": "g", "pid": DEVICE,
            "tid": FUNCTION, "ts": event_time,
            "args": { "reason": reason },
        }));
        self.close();
        self.end = Some(reason + ": a larger one can be chosen by the property trace-limit");
    }
}

/// The track of a PASID.
pub fn track(pasid: Option<Pasid>) -> u64 {
    pasid.map_or(WITHOUT_PASID, |pasid| PASIDS + u64::from(pasid.get()))
}

/// The name of a track in viewers.
fn track_name(track: u64) -> String {
    match track {
        FUNCTION => "function".to_owned(),
        WITHOUT_PASID => "requests without PASID".to_owned(),
        TRANSLATED => "translated accesses".to_owned(),
        UNTRANSLATED => "untranslated accesses".to_owned(),
        INTERRUPTS => "interrupts".to_owned(),
        UNIT => "remapping unit".to_owned(),
        pasid => format!("PASID {:#x}", pasid - PASIDS),
    }
}

/// Microseconds, as the format requires.
pub fn micros(moment: Moment) -> f64 {
    moment.0 as f64 / 1000.0
}
