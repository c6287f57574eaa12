// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device's trace and QEMU's log are two accounts of one run, written by different programs:
//! they must tell the same.
//!
//! * Every page group response that the kernel sent to the device is in the trace, and no other
//!   but those that the root complex gave by itself (`automatic`).
//! * Every page request group in the trace was answered once.
//! * Every invalidation in the trace is one that the kernel sent. (The kernel also invalidates for
//!   PASIDs that no context uses any more; the device does not hear of those.)

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::qemu_log::{Descriptor, Invalidation, Response, parse_line};
use crate::trace::Trace;

/// The kinds of events that a demonstration must have caused.
const KINDS: &[&str] = &[
    "translation request",
    "page request",
    "PRG response",
    "invalidation",
    "translated read",
    "translated write",
    "interrupt",
];

/// What a PRG response is known by in both accounts: PASID, PRGI, response code.
type ResponseKey = (u64, u64, u8);
/// What an invalidation is known by in both accounts: PASID, if it has one, first address, log2 of
/// the size.
type InvalidationKey = (Option<u64>, u64, u64);

/// Compares the two files; the summary says how much there was to compare.
pub fn of_files(trace: &Path, log: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(log)
        .with_context(|| format!("{} cannot be read", log.display()))?;
    compare(&Trace::read(trace)?, &text)
}

/// Compares the two accounts.
pub fn compare(trace: &Trace, log: &str) -> anyhow::Result<String> {
    ensure!(
        trace.named("trace limit").next().is_none(),
        "the trace has reached the limit of its size and lacks its end: look at what fills it"
    );
    for kind in KINDS {
        ensure!(
            trace.named(kind).next().is_some(),
            "the trace has no event `{kind}`"
        );
    }
    let mut logged_responses: BTreeMap<ResponseKey, u64> = BTreeMap::new();
    let mut logged_invalidations: BTreeMap<InvalidationKey, u64> = BTreeMap::new();
    for line in log.lines() {
        match parse_line(line) {
            Some(Descriptor::Response(Response {
                pasid, prgi, code, ..
            })) => {
                *logged_responses
                    .entry((pasid.into(), prgi.into(), code))
                    .or_default() += 1;
            }
            Some(Descriptor::Invalidation(Invalidation {
                pasid, base, shift, ..
            })) => {
                *logged_invalidations
                    .entry((pasid.map(u64::from), base, shift.into()))
                    .or_default() += 1;
            }
            None => {}
        }
    }
    let mut traced_responses: BTreeMap<ResponseKey, u64> = BTreeMap::new();
    let mut automatic = 0;
    for e in trace.named("PRG response") {
        if e.flag("automatic")? {
            automatic += 1;
            continue;
        }
        let code = match e.word("code")? {
            "success" => 0,
            "invalid request" => 1,
            "response failure" => 0xf,
            other => anyhow::bail!("a PRG response has the code {other:?}"),
        };
        *traced_responses
            .entry((e.number("pasid")?, e.number("prgi")?, code))
            .or_default() += 1;
    }
    let mut traced_invalidations: BTreeMap<InvalidationKey, u64> = BTreeMap::new();
    for e in trace.named("invalidation") {
        let key = (
            e.number_if_any("pasid")?,
            e.address("address")?,
            e.number("size_log2")?,
        );
        *traced_invalidations.entry(key).or_default() += 1;
    }
    let mut groups = 0;
    for e in trace.named("page request") {
        groups += u64::from(e.flag("last")?);
    }
    let responses: u64 = traced_responses.values().sum();
    let invalidations: u64 = traced_invalidations.values().sum();

    ensure!(
        traced_responses == logged_responses,
        "PRG responses differ.\nin the trace (PASID, PRGI, code): {traced_responses:?}\nin QEMU's log: {logged_responses:?}"
    );
    ensure!(
        groups == responses + automatic,
        "the trace has {groups} page request groups, {responses} PRG responses of the kernel and \
         {automatic} automatic ones"
    );
    for (key, count) in &traced_invalidations {
        let sent = logged_invalidations.get(key).copied().unwrap_or(0);
        ensure!(
            *count <= sent,
            "the trace has {count} invalidations (PASID, address, log2 of size) {key:x?}, the kernel sent {sent}"
        );
    }
    Ok(format!(
        "{groups} page request groups, {responses} responses, {invalidations} invalidations"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Event;

    const LOG: &str = "\
vtd_inv_desc invalidate desc type device-piotlb high 0x7f0000000000 low 0x100080008
vtd_inv_desc invalidate desc type page group response high 0x18 low 0x100080019
";

    fn trace(responses: &str) -> Trace {
        let text = format!(
            r#"[
            {{"name":"process_name","ph":"M"}},
            {{"name":"translation request","ph":"X"}},
            {{"name":"translated read","ph":"X"}},
            {{"name":"translated write","ph":"X"}},
            {{"name":"interrupt","ph":"i"}},
            {{"name":"page request groups, PASID 0x1","ph":"b"}},
            {{"name":"page request","ph":"i","args":{{"pasid":1,"last":true}}}},
            {{"name":"invalidation","ph":"X","args":{{"pasid":1,"address":"0x7f0000000000","size_log2":12}}}}
            {responses}
            ]"#
        );
        Trace::parse(&text).unwrap()
    }

    const RESPONSE: &str = r#",{"name":"PRG response","ph":"i","args":{"pasid":1,"prgi":3,"code":"success","automatic":false}}"#;

    #[test]
    fn two_equal_accounts_agree() {
        let summary = compare(&trace(RESPONSE), LOG).unwrap();
        assert_eq!(
            summary,
            "1 page request groups, 1 responses, 1 invalidations"
        );
    }

    #[test]
    fn a_lost_response_is_found() {
        let twice = LOG.to_owned() + LOG;
        assert!(compare(&trace(RESPONSE), &twice).is_err());
    }

    #[test]
    fn a_trace_that_ended_too_soon_is_not_compared() {
        let mut cut = trace("");
        cut.events.push(Event {
            name: "trace limit".into(),
            ph: "i".into(),
            args: serde_json::Value::Null,
        });
        let error = compare(&cut, LOG).unwrap_err().to_string();
        assert!(error.contains("limit"), "{error}");
    }

    #[test]
    fn an_invented_response_is_found() {
        let two = RESPONSE.to_owned() + RESPONSE;
        assert!(compare(&trace(&two), LOG).is_err());
    }

    #[test]
    fn a_kind_that_never_came_is_found() {
        let error = compare(&trace(""), LOG).unwrap_err().to_string();
        assert!(error.contains("PRG response"), "{error}");
    }

    #[test]
    fn an_invented_invalidation_is_found() {
        let without = LOG.lines().last().unwrap();
        assert!(compare(&trace(RESPONSE), without).is_err());
    }
}
