// SPDX-License-Identifier: MIT OR Apache-2.0
//! The place of memory: it moves, it grows, it is far away, and it is at addresses where no memory
//! should be.

use anyhow::ensure;
use nix::sys::mman::MapFlags;
use svm_init::kernel::INTERRUPT_RANGE;
use svmctl::Descriptor;
use svmctl::abi::completion::Error;
use svmctl::region::{PAGE, Region};

use super::device::{checksum, expect_checksum, fill, round_trip};
use crate::harness::bench::{Bench, expect_bytes, expect_fault, failure, pattern};
use crate::harness::{Case, Verdict, passed, remark, skipped};
use crate::system::mapping::{BOTH, Mapping, Memory};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("mremap moves and grows memory", moved),
    Case::new("a stack grows by the processor, not by the device", stack),
    Case::new("more than 4 GiB of address space", far),
    Case::new("memory at the addresses of interrupts", interrupt_range).provoking(INTERRUPT_RANGE),
    Case::new("addresses that are none", no_addresses)
        // Messages about page requests for them, without a rate limit.
        .provoking(&["*: Address is not canonical", "*: Invalid page request"]),
];

fn moved(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut times = 0;
    for _ in 0..bench.rounds(8) {
        let mut memory = Mapping::anonymous(4 * PAGE, BOTH, MapFlags::empty())?;
        round_trip(bench, "before", &memory)?;
        // A mapping behind it prevents it from growing in place.
        let wall = Region::at_address(memory.address(0) as usize + memory.len(), PAGE);
        let contents = pattern(memory.len(), 81);
        memory.write(0, &contents);
        let (old, len) = (memory.at(0), memory.len());
        memory = memory.remap(16 * PAGE)?;
        ensure!(
            memory.at(0) != old,
            "the memory has grown in its place, although there is something behind it"
        );
        times += 1;
        let gone = Descriptor::crc32c(old, len as u64, 0);
        // SAFETY: the device only reads, at a place that is unmapped or mapped to something else.
        let read = unsafe { bench.queue().execute(&gone) };
        expect_fault(read, false, old.addr() as u64)?;
        expect_checksum(bench, "moved", &memory, 0, &contents)?;
        round_trip(bench, "grown", &memory)?;
        let behind = memory.at(PAGE);
        memory = memory.remap(PAGE)?;
        let cut = Descriptor::fill(behind, 8, 0);
        // SAFETY: nothing is mapped there any more.
        let write = unsafe { bench.queue().execute(&cut) };
        expect_fault(write, true, behind.addr() as u64)?;
        round_trip(bench, "shrunk", &memory)?;
        drop(wall);
    }
    remark(format!("{times} times moved"))
}

fn stack(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const TOP: usize = 0x2700_0010_0000;
    let memory = Mapping::at_address(TOP, PAGE, BOTH, MapFlags::MAP_GROWSDOWN)?;
    round_trip(bench, "the stack", &memory)?;
    // The kernel's handler of page requests does not grow a stack.
    let below = memory.at(0).wrapping_sub(8);
    let push = Descriptor::fill(below, 8, 1);
    // SAFETY: nothing is mapped there, or the grown stack is.
    let write = unsafe { bench.queue().execute(&push) };
    expect_fault(write, true, below.addr() as u64)?;
    // The processor's access makes it grow; then the device can access it, too. SAFETY: a stack may
    // be written below its end, which makes the kernel add a page. Only this function uses this
    // stack.
    let grown = unsafe {
        below.cast::<u64>().write_volatile(0);
        Mapping::adopt(TOP - PAGE, PAGE)
    }?;
    // SAFETY: as above.
    unsafe { bench.queue().execute(&push) }?;
    let read = Descriptor::crc32c(below, 8, 0);
    // SAFETY: the device only reads.
    let crc = unsafe { bench.queue().execute(&read) }?.result as u32;
    ensure!(
        crc == crc32c::crc32c(&1u64.to_le_bytes()),
        "the device reads something else than it wrote"
    );
    round_trip(bench, "what has grown", &grown)?;
    passed()
}

fn far(bench: &mut Bench) -> anyhow::Result<Verdict> {
    const GIB: usize = 1 << 30;
    const SIZE: usize = 6 * GIB;
    // Also across a boundary of 512 GiB, where another second-level table begins.
    const START: usize = (0x2800 << 32) - 3 * GIB;
    let memory = match Mapping::at_address(START, SIZE, BOTH, MapFlags::MAP_NORESERVE) {
        Ok(memory) => memory,
        Err(error) => return skipped(format!("6 GiB of address space cannot be had: {error}")),
    };
    memory.advise(0..SIZE, nix::libc::MADV_NOHUGEPAGE)?;
    let mut places: Vec<usize> = (0..SIZE).step_by(GIB / 2).collect();
    places.push(SIZE - 2 * PAGE);
    for (n, &place) in places.iter().enumerate() {
        // Across the boundary, if something is mapped before it.
        let start = place.saturating_sub(PAGE);
        let contents = pattern(2 * PAGE, n as u64);
        if n % 2 == 0 {
            memory.write(start, &contents);
        } else {
            let source = Region::new(2 * PAGE)?;
            source.write(0, &contents);
            let copy = Descriptor::copy(source.at(0), memory.at(start), 2 * PAGE as u64);
            // SAFETY: both are accessed atomically, and live as long as the call.
            unsafe { bench.queue().execute(&copy) }?;
        }
    }
    for (n, &place) in places.iter().enumerate() {
        let start = place.saturating_sub(PAGE);
        let contents = pattern(2 * PAGE, n as u64);
        expect_checksum(bench, "far", &memory, start, &contents)?;
        let read = memory.read(start..start + 2 * PAGE);
        expect_bytes("far", &read, &contents)?;
    }
    // One descriptor for the whole length is refused, or fails at a page, but does not hang.
    let longest = 1usize << bench.info().transfer_log2_max;
    if longest < SIZE {
        let long = failure(checksum(bench, &memory, 0..SIZE))?;
        ensure!(
            long.error() == Some(Error::BadLength),
            "6 GiB at once: {long}"
        );
    }
    remark(format!("{} places", places.len()))
}

fn interrupt_range(bench: &mut Bench) -> anyhow::Result<Verdict> {
    /// The address range of interrupt messages (VT-d 3.15).
    const FIRST: usize = 0xfee0_0000;
    /// The first address beyond the range.
    const BEHIND: usize = 0xfef0_0000;
    let map = |address, len| Mapping::at_address(address, len, BOTH, MapFlags::empty());
    let memory = match map(FIRST - PAGE, BEHIND - FIRST + 2 * PAGE) {
        Ok(memory) => memory,
        Err(error) => return skipped(format!("nothing can be mapped at {FIRST:#x}: {error}")),
    };
    memory.advise(0..memory.len(), nix::libc::MADV_NOHUGEPAGE)?;
    let contents = pattern(memory.len(), 84);
    memory.write(0, &contents);
    // The processor has memory there, and so has the device: with a PASID these are ordinary
    // addresses. But QEMU's own IOMMU refuses them, and then nothing may have been written.
    let behind = memory.len() - PAGE;
    let places = [PAGE, PAGE + 8, 16 * PAGE, behind - 64];
    let whole = checksum(bench, &memory, PAGE..PAGE + 64);
    let refuses = whole.is_err();
    for start in places {
        let range = start..start + 64;
        let works = [
            checksum(bench, &memory, range.clone()).map(drop),
            fill(bench, &memory, range.clone(), 0).map(drop),
        ];
        for work in works {
            if !refuses {
                work?;
                continue;
            }
            let failure = failure(work)?;
            ensure!(
                failure.error() == Some(Error::CompleterAbort)
                    && failure.address == memory.address(start)
                    && failure.bytes_done == 0,
                "CompleterAbort at {:#x} was expected: {failure}",
                memory.address(start)
            );
        }
        let expected = match refuses {
            true => contents[range.clone()].to_vec(),
            false => vec![0; 64],
        };
        expect_bytes("an address of interrupts", &memory.read(range), &expected)?;
    }
    // Across the first address: the part before it may be written.
    let across = fill(bench, &memory, PAGE - 64..PAGE + 64, 0);
    if refuses {
        let across = failure(across)?;
        ensure!(
            across.error() == Some(Error::CompleterAbort) && across.bytes_done <= 64,
            "CompleterAbort was expected: {across}"
        );
        let read = memory.read(PAGE..behind);
        expect_bytes(
            "the addresses of interrupts",
            &read,
            &contents[PAGE..behind],
        )?;
    } else {
        across?;
        let rest = PAGE + 72..16 * PAGE;
        let read = memory.read(rest.clone());
        expect_bytes("what was not written", &read, &contents[rest])?;
    }
    expect_checksum(bench, "the page before", &memory, 0, &memory.read(0..PAGE))?;
    fill(bench, &memory, behind..behind + PAGE, 0x4321)?;
    let expected = 0x4321u64.to_le_bytes().repeat(PAGE / 8);
    let read = memory.read(behind..behind + PAGE);
    expect_bytes("the page behind", &read, &expected)?;
    remark(match refuses {
        true => "refused by the IOMMU",
        false => "translated like others",
    })
}

/// Whether all bits above an address width equal the highest bit within it.
fn is_canonical(address: u64, bits: u32) -> bool {
    let above = 64 - bits;
    ((address << above) as i64 >> above) as u64 == address
}

/// Index of the prefetch among the operations tried with each address. It covers a whole page, and
/// at the last address it ends at the end of the address space.
const PREFETCH: usize = 5;

fn no_addresses(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let memory = Region::new(PAGE)?;
    let contents = pattern(PAGE, 85);
    memory.write(0, &contents);
    let addresses = [
        1 << 47,
        0,
        (1 << 47) + PAGE as u64,
        1 << 50,
        1 << 55,
        (1 << 56) - PAGE as u64,
        1 << 56,
        1 << 57,
        1 << 62,
        1 << 63,
        0xffff_7fff_ffff_f000,
        0xffff_8000_0000_0000,
        0xffff_ffff_ffff_f000,
    ];
    let mut wrong = Vec::new();
    // The device itself checks addresses for 57 bits, and the IOMMU for its own width: QEMU's has
    // 48. The first address with more than 47 bits shows which.
    let mut bits = None;
    for address in addresses {
        let at = std::ptr::without_provenance_mut::<u8>(address as usize);
        let works = [
            Descriptor::crc32c(at, 8, 0),
            Descriptor::fill(at, 8, 1),
            Descriptor::copy(memory.at(0), at, 64),
            Descriptor::copy(at, memory.at(0), 64),
            Descriptor::fetch_add(at.cast(), 1),
            Descriptor::prefetch(at, 4096, true),
        ];
        for (n, work) in works.iter().enumerate() {
            // SAFETY: no process has memory there. The device may otherwise write only to the
            // region, which is accessed atomically.
            let failure = failure(unsafe { bench.queue().execute(work) })?;
            let bits = *bits.get_or_insert(match failure.error() {
                Some(Error::BadAddress) => 48,
                _ => 57,
            });
            // The device requests a page for every valid address of this width, including the
            // kernel's.
            let expected = match address {
                0xffff_ffff_ffff_f000 if n == PREFETCH => Error::BadLength,
                _ if is_canonical(address, bits) => Error::PageFault,
                _ => Error::BadAddress,
            };
            if failure.error() != Some(expected) {
                wrong.push(format!("{address:#x}, operation {n}: {failure}"));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    expect_bytes("the memory", &memory.read(0..PAGE), &contents)?;
    remark(format!("{} addresses", addresses.len()))
}
