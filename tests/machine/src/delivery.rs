// SPDX-License-Identifier: MIT OR Apache-2.0
//! How messages go over the link of a function.

use crate::link::{Down, Up};
use crate::machine::{FunctionId, FunctionSlot, Machine};
use pcie_ats::{Function, InvalidateCompletion, Invalidation};
use std::sync::atomic::Ordering;

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
