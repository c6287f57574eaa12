// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the unit offers to a host that hands address spaces down to an IOMMU below: descriptions of
//! address spaces, PASIDs that are present, the hint of invalidations, invalidations that fail,
//! page requests that are given up, and a configuration that the unit below can carry.

use crate::bench::*;
use pcie_ats::{PageRequest, PasidWidth, Prgi, ResponseCode};
use vtd::config::{FirstStage, Stages};
use vtd::spec::context::ScalableContextEntry;
use vtd::spec::fault::FaultReason;
use vtd::spec::invalidation::PasidIotlbInvalidate;
use vtd::spec::pasid::PasidEntry;
use vtd::spec::register::{fsts, global, offset};
use vtd::spec::{DomainId, SourceId};
use vtd::{
    AddressSpace, AddressTranslation, Capabilities, Config, Effect, Effects, FirstStageTable,
    Invalidated,
};

fn first(table: u64) -> FirstStageTable {
    FirstStageTable {
        table,
        levels: 4,
        supervisor_requests: false,
        write_protect: false,
        extended_accessed: false,
    }
}

#[test]
pub(crate) fn an_address_space_is_described_as_its_entries_have_it() {
    let mut b = Bench::new();
    let describe = |b: &Bench, pasid: Option<u32>| {
        let pasid = pasid.map(pasid_of);
        b.unit.address_space(&b.ram, SID, pasid)
    };
    assert_eq!(
        describe(&b, None),
        Err(FaultReason::ScalableRootEntryNotPresent)
    );
    let flags = PasidEntry(first_stage(0x9000, 3))
        .with_fspm(1)
        .with_wpe(true)
        .with_sre(true)
        .with_eafe(true);
    b.pasid(SID, 0, pass_through(2));
    b.pasid(SID, 5, flags.0);
    b.pasid(SID, 6, second_stage(0xa000, 4));
    b.pasid(SID, 7, nested(0x9000, 0xa000, 5));
    let space = |domain, translation| {
        Ok(AddressSpace {
            domain: DomainId(domain),
            translation,
        })
    };
    let all = FirstStageTable {
        table: 0x9000,
        levels: 5,
        supervisor_requests: true,
        write_protect: true,
        extended_accessed: true,
    };
    assert_eq!(
        describe(&b, None),
        space(2, AddressTranslation::PassThrough)
    );
    assert_eq!(
        describe(&b, Some(5)),
        space(3, AddressTranslation::FirstStage(all))
    );
    assert_eq!(
        describe(&b, Some(6)),
        space(4, AddressTranslation::SecondStage)
    );
    assert_eq!(
        describe(&b, Some(7)),
        space(5, AddressTranslation::Nested(first(0x9000)))
    );
    assert_eq!(
        describe(&b, Some(8)),
        Err(FaultReason::PasidEntryNotPresent)
    );
    // RID_PASID is no PASID of requests.
    assert_eq!(describe(&b, Some(0)), Err(FaultReason::PasidIsRidPasid));
    assert_eq!(b.unit.rid_pasid(&b.ram, SID), Some(pasid_of(0)));
    assert_eq!(b.unit.rid_pasid(&b.ram, SourceId(0x0900)), None);
    let at = b.context_at(SID);
    b.ram.set(at + 8, 6);
    assert_eq!(b.unit.rid_pasid(&b.ram, SID), Some(pasid_of(6)));
    assert_eq!(
        describe(&b, None),
        space(4, AddressTranslation::SecondStage)
    );
    b.ram.set(at + 8, 0);
    // Without PASIDE, requests with PASID are blocked.
    let at = b.context_at(SID);
    let entry = ScalableContextEntry([b.ram.get(at), 0, 0, 0]);
    b.ram.set(at, entry.with_paside(false).0[0]);
    assert_eq!(describe(&b, Some(5)), Err(FaultReason::PasidDisabled));
    assert_eq!(b.unit.pasids(&b.ram, SID, 0, 1 << 20, 1 << 20).pasids, []);
    // Nothing was recorded, and nothing cached.
    assert_eq!(b.codes(), []);
}

#[test]
fn a_function_of_legacy_mode_has_one_address_space() {
    let mut b = Bench::legacy(|_| {});
    b.legacy_context(SID, legacy_entry(2, 0).with_did(DomainId(7)).0);
    let got = b.unit.address_space(&b.ram, SID, None);
    let translation = AddressTranslation::PassThrough;
    let domain = DomainId(7);
    assert_eq!(
        got,
        Ok(AddressSpace {
            domain,
            translation
        })
    );
    assert!(
        b.unit
            .address_space(&b.ram, SID, Some(pasid_of(1)))
            .is_err()
    );
    assert_eq!(b.unit.pasids(&b.ram, SID, 0, 64, 64).pasids, []);
}

#[test]
fn present_pasids_are_found_in_parts() {
    let mut b = Bench::new();
    for pasid in [0, 1, 63, 64, 700, 8191, 16383] {
        b.pasid(SID, pasid, first_stage(0x9000, 1));
    }
    b.pasid(SID, 65, [0; 8]);
    let all = [1, 63, 64, 700, 8191, 16383].map(pasid_of);
    let found = b.unit.pasids(&b.ram, SID, 0, 1 << 20, 1 << 20);
    assert_eq!((found.pasids.as_slice(), found.next), (&all[..], None));
    // A limit, and a start in the middle of a table.
    let found = b.unit.pasids(&b.ram, SID, 2, 701, 1 << 20);
    assert_eq!((found.pasids.as_slice(), found.next), (&all[1..4], None));
    // In parts: a bound on reads, and the same in the end.
    let (mut at, mut parts, mut pasids) = (Some(0), 0, Vec::new());
    while let Some(first) = at {
        let reads = b.ram.reads.get();
        let mut part = b.unit.pasids(&b.ram, SID, first, 1 << 20, 65);
        // Four reads of 16 bytes an entry, and those of root and context.
        assert!(b.ram.reads.get() - reads <= 4 * 65 + 4);
        pasids.append(&mut part.pasids);
        (at, parts) = (part.next, parts + 1);
    }
    assert_eq!(pasids, all);
    assert!(parts > 4, "{parts}");
    // A directory that cannot be read has none; so has a function without entries.
    let directory = b.context(SID);
    b.ram.holes.borrow_mut().push(directory);
    assert_eq!(b.unit.pasids(&b.ram, SID, 0, 1 << 20, 1 << 20).pasids, []);
    let other = SourceId(0x0900);
    assert_eq!(b.unit.pasids(&b.ram, other, 0, 1 << 20, 1 << 20).next, None);
}

#[test]
pub(crate) fn the_hint_of_an_invalidation_is_told() {
    let mut b = Bench::new();
    let mut hints = |words: [u64; 2]| {
        b.fx.clear();
        b.submit(&[words]);
        let hint = |e: &Effect| match e {
            Effect::Invalidated(Invalidated::Iotlb { leaf_only, .. }) => Some(*leaf_only),
            _ => None,
        };
        b.fx.iter().find_map(hint)
    };
    let with_hint = |words| PasidIotlbInvalidate(words).with_ih(true).0;
    assert_eq!(hints(pasid_pages(1, 5, 0x4000, 2)), Some(false));
    assert_eq!(hints(with_hint(pasid_pages(1, 5, 0x4000, 2))), Some(true));
    // It means something for pages only.
    assert_eq!(hints(with_hint(pasid_all(1, 5))), Some(false));
    assert_eq!(hints(IOTLB_GLOBAL), Some(false));
}

#[test]
pub(crate) fn an_invalidation_that_fails_stops_the_queue_there() {
    let mut b = Bench::scalable(|c| c.confirm_invalidations = true);
    b.ram.set(STATUS, 0);
    let descriptors = [pasid_entry(1, 4), pasid_entry(1, 5), wait(STATUS, 7)];
    for (n, words) in descriptors.iter().enumerate() {
        b.store(QUEUE + n as u64 * 32, words);
        b.store(QUEUE + n as u64 * 32 + 16, &[0, 0]);
    }
    b.write(offset::IQT, 96);
    // A round for each of them: the first is carried out, the second fails.
    let mut round = |fails: bool| {
        let mut fx = Effects::new();
        let turn = b.unit.process_queue(&b.ram, b.now, &mut fx);
        let told = std::mem::take(&mut fx);
        let failed = fails && b.unit.invalidation_failed(&turn, &mut fx);
        assert_eq!(failed, fails);
        drop(turn);
        (told, fx)
    };
    let (told, _) = round(false);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[1], Effect::QueueReady);
    let (_, fx) = round(true);
    assert!(
        matches!(fx[0], Effect::Refused(r) if r.to_string().contains("could not carry out")),
        "{fx:?}"
    );
    let state = (b.read(offset::IQH), b.read32(offset::FSTS) & fsts::IQE);
    assert_eq!((state, b.read(offset::IQERCD) & 15), ((32, fsts::IQE), 0));
    assert_eq!(b.ram.get(STATUS), 0, "the wait behind it has not completed");
    // Software replaces the descriptor and goes on.
    b.store(QUEUE + 32, &wait(STATUS, 3));
    b.fx.clear();
    b.write32(offset::FSTS, fsts::IQE);
    b.run();
    assert_eq!((b.ram.get(STATUS), b.read(offset::IQH)), (7, 96));
    // Nothing fails that was not in this round, nor in a unit whose host does not say so.
    let turn = b.unit.process_queue(&b.ram, b.now, &mut b.fx);
    assert!(!b.unit.invalidation_failed(&turn, &mut b.fx));
    let mut b = Bench::new();
    b.submit(&[pasid_entry(1, 4)]);
    let turn = b.unit.process_queue(&b.ram, b.now, &mut b.fx);
    assert!(!b.unit.invalidation_failed(&turn, &mut b.fx));
}

fn page_request(pasid: Option<u32>, prgi: u16) -> PageRequest {
    PageRequest {
        address: 0x1000,
        pasid: pasid.map(pasid_of),
        read: true,
        write: false,
        execute: false,
        privileged: false,
        prgi: Prgi::new(prgi).unwrap(),
        last: true,
    }
}

#[test]
pub(crate) fn page_requests_that_are_given_up_are_invalid() {
    let mut b = Bench::new();
    for pasid in [0, 5, 6] {
        b.pasid(SID, pasid, first_stage(0x9000, 1));
    }
    for (pasid, prgi) in [(None, 1), (Some(5), 2), (Some(5), 511), (Some(6), 4)] {
        let request = page_request(pasid, prgi);
        b.unit.page_request(&b.ram, SID, &request, &mut b.fx);
    }
    b.fx.clear();
    let mut abandon = |requester, pasid: Option<Option<u32>>| {
        let mut fx = Effects::new();
        let pasid = pasid.map(|pasid| pasid.map(pasid_of));
        b.unit.abandon_page_requests(requester, pasid, &mut fx);
        let prgi = |e: &Effect| match e {
            Effect::PrgResponse { response, .. } => {
                assert_eq!(response.code, ResponseCode::InvalidRequest);
                response.prgi.get()
            }
            other => panic!("{other:?}"),
        };
        fx.iter().map(prgi).collect::<Vec<_>>()
    };
    assert_eq!(abandon(SourceId(0x0200), None), []);
    assert_eq!(abandon(SID, Some(Some(5))), [2, 511]);
    assert_eq!(abandon(SID, Some(None)), [1]);
    assert_eq!(abandon(SID, None), [4]);
    assert_eq!(abandon(SID, None), []);
    // What software answers late is not expected any more.
    b.submit(&[response(Some(5), 2, 0)]);
    assert_eq!(b.unit.counters().unexpected_responses, 1);
}

#[test]
pub(crate) fn a_page_request_before_the_invalidation_of_its_pasid_is_no_fault() {
    let mut b = Bench::new();
    for pasid in [5, 6] {
        b.pasid(SID, pasid, first_stage(0x9000, 1));
    }
    b.unit.hold_address_space(&b.ram, SID, Some(pasid_of(5)));
    // There is no such entry, and nothing is recorded.
    b.unit.hold_address_space(&b.ram, SID, Some(pasid_of(7)));
    b.unit.hold_address_space(&b.ram, SourceId(0x0900), None);
    assert!(!b.fx.iter().any(|e| matches!(e, Effect::Interrupt(_))));
    // Software takes two address spaces away, and the requests were under way.
    for pasid in [5, 6] {
        b.pasid(SID, pasid, [0; 8]);
    }
    let refused = |b: &mut Bench, pasid| {
        let before = b.unit.counters().page_requests_refused;
        let request = page_request(Some(pasid), 1);
        b.unit.page_request(&b.ram, SID, &request, &mut b.fx);
        b.unit.counters().page_requests_refused > before
    };
    assert!(!refused(&mut b, 5), "its entry is in use");
    assert!(refused(&mut b, 6), "nobody uses its entry");
    assert!(b.submit_and_wait(&[pasid_entry(1, 5)]));
    assert!(refused(&mut b, 5), "its entry was invalidated");
}

#[test]
pub(crate) fn a_unit_above_another_reports_what_that_can_carry() {
    let below = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        let caps = Capabilities::new(config).unwrap();
        let limited = Config::default().limited_by(caps.cap(), caps.ecap());
        Capabilities::new(limited).unwrap()
    };
    let with_first = |change: fn(&mut FirstStage)| {
        let mut config = Config::default();
        if let Stages::Both { first, .. } = &mut config.scalable.as_mut().unwrap().stages {
            change(first);
        }
        let caps = Capabilities::new(config).unwrap();
        Capabilities::new(Config::default().limited_by(caps.cap(), caps.ecap())).unwrap()
    };
    // All that the unit below has: the first stage alone is left, with all of its abilities.
    let all = below(|_| {});
    let (cap, ecap) = (all.cap(), all.ecap());
    assert!(ecap.fsts() && !ecap.ssts() && !ecap.nest() && !ecap.ssads() && ecap.smpwcs());
    assert!(cap.fs5lp() && cap.fs1gp() && ecap.eafs() && ecap.srs() && ecap.prs() && ecap.sc());
    assert_eq!((ecap.pasid_width(), all.host_address_width()), (20, 52));
    // One ability at a time is missing below.
    assert!(!with_first(|f| f.five_levels = false).cap().fs5lp());
    assert!(!with_first(|f| f.one_gib_pages = false).cap().fs1gp());
    assert!(!with_first(|f| f.extended_accessed = false).ecap().eafs());
    assert!(
        !below(|c| c.scalable.as_mut().unwrap().supervisor_requests = false)
            .ecap()
            .srs()
    );
    assert!(!below(|c| c.snoop_control = false).ecap().sc());
    assert!(
        !below(|c| c.device_tlbs.as_mut().unwrap().page_requests = false)
            .ecap()
            .prs()
    );
    assert!(!below(|c| c.device_tlbs = None).ecap().prs());
    assert!(
        !below(|c| c.scalable.as_mut().unwrap().pasids = None)
            .ecap()
            .pasid()
    );
    let eight = below(|c| {
        let pasids = c.scalable.as_mut().unwrap().pasids.as_mut().unwrap();
        pasids.width = PasidWidth::new(8).unwrap();
    });
    assert_eq!(eight.ecap().pasid_width(), 8);
    let narrow = below(|c| c.host_address_width = 46);
    assert_eq!(narrow.host_address_width(), 48, "that of MGAW");
    // Without nesting below, nothing is handed down.
    let without = below(|c| {
        if let Stages::Both { nested, .. } = &mut c.scalable.as_mut().unwrap().stages {
            *nested = false;
        }
    });
    assert!(without.ecap().nest() && without.ecap().ssts());
}

#[test]
fn a_reset_keeps_what_the_host_chose() {
    let mut b = Bench::scalable(|c| c.confirm_invalidations = true);
    b.unit.reset(&mut b.fx);
    assert!(b.unit.capabilities().config().confirm_invalidations);
    assert_eq!(b.read32(offset::GSTS) & global::TE, 0);
}
