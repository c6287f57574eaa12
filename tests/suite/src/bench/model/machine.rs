// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine of a model: memory, the device, and the model between them. One thread uses it.

use super::super::host::{Hook, Wish};
use super::unit::{Message, Model, Platform};
use machine::{Moment, Ram};
use pcie_ats::{Function, InvalidateCompletion, Invalidation};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use svm_endpoint::Endpoint;
use vtd::spec::SourceId;

/// The device, at 00:01.0.
pub(super) const DEVICE: SourceId = SourceId(1 << 3);

/// The machine.
pub(super) struct ModelMachine {
    pub ram: Ram,
    model: Mutex<Box<dyn Model>>,
    pub endpoint: Endpoint,
    /// Messages to the device that are on their way, and whether somebody brings them there.
    messages: Mutex<VecDeque<(u16, Message)>>,
    delivers: AtomicBool,
    pub loses_invalidations: AtomicBool,
    pub hook: Mutex<Option<Hook>>,
    pub has_hook: AtomicBool,
    /// The time, in nanoseconds.
    pub clock: AtomicU64,
    /// Which vectors are not masked.
    pub vectors: Mutex<Vec<bool>>,
    pub interrupts: AtomicUsize,
}

impl fmt::Debug for ModelMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelMachine").finish_non_exhaustive()
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ModelMachine {
    pub fn new(model: Box<dyn Model>, wish: &Wish) -> Self {
        let ram = Ram::new(machine::MEMORY);
        let endpoint = Endpoint::new(wish.device);
        let (ram, endpoint) = match (ram, endpoint) {
            (Ok(ram), Ok(endpoint)) => (ram, endpoint),
            (Err(error), _) => panic!("{error}"),
            (_, Err(error)) => panic!("{error}"),
        };
        ModelMachine {
            ram,
            model: Mutex::new(model),
            messages: Mutex::default(),
            delivers: AtomicBool::new(false),
            loses_invalidations: AtomicBool::new(false),
            hook: Mutex::default(),
            has_hook: AtomicBool::new(false),
            clock: AtomicU64::new(0),
            vectors: Mutex::new(vec![false; usize::from(endpoint.vectors())]),
            interrupts: AtomicUsize::new(0),
            endpoint,
        }
    }

    /// Calls the model, and then delivers what it has sent.
    pub fn call<T>(&self, call: impl FnOnce(&mut dyn Model, &mut Platform<'_>) -> T) -> T {
        let result = {
            let mut platform = Platform {
                ram: &self.ram,
                messages: &mut lock(&self.messages),
            };
            call(&mut **lock(&self.model), &mut platform)
        };
        self.deliver();
        result
    }

    /// Brings messages to the device in their order: what it answers at once may lead to more.
    fn deliver(&self) {
        if self.delivers.swap(true, Ordering::Relaxed) {
            return;
        }
        loop {
            let message = lock(&self.messages).pop_front();
            let Some((requester, message)) = message else {
                break;
            };
            if requester == DEVICE.0 {
                self.arrive(&message);
            }
        }
        self.delivers.store(false, Ordering::Relaxed);
    }

    fn arrive(&self, message: &Message) {
        match message {
            Message::Respond(response) => self.endpoint.prg_response(response),
            Message::Invalidate(_) if self.loses_invalidations.load(Ordering::Relaxed) => {}
            Message::Invalidate(request) => match self.endpoint.invalidate(request) {
                Invalidation::Pending => {}
                Invalidation::Completed => self.completed(&InvalidateCompletion {
                    itag_vector: 1 << request.itag.get(),
                    completion_count: 1,
                }),
            },
        }
    }

    /// The device has completed invalidations.
    pub fn completed(&self, completion: &InvalidateCompletion) {
        self.call(|model, platform| model.completed(platform, DEVICE.0, completion));
    }

    /// Lets the experiment have its say, if there is one. It is not called from inside itself.
    pub fn at(&self, moment: &Moment) {
        let hook = lock(&self.hook).take();
        if let Some(mut hook) = hook {
            hook(moment);
            if self.has_hook.load(Ordering::Relaxed) {
                lock(&self.hook).get_or_insert(hook);
            }
        }
    }

    /// An interrupt of the device.
    pub fn interrupt(&self, vector: u16) {
        let vectors = lock(&self.vectors);
        if vectors.get(usize::from(vector)) == Some(&true) {
            self.interrupts.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn tell_time(&self) {
        let micros = self.clock.load(Ordering::Relaxed) / 1000;
        // When something is due next is no question: it comes when somebody lets the time pass.
        let _ = self.endpoint.tick(micros);
    }
}
