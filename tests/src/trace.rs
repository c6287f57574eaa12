// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading the trace that the device left: Chrome trace JSON, in the form of an array of events.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::Value;

/// The events whose details are kept: all of a long trace would be many times its size in memory.
const DETAILED: &[&str] = &["page request", "PRG response", "invalidation"];

/// A trace, as viewers read it.
#[derive(Debug)]
pub struct Trace {
    /// The events, in the order in which they were written.
    pub events: Vec<Event>,
}

/// One event of a trace.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// What happened.
    pub name: String,
    /// Phase: `X` with a duration, `i` an instant, `b` and `e` the ends of something longer, `M`
    /// metadata.
    pub ph: String,
    /// Details.
    #[serde(default)]
    pub args: Value,
}

/// Takes events one by one.
struct Events;

impl<'de> Visitor<'de> for Events {
    type Value = Trace;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of trace events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Trace, A::Error> {
        let mut events = Vec::new();
        while let Some(mut event) = seq.next_element::<Event>()? {
            if !DETAILED.contains(&event.name.as_str()) {
                event.args = Value::Null;
            }
            events.push(event);
        }
        Ok(Trace { events })
    }
}

impl<'de> Deserialize<'de> for Trace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Events)
    }
}

impl Trace {
    /// Reads a trace from its text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        serde_json::from_str(text).context("the trace is not the JSON of a trace viewer")
    }

    /// Reads a trace from its file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
        serde_json::from_reader(BufReader::new(file))
            .with_context(|| format!("{} is not the JSON of a trace viewer", path.display()))
    }

    /// The events of a name, each once.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events
            .iter()
            .filter(move |e| e.name == name && ["X", "i"].contains(&e.ph.as_str()))
    }
}

impl Event {
    /// A detail.
    fn detail(&self, key: &str) -> anyhow::Result<&Value> {
        self.args
            .get(key)
            .with_context(|| format!("{} has no `{key}`", self.name))
    }

    /// A detail that is a number.
    pub fn number(&self, key: &str) -> anyhow::Result<u64> {
        let value = self.detail(key)?;
        value
            .as_u64()
            .with_context(|| format!("`{key}` of {} is {value}, not a number", self.name))
    }

    /// A detail that is a number, or null where there is none.
    pub fn number_if_any(&self, key: &str) -> anyhow::Result<Option<u64>> {
        match self.detail(key)? {
            Value::Null => Ok(None),
            _ => self.number(key).map(Some),
        }
    }

    /// A detail that is an address: a string, in hexadecimal.
    pub fn address(&self, key: &str) -> anyhow::Result<u64> {
        let value = self.detail(key)?;
        value
            .as_str()
            .and_then(|text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok())
            .with_context(|| format!("`{key}` of {} is {value}, not an address", self.name))
    }

    /// A detail that is true or false.
    pub fn flag(&self, key: &str) -> anyhow::Result<bool> {
        let value = self.detail(key)?;
        value
            .as_bool()
            .with_context(|| format!("`{key}` of {} is {value}, not a flag", self.name))
    }

    /// A detail that is a word.
    pub fn word(&self, key: &str) -> anyhow::Result<&str> {
        let value = self.detail(key)?;
        value
            .as_str()
            .with_context(|| format!("`{key}` of {} is {value}, not a word", self.name))
    }
}
