// SPDX-License-Identifier: MIT OR Apache-2.0
//! Pages that a program provides itself, by `userfaultfd`. The kernel's handler of page requests
//! cannot wait for a program, so the device gets an error for a page that is not provided yet, and
//! must not hang. It accesses provided pages like any other memory.

use anyhow::ensure;
use nix::sys::mman::MapFlags;
use svmctl::abi::counters::index;
use svmctl::region::PAGE;

use super::device::{checksum, expect_checksum, fill};
use crate::harness::bench::{Bench, expect_bytes, expect_fault, pattern};
use crate::harness::{Case, Verdict, remark, skipped};
use crate::system::mapping::{BOTH, Mapping, Memory};
use crate::system::userfault::Userfault;
use svm_init::kernel::NO_RETRY;

/// See the module.
pub const CASES: &[Case] = &[Case::new("pages provided by userfaultfd", provided)
    // A kernel that is built to check its memory management logs when it gives up.
    .provoking(&[NO_RETRY])];

const PAGES: usize = 16;

fn provided(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let memory = Mapping::anonymous(PAGES * PAGE, BOTH, MapFlags::empty())?;
    let provider = match Userfault::new(&memory) {
        Ok(provider) => provider,
        Err(error) => return skipped(format!("userfaultfd: {error}")),
    };
    let contents = pattern(memory.len(), 51);
    let page = |n: usize| n * PAGE..(n + 1) * PAGE;
    // The pages are not provided: the device gets an error at the right address and does not hang.
    expect_fault(checksum(bench, &memory, 0..PAGE), false, memory.address(0))?;
    expect_fault(fill(bench, &memory, page(1), 1), true, memory.address(PAGE))?;
    for n in (0..PAGES).step_by(2) {
        provider.provide(&memory, n * PAGE, &contents[page(n)])?;
        let ((), counted) = bench.count(|bench| {
            expect_checksum(
                bench,
                "a provided page",
                &memory,
                n * PAGE,
                &contents[page(n)],
            )
        })?;
        counted.at_most(index::PAGE_REQUESTS, 1)?;
    }
    // The processor waits for the other pages and is given them. Then the device can access them,
    // too.
    let served = std::thread::scope(|scope| -> anyhow::Result<usize> {
        let reader = scope.spawn(|| memory.read(0..memory.len()));
        let mut served = 0;
        while served < PAGES / 2 {
            let at = provider.wait(&memory)?;
            provider.provide(&memory, at, &contents[at..at + PAGE])?;
            served += 1;
        }
        let read = reader.join().map_err(|_| anyhow::anyhow!("panic"))?;
        expect_bytes("the pages", &read, &contents)?;
        Ok(served)
    })?;
    expect_checksum(bench, "all pages", &memory, 0, &contents)?;
    fill(bench, &memory, 0..memory.len(), 9)?;
    let expected = 9u64.to_le_bytes().repeat(memory.len() / 8);
    expect_bytes("all pages", &memory.read(0..memory.len()), &expected)?;
    ensure!(served == PAGES / 2, "{served} pages were waited for");
    remark(format!(
        "{PAGES} pages, {served} of them waited for by the processor"
    ))
}
