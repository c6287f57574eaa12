// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests of assigned devices: from the host's fault queue into the guest's page request
//! queue, in whole groups, and the responses of the guest back.
//!
//! The host answers groups by a cookie, the guest by requester, PASID and index. The index that the
//! guest sees is given here, for the device's own may come again before the guest has answered:
//! when an address space goes away, the host answers its groups, and the device may use their
//! indices for new ones. An index whose group was answered like that is not used until the guest's
//! late response has come.

use crate::bindings::{Bindings, SpaceKey};
use crate::host::{Fault, FaultCode, FaultQueueId, FaultResponse, HostIommu, HostResult};
use crate::mutant::{Mutant, breaks};
use pcie_ats::{PageRequest, Pasid, PrgResponse, Prgi, ResponseCode};
use std::collections::BTreeMap;
use vtd::spec::SourceId;

/// How many groups of a function can be outstanding: an index has 9 bits (PCIe 10.4.1).
const INDICES: u16 = 512;

/// A group that the guest has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// The host waits for the response.
    Outstanding {
        queue: FaultQueueId,
        cookie: u32,
        pasid: Option<Pasid>,
        /// The index that the device chose.
        index: u32,
    },
    /// The host has answered it itself.
    Abandoned { pasid: Option<Pasid> },
}

/// A response for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostResponse {
    /// The queue of the group.
    pub queue: FaultQueueId,
    /// The response.
    pub response: FaultResponse,
}

/// What the guest must be told, and what the host is answered at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Page requests for the guest's queue, in order.
    pub requests: Vec<(SourceId, PageRequest)>,
    /// Groups that cannot be told to the guest.
    pub responses: Vec<HostResponse>,
}

/// The page requests of all assigned devices.
#[derive(Debug, Default)]
pub struct PageRequests {
    groups: BTreeMap<(SourceId, u16), Group>,
    /// The index that was given last, by function: they are given in turn, so that one that has
    /// just been answered is not used at once.
    last: BTreeMap<SourceId, u16>,
}

impl PageRequests {
    /// No page request is outstanding.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what waits in a fault queue of the host. The requests go to the guest's unit; what
    /// that answers by itself, for its queue is full for instance, comes back by [`Self::respond`]
    /// as any response does.
    ///
    /// # Errors
    ///
    /// The host could not be read.
    pub fn take(
        &mut self,
        host: &mut impl HostIommu,
        bindings: &Bindings,
        queue: FaultQueueId,
    ) -> HostResult<Delivery> {
        let faults = host.read_faults(queue)?;
        let of = |device| bindings.requester_of(queue.iommufd, device);
        Ok(self.deliver(of, queue, &faults))
    }

    /// What becomes of page requests that were read from a fault queue: whole groups, each of which
    /// has one cookie. `requester_of` knows the functions of the devices of the queue's iommufd.
    pub fn deliver(
        &mut self,
        requester_of: impl Fn(u32) -> Option<SourceId>,
        queue: FaultQueueId,
        faults: &[Fault],
    ) -> Delivery {
        let mut delivery = Delivery::default();
        for group in faults.chunk_by(|a, b| a.cookie == b.cookie && !a.last) {
            let first = group[0];
            let answer = |code| HostResponse {
                queue,
                response: FaultResponse {
                    cookie: first.cookie,
                    code,
                },
            };
            let Some(requester) = requester_of(first.device) else {
                // A device that is gone.
                delivery.responses.push(answer(FaultCode::Invalid));
                continue;
            };
            let Some(prgi) = self.free_index(requester) else {
                // As a queue that is full: the device asks again.
                delivery
                    .responses
                    .push(answer(match breaks(Mutant::Overflow) {
                        true => FaultCode::Invalid,
                        false => FaultCode::Success,
                    }));
                continue;
            };
            let pasid = first.pasid;
            let outstanding = Group::Outstanding {
                queue,
                cookie: first.cookie,
                pasid,
                index: first.group,
            };
            self.groups.insert((requester, prgi.get()), outstanding);
            for (n, fault) in group.iter().enumerate() {
                let request = PageRequest {
                    address: fault.address & !0xfff,
                    pasid,
                    read: fault.read,
                    write: fault.write,
                    execute: fault.execute,
                    privileged: fault.privileged,
                    prgi,
                    last: match breaks(Mutant::Groups) {
                        true => true,
                        false => n + 1 == group.len(),
                    },
                };
                delivery.requests.push((requester, request));
            }
        }
        delivery
    }

    /// The guest, or its unit, has answered a group. Returns the response for the host; none if it
    /// does not wait for one.
    pub fn respond(&mut self, requester: SourceId, response: &PrgResponse) -> Option<HostResponse> {
        let key = (requester, response.prgi.get());
        let group = *self.groups.get(&key)?;
        let (Group::Outstanding { pasid, .. } | Group::Abandoned { pasid }) = group;
        if pasid != response.pasid {
            // It is for no group that there is.
            return None;
        }
        self.groups.remove(&key);
        let Group::Outstanding { queue, cookie, .. } = group else {
            return None;
        };
        let code = match response.code {
            ResponseCode::Success => FaultCode::Success,
            _ if breaks(Mutant::Code) => FaultCode::Success,
            // The host knows no other failure.
            ResponseCode::InvalidRequest | ResponseCode::ResponseFailure => FaultCode::Invalid,
        };
        let response = FaultResponse { cookie, code };
        Some(HostResponse { queue, response })
    }

    /// Address spaces have lost their page table: the host has answered their groups with invalid.
    /// What the guest answers later goes nowhere. Returns how many groups that were.
    pub fn unbound(&mut self, spaces: &[SpaceKey]) -> usize {
        let mut count = 0;
        for ((requester, _), group) in &mut self.groups {
            if let Group::Outstanding { pasid, .. } = *group {
                if spaces.contains(&(*requester, pasid)) {
                    if !breaks(Mutant::Detach) {
                        *group = Group::Abandoned { pasid };
                    }
                    count += 1;
                }
            }
        }
        count
    }

    /// The guest will answer nothing any more, for its unit was reset: what is outstanding is
    /// answered with invalid, and indices are free.
    pub fn reset(&mut self) -> Vec<HostResponse> {
        let groups = std::mem::take(&mut self.groups).into_values();
        groups
            .filter_map(|group| match group {
                Group::Outstanding { queue, cookie, .. } => Some(HostResponse {
                    queue,
                    response: FaultResponse {
                        cookie,
                        code: FaultCode::Invalid,
                    },
                }),
                Group::Abandoned { .. } => None,
            })
            .collect()
    }

    /// The index that the device chose for an outstanding group, by that which the guest sees.
    pub fn index_of_device(&self, requester: SourceId, prgi: Prgi) -> Option<u32> {
        match self.groups.get(&(requester, prgi.get()))? {
            Group::Outstanding { index, .. } => Some(*index),
            Group::Abandoned { .. } => None,
        }
    }

    /// How many groups the host waits for.
    pub fn outstanding(&self) -> usize {
        let waits = |group: &&Group| matches!(group, Group::Outstanding { .. });
        self.groups.values().filter(waits).count()
    }

    /// An index that no group of a function has, the next one in turn.
    fn free_index(&mut self, requester: SourceId) -> Option<Prgi> {
        let last = self.last.get(&requester).copied().unwrap_or(INDICES - 1);
        let mut turn = (1..=INDICES).map(|n| (last + n) % INDICES);
        let used = |n: &u16| self.groups.contains_key(&(requester, *n));
        let free = turn.find(|n| !used(n))?;
        self.last.insert(requester, free);
        Prgi::new(free).ok()
    }
}

/// Gives responses to the host. One that it refuses, as the group is gone meanwhile, does not keep
/// the others back. Returns how many it took.
pub fn answer(host: &mut impl HostIommu, responses: &[HostResponse]) -> usize {
    let mut taken = 0;
    for HostResponse { queue, response } in responses {
        match host.respond(*queue, &[*response]) {
            Ok(()) => taken += 1,
            Err(_) if breaks(Mutant::Refused) => break,
            Err(_) => {}
        }
    }
    taken
}
