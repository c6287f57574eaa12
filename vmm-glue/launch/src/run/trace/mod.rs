// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace of a run with two levels: that of the device and of the unit in L0's QEMU, of L1's
//! kernel and QEMU, and of L2's kernel and processes, on one clock.
//!
//! The clock is L1's time stamp counter. L0's QEMU gives it to L1, so its trace has samples of it
//! beside its own time; L1's kernel stamps its events with it, and L1's QEMU writes marks into that
//! trace; L2's differs by an offset, of which L1's kernel traces each change ([`clock`]). Nothing is
//! estimated. Each page request is then followed by its numbers ([`ways`]).

mod clock;
mod device;
mod kernel;
mod viewer;
mod ways;

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use svm_init::events::Event;
use svm_init::plan::TraceEvent;

use super::machine::Files;
use super::render::duration;
use clock::SecondClock;
use device::DeviceTrace;
use kernel::Line;
use ways::{LEGS, STOPS, Seen, Way};

/// Responses to page requests, of all that is submitted: type 9 (VT-d 6.5.2.11), and no type that is
/// in use has these two bits besides.
const RESPONSES: &str = "(qw0 & 8) && (qw0 & 1)";

/// What L1's kernel traces.
pub fn events_of_first() -> Vec<TraceEvent> {
    let mut events = of_unit();
    events.push(event("kvm/kvm_write_tsc_offset"));
    events
}

/// What L2's kernel traces.
pub fn events_of_second() -> Vec<TraceEvent> {
    let mut events = of_unit();
    events.push(TraceEvent {
        optional: true,
        ..event("svm_demo")
    });
    events
}

fn of_unit() -> Vec<TraceEvent> {
    vec![
        event("intel_iommu/prq_report"),
        TraceEvent {
            filter: Some(RESPONSES.to_owned()),
            ..event("intel_iommu/qi_submit")
        },
    ]
}

fn event(name: &str) -> TraceEvent {
    TraceEvent {
        name: name.to_owned(),
        filter: None,
        optional: false,
    }
}

/// The ways of a run's page requests, as results have them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageRequests {
    /// Page requests that came back by all levels.
    pub count: usize,
    /// Page requests of which some level has no trace, or that a level answered by itself.
    pub incomplete: usize,
    /// From a stop to the next.
    pub legs: Vec<Leg>,
    /// From the device and back to it, the median in microseconds.
    pub whole_micros: f64,
    /// How exact the clocks are joined.
    pub clocks: Clocks,
}

/// A part of the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leg {
    /// Where it begins.
    pub from: &'static str,
    /// Where it ends.
    pub to: &'static str,
    /// The median of the time, in microseconds.
    pub micros: f64,
}

/// How exact the clocks are joined, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Clocks {
    /// The samples of L1's counter in L0's trace are right within this.
    pub samples_within: f64,
    /// An error between L0 and L1 that is larger would show a request or a response before its cause.
    pub first_below: f64,
    /// The same between L1 and L2.
    pub second_below: f64,
}

/// Joins the traces of a run, of which the first level did the step `step` for the second, and
/// writes the whole.
///
/// # Errors
///
/// A trace cannot be read, or lacks what it is joined by.
pub fn join(files: &Files, step: &str) -> Result<PageRequests> {
    let device = fs::File::open(&files.device_trace)
        .map_err(anyhow::Error::from)
        .and_then(|file| DeviceTrace::read(std::io::BufReader::new(file)))
        .with_context(|| format!("{}", files.device_trace.display()))?;
    let first = lines(&files.events)?;
    let mut second = lines(&files.second_events)?;
    let lost = |lines: &[Line]| lines.iter().filter(|line| line.is_lost()).count();
    ensure!(
        lost(&first) + lost(&second) == 0,
        "the traces have gaps: a kernel lost events"
    );
    SecondClock::new(&first).convert(&mut second);
    let seen = Seen::new(&device, &first, &second, step);
    let ways = seen.ways();
    let text = viewer::write(&device, &first, &second, &ways);
    fs::write(&files.trace, text)
        .with_context(|| format!("cannot write {}", files.trace.display()))?;
    let _ = fs::remove_file(&files.device_trace);
    Ok(summary(&ways, &device))
}

/// The lines of the trace in a file of events.
fn lines(path: &Path) -> Result<Vec<Line>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let events = text.lines().filter_map(|line| Event::parse(line).ok());
    let traced = events.filter_map(|event| match event {
        Event::Trace(lines) => Some(lines.text),
        _ => None,
    });
    let traced: String = traced.collect();
    Ok(traced.lines().filter_map(Line::parse).collect())
}

fn summary(ways: &[Way], device: &DeviceTrace) -> PageRequests {
    let per_micro = device.ticks_per_micro();
    let complete: Vec<_> = ways.iter().filter_map(Way::complete).collect();
    let micros = |ticks: u64| ticks as f64 / per_micro;
    let legs = (0..LEGS).map(|n| Leg {
        from: STOPS[n],
        to: STOPS[n + 1],
        micros: micros(median(complete.iter().map(|at| at[n + 1] - at[n]))),
    });
    let shortest = |leg: usize| complete.iter().map(|at| at[leg + 1] - at[leg]).min();
    let below = |there, back| {
        let least = shortest(there).min(shortest(back));
        least.map_or(0.0, micros)
    };
    PageRequests {
        count: complete.len(),
        incomplete: ways.len() - complete.len(),
        legs: legs.collect(),
        whole_micros: micros(median(complete.iter().map(|at| at[LEGS] - at[0]))),
        clocks: Clocks {
            samples_within: device.samples_within(),
            first_below: below(1, 7),
            second_below: below(3, 5),
        },
    }
}

/// The median; 0 of nothing.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

impl PageRequests {
    /// The lines for people.
    pub fn lines(&self) -> Vec<String> {
        let time = |micros: f64| match micros {
            ..10.0 => format!("{micros:.1} µs"),
            _ => duration(micros as u64),
        };
        if self.count == 0 {
            return vec!["no page request came back by all levels".to_owned()];
        }
        let mut lines = vec![format!(
            "the way of {} page requests, the median of each leg:",
            self.count
        )];
        lines.extend(self.legs.iter().map(|leg| {
            let name = match leg.from == leg.to {
                true => format!("{} answers", leg.from),
                false => format!("{} to {}", leg.from, leg.to),
            };
            format!("  {name:<26} {:>9}", time(leg.micros))
        }));
        lines.push(format!("  {:<26} {:>9}", "all", time(self.whole_micros)));
        if self.incomplete > 0 {
            lines.push(format!(
                "  {} did not come back by all levels",
                self.incomplete
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legs_of_complete_ways_are_counted() {
        let device = DeviceTrace::with_clock(1000.0);
        let mut at = [0; LEGS + 1].map(Some);
        for (n, at) in at.iter_mut().enumerate() {
            *at = Some(5_000_000 + 2_000_000 * n as u64);
        }
        let whole = Way {
            at,
            ..Way::default()
        };
        let mut part = whole.clone();
        part.at[4] = None;
        let requests = summary(&[whole, part], &device);
        assert_eq!((requests.count, requests.incomplete), (1, 1));
        assert!(requests.legs.iter().all(|leg| leg.micros == 2000.0));
        assert_eq!(requests.whole_micros, 18_000.0);
        assert_eq!(requests.clocks.first_below, 2000.0);
        let lines = requests.lines();
        assert_eq!(lines.len(), 1 + LEGS + 1 + 1);
        assert_eq!(lines[1], "  device to L0's unit           2.0 ms");
        assert_eq!(lines[5], "  L2's kernel answers           2.0 ms");
    }

    #[test]
    fn a_run_without_page_requests_has_no_times() {
        let requests = summary(&[], &DeviceTrace::with_clock(1000.0));
        assert_eq!(requests.lines().len(), 1);
    }
}
