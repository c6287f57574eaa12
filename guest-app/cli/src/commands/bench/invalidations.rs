// SPDX-License-Identifier: MIT OR Apache-2.0
//! How long the kernel takes to take pages away that the device has translations of: it sends
//! invalidations to the IOMMU and to the device, and waits for their completion.

use svmctl::abi::counters::index;
use svmctl::region::{Advice, PAGE, Region};
use svmctl::{Descriptor, Queue};

use super::measure::{Effort, time};
use super::names;
use super::results::{Axis, Figure, Series};
use super::work::{all, sizes, touch};

/// Sizes of what is taken away at once: 1 to 1,024 pages.
const SIZES: [usize; 6] = [
    PAGE,
    4 * PAGE,
    16 * PAGE,
    64 * PAGE,
    256 * PAGE,
    1024 * PAGE,
];

/// Takes pages away by `madvise`, with and without translations in the device. The kernel does not
/// know the difference: what the second curve lacks is what the device has to do.
pub fn invalidations(queue: &mut Queue, effort: Effort) -> anyhow::Result<Figure> {
    let mut series = [
        Series::device(names::TAKEN_CACHED),
        Series::device(names::TAKEN_UNCACHED),
    ];
    let mut notes = Vec::new();
    for length in sizes(queue, &SIZES) {
        let area = Region::new(length)?;
        let pages = length / PAGE;
        area.advise(Advice::NoHugePage)?;
        let prefetch = Descriptor::prefetch(area.at(0), length as u64, true);
        for (cached, curve) in [true, false].into_iter().zip(&mut series) {
            let before = queue.counters()?;
            let mut samples = 0u32;
            curve.points.push(effort.sample(pages as f64, 1.0, || {
                touch(&area, |_| true);
                if cached {
                    all(queue, &[prefetch])?;
                }
                samples += 1;
                time(|| Ok(area.advise(Advice::DontNeed)?))
            })?);
            let after = queue.counters()?.since(&before);
            if cached {
                let each = |n| after.get(n) as f64 / f64::from(samples);
                notes.push(format!(
                    "{pages} pages: {:.1} translation requests and {:.1} invalidations each time",
                    each(index::TRANSLATION_REQUESTS),
                    each(index::INVALIDATIONS)
                ));
            }
        }
    }
    Ok(Figure {
        name: "invalidations".into(),
        title: "taking pages away, µs".into(),
        x: Axis::log("pages"),
        y: Axis::log("µs"),
        series: series.into(),
        notes,
    })
}
