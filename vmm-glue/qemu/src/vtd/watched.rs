// SPDX-License-Identifier: GPL-2.0-or-later
//! The state of the clients that watch an address space.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vtd::spec::DomainId;

use super::copies::Copies;

/// The clients of one address space.
#[derive(Debug, Default)]
pub struct Watched {
    /// A client keeps a copy.
    pub copied: AtomicBool,
    /// The pages that they were told of.
    pub copies: Mutex<Copies>,
    /// The function is in pass-through mode, and sees system memory itself.
    shown: AtomicBool,
    /// A message about tables that are too large was printed.
    pub complained: AtomicBool,
    /// The domain of its translations.
    domain: Mutex<Option<DomainId>>,
}

impl Watched {
    /// Sets whether the function sees system memory itself.
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
