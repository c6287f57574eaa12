// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace of two levels: each page request of the run must be seen at each stop of its way, in
//! order, and there must be as many as the device has counted.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

/// The slices of a page request, by process and name, in the order in which they begin.
const SLICES: &[(&str, &str)] = &[
    ("L0: svm-demo", "page request"),
    ("L0: svm-vtd", "request"),
    ("L1: kernel", "request"),
    ("L1: QEMU with its unit", "request"),
    ("L2: kernel", "handled"),
    ("L1: QEMU with its unit", "response"),
    ("L1: kernel", "response"),
    ("L0: svm-vtd", "response"),
];

/// A slice of a page request.
struct Slice {
    process: String,
    name: String,
    begin: f64,
    end: f64,
}

/// Checks the trace of a run; the summary says how many page requests it has.
pub fn check(directory: &Path) -> anyhow::Result<String> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let results = serde_json::from_str(&read("results.json")?)?;
    let trace: Vec<Value> = serde_json::from_str(&read("trace.json")?)?;
    compare(&results, &trace)
}

/// Checks a trace against the results of its run.
fn compare(results: &Value, trace: &[Value]) -> anyhow::Result<String> {
    let told = &results["page_requests"];
    ensure!(
        told["incomplete"] == 0,
        "page requests that did not come back by all levels: {}",
        told["incomplete"]
    );
    let processes: BTreeMap<u64, &str> = trace
        .iter()
        .filter(|event| event["name"] == "process_name")
        .filter_map(|event| Some((event["pid"].as_u64()?, event["args"]["name"].as_str()?)))
        .collect();
    let mut ways: BTreeMap<u64, Vec<Slice>> = BTreeMap::new();
    for event in trace.iter().filter(|event| event["ph"] == "X") {
        let Some(number) = event["args"]["number"].as_u64() else {
            continue;
        };
        let time = |key: &str| event[key].as_f64().with_context(|| format!("no `{key}`"));
        let process = event["pid"].as_u64().and_then(|pid| processes.get(&pid));
        let name = event["name"].as_str().unwrap_or_default();
        ways.entry(number).or_default().push(Slice {
            process: (*process.context("a slice of no process")?).to_owned(),
            name: name.trim_end_matches(&format!(" {number}")).to_owned(),
            begin: time("ts")?,
            end: time("ts")? + time("dur")?,
        });
    }
    for (number, slices) in &mut ways {
        in_order(slices).with_context(|| format!("page request {number}"))?;
    }
    let count = ways.len() as u64;
    ensure!(
        told["count"] == count,
        "the trace has {count} page requests, and the results {}",
        told["count"]
    );
    let steps = results["steps"].as_array().context("no steps")?;
    let tests = steps.iter().flat_map(|step| step["tests"].as_array());
    let counted = tests
        .flatten()
        .map(|test| &test["counters"]["page_requests"]);
    let counted: u64 = counted.filter_map(Value::as_u64).sum();
    ensure!(
        counted > 0 && count >= counted,
        "the trace has {count} page requests, and the device has counted {counted}"
    );
    Ok(format!("{count} page requests"))
}

/// Fails if a page request is not seen everywhere, or before it can be there.
fn in_order(slices: &mut [Slice]) -> anyhow::Result<()> {
    slices.sort_by(|a, b| a.begin.total_cmp(&b.begin));
    let found: Vec<_> = slices
        .iter()
        .map(|slice| (slice.process.as_str(), slice.name.as_str()))
        .collect();
    ensure!(found == SLICES, "its slices are {found:?}");
    let (whole, parts) = slices.split_first().context("no slices")?;
    for pair in parts.windows(2) {
        // Times are in microseconds, with three digits behind the point.
        ensure!(
            pair[0].begin <= pair[0].end && pair[0].end <= pair[1].begin + 0.001,
            "{:?} ends at {} µs, and {:?} begins at {} µs",
            pair[0].process,
            pair[0].end,
            pair[1].process,
            pair[1].begin
        );
    }
    let ends = parts.iter().map(|slice| slice.end);
    ensure!(
        ends.fold(0.0, f64::max) <= whole.end + 0.001,
        "the device has its response before it was sent"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A trace with ways of these numbers.
    fn trace(numbers: &[u64]) -> Vec<Value> {
        let mut pids = BTreeMap::new();
        let mut events = Vec::new();
        for (process, _) in SLICES {
            let pid = pids.len() + 1;
            pids.entry(*process).or_insert(pid);
        }
        for (process, pid) in &pids {
            events.push(json!({
                "name": "process_name", "ph": "M", "pid": pid, "args": { "name": process },
            }));
        }
        for number in numbers {
            for (n, (process, name)) in SLICES.iter().enumerate() {
                let length = if n == 0 { 80 } else { 10 };
                events.push(json!({
                    "name": format!("{name} {number}"), "ph": "X", "pid": pids[process],
                    "ts": 100 * number + 10 * n as u64, "dur": length,
                    "args": { "number": number },
                }));
            }
        }
        events
    }

    fn results(count: u64, counted: u64) -> Value {
        json!({
            "page_requests": { "count": count, "incomplete": 0 },
            "steps": [{ "tests": [{ "counters": { "page_requests": counted } }, {}] }],
        })
    }

    fn error(results: &Value, trace: &[Value]) -> String {
        format!("{:#}", compare(results, trace).unwrap_err())
    }

    #[test]
    fn a_trace_has_all_that_the_device_counted() {
        let good = trace(&[0, 1, 2]);
        assert_eq!(compare(&results(3, 3), &good).unwrap(), "3 page requests");
        assert!(error(&results(3, 4), &good).contains("has counted 4"));
        assert!(error(&results(4, 3), &good).contains("the results 4"));
        assert!(error(&results(0, 0), &trace(&[])).contains("has counted 0"));
        let mut some = results(3, 3);
        some["page_requests"]["incomplete"] = json!(1);
        assert!(error(&some, &good).contains("by all levels: 1"));
    }

    #[test]
    fn a_slice_that_is_missing_or_elsewhere_is_noticed() {
        let good = trace(&[0, 1]);
        let first = good.len() - 2 * SLICES.len();
        for n in 0..SLICES.len() {
            let mut lacks = good.clone();
            lacks.remove(first + n);
            let error = error(&results(2, 2), &lacks);
            assert!(error.contains("page request 0: its slices are"), "{error}");
        }
        for n in 2..SLICES.len() {
            let mut early = good.clone();
            early[first + n - 1]["dur"] = json!(10.5);
            let error = error(&results(2, 2), &early);
            assert!(error.contains("begins at"), "{n}: {error}");
        }
        let mut late = good.clone();
        late[first]["dur"] = json!(79);
        assert!(error(&results(2, 2), &late).contains("before it was sent"));
    }
}
