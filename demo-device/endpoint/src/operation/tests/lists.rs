// SPDX-License-Identifier: MIT OR Apache-2.0
//! Operations that follow pointers and lists, and those that bring pages.

use super::*;

#[test]
fn chase_follows_the_pointers_of_the_process() {
    let world = world();
    // Nodes that cross a page boundary, in both places.
    let nodes = [HERE + 0xff8, THERE + 0x18, HERE + 0x2ff0, THERE + 0x1ff8];
    for (n, node) in nodes.iter().enumerate() {
        let next = nodes.get(n + 1).copied().unwrap_or(0);
        world.poke(1, *node, &next.to_le_bytes());
        world.poke(1, node + 16, &(1u64 << (8 * n)).to_le_bytes());
    }
    let chase = Descriptor {
        source: nodes[0],
        length: 4,
        operand0: 0,
        operand1: 16,
        ..op(Operation::Chase)
    };
    let record = world.perform(chase);
    assert_eq!(succeeded(record), 0x0101_0101);
    assert_eq!(record.bytes_done, 4);
    let short = world.perform(Descriptor { length: 3, ..chase });
    assert_eq!(error(short), Error::ChainTooLong);
    assert_eq!(short.bytes_done, 3);
    assert_eq!(
        succeeded(world.perform(Descriptor {
            source: 0,
            length: 0,
            ..chase
        })),
        0
    );

    world.poke(1, nodes[1], &(HERE + 1).to_le_bytes());
    let odd = world.perform(chase);
    assert_eq!(error(odd), Error::Misaligned);
    assert_eq!((odd.bytes_done, odd.fault_address), (2, HERE + 1));
    world.poke(1, nodes[1], &0xdead_0000_0000_0000u64.to_le_bytes());
    let wild = world.perform(chase);
    assert_eq!(error(wild), Error::BadAddress);
    assert_eq!(wild.fault_address, 0xdead_0000_0000_0010);
    for node in [u64::MAX - 7, u64::MAX - 4095] {
        world.poke(1, nodes[1], &node.to_le_bytes());
        assert_eq!(error(world.perform(chase)), Error::BadLength);
    }
}

/// Writes a list of ranges to an address.
fn list(world: &World, at: u64, ranges: &[(u64, u64)]) {
    let words = ranges
        .iter()
        .flat_map(|(address, length)| [address, length]);
    let bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    world.poke(1, at, &bytes);
}

#[test]
fn gather_puts_ranges_one_behind_the_other() {
    let world = world();
    let data = pattern(0x3000);
    world.poke(1, HERE, &data);
    // The list itself crosses a page boundary.
    let at = HERE + 0x5ff0;
    let ranges = [(HERE + 0xffd, 5), (HERE, 0), (HERE + 1, 0x2345), (HERE, 1)];
    list(&world, at, &ranges);
    let gather = Descriptor {
        source: at,
        destination: THERE + 7,
        length: ranges.len() as u64,
        operand0: 0x3000,
        ..op(Operation::Gather)
    };
    let record = world.perform(gather);
    let parts = ranges.map(|(from, length)| {
        let from = (from - HERE) as usize;
        &data[from..from + length as usize]
    });
    let expected = parts.concat();
    assert_eq!(succeeded(record), expected.len() as u64);
    assert_eq!(record.bytes_done, expected.len() as u64);
    assert!(world.peek(1, THERE + 7, expected.len()) == expected);
    assert_eq!(world.peek(1, THERE + 7 + expected.len() as u64, 1), [0]);
    let none = Descriptor {
        length: 0,
        ..gather
    };
    assert_eq!(succeeded(world.perform(none)), 0);
}

#[test]
fn gather_fails_at_the_entry_that_is_wrong() {
    let world = world();
    let at = HERE + 0x5000;
    let gather = |length, room| Descriptor {
        source: at,
        destination: THERE,
        length,
        operand0: room,
        ..op(Operation::Gather)
    };
    for bad in [(HERE, 11), (!0, 2), (HERE, !0)] {
        list(&world, at, &[(HERE, 10), bad]);
        let record = world.perform(gather(2, 20));
        assert_eq!(error(record), Error::BadLength, "{bad:x?}");
        assert_eq!((record.bytes_done, record.fault_address), (10, bad.0));
    }
    list(&world, at, &[(HERE, 10), (0x7000_0000, 1)]);
    let record = world.perform(gather(2, 20));
    assert_eq!(error(record), Error::PageFault);
    assert_eq!((record.bytes_done, record.fault_address), (10, 0x7000_0000));
    let odd = Descriptor {
        source: at + 8,
        ..gather(1, 20)
    };
    assert_eq!(error(world.perform(odd)), Error::Misaligned);
    assert_eq!(
        error(world.perform(gather((1 << 16) + 1, 0))),
        Error::BadLength
    );
    assert_eq!(
        error(world.perform(gather(1, (1 << 32) + 1))),
        Error::BadLength
    );
}

#[test]
fn prefetch_brings_pages_and_moves_nothing() {
    let world = world();
    for page in 0x10..0x14 {
        world.map_absent(1, HERE + (page << 12), true);
    }
    let prefetch = Descriptor {
        source: HERE + 0x1_0fff,
        length: 0x2002,
        operand0: operand::WRITE,
        ..op(Operation::Prefetch)
    };
    let read = world.counter(0, index::BYTES_READ);
    let record = world.perform(prefetch);
    succeeded(record);
    assert_eq!(record.bytes_done, 0x2002);
    for page in 0x10..0x14 {
        let present = world.mapping(1, HERE + (page << 12)).unwrap().present;
        assert!(present, "{page:#x}");
    }
    // The descriptor itself, and its record.
    assert_eq!(world.counter(0, index::BYTES_READ) - read, 64);
    let requests = world.counter(0, index::TRANSLATION_REQUESTS);
    let fill = Descriptor {
        destination: HERE + 0x1_0fff,
        length: 0x2002,
        ..op(Operation::Fill)
    };
    succeeded(world.perform(fill));
    assert_eq!(world.counter(0, index::TRANSLATION_REQUESTS), requests);
    let absent = Descriptor {
        source: 0x7000_0000,
        length: 1,
        ..op(Operation::Prefetch)
    };
    assert_eq!(error(world.perform(absent)), Error::PageFault);
    let reserved = Descriptor {
        operand0: 2,
        ..prefetch
    };
    assert_eq!(error(world.perform(reserved)), Error::Reserved);
}
