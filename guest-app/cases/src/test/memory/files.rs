// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mapped files: private, shared, truncated under the device, and sealed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use svmctl::Failure;
use svmctl::abi::completion;
use svmctl::abi::counters::index;
use svmctl::region::PAGE;

use super::device::{checksum, expect_checksum, fill, round_trip};
use super::race::{Meeting, Over, TRIES, beside};
use crate::harness::bench::{Bench, expect_bytes, expect_fault, pattern};
use crate::harness::{Case, Verdict, passed, remark};
use crate::system::child::Child;
use crate::system::mapping::{BOTH, Mapping, Memory};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("a private mapping of a file leaves the file alone", private),
    Case::new("a shared mapping of a file is the file", shared),
    Case::new("a file truncated before the device comes", truncated),
    Case::new("a file truncated at work", truncated_at_work),
    Case::new("a sealed memfd", sealed),
];

const PAGES: usize = 16;

/// An in-memory file that contains a pattern.
fn file(flags: MFdFlags, contents: &[u8]) -> anyhow::Result<File> {
    let file = File::from(memfd_create(c"svmctl", flags | MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(contents, 0)?;
    Ok(file)
}

fn contents_of(file: &File, len: usize) -> anyhow::Result<Vec<u8>> {
    let mut data = vec![0; len];
    file.read_exact_at(&mut data, 0)?;
    Ok(data)
}

fn private(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let contents = pattern(PAGES * PAGE, 61);
    let file = file(MFdFlags::empty(), &contents)?;
    let memory = Mapping::file(&file, contents.len(), BOTH, MapFlags::MAP_PRIVATE)?;
    expect_checksum(bench, "the file's pages", &memory, 0, &contents)?;
    // The device's writes are private to the process.
    let ((), counted) = bench.count(|bench| {
        fill(bench, &memory, PAGE..3 * PAGE, 5)?;
        Ok(())
    })?;
    counted.at_least(index::PAGE_REQUESTS, 2)?;
    let mut mine = contents.clone();
    mine[PAGE..3 * PAGE].copy_from_slice(&5u64.to_le_bytes().repeat(2 * PAGE / 8));
    expect_bytes("the mapping", &memory.read(0..mine.len()), &mine)?;
    expect_bytes("the file", &contents_of(&file, contents.len())?, &contents)?;
    // Changes of the file are visible only in the pages that were not written.
    file.write_all_at(&[0xee; 3 * PAGE], PAGE as u64)?;
    mine[3 * PAGE..4 * PAGE].fill(0xee);
    expect_checksum(bench, "after a write to the file", &memory, 0, &mine)?;
    round_trip(bench, "private", &memory)?;
    passed()
}

fn shared(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let contents = pattern(PAGES * PAGE, 62);
    let file = file(MFdFlags::empty(), &contents)?;
    let memory = Mapping::file(&file, contents.len(), BOTH, MapFlags::MAP_SHARED)?;
    expect_checksum(bench, "the file's pages", &memory, 0, &contents)?;
    fill(bench, &memory, 100..PAGE + 100, 6)?;
    let mut expected = contents.clone();
    expected[100..PAGE + 100].copy_from_slice(&6u64.to_le_bytes().repeat(PAGE / 8));
    expect_bytes("the file", &contents_of(&file, expected.len())?, &expected)?;
    file.write_all_at(&[0xdd; PAGE], 7 * PAGE as u64)?;
    expected[7 * PAGE..8 * PAGE].fill(0xdd);
    expect_checksum(bench, "after a write to the file", &memory, 0, &expected)?;
    round_trip(bench, "shared", &memory)?;
    passed()
}

fn truncated(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let contents = pattern(PAGES * PAGE, 63);
    let file = file(MFdFlags::empty(), &contents)?;
    let memory = Mapping::file(&file, contents.len(), BOTH, MapFlags::MAP_SHARED)?;
    expect_checksum(bench, "whole", &memory, 0, &contents)?;
    let left = 3 * PAGE + 100;
    let ((), counted) = bench.count(|_| Ok(file.set_len(left as u64)?))?;
    counted.at_least(index::INVALIDATIONS, 1)?;
    // The remaining part, up to the end of its last page, which holds zeros beyond the end of the
    // file.
    let mut expected = contents[..4 * PAGE].to_vec();
    expected[left..].fill(0);
    expect_checksum(bench, "what is left", &memory, 0, &expected)?;
    expect_fault(
        checksum(bench, &memory, 0..contents.len()),
        false,
        memory.address(4 * PAGE),
    )?;
    let write = fill(bench, &memory, 5 * PAGE..6 * PAGE, 1);
    expect_fault(write, true, memory.address(5 * PAGE))?;
    // The processor gets a signal, and the kernel on its behalf an error.
    ensure!(
        memory.try_read(4 * PAGE..4 * PAGE + 1) == Err(Errno::EFAULT),
        "the kernel reads behind the end of the file"
    );
    let mut child = Child::fork(|_| {
        memory.read(4 * PAGE..4 * PAGE + 1);
        Ok(())
    })?;
    let status = child.wait()?;
    ensure!(
        matches!(status, WaitStatus::Signaled(_, Signal::SIGBUS, _)),
        "a process that reads behind the end ended by {status:?}, SIGBUS was expected"
    );
    // The file grows again: zeros.
    file.set_len(contents.len() as u64)?;
    expected.resize(contents.len(), 0);
    expect_checksum(bench, "grown again", &memory, 0, &expected)?;
    round_trip(bench, "grown again", &memory)?;
    passed()
}

fn truncated_at_work(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let contents = pattern(PAGES * PAGE, 64);
    let file = file(MFdFlags::empty(), &contents)?;
    let memory = Mapping::file(&file, contents.len(), BOTH, MapFlags::MAP_SHARED)?;
    let least = bench.rounds(60);
    let (mut done, mut failed) = (0u32, 0u32);
    let half = (PAGES / 2 * PAGE) as u64;
    let (meeting, mut turn) = (Meeting::default(), 0u32);
    let cut = || {
        turn += 1;
        file.set_len(half)?;
        if turn % 8 == 4 {
            meeting.keep();
        }
        file.set_len(contents.len() as u64)?;
        if turn % 8 == 0 {
            meeting.keep();
        }
        Ok(())
    };
    let times = beside(cut, |_| {
        let _over = Over(&meeting);
        while done + failed < least || done == 0 || failed == 0 {
            ensure!(
                done + failed < TRIES,
                "{done} times filled, {failed} times not: the file was not seen both whole and cut"
            );
            let filled = fill(bench, &memory, 0..contents.len(), 1);
            meeting.tried();
            match filled {
                Ok(_) => done += 1,
                Err(svmctl::Error::Failed(failure)) => {
                    expect_behind(&failure, memory.address(half as usize))?;
                    failed += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })?;
    // The file has its full length again.
    round_trip(bench, "whole again", &memory)?;
    remark(format!(
        "{times} times cut, {done} times filled, {failed} times not"
    ))
}

/// Checks that the failure was due to a page beyond `address`.
fn expect_behind(failure: &Failure, address: u64) -> anyhow::Result<()> {
    ensure!(
        failure.error() == Some(completion::Error::PageFault) && failure.address >= address,
        "a page fault from {address:#x} on was expected: {failure}"
    );
    Ok(())
}

fn sealed(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let contents = pattern(PAGES * PAGE, 65);
    let len = contents.len();
    let file = file(MFdFlags::MFD_ALLOW_SEALING, &contents)?;
    let writable = Mapping::file(&file, len, BOTH, MapFlags::MAP_SHARED)?;
    round_trip(bench, "before it was sealed", &writable)?;
    writable.write(0, &contents);
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_FUTURE_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).context("F_ADD_SEALS")?;
    ensure!(
        file.set_len(0).is_err(),
        "a sealed file was truncated under the device"
    );
    // An existing mapping may be written, a new one may not.
    fill(bench, &writable, 0..PAGE, 3)?;
    let mut expected = contents;
    expected[..PAGE].copy_from_slice(&3u64.to_le_bytes().repeat(PAGE / 8));
    let read_only = Mapping::file(&file, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED)?;
    expect_checksum(bench, "read-only", &read_only, 0, &expected)?;
    let write = fill(bench, &read_only, PAGE..2 * PAGE, 4);
    expect_fault(write, true, read_only.address(PAGE))?;
    expect_bytes("the file", &contents_of(&file, len)?, &expected)?;
    drop(writable);
    // Nothing can write any more: not even the device, which could before.
    let seal = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
    fcntl(&file, seal).context("F_SEAL_WRITE")?;
    expect_fault(fill(bench, &read_only, 0..8, 4), true, read_only.address(0))?;
    let private = Mapping::file(&file, len, BOTH, MapFlags::MAP_PRIVATE)?;
    round_trip(bench, "a private mapping of a sealed file", &private)?;
    expect_bytes("the file", &contents_of(&file, len)?, &expected)?;
    passed()
}
