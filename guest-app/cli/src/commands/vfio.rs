// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svmctl vfio`: drives the device through VFIO, without its kernel module, and checks ATS without
//! PASID, with memory that is mapped and unmapped.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::json;
use svm_init::events::{Status, TestEvent};
use svmctl::abi::completion;
use svmctl::abi::counters::index;
use svmctl::abi::descriptor::translation;
use svmctl::region::{Advice, PAGE, Region};
use svmctl::vfio::{Access, Function, Mapping};
use svmctl::{Batch, Context, Descriptor, Error, Failure, Queue};

use super::function::{Bound, DRIVER, find, report};
use crate::cli::VfioOptions;
use svm_cases::harness::bench::pattern;
use svm_cases::harness::report::print_json;

/// Descriptors of the ring.
const ENTRIES: u32 = 16;
/// No operation takes this long.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of the data.
const LENGTH: usize = 1 << 20;

/// Runs the checks. Returns `false` if one failed.
pub fn run(as_json: bool, options: &VfioOptions) -> anyhow::Result<bool> {
    let directory = find(options.function.as_deref())?;
    if !options.bind {
        return check(&directory, as_json);
    }
    let bound = Bound::take(&directory)
        .with_context(|| format!("cannot bind {} to {DRIVER}", directory.display()))?;
    let result = check(&directory, as_json);
    if let Some(bound) = bound {
        bound.give_back()?;
    }
    result
}

/// Runs the checks on a function that is bound to VFIO.
fn check(directory: &Path, as_json: bool) -> anyhow::Result<bool> {
    let function = Function::open(directory)?;
    let mut queue = Context::with_file(Box::new(function.context(0)))?.start(ENTRIES)?;
    queue.set_time_limit(Some(TIME_LIMIT));
    let mut failed = 0;
    for (name, check) in CHECKS {
        let event = perform(name, *check, &function, &mut queue);
        failed += u32::from(event.status == Status::Failed);
        report(&event, as_json)?;
    }
    let passed = CHECKS.len() as u32 - failed;
    if as_json {
        print_json(&json!({"suite": "vfio", "passed": passed, "failed": failed}))?;
    } else {
        writeln!(io::stdout(), "\nvfio: {passed} passed, {failed} failed")?;
    }
    Ok(failed == 0)
}

/// A check: what it found, in a few words.
type Check = fn(&Arc<Function>, &mut Queue) -> anyhow::Result<String>;

const CHECKS: &[(&str, Check)] = &[
    ("copy of 1 MiB", copy),
    ("checksum as the processor's", checksum),
    ("translations are cached", cached),
    ("completion by interrupt", interrupts),
    ("atomic addition", addition),
    ("a batch", batch),
    ("2 MiB page", large_page),
    ("memory that is not mapped fails", not_mapped),
    ("memory that is mapped for reading only", read_only),
    ("unmapped: invalidated, and fails", unmapped),
    ("mapped anew: other memory at the same address", anew),
    ("a context more, with the same mappings", second_context),
];

fn perform(name: &str, check: Check, function: &Arc<Function>, queue: &mut Queue) -> TestEvent {
    let start = Instant::now();
    let before = queue.counters().unwrap_or_default();
    let result = check(function, queue);
    let micros = start.elapsed().as_micros() as u64;
    let counters = queue.counters().unwrap_or_default().since(&before);
    let (status, message) = match result {
        Ok(remark) => (Status::Ok, remark),
        Err(error) => (Status::Failed, format!("{error:#}")),
    };
    TestEvent {
        name: name.to_owned(),
        status,
        message,
        counters: counters.to_map(),
        micros,
    }
}

/// Filled memory that the device can reach.
fn mapped(function: &Arc<Function>, length: usize, seed: u64) -> anyhow::Result<Mapping> {
    let region = Region::new(length)?;
    region.write(0, &pattern(length, seed));
    Ok(function.map(&Arc::new(region), Access::ReadWrite)?)
}

fn execute(queue: &mut Queue, work: Descriptor) -> Result<completion::Completion, Error> {
    // SAFETY: regions alone are named, which are accessed by atomic accesses and live longer.
    unsafe { queue.execute(&work) }
}

fn crc(queue: &mut Queue, from: &Region) -> Result<u32, Error> {
    let work = Descriptor::crc32c(from.at(0), from.len() as u64, 0);
    execute(queue, work).map(|record| record.result as u32)
}

fn cpu_crc(from: &Region) -> u32 {
    crc32c::crc32c(&from.read(0..from.len()))
}

fn copy(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let from = mapped(function, LENGTH, 1)?;
    let to = mapped(function, LENGTH, 2)?;
    let (from, to) = (from.region(), to.region());
    execute(queue, Descriptor::copy(from.at(0), to.at(0), LENGTH as u64))?;
    ensure!(
        from.read(0..LENGTH) == to.read(0..LENGTH),
        "the copy differs"
    );
    Ok(String::new())
}

fn checksum(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let data = mapped(function, LENGTH, 3)?;
    let (device, processor) = (crc(queue, data.region())?, cpu_crc(data.region()));
    ensure!(
        device == processor,
        "{device:08x}, the processor says {processor:08x}"
    );
    Ok(format!("{device:08x}"))
}

fn cached(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let data = mapped(function, 16 * PAGE, 4)?;
    crc(queue, data.region())?;
    let before = queue.counters()?;
    crc(queue, data.region())?;
    let change = queue.counters()?.since(&before);
    let (asked, hits) = (
        change.get(index::TRANSLATION_REQUESTS),
        change.get(index::ATC_HITS),
    );
    ensure!(asked == 0, "{asked} translation requests the second time");
    ensure!(hits > 0, "no look-up was a hit");
    Ok(format!("{hits} hits"))
}

fn interrupts(_: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let before = queue.wait_interrupts(0, None)?;
    execute(queue, Descriptor::nop())?;
    let deadline = Instant::now() + TIME_LIMIT;
    let after = queue.wait_interrupts(before + 1, Some(deadline))?;
    ensure!(after > before, "no interrupt came by MSI-X");
    Ok(String::new())
}

fn addition(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let data = mapped(function, PAGE, 5)?;
    let number = &data.region().words()[7];
    let before = number.load(std::sync::atomic::Ordering::Relaxed);
    let told = queue.fetch_add(number, 42)?;
    let after = number.load(std::sync::atomic::Ordering::Relaxed);
    ensure!(
        told == before && after == before.wrapping_add(42),
        "{before} became {after}"
    );
    Ok(String::new())
}

fn batch(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    // The batch's own memory would have to be mapped too: here it stands in the data.
    let data = mapped(function, 2 * PAGE, 6)?;
    let region = data.region();
    let expected = cpu_crc(region);
    let mut batch = Batch::new(3)?;
    let memory = function.map_batch(&batch)?;
    batch.set(&[
        Descriptor::fill(region.at(0), 8, 0),
        Descriptor::crc32c(region.at(0), region.len() as u64, 0),
        Descriptor::nop(),
    ])?;
    // SAFETY: the region is accessed by atomic accesses alone, and lives longer.
    let record = unsafe { queue.execute_batch(&batch) }?;
    if let Some(failure) = Failure::of(&record) {
        return Err(anyhow!(failure));
    }
    let sum = batch.record(1).context("an entry has no record")?.result as u32;
    ensure!(
        sum == cpu_crc(region) && sum != expected,
        "checksum {sum:08x}"
    );
    drop(memory);
    Ok(format!("{} entries", record.result))
}

fn large_page(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    const HUGE: usize = 2 << 20;
    let region = Region::aligned(HUGE, HUGE)?;
    region.advise(Advice::HugePage)?;
    region.write(0, &pattern(PAGE, 7));
    let data = function.map(&Arc::new(region), Access::ReadWrite)?;
    let (device, processor) = (crc(queue, data.region())?, cpu_crc(data.region()));
    ensure!(
        device == processor,
        "{device:08x}, the processor says {processor:08x}"
    );
    let answer = execute(queue, Descriptor::translate(data.region().at(0), true))?.result;
    let size = answer & translation::SIZE;
    let both = translation::READ | translation::WRITE;
    ensure!(answer & both == both, "the translation is {answer:#x}");
    Ok(format!("translations of 2^{size} bytes"))
}

/// Expects a failure because nothing is mapped, or not with this permission.
fn expect_absent(
    result: Result<impl std::fmt::Debug, Error>,
    write: bool,
    address: u64,
) -> anyhow::Result<()> {
    match result {
        Err(Error::Failed(failure)) => {
            let as_expected = failure.error() == Some(completion::Error::NotPresent)
                && failure.address == address
                && failure.write == write;
            ensure!(
                as_expected,
                "NotPresent at {address:#x} was expected; it was: {failure}"
            );
            Ok(())
        }
        Err(other) => Err(other.into()),
        Ok(value) => bail!("it succeeded with {value:x?}; NotPresent at {address:#x} was expected"),
    }
}

fn not_mapped(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let hidden = Region::new(PAGE)?;
    expect_absent(crc(queue, &hidden), false, hidden.address(0))?;
    let pages = queue.counters()?.get(index::PAGE_REQUESTS);
    ensure!(
        pages == 0,
        "{pages} page requests were sent without a PASID"
    );
    // Other memory is not affected.
    let data = mapped(function, PAGE, 8)?;
    ensure!(
        crc(queue, data.region())? == cpu_crc(data.region()),
        "the checksum differs"
    );
    Ok(format!("NotPresent at {:#x}", hidden.address(0)))
}

fn read_only(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let region = Arc::new(Region::new(PAGE)?);
    region.write(0, &pattern(PAGE, 9));
    let data = function.map(&region, Access::Read)?;
    ensure!(
        crc(queue, data.region())? == cpu_crc(&region),
        "the checksum differs"
    );
    let fill = execute(queue, Descriptor::fill(region.at(8), 8, 0));
    expect_absent(fill, true, region.address(8))?;
    ensure!(
        region.read(0..PAGE) == pattern(PAGE, 9),
        "it was written all the same"
    );
    Ok(String::new())
}

fn unmapped(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let data = mapped(function, 4 * PAGE, 10)?;
    let region = data.shared();
    crc(queue, &region)?;
    let before = queue.counters()?;
    drop(data);
    let change = queue.counters()?.since(&before);
    let (came, gone) = (
        change.get(index::INVALIDATIONS),
        change.get(index::INVALIDATED_ENTRIES),
    );
    ensure!(
        came > 0 && gone > 0,
        "{came} invalidations removed {gone} entries"
    );
    expect_absent(crc(queue, &region), false, region.address(0))?;
    Ok(format!("{gone} entries removed"))
}

fn anew(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let data = mapped(function, PAGE, 11)?;
    let first = crc(queue, data.region())?;
    let region = data.shared();
    drop(data);
    let region = Arc::into_inner(region).context("the region is still in use")?;
    let address = region.unmap();
    let region = Region::at_address(address as usize, PAGE)?;
    region.write(0, &pattern(PAGE, 12));
    let data = function.map(&Arc::new(region), Access::ReadWrite)?;
    let second = crc(queue, data.region())?;
    ensure!(
        second == cpu_crc(data.region()),
        "the device read what was there before"
    );
    ensure!(first != second, "both have the checksum {first:08x}");
    Ok(String::new())
}

fn second_context(function: &Arc<Function>, queue: &mut Queue) -> anyhow::Result<String> {
    let data = mapped(function, LENGTH, 13)?;
    ensure!(queue.info().contexts > 1, "the device has one context only");
    let mut other = Context::with_file(Box::new(function.context(1)))?.start(ENTRIES)?;
    other.set_time_limit(Some(TIME_LIMIT));
    let (first, second) = (crc(queue, data.region())?, crc(&mut other, data.region())?);
    ensure!(
        first == second && first == cpu_crc(data.region()),
        "{first:08x} and {second:08x}"
    );
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_checks_are_distinct() {
        let mut names: Vec<_> = CHECKS.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }
}
