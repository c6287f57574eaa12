// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupts as they reach the processors, kept until they are taken.

use crate::sync::Mutex;
use std::collections::VecDeque;
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;

/// Interrupts that are kept; older ones are forgotten, and stay counted.
const KEPT: usize = 1 << 16;

/// The sender of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A remapping unit, by its number.
    Unit(usize),
    /// A function.
    Function(SourceId),
}

/// An interrupt that was delivered, after remapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its sender.
    pub sender: Sender,
    /// The message that processors see.
    pub message: Message,
}

#[derive(Debug, Default)]
struct Log {
    kept: VecDeque<Delivered>,
    delivered: u64,
}

/// The interrupts that were delivered.
#[derive(Debug, Default)]
pub struct Interrupts(Mutex<Log>);

impl Interrupts {
    pub(crate) fn deliver(&self, sender: Sender, message: Message) {
        let mut log = self.0.lock();
        if log.kept.len() == KEPT {
            log.kept.pop_front();
        }
        log.kept.push_back(Delivered { sender, message });
        log.delivered += 1;
    }

    /// Takes what was delivered since this was last called, oldest first.
    pub fn take(&self) -> Vec<Delivered> {
        self.0.lock().kept.drain(..).collect()
    }

    /// How many were ever delivered.
    pub fn count(&self) -> u64 {
        self.0.lock().delivered
    }
}
