// SPDX-License-Identifier: MIT OR Apache-2.0
//! How costs grow with the work, each to ten times what is usual: a curve for each, in the format
//! of `svmctl bench --save`, which draws them.

use crate::growth::Growth;
use crate::measure::{Effort, Times, time, times};
use crate::unit;
use anyhow::Result;
use machine::os::{App, Driver, Layout, Mode, Os, Ticket, device_tlb_pasid, fill, nop};
use machine::{Machine, MachineConfig};
use pcie_ats::AlignedRange;
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;
use svm_abi::descriptor::Descriptor;

/// Where processes have the pages that the curves are about.
const BASE: u64 = 0x10_0000_0000;
const PAGE: u64 = 4096;

/// The largest number of contexts of a device.
const CONTEXTS: u16 = 256;

/// A curve: what an operation takes, in nanoseconds, by a number.
struct Curve {
    name: &'static str,
    title: &'static str,
    by: &'static str,
    points: Vec<(u64, Times)>,
}

impl Curve {
    fn growth(&self) -> Growth {
        let points = self.points.iter();
        Growth::of(&points.map(|(x, t)| (*x as f64, t.p50)).collect::<Vec<_>>())
    }

    /// As a figure of `svmctl bench`.
    fn json(&self) -> Value {
        let points: Vec<Value> = self
            .points
            .iter()
            .map(|(x, times)| {
                json!({
                    "x": x,
                    "median": times.p50 * 1e9,
                    "p10": times.p10 * 1e9,
                    "p90": times.p90 * 1e9,
                    "samples": times.rounds,
                })
            })
            .collect();
        let axis = |label: &str| json!({ "label": label, "logarithmic": true, "bytes": false });
        json!({
            "name": self.name,
            "title": format!("{}, ns", self.title),
            "x": axis(self.by),
            "y": axis("ns"),
            "series": [{
                "name": self.growth().to_string(),
                "processor": false,
                "points": points,
            }],
            "notes": [],
        })
    }
}

type Measure = fn(Effort) -> Result<Curve>;

/// A file of the system; nothing where it does not exist.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The processor's name.
fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':'));
    name.map_or("unknown", |(_, name)| name.trim()).to_owned()
}

/// Measures all curves.
pub fn run(effort: Effort, wanted: impl Fn(&str) -> bool) -> Result<Value> {
    let all: [(&str, Measure); 6] = [
        ("curve_pages", pages),
        ("curve_pasids", pasids),
        ("curve_contexts", contexts),
        ("curve_page_requests", page_requests),
        ("curve_ring", ring),
        ("curve_invalidations", invalidations),
    ];
    let mut figures = Vec::new();
    for (name, measure) in all {
        if wanted(name) {
            let curve = measure(effort)?;
            eprintln!("bench: {name} done");
            println!("{:37} {}", curve.title, curve.growth());
            figures.push(curve.json());
        }
    }
    Ok(json!({
        "machine": {
            "device": "in process",
            "kernel": read("/proc/sys/kernel/osrelease").trim(),
            "processor": processor(),
            "processors": std::thread::available_parallelism()?.get(),
            "virtual_machine": false,
            "atc_entries": 1024,
            "page_requests": 512,
        },
        "figures": figures,
        "ratios": [],
    }))
}

/// Writes them, unless none was wanted.
pub fn write(curves: &Value, path: &Path) -> Result<bool> {
    let none = curves["figures"].as_array().is_none_or(Vec::is_empty);
    if !none {
        std::fs::write(path, format!("{curves:#}\n"))?;
    }
    Ok(!none)
}

/// What something takes for each number: `prepare` makes the subject, which does so many
/// operations. Each number is measured by itself, because each has a machine of its own.
fn curve<'a>(
    effort: Effort,
    numbers: &[u64],
    mut prepare: impl FnMut(u64) -> Result<(usize, Box<dyn FnMut() -> Duration + 'a>)>,
) -> Result<Vec<(u64, Times)>> {
    numbers
        .iter()
        .map(|&number| {
            let (operations, mut subject) = prepare(number)?;
            let [measured] = times(effort, operations, [&mut subject]);
            Ok((number, measured))
        })
        .collect()
}

fn boot() -> Result<Os> {
    let mut config = MachineConfig {
        memory: 512 << 20,
        ..MachineConfig::default()
    };
    for function in &mut config.functions {
        function.endpoint.contexts = CONTEXTS;
    }
    Ok(Os::boot(&Machine::new(&config)?, Mode::Scalable))
}

/// Translations of pages that the unit has cached, or had: its IOTLB has 131,072 entries.
fn pages(effort: Effort) -> Result<Curve> {
    let points = curve(
        effort,
        &[16, 64, 256, 1024, 4096, 16384, 65536, 655_360],
        |pages| {
            let os = unit::boot(|_| {})?;
            let processes = [unit::process(&os, Layout::default(), pages)];
            let queries = unit::queries(os.machine(), &processes, pages);
            unit::warm(os.machine(), &processes, pages);
            let subject = move || time(|| unit::translate(processes[0].os().machine(), &queries));
            Ok((unit::QUERIES, Box::new(subject)))
        },
    )?;
    Ok(Curve {
        name: "pages",
        title: "a translation in the unit, by pages",
        by: "cached pages",
        points,
    })
}

/// Translations by the number of address spaces, each with sixteen pages.
fn pasids(effort: Effort) -> Result<Curve> {
    let points = curve(effort, &[1, 4, 16, 64, 256, 1024, 2560, 10240], |count| {
        let os = unit::boot(|_| {})?;
        let processes: Vec<_> = (0..count)
            .map(|_| unit::process(&os, Layout::default(), 16))
            .collect();
        let queries = unit::queries(os.machine(), &processes, 16);
        unit::warm(os.machine(), &processes, 16);
        let subject = move || time(|| unit::translate(processes[0].os().machine(), &queries));
        Ok((unit::QUERIES, Box::new(subject)))
    })?;
    Ok(Curve {
        name: "pasids",
        title: "a translation in the unit, by PASIDs",
        by: "PASIDs",
        points,
    })
}

/// So many contexts with a process each, and a ring of 2^`ring_log2` descriptors.
fn apps(count: u16, ring_log2: u32) -> Result<Vec<App>> {
    let os = boot()?;
    let driver = Driver::probe(&os, 0);
    Ok((0..count)
        .map(|context| App::start_with(&driver, os.process(), context, ring_log2))
        .collect())
}

/// Each context performs a descriptor.
fn all(apps: &[App], descriptor: Descriptor) {
    let tickets: Vec<_> = apps.iter().map(|app| app.submit(descriptor)).collect();
    apps[0].os().settle();
    check(apps, tickets);
}

/// All must have succeeded.
fn check(apps: &[App], tickets: Vec<Ticket>) {
    for (app, ticket) in apps.iter().zip(tickets) {
        let done = app.completion(ticket);
        assert_eq!(done.map(|done| done.error), Some(0));
    }
}

/// A descriptor of each of so many contexts.
fn contexts(effort: Effort) -> Result<Curve> {
    let points = curve(effort, &[1, 4, 16, 64, 256], |count| {
        let apps = apps(count as u16, 6)?;
        let subject = move || time(|| all(&apps, nop()));
        Ok((count as usize, Box::new(subject)))
    })?;
    Ok(Curve {
        name: "contexts",
        title: "a descriptor, one of each context",
        by: "contexts at work",
        points,
    })
}

/// A page that a descriptor of each of so many contexts has to request.
fn page_requests(effort: Effort) -> Result<Curve> {
    let points = curve(effort, &[1, 4, 16, 64, 256], |count| {
        let apps = apps(count as u16, 6)?;
        for app in &apps {
            app.process().map(BASE, PAGE);
        }
        let subject = move || {
            for app in &apps {
                app.process().evict_only(BASE);
                let invalidated = app.process().invalidate(BASE, PAGE);
                assert_eq!(invalidated, Ok(()));
            }
            time(|| all(&apps, fill(BASE, 8, 1)))
        };
        Ok((count as usize, Box::new(subject)))
    })?;
    Ok(Curve {
        name: "page_requests",
        title: "a page that is requested",
        by: "page requests at a time",
        points,
    })
}

/// A descriptor of a ring of so many, which is filled and done again and again.
fn ring(effort: Effort) -> Result<Curve> {
    let points = curve(effort, &[2, 8, 32, 128, 512, 2048, 8192], |size| {
        let apps = apps(1, size.ilog2())?;
        let work = vec![nop(); size as usize];
        let subject = move || {
            let tickets = apps[0].stage(&work);
            let took = time(|| {
                apps[0].ring();
                apps[0].os().settle();
            });
            for ticket in tickets {
                check(&apps, vec![ticket]);
            }
            took
        };
        Ok((size as usize, Box::new(subject)))
    })?;
    Ok(Curve {
        name: "ring",
        title: "a descriptor that does nothing",
        by: "descriptors of the ring",
        points,
    })
}

/// An invalidation of a page in unit and device, while so many contexts fill memory.
fn invalidations(effort: Effort) -> Result<Curve> {
    const BATCH: u64 = 16;
    const LENGTH: u64 = 1 << 20;
    let points = curve(effort, &[1, 4, 16, 64, 256], |count| {
        let apps = apps(count as u16, 6)?;
        // The same memory for all: what is written does not matter.
        let frame = apps[0].os().frames().allocate_range(21);
        for app in &apps {
            app.process().map_frame(BASE, 21, frame);
        }
        let subject = move || {
            let tickets: Vec<_> = apps
                .iter()
                .map(|app| app.submit(fill(BASE, LENGTH, 1)))
                .collect();
            let (os, process) = (apps[0].os(), apps[0].process());
            let function = os.machine().requester(0);
            let mut took = Duration::ZERO;
            for n in 0..BATCH {
                os.machine().step();
                let page = AlignedRange::page(BASE + n * PAGE);
                let words = device_tlb_pasid(function, process.pasid(), page);
                took += time(|| assert_eq!(black_box(os.invalidate(0, &[words])), Ok(())));
            }
            os.settle();
            check(&apps, tickets);
            took
        };
        Ok((BATCH as usize, Box::new(subject)))
    })?;
    Ok(Curve {
        name: "invalidations",
        title: "an invalidation in the device",
        by: "contexts at work",
        points,
    })
}
