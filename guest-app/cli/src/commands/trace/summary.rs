// SPDX-License-Identifier: MIT OR Apache-2.0
//! A summary of a trace in the format of Chrome and Perfetto, as the QEMU plug-in writes it: the
//! requests per PASID, and how long the answers took.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::BufRead;

use anyhow::{Context, bail, ensure};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The numbers of a trace.
#[derive(Debug, Default, Serialize)]
pub struct Summary {
    /// Events, without those that only assign names.
    pub events: u64,
    /// From the first event to the last, in seconds.
    pub seconds: f64,
    /// By PASID; `none` are requests without one.
    pub pasids: BTreeMap<String, Counts>,
    /// Accesses by kind.
    pub accesses: BTreeMap<String, Accesses>,
    /// Interrupt messages.
    pub interrupts: u64,
    /// Events of the function as a whole.
    pub function: BTreeMap<String, u64>,
    /// Responses to page request groups, by code.
    pub responses: BTreeMap<String, u64>,
    /// Page request groups that were never answered.
    pub unanswered: u64,
    /// From a translation request to its completion.
    pub translation: Latency,
    /// From the first page request of a group to the response.
    pub page_request: Latency,
    /// From an invalidation request to its completion.
    pub invalidation: Latency,
}

/// Events of one PASID.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    /// Translation requests.
    pub translation_requests: u64,
    /// Translation requests that were completed with an error.
    pub refused: u64,
    /// Translation requests whose first page was not present.
    pub absent: u64,
    /// Page requests.
    pub page_requests: u64,
    /// Responses to groups of them.
    pub responses: u64,
    /// Invalidation requests.
    pub invalidations: u64,
}

/// Accesses of one kind.
#[derive(Debug, Default, Serialize)]
pub struct Accesses {
    /// How many.
    pub count: u64,
    /// Bytes of all accesses.
    pub bytes: u64,
    /// Failed accesses.
    pub failed: u64,
}

/// A distribution of times, in microseconds.
#[derive(Debug, Default, Serialize)]
pub struct Latency {
    /// How many.
    pub count: usize,
    /// Half of the samples took no longer.
    pub median: f64,
    /// Nine out of ten samples took no longer.
    pub p90: f64,
    /// Ninety-nine out of a hundred samples took no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
    /// Number of samples below this power of two and not below the previous one.
    pub histogram: BTreeMap<u64, usize>,
    #[serde(skip)]
    samples: Vec<f64>,
}

/// The relevant fields of an event.
#[derive(Debug, Deserialize)]
struct Event {
    name: String,
    ph: String,
    #[serde(default)]
    cat: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: Value,
    #[serde(default)]
    id2: Value,
}

impl Summary {
    /// Reads a trace. A trace may be cut off because QEMU was killed; it is read up to that point.
    pub fn read(mut from: impl BufRead) -> anyhow::Result<Summary> {
        let mut summary = Summary::default();
        let mut groups: HashMap<String, f64> = HashMap::new();
        let (mut first, mut last) = (f64::INFINITY, 0f64);
        let mut line = String::new();
        let mut number = 0u64;
        let mut broken = None;
        loop {
            line.clear();
            number += 1;
            if from.read_line(&mut line).context("cannot be read")? == 0 {
                break;
            }
            if let Some(number) = broken {
                bail!("line {number} is no event of a trace, and more follows");
            }
            let text = line.trim().trim_end_matches(',');
            ensure!(
                number > 1 || text.starts_with('['),
                "this is no trace of the plug-in, which begins with `[`: \
                 `-device svm-demo,trace=FILE` or `svm-vm run --trace` makes one"
            );
            let text = text.strip_prefix('[').unwrap_or(text);
            if text.is_empty() || text == "]" {
                continue;
            }
            match serde_json::from_str::<Event>(text) {
                Ok(event) if event.ph == "M" => {}
                Ok(event) => {
                    first = first.min(event.ts);
                    last = last.max(event.ts + event.dur);
                    summary.take(&event, &mut groups);
                }
                // The last line may be cut off.
                Err(_) => broken = Some(number),
            }
        }
        ensure!(summary.events > 0, "there is no event in it");
        summary.seconds = (last - first) / 1e6;
        summary.unanswered = groups.len() as u64;
        for latency in [
            &mut summary.translation,
            &mut summary.page_request,
            &mut summary.invalidation,
        ] {
            latency.conclude();
        }
        Ok(summary)
    }

    fn take(&mut self, event: &Event, groups: &mut HashMap<String, f64>) {
        self.events += 1;
        let pasid = match &event.args["pasid"] {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            _ => "none".to_owned(),
        };
        let mut counts = |change: fn(&mut Counts)| {
            change(self.pasids.entry(pasid.clone()).or_default());
        };
        match (event.cat.as_str(), event.name.as_str()) {
            ("ats", "translation request") => {
                counts(|counts| counts.translation_requests += 1);
                match &event.args["result"] {
                    Value::String(_) => counts(|counts| counts.refused += 1),
                    Value::Array(all) if is_absent(all.first()) => {
                        counts(|counts| counts.absent += 1);
                    }
                    _ => {}
                }
                self.translation.samples.push(event.dur);
            }
            ("ats", "invalidation") => {
                counts(|counts| counts.invalidations += 1);
                self.invalidation.samples.push(event.dur);
            }
            ("pri", "page request") => counts(|counts| counts.page_requests += 1),
            ("pri", "PRG response") => {
                counts(|counts| counts.responses += 1);
                let code = event.args["code"].as_str().unwrap_or("unknown");
                *self.responses.entry(code.to_owned()).or_default() += 1;
            }
            ("prg", _) => {
                let id = event.id2["local"].to_string();
                if event.ph == "b" {
                    groups.insert(id, event.ts);
                } else if let Some(begin) = groups.remove(&id) {
                    self.page_request.samples.push(event.ts - begin);
                }
                // Its requests and its response are separate events.
                self.events -= 1;
            }
            ("dma", kind) => {
                let accesses = self.accesses.entry(kind.to_owned()).or_default();
                accesses.count += 1;
                accesses.bytes += event.args["length"].as_u64().unwrap_or(0);
                accesses.failed += u64::from(event.args["succeeded"] == Value::Bool(false));
            }
            ("msix", _) => self.interrupts += 1,
            // The unit's side of requests and responses that are there already.
            ("unit", _) => self.events -= 1,
            (_, what) => *self.function.entry(what.to_owned()).or_default() += 1,
        }
    }

    /// As text.
    pub fn render(&self) -> String {
        let mut text = format!("{} events in {:.3} s\n\n", self.events, self.seconds);
        let mut table = new_table([
            "PASID",
            "translation requests",
            "absent",
            "refused",
            "page requests",
            "responses",
            "invalidations",
        ]);
        for (pasid, counts) in &self.pasids {
            let numbers = [
                counts.translation_requests,
                counts.absent,
                counts.refused,
                counts.page_requests,
                counts.responses,
                counts.invalidations,
            ];
            let mut row = vec![pasid.clone()];
            row.extend(numbers.map(|number| number.to_string()));
            table.add_row(row);
        }
        finish(&mut text, table);
        let mut table = new_table(["µs", "count", "median", "p90", "p99", "max"]);
        let latencies = [
            ("translation request", &self.translation),
            ("page request group", &self.page_request),
            ("invalidation", &self.invalidation),
        ];
        for (name, latency) in latencies.iter().filter(|(_, latency)| latency.count > 0) {
            let mut row = vec![(*name).to_owned(), latency.count.to_string()];
            let values = [latency.median, latency.p90, latency.p99, latency.max];
            row.extend(values.map(|value| format!("{value:.1}")));
            table.add_row(row);
        }
        finish(&mut text, table);
        let mut table = new_table(["accesses", "count", "bytes", "failed"]);
        for (kind, accesses) in &self.accesses {
            let numbers = [accesses.count, accesses.bytes, accesses.failed];
            let mut row = vec![kind.clone()];
            row.extend(numbers.map(|number| number.to_string()));
            table.add_row(row);
        }
        finish(&mut text, table);
        // Writing to a String cannot fail.
        let list = |of: &BTreeMap<String, u64>| {
            let items: Vec<_> = of.iter().map(|(name, n)| format!("{n} {name}")).collect();
            items.join(", ")
        };
        let _ = writeln!(text, "{} interrupts", self.interrupts);
        if !self.responses.is_empty() {
            let _ = writeln!(text, "responses: {}", list(&self.responses));
        }
        if self.unanswered > 0 {
            let _ = writeln!(
                text,
                "{} page request groups without a response",
                self.unanswered
            );
        }
        if !self.function.is_empty() {
            let _ = writeln!(text, "the function: {}", list(&self.function));
        }
        for (name, latency) in latencies.iter().filter(|(_, latency)| latency.count > 0) {
            let _ = write!(text, "\n{name}, by time\n{}", latency.bars());
        }
        text
    }
}

fn is_absent(translation: Option<&Value>) -> bool {
    let permissions = translation.and_then(|first| first["permissions"].as_str());
    permissions.is_some_and(|permissions| !permissions.contains(['r', 'w', 'x']))
}

fn new_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn finish(text: &mut String, mut table: Table) {
    if table.row_count() == 0 {
        return;
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
}

impl Latency {
    /// Computes the numbers from the samples.
    fn conclude(&mut self) {
        self.samples.sort_by(f64::total_cmp);
        self.count = self.samples.len();
        let at = |share: f64| {
            let place = (self.count.saturating_sub(1) as f64 * share).round() as usize;
            self.samples.get(place).copied().unwrap_or(0.0)
        };
        (self.median, self.p90, self.p99, self.max) = (at(0.5), at(0.9), at(0.99), at(1.0));
        for sample in &self.samples {
            let below = (sample.max(0.0) as u64 + 1).next_power_of_two();
            let below = if below as f64 <= *sample {
                below * 2
            } else {
                below
            };
            *self.histogram.entry(below).or_default() += 1;
        }
    }

    /// The histogram, with a line for each power of two.
    fn bars(&self) -> String {
        const LONGEST: usize = 50;
        let most = self.histogram.values().copied().max().unwrap_or(1);
        let mut text = String::new();
        let (Some(first), Some(last)) =
            (self.histogram.keys().next(), self.histogram.keys().last())
        else {
            return text;
        };
        let mut below = *first;
        while below <= *last {
            let count = self.histogram.get(&below).copied().unwrap_or(0);
            let bar = "█".repeat((count * LONGEST).div_ceil(most));
            let _ = writeln!(text, "  < {below:>8} µs {count:>8}  {bar}");
            below *= 2;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"[
{"args":{"name":"svm-demo"},"name":"process_name","ph":"M","pid":1,"tid":1},
{"args":{},"cat":"function","name":"conventional reset","ph":"i","pid":1,"s":"t","tid":1,"ts":10.0},
{"args":{"pasid":1,"address":"0x1000","pages":1,"no_write":true,"result":[{"permissions":"---","size_log2":12}]},"cat":"ats","dur":30.5,"name":"translation request","ph":"X","pid":1,"tid":1001,"ts":100.0},
{"args":{"pasid":1,"address":"0x1000","prgi":0},"cat":"unit","name":"unit takes page request","ph":"i","pid":1,"s":"t","tid":6,"ts":139.0},
{"args":{"ticks":1000,"within_ns":60},"name":"guest_clock","ph":"M","pid":1,"tid":1,"ts":139.5},
{"args":{"pasid":1,"prgi":0},"cat":"prg","name":"page request groups, PASID 1","ph":"b","pid":1,"tid":1001,"id2":{"local":"0x3e9.0"},"ts":140.0},
{"args":{"pasid":1,"address":"0x1000","last":true},"cat":"pri","name":"page request","ph":"i","pid":1,"s":"t","tid":1001,"ts":140.0},
{"args":{"pasid":1,"code":"success"},"cat":"prg","name":"page request groups, PASID 1","ph":"e","pid":1,"tid":1001,"id2":{"local":"0x3e9.0"},"ts":940.0},
{"args":{"pasid":1,"prgi":0,"code":"success","automatic":false},"cat":"pri","name":"PRG response","ph":"i","pid":1,"s":"t","tid":1001,"ts":940.0},
{"args":{"pasid":null,"address":"0x1000","result":"Unsupported Request"},"cat":"ats","dur":1.0,"name":"translation request","ph":"X","pid":1,"tid":2,"ts":950.0},
{"args":{"address":"0x31bc000","length":64,"succeeded":true},"cat":"dma","dur":3.4,"name":"translated read","ph":"X","pid":1,"tid":3,"ts":960.0},
{"args":{"pasid":1,"address":"0x0","size_log2":64},"cat":"ats","dur":5.0,"name":"invalidation","ph":"X","pid":1,"tid":1001,"ts":1000.0},
{"args":{"vector":1},"cat":"msix","name":"interrupt","ph":"i","pid":1,"s":"t","tid":5,"ts":1010.0}"#;

    fn read(text: &str) -> anyhow::Result<Summary> {
        Summary::read(text.as_bytes())
    }

    #[test]
    fn a_trace_is_counted_by_pasid_and_kind() {
        let summary = read(TRACE).unwrap();
        assert_eq!(summary.events, 8);
        assert!((summary.seconds - 0.001).abs() < 1e-9);
        let one = &summary.pasids["1"];
        assert_eq!(
            (one.translation_requests, one.absent, one.refused),
            (1, 1, 0)
        );
        assert_eq!(
            (one.page_requests, one.responses, one.invalidations),
            (1, 1, 1)
        );
        assert_eq!(summary.pasids["none"].refused, 1);
        assert_eq!(summary.accesses["translated read"].bytes, 64);
        assert_eq!(summary.responses["success"], 1);
        assert_eq!((summary.interrupts, summary.unanswered), (1, 0));
        assert_eq!(summary.page_request.max, 800.0);
        assert_eq!(summary.page_request.histogram, [(1024, 1)].into());
        assert_eq!(summary.translation.count, 2);
    }

    #[test]
    fn a_trace_may_end_in_the_middle_of_an_event() {
        let whole = read(TRACE).unwrap().events;
        assert_eq!(read(&TRACE[..TRACE.len() - 20]).unwrap().events, whole - 1);
        assert_eq!(read(&format!("{TRACE}\n]\n")).unwrap().events, whole);
    }

    #[test]
    fn what_is_no_trace_is_said() {
        let error = |text: &str| format!("{:#}", read(text).unwrap_err());
        assert!(error("hello\n").contains("begins with `[`"));
        assert!(error("[\n]\n").contains("no event"));
        assert!(error("[\n{]\n{}\n").contains("line 2"));
    }

    #[test]
    fn times_stand_below_their_power_of_two() {
        let mut latency = Latency {
            samples: vec![0.0, 0.5, 1.0, 3.9, 4.0, 700.0],
            ..Latency::default()
        };
        latency.conclude();
        assert_eq!(
            latency.histogram,
            [(1, 2), (2, 1), (4, 1), (8, 1), (1024, 1)].into()
        );
        assert_eq!(latency.bars().lines().count(), 11);
        assert_eq!((latency.median, latency.max), (3.9, 700.0));
    }

    #[test]
    fn the_text_names_what_was_found() {
        let text = read(TRACE).unwrap().render();
        for words in [
            "page request group",
            "800.0",
            "1 conventional reset",
            "translated read",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }
}
