// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns at the invalidation queue: the host carries out the effects of one round before the next
//! round begins, so that the status of a wait descriptor (section 6.5.2.8) is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A round of the invalidation queue. It ends when the host passes the turn to
/// [`crate::Unit::end_turn`], after it has carried out the effects of the round, or drops it. Until
/// then no other caller gets a held turn, and the queue does not change.
#[derive(Debug)]
#[must_use = "the turn lasts until the effects of the round are carried out"]
pub struct QueueTurn(Option<Arc<AtomicBool>>);

impl QueueTurn {
    /// Whether the queue was processed. Otherwise another thread has the turn, and continues with
    /// the queue when its turn ends.
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for QueueTurn {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            // Orders the effects before the release.
            taken.store(false, Ordering::Release);
        }
    }
}

/// The turns of a unit.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Arc<AtomicBool>,
    /// Another caller tried to process the queue during a turn.
    asked: bool,
}

impl Turns {
    /// Takes the turn, if it is free.
    pub fn take(&mut self) -> QueueTurn {
        if self.taken.swap(true, Ordering::Acquire) {
            self.asked = true;
            return QueueTurn(None);
        }
        QueueTurn(Some(self.taken.clone()))
    }

    /// Ends a turn. Returns whether another caller tried to process the queue meanwhile.
    pub fn end(&mut self, turn: QueueTurn) -> bool {
        let is_ours = turn.0.as_ref().is_some_and(|t| Arc::ptr_eq(t, &self.taken));
        drop(turn);
        is_ours && std::mem::take(&mut self.asked)
    }
}
