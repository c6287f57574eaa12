// SPDX-License-Identifier: GPL-2.0-or-later
//! What is known of the clients that watch an address space.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vtd::spec::DomainId;

use super::copies::Copies;

/// The clients of one address space.
#[derive(Debug, Default)]
pub struct Watched {
    /// Somebody keeps a copy.
    pub copied: AtomicBool,
    /// What they were told.
    pub copies: Mutex<Copies>,
    /// The function is passed through, and shown system memory itself.
    shown: AtomicBool,
    /// Its tables were too large.
    pub complained: AtomicBool,
    /// The domain by which its translations are invalidated.
    domain: Mutex<Option<DomainId>>,
}

impl Watched {
    /// The function is shown system memory itself, or not.
    pub fn show(&self, system: bool) {
        self.shown.store(system, Ordering::Relaxed);
    }

    pub fn is_shown(&self) -> bool {
        self.shown.load(Ordering::Relaxed)
    }

    pub fn is_copied(&self) -> bool {
        self.copied.load(Ordering::Relaxed)
    }

    pub fn domain(&self) -> Option<DomainId> {
        *self.domain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_domain(&self, domain: Option<DomainId>) {
        *self.domain.lock().unwrap_or_else(PoisonError::into_inner) = domain;
    }

    pub fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
