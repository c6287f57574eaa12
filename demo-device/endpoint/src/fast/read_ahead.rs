// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translation requests for what will be needed next, sent behind one for what is needed now: so a
//! round through the device's lock serves as many pages as the turn will reach. They ask for
//! nothing but translations: pages that are not present are requested when they are needed.

use crate::permit::{Permit, Ticket};
use pcie_ats::{
    AlignedRange, MAX_TRANSLATIONS, PAGE_SHIFT, RootPort, Translation, TranslationRequest,
};

/// The most requests ahead.
pub(crate) const MAX_AHEAD: usize = 15;
/// The most requests of a round.
const MAX_REQUESTS: usize = 1 + MAX_AHEAD;

/// The requests, and the answers to those that were sent.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    /// The one for what is needed now, which others send, and those behind it.
    requests: Vec<TranslationRequest>,
    /// For each request that was sent, its number and that of its translations.
    sent: Vec<(usize, usize)>,
    /// Translations of a completion behind those of another.
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

    /// Begins anew, behind a request.
    pub fn begin(&mut self, wanted: &TranslationRequest) {
        self.requests.clear();
        self.requests.push(*wanted);
        self.sent.clear();
    }

    /// Number of requests behind the first.
    pub fn len(&self) -> usize {
        self.requests.len() - 1
    }

    /// Where the pages end that a request asks for already, which has the permission to write if
    /// that is needed; none if it is not asked for at an address.
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

    /// Sends them behind a request that was completed with these translations, up to one that is
    /// not completed with all permissions: what comes behind it has time.
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
            // A page was larger than the request thought.
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
            // A port that counts more than it was given room for is taken by what it filled.
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

/// The untranslated range of the last translation of a completion, if it permits all that was asked
/// for everywhere.
fn good(request: &TranslationRequest, translations: &[Translation]) -> Option<AlignedRange> {
    let permits = |t: &Translation| t.read && (t.write || request.no_write);
    let (first, last) = (translations.first()?, translations.last()?);
    let before = (translations.len() as u64 - 1) << first.range.shift().min(63);
    let address = request.address.checked_add(before)?;
    let range = AlignedRange::containing(address, last.range.shift()).ok()?;
    translations.iter().all(permits).then_some(range)
}
