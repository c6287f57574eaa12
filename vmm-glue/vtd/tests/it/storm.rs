// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything at once: whatever software writes and functions send, the unit's properties hold.

use crate::events::{Event, Storm, run_bytes};
use proptest::prelude::*;
use vtd::spec::register::global;

/// Register offsets, mostly of existing registers.
fn register() -> impl Strategy<Value = u16> {
    prop_oneof![
        3 => (0u16..0x44).prop_map(|n| n * 4),
        1 => (0u16..0x400).prop_map(|n| n * 4),
    ]
}

/// Values: pointers into the used memory, with some low bits, or any value.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0u64..8, 0u64..4096).prop_map(|(page, low)| page << 12 | low),
        2 => any::<u64>(),
        1 => Just(u64::MAX),
        1 => (0u64..64).prop_map(|n| 1 << n),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (register(), word(), any::<bool>()).prop_map(|(a, v, w)| Event::Write(a, v, w)),
        2 => any::<u32>().prop_map(|n| Event::Command(n | global::TE | global::QIE)),
        4 => (0u64..4096, word()).prop_map(|(a, v)| Event::Store(a * 8, v)),
        3 => (0u64..10, any::<u64>(), word(), any::<bool>()).prop_map(|(kind, high, w1, clean)| {
            let w0 = if clean { high & 0x0003_ffff_ffff_0030 } else { high & !0xe0f };
            Event::Descriptor([w0 | kind, w1])
        }),
        4 => (word(), any::<u32>(), any::<u8>()).prop_map(|(a, p, f)| Event::Translate(a, p, f)),
        2 => (word(), any::<u32>(), any::<u8>()).prop_map(|(a, p, f)| Event::Ats(a, p, f)),
        1 => word().prop_map(Event::Translated),
        1 => (word(), any::<u16>()).prop_map(|(a, n)| Event::Reach(a, n)),
        2 => (word(), any::<u32>(), any::<u8>()).prop_map(|(a, p, f)| Event::PageRequest(a, p, f)),
        2 => (any::<u32>(), 1u8..9).prop_map(|(v, c)| Event::Complete(v, c)),
        1 => (0u64..0x10_0000, any::<u32>()).prop_map(|(a, d)| Event::Interrupt(a, d)),
        1 => Just(Event::Begin),
        1 => Just(Event::End),
        1 => any::<u16>().prop_map(Event::Advance),
        3 => Just(Event::Process),
        1 => Just(Event::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_that_happens_breaks_the_unit(
        mode in 0u64..4,
        memory in proptest::collection::vec((0u64..4096, word()), 0..200),
        events in proptest::collection::vec(event(), 1..200),
    ) {
        Storm::new(mode, &memory).run(events);
    }

    /// Does the same as the fuzz target, with random bytes.
    #[test]
    fn no_bytes_break_the_unit(data in proptest::collection::vec(any::<u8>(), 0..2000)) {
        run_bytes(&data);
    }
}
