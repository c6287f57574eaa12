// SPDX-License-Identifier: MIT OR Apache-2.0
//! Several address spaces, and several contexts of one address space.

use anyhow::{Context, anyhow, ensure};
use serde::{Deserialize, Serialize};
use svmctl::region::{PAGE, Region};
use svmctl::{Descriptor, Queue};

use crate::harness::bench::{Bench, expect_bytes};
use crate::harness::{Case, Verdict};
use crate::system::child::{Child, Line};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("two processes, one virtual address", two_processes),
    Case::new("two contexts of one process", two_contexts),
];

/// What identifies a process to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    pasid: u32,
    context: u32,
}

impl Identity {
    fn of(queue: &Queue) -> Identity {
        Identity {
            pasid: queue.info().pasid,
            context: queue.info().context,
        }
    }
}

/// How often each process writes while the other does so, too.
const ROUNDS: u64 = 50;
/// First value of the parent, or of the first context.
const PARENT: u64 = 0x1111_1111_1111_1111;
/// First value of the child, or of the second context.
const CHILD: u64 = 0x2222_2222_2222_2222;

/// Repeatedly lets the device write and the CPU check.
fn write_and_look(queue: &mut Queue, region: &Region, value: u64) -> anyhow::Result<()> {
    for round in 0..ROUNDS {
        let value = value.wrapping_add(round);
        let fill = Descriptor::fill(region.at(0), region.len() as u64, value);
        // SAFETY: a region is accessed atomically, and lives as long as the call.
        unsafe { queue.execute(&fill) }?;
        let expected = value.to_le_bytes().repeat(region.len() / 8);
        expect_bytes("own memory", &region.read(0..region.len()), &expected)?;
    }
    Ok(())
}

fn two_processes(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(skipped) = bench.lacks_contexts() {
        return Ok(skipped);
    }
    let region = Region::new(2 * PAGE)?;
    let mut child = Child::fork(|line: &mut Line| {
        let mut queue = bench.open_queue(16).context("in the child")?;
        line.tell(&Identity::of(&queue))?;
        line.receive::<String>()?;
        write_and_look(&mut queue, &region, CHILD)?;
        line.tell(&region.address(0))
    })?;
    let own = Identity::of(bench.queue());
    let other: Identity = child.line().receive()?;
    ensure!(
        own.pasid != other.pasid,
        "both processes have PASID {}",
        own.pasid
    );
    ensure!(
        own.context != other.context,
        "both processes have context {}",
        own.context
    );
    child.line().tell(&"go")?;
    write_and_look(bench.queue(), &region, PARENT)?;
    let address: u64 = child.line().receive()?;
    child.finish()?;
    ensure!(
        address == region.address(0),
        "the child wrote to {address:#x}"
    );
    // The writes of the child's context went to the child.
    let expected = (PARENT + ROUNDS - 1).to_le_bytes().repeat(region.len() / 8);
    expect_bytes(
        "memory after the child's end",
        &region.read(0..region.len()),
        &expected,
    )?;
    Ok(Verdict::Passed(format!(
        "PASID {} and {}",
        own.pasid, other.pasid
    )))
}

fn two_contexts(bench: &mut Bench) -> anyhow::Result<Verdict> {
    if let Some(skipped) = bench.lacks_contexts() {
        return Ok(skipped);
    }
    let mut second = bench.open_queue(16)?;
    let (one, other) = (Identity::of(bench.queue()), Identity::of(&second));
    ensure!(
        one.context != other.context,
        "both are context {}",
        one.context
    );
    ensure!(
        one.pasid == other.pasid,
        "one address space has PASID {} and {}",
        one.pasid,
        other.pasid
    );
    let (left, right) = (Region::new(2 * PAGE)?, Region::new(2 * PAGE)?);
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let other = scope.spawn(|| write_and_look(&mut second, &right, CHILD));
        let own = write_and_look(bench.queue(), &left, PARENT);
        other
            .join()
            .map_err(|_| anyhow!("the other context's thread panicked"))??;
        own
    })?;
    bench.add_counters(&second)?;
    Ok(Verdict::Passed(format!(
        "contexts {} and {}",
        one.context, other.context
    )))
}
