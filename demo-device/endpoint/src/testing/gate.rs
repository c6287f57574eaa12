// SPDX-License-Identifier: MIT OR Apache-2.0
//! A gate that holds writes, for tests of events during a write.

use std::sync::{Condvar, Mutex, PoisonError};

/// Holds one write of a whole page at a time, after the device has sent it and before it reaches
/// memory, until a test releases it.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    change: Condvar,
}

#[derive(Default)]
struct GateState {
    closed: bool,
    held: Option<u64>,
}

impl Gate {
    pub fn close(&self) {
        self.state.lock().unwrap().closed = true;
    }

    /// Releases the held write, and lets all later ones pass.
    pub fn open(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.closed = false;
        state.held = None;
        self.change.notify_all();
    }

    /// Waits until a write is held, and returns its address.
    pub fn held(&self) -> u64 {
        let state = self.state.lock().unwrap();
        let state = self.change.wait_while(state, |s| s.held.is_none()).unwrap();
        state.held.unwrap()
    }

    /// Releases the held write.
    pub fn release(&self) {
        self.state.lock().unwrap().held = None;
        self.change.notify_all();
    }

    pub fn pass(&self, address: u64, length: usize) {
        let mut state = self.state.lock().unwrap();
        if state.closed && state.held.is_none() && length == 4096 {
            state.held = Some(address);
            self.change.notify_all();
            let still = |s: &mut GateState| s.held == Some(address);
            drop(self.change.wait_while(state, still).unwrap());
        }
    }
}
