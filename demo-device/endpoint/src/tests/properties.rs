// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on memory that changes meanwhile, compared with the same operations on plain slices.

use super::*;
use crate::Config;
use crate::testing::{Hook, Service, World};
use pcie_ats::AlignedRange;
use proptest::prelude::*;

/// The memory of the operations: 64 KiB in ranges of several sizes.
const SIZE: usize = 1 << 16;

/// Log2 of the sizes of the ranges from HERE on; each is aligned.
fn layout() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![12; 16]),
        Just(vec![16]),
        Just(vec![15, 13, 12, 12, 14]),
        Just(vec![14, 12, 12, 13, 14, 14]),
    ]
}

/// The kernel's changes to a page while the device works.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Evicts it; a page request brings it back.
    Evict(u64),
    /// Moves it to other memory, and overwrites the old memory.
    Move(u64),
    /// Invalidates without a reason.
    Flush(u64, u8),
}

fn change() -> impl Strategy<Value = Change> {
    let at = 0..SIZE as u64;
    prop_oneof![
        at.clone().prop_map(Change::Evict),
        at.clone().prop_map(Change::Move),
        (at, 12u8..20).prop_map(|(at, shift)| Change::Flush(at, shift)),
    ]
}

impl Change {
    fn apply(self, world: &World) {
        match self {
            Change::Evict(at) => {
                let m = world.mapping(1, HERE + at).unwrap();
                world.change(1, HERE + at, |m| m.present = false);
                let _ = world.invalidate(1, m.range);
            }
            Change::Move(at) => {
                let m = world.mapping(1, HERE + at).unwrap();
                let fresh = world.frames(m.range.shift());
                let length = 1 << m.range.shift();
                // No access while the content is copied, as a kernel must ensure.
                world.change(1, HERE + at, |m| m.present = false);
                let _ = world.invalidate(1, m.range);
                let data = world.peek_frame(m.output, length);
                world.change(1, HERE + at, |m| m.output = fresh);
                world.poke(1, m.range.base(), &data);
                world.fill_frame(m.output, length, 0xee);
            }
            Change::Flush(at, shift) => {
                let range = AlignedRange::containing(HERE + at, shift).unwrap();
                let _ = world.invalidate(1, range);
            }
        }
    }
}

/// Applies one change after another, each at the next opportunity.
fn hook(changes: Vec<Change>) -> Hook {
    Box::new(move |world| {
        let mut rest = changes.clone();
        if let Some(change) = rest.pop() {
            change.apply(world);
            *world.on_translate.lock().unwrap() = Some(hook(rest));
        }
    })
}

fn world(layout: &[u8], entries_log2: u32, allocation: u32, memory: &[u8]) -> World {
    let world = World::running_with(Config {
        atc_entries: 1 << entries_log2,
        pri_capacity: allocation,
        ..Config::default()
    });
    let mut at = HERE;
    for shift in layout {
        let range = AlignedRange::containing(at, *shift).unwrap();
        assert_eq!(range.base(), at);
        world.map_to(1, range, world.frames(*shift), true, false);
        at += 1 << shift;
    }
    world.poke(1, HERE, memory);
    *world.service.lock().unwrap() = Service::Now;
    world
}

fn memory() -> Vec<u8> {
    (0..SIZE).map(|n| (n * 31 + n / 257) as u8).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn rule_34_operations_agree_with_slices_whatever_happens_to_the_pages(
        layout in layout(),
        entries_log2 in 2u32..6,
        allocation in prop_oneof![Just(1u32), Just(3), Just(64)],
        between in prop::collection::vec(change(), 0..12),
        during in prop::collection::vec(change(), 0..12),
        source in 0..SIZE,
        destination in 0..SIZE,
        length in 0..SIZE,
        operation in 0..4,
        difference in 0..SIZE,
        at_one_moment: bool,
    ) {
        let mut expected = memory();
        let length = length.min(SIZE - source).min(SIZE - destination);
        let world = world(&layout, entries_log2, allocation, &expected);
        let (s, d, n) = (HERE + source as u64, HERE + destination as u64, length as u64);
        world.inner.lock().unwrap().copies = at_one_moment;
        let mut result = 0;
        let descriptor = match operation {
            0 => {
                expected.copy_within(source..source + length, destination);
                copy(s, d, n)
            }
            1 => {
                result = u64::from(::crc32c::crc32c(&expected[source..source + length]));
                crc(s, n)
            }
            2 => {
                expected[destination..destination + length].fill(0x5a);
                fill(d, n)
            }
            _ => {
                // Equal up to some place, if the ranges do not overlap.
                if source + length <= destination || destination + length <= source {
                    expected.copy_within(source..source + length, destination);
                    expected[destination + difference % length.max(1)] ^= u8::from(length > 0);
                }
                world.poke(1, HERE, &expected);
                let pairs = expected[source..].iter().zip(&expected[destination..]);
                result = pairs.take(length).take_while(|(a, b)| a == b).count() as u64;
                Descriptor { operation: Operation::Compare as u8, ..copy(s, d, n) }
            }
        };
        *world.on_translate.lock().unwrap() = Some(hook(during));
        let address = world.submit(descriptor);
        for change in between {
            world.endpoint.step(&world);
            change.apply(&world);
        }
        world.run();
        let record = world.record(1, address);
        prop_assert_eq!(record.status, status::SUCCESS, "{:?}", record);
        prop_assert_eq!(record.result, result);
        prop_assert!(world.peek(1, HERE, SIZE) == expected);
    }

    #[test]
    fn rule_29_nothing_is_touched_where_a_permission_is_missing(
        permissions in prop::collection::vec(0u8..3, 16),
        start in 0..SIZE,
        length in 1..SIZE,
        block: bool,
    ) {
        // 0: no such page, 1: read-only, 2: writable.
        let world = World::running();
        for (n, permission) in permissions.iter().enumerate() {
            if *permission > 0 {
                world.map(1, HERE + (n << 12) as u64, *permission == 2);
            }
        }
        let length = length.min(SIZE - start);
        let bad = (start..start + length).find(|at| permissions[at >> 12] != 2);
        let mut descriptor = fill(HERE + start as u64, length as u64);
        if !block {
            descriptor.flags = 0;
        }
        let record = world.perform(descriptor);
        let done = bad.unwrap_or(start + length) - start;
        prop_assert_eq!(record.bytes_done, done as u64);
        if let Some(bad) = bad {
            let error = if block { Error::PageFault } else { Error::NotPresent };
            prop_assert_eq!(failure(record), (error, HERE + bad as u64, 1));
        }
        for (n, permission) in permissions.iter().enumerate() {
            if *permission > 0 {
                let page = world.peek(1, HERE + (n << 12) as u64, 4096);
                let touched = |at: usize| at >= start && at < start + done;
                for (offset, byte) in page.iter().enumerate() {
                    prop_assert_eq!(*byte == 0x5a, touched((n << 12) + offset));
                }
            }
        }
    }
}
