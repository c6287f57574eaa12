// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process alongside the hostile ones: it works on memory at addresses that they use, too, and
//! repeatedly checks every byte.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::MapFlags;
use svmctl::Descriptor;
use svmctl::region::{PAGE, Region};

use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::system::child::{Child, Line};
use crate::system::mapping::{BOTH, Mapping, Memory};

/// Address of its memory.
pub const ADDRESS: usize = 0x2b00_0000_0000;
/// Length of its memory: the first half is never written, the second one by the device.
pub const LENGTH: usize = 16 * PAGE;

/// The process.
#[derive(Debug)]
pub struct Victim {
    child: Child,
    /// A word that tells it to end, and one page further a word that counts its rounds.
    shared: Mapping,
}

impl Victim {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// It cannot open the device.
    pub fn start(bench: &Bench) -> anyhow::Result<Victim> {
        let file = File::from(memfd_create(c"victim", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(2 * PAGE as u64)?;
        let shared = Mapping::file(&file, 2 * PAGE, BOTH, MapFlags::MAP_SHARED)?;
        let mut child = Child::fork(|line: &mut Line| {
            let mut queue = bench.open_queue(4)?;
            let memory = Region::at_address(ADDRESS, LENGTH)?;
            let half = LENGTH / 2;
            let contents = pattern(half, 0x76_69_63);
            memory.write(0, &contents);
            let cpu = crc32c::crc32c(&contents);
            line.tell(&"at work")?;
            let mut round = 0u64;
            while shared.read(0..1) == [0] {
                memory.write(half, &round.to_le_bytes().repeat(half / 8));
                let copy = Descriptor::copy(memory.at(0), memory.at(half), half as u64);
                let check = Descriptor::crc32c(memory.at(half), half as u64, 0);
                // SAFETY: a region is accessed atomically, and lives as long as the calls.
                let crc = unsafe {
                    queue.execute(&copy)?;
                    queue.execute(&check)?.result as u32
                };
                expect_bytes("what nobody wrote", &memory.read(0..half), &contents)?;
                let copied = memory.read(half..LENGTH);
                expect_bytes("what the device copied", &copied, &contents)?;
                ensure!(
                    crc == cpu,
                    "the checksum is {crc:08x}, {cpu:08x} was expected"
                );
                round += 1;
                shared.write(PAGE, &round.to_le_bytes());
            }
            Ok(())
        })?;
        child.line().receive::<String>()?;
        Ok(Victim { child, shared })
    }

    /// Checks that it has not ended.
    ///
    /// # Errors
    ///
    /// It has ended, because something was wrong.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.child.has_spoken(Duration::ZERO)? {
            bail!("the process beside the hostile ones found something wrong");
        }
        Ok(())
    }

    /// Ends it, and returns how often it did its work.
    ///
    /// # Errors
    ///
    /// Something was wrong with its data.
    pub fn end(self) -> anyhow::Result<u64> {
        self.shared.write(0, &[1]);
        self.child
            .finish()
            .context("the process beside the hostile ones")?;
        let mut word = [0; 8];
        word.copy_from_slice(&self.shared.read(PAGE..PAGE + 8));
        let rounds = u64::from_le_bytes(word);
        ensure!(
            rounds > 0,
            "it never came to work: the device served others only"
        );
        Ok(rounds)
    }
}
