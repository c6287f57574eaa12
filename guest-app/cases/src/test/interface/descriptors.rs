// SPDX-License-Identifier: MIT OR Apache-2.0
//! Invalid descriptors and completion records: each fails with its own error, and affects no other.

use anyhow::ensure;
use nix::errno::Errno;
use nix::poll::PollFlags;
use svmctl::Descriptor as Work;
use svmctl::abi::completion::{Error, status};
use svmctl::abi::counters::index;
use svmctl::abi::descriptor::{Descriptor, Operation, flags};
use svmctl::region::{PAGE, Region};

use crate::harness::bench::{Bench, expect_bytes, failure};
use crate::harness::{Case, Verdict, passed};
use crate::test::raw::{NOWHERE, RawQueue};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("each bad descriptor has its own error", bad_descriptors),
    Case::new(
        "a page that is not wanted is not requested",
        no_page_requests,
    ),
    Case::new("a lost completion is counted", lost_completion),
    Case::new("the second context's counters begin at 0", fresh_counters),
];

fn bad_descriptors(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let memory = Region::new(2 * PAGE)?;
    let (one, other) = (memory.address(0), memory.address(PAGE));
    let longest = 1u64 << bench.info().transfer_log2_max;
    let new = |operation: Operation| Descriptor {
        operation: operation as u8,
        flags: flags::INTERRUPT | flags::BLOCK_ON_FAULT,
        ..Descriptor::default()
    };
    let copy = Descriptor {
        source: one,
        destination: other,
        length: 64,
        ..new(Operation::Copy)
    };
    let crc = Descriptor {
        source: one,
        length: 64,
        ..new(Operation::Crc32c)
    };
    let add = Descriptor {
        destination: one,
        operand0: 1,
        ..new(Operation::FetchAdd)
    };
    let chase = Descriptor {
        source: one,
        length: 4,
        operand0: 8,
        operand1: 16,
        ..new(Operation::Chase)
    };
    let unknown = Operation::ALL.len() as u8;
    let mut odd_reserved = copy;
    odd_reserved.reserved0[3] = 1;
    let cases = [
        (
            Error::BadOperation,
            Descriptor {
                operation: unknown,
                ..copy
            },
        ),
        (
            Error::BadOperation,
            Descriptor {
                operation: 255,
                ..copy
            },
        ),
        (
            Error::Reserved,
            Descriptor {
                flags: copy.flags | 0x80,
                ..copy
            },
        ),
        (Error::Reserved, odd_reserved),
        (
            Error::Reserved,
            Descriptor {
                reserved1: 1,
                ..copy
            },
        ),
        (
            Error::Reserved,
            Descriptor {
                operand0: 1,
                ..copy
            },
        ),
        (
            Error::Reserved,
            Descriptor {
                operand1: 1,
                ..copy
            },
        ),
        (
            Error::Reserved,
            Descriptor {
                destination: other,
                ..crc
            },
        ),
        (
            Error::Reserved,
            Descriptor {
                operand0: 1 << 32,
                ..crc
            },
        ),
        (Error::Reserved, Descriptor { length: 8, ..add }),
        (
            Error::Reserved,
            Descriptor {
                source: one,
                ..new(Operation::Nop)
            },
        ),
        (
            Error::BadLength,
            Descriptor {
                length: longest + 1,
                ..copy
            },
        ),
        (
            Error::BadLength,
            Descriptor {
                length: u64::MAX,
                ..crc
            },
        ),
        (
            Error::BadLength,
            Descriptor {
                source: u64::MAX - 31,
                ..copy
            },
        ),
        (
            Error::Misaligned,
            Descriptor {
                destination: one + 4,
                ..add
            },
        ),
        (
            Error::Misaligned,
            Descriptor {
                source: one + 4,
                ..chase
            },
        ),
        (
            Error::Misaligned,
            Descriptor {
                operand0: 12,
                ..chase
            },
        ),
        (
            Error::Reserved,
            Descriptor {
                operand1: 4096,
                ..chase
            },
        ),
        (
            Error::BadAddress,
            Descriptor {
                source: 1 << 60,
                ..crc
            },
        ),
        (
            Error::PageFault,
            Descriptor {
                source: NOWHERE,
                ..crc
            },
        ),
        (
            Error::PageFault,
            Descriptor {
                source: 0xffff_8880_0000_0000,
                ..crc
            },
        ),
        (
            Error::PageFault,
            Descriptor {
                destination: 0xffff_ffff_8100_0000,
                ..copy
            },
        ),
    ];
    let marks = [0x5a; 2 * PAGE];
    memory.write(0, &marks);
    for (expected, words) in cases {
        let work = Work::from_raw(words);
        // SAFETY: the descriptors refer to the region, and to addresses that a process cannot have.
        let result = unsafe { bench.queue().execute(&work) };
        let failure = failure(result)?;
        let found = failure.error();
        ensure!(
            found == Some(expected),
            "{found:?}, {expected:?} was expected of {words:x?}"
        );
    }
    // A chain that is longer than allowed: a node that is its own successor.
    memory.write(0, &[0; 64]);
    memory.write(8, &one.to_le_bytes());
    // SAFETY: the operation only reads, in the region.
    let result = unsafe { bench.queue().execute(&Work::from_raw(chase)) };
    let failure = failure(result)?;
    ensure!(
        failure.error() == Some(Error::ChainTooLong) && failure.bytes_done == 4,
        "a ring of one node, and at most 4: {failure}"
    );
    expect_bytes(
        "the rest of the memory",
        &memory.read(64..2 * PAGE),
        &marks[64..],
    )?;
    passed()
}

fn no_page_requests(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let memory = Region::new(4 * PAGE)?;
    memory.write(0, &[1]);
    let work = Work::crc32c(memory.at(10), 2 * PAGE as u64, 0).without_page_requests();
    let (result, counted) = bench.count(|bench| {
        // SAFETY: the operation only reads, in the region.
        Ok(unsafe { bench.queue().execute(&work) })
    })?;
    let failure = failure(result)?;
    ensure!(
        failure.error() == Some(Error::NotPresent)
            && failure.address == memory.address(PAGE)
            && failure.bytes_done <= PAGE as u64 - 10,
        "NotPresent at {:#x} was expected: {failure}",
        memory.address(PAGE)
    );
    counted.at_most(index::PAGE_REQUESTS, 0)?;
    // With page requests the same operation succeeds.
    let crc = bench.crc32c(&memory, 10..2 * PAGE + 10)?;
    ensure!(crc == crc32c::crc32c(&[0; 2 * PAGE]), "checksum {crc:08x}");
    passed()
}

fn lost_completion(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut queue = RawQueue::start(bench.device(), 4)?;
    let mut read_only = Region::new(PAGE)?;
    read_only.set_read_only(0..PAGE)?;
    let nop = |completion| Descriptor {
        operation: Operation::Nop as u8,
        flags: flags::INTERRUPT | flags::FENCE,
        completion,
        ..Descriptor::default()
    };
    // SAFETY: the records are at unmapped addresses, in memory that the device cannot write, or in
    // the queue.
    unsafe {
        queue.submit(&nop(NOWHERE));
        queue.submit(&nop(read_only.address(32)));
        // No record is requested: this one is not lost.
        queue.submit(&nop(0));
        queue.submit(&nop(queue.record_address(3)));
    }
    let mut told = 0;
    while queue.record(3).is_none() || told == 0 {
        let events = queue.poll()?;
        match queue.read() {
            Ok(_) => {}
            Err(Errno::EBADMSG) => {
                ensure!(
                    events.contains(PollFlags::POLLERR),
                    "read() tells of a lost record, and poll() said {events:?}"
                );
                told += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // One error covers all records that were lost until then.
    ensure!(told <= 2, "told {told} times of 2 lost records");
    let record = queue.record(3).map(|record| record.status);
    ensure!(
        record == Some(status::SUCCESS),
        "the last record: {record:?}"
    );
    let (lost, done) = (
        queue.counter(index::LOST_COMPLETIONS),
        queue.counter(index::DESCRIPTORS),
    );
    ensure!(
        (lost, done) == (2, 4),
        "{lost} completions lost of {done}, 2 of 4 were expected"
    );
    expect_bytes("read-only memory", &read_only.read(0..PAGE), &[0; PAGE])?;
    passed()
}

fn fresh_counters(bench: &mut Bench) -> anyhow::Result<Verdict> {
    for _ in 0..3 {
        let mut queue = bench.open_queue(4)?;
        let before = queue.counters()?;
        let counted = before.get(index::DESCRIPTORS) + before.get(index::INTERRUPTS);
        ensure!(
            counted == 0,
            "a fresh queue has counted: {:?}",
            before.to_map()
        );
        queue.nop()?;
        queue.restart()?;
        let descriptors = queue.counters()?.get(index::DESCRIPTORS);
        ensure!(
            descriptors == 0,
            "{descriptors} descriptors counted after a restart"
        );
    }
    passed()
}
