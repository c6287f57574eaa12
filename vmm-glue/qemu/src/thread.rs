// SPDX-License-Identifier: GPL-2.0-or-later
//! A thread that may use QEMU's memory: registered with QEMU's RCU, with all signals blocked,
//! because QEMU handles signals in its own threads.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use crate::abi::qemu;

/// Starts a thread.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // A thread inherits the mask of its creator.
    let mut before = SigSet::empty();
    pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    let thread = Builder::new().name(name.to_owned()).spawn(move || {
        // SAFETY: the thread calls this first, and once.
        unsafe { (qemu().rcu_register_thread)() };
        run();
        // SAFETY: the thread calls this last; it is in no critical section.
        unsafe { (qemu().rcu_unregister_thread)() };
    });
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    thread
}
