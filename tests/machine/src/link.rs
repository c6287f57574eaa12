// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link between a function and its root port, and what it does to the messages on it.

use crate::machine::{FunctionId, FunctionSlot, Machine};
use crate::sync::Mutex;
use pcie_ats::{
    Function, InvalidateCompletion, InvalidateRequest, Invalidation, PageRequest, PrgResponse,
};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a link does to the messages on it, for experiments.
#[derive(Debug, Default)]
pub struct Link {
    /// Invalidation requests do not arrive.
    pub loses_invalidations: AtomicBool,
    /// Invalidation completions do not arrive.
    pub loses_completions: AtomicBool,
    /// Page requests do not arrive.
    pub loses_page_requests: AtomicBool,
    /// Messages are on their way until [`Machine::deliver`].
    pub holds: AtomicBool,
    /// Those on their way to the function, and those on their way to the root port. Messages of one
    /// direction do not overtake each other.
    down: Mutex<VecDeque<Down>>,
    up: Mutex<VecDeque<Up>>,
}

/// A message to the function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Down {
    Invalidate(InvalidateRequest),
    Respond(PrgResponse),
}

/// A message to the root port.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Up {
    Complete(InvalidateCompletion),
    PageRequest(PageRequest),
}

impl Link {
    fn loses_down(&self, message: &Down) -> bool {
        match message {
            Down::Invalidate(_) => self.loses_invalidations.load(Ordering::Relaxed),
            Down::Respond(_) => false,
        }
    }

    fn loses_up(&self, message: &Up) -> bool {
        match message {
            Up::Complete(_) => self.loses_completions.load(Ordering::Relaxed),
            Up::PageRequest(_) => self.loses_page_requests.load(Ordering::Relaxed),
        }
    }
}

impl Machine {
    /// Brings the oldest message in each direction of a function's link to where it goes. Returns
    /// whether there was any.
    pub fn deliver(&self, function: FunctionId) -> bool {
        let slot = &self.0.functions[function];
        let down = slot.link.down.lock().pop_front();
        let up = slot.link.up.lock().pop_front();
        let any = down.is_some() || up.is_some();
        if let Some(message) = down {
            self.arrive_down(slot, &message);
        }
        if let Some(message) = up {
            self.arrive_up(slot, &message);
        }
        any
    }

    /// Sends a message to a function. The caller holds no lock.
    pub(crate) fn send_down(&self, slot: &FunctionSlot, message: Down) {
        if slot.link.loses_down(&message) {
            return;
        }
        if slot.link.holds.load(Ordering::Relaxed) {
            slot.link.down.lock().push_back(message);
        } else {
            self.arrive_down(slot, &message);
        }
    }

    /// Sends a message to a function's root port. The caller holds no lock.
    pub(crate) fn send_up(&self, slot: &FunctionSlot, message: Up) {
        if slot.link.loses_up(&message) {
            return;
        }
        if slot.link.holds.load(Ordering::Relaxed) {
            slot.link.up.lock().push_back(message);
        } else {
            self.arrive_up(slot, &message);
        }
    }

    fn arrive_down(&self, slot: &FunctionSlot, message: &Down) {
        match message {
            Down::Respond(response) => {
                slot.endpoint.prg_response(response);
                self.0.work.signal();
            }
            Down::Invalidate(request) => match slot.endpoint.invalidate(request) {
                Invalidation::Pending => {}
                Invalidation::Completed => {
                    let completion = InvalidateCompletion {
                        itag_vector: 1 << request.itag.get(),
                        completion_count: 1,
                    };
                    self.send_up(slot, Up::Complete(completion));
                }
            },
        }
    }

    fn arrive_up(&self, slot: &FunctionSlot, message: &Up) {
        match message {
            Up::Complete(completion) => {
                self.with_unit(slot.unit, |unit, ram, fx| {
                    unit.invalidate_completion(ram, slot.requester, completion, fx);
                });
                self.0.news.signal();
            }
            Up::PageRequest(request) => self.with_unit(slot.unit, |unit, ram, fx| {
                unit.page_request(ram, slot.requester, request, fx);
            }),
        }
    }
}
