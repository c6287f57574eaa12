// SPDX-License-Identifier: GPL-2.0-only

//! The latest faults of a device, for `debugfs`: programs can cause them, so they do not belong in
//! the kernel log.

use kernel::{
    fmt,
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

use crate::abi::registers::halt;

/// Number of faults to keep.
const CAPACITY: usize = 32;

/// What can go wrong with a context.
#[derive(Clone, Copy)]
pub(crate) enum FaultKind {
    /// It halted by itself, for this [`halt`] reason, after this number of descriptors.
    Halted(u8, u64),
    /// It halted for this reason when it was started.
    NotStarted(u8),
    /// It did not stop in time.
    NotStopped,
}

/// A fault.
#[derive(Clone, Copy)]
struct Fault {
    at: Instant<Monotonic>,
    context: u16,
    pasid: u32,
    /// Process that had opened the context.
    process: i32,
    what: FaultKind,
}

/// The latest faults of a device, and the total number.
#[pin_data]
pub(crate) struct Faults {
    #[pin]
    log: Mutex<Log>,
}

struct Log {
    count: u64,
    /// Fault `n` has place `n % CAPACITY`.
    latest: KVec<Fault>,
}

impl Faults {
    /// Makes an empty log.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let log = Log {
            count: 0,
            latest: KVec::with_capacity(CAPACITY, GFP_KERNEL)?,
        };

        Arc::pin_init(
            pin_init!(Self {
                log <- new_mutex!(log, "svm_demo::Faults::log"),
            }),
            GFP_KERNEL,
        )
    }

    /// Records a fault of `context`, which `process` uses with `pasid`.
    pub(crate) fn add(&self, context: u16, pasid: u32, process: i32, what: FaultKind) {
        let mut log = self.log.lock();
        let place = (log.count % CAPACITY as u64) as usize;
        let fault = Fault {
            at: Instant::now(),
            context,
            pasid,
            process,
            what,
        };

        match log.latest.get_mut(place) {
            Some(oldest) => *oldest = fault,
            // Cannot fail: the capacity was allocated, and the slots are filled in order.
            None => drop(log.latest.push_within_capacity(fault)),
        }
        log.count += 1;
    }

    /// Writes the table, the latest first.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log.lock();
        let next = (log.count % CAPACITY as u64) as usize;
        let (later, earlier) = log.latest.split_at(next.min(log.latest.len()));

        writeln!(f, "faults {}", log.count)?;
        for fault in Iterator::chain(later.iter().rev(), earlier.iter().rev()) {
            writeln!(
                f,
                "{} ms ago: context {} pasid {} process {} {}",
                fault.at.elapsed().as_millis(),
                fault.context,
                fault.pasid,
                fault.process,
                fault.what
            )?;
        }
        Ok(())
    }
}

impl core::fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Halted(reason, head) => {
                write!(f, "halted at descriptor {}: {}", head, name(*reason))
            }
            Self::NotStarted(reason) => write!(f, "halted at its start: {}", name(*reason)),
            Self::NotStopped => write!(f, "did not stop in time"),
        }
    }
}

/// Name of a [`halt`] reason.
fn name(reason: u8) -> &'static str {
    match reason {
        halt::NONE => "no reason",
        halt::BAD_PASID => "BAD_PASID",
        halt::BAD_RING => "BAD_RING",
        halt::BAD_DOORBELL => "BAD_DOORBELL",
        halt::RING_FAULT => "RING_FAULT",
        halt::FUNCTION_DISABLED => "FUNCTION_DISABLED",
        _ => "a reason that this driver does not know",
    }
}
