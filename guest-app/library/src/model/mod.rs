// SPDX-License-Identifier: MIT OR Apache-2.0
//! A software device: a thread that works on the ring like the device, in the memory of the same
//! process. For tests of programs, and of this library, on machines without the device.
//!
//! It reads and writes with `process_vm_readv` and `process_vm_writev`, so that the kernel applies
//! the mappings and permissions of the process, and a bad address is an error and does not end the
//! process. It has no PASID, no translation cache and no page requests, and leaves their counters
//! at 0. A [`Mutant`] breaks one rule, to prove that a test notices.

mod shared;
mod worker;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use svm_abi::descriptor::{self, Operation};
use svm_abi::registers::{halt, status as context};
use svm_abi::{doorbell, ids, ioctl};

use crate::device::DeviceFile;
use shared::Shared;
pub use shared::{BATCH_LOG2, Mutant, RING_LOG2, TRANSFER_LOG2};
use worker::Worker;

/// A software device, as an open file.
pub struct Model {
    shared: Arc<Shared>,
    mutant: Option<Mutant>,
    worker: Option<JoinHandle<()>>,
    interrupts: OwnedFd,
}

impl Model {
    /// A model that keeps the rules.
    ///
    /// # Errors
    ///
    /// Those of `pipe`.
    pub fn new() -> io::Result<Model> {
        Model::with_mutant(None)
    }

    /// A model that breaks one rule.
    ///
    /// # Errors
    ///
    /// Those of `pipe`.
    pub fn with_mutant(mutant: Option<Mutant>) -> io::Result<Model> {
        let (interrupts, _) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        Ok(Model {
            shared: Arc::new(Shared {
                page: [const { AtomicU64::new(0) }; doorbell::PAGE_SIZE as usize / 8],
                stop: AtomicBool::new(false),
            }),
            mutant,
            worker: None,
            interrupts,
        })
    }
}

// SAFETY: the thread accesses memory only for descriptors between head and tail, writes the status
// of a record last, and `queue_stop` returns when the thread has ended.
unsafe impl DeviceFile for Model {
    fn info(&self) -> io::Result<ioctl::Info> {
        Ok(ioctl::Info {
            device_version: ids::ABI_VERSION.into(),
            context: 0,
            pasid: 0,
            // Each model is one of the contexts.
            contexts: ids::MAX_CONTEXTS.into(),
            ring_log2_max: RING_LOG2,
            transfer_log2_max: TRANSFER_LOG2,
            operations: Operation::ALL
                .iter()
                // There is no translation agent to ask.
                .filter(|operation| **operation != Operation::Translate)
                .fold(0, |bits, op| bits | 1 << *op as u8),
            atc_entries: 0,
            page_requests: 0,
            batch_log2_max: BATCH_LOG2,
            ..ioctl::Info::default()
        })
    }

    unsafe fn queue_setup(&mut self, queue: &ioctl::Queue) -> io::Result<()> {
        if self.worker.is_some() {
            return Err(Errno::EBUSY.into());
        }
        if queue.ring % descriptor::SIZE as u64 != 0
            || queue.ring_log2 > RING_LOG2
            || queue.flags != 0
        {
            return Err(Errno::EINVAL.into());
        }
        let (interrupts, sender) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
        self.interrupts = interrupts;
        self.shared
            .page
            .iter()
            .for_each(|word| word.store(0, Ordering::Relaxed));
        self.shared.stop.store(false, Ordering::Relaxed);
        let enabled = context::encode(context::ENABLED, halt::NONE);
        self.shared
            .register(doorbell::STATUS)
            .store(enabled, Ordering::SeqCst);
        let worker = Worker {
            shared: self.shared.clone(),
            mutant: self.mutant,
            ring: queue.ring,
            capacity: 1 << queue.ring_log2,
            sender: Some(sender),
            unsent: 0,
            failed: false,
        };
        self.worker = Some(std::thread::spawn(move || worker.run()));
        Ok(())
    }

    fn queue_stop(&mut self) -> io::Result<()> {
        if let Some(worker) = self.worker.take() {
            self.shared.stop.store(true, Ordering::SeqCst);
            worker.thread().unpark();
            worker
                .join()
                .map_err(|_| io::Error::other("the model's thread panicked"))?;
        }
        let disabled = context::encode(context::DISABLED, halt::NONE);
        self.shared
            .register(doorbell::STATUS)
            .store(disabled, Ordering::SeqCst);
        Ok(())
    }

    fn read_doorbell(&self, offset: u64) -> u64 {
        self.shared.register(offset).load(Ordering::SeqCst)
    }

    unsafe fn write_tail(&self, tail: u64) {
        self.shared
            .register(doorbell::TAIL)
            .store(tail, Ordering::SeqCst);
        if let Some(worker) = &self.worker {
            worker.thread().unpark();
        }
    }

    fn interrupts(&self) -> BorrowedFd<'_> {
        self.interrupts.as_fd()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // A panic of the thread needs no handling here.
        let _ = self.queue_stop();
    }
}
