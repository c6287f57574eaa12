// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the measurements have device and processor do.

use std::sync::atomic::Ordering;

use svmctl::abi::completion::Completion;
use svmctl::region::{Advice, PAGE, Region};
use svmctl::{Descriptor, Failure, Queue};

/// Submits all descriptors at once, the last with an interrupt, and waits.
pub fn all(queue: &mut Queue, work: &[Descriptor]) -> anyhow::Result<()> {
    let last = work.len().saturating_sub(1);
    let work: Vec<_> = work
        .iter()
        .enumerate()
        .map(|(n, work)| if n == last { *work } else { work.quiet() })
        .collect();
    // SAFETY: regions alone are named, which are accessed by atomic accesses and live longer.
    unsafe { queue.execute_all(&work) }?
        .iter()
        .try_for_each(check)
}

/// A region all of whose pages are present, in pages of 4 KiB.
pub fn present(length: usize) -> anyhow::Result<Region> {
    let region = Region::new(length)?;
    region.advise(Advice::NoHugePage)?;
    touch(&region, |_| true);
    Ok(region)
}

/// Writes to the pages that are chosen.
pub fn touch(region: &Region, chosen: impl Fn(usize) -> bool) {
    let words = region.words();
    for page in (0..region.len() / PAGE).filter(|page| chosen(*page)) {
        words[page * PAGE / 8].store(1, Ordering::Relaxed);
    }
}

/// An error if the device did not succeed.
pub fn check(record: &Completion) -> anyhow::Result<()> {
    match Failure::of(record) {
        None => Ok(()),
        Some(failure) => Err(failure.into()),
    }
}

/// The sizes that fit in one descriptor.
pub fn sizes(queue: &Queue, all: &[usize]) -> Vec<usize> {
    let longest = 1u64.checked_shl(queue.info().transfer_log2_max);
    let fits = |size: &usize| longest.is_none_or(|longest| *size as u64 <= longest);
    all.iter().copied().filter(fits).collect()
}
