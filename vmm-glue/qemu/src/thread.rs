// SPDX-License-Identifier: GPL-2.0-or-later
//! A thread that may use QEMU's memory: known to QEMU's RCU, with all signals blocked, since QEMU
//! handles in threads of its own.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use crate::abi::qemu;

/// Starts a thread.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // A thread begins with the mask of the one that makes it.
    let mut before = SigSet::empty();
    pthread_sigmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    let thread = Builder::new().name(name.to_owned()).spawn(move || {
        // SAFETY: the first thing that the thread does, and once.
        unsafe { (qemu().rcu_register_thread)() };
        run();
        // SAFETY: the last thing that the thread does; it is in no critical section.
        unsafe { (qemu().rcu_unregister_thread)() };
    });
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    thread
}
