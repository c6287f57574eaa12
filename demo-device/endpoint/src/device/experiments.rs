// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks the laboratory's requests: the state of the function limits them, too.

use super::Device;
use crate::counters::index;
use crate::laboratory::{Outcome, Request};
use crate::mutant::Mutant;
use crate::page_groups::{Group, Owner};
use crate::turn::Action;
use pcie_ats::{MemoryAddressType, PageRequest};
use svm_abi::completion::Error;

impl Device {
    /// The request of the laboratory, if the state of the function permits it.
    pub(super) fn next_of_laboratory(&mut self) -> Option<Action> {
        let request = match (self.laboratory.as_mut()?.take()?, self.mutant) {
            (Request::Probe(request), Some(Mutant::Rule33)) => Request::Read(request),
            (request, _) => request,
        };
        if !self.permits(&request) {
            if let Some(lab) = &mut self.laboratory {
                lab.finish(&Outcome::Failed(Error::NotPresent));
            }
            return None;
        }
        Some(Action::Laboratory {
            request,
            outcome: Outcome::Waits,
        })
    }

    /// Whether the function may send a raw request. Opens the group of a page request.
    pub(super) fn permits(&mut self, request: &Request) -> bool {
        let pasid = match request {
            Request::Translate(r) => r.pasid,
            Request::Page(r) => r.pasid,
            Request::Read(r) | Request::Write(r, _) | Request::Probe(r) => r.pasid,
        };
        let space = &self.space;
        if !space.may_send(None) || (pasid.is_some() && !space.pasid.enable) {
            return false;
        }
        let (execute, privileged) = match request {
            Request::Translate(r) => (r.execute, r.privileged),
            Request::Page(r) => (r.execute, r.privileged),
            Request::Read(r) | Request::Write(r, _) | Request::Probe(r) => (false, r.privileged),
        };
        let may_ask = space.may_ask(pasid, execute, privileged);
        if !may_ask && !self.breaks(Mutant::Enable07) {
            return false;
        }
        match request {
            Request::Translate(_) => space.ats.enable,
            Request::Page(page) => self.opens(page),
            Request::Read(r) | Request::Write(r, _) | Request::Probe(r) => {
                space.ats.enable || r.address_type == MemoryAddressType::Untranslated
            }
        }
    }

    /// Opens the group of a raw page request, if it has a response.
    pub(super) fn opens(&mut self, page: &PageRequest) -> bool {
        let credits = self.space.pri.allocation > self.groups.outstanding();
        if !self.pri_accepts() || !credits {
            return false;
        }
        if page.last && (page.read || page.write) {
            let group = Group {
                owner: Owner::Laboratory,
                pasid: page.pasid,
                pages: 1,
                since: None,
            };
            if self.groups.insert(page.prgi, group).is_none() {
                return false;
            }
        }
        self.counters.add(index::PAGE_REQUESTS, 1);
        true
    }
}
