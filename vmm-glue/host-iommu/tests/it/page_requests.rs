// SPDX-License-Identifier: MIT OR Apache-2.0
//! Page requests: whole groups into the guest, responses back, overflow, detach.

use crate::bench::*;
use host_iommu::host::{FaultCode, HostIommu};
use host_iommu::mock::Call;
use host_iommu::page_requests::{Delivery, PageRequests, answer};
use pcie_ats::{PageRequest, Pasid, PrgResponse, Prgi, ResponseCode};
use proptest::prelude::*;
use std::collections::BTreeMap;
use vtd::spec::SourceId;
use vtd::spec::descriptor::PasidScope;

/// A device with PASID 5 and requests without PASID, bound.
fn bench() -> (Bench, PageRequests) {
    let mut b = Bench::new();
    b.tables.set(SID, 0, space(1, 0xa000));
    b.tables.set(SID, 5, space(1, 0xb000));
    b.pasid_cache(PasidScope::Global);
    b.host.calls.clear();
    (b, PageRequests::new())
}

fn take(b: &mut Bench, requests: &mut PageRequests) -> Delivery {
    requests.take(&mut b.host, &b.bindings, b.queue).unwrap()
}

fn response(request: &PageRequest, code: ResponseCode) -> PrgResponse {
    PrgResponse {
        prgi: request.prgi,
        pasid: request.pasid,
        code,
    }
}

#[test]
pub(crate) fn groups_reach_the_guest_as_a_whole() {
    let (mut b, mut requests) = bench();
    let device = b.device();
    let five = Some(pasid(5));
    let group = [(0x1234, false), (0x5000, true), (0x6000, false)];
    b.host.page_request(device, five, 0, &group).unwrap();
    b.host
        .page_request(device, None, 7, &[(0x9000, true)])
        .unwrap();
    let delivery = take(&mut b, &mut requests);
    assert_eq!(delivery.responses, []);
    let told: Vec<_> = delivery
        .requests
        .iter()
        .map(|(of, r)| (*of, r.pasid, r.address, r.read, r.write, r.last))
        .collect();
    let expected = [
        (SID, five, 0x1000, true, false, false),
        (SID, five, 0x5000, false, true, false),
        (SID, five, 0x6000, true, false, true),
        (SID, None, 0x9000, false, true, true),
    ];
    assert_eq!(told, expected);
    // An index for each group.
    let prgi: Vec<_> = delivery.requests.iter().map(|(_, r)| r.prgi).collect();
    assert!(prgi[0] == prgi[1] && prgi[1] == prgi[2] && prgi[2] != prgi[3]);
    // And that of the device is known.
    let of_device = prgi.iter().map(|prgi| requests.index_of_device(SID, *prgi));
    assert_eq!(of_device.collect::<Vec<_>>(), [0, 0, 0, 7].map(Some));
    assert_eq!(requests.outstanding(), 2);
    // Nothing waits any more.
    assert_eq!(take(&mut b, &mut requests), Delivery::default());
}

#[test]
pub(crate) fn responses_find_their_group_by_its_cookie() {
    let (mut b, mut requests) = bench();
    let (device, five) = (b.device(), Some(pasid(5)));
    let codes = [
        (ResponseCode::Success, FaultCode::Success),
        (ResponseCode::InvalidRequest, FaultCode::Invalid),
        // The host knows no other failure.
        (ResponseCode::ResponseFailure, FaultCode::Invalid),
    ];
    let cookies = codes.map(|_| {
        b.host
            .page_request(device, five, 3, &[(0x1000, false)])
            .unwrap()
    });
    let delivery = take(&mut b, &mut requests);
    // In another order than they came.
    for n in [2, 0, 1] {
        let (of, request) = delivery.requests[n];
        let mut guest = response(&request, codes[n].0);
        // One of another address space is for no group.
        guest.pasid = Some(pasid(6));
        assert_eq!(requests.respond(of, &guest), None);
        guest.pasid = five;
        let back = requests.respond(of, &guest).unwrap();
        assert_eq!(answer(&mut b.host, &[back]), 1);
        assert_eq!(
            b.host.calls.pop(),
            Some(Call::Respond(cookies[n], codes[n].1))
        );
        assert_eq!(requests.respond(of, &guest), None, "once");
    }
    assert_eq!(requests.outstanding(), 0);
}

#[test]
pub(crate) fn a_device_without_a_free_index_is_told_to_ask_again() {
    let (mut b, mut requests) = bench();
    let (device, five) = (b.device(), Some(pasid(5)));
    let mut cookies = Vec::new();
    for n in 0..514 {
        let cookie = b.host.page_request(device, five, n, &[(0x1000, false)]);
        cookies.push(cookie.unwrap());
    }
    let delivery = take(&mut b, &mut requests);
    assert_eq!(delivery.requests.len(), 512);
    let back: Vec<_> = delivery.responses.iter().map(|r| r.response).collect();
    let told: Vec<_> = back.iter().map(|r| (r.cookie, r.code)).collect();
    let success = FaultCode::Success;
    assert_eq!(told, [(cookies[512], success), (cookies[513], success)]);
    assert_eq!(answer(&mut b.host, &delivery.responses), 2);
    // With one answered, there is one.
    let (of, request) = delivery.requests[100];
    let guest = response(&request, ResponseCode::Success);
    requests.respond(of, &guest).unwrap();
    b.host
        .page_request(device, five, 0, &[(0x2000, false)])
        .unwrap();
    let delivery = take(&mut b, &mut requests);
    assert_eq!(delivery.requests[0].1.prgi, request.prgi);
}

#[test]
pub(crate) fn groups_of_an_address_space_that_is_gone_are_invalid() {
    let (mut b, mut requests) = bench();
    let (device, five) = (b.device(), Some(pasid(5)));
    let cookie = b
        .host
        .page_request(device, five, 1, &[(0x1000, false)])
        .unwrap();
    let other = b
        .host
        .page_request(device, None, 2, &[(0x1000, false)])
        .unwrap();
    let delivery = take(&mut b, &mut requests);
    b.tables.clear(SID, 5);
    let changes = b.pasid_cache(PasidScope::Global);
    // The host answers by itself.
    assert_eq!(b.host.answered, [cookie]);
    assert_eq!(requests.unbound(&changes.unbound), 1);
    assert_eq!(requests.outstanding(), 1);
    // The guest's late response goes nowhere, and not to a new group either.
    let (of, late) = delivery.requests[0];
    b.tables.set(SID, 5, space(1, 0xb000));
    b.pasid_cache(PasidScope::Global);
    for n in 0..600 {
        b.host
            .page_request(device, five, n, &[(0x1000, false)])
            .unwrap();
    }
    let new = take(&mut b, &mut requests);
    let is_used = new.requests.iter().any(|(_, r)| r.prgi == late.prgi);
    assert!(
        !is_used,
        "the index is not used before the response has come"
    );
    assert_eq!(
        requests.respond(of, &response(&late, ResponseCode::Success)),
        None
    );
    b.host
        .page_request(device, five, 0, &[(0x1000, false)])
        .unwrap();
    let new = take(&mut b, &mut requests);
    assert_eq!(new.requests[0].1.prgi, late.prgi, "now it is free");
    // The other address space's group is answered as ever.
    let (of, request) = delivery.requests[1];
    let guest = response(&request, ResponseCode::Success);
    let back = requests.respond(of, &guest).unwrap();
    assert_eq!(back.response.cookie, other);
}

#[test]
pub(crate) fn a_response_that_the_host_refuses_keeps_none_back() {
    let (mut b, mut requests) = bench();
    let (device, five) = (b.device(), Some(pasid(5)));
    for n in 0..3 {
        b.host
            .page_request(device, five, n, &[(0x1000, false)])
            .unwrap();
    }
    let delivery = take(&mut b, &mut requests);
    let mut all = Vec::new();
    for (of, request) in &delivery.requests {
        let guest = response(request, ResponseCode::Success);
        all.extend(requests.respond(*of, &guest));
    }
    // The host has answered the first one itself, and nobody has told yet.
    b.host.respond(b.queue, &[all[0].response]).unwrap();
    b.host.calls.clear();
    assert_eq!(answer(&mut b.host, &all), 2);
    assert_eq!(b.host.calls.len(), 2);
}

#[test]
fn a_device_that_is_gone_and_a_unit_that_was_reset_answer_invalid() {
    let (mut b, mut requests) = bench();
    let (device, five) = (b.device(), Some(pasid(5)));
    let first = b
        .host
        .page_request(device, five, 1, &[(0x1000, false)])
        .unwrap();
    take(&mut b, &mut requests);
    let back = requests.reset();
    assert_eq!(back.len(), 1);
    let got = (back[0].response.cookie, back[0].response.code);
    assert_eq!(got, (first, FaultCode::Invalid));
    assert_eq!(requests.outstanding(), 0);
    // One that is read when its device is not assigned any more.
    let second = b
        .host
        .page_request(device, five, 1, &[(0x1000, false)])
        .unwrap();
    let faults = b.host.read_faults(b.queue).unwrap();
    b.bindings.unassign(&mut b.host, SID).unwrap();
    let of = |device| b.bindings.requester_of(b.queue.iommufd, device);
    let delivery = requests.deliver(of, b.queue, &faults);
    assert_eq!(delivery.requests, []);
    assert_eq!(delivery.responses[0].response.cookie, second);
    assert_eq!(delivery.responses[0].response.code, FaultCode::Invalid);
}

/// What happens to page requests.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A device asks: PASID, pages.
    Ask(bool, u8),
    /// The guest answers the nth group that it knows.
    Answer(usize, bool),
    /// An address space goes and comes back.
    Unbind(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (any::<bool>(), 1u8..5).prop_map(|(pasid, pages)| Event::Ask(pasid, pages)),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(n, ok)| Event::Answer(n, ok)),
        1 => any::<bool>().prop_map(Event::Unbind),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every group is answered once, by the guest with its code or by the host when its address
    /// space goes; never both, never another one. The model is a map of what the guest knows.
    #[test]
    fn every_group_is_answered_once(events in proptest::collection::vec(event(), 1..60)) {
        let (mut b, mut requests) = bench();
        let device = b.device();
        // What the guest has to answer: index, PASID, and the cookie while the host waits.
        let mut guest: Vec<(SourceId, Prgi, Option<Pasid>, Option<u32>)> = Vec::new();
        let mut asked = 0;
        let mut by_guest: BTreeMap<u32, FaultCode> = BTreeMap::new();
        let mut by_host = 0;
        for event in events {
            match event {
                Event::Ask(with, pages) => {
                    let of = with.then(|| pasid(5));
                    let pages: Vec<_> = (0..u64::from(pages)).map(|n| (n << 12, n % 2 == 0)).collect();
                    let cookie = b.host.page_request(device, of, 1, &pages).unwrap();
                    asked += 1;
                    let delivery = take(&mut b, &mut requests);
                    prop_assert_eq!(delivery.requests.len(), pages.len());
                    let prgi = delivery.requests[0].1.prgi;
                    prop_assert!(guest.iter().all(|group| group.1 != prgi), "in use");
                    guest.push((SID, prgi, of, Some(cookie)));
                }
                Event::Answer(n, ok) if !guest.is_empty() => {
                    let (of, prgi, pasid, cookie) = guest.remove(n % guest.len());
                    let code = match ok {
                        true => ResponseCode::Success,
                        false => ResponseCode::InvalidRequest,
                    };
                    let back = requests.respond(of, &PrgResponse { prgi, pasid, code });
                    prop_assert_eq!(back.map(|b| b.response.cookie), cookie);
                    if let Some(back) = back {
                        prop_assert_eq!(answer(&mut b.host, &[back]), 1);
                        let before = by_guest.insert(back.response.cookie, back.response.code);
                        prop_assert_eq!(before, None);
                    }
                }
                Event::Answer(..) => {}
                Event::Unbind(with) => {
                    let of = with.then(|| pasid(5));
                    let number = if with { 5 } else { 0 };
                    let was = b.tables.entries[&(SID, number)];
                    b.tables.clear(SID, number);
                    let changes = b.pasid_cache(PasidScope::Global);
                    let mut gone = 0;
                    for group in guest.iter_mut().filter(|group| group.2 == of) {
                        gone += usize::from(group.3.take().is_some());
                    }
                    prop_assert_eq!(requests.unbound(&changes.unbound), gone);
                    by_host += gone;
                    prop_assert_eq!(b.host.answered.len(), by_host);
                    b.tables.set(SID, number, was);
                    b.pasid_cache(PasidScope::Global);
                }
            }
            let waiting = guest.iter().filter(|group| group.3.is_some()).count();
            prop_assert_eq!(requests.outstanding(), waiting);
            prop_assert_eq!(by_guest.len() + by_host + waiting, asked);
        }
    }
}
