// SPDX-License-Identifier: MIT OR Apache-2.0
//! Turns at the invalidation queue: the host carries out what one round asks for before the next
//! round begins, so that the status of a wait descriptor (section 6.5.2.8) says the truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A round of the invalidation queue. It is over when the turn is given to [`crate::Unit::end_turn`],
/// after the effects of the round were carried out; a turn that is dropped ends, too. Until then
/// nobody else gets one that is held, and the queue stays as it is.
#[derive(Debug)]
#[must_use = "the turn lasts until the effects of the round are carried out"]
pub struct QueueTurn(Option<Arc<AtomicBool>>);

impl QueueTurn {
    /// Whether the queue was processed. Otherwise another thread has the turn, and goes on
    /// with the queue when it ends.
    pub fn is_held(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for QueueTurn {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            // What was carried out comes before.
            taken.store(false, Ordering::Release);
        }
    }
}

/// The turns of a unit.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Arc<AtomicBool>,
    /// Another was to process the queue during a turn.
    asked: bool,
}

impl Turns {
    /// Takes the turn, if nobody has it.
    pub fn take(&mut self) -> QueueTurn {
        if self.taken.swap(true, Ordering::Acquire) {
            self.asked = true;
            return QueueTurn(None);
        }
        QueueTurn(Some(self.taken.clone()))
    }

    /// Ends a turn. Returns whether another was to process the queue meanwhile.
    pub fn end(&mut self, turn: QueueTurn) -> bool {
        let is_ours = turn.0.as_ref().is_some_and(|t| Arc::ptr_eq(t, &self.taken));
        drop(turn);
        is_ours && std::mem::take(&mut self.asked)
    }
}
