// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls: which the driver accepts, and which it refuses with which error.

use std::os::fd::AsFd;

use anyhow::ensure;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags};
use svmctl::abi::completion::status;
use svmctl::abi::descriptor::{Descriptor, Operation, flags};
use svmctl::abi::ioctl::{DOORBELL_SIZE, Info, Queue, TYPE};
use svmctl::region::{PAGE, Region};

use crate::harness::bench::Bench;
use crate::harness::{Case, Verdict, passed};
use crate::test::raw::{self, NOWHERE, RawFile, RawQueue, expect_errno};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("unknown ioctls give ENOTTY", unknown_ioctls),
    Case::new("bad pointers give EFAULT", bad_pointers),
    Case::new("bad rings give EINVAL", bad_rings),
    Case::new("arguments of other sizes", sizes),
    Case::new("a second queue gives EBUSY", second_queue),
    Case::new("only the doorbell page can be mapped", mappings),
    Case::new("read counts interrupts", reads),
    Case::new("read waits for an interrupt", blocking_read),
];

fn unknown_ioctls(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let file = RawFile::open(bench.device())?;
    let others = [
        nix::request_code_none!(TYPE, 0x7f),
        nix::request_code_none!(TYPE, 0x05),
        // The right numbers, but with a direction or a size.
        nix::request_code_read!(TYPE, svmctl::abi::ioctl::INFO, 8),
        nix::request_code_write!(TYPE, svmctl::abi::ioctl::QUEUE_SETUP, 24),
        // TCGETS, which every program tries.
        0x5401,
    ];
    for request in others {
        // SAFETY: nothing is mapped at the address.
        let result = unsafe { file.ioctl(request, NOWHERE) };
        expect_errno(&format!("request {request:#x}"), result, Errno::ENOTTY)?;
    }
    file.info()?;
    passed()
}

fn bad_pointers(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let file = RawFile::open(bench.device())?;
    let mut read_only = Region::new(PAGE)?;
    // The driver reads the size first, from memory to which it cannot write the rest.
    read_only.write(0, &(size_of::<Info>() as u32).to_ne_bytes());
    read_only.set_read_only(0..PAGE)?;
    let kernel = 0xffff_8880_0000_0000;
    for address in [0, NOWHERE, kernel, u64::MAX - 7, 1 << 62] {
        // SAFETY: the process cannot access these addresses, and has no memory there.
        let (info, setup) = unsafe {
            (
                file.ioctl(raw::INFO, address),
                file.ioctl(raw::QUEUE_SETUP, address),
            )
        };
        expect_errno(&format!("INFO at {address:#x}"), info, Errno::EFAULT)?;
        expect_errno(
            &format!("QUEUE_SETUP at {address:#x}"),
            setup,
            Errno::EFAULT,
        )?;
    }
    // SAFETY: the driver cannot write there.
    let info = unsafe { file.ioctl(raw::INFO, read_only.address(0)) };
    expect_errno("INFO in read-only memory", info, Errno::EFAULT)?;
    // A structure that ends where the mapping does, and one that extends beyond it.
    let region = Region::at_address(0x2100_0000_0000, PAGE)?;
    let size = size_of::<Queue>();
    for (missing, expected) in [(0, Errno::EINVAL), (8, Errno::EFAULT)] {
        let mut bytes = [0xff; size_of::<Queue>()];
        bytes[..4].copy_from_slice(&(size as u32).to_ne_bytes());
        bytes[4..8].fill(0);
        region.write(PAGE - size, &[0; size_of::<Queue>()]);
        region.write(PAGE - size + missing, &bytes[..size - missing]);
        // SAFETY: the driver only reads, in a region or behind it.
        let setup = unsafe { file.ioctl(raw::QUEUE_SETUP, region.address(PAGE - size + missing)) };
        expect_errno(&format!("{missing} bytes missing"), setup, expected)?;
    }
    passed()
}

fn bad_rings(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let file = RawFile::open(bench.device())?;
    let info = file.info()?;
    let memory = Region::new(PAGE)?;
    let good = Queue {
        ring: memory.address(0),
        ring_log2: 3,
        ..Queue::default()
    };
    let ring = |ring| Queue { ring, ..good };
    let top = 1u64 << 47;
    let bad = [
        ("not aligned to 64 bytes", ring(good.ring + 32)),
        ("not aligned at all", ring(good.ring + 1)),
        ("in the kernel's addresses", ring(0xffff_8880_0000_0000)),
        ("not canonical", ring(1 << 60)),
        ("at the end of the address space", ring(u64::MAX - 63)),
        (
            "across the process's last address",
            ring(top - PAGE as u64 - 64),
        ),
        (
            "too large",
            Queue {
                ring_log2: info.ring_log2_max + 1,
                ..good
            },
        ),
        (
            "of a size that is no size",
            Queue {
                ring_log2: u32::MAX,
                ..good
            },
        ),
        ("with a flag", Queue { flags: 1, ..good }),
        (
            "with what is reserved",
            Queue {
                reserved: 1,
                ..good
            },
        ),
        (
            "with another flag",
            Queue {
                flags: 1 << 31,
                ..good
            },
        ),
    ];
    for (what, queue) in bad {
        expect_errno(
            &format!("a ring {what}"),
            file.queue_setup(&queue),
            Errno::EINVAL,
        )?;
    }
    file.queue_setup(&good)?;
    passed()
}

fn sizes(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let file = RawFile::open(bench.device())?;
    let memory = Region::new(2 * PAGE)?;
    let known = size_of::<Queue>();
    let ring = Region::new(PAGE)?;
    // As a program built for another version would call it: with `size` bytes, the last of which is
    // `last`.
    let setup = |size: usize, last: u8| {
        memory.write(0, &vec![0; 2 * PAGE]);
        memory.write(0, &(size as u32).to_ne_bytes());
        memory.write(8, &ring.address(0).to_ne_bytes());
        if size > known {
            memory.write(size - 1, &[last]);
        }
        // SAFETY: the driver reads, in the region.
        unsafe { file.ioctl(raw::QUEUE_SETUP, memory.address(0)) }
    };
    for size in [0, 4, 8, known - 1] {
        let result = setup(size, 0);
        expect_errno(&format!("{size} bytes"), result, Errno::EINVAL)?;
    }
    for (size, last) in [(known + 1, 1), (known + 64, 0x80), (PAGE + 1, 0)] {
        let result = setup(size, last);
        expect_errno(&format!("{size} bytes"), result, Errno::E2BIG)?;
    }
    for size in [known, known + 1, known + 64, PAGE] {
        setup(size, 0)?;
        file.queue_stop()?;
    }
    let known = size_of::<Info>();
    let info = |size: usize, flags: u32| {
        memory.write(0, &vec![0xff; 2 * PAGE]);
        memory.write(0, &(size as u32).to_ne_bytes());
        memory.write(4, &flags.to_ne_bytes());
        // SAFETY: the driver writes, in the region.
        unsafe { file.ioctl(raw::INFO, memory.address(0)) }
    };
    expect_errno("INFO, too short", info(known - 1, 0), Errno::EINVAL)?;
    expect_errno("INFO, with flags", info(known, 1), Errno::EINVAL)?;
    expect_errno("INFO, too long", info(PAGE + 1, 0), Errno::E2BIG)?;
    for size in [known, known + 9] {
        info(size, 0)?;
        let bytes = memory.read(0..size + 1);
        ensure!(
            bytes[..4] == (known as u32).to_ne_bytes(),
            "the size that the driver knows is {:?}",
            &bytes[..4]
        );
        ensure!(
            bytes[known..size].iter().all(|&byte| byte == 0) && bytes[size] == 0xff,
            "of {size} bytes the last and the next are {:?}",
            &bytes[known - 1..]
        );
    }
    passed()
}

fn second_queue(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let memory = Region::new(PAGE)?;
    let file = RawFile::open(bench.device())?;
    let queue = Queue {
        ring: memory.address(0),
        ring_log2: 2,
        ..Queue::default()
    };
    // Stopping a queue that is not started does nothing.
    file.queue_stop()?;
    for _ in 0..3 {
        file.queue_setup(&queue)?;
        expect_errno("the second time", file.queue_setup(&queue), Errno::EBUSY)?;
        file.queue_stop()?;
        file.queue_stop()?;
    }
    passed()
}

fn mappings(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let file = RawFile::open(bench.device())?;
    let (read, write) = (ProtFlags::PROT_READ, ProtFlags::PROT_WRITE);
    let shared = MapFlags::MAP_SHARED;
    let page = DOORBELL_SIZE;
    let bad = [
        ("two pages", page * 2, read | write, shared, 0),
        (
            "the page of the next context",
            page,
            read | write,
            shared,
            page as i64,
        ),
        ("a page far behind", page, read | write, shared, 1 << 40),
        (
            "a private page",
            page,
            read | write,
            MapFlags::MAP_PRIVATE,
            0,
        ),
        (
            "a private page to read",
            page,
            read,
            MapFlags::MAP_PRIVATE,
            0,
        ),
        (
            "an executable page",
            page,
            read | ProtFlags::PROT_EXEC,
            shared,
            0,
        ),
    ];
    for (what, length, protection, flags, offset) in bad {
        let result = file.try_map(length, protection, flags, offset);
        expect_errno(&format!("a mapping of {what}"), result, Errno::EINVAL)?;
    }
    file.try_map(page, read | write, shared, 0)?;
    file.try_map(page, read, shared, 0)?;
    passed()
}

fn reads(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let mut queue = RawQueue::start(bench.device(), 4)?;
    expect_errno("read before any interrupt", queue.read(), Errno::EAGAIN)?;
    ensure!(
        queue.poll_now()?.is_empty(),
        "poll: {:?} before any work",
        queue.poll_now()?
    );
    let nop = |completion, flags| Descriptor {
        operation: Operation::Nop as u8,
        flags,
        completion,
        ..Descriptor::default()
    };
    for n in 0..3 {
        let record = queue.record_address(n);
        // SAFETY: the operation writes only its record, which belongs to the queue.
        unsafe { queue.submit(&nop(record, flags::INTERRUPT | flags::FENCE)) };
    }
    let mut count = 0;
    while count < 3 {
        queue.poll()?;
        count += queue.read()?;
    }
    ensure!(count == 3, "{count} interrupts for 3 descriptors");
    for n in 0..3 {
        let record = queue.record(n).map(|record| record.status);
        ensure!(record == Some(status::SUCCESS), "record {n}: {record:?}");
    }
    expect_errno("read when all were taken", queue.read(), Errno::EAGAIN)?;

    let file = RawFile::open(bench.device())?;
    for length in [0, 1, 7] {
        // The kernel may answer a read of zero bytes without calling the driver.
        match file.read(length) {
            Err(Errno::EINVAL) => {}
            Ok(bytes) if length == 0 && bytes.is_empty() => {}
            other => anyhow::bail!("read of {length} bytes: {other:?}, EINVAL was expected"),
        }
    }
    passed()
}

fn blocking_read(bench: &mut Bench) -> anyhow::Result<Verdict> {
    // The flag belongs to the open file: it also applies to the reader's copy of the descriptor.
    let mut queue = RawQueue::start(bench.device(), 4)?;
    fcntl(queue.as_fd(), FcntlArg::F_SETFL(OFlag::O_RDWR))?;
    let nop = Descriptor {
        operation: Operation::Nop as u8,
        flags: flags::INTERRUPT,
        completion: queue.record_address(0),
        ..Descriptor::default()
    };
    let fd = queue.as_fd().try_clone_to_owned()?;
    let count = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let reader = scope.spawn(move || {
            let mut count = [0; 8];
            nix::unistd::read(&fd, &mut count).map(|_| u64::from_ne_bytes(count))
        });
        // SAFETY: the operation writes only its record, which belongs to the queue.
        unsafe { queue.submit(&nop) };
        let read = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        Ok(read?)
    })?;
    ensure!(count == 1, "{count} interrupts for one descriptor");
    passed()
}
