// SPDX-License-Identifier: MIT OR Apache-2.0
//! Copies in a row through the root port: each is checked as if it were alone.

use crate::end_to_end::pattern;
use machine::os::{App, CONTEXT_GLOBAL};
use machine::{Machine, Moment};
use pcie_ats::{CopyError, MemoryCopy, MemoryError, MemoryRequest, RootPort};
use std::cell::Cell;
use std::sync::{Arc, Mutex};
use vtd::memory::Memory;
use vtd::spec::register::offset;

#[test]
fn copies_in_a_row_end_before_the_first_that_fails_or_is_not_permitted() {
    let app = App::quick();
    let [from, to] = [0; 2].map(|_| app.os().frames().allocate());
    let port = app.machine().port(0);
    let end = app.machine().ram().bytes();
    let good = |page: u64| MemoryCopy {
        source: MemoryRequest::translated(from + page * 0x100),
        destination: MemoryRequest::translated(to + page * 0x100),
        length: 0x100,
    };
    let data = pattern(0x1000, 4);
    let copied = |copies: &[MemoryCopy], permitted: &dyn Fn() -> bool| {
        app.machine().ram().write(from, &data).unwrap();
        app.machine().ram().fill(to, 0x1000, 0).unwrap();
        let (done, error) = port.copy_all(copies, &mut [0; 0x100], permitted);
        let mut found = vec![0; 0x1000];
        app.machine().ram().read(to, &mut found).unwrap();
        assert_eq!(found[..done * 0x100], data[..done * 0x100]);
        assert!(found[done * 0x100..].iter().all(|byte| *byte == 0));
        (done, error)
    };
    let four = [0, 1, 2, 3].map(good);
    assert_eq!(copied(&four, &|| true), (4, None));
    assert_eq!(copied(&four, &|| false), (0, None));
    let left = Cell::new(3);
    let some = || left.replace(left.get() - 1) > 0;
    assert_eq!(copied(&four, &some), (3, None));
    let changed = |change: fn(&mut MemoryCopy, u64)| {
        let mut copies = four;
        change(&mut copies[2], end);
        copied(&copies, &|| true)
    };
    let refused = MemoryError::Refused { address: end };
    let error = Some(CopyError::Read(refused));
    assert_eq!(changed(|copy, end| copy.source.address = end), (2, error));
    let error = Some(CopyError::Write(refused));
    let bad = changed(|copy, end| copy.destination.address = end);
    assert_eq!(bad, (2, error));
    let apart = changed(|copy, _| copy.source = MemoryRequest::untranslated(0, None));
    assert_eq!(apart, (2, Some(CopyError::Apart)));
}

#[test]
fn what_changes_during_copies_in_a_row_holds_for_the_next_copy() {
    let app = App::quick();
    let (machine, os) = (app.machine(), app.os());
    let ram = machine.ram();
    let [from, to] = [0; 2].map(|_| os.frames().allocate());
    let copies = [0u64, 1, 2, 3].map(|n| MemoryCopy {
        source: MemoryRequest::translated(from + n * 0x100),
        destination: MemoryRequest::translated(to + n * 0x100),
        length: 0x100,
    });
    // What happens before the third one.
    let copied = |change: &dyn Fn()| {
        ram.fill(from, 0x400, 7).unwrap();
        ram.fill(to, 0x400, 0).unwrap();
        let asked = Cell::new(0);
        let permitted = || {
            asked.set(asked.get() + 1);
            if asked.get() == 3 {
                change();
            }
            true
        };
        let port = machine.port(app.driver().function());
        let (done, error) = port.copy_all(&copies, &mut [0; 0x100], &permitted);
        let mut found = [0; 0x400];
        ram.read(to, &mut found).unwrap();
        assert!(found[..done * 0x100].iter().all(|byte| *byte == 7));
        assert!(found[done * 0x100..].iter().all(|byte| *byte == 0));
        (done, error)
    };
    assert_eq!(copied(&|| ()), (4, None));
    // An experiment sees the accesses from then on.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let watch = || {
        let seen = Arc::clone(&seen);
        let hook = move |_: &Machine, moment: &Moment| seen.lock().unwrap().push(*moment);
        machine.set_hook(app.driver().function(), Some(Box::new(hook)));
    };
    assert_eq!(copied(&watch), (4, None));
    machine.set_hook(app.driver().function(), None);
    let accesses = copies[2..]
        .iter()
        .flat_map(|copy| [copy.source, copy.destination]);
    let accesses: Vec<_> = accesses.map(Moment::Access).collect();
    assert_eq!(*seen.lock().unwrap(), accesses);
    // The unit refuses them from then on.
    let root = machine.unit_read(0, offset::RTADDR, 8) & !0xfff;
    let devfn = machine.requester(app.driver().function()).devfn();
    let place = (ram.load(root).unwrap() & !0xfff) + u64::from(devfn) * 32;
    let refuse = || {
        ram.store(place, ram.load(place).unwrap() & !(1 << 2))
            .unwrap();
        os.invalidate(0, &[CONTEXT_GLOBAL]).unwrap();
    };
    let address = copies[2].source.address;
    let error = CopyError::Read(MemoryError::Refused { address });
    assert_eq!(copied(&refuse), (2, Some(error)));
}
