// SPDX-License-Identifier: GPL-2.0-or-later
//! What the device hears of page requests that QEMU does not take.
//!
//! To QEMU a page request is a function call that may fail; to a device it is a posted message,
//! whose group is always answered. Hardware answers by itself where it cannot queue a request
//! (VT-d 7.4.1 and 7.6): a group whose last request met a full queue is answered Success, so
//! that the device asks for its pages again; one that is not permitted, Invalid Request; one
//! whose descriptor could not be written, Response Failure. Requests that are not the last of
//! their group are answered with it; stop markers (PCIe 10.4.1.2) have no answer.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use pcie_ats::{PageRequest, PrgResponse, ResponseCode};

use crate::bql::Bql;
use crate::device::Device;
use crate::pci::Refusal;
use crate::timer::Timer;

/// How long a device is kept from trying again when the queue was full: long enough for the
/// guest to take something out of it.
const FULL_QUEUE_DELAY: Duration = Duration::from_millis(1);

/// The answer that hardware gives to a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Automatic {
    /// None: not the last request of its group.
    Nothing,
    /// At once.
    Now(ResponseCode),
    /// When the queue may have room again.
    Later(ResponseCode),
}

/// Decides.
pub fn automatic(request: &PageRequest, refusal: Refusal) -> Automatic {
    let is_stop_marker = !request.read && !request.write;
    if !request.last || is_stop_marker {
        return Automatic::Nothing;
    }
    match refusal {
        Refusal::QueueFull => Automatic::Later(ResponseCode::Success),
        Refusal::Access => Automatic::Now(ResponseCode::ResponseFailure),
        Refusal::NotPermitted | Refusal::NoIommu | Refusal::Invalid => {
            Automatic::Now(ResponseCode::InvalidRequest)
        }
    }
}

/// Answers that wait for their time.
#[derive(Default)]
pub struct Deferred {
    waiting: Mutex<Vec<PrgResponse>>,
    timer: OnceLock<Timer>,
}

impl Deferred {
    /// Makes the timer. False if QEMU's timers are not laid out as expected.
    pub fn prepare(&self, bql: &Bql, device: Weak<Device>) -> bool {
        let action = move |bql: &Bql| {
            if let Some(device) = device.upgrade() {
                device.deferred_responses(bql);
            }
        };
        match Timer::new(bql, Box::new(action)) {
            Some(timer) => self.timer.set(timer).is_ok(),
            None => false,
        }
    }

    /// Keeps an answer until its time.
    pub fn push(&self, response: PrgResponse) {
        self.lock().push(response);
        if let Some(timer) = self.timer.get() {
            timer.set(FULL_QUEUE_DELAY);
        }
    }

    /// The answers whose time has come.
    pub fn take(&self) -> Vec<PrgResponse> {
        std::mem::take(&mut *self.lock())
    }

    /// Forgets all answers: nobody waits for them any more.
    pub fn clear(&self, bql: &Bql) {
        self.lock().clear();
        if let Some(timer) = self.timer.get() {
            timer.cancel(bql);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PrgResponse>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcie_ats::Prgi;

    fn request(last: bool) -> PageRequest {
        PageRequest {
            address: 0x1000,
            pasid: None,
            read: true,
            write: false,
            execute: false,
            privileged: false,
            prgi: Prgi::new(0).unwrap(),
            last,
        }
    }

    #[test]
    fn a_full_queue_is_answered_success_later() {
        assert_eq!(
            automatic(&request(true), Refusal::QueueFull),
            Automatic::Later(ResponseCode::Success)
        );
    }

    #[test]
    fn what_is_not_permitted_is_answered_invalid_at_once() {
        for refusal in [Refusal::NotPermitted, Refusal::NoIommu, Refusal::Invalid] {
            assert_eq!(
                automatic(&request(true), refusal),
                Automatic::Now(ResponseCode::InvalidRequest)
            );
        }
        assert_eq!(
            automatic(&request(true), Refusal::Access),
            Automatic::Now(ResponseCode::ResponseFailure)
        );
    }

    #[test]
    fn only_the_last_request_of_a_group_is_answered() {
        for refusal in [Refusal::QueueFull, Refusal::NotPermitted, Refusal::Access] {
            assert_eq!(automatic(&request(false), refusal), Automatic::Nothing);
        }
    }

    #[test]
    fn a_stop_marker_has_no_answer() {
        let marker = PageRequest {
            read: false,
            ..request(true)
        };
        assert_eq!(automatic(&marker, Refusal::QueueFull), Automatic::Nothing);
    }
}
