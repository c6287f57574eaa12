// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hostile program: performs each [`Action`], and only expects that the call returns.
//!
//! All writes that it causes the device or the kernel to make go to its sandbox, which holds no
//! Rust object, or are refused.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags};
use svmctl::abi::descriptor::{Descriptor, SIZE};
use svmctl::abi::doorbell;
use svmctl::region::PAGE;

use super::action::{self, Action, SANDBOX, SANDBOX_LENGTH, SLOTS};
use super::log::Log;
use crate::harness::random::Random;
use crate::system::child::Child;
use crate::system::mapping::{BOTH, Mapping};
use crate::test::raw::{RawFile, expect_no_right};

/// Actions of a thread.
const ACTIONS: u32 = 150;
/// How long a child that tries the files may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open file.
struct Slot {
    file: RawFile,
    page: Option<Mapping>,
    ring: Option<(usize, u32)>,
    tail: u64,
}

impl Slot {
    fn new(file: RawFile) -> Slot {
        Slot {
            file,
            page: None,
            ring: None,
            tail: 0,
        }
    }
}

/// The state of one thread.
struct Hostile<'a> {
    device: &'a Path,
    log: &'a Log,
    sandbox: &'a Mapping,
    slots: [Option<Slot>; SLOTS],
    /// Whether it is the only thread.
    alone: bool,
    name: &'static str,
}

/// Performs the actions of process `number` of a seed.
///
/// # Errors
///
/// The sandbox cannot be mapped, or a child had a right that it must not have.
pub fn run(device: &Path, seed: u64, number: u64, log: &Log) -> anyhow::Result<()> {
    let mut random = Random::part(seed, number);
    let flags = MapFlags::MAP_NORESERVE;
    let sandbox = Mapping::at_address(SANDBOX as usize, SANDBOX_LENGTH, BOTH, flags)?;
    let hostile = |file: Option<RawFile>, alone, name| Hostile {
        device,
        log,
        sandbox: &sandbox,
        slots: [file.map(Slot::new), None, None, None],
        alone,
        name,
    };
    if random.once_in(2) {
        return hostile(None, true, "").run(random);
    }
    // Two threads that share one context.
    let Ok(first) = open(device) else {
        return hostile(None, true, "").run(random);
    };
    let second = RawFile::from(first.as_fd().try_clone_to_owned()?);
    let mut other = hostile(Some(second), false, "other ");
    let others = Random::new(random.next_u64());
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || other.run(others));
        let own = hostile(Some(first), false, "").run(random);
        let other = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        own.and(other)
    })
}

fn open(device: &Path) -> std::io::Result<RawFile> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(device)?;
    Ok(RawFile::from(OwnedFd::from(file)))
}

impl Hostile<'_> {
    fn run(&mut self, mut random: Random) -> anyhow::Result<()> {
        for _ in 0..ACTIONS {
            let action = Action::choose(&mut random);
            self.log.write(&format!("{}{action:x?}", self.name));
            self.perform(action)?;
        }
        Ok(())
    }

    /// The results of calls are ignored: they are up to the driver.
    fn perform(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Open(slot) => {
                // All contexts may be in use.
                self.slots[slot] = open(self.device).ok().map(Slot::new);
            }
            Action::Close(slot) => self.slots[slot] = None,
            Action::Ioctl {
                slot,
                request,
                argument,
                put: (offset, bytes),
            } => {
                let _ = self.sandbox.try_write(offset, &bytes);
                if let Some(slot) = &self.slots[slot] {
                    // SAFETY: the address is in the sandbox, which holds no object of the program,
                    // or at a place where the process has no memory.
                    let _ = unsafe { slot.file.ioctl(request as _, argument) };
                }
            }
            Action::Start { slot, offset, log2 } => {
                if let Some(slot) = &mut self.slots[slot] {
                    if slot.file.queue_setup(&action::queue(offset, log2)).is_ok() {
                        slot.ring = Some((offset, log2));
                        slot.tail = 0;
                    }
                }
            }
            Action::Stop(slot) => {
                if let Some(slot) = &self.slots[slot] {
                    let _ = slot.file.queue_stop();
                }
            }
            Action::Map {
                slot,
                length,
                protection,
                flags,
                offset,
            } => {
                let (protection, flags) = (
                    ProtFlags::from_bits_truncate(protection),
                    MapFlags::from_bits_truncate(flags),
                );
                if let Some(slot) = &mut self.slots[slot] {
                    let _ = slot.file.try_map(length, protection, flags, offset);
                    if slot.page.is_none() {
                        slot.page =
                            Mapping::file(slot.file.as_fd(), PAGE, BOTH, MapFlags::MAP_SHARED).ok();
                    }
                }
            }
            Action::Unmap(slot) => {
                if let Some(slot) = &mut self.slots[slot] {
                    slot.page = None;
                }
            }
            Action::Read { slot, length } => {
                if let Some(slot) = &self.slots[slot] {
                    let _ = slot.file.read(length);
                }
            }
            Action::Poll(slot) => {
                if let Some(slot) = &self.slots[slot] {
                    let mut fds = [PollFd::new(slot.file.as_fd(), PollFlags::all())];
                    let _ = poll(&mut fds, PollTimeout::ZERO);
                }
            }
            Action::Submit { slot, work } => self.submit(slot, &work),
            Action::Write {
                slot,
                offset,
                value,
            } => self.write_register(slot, offset, value),
            Action::Look { slot, offset } => {
                if let Some(page) = self.slots[slot]
                    .as_ref()
                    .and_then(|slot| slot.page.as_ref())
                {
                    std::hint::black_box(page.read_register(offset as usize));
                }
            }
            Action::Advise {
                first,
                pages,
                advice,
            } => {
                let range = part(first, pages);
                let _ = self.sandbox.advise(range, advice);
            }
            Action::Protect {
                first,
                pages,
                protection,
            } => {
                let protection = ProtFlags::from_bits_truncate(protection);
                let _ = self.sandbox.protect(part(first, pages), protection);
            }
            Action::Scribble { offset, data } => {
                let _ = self.sandbox.try_write(offset, &data);
            }
            Action::Fork => self.fork()?,
        }
        Ok(())
    }

    fn submit(&mut self, slot: usize, work: &[Descriptor]) {
        let Some(at) = &mut self.slots[slot] else {
            return;
        };
        let (offset, log2) = at.ring.unwrap_or((0, 0));
        for words in work {
            let place = (at.tail & ((1 << log2) - 1)) as usize;
            let start = offset + place * SIZE;
            if start + SIZE <= SANDBOX_LENGTH {
                let _ = self.sandbox.try_write(start, &words.to_bytes());
            }
            at.tail += 1;
        }
        let tail = at.tail;
        self.write_register(slot, doorbell::TAIL, tail);
    }

    fn write_register(&self, slot: usize, offset: u64, value: u64) {
        if let Some(page) = self.slots[slot]
            .as_ref()
            .and_then(|slot| slot.page.as_ref())
        {
            // SAFETY: whatever the device is told to do, it accesses the sandbox or is refused: no
            // descriptor refers to other memory of this process.
            unsafe { page.write_register(offset as usize, value) };
        }
    }

    /// A child inherits the files, but no rights.
    fn fork(&self) -> anyhow::Result<()> {
        // A process with two threads cannot fork here.
        if !self.alone {
            return Ok(());
        }
        let mut child = Child::fork(|_| {
            for slot in self.slots.iter().flatten() {
                expect_no_right(&slot.file)?;
            }
            Ok(())
        })?;
        child
            .wait_within(PATIENCE)?
            .context("a child that has the files does not end")?;
        Ok(())
    }
}

/// A range of the sandbox in pages.
fn part(first: usize, pages: usize) -> std::ops::Range<usize> {
    let end = (first + pages).min(SANDBOX_LENGTH / PAGE);
    first * PAGE..end * PAGE
}
