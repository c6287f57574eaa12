// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests for the addresses that will be needed next, sent after the request for the
//! one that is needed now. So a round through the device's lock serves all pages that the turn will
//! reach. They cause no page requests: the device requests absent pages when it needs them.

use crate::permit::{Permit, Ticket};
use pcie_ats::{
    AlignedRange, MAX_TRANSLATIONS, PAGE_SHIFT, RootPort, Translation, TranslationRequest,
};

/// The largest number of requests ahead.
pub(crate) const MAX_AHEAD: usize = 15;
/// The largest number of requests of a round.
const MAX_REQUESTS: usize = 1 + MAX_AHEAD;

/// The requests, and the answers to those that were sent.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    /// The request that is needed now, which other code sends, and those after it.
    requests: Vec<TranslationRequest>,
    /// For each request that was sent, its index and the number of its translations.
    sent: Vec<(usize, usize)>,
    /// The translations of all completions, in order.
    translations: Box<[Translation]>,
}

impl ReadAhead {
    /// None yet.
    pub fn new() -> Self {
        let none = Translation::from_word(0);
        ReadAhead {
            requests: Vec::with_capacity(MAX_REQUESTS),
            sent: Vec::with_capacity(MAX_AHEAD),
            translations: vec![none; MAX_REQUESTS * MAX_TRANSLATIONS].into_boxed_slice(),
        }
    }

    /// Restarts, after a request.
    pub fn begin(&mut self, wanted: &TranslationRequest) {
        self.requests.clear();
        self.requests.push(*wanted);
        self.sent.clear();
    }

    /// Number of requests after the first.
    pub fn len(&self) -> usize {
        self.requests.len() - 1
    }

    /// The end of the pages of a request that covers an address, with the permission to write if
    /// that is needed; none if no request covers it.
    pub fn asked(&self, address: u64, write: bool, stu: u8) -> Option<u64> {
        self.requests.iter().find_map(|request| {
            let length = u64::from(request.pages) << (PAGE_SHIFT + stu);
            let within = address.wrapping_sub(request.address) < length;
            let enough = !(write && request.no_write);
            (within && enough).then(|| request.address.checked_add(length))?
        })
    }

    /// Adds a request.
    pub fn push(&mut self, request: TranslationRequest) {
        self.requests.push(request);
    }

    /// Sends them after a request that was completed with these translations. Stops at the first
    /// that is not completed with all permissions: the rest can wait.
    pub fn send<P: RootPort + ?Sized>(
        &mut self,
        port: &P,
        permit: &Permit,
        ticket: Ticket,
        request: &TranslationRequest,
        translations: &[Translation],
    ) {
        let mut known = match good(request, translations) {
            Some(known) => known,
            None => return,
        };
        let places = self.translations.chunks_exact_mut(MAX_TRANSLATIONS);
        for (n, (request, place)) in self.requests.iter().zip(places).enumerate().skip(1) {
            // A page was larger than the request assumed.
            if known.contains(request.address) {
                continue;
            }
            if !permit.holds(ticket) {
                return;
            }
            let place = &mut place[..usize::from(request.pages)];
            let Ok(count) = port.translate(request, place) else {
                return;
            };
            // If a port reports more translations than fit, only those that fit count.
            let count = count.min(place.len());
            self.sent.push((n, count));
            match good(request, &place[..count]) {
                Some(more) => known = more,
                None => return,
            }
        }
    }

    /// The requests that were sent, with their translations.
    pub fn completions(&self) -> impl Iterator<Item = (&TranslationRequest, &[Translation])> {
        self.sent.iter().map(|(n, count)| {
            let first = n * MAX_TRANSLATIONS;
            (&self.requests[*n], &self.translations[first..first + count])
        })
    }
}

/// The untranslated range of the last translation of a completion, if all translations have all
/// requested permissions.
fn good(request: &TranslationRequest, translations: &[Translation]) -> Option<AlignedRange> {
    let permits = |t: &Translation| t.read && (t.write || request.no_write);
    let (first, last) = (translations.first()?, translations.last()?);
    let before = (translations.len() as u64 - 1) << first.range.shift().min(63);
    let address = request.address.checked_add(before)?;
    let range = AlignedRange::containing(address, last.range.shift()).ok()?;
    translations.iter().all(permits).then_some(range)
}
