// SPDX-License-Identifier: GPL-2.0-or-later
//! The clients that have registered for the unit's messages to functions: invalidation requests and
//! page request group responses, each for one address space of a function. Registrations are QEMU's
//! pointers, used only under the BQL.

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pcie_ats::{AlignedRange, InvalidateRequest, Pasid, PrgResponse, ResponseCode};

use super::function::Function;
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

// SAFETY: the notifiers are called only under the BQL, and each call has a proof of it.
unsafe impl<N> Send for Client<N> {}

/// All registrations.
#[derive(Default)]
pub struct Clients {
    invalidations: Mutex<Vec<Client<IOMMUNotifier>>>,
    responses: Mutex<Vec<Client<IOMMUPRINotifier>>>,
}

/// Locks a list. The lock is never held while a notifier runs.
fn lock<N>(list: &Mutex<Vec<Client<N>>>) -> MutexGuard<'_, Vec<Client<N>>> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Clients {
    /// Adds a notifier for invalidation requests of an address space of a function.
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

    /// Removes it.
    pub fn remove_invalidations(
        &self,
        function: Function,
        pasid: Option<Pasid>,
        notifier: NonNull<IOMMUNotifier>,
    ) {
        lock(&self.invalidations)
            .retain(|client| !(client.is(function, pasid) && client.notifier == notifier));
    }

    /// Adds a notifier for page responses of an address space of a function.
    ///
    /// # Safety
    ///
    /// The notifier exists until it is removed.
    pub unsafe fn add_responses(
        &self,
        function: Function,
        pasid: Option<Pasid>,
        notifier: NonNull<IOMMUPRINotifier>,
    ) {
        let mut list = lock(&self.responses);
        if !list
            .iter()
            .any(|c| c.is(function, pasid) && c.notifier == notifier)
        {
            list.push(Client {
                function,
                pasid,
                notifier,
            });
        }
    }

    /// Removes it. QEMU's operation does not name a notifier: without a name this removes all of
    /// them, because any of them may be gone.
    pub fn remove_responses(
        &self,
        function: Function,
        pasid: Option<Pasid>,
        notifier: Option<NonNull<IOMMUPRINotifier>>,
    ) {
        lock(&self.responses).retain(|client| {
            !(client.is(function, pasid) && notifier.is_none_or(|n| n == client.notifier))
        });
    }

    /// Sends an invalidation request. When this returns, all clients have acted on it.
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
            // SAFETY: the notifier is registered, hence exists, and the BQL is held as QEMU
            // requires.
            unsafe {
                if let Some(notify) = IOMMUNotifier::notify(notifier) {
                    notify(notifier.as_ptr(), &mut entry);
                }
            }
        }
    }

    /// Sends a page request group response to all clients of the address space: each knows its own
    /// groups.
    pub fn respond(&self, _bql: &Bql, requester: u16, response: &PrgResponse) {
        let concerned = |client: &Client<_>| {
            client.pasid == response.pasid && client.function.requester() == requester
        };
        let list: Vec<_> = lock(&self.responses)
            .iter()
            .filter(|client| concerned(client))
            .map(|client| client.notifier)
            .collect();
        for notifier in list {
            // One that ran before may have removed it.
            let still = |client: &Client<_>| concerned(client) && client.notifier == notifier;
            if !lock(&self.responses).iter().any(still) {
                continue;
            }
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
}

/// The entry for an invalidated range.
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

#[cfg(test)]
mod tests {
    use pcie_ats::Prgi;

    use super::*;

    /// A notifier that records the answered groups.
    #[repr(C)]
    struct Noting {
        base: IOMMUPRINotifier,
        groups: Vec<u16>,
    }

    unsafe extern "C" fn note(notifier: *mut IOMMUPRINotifier, response: *mut IOMMUPRIResponse) {
        // SAFETY: the notifier is the first field of a `Noting`.
        unsafe { (*notifier.cast::<Noting>()).groups.push((*response).prgi) }
    }

    fn noting() -> NonNull<Noting> {
        let noting = Noting {
            base: IOMMUPRINotifier { notify: note },
            groups: Vec::new(),
        };
        NonNull::from(Box::leak(Box::new(noting)))
    }

    #[test]
    fn a_second_notifier_of_an_address_space_does_not_take_the_responses_of_the_first() {
        // SAFETY: the test does not access QEMU.
        let bql = unsafe { Bql::held() };
        let (clients, function) = (Clients::default(), Function::IoApic);
        let pasid = Some(Pasid::new(5).unwrap());
        let of = [noting(), noting(), noting()];
        // SAFETY: they are never freed, and no notifier runs meanwhile.
        let heard = || of.map(|n| unsafe { n.as_ref() }.groups.clone());
        let mut prgi = 0..;
        let mut respond = || {
            clients.respond(
                &bql,
                function.requester(),
                &PrgResponse {
                    prgi: Prgi::new(prgi.next().unwrap()).unwrap(),
                    pasid,
                    code: ResponseCode::Success,
                },
            );
        };
        // SAFETY: they are never freed.
        unsafe {
            clients.add_responses(function, pasid, of[0].cast());
            respond();
            clients.add_responses(function, pasid, of[1].cast());
            clients.add_responses(function, pasid, of[1].cast());
            clients.add_responses(function, None, of[2].cast());
        }
        respond();
        assert_eq!(heard(), [vec![0, 1], vec![1], vec![]]);
        // One is removed, and the other stays.
        clients.remove_responses(function, pasid, Some(of[0].cast()));
        respond();
        assert_eq!(heard(), [vec![0, 1], vec![1, 2], vec![]]);
        clients.remove_responses(function, pasid, None);
        respond();
        assert_eq!(heard(), [vec![0, 1], vec![1, 2], vec![]]);
    }
}
