// SPDX-License-Identifier: GPL-2.0-or-later
//! The optional thread that processes the invalidation queue: some time after software has written
//! the tail, as in hardware, and not during the write.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::bell::Bell;
use crate::bql::{Bql, Guard};
use crate::thread;

/// Starts the thread. It works with the BQL held, and waits without it.
pub fn start(
    bell: Arc<Bell>,
    delay: Duration,
    work: impl Fn(&Bql) + Send + 'static,
) -> io::Result<()> {
    // Nothing waits for its end: after a stop it does nothing until the process ends.
    thread::spawn("svm-vtd-queue", move || {
        while bell.wait() && bell.pause(delay) {
            let bql = Guard::lock();
            if !bell.is_stopped() {
                work(&bql);
            }
        }
    })?;
    Ok(())
}
