// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt remapping and posting.

use crate::bench::*;
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;
use vtd::spec::register::{global, offset};
use vtd::{Blocked, Effect, Remapped};

/// An interrupt request in remappable format.
fn remappable(handle: u64, subhandle: Option<u32>) -> Message {
    let shv = u64::from(subhandle.is_some()) << 3;
    Message {
        address: 0xfee0_0010 | shv | (handle & 0x7fff) << 5 | (handle >> 15) << 2,
        data: subhandle.unwrap_or(0),
    }
}

/// A unit with a table of 256 entries, in x2APIC mode unless `eime` is false.
fn unit(eime: bool, posted: bool) -> Bench {
    let mut b = Bench::scalable(|c| c.interrupt_remapping.as_mut().unwrap().posted = posted);
    b.write(offset::IRTA, INTERRUPTS | u64::from(eime) << 11 | 7);
    b.command(global::SIRTP);
    b.command(global::IRE);
    b.fx.clear();
    b
}

impl Bench {
    /// Writes an entry of the interrupt remapping table.
    fn irte(&mut self, index: u64, low: u64, high: u64) {
        self.store(INTERRUPTS + index * 16, &[low, high]);
    }

    fn interrupt(&mut self, request: Message) -> Result<Remapped, u8> {
        let (ram, fx) = (&self.ram, &mut self.fx);
        let got = self.unit.remap_interrupt(ram, Some(SID), request, fx);
        got.map_err(|blocked| match blocked {
            Blocked::Fault(reason) => reason.code(),
            other => panic!("{other}"),
        })
    }
}

/// An entry for vector 0x51 at APIC 0x12345, fixed and edge-triggered.
const FIXED: u64 = 0x1_2345 << 32 | 0x51 << 16 | 1;

#[test]
fn with_remapping_off_interrupts_go_through() {
    let mut b = Bench::new();
    let request = remappable(5, None);
    assert_eq!(b.interrupt(request), Ok(Remapped::Deliver(request)));
}

#[test]
fn an_entry_gives_destination_and_vector() {
    let mut b = unit(true, false);
    b.irte(5, FIXED, 0);
    let delivered = Remapped::Deliver(Message {
        address: 0x0000_0123_u64 << 40 | 0xfee0_0000 | 0x45 << 12,
        data: 0x4051,
    });
    assert_eq!(b.interrupt(remappable(5, None)), Ok(delivered));
    assert_eq!(b.interrupt(remappable(3, Some(2))), Ok(delivered));
    // xAPIC mode uses 8 bits of the destination, at another place.
    let mut b = unit(false, false);
    b.irte(5, 0x4500 << 32 | 0x51 << 16 | 1, 0);
    let delivered = Remapped::Deliver(Message {
        address: 0xfee4_5000,
        data: 0x4051,
    });
    assert_eq!(b.interrupt(remappable(5, None)), Ok(delivered));
}

#[test]
fn a_reserved_delivery_mode_is_a_fault() {
    let mut b = unit(true, false);
    for mode in 0..8 {
        b.irte(mode, FIXED | mode << 5, 0);
        let got = b.interrupt(remappable(mode, None));
        let reserved = mode == 3 || mode == 6;
        assert_eq!(got.err(), reserved.then_some(0x24), "delivery mode {mode}");
    }
}

/// Handle and subhandle together exceed 65,535.
#[test]
fn an_index_beyond_every_table_is_a_fault_and_reads_nothing() {
    let mut b = unit(true, false);
    b.write(offset::IRTA, INTERRUPTS | 1 << 11 | 15);
    b.command(global::SIRTP);
    let reads = b.ram.reads.get();
    let got = b.interrupt(remappable(0xffff, Some(0xffff)));
    assert_eq!(got, Err(0x21));
    assert_eq!(b.ram.reads.get(), reads);
    let faults = b.faults();
    assert_eq!(faults[0].fi >> 48, 0xfffe, "the index is cut to 16 bits");
}

#[test]
fn after_a_reset_interrupts_go_through() {
    let mut b = unit(true, false);
    b.irte(5, 0, 0);
    let request = remappable(5, None);
    assert_eq!(b.interrupt(request), Err(0x22));
    b.unit.reset(&mut b.fx);
    assert_eq!(b.read32(offset::GSTS) & global::IRE, 0);
    assert_eq!(b.interrupt(request), Ok(Remapped::Deliver(request)));
}

#[test]
fn every_fault_of_interrupts_is_met_and_recorded_with_its_index() {
    let mut b = unit(true, false);
    b.irte(1, FIXED & !1, 0);
    b.irte(2, FIXED | 1 << 12, 0);
    b.irte(3, FIXED, 1 << 18 | 0x0999);
    b.irte(4, FIXED, 3 << 18);
    let cases = [
        (remappable(0, Some(0x1_0000)), 0x20, 0),
        (remappable(256, None), 0x21, 256),
        (remappable(1, None), 0x22, 1),
        (remappable(2, None), 0x24, 2),
        (remappable(3, None), 0x26, 3),
        (remappable(4, None), 0x24, 4),
        (
            Message {
                address: 0xfee0_0000,
                data: 0x40,
            },
            0x25,
            0,
        ),
    ];
    for (request, code, index) in cases {
        assert_eq!(b.interrupt(request), Err(code), "{request:x?}");
        let faults = b.faults();
        assert_eq!(faults.len(), 1, "{code:#x}");
        assert_eq!((faults[0].fr.code(), faults[0].sid), (code, SID));
        assert_eq!(faults[0].fi, index << 48);
    }
    b.ram.holes.borrow_mut().push(INTERRUPTS);
    assert_eq!(b.interrupt(remappable(5, None)), Err(0x23));
    assert_eq!(b.codes(), [0x23]);
}

#[test]
fn fpd_suppresses_the_qualified_faults() {
    let mut b = unit(true, false);
    b.irte(1, 2, 0);
    b.irte(2, FIXED | 2 | 1 << 12, 0);
    b.irte(3, FIXED | 2, 1 << 18 | 0x0999);
    for (index, code) in [(1, 0x22), (2, 0x24), (3, 0x26)] {
        assert_eq!(b.interrupt(remappable(index, None)), Err(code));
    }
    assert_eq!(b.codes(), []);
}

#[test]
fn compatibility_format_passes_only_where_it_is_allowed() {
    let request = Message {
        address: 0xfee0_1000,
        data: 0x40,
    };
    let mut b = unit(false, false);
    assert_eq!(b.interrupt(request), Err(0x25));
    b.command(global::CFI);
    assert_eq!(b.interrupt(request), Ok(Remapped::Deliver(request)));
    let mut b = unit(true, false);
    b.command(global::CFI);
    assert_eq!(b.interrupt(request), Err(0x25));
}

#[test]
fn a_host_that_knows_no_requester_is_not_verified() {
    let mut b = unit(true, false);
    b.irte(3, FIXED, 1 << 18 | 0x0999);
    let request = remappable(3, None);
    let got = b.unit.remap_interrupt(&b.ram, None, request, &mut b.fx);
    assert!(got.is_ok());
    // A cached entry is verified, too.
    assert_eq!(b.interrupt(request), Err(0x26));
    let allowed = Some(SourceId(0x0999));
    let got = b.unit.remap_interrupt(&b.ram, allowed, request, &mut b.fx);
    assert!(got.is_ok());
}

#[test]
fn entries_are_cached_until_they_are_invalidated() {
    let fill = |vector: u64| {
        let mut b = unit(true, false);
        for index in 0..16 {
            b.irte(index, FIXED & !0xff_0000 | 0x30 << 16, 0);
            assert_eq!(vector_of(&mut b, index), 0x30);
            b.irte(index, FIXED & !0xff_0000 | vector << 16, 0);
        }
        b
    };
    for (descriptor, selected) in [
        ([0x04, 0], 0..16),
        (interrupt_entries(3, 0), 3..4),
        (interrupt_entries(8, 2), 8..12),
        (interrupt_entries(9, 3), 8..16),
        (IOTLB_GLOBAL, 0..0),
    ] {
        let mut b = fill(0x31);
        assert!(b.submit_and_wait(&[descriptor]));
        for index in 0..16 {
            let expected = if selected.contains(&index) {
                0x31
            } else {
                0x30
            };
            assert_eq!(
                vector_of(&mut b, index),
                expected,
                "{descriptor:x?} {index}"
            );
        }
    }
    // Setting the table pointer empties the cache, and tells the host.
    let mut b = fill(0x31);
    b.effects();
    b.command(global::SIRTP);
    assert_eq!(vector_of(&mut b, 0), 0x31);
    b.uncommand(global::IRE);
    assert_eq!(b.effects(), [Effect::InterruptRemappingEnabled(false)]);
    // An entry that is not present is not cached.
    let mut b = unit(true, false);
    assert_eq!(b.interrupt(remappable(1, None)), Err(0x22));
    b.irte(1, FIXED, 0);
    assert!(b.interrupt(remappable(1, None)).is_ok());
}

/// The vector from an entry.
fn vector_of(b: &mut Bench, index: u64) -> u32 {
    match b.interrupt(remappable(index, None)) {
        Ok(Remapped::Deliver(m)) => m.data & 0xff,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_table_pointer_takes_effect_with_sirtp() {
    let mut b = unit(true, false);
    b.irte(5, FIXED, 0);
    b.write(offset::IRTA, 0x9_0000 | 1 << 11 | 7);
    assert!(b.interrupt(remappable(5, None)).is_ok());
    b.command(global::SIRTP);
    assert_eq!(b.interrupt(remappable(5, None)), Err(0x22));
}

const DESCRIPTOR: u64 = 0x20_0040;

/// A posted entry for a vector.
fn posted(vector: u64, urgent: bool) -> u64 {
    (DESCRIPTOR >> 6 & 0x3ff_ffff) << 38 | vector << 16 | 1 << 15 | u64::from(urgent) << 14 | 1
}

#[test]
fn posted_interrupts_set_their_bit_and_notify_once() {
    let mut b = unit(true, true);
    b.irte(1, posted(0x47, false), 0);
    b.irte(2, posted(0xc1, false), 0);
    b.irte(3, posted(0x05, true), 0);
    let control = DESCRIPTOR + 32;
    b.ram.set(control, 0x1_2345 << 32 | 0xf2 << 16);
    let notification = Message {
        address: 0x0000_0123_u64 << 40 | 0xfee4_5000,
        data: 0x40f2,
    };
    let notified = Ok(Remapped::Posted(Some(notification)));
    assert_eq!(b.interrupt(remappable(1, None)), notified);
    assert_eq!(b.interrupt(remappable(2, None)), Ok(Remapped::Posted(None)));
    let pir: [u64; 4] = b.load(DESCRIPTOR);
    assert_eq!(pir, [0, 1 << 7, 0, 1 << 1]);
    assert_eq!(b.ram.get(control) & 3, 1);
    // Suppressed, unless it is urgent.
    b.ram.set(control, 0x1_2345 << 32 | 0xf2 << 16 | 2);
    assert_eq!(b.interrupt(remappable(1, None)), Ok(Remapped::Posted(None)));
    assert_eq!(b.ram.get(control) & 3, 2);
    assert_eq!(b.interrupt(remappable(3, None)), notified);
    assert_eq!(b.ram.get(control) & 3, 3);
    assert_eq!(b.ram.get(DESCRIPTOR), 1 << 5);
}

#[test]
fn bad_posted_descriptors_are_faults() {
    let mut b = unit(true, true);
    b.irte(1, posted(0x47, false), 0);
    b.ram.set(DESCRIPTOR + 32, 1 << 2);
    assert_eq!(b.interrupt(remappable(1, None)), Err(0x28));
    b.ram.set(DESCRIPTOR + 32, 0);
    b.ram.set(DESCRIPTOR + 56, 1);
    assert_eq!(b.interrupt(remappable(1, None)), Err(0x28));
    b.ram.holes.borrow_mut().push(DESCRIPTOR & !0xfff);
    assert_eq!(b.interrupt(remappable(1, None)), Err(0x27));
    // A unit that cannot post has no such entries.
    let mut b = unit(true, false);
    b.irte(1, posted(0x47, false), 0);
    assert_eq!(b.interrupt(remappable(1, None)), Err(0x24));
}
