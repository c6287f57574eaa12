// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations on plain ranges of memory.

use super::*;

#[test]
fn copy_moves_between_ranges_that_overlap_either_way() {
    for (source, destination) in [
        (0x123, 0x1456),
        (0x1456, 0x123),
        (0x10, 0x11),
        (0x11, 0x10),
        (5, 5),
    ] {
        let world = world();
        let mut memory = pattern(0x6000);
        world.poke(1, HERE, &memory);
        let length = 0x3ffd;
        succeeded(world.perform(Descriptor {
            source: HERE + source,
            destination: HERE + destination,
            length,
            ..op(Operation::Copy)
        }));
        let from = source as usize;
        memory.copy_within(from..from + length as usize, destination as usize);
        assert!(
            world.peek(1, HERE, 0x6000) == memory,
            "{source:#x} to {destination:#x}"
        );
    }
}

#[test]
fn nothing_is_accessed_for_a_length_of_zero() {
    let world = world();
    for operation in [
        Operation::Copy,
        Operation::Fill,
        Operation::Compare,
        Operation::Crc32c,
    ] {
        succeeded(world.perform(op(operation)));
    }
}

#[test]
fn fill_carries_its_pattern_across_pages() {
    let world = world();
    succeeded(world.perform(Descriptor {
        destination: HERE + 0xffd,
        length: 0x1007,
        operand0: 0x0807_0605_0403_0201,
        ..op(Operation::Fill)
    }));
    let expected: Vec<u8> = (0..0x1007).map(|n| (n % 8) as u8 + 1).collect();
    assert!(world.peek(1, HERE + 0xffd, 0x1007) == expected);
    assert_eq!(world.peek(1, HERE + 0xffd + 0x1007, 1), [0]);
}

#[test]
fn compare_finds_the_first_difference() {
    let world = world();
    let data = pattern(0x3000);
    world.poke(1, HERE + 1, &data);
    world.poke(1, THERE + 0x801, &data);
    let compare = Descriptor {
        source: HERE + 1,
        destination: THERE + 0x801,
        length: 0x3000,
        ..op(Operation::Compare)
    };
    assert_eq!(succeeded(world.perform(compare)), 0x3000);
    for at in [0x2fff, 0x1234, 0] {
        world.poke(1, THERE + 0x801 + at, &[data[at as usize] ^ 1]);
        assert_eq!(succeeded(world.perform(compare)), at);
    }
}

#[test]
fn crc32c_is_the_checksum_of_castagnoli_and_goes_on() {
    let world = world();
    world.poke(1, HERE, b"123456789");
    let crc = |source, length, operand0| Descriptor {
        source,
        length,
        operand0,
        ..op(Operation::Crc32c)
    };
    assert_eq!(succeeded(world.perform(crc(HERE, 9, 0))), 0xe306_9283);
    let half = succeeded(world.perform(crc(HERE, 4, 0)));
    assert_eq!(
        succeeded(world.perform(crc(HERE + 4, 5, half))),
        0xe306_9283
    );
    assert_eq!(error(world.perform(crc(HERE, 9, 1 << 32))), Error::Reserved);
}
