// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bindings under any sequence of changes, invalidations and failures of the host, against a naive
//! model: a map of what was read last.

use crate::bench::*;
use host_iommu::host::{Errno, Operation};
use host_iommu::tables::{GuestTables, Mode};
use pcie_ats::Pasid;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vtd::spec::descriptor::{ContextScope, PasidScope};
use vtd::spec::{DomainId, SourceId};
use vtd::{AddressSpace, AddressTranslation};

const OTHER: SourceId = SourceId(0x0109);
const DEVICES: [SourceId; 2] = [SID, OTHER];

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A table entry: device, number, domain, table; no table is none.
    Set(bool, u32, u16, u64),
    Rid(bool, u32),
    Pasids(PasidScope),
    Contexts(ContextScope),
    Mode(Mode),
    Reset,
    Replug(bool),
    Fail(Operation),
}

fn event() -> impl Strategy<Value = Event> {
    let scope = prop_oneof![
        Just(PasidScope::Global),
        (1u16..3).prop_map(|did| PasidScope::Domain(DomainId(did))),
        (1u16..3, 0u32..5).prop_map(|(did, n)| PasidScope::Pasid(DomainId(did), pasid(n))),
    ];
    let contexts = prop_oneof![
        Just(ContextScope::Global),
        (any::<bool>(), any::<bool>()).prop_map(|(other, both)| ContextScope::Device {
            did: DomainId(0),
            sid: if other { OTHER } else { SID },
            mask: if both { !1 } else { !0 },
        }),
    ];
    let mode = prop_oneof![
        4 => Just(Mode::Scalable),
        1 => Just(Mode::Off),
        1 => Just(Mode::Legacy),
        1 => Just(Mode::Blocked),
    ];
    let operation = prop_oneof![
        Just(Operation::AllocNested),
        Just(Operation::Attach),
        Just(Operation::Replace),
        Just(Operation::FreeHwpt),
    ];
    prop_oneof![
        8 => (any::<bool>(), 0u32..5, 1u16..3, 0u64..5).prop_map(|(d, n, did, t)| Event::Set(d, n, did, t)),
        1 => (any::<bool>(), 0u32..3).prop_map(|(d, n)| Event::Rid(d, n)),
        8 => scope.prop_map(Event::Pasids),
        2 => contexts.prop_map(Event::Contexts),
        1 => mode.prop_map(Event::Mode),
        1 => Just(Event::Reset),
        1 => any::<bool>().prop_map(Event::Replug),
        2 => operation.prop_map(Event::Fail),
    ]
}

fn of(other: bool) -> SourceId {
    DEVICES[usize::from(other)]
}

/// What was read of an address space, and by which entry.
type Read = BTreeMap<(SourceId, Option<Pasid>), (AddressSpace, u32)>;

/// What the tables say now of every address space that there can be.
fn current(tables: &Tables) -> Read {
    let mut all = Read::new();
    for of in DEVICES {
        let rid = tables.rid_pasid(of).unwrap();
        let keys = (1..5).map(|n| Some(pasid(n))).chain([None]);
        for key in keys {
            if let Some(space) = tables.address_space(of, key) {
                all.insert((of, key), (space, key.unwrap_or(rid).get()));
            }
        }
    }
    all
}

fn selects(scope: PasidScope, (space, number): (AddressSpace, u32)) -> bool {
    match scope {
        PasidScope::Global => true,
        PasidScope::Domain(did) => did == space.domain,
        PasidScope::Pasid(did, of) => did == space.domain && of.get() == number,
    }
}

/// Reads again what a scope selects of what was read, and then of what is there.
fn read(model: &mut Read, tables: &Tables, scope: PasidScope, of: impl Fn(SourceId) -> bool) {
    let now = current(tables);
    let was = model.clone();
    for (key, read) in was
        .iter()
        .filter(|(key, read)| of(key.0) && selects(scope, **read))
    {
        model.remove(key);
        if let Some(read) = now.get(key) {
            model.insert(*key, *read);
        }
        let _ = read;
    }
    for (key, read) in now
        .iter()
        .filter(|(key, read)| of(key.0) && selects(scope, **read))
    {
        model.entry(*key).or_insert(*read);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_attached_is_what_was_read(events in proptest::collection::vec(event(), 1..60)) {
        let mut b = Bench::new();
        b.assign(OTHER);
        let mut model = Read::new();
        // Address spaces for which the host has failed: they have nothing until they are read
        // again.
        let mut failed: BTreeSet<(SourceId, Option<Pasid>)> = BTreeSet::new();
        for event in events {
            let mut changes = None;
            match event {
                Event::Set(d, number, domain, table) => {
                    let translation = match table {
                        0 => None,
                        4 => Some(AddressTranslation::PassThrough),
                        table => Some(AddressTranslation::FirstStage(first_stage(table << 12))),
                    };
                    match translation {
                        Some(translation) => b.tables.set(of(d), number, with(domain, translation)),
                        None => b.tables.clear(of(d), number),
                    }
                }
                Event::Rid(d, number) => {
                    // Software invalidates the context entry when it changes it.
                    b.tables.rid_pasid.insert(of(d), number);
                    let scope = ContextScope::Global;
                    let (host, tables) = (&mut b.host, &b.tables);
                    changes = Some(b.bindings.context_cache_invalidated(host, tables, scope));
                    if b.tables.mode == Mode::Scalable {
                        read(&mut model, &b.tables, PasidScope::Global, |_| true);
                    }
                }
                Event::Pasids(scope) => {
                    changes = Some(b.pasid_cache(scope));
                    if b.tables.mode == Mode::Scalable {
                        read(&mut model, &b.tables, scope, |_| true);
                    }
                }
                Event::Contexts(scope) => {
                    let (host, tables) = (&mut b.host, &b.tables);
                    changes = Some(b.bindings.context_cache_invalidated(host, tables, scope));
                    if b.tables.mode == Mode::Scalable {
                        read(&mut model, &b.tables, PasidScope::Global, |of| match scope {
                            ContextScope::Device { sid, mask, .. } => of.0 & mask == sid.0 & mask,
                            _ => true,
                        });
                    }
                }
                Event::Mode(mode) => {
                    b.tables.mode = mode;
                    changes = Some(b.remapping_changed());
                    model.clear();
                    if mode == Mode::Scalable {
                        model = current(&b.tables);
                    }
                }
                Event::Reset => {
                    b.host.heal();
                    let reset = b.bindings.reset(&mut b.host);
                    prop_assert!(reset.is_complete());
                    b.tables.mode = Mode::Off;
                    model.clear();
                    failed.clear();
                }
                Event::Replug(d) => {
                    b.host.heal();
                    let assigned = *b.bindings.device(of(d)).unwrap();
                    let gone = b.bindings.unassign(&mut b.host, of(d)).unwrap();
                    prop_assert!(gone.is_complete());
                    let (host, tables) = (&mut b.host, &b.tables);
                    changes = Some(b.bindings.assign(host, tables, assigned).unwrap());
                    model.retain(|key, _| key.0 != of(d));
                    if b.tables.mode == Mode::Scalable {
                        let now = current(&b.tables).into_iter();
                        model.extend(now.filter(|(key, _)| key.0 == of(d)));
                    }
                }
                Event::Fail(operation) => b.host.fail(operation, 0, Errno::NoMemory),
            }
            if let Some(changes) = changes {
                if changes.is_complete() && matches!(event, Event::Mode(_)) {
                    failed.clear();
                }
                for failure in &changes.failures {
                    let host_iommu::bindings::BindError::Host { of, .. } = failure else {
                        return Err(TestCaseError::fail(format!("{failure:?}")));
                    };
                    failed.insert(*of);
                }
            }
            // The host has exactly what was read, but for failures; there it has nothing, or, when
            // it has been read again since, what was read.
            let mut page_tables = BTreeSet::new();
            for of in DEVICES {
                let keys = (1..5).map(|n| Some(pasid(n))).chain([None]);
                for key in keys {
                    let expected = match (b.tables.mode, model.get(&(of, key))) {
                        (Mode::Scalable, Some((space, _))) => match space.translation {
                            AddressTranslation::FirstStage(table) => table.table,
                            _ => 1,
                        },
                        (Mode::Off | Mode::Legacy, _) if key.is_none() => 1,
                        _ => 0,
                    };
                    let got = b.table(of, key.map(Pasid::get));
                    if got == expected {
                        failed.remove(&(of, key));
                    } else {
                        prop_assert!(failed.contains(&(of, key)), "{of} {key:?}: {got:#x}, {expected:#x}");
                        prop_assert_eq!(got, 0, "{} {:?}", of, key);
                        // It counts as not bound.
                        model.remove(&(of, key));
                    }
                    if got > 1 {
                        page_tables.insert(got);
                    }
                }
            }
            // One nested page table for each first stage that is in use, the parent, and what the
            // host did not free.
            let unused = b.bindings.unused_page_tables();
            prop_assert_eq!(b.host.page_tables(), page_tables.len() + 1 + unused);
        }
    }
}
