// SPDX-License-Identifier: MIT OR Apache-2.0
//! The results.

use crate::measure::Times;
use serde_json::{Value, json};
use std::path::Path;

/// What a result must reach.
#[derive(Clone, Copy)]
pub enum Goal {
    /// Nothing was set.
    None,
    /// The ratio of value to baseline must be at least this.
    RatioAtLeast(f64),
    /// The ratio of value to baseline (the smaller, the better) must be at most this.
    RatioAtMost(f64),
    /// The ratio of baseline to value (the smaller, the better) must be at least this.
    SpeedupAtLeast(f64),
}

/// A result.
pub struct Entry {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What the value is compared with, in the same unit.
    pub baseline: f64,
    /// What that is.
    pub against: &'static str,
    pub goal: Goal,
    /// The times behind value and baseline, where both are times.
    pub times: Option<[Times; 2]>,
}

impl Entry {
    /// Operations a second, or bytes.
    pub fn rate(
        name: impl Into<String>,
        unit: &'static str,
        [ours, theirs]: [Times; 2],
        against: &'static str,
        goal: Goal,
    ) -> Self {
        Entry {
            name: name.into(),
            value: 1.0 / ours.best,
            unit,
            baseline: 1.0 / theirs.best,
            against,
            goal,
            times: Some([ours, theirs]),
        }
    }

    /// Nanoseconds for an operation.
    pub fn nanoseconds(
        name: impl Into<String>,
        [ours, theirs]: [Times; 2],
        against: &'static str,
        goal: Goal,
    ) -> Self {
        Entry {
            name: name.into(),
            value: ours.best * 1e9,
            unit: "ns",
            baseline: theirs.best * 1e9,
            against,
            goal,
            times: Some([ours, theirs]),
        }
    }

    /// Median and 99th percentile of value and baseline, each in multiples of its best.
    fn spread(&self) -> Option<[[f64; 2]; 2]> {
        self.times
            .map(|times| times.map(|times| [times.p50 / times.best, times.p99 / times.best]))
    }

    fn ratio(&self) -> f64 {
        match self.goal {
            Goal::SpeedupAtLeast(_) => self.baseline / self.value,
            _ => self.value / self.baseline,
        }
    }

    fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::None => None,
            Goal::RatioAtLeast(least) | Goal::SpeedupAtLeast(least) => Some(self.ratio() >= least),
            Goal::RatioAtMost(most) => Some(self.ratio() <= most),
        }
    }

    fn goal(&self) -> Option<String> {
        match self.goal {
            Goal::None => None,
            Goal::RatioAtLeast(least) => Some(format!("value / baseline >= {least}")),
            Goal::RatioAtMost(most) => Some(format!("value / baseline <= {most}")),
            Goal::SpeedupAtLeast(least) => Some(format!("baseline / value >= {least}")),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "value": rounded(self.value),
            "unit": self.unit,
            "baseline": rounded(self.baseline),
            "against": self.against,
            "ratio": rounded(self.ratio()),
            "goal": self.goal(),
            "met": self.met(),
            "spread": self.spread().map(|[value, baseline]| json!({
                "p50": rounded(value[0]),
                "p99": rounded(value[1]),
                "baseline_p50": rounded(baseline[0]),
                "baseline_p99": rounded(baseline[1]),
            })),
        })
    }
}

/// Four digits, which is more than the measurement is worth.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// A number as people like it.
fn readable(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.2} G", value / 1e9),
        v if v >= 1e6 => format!("{:.2} M", value / 1e6),
        v if v >= 1e4 => format!("{:.1} k", value / 1e3),
        _ => format!("{value:.2}  "),
    }
}

/// All results.
pub struct Report {
    only: Option<String>,
    entries: Vec<Entry>,
}

impl Report {
    pub fn new(only: Option<String>) -> Self {
        Report {
            only,
            entries: Vec::new(),
        }
    }

    /// Whether a benchmark of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Whether one of these is wanted.
    pub fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    pub fn add(&mut self, entry: Entry) {
        if self.wants(&entry.name) {
            eprintln!("bench: {} done", entry.name);
            self.entries.push(entry);
        }
    }

    pub fn all_met(&self) -> bool {
        self.entries.iter().all(|entry| entry.met() != Some(false))
    }

    /// Name and ratio of each.
    pub fn ratios(&self) -> impl Iterator<Item = (&str, f64)> {
        self.entries
            .iter()
            .map(|entry| (&entry.name[..], entry.ratio()))
    }

    pub fn print(&self) {
        let width = self.entries.iter().map(|e| e.name.len()).max().unwrap_or(4);
        println!(
            "{:width$}  {:>11} {:13} {:>11} {:>7} {:>5} {:>5}  goal",
            "name", "value", "unit", "baseline", "ratio", "p50", "p99"
        );
        for entry in &self.entries {
            let goal = match (entry.goal(), entry.met()) {
                (Some(goal), Some(true)) => format!("met      {goal}"),
                (Some(goal), _) => format!("NOT MET  {goal}"),
                (None, _) => String::new(),
            };
            let [p50, p99] = match entry.spread() {
                Some([[p50, p99], _]) => [format!("{p50:.2}"), format!("{p99:.2}")],
                None => [String::new(), String::new()],
            };
            println!(
                "{:width$}  {:>11} {:13} {:>11} {:>7.2} {p50:>5} {p99:>5}  {goal} (baseline: {})",
                entry.name,
                readable(entry.value),
                entry.unit,
                readable(entry.baseline),
                entry.ratio(),
                entry.against,
            );
        }
    }

    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let entries: Vec<Value> = self.entries.iter().map(Entry::json).collect();
        std::fs::write(path, format!("{:#}\n", Value::from(entries)))
    }
}
