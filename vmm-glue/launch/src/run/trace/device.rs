// SPDX-License-Identifier: MIT OR Apache-2.0
//! The trace of L0's QEMU: the device's, with its unit's side of page requests.

use std::io::BufRead;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::clock::FirstClock;
use super::kernel::{Group, Request};

/// The trace, in ticks of L1's counter.
#[derive(Clone, Debug, Default)]
pub struct DeviceTrace {
    /// All events for viewers, with their times in ticks in the place of microseconds.
    pub events: Vec<(u64, Value)>,
    /// Page requests that the device has sent.
    pub sent: Vec<(u64, Request)>,
    /// Those that the unit has taken.
    pub taken: Vec<(u64, Request)>,
    /// Responses that the unit has sent.
    pub answered: Vec<(u64, Group)>,
    /// Responses that the device has got from it.
    pub received: Vec<(u64, Group)>,
    clock: FirstClock,
}

impl DeviceTrace {
    /// Reads the plug-in's trace. Its last line may be cut off.
    ///
    /// # Errors
    ///
    /// It cannot be read, or has no samples of L1's counter.
    pub fn read(from: impl BufRead) -> Result<Self> {
        let mut samples = Vec::new();
        let mut events = Vec::new();
        let mut broken = false;
        for line in from.lines() {
            let line = line.context("cannot be read")?;
            let text = line.trim().trim_start_matches('[').trim_end_matches(',');
            if text.is_empty() || text == "]" {
                continue;
            }
            ensure!(!broken, "a line in its middle is no event");
            let Ok(event) = serde_json::from_str::<Value>(text) else {
                broken = true;
                continue;
            };
            let micros = event["ts"].as_f64().unwrap_or_default();
            if event["name"] == "guest_clock" {
                let args = &event["args"];
                if let (Some(ticks), Some(within)) =
                    (args["ticks"].as_u64(), args["within_ns"].as_f64())
                {
                    samples.push((micros, within / 1000.0, ticks));
                }
            } else {
                events.push((micros, event));
            }
        }
        let clock = FirstClock::new(&samples).context(
            "it has no samples of the guest's time stamp counter: this QEMU exports no \
             cpus_get_elapsed_ticks",
        )?;
        let mut trace = Self {
            clock,
            ..Self::default()
        };
        for (micros, event) in events {
            let at = trace.clock.ticks(micros);
            trace.take(at, &event);
            trace.events.push((at, event));
        }
        Ok(trace)
    }

    fn take(&mut self, at: u64, event: &Value) {
        let args = &event["args"];
        let Some(group) = group(args) else { return };
        let request = || {
            let address = args["address"].as_str()?.strip_prefix("0x")?;
            let address = u64::from_str_radix(address, 16).ok()?;
            Some(Request { group, address })
        };
        match event["name"].as_str() {
            // A stop marker requests nothing and gets no response.
            Some("page request")
                if args["refused"].is_null() && (args["read"] == true || args["write"] == true) =>
            {
                self.sent.extend(request().map(|request| (at, request)));
            }
            Some("unit takes page request") => {
                self.taken.extend(request().map(|request| (at, request)));
            }
            Some("unit sends PRG response") => self.answered.push((at, group)),
            Some("PRG response") if args["automatic"] == false => self.received.push((at, group)),
            _ => {}
        }
    }

    /// Ticks in a microsecond.
    pub fn ticks_per_micro(&self) -> f64 {
        self.clock.ticks_per_micro()
    }

    /// The samples of the counter are right within this, in microseconds.
    pub fn samples_within(&self) -> f64 {
        self.clock.within
    }

    /// No events, and a clock with so many ticks in a microsecond.
    #[cfg(test)]
    pub fn with_clock(ticks_per_micro: f64) -> Self {
        let second = 1e6 * ticks_per_micro;
        let samples = [(1e6, 0.1, second as u64), (2e6, 0.1, 2 * second as u64)];
        Self {
            clock: FirstClock::new(&samples).unwrap(),
            ..Self::default()
        }
    }
}

fn group(args: &Value) -> Option<Group> {
    Some(Group {
        pasid: args["pasid"]
            .as_u64()
            .and_then(|pasid| pasid.try_into().ok()),
        index: args["prgi"].as_u64()?.try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"[
{"args":{"name":"svm-demo x"},"name":"process_name","ph":"M","pid":1,"tid":1},
{"args":{"ticks":1000000,"within_ns":60},"name":"guest_clock","ph":"M","pid":1,"tid":1,"ts":1000.0},
{"args":{"address":"0x7000","pasid":1,"prgi":3},"cat":"unit","name":"unit takes page request","ph":"i","pid":1,"s":"t","tid":6,"ts":1010.5},
{"args":{"address":"0x7000","last":true,"pasid":1,"prgi":3,"read":true,"refused":null,"write":false},"cat":"pri","name":"page request","ph":"i","pid":1,"s":"t","tid":1001,"ts":1010.0},
{"args":{"address":"0x8000","last":true,"pasid":1,"prgi":4,"read":true,"refused":"QueueFull","write":false},"cat":"pri","name":"page request","ph":"i","pid":1,"s":"t","tid":1001,"ts":1011.0},
{"args":{"pasid":1,"prgi":3},"cat":"unit","name":"unit sends PRG response","ph":"i","pid":1,"s":"t","tid":6,"ts":1100.0},
{"args":{"automatic":false,"code":"success","pasid":1,"prgi":3},"cat":"pri","name":"PRG response","ph":"i","pid":1,"s":"t","tid":1001,"ts":1101.0},
{"args":{"automatic":true,"code":"success","pasid":1,"prgi":4},"cat":"pri","name":"PRG response","ph":"i","pid":1,"s":"t","tid":1001,"ts":1102.0},
{"args":{"ticks":1200000,"within_ns":200},"name":"guest_clock","ph":"M","pid":1,"tid":1,"ts":1200.0},
{"args":{"pas"#;

    #[test]
    fn page_requests_and_responses_are_in_ticks_of_l1() {
        let trace = DeviceTrace::read(TRACE.as_bytes()).unwrap();
        let group = Group {
            pasid: Some(1),
            index: 3,
        };
        let request = Request {
            group,
            address: 0x7000,
        };
        assert_eq!(trace.sent, [(1_010_000, request)]);
        assert_eq!(trace.taken, [(1_010_500, request)]);
        assert_eq!(trace.answered, [(1_100_000, group)]);
        assert_eq!(trace.received, [(1_101_000, group)]);
        assert_eq!((trace.events.len(), trace.samples_within()), (7, 0.2));
    }

    #[test]
    fn a_trace_without_the_counter_cannot_be_joined() {
        let text: Vec<_> = TRACE
            .lines()
            .filter(|line| !line.contains("clock"))
            .collect();
        let error = DeviceTrace::read(text.join("\n").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("time stamp counter"), "{error}");
        let cut = format!("{TRACE}\n]");
        DeviceTrace::read(cut.as_bytes()).unwrap();
        let error = DeviceTrace::read(format!("{TRACE}\n{{}}\n").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("in its middle"), "{error}");
    }
}
