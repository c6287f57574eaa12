// SPDX-License-Identifier: GPL-2.0-or-later
//! Who has asked to hear what the unit sends to functions: invalidation requests and page request
//! group responses, each for one address space of a function. Registrations are QEMU's pointers,
//! used under the BQL only.

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcie_ats::{AlignedRange, InvalidateRequest, Pasid, PrgResponse, ResponseCode};

use super::spaces::Function;
use crate::abi::iommu::PRI_RESPONSE_FAILURE;
use crate::abi::layout::*;
use crate::bql::Bql;
use crate::memory::Space;

/// A registration.
struct Client<N> {
    function: Function,
    pasid: Option<Pasid>,
    notifier: NonNull<N>,
}

impl<N> Client<N> {
    fn is(&self, function: Function, pasid: Option<Pasid>) -> bool {
        (self.function, self.pasid) == (function, pasid)
    }
}

// SAFETY: the notifiers are called under the BQL only; who asks for it proves that it is held.
unsafe impl<N> Send for Client<N> {}

/// All registrations.
#[derive(Default)]
pub struct Clients {
    invalidations: Mutex<Vec<Client<IOMMUNotifier>>>,
    responses: Mutex<Vec<Client<IOMMUPRINotifier>>>,
}

/// The list behind a lock, which nobody holds while a notifier runs.
fn lock<N>(list: &Mutex<Vec<Client<N>>>) -> MutexGuard<'_, Vec<Client<N>>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    /// Invalidation requests for an address space of a function go to this notifier too.
    ///
    /// # Safety
    ///
    /// The notifier exists until it is removed.
    pub unsafe fn add_invalidations(
        &self,
        function: Function,
        pasid: Option<Pasid>,
        notifier: NonNull<IOMMUNotifier>,
    ) {
        lock(&self.invalidations).push(Client {
            function,
            pasid,
            notifier,
        });
    }

    /// They do not any more.
    pub fn remove_invalidations(
        &self,
        function: Function,
        pasid: Option<Pasid>,
        notifier: NonNull<IOMMUNotifier>,
    ) {
        lock(&self.invalidations)
            .retain(|client| !(client.is(function, pasid) && client.notifier == notifier));
    }

    /// Page responses for an address space of a function go to this notifier, and no other.
    ///
    /// # Safety
    ///
    /// The notifier exists until it is removed or replaced.
    pub unsafe fn set_responses(
        &self,
        function: Function,
        pasid: Option<Pasid>,
        notifier: NonNull<IOMMUPRINotifier>,
    ) {
        let mut list = lock(&self.responses);
        list.retain(|client| !client.is(function, pasid));
        list.push(Client {
            function,
            pasid,
            notifier,
        });
    }

    /// They go nowhere.
    pub fn remove_responses(&self, function: Function, pasid: Option<Pasid>) {
        lock(&self.responses).retain(|client| !client.is(function, pasid));
    }

    /// Sends an invalidation request. When this returns, all who hear of it have acted on it.
    pub fn invalidate(&self, _bql: &Bql, requester: u16, request: &InvalidateRequest) {
        let concerned = |client: &Client<IOMMUNotifier>| {
            client.function.requester() == requester
                && match (request.pasid, request.global) {
                    (Some(_), true) => client.pasid.is_some(),
                    (pasid, _) => client.pasid == pasid,
                }
        };
        let list: Vec<_> = lock(&self.invalidations)
            .iter()
            .filter(|client| concerned(client))
            .map(|client| (client.notifier, client.pasid))
            .collect();
        for (notifier, pasid) in list {
            // One that ran before may have removed it.
            let still = |client: &Client<_>| client.notifier == notifier && client.pasid == pasid;
            if !lock(&self.invalidations).iter().any(still) {
                continue;
            }
            let mut entry = invalidated(request.range, pasid.map_or(NO_PASID, Pasid::get));
            // SAFETY: the notifier is registered, hence exists, and QEMU's rule that the BQL is
            // held is kept.
            unsafe {
                if let Some(notify) = notifier.as_ref().notify {
                    notify(notifier.as_ptr(), &mut entry);
                }
            }
        }
    }

    /// Sends a page request group response.
    pub fn respond(&self, _bql: &Bql, requester: u16, response: &PrgResponse) {
        let notifier = lock(&self.responses)
            .iter()
            .find(|c| c.pasid == response.pasid && c.function.requester() == requester)
            .map(|client| client.notifier);
        let Some(notifier) = notifier else { return };
        let mut message = IOMMUPRIResponse {
            response_code: match response.code {
                ResponseCode::Success => pri_response::SUCCESS,
                ResponseCode::InvalidRequest => pri_response::INVALID_REQUEST,
                ResponseCode::ResponseFailure => PRI_RESPONSE_FAILURE,
            },
            prgi: response.prgi.get(),
        };
        // SAFETY: as for `invalidate`.
        unsafe { (notifier.as_ref().notify)(notifier.as_ptr(), &mut message) }
    }
}

/// The entry that tells of an invalidated range.
pub fn invalidated(range: AlignedRange, pasid: u32) -> IOMMUTLBEntry {
    IOMMUTLBEntry {
        target_as: Space::system().as_ptr(),
        iova: range.base(),
        translated_addr: 0,
        addr_mask: range.last() - range.base(),
        perm: 0,
        pasid,
    }
}
