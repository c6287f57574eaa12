// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is unmapped while the device works on it: data, completion records, the ring. The
//! device does not write to the next mapping of the address.

use std::sync::atomic::Ordering;

use anyhow::ensure;
use nix::errno::Errno;
use nix::poll::PollFlags;
use svmctl::abi::completion::{Error, status};
use svmctl::abi::counters::index;
use svmctl::abi::descriptor::{Descriptor, Operation, flags};
use svmctl::abi::registers::{halt, status as context};
use svmctl::region::{PAGE, Region};

use crate::harness::bench::{Bench, expect_bytes};
use crate::harness::{Case, Verdict, remark};
use crate::test::leaks::becomes;
use crate::test::raw::RawQueue;

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("munmap of the data under the device", data),
    Case::new("munmap of the completion records under the device", records),
    Case::new("munmap of the ring under the device", ring),
];

/// Log2 of the size of the rings and of the number of pages and records that are unmapped.
const LOG2: u32 = 8;
/// Their number.
const COUNT: u64 = 1 << LOG2;
/// Their address.
const ADDRESS: usize = 0x2600_0000_0000;
/// Rounds of each case.
const ROUNDS: u32 = 8;
/// Rounds after which the test stops waiting for a race to occur.
const AT_MOST: u32 = 100;

/// Whether another round is due: until there were enough rounds, and the memory was unmapped in the
/// middle of the work at least once.
fn due(round: u32, rounds: u32, seen: bool) -> anyhow::Result<bool> {
    ensure!(
        seen || round < AT_MOST,
        "in {round} rounds the memory always went before all of the work or after it: the race was \
         not seen"
    );
    Ok(round < rounds || !seen)
}

/// Checks that nothing has been written to new memory at the address.
fn expect_untouched(length: usize) -> anyhow::Result<()> {
    let memory = Region::at_address(ADDRESS, length)?;
    expect_bytes("new memory", &memory.read(0..length), &vec![0; length])
}

fn data(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let (mut done, mut failed) = (0, 0);
    let (mut round, mut seen) = (0, 0);
    while due(round, bench.rounds(ROUNDS), seen > 0)? {
        let length = PAGE << LOG2;
        let memory = Region::at_address(ADDRESS, length)?;
        let mut queue = RawQueue::start(bench.device(), LOG2)?;
        if round % 3 == 0 {
            // With present pages nothing slows the device down.
            memory.write(0, &vec![1; length]);
        }
        // SAFETY: the memory is unmapped as a whole, and nothing is mapped in its place before all
        // records are present.
        unsafe { queue.fill_pages(&memory, u64::MAX) };
        if round % 3 != 2 {
            // It has begun.
            queue.wait_records(1)?;
        }
        drop(memory);
        let (mut before, mut after) = (0, 0);
        for (n, record) in queue.wait_records(COUNT)?.iter().enumerate() {
            match record.status {
                status::SUCCESS => before += 1,
                _ if record.error == Error::PageFault as u8 => {
                    let (first, behind) = (ADDRESS + n * PAGE, ADDRESS + (n + 1) * PAGE);
                    let address = record.fault_address as usize;
                    ensure!(
                        (first..behind).contains(&address),
                        "the fault of page {n} is at {address:#x}"
                    );
                    after += 1;
                }
                _ => anyhow::bail!("page {n}: {record:?}"),
            }
        }
        expect_untouched(length)?;
        seen += u32::from(before > 0 && after > 0);
        (done, failed, round) = (done + before, failed + after, round + 1);
    }
    remark(format!(
        "{done} pages filled before, {failed} not any more; in {seen} rounds of {round} both"
    ))
}

fn nop(completion: u64) -> Descriptor {
    Descriptor {
        operation: Operation::Nop as u8,
        flags: flags::INTERRUPT,
        completion,
        ..Descriptor::default()
    }
}

fn records(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let (mut lost, mut written) = (0, 0);
    let (mut round, mut seen) = (0, 0);
    while due(round, bench.rounds(ROUNDS), seen > 0)? {
        let length = PAGE << LOG2;
        let gone = Region::at_address(ADDRESS, length)?;
        let mut queue = RawQueue::start(bench.device(), LOG2)?;
        for n in 0..COUNT - 1 {
            // Each record in a separate page.
            // SAFETY: as in `data`.
            unsafe { queue.submit(&nop(gone.address(n as usize * PAGE))) };
        }
        if round % 2 == 0 {
            // It has begun.
            becomes(|| {
                let first = gone.words()[0].load(Ordering::Relaxed);
                Ok((first != 0)
                    .then_some(())
                    .ok_or_else(|| "the first record is not written".to_owned()))
            })?;
        }
        drop(gone);
        let last = queue.record_address(COUNT - 1);
        // SAFETY: the record is the queue's.
        unsafe {
            queue.submit(&Descriptor {
                flags: flags::INTERRUPT | flags::FENCE,
                ..nop(last)
            })
        };
        while queue.record(COUNT - 1).is_none() {
            queue.poll()?;
            match queue.read() {
                // The second one reports that a record was lost.
                Ok(_) | Err(Errno::EBADMSG) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (state, why) = queue.state();
        ensure!(
            state == context::ENABLED,
            "a lost record stopped the context: state {state}, reason {why}"
        );
        let done = queue.counter(index::DESCRIPTORS);
        ensure!(done == COUNT, "{done} descriptors of {COUNT} were done");
        let now = queue.counter(index::LOST_COMPLETIONS);
        ensure!(now < COUNT, "{now} records of {} are lost", COUNT - 1);
        expect_untouched(length)?;
        let before = COUNT - 1 - now;
        seen += u32::from(before > 0 && now > 0);
        (lost, written, round) = (lost + now, written + before, round + 1);
    }
    remark(format!(
        "{written} records written, {lost} lost; in {seen} rounds of {round} both"
    ))
}

fn ring(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let (mut consumed, mut left) = (0, 0);
    let (mut round, mut seen) = (0, 0);
    while due(round, bench.rounds(ROUNDS), seen > 0)? {
        let length = 64 << LOG2;
        let ring = Region::at_address(ADDRESS, length)?;
        let mut queue = RawQueue::start_at(bench.device(), ring.address(0), LOG2)?;
        // Zeros: descriptors that do nothing, and no record.
        queue.ring_to(COUNT - 1);
        if round % 2 == 0 {
            // It has begun.
            becomes(|| {
                Ok((queue.counter(index::DESCRIPTORS) > 0)
                    .then_some(())
                    .ok_or_else(|| "no descriptor is done".to_owned()))
            })?;
        }
        drop(ring);
        // The device may have finished by then, but must still fetch the following descriptors.
        queue.ring_to(COUNT);
        let mut events = queue.poll()?;
        while !events.contains(PollFlags::POLLERR) {
            queue.read()?;
            events = queue.poll()?;
        }
        ensure!(
            queue.state() == (context::HALTED, halt::RING_FAULT),
            "state and reason are {:?}",
            queue.state()
        );
        let before = queue.counter(index::DESCRIPTORS);
        ensure!(
            before < COUNT,
            "a descriptor was fetched from a ring that is not there"
        );
        expect_untouched(length)?;
        seen += u32::from(before > 0 && before < COUNT - 1);
        (consumed, left, round) = (consumed + before, left + COUNT - before, round + 1);
    }
    bench.queue().nop()?;
    remark(format!(
        "{consumed} descriptors fetched before, {left} not any more; in {seen} rounds of {round} \
         both"
    ))
}
