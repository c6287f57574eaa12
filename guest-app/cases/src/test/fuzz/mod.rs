// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hostile programs: processes that use the interface at random, in valid and invalid ways,
//! alongside one that works and checks every byte of its memory. The kernel logs nothing
//! unexpected, no other process's data change, and no process hangs.
//!
//! The actions of a process depend only on the seed and its number, so that they can be repeated. A
//! failure shows both, and the last actions of the process.

mod action;
mod hostile;
mod log;
mod victim;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::wait::WaitStatus;
use svm_init::kernel::INTERRUPT_RANGE;

use crate::harness::bench::Bench;
use crate::harness::{Case, Verdict, remark};
use crate::system::child::Child;
use crate::test::leaks::Before;

use log::Log;
use victim::Victim;

/// Messages about an address in the interrupt range; about a page request for an address between
/// the address widths of the processor and of the device, without a rate limit; and about a mapping
/// that is larger than all memory, with a rate limit.
const PROVOKED: &[&str] = &[
    INTERRUPT_RANGE[0],
    INTERRUPT_RANGE[1],
    INTERRUPT_RANGE[2],
    "*: Address is not canonical",
    "*: Invalid page request",
    "__vm_enough_memory",
];

/// See the module.
pub const CASES: &[Case] = &[Case::new("hostile programs", hostile_programs)
    .provoking(PROVOKED)
    .killing()];

/// Duration of the case.
const DURATION: Duration = Duration::from_secs(60);
/// Hostile processes at a time.
const AT_A_TIME: usize = 2;
/// How long one may take for its actions.
const PATIENCE: Duration = Duration::from_secs(60);

/// A hostile process.
struct Running {
    number: u64,
    child: Child,
    log: Log,
}

impl Running {
    fn start(bench: &Bench, number: u64) -> anyhow::Result<Running> {
        let log = Log::new()?;
        let (device, seed) = (bench.device(), bench.options().seed);
        let child = Child::fork(|_| hostile::run(device, seed, number, &log))?;
        Ok(Running { number, child, log })
    }

    /// Waits for its end.
    fn end(mut self, seed: u64) -> anyhow::Result<u64> {
        let ended = self.child.wait_within(PATIENCE);
        let wrong = match ended {
            Ok(Some(WaitStatus::Exited(_, 0))) => return Ok(self.log.count()),
            Ok(None) => format!("did not end within {} s", PATIENCE.as_secs()),
            Ok(Some(WaitStatus::Exited(..))) => match self.child.line().receive::<()>() {
                Err(error) => format!("failed: {error:#}"),
                Ok(()) => "failed".to_owned(),
            },
            Ok(Some(status)) => format!("ended by {status:?}"),
            Err(error) => format!("cannot be waited for: {error:#}"),
        };
        bail!(
            "hostile process {} of seed {seed} {wrong}; what it did last:\n{}",
            self.number,
            self.log.last().join("\n")
        )
    }
}

fn hostile_programs(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let seed = bench.options().seed;
    let duration = DURATION.mul_f64(bench.options().scale);
    let before = Before::take(bench)?;
    let victim = Victim::start(bench)?;
    let start = Instant::now();
    let (mut number, mut actions) = (0, 0);
    let mut running = Vec::new();
    while start.elapsed() < duration || !running.is_empty() {
        while running.len() < AT_A_TIME && start.elapsed() < duration {
            running.push(Running::start(bench, number)?);
            number += 1;
        }
        let first = running.remove(0);
        let last = first.number;
        actions += first.end(seed)?;
        victim
            .check()
            .with_context(|| format!("when process {last} of seed {seed} had ended"))?;
        bench.queue().nop()?;
    }
    let rounds = victim
        .end()
        .with_context(|| format!("beside {number} hostile processes of seed {seed}"))?;
    let left = before.check(bench, number)?;
    remark(format!(
        "{number} processes of seed {seed} did {actions} things, and one beside them worked \
         {rounds} times; {left}"
    ))
}
