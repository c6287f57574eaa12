// SPDX-License-Identifier: MIT OR Apache-2.0
//! The measurements. Each allocates its own memory and leaves the queue as it was.

use std::hint::black_box;

use anyhow::ensure;
use svmctl::abi::counters::index;
use svmctl::abi::descriptor::Operation;
use svmctl::region::{Advice, PAGE, Region};
use svmctl::{Batch, Descriptor, Queue};

use super::invalidations::invalidations;
use super::measure::{Effort, time};
use super::names;
use super::results::{Axis, Figure, Series};
use super::work::{all, check, present, sizes, touch};
use svm_cases::system::pages::{HUGE, huge_bytes, no_huge_pages};

/// A measurement.
pub struct Measurement {
    /// Name on the command line.
    pub name: &'static str,
    /// What is measured.
    pub about: &'static str,
    /// Measures.
    pub run: fn(&mut Queue, Effort) -> anyhow::Result<Figure>,
}

/// All of them.
pub const FIGURES: [Measurement; 7] = [
    Measurement {
        name: "size",
        about: "time of one operation by size",
        run: size,
    },
    Measurement {
        name: "rate",
        about: "throughput by size",
        run: rate,
    },
    Measurement {
        name: "depth",
        about: "descriptors by queue depth",
        run: depth,
    },
    Measurement {
        name: "pages",
        about: "page sizes and the address translation cache",
        run: pages,
    },
    Measurement {
        name: "faults",
        about: "pages that are not present",
        run: faults,
    },
    Measurement {
        name: "invalidations",
        about: "taking pages away",
        run: invalidations,
    },
    Measurement {
        name: "interrupts",
        about: "moderation of interrupts",
        run: interrupts,
    },
];

/// Sizes of operations: 64 bytes to 4 MiB.
const SIZES: [usize; 9] = [
    64,
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
];

/// Sizes of the areas whose checksum is computed with an empty and a filled cache.
const AREAS: [usize; 6] = [64 << 10, 256 << 10, 1 << 20, 2 << 20, 4 << 20, 8 << 20];

fn has(queue: &Queue, operation: Operation) -> bool {
    queue.info().operations >> operation as u8 & 1 != 0
}

/// The time to submit one operation and wait for it, on memory that is present and whose
/// translations are cached; and the time of the processor's own operation.
fn size(queue: &mut Queue, effort: Effort) -> anyhow::Result<Figure> {
    let most = SIZES[SIZES.len() - 1];
    let source: Vec<u8> = (0..most).map(|n| (n % 251) as u8).collect();
    let mut destination = vec![1u8; most];
    let mut series = [
        Series::device(names::COPY),
        Series::device(names::CRC),
        Series::processor(names::MEMCPY),
        Series::processor(names::CPU_CRC),
    ];
    for length in sizes(queue, &SIZES) {
        let (from, to) = (&source[..length], &mut destination[..length]);
        let x = length as f64;
        let [copy, crc, memcpy, cpu_crc] = &mut series;
        copy.points
            .push(effort.sample(x, 1.0, || time(|| Ok(queue.copy(from, to)?)))?);
        ensure!(
            from == to,
            "the device's copy of {length} bytes differs from its source"
        );
        let expected = crc32c::crc32c(from);
        crc.points.push(effort.sample(x, 1.0, || {
            time(|| {
                ensure!(queue.crc32c(from, 0)? == expected, "the checksum differs");
                Ok(())
            })
        })?);
        memcpy.points.push(effort.sample(x, 1.0, || {
            time(|| {
                black_box(&mut *to).copy_from_slice(black_box(from));
                Ok(())
            })
        })?);
        cpu_crc.points.push(effort.sample(x, 1.0, || {
            time(|| {
                black_box(crc32c::crc32c(black_box(from)));
                Ok(())
            })
        })?);
    }
    let mut waits = Vec::new();
    for (name, nop) in [
        ("sleeping", Descriptor::nop()),
        ("looking", Descriptor::nop().quiet()),
    ] {
        let point = effort.sample(0.0, 1.0, || {
            // SAFETY: the operation reaches no memory but its record.
            time(|| Ok(unsafe { queue.execute(&nop) }.map(drop)?))
        })?;
        waits.push(format!("{:.1} µs {name}", point.median));
    }
    Ok(Figure {
        name: "size".into(),
        title: "time of one operation, µs".into(),
        x: Axis::bytes("bytes"),
        y: Axis::log("µs"),
        series: series.into(),
        notes: vec![format!("a nop, waited for: {}", waits.join(", "))],
    })
}

/// Descriptors that are kept in flight.
const RATE_DEPTH: usize = 16;

/// Bytes per second, with a queue that is never empty.
fn rate(queue: &mut Queue, effort: Effort) -> anyhow::Result<Figure> {
    let most = SIZES[SIZES.len() - 1];
    let (from, to) = (present(most)?, present(most)?);
    let mut source = vec![3u8; most];
    let mut destination = vec![1u8; most];
    let mut copy = Series::device(names::COPY);
    let mut crc = Series::device(names::CRC);
    let mut memcpy = Series::processor(names::MEMCPY);
    for length in sizes(queue, &SIZES) {
        let x = length as f64;
        let count = RATE_DEPTH.min((16 << 20) / length).max(1);
        let bytes = (length * count) as f64;
        let copies = vec![Descriptor::copy(from.at(0), to.at(0), length as u64); count];
        let crcs = vec![Descriptor::crc32c(from.at(0), length as u64, 0); count];
        for (series, work) in [(&mut copy, copies), (&mut crc, crcs)] {
            let point = effort.sample(x, 1.0, || time(|| all(queue, &work)))?;
            series.points.push(point.map(|micros| bytes / micros));
        }
        let point = effort.sample(x, 1.0, || {
            time(|| {
                for _ in 0..count {
                    black_box(&mut destination[..length])
                        .copy_from_slice(black_box(&source[..length]));
                }
                Ok(())
            })
        })?;
        memcpy.points.push(point.map(|micros| bytes / micros));
        black_box(&mut source);
    }
    Ok(Figure {
        name: "rate".into(),
        title: format!("throughput with {RATE_DEPTH} descriptors under way, MB/s"),
        x: Axis::bytes("bytes"),
        y: Axis::log("MB/s"),
        series: vec![copy, crc, memcpy],
        notes: Vec::new(),
    })
}

/// Time per small copy, by the number in flight: each submitted separately, all in the ring with
/// one doorbell, and all in one batch.
fn depth(queue: &mut Queue, effort: Effort) -> anyhow::Result<Figure> {
    let data = present(2 * PAGE)?;
    let mut single = Series::device("one by one");
    let mut ring = Series::device(names::RING);
    let mut batched = Series::device(names::BATCH);
    let mut notes = Vec::new();
    let batches = has(queue, Operation::Batch);
    if !batches {
        notes.push("the device performs no batches".to_owned());
    }
    for depth in [1usize, 2, 4, 8, 16, 32, 64] {
        let x = depth as f64;
        let copy = Descriptor::copy(data.at(0), data.at(PAGE), 64);
        let work = vec![copy; depth];
        single.points.push(effort.sample(x, x, || {
            time(|| work.iter().try_for_each(|one| all(queue, &[*one])))
        })?);
        ring.points
            .push(effort.sample(x, x, || time(|| all(queue, &work)))?);
        if batches {
            let mut batch = Batch::new(depth)?;
            batched.points.push(effort.sample(x, x, || {
                batch.set(&work)?;
                time(|| {
                    // SAFETY: the region is accessed by atomic accesses, and lives longer.
                    check(&unsafe { queue.execute_batch(&batch) }?)
                })
            })?);
        }
    }
    let mut series = vec![single, ring];
    series.extend(batches.then_some(batched));
    Ok(Figure {
        name: "depth".into(),
        title: "time of one copy of 64 bytes, µs".into(),
        x: Axis::log("descriptors"),
        y: Axis::log("µs"),
        series,
        notes,
    })
}

/// Computes the checksum of an area, with and without cached translations, in small and in large
/// pages.
fn pages(queue: &mut Queue, effort: Effort) -> anyhow::Result<Figure> {
    const MOST: usize = 8 << 20;
    let small = present(MOST)?;
    let mut notes = Vec::new();
    let mut areas = vec![(small, names::SMALL_COLD, names::SMALL_WARM)];
    let huge = Region::aligned(MOST, HUGE)?;
    huge.advise(Advice::HugePage)?;
    touch(&huge, |_| true);
    match (no_huge_pages(), huge_bytes(&huge)?) {
        (Some(why), _) => notes.push(format!("no 2 MiB pages: {why}")),
        (None, bytes) if bytes < MOST => {
            notes.push(format!(
                "no 2 MiB pages: {} of {} MiB are huge",
                bytes >> 20,
                MOST >> 20
            ));
        }
        (None, _) => areas.push((huge, names::LARGE_COLD, names::LARGE_WARM)),
    }
    let mut series = Vec::new();
    for (area, cold, warm) in &areas {
        for (name, empty) in [(cold, true), (warm, false)] {
            let mut curve = Series::device(name);
            let mut requests = 0;
            for length in sizes(queue, &AREAS) {
                let crc = Descriptor::crc32c(area.at(0), length as u64, 0);
                let mut before = queue.counters()?;
                let mut samples = 0;
                let kib = length as f64 / 1024.0;
                curve
                    .points
                    .push(effort.sample(length as f64, kib / 4.0, || {
                        // In both cases the device has just worked, so its wake-up is not measured.
                        let first = match empty && has(queue, Operation::CacheControl) {
                            true => Descriptor::forget_all(),
                            false => Descriptor::nop(),
                        };
                        all(queue, &[first])?;
                        before = queue.counters()?;
                        samples += 1;
                        time(|| all(queue, &[crc]))
                    })?);
                requests = queue
                    .counters()?
                    .since(&before)
                    .get(index::TRANSLATION_REQUESTS);
            }
            notes.push(format!(
                "{name}: {requests} translation requests for {} MiB",
                MOST >> 20
            ));
            series.push(curve);
        }
    }
    Ok(Figure {
        name: "pages".into(),
        title: "CRC-32C of an area, µs for 4 KiB of it".into(),
        x: Axis::bytes("area"),
        y: Axis::linear("µs"),
        series,
        notes,
    })
}

/// Pages of the area.
const FAULT_PAGES: usize = 256;

/// The device, and for comparison the processor, writes to an area in which some pages are not
/// present.
fn faults(queue: &mut Queue, effort: Effort) -> anyhow::Result<Figure> {
    let area = Region::new(FAULT_PAGES * PAGE)?;
    area.advise(Advice::NoHugePage)?;
    let mut device = Series::device(names::DEVICE_TOUCH);
    let mut processor = Series::processor(names::CPU_TOUCH);
    let mut notes = Vec::new();
    for eighths in [0usize, 1, 2, 4, 8] {
        let x = eighths as f64 * 12.5;
        // Absent pages form runs of two, so that a request can ask for several.
        let is_present = |page: usize| page / 2 % 8 >= eighths;
        let prepare = || -> anyhow::Result<()> {
            area.advise(Advice::DontNeed)?;
            touch(&area, is_present);
            Ok(())
        };
        let fill = Descriptor::prefetch(area.at(0), (FAULT_PAGES * PAGE) as u64, true);
        let mut before = queue.counters()?;
        device.points.push(effort.sample(x, FAULT_PAGES as f64, || {
            prepare()?;
            before = queue.counters()?;
            time(|| all(queue, &[fill]))
        })?);
        let counted = queue.counters()?.since(&before);
        notes.push(format!(
            "{x} % absent: {} pages requested in {} groups",
            counted.get(index::PAGE_REQUESTS),
            counted.get(index::PRG_RESPONSES)
        ));
        processor
            .points
            .push(effort.sample(x, FAULT_PAGES as f64, || {
                prepare()?;
                time(|| {
                    touch(&area, |_| true);
                    Ok(())
                })
            })?);
    }
    Ok(Figure {
        name: "faults".into(),
        title: format!("bringing {FAULT_PAGES} pages for writing, µs a page"),
        x: Axis::linear("% of the pages absent"),
        y: Axis::log("µs"),
        series: vec![device, processor],
        notes,
    })
}

/// Time per nop in a run of many, by the number of interrupts sent for them.
fn interrupts(queue: &mut Queue, effort: Effort) -> anyhow::Result<Figure> {
    const MANY: usize = 64;
    let mut notes = Vec::new();
    let mut curve = Series::device("nop with interrupt");
    if let Err(error) = queue.set_moderation(0, 0) {
        notes.push(format!("not measured: {error}"));
    } else {
        let work = vec![Descriptor::nop(); MANY];
        for count in [1u16, 2, 4, 8, 16, 32, 64] {
            queue.set_moderation(count, 1000)?;
            let mut before = queue.counters()?;
            curve
                .points
                .push(effort.sample(f64::from(count), MANY as f64, || {
                    before = queue.counters()?;
                    time(|| {
                        // SAFETY: the operations reach no memory but their records.
                        unsafe { queue.execute_all(&work) }?
                            .iter()
                            .try_for_each(check)
                    })
                })?);
            let sent = queue.counters()?.since(&before).get(index::INTERRUPTS);
            notes.push(format!("{count} completions for one: {sent} interrupts"));
        }
        queue.set_moderation(0, 0)?;
    }
    Ok(Figure {
        name: "interrupts".into(),
        title: format!("{MANY} nops, µs each"),
        x: Axis::log("completions for an interrupt"),
        y: Axis::linear("µs"),
        series: vec![curve],
        notes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use svmctl::Context;
    use svmctl::model::Model;

    #[test]
    fn every_measurement_runs_on_a_model() {
        let mut queue = Context::with_file(Box::new(Model::new().unwrap()))
            .unwrap()
            .start(128)
            .unwrap();
        for figure in FIGURES {
            let measured = (figure.run)(&mut queue, Effort::quick()).unwrap();
            assert_eq!(measured.name, figure.name);
            let points = measured.series.iter().flat_map(|series| &series.points);
            for point in points {
                assert!(point.median > 0.0 && point.p10 <= point.p90, "{measured:?}");
            }
            let empty = measured
                .series
                .iter()
                .all(|series| series.points.is_empty());
            // The model has no moderation and reports that.
            assert_eq!(empty, figure.name == "interrupts", "{measured:?}");
            assert!(
                !empty || measured.notes[0].contains("MODERATION"),
                "{measured:?}"
            );
        }
    }
}
