// SPDX-License-Identifier: MIT OR Apache-2.0
//! Permissions that are removed and restored, and advice that changes memory.

use anyhow::{Context, ensure};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags};
use svmctl::abi::completion::Error;
use svmctl::abi::counters::index;
use svmctl::region::PAGE;

use super::device::{checksum, expect_checksum, fill, round_trip};
use super::race::{Meeting, Over, TRIES, beside};
use crate::harness::bench::{Bench, expect_bytes, expect_fault, pattern};
use crate::harness::{Case, Verdict, passed, remark, skipped};
use crate::system::mapping::{BOTH, Mapping, Memory};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("mprotect takes permissions and gives them back", protect),
    Case::new("mprotect at work", protect_at_work),
    Case::new("advice of every kind", advice),
    Case::new("guard pages", guards),
];

const PAGES: usize = 16;

fn memory() -> std::io::Result<Mapping> {
    Mapping::anonymous(PAGES * PAGE, BOTH, MapFlags::empty())
}

fn protect(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let memory = memory()?;
    let contents = pattern(memory.len(), 71);
    let (part, address) = (4 * PAGE..6 * PAGE, memory.address(4 * PAGE));
    for _ in 0..bench.rounds(10) {
        round_trip(bench, "all permissions", &memory)?;
        memory.write(0, &contents);
        let ((), counted) =
            bench.count(|_| Ok(memory.protect(part.clone(), ProtFlags::PROT_READ)?))?;
        counted.at_least(index::INVALIDATIONS, 1)?;
        expect_checksum(bench, "read-only", &memory, 0, &contents)?;
        expect_fault(fill(bench, &memory, part.clone(), 1), true, address)?;
        memory.protect(part.clone(), ProtFlags::PROT_NONE)?;
        expect_fault(checksum(bench, &memory, part.clone()), false, address)?;
        expect_fault(fill(bench, &memory, part.clone(), 1), true, address)?;
        // The adjacent memory remains unchanged.
        expect_checksum(bench, "beside", &memory, 0, &contents[..4 * PAGE])?;
        expect_checksum(bench, "beside", &memory, 6 * PAGE, &contents[6 * PAGE..])?;
        memory.protect(part.clone(), BOTH)?;
        expect_bytes("back", &memory.read(0..memory.len()), &contents)?;
    }
    round_trip(bench, "all permissions", &memory)?;
    passed()
}

fn protect_at_work(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let memory = memory()?;
    memory.write(0, &vec![1; memory.len()]);
    let least = bench.rounds(60);
    let (mut done, mut failed) = (0u32, 0u32);
    let (meeting, mut turn) = (Meeting::default(), 0u32);
    let change = || {
        turn += 1;
        memory.protect(0..memory.len(), ProtFlags::PROT_READ)?;
        if turn % 8 == 4 {
            meeting.keep();
        }
        memory.protect(0..memory.len(), BOTH)?;
        if turn % 8 == 0 {
            meeting.keep();
        }
        Ok(())
    };
    let times = beside(change, |_| {
        let _over = Over(&meeting);
        while done + failed < least || done == 0 || failed == 0 {
            ensure!(
                done + failed < TRIES,
                "{done} times filled, {failed} times not: the memory was not met both writable and \
                 read-only"
            );
            let filled = fill(bench, &memory, 0..memory.len(), done.into());
            meeting.tried();
            match filled {
                Ok(_) => done += 1,
                Err(svmctl::Error::Failed(failure))
                    if failure.error() == Some(Error::PageFault) && failure.write =>
                {
                    failed += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    })?;
    round_trip(bench, "afterwards", &memory)?;
    remark(format!(
        "{times} times changed, {done} times filled, {failed} times not"
    ))
}

/// What happens to the contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stays,
    Zeros,
    /// Stays, or is zeros, page by page.
    Either,
}

fn advice(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let kinds = [
        ("MADV_NORMAL", libc::MADV_NORMAL, Then::Stays),
        ("MADV_RANDOM", libc::MADV_RANDOM, Then::Stays),
        ("MADV_SEQUENTIAL", libc::MADV_SEQUENTIAL, Then::Stays),
        ("MADV_WILLNEED", libc::MADV_WILLNEED, Then::Stays),
        ("MADV_DONTNEED", libc::MADV_DONTNEED, Then::Zeros),
        ("MADV_FREE", libc::MADV_FREE, Then::Either),
        ("MADV_COLD", libc::MADV_COLD, Then::Stays),
        ("MADV_PAGEOUT", libc::MADV_PAGEOUT, Then::Stays),
        ("MADV_POPULATE_READ", libc::MADV_POPULATE_READ, Then::Stays),
        (
            "MADV_POPULATE_WRITE",
            libc::MADV_POPULATE_WRITE,
            Then::Stays,
        ),
        ("MADV_DONTFORK", libc::MADV_DONTFORK, Then::Stays),
        ("MADV_DOFORK", libc::MADV_DOFORK, Then::Stays),
        ("MADV_WIPEONFORK", libc::MADV_WIPEONFORK, Then::Stays),
        ("MADV_KEEPONFORK", libc::MADV_KEEPONFORK, Then::Stays),
        ("MADV_DONTDUMP", libc::MADV_DONTDUMP, Then::Stays),
        ("MADV_DODUMP", libc::MADV_DODUMP, Then::Stays),
    ];
    let memory = memory()?;
    let zeros = vec![0; memory.len()];
    let mut given = 0;
    for (name, advice, then) in kinds {
        let contents = pattern(memory.len(), advice as u64);
        memory.write(0, &contents);
        expect_checksum(bench, name, &memory, 0, &contents)?;
        match memory.advise(0..memory.len(), advice) {
            Ok(()) => given += 1,
            // A kernel built without it.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => continue,
            Err(error) => return Err(error).context(name),
        }
        match then {
            Then::Stays => expect_checksum(bench, name, &memory, 0, &contents)?,
            Then::Zeros => expect_checksum(bench, name, &memory, 0, &zeros)?,
            Then::Either => {
                for start in (0..memory.len()).step_by(PAGE) {
                    let page = start..start + PAGE;
                    let device = checksum(bench, &memory, page.clone())?;
                    let either = [&contents[page.clone()], &zeros[page]];
                    ensure!(
                        either.iter().any(|data| crc32c::crc32c(data) == device),
                        "{name}: the page at {start:#x} is neither as before nor zeros"
                    );
                }
            }
        }
        round_trip(bench, name, &memory)?;
    }
    // Every kernel has all of them but those of swap and KSM.
    ensure!(
        given + 2 >= kinds.len(),
        "the kernel took {given} kinds of advice of {}",
        kinds.len()
    );
    remark(format!("{given} of {} kinds", kinds.len()))
}

fn guards(bench: &mut Bench) -> anyhow::Result<Verdict> {
    /// `MADV_GUARD_INSTALL` (Linux 6.13).
    const INSTALL: i32 = 102;
    /// `MADV_GUARD_REMOVE`.
    const REMOVE: i32 = 103;
    let memory = memory()?;
    let contents = pattern(memory.len(), 73);
    memory.write(0, &contents);
    expect_checksum(bench, "before", &memory, 0, &contents)?;
    let guard = 8 * PAGE..9 * PAGE;
    if let Err(error) = memory.advise(guard.clone(), INSTALL) {
        return skipped(format!("MADV_GUARD_INSTALL: {error}"));
    }
    let address = memory.address(guard.start);
    expect_fault(checksum(bench, &memory, 0..memory.len()), false, address)?;
    expect_fault(fill(bench, &memory, guard.clone(), 1), true, address)?;
    let ends = fill(bench, &memory, 7 * PAGE..10 * PAGE, 2);
    expect_fault(ends, true, address)?;
    // The memory behind the guard was not accessed.
    expect_checksum(bench, "behind", &memory, guard.end, &contents[guard.end..])?;
    memory.advise(guard.clone(), REMOVE)?;
    expect_checksum(bench, "the guard's page", &memory, guard.start, &[0; PAGE])?;
    round_trip(bench, "without a guard", &memory)?;
    passed()
}
