// SPDX-License-Identifier: MIT OR Apache-2.0
//! Atomic operations.

use super::*;

#[test]
fn fetch_add_returns_what_was_there() {
    let world = world();
    world.poke(1, HERE + 8, &u64::MAX.to_le_bytes());
    let add = Descriptor {
        destination: HERE + 8,
        operand0: 3,
        ..op(Operation::FetchAdd)
    };
    let record = world.perform(add);
    assert_eq!(succeeded(record), u64::MAX);
    assert_eq!(record.bytes_done, 8);
    assert_eq!(world.peek(1, HERE + 8, 8), 2u64.to_le_bytes());
    let odd = Descriptor {
        destination: HERE + 4,
        ..add
    };
    assert_eq!(error(world.perform(odd)), Error::Misaligned);
}

#[test]
fn compare_swap_writes_only_over_what_was_expected() {
    let world = world();
    world.poke(1, HERE + 8, &5u64.to_le_bytes());
    let swap = |expected, new| Descriptor {
        destination: HERE + 8,
        operand0: expected,
        operand1: new,
        ..op(Operation::CompareSwap)
    };
    let record = world.perform(swap(4, 9));
    assert_eq!((succeeded(record), record.bytes_done), (5, 8));
    assert_eq!(world.peek(1, HERE + 8, 8), 5u64.to_le_bytes());
    assert_eq!(succeeded(world.perform(swap(5, 9))), 5);
    assert_eq!(world.peek(1, HERE + 8, 8), 9u64.to_le_bytes());
    let odd = Descriptor {
        destination: HERE + 4,
        ..swap(0, 0)
    };
    assert_eq!(error(world.perform(odd)), Error::Misaligned);
    let long = Descriptor {
        length: 8,
        ..swap(0, 0)
    };
    assert_eq!(error(world.perform(long)), Error::Reserved);
    world.inner.lock().unwrap().no_swap = true;
    assert_eq!(error(world.perform(swap(9, 1))), Error::UnsupportedAccess);
    assert_eq!(world.peek(1, HERE + 8, 8), 9u64.to_le_bytes());
}
