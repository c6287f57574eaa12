// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the trace that the device left: Chrome trace JSON.

use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;

/// A trace, as viewers read it.
#[derive(Debug, Deserialize)]
pub struct Trace {
    /// The events, in the order in which they were written.
    #[serde(rename = "traceEvents")]
    pub events: Vec<Event>,
}

/// One event of a trace, with the fields that viewers demand.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// What happened.
    pub name: String,
    /// Phase: `X` with a duration, `i` an instant, `b` and `e` the ends of something longer, `M`
    /// metadata.
    pub ph: String,
    /// Microseconds since the start of the trace; metadata has none.
    #[serde(default)]
    pub ts: f64,
    /// Details.
    #[serde(default)]
    pub args: Value,
}

impl Trace {
    /// Reads a trace from its text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        serde_json::from_str(text).context("the trace is not the JSON of a trace viewer")
    }

    /// The events of a name, without the ends of longer ones.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events
            .iter()
            .filter(move |e| e.name == name && e.ph != "e")
    }
}

impl Event {
    /// A detail that is a number.
    pub fn number(&self, key: &str) -> anyhow::Result<u64> {
        let value = self
            .args
            .get(key)
            .with_context(|| format!("{} has no `{key}`", self.name))?;
        let parsed = match value {
            Value::String(text) => match text.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => text.parse().ok(),
            },
            other => other.as_u64(),
        };
        parsed.with_context(|| format!("`{key}` of {} is {value}, expected a number", self.name))
    }
}
