// SPDX-License-Identifier: GPL-2.0-or-later
//! A trace of the traffic between the device and the root complex, event by event. [`output`]
//! writes it.

mod guest_clock;
pub mod marks;
mod output;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use pcie_ats::{
    AlignedRange, MemoryAddressType, MemoryRequest, PageRequest, Pasid, PrgResponse, ResponseCode,
    Translation, TranslationError, TranslationRequest,
};
use serde_json::{Value, json};

use crate::message;
use guest_clock::GuestClock;
use output::{
    DEVICE, FUNCTION, INTERRUPTS, Moment, Output, TRANSLATED, UNIT, UNTRANSLATED, micros, track,
};

/// The trace of one device.
pub struct Trace {
    started: Instant,
    clock: GuestClock,
    /// The device's requester id, or [`UNKNOWN`].
    requester: AtomicU32,
    output: Mutex<Output>,
}

/// The requester id of a device that has requested nothing.
const UNKNOWN: u32 = u32::MAX;

/// All traces, for the unit, which knows devices by their requester ids.
static ALL: Mutex<Vec<Weak<Trace>>> = Mutex::new(Vec::new());

/// The trace of the device with a requester id.
pub fn of_requester(requester: u16) -> Option<Arc<Trace>> {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let is = |trace: &Arc<Trace>| trace.requester.load(Ordering::Relaxed) == u32::from(requester);
    all.iter().filter_map(Weak::upgrade).find(is)
}

/// The kind of a memory access.
#[derive(Clone, Copy)]
pub enum MemoryOperation {
    /// A read.
    Read,
    /// A write.
    Write,
    /// An atomic addition.
    FetchAdd,
    /// An atomic comparison and, if equal, replacement.
    CompareSwap,
}

impl Trace {
    /// Creates or truncates the file for a device with this name. The trace ends at `limit` bytes.
    pub fn create(path: &Path, device: &str, limit: u64) -> io::Result<Arc<Trace>> {
        let started = Instant::now();
        let trace = Arc::new(Trace {
            started,
            clock: GuestClock::new(started),
            requester: AtomicU32::new(UNKNOWN),
            output: Mutex::new(Output::create(path, device, limit)?),
        });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&trace));
        Ok(trace)
    }

    /// The device will send requests by this id.
    pub fn set_requester(&self, requester: u16) {
        self.requester.store(requester.into(), Ordering::Relaxed);
    }

    /// Now.
    pub fn now(&self) -> Moment {
        Moment(self.started.elapsed().as_nanos())
    }

    /// A translation request and its completion.
    pub fn translation(
        &self,
        begin: Moment,
        request: &TranslationRequest,
        result: Result<&[Translation], TranslationError>,
    ) {
        let result = match result {
            Ok(translations) => translations
                .iter()
                .map(translation)
                .collect::<Vec<_>>()
                .into(),
            Err(error) => Value::from(error.to_string()),
        };
        let args = json!({
            "pasid": number(request.pasid),
            "address": hex(request.address),
            "pages": request.pages,
            "no_write": request.no_write,
            "result": result,
        });
        self.complete(
            "translation request",
            "ats",
            track(request.pasid),
            begin,
            args,
        );
    }

    /// A page request that was sent at a moment, with the reason if QEMU refused it.
    pub fn page_request(&self, sent: Moment, request: &PageRequest, refused: Option<String>) {
        let args = json!({
            "pasid": number(request.pasid),
            "address": hex(request.address),
            "read": request.read,
            "write": request.write,
            "last": request.last,
            "prgi": request.prgi.get(),
            "refused": refused,
        });
        let tid = track(request.pasid);
        self.with(|output| {
            let group = (request.pasid, request.prgi);
            // A stop marker requests nothing and gets no response.
            let answered = request.read || request.write;
            if answered && output.open_groups.insert(group) {
                output.group("b", group, sent, json!({ "prgi": request.prgi.get() }));
            }
            output.instant("page request", "pri", tid, sent, args);
        });
    }

    /// The unit takes a page request of the device, and has not told the guest yet.
    pub fn unit_takes(&self, request: &PageRequest) {
        let args = json!({
            "pasid": number(request.pasid),
            "address": hex(request.address),
            "prgi": request.prgi.get(),
        });
        let now = self.now();
        self.with(|output| output.instant("unit takes page request", "unit", UNIT, now, args));
    }

    /// The unit sends the device a response.
    pub fn unit_responds(&self, response: &PrgResponse) {
        let args = json!({
            "pasid": number(response.pasid),
            "prgi": response.prgi.get(),
        });
        let now = self.now();
        self.with(|output| output.instant("unit sends PRG response", "unit", UNIT, now, args));
    }

    /// A page request group response; `automatic` if QEMU did not send it.
    pub fn prg_response(&self, response: &PrgResponse, automatic: bool) {
        let args = json!({
            "pasid": number(response.pasid),
            "prgi": response.prgi.get(),
            "code": match response.code {
                ResponseCode::Success => "success",
                ResponseCode::InvalidRequest => "invalid request",
                ResponseCode::ResponseFailure => "response failure",
            },
            "automatic": automatic,
        });
        let tid = track(response.pasid);
        let now = self.now();
        self.with(|output| {
            let group = (response.pasid, response.prgi);
            if output.open_groups.remove(&group) {
                output.group("e", group, now, args.clone());
            }
            output.instant("PRG response", "pri", tid, now, args);
        });
    }

    /// An invalidation request, from `begin` to its completion.
    pub fn invalidation(&self, begin: Moment, pasid: Option<Pasid>, range: AlignedRange) {
        let args = json!({
            "pasid": number(pasid),
            "address": hex(range.base()),
            "size_log2": range.shift(),
        });
        self.complete("invalidation", "ats", track(pasid), begin, args);
    }

    /// An access to memory.
    pub fn access(
        &self,
        begin: Moment,
        access: MemoryOperation,
        request: &MemoryRequest,
        length: usize,
        succeeded: bool,
    ) {
        let (tid, kind) = match request.address_type {
            MemoryAddressType::Translated => (TRANSLATED, "translated"),
            MemoryAddressType::Untranslated => (UNTRANSLATED, "untranslated"),
        };
        let access = match access {
            MemoryOperation::Read => "read",
            MemoryOperation::Write => "write",
            MemoryOperation::FetchAdd => "fetch-add",
            MemoryOperation::CompareSwap => "compare-swap",
        };
        let args = json!({
            "address": hex(request.address),
            "length": length,
            "succeeded": succeeded,
        });
        self.complete(&format!("{kind} {access}"), "dma", tid, begin, args);
    }

    /// An interrupt message.
    pub fn interrupt(&self, vector: u16) {
        let now = self.now();
        let args = json!({ "vector": vector });
        self.with(|output| output.instant("interrupt", "msix", INTERRUPTS, now, args));
    }

    /// A change of the whole function. It ends outstanding groups, because nothing waits for their
    /// responses any more.
    pub fn function(&self, what: &str) {
        let now = self.now();
        self.with(|output| {
            output.end_groups(now, what);
            output.instant(what, "function", FUNCTION, now, json!({}));
        });
    }

    /// The page request interface is stopped: nothing is outstanding.
    pub fn page_requests_stopped(&self) {
        let now = self.now();
        self.with(|output| output.end_groups(now, "stopped"));
    }

    /// Writes the buffered events.
    pub fn flush(&self) {
        self.with(Output::flush);
    }

    /// Ends the array and closes the file. Events after that are lost.
    pub fn close(&self) {
        self.with(Output::close);
    }

    /// An event that lasted from `begin` to now.
    fn complete(&self, name: &str, category: &str, tid: u64, begin: Moment, args: Value) {
        let end = self.now();
        let event = json!({
            "name": name, "cat": category, "ph": "X", "pid": DEVICE, "tid": tid,
            "ts": micros(begin), "dur": micros(Moment(end.0.saturating_sub(begin.0))),
            "args": args,
        });
        self.with(|output| output.event(tid, &event));
    }

    /// Works on the file, and reports a failure after it has released the lock.
    fn with(&self, work: impl FnOnce(&mut Output)) {
        // It asks QEMU, so the lock is not held.
        let sample = self.clock.sample();
        let mut output = self.lock();
        if let Some(sample) = &sample {
            output.guest_clock(sample);
        }
        work(&mut output);
        let end = output.end.take();
        drop(output);
        if let Some(reason) = end {
            message::warning(&format!("the trace ends here: {reason}"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A PASID as an optional number.
fn number(pasid: Option<Pasid>) -> Option<u32> {
    pasid.map(Pasid::get)
}

/// A translation, in readable form.
fn translation(translation: &Translation) -> Value {
    let permissions: String = [
        (translation.read, 'r'),
        (translation.write, 'w'),
        (translation.execute, 'x'),
    ]
    .iter()
    .map(|(granted, letter)| if *granted { *letter } else { '-' })
    .collect();
    json!({
        "translated": hex(translation.range.base()),
        "size_log2": translation.range.shift(),
        "permissions": permissions,
    })
}

/// Addresses are strings: viewers show numbers as floating-point ones.
fn hex(address: u64) -> String {
    format!("{address:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcie_ats::Prgi;

    fn events(trace: &Trace, path: &Path) -> Vec<Value> {
        trace.flush();
        let text = std::fs::read_to_string(path).unwrap();
        let whole = if text.ends_with("]\n") {
            text
        } else {
            text + "]"
        };
        serde_json::from_str(&whole).unwrap()
    }

    fn page_request(last: bool) -> PageRequest {
        PageRequest {
            address: 0x1000,
            pasid: Some(Pasid::new(5).unwrap()),
            read: true,
            write: true,
            execute: false,
            privileged: false,
            prgi: Prgi::new(7).unwrap(),
            last,
        }
    }

    #[test]
    fn the_array_is_whole_after_closing_and_lacks_only_its_end_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        let trace = Trace::create(&path, "a \"device\"", u64::MAX).unwrap();
        trace.interrupt(3);
        assert_eq!(events(&trace, &path).len(), 4);
        trace.close();
        trace.interrupt(4);
        trace.close();
        assert_eq!(events(&trace, &path).len(), 4);
    }

    #[test]
    fn a_trace_that_is_large_enough_ends_whole_and_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        let trace = Trace::create(&path, "x", 1 << 20).unwrap();
        for _ in 0..20_000 {
            trace.interrupt(3);
        }
        trace.close();
        let size = std::fs::metadata(&path).unwrap().len();
        assert!((1 << 20..(1 << 20) + 4096).contains(&size), "{size}");
        let text = std::fs::read_to_string(&path).unwrap();
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        let last = events.last().unwrap();
        assert_eq!(last["name"], "trace limit");
        assert_eq!(last["args"]["reason"], "it has reached its limit of 1 MiB");
    }

    #[test]
    fn a_reset_ends_the_groups_that_are_outstanding() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        let trace = Trace::create(&path, "x", u64::MAX).unwrap();
        trace.page_request(trace.now(), &page_request(true), None);
        trace.function("reset");
        trace.page_request(trace.now(), &page_request(true), None);
        let phases: Vec<String> = events(&trace, &path)
            .iter()
            .filter(|e| e["cat"] == "prg")
            .map(|e| e["ph"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(phases, ["b", "e", "b"]);
    }

    #[test]
    fn a_trace_is_found_by_the_requester_of_its_device() {
        let directory = tempfile::tempdir().unwrap();
        let create = |name: &str| Trace::create(&directory.path().join(name), "x", 1 << 20);
        let (one, other) = (create("one").unwrap(), create("other").unwrap());
        let is = |requester, trace: &Arc<Trace>| {
            of_requester(requester).is_some_and(|found| Arc::ptr_eq(&found, trace))
        };
        // Numbers that no other test uses.
        assert!(of_requester(0xa1).is_none());
        one.set_requester(0xa1);
        other.set_requester(0xa2);
        assert!(is(0xa1, &one) && is(0xa2, &other));
        drop(one);
        assert!(of_requester(0xa1).is_none() && is(0xa2, &other));
    }

    #[test]
    fn a_stop_marker_opens_no_group() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        let trace = Trace::create(&path, "x", u64::MAX).unwrap();
        let marker = PageRequest {
            read: false,
            write: false,
            ..page_request(true)
        };
        trace.page_request(trace.now(), &marker, None);
        assert!(events(&trace, &path).iter().all(|e| e["cat"] != "prg"));
    }

    #[test]
    fn a_group_is_one_asynchronous_event() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        let trace = Trace::create(&path, "x", u64::MAX).unwrap();
        trace.page_request(trace.now(), &page_request(false), None);
        trace.page_request(trace.now(), &page_request(true), None);
        let request = page_request(true);
        let response = PrgResponse {
            prgi: request.prgi,
            pasid: request.pasid,
            code: ResponseCode::Success,
        };
        trace.prg_response(&response, false);
        let phases: Vec<String> = events(&trace, &path)
            .iter()
            .filter(|e| e["cat"] == "prg")
            .map(|e| e["ph"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(phases, ["b", "e"]);
    }
}
