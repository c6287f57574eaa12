// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each operation through a whole device.

use crate::testing::World;
use svm_abi::completion::{Completion, Error, status};
use svm_abi::descriptor::{Descriptor, Operation, flags};

const HERE: u64 = 0x40_0000;
const THERE: u64 = 0x50_0000;

fn op(operation: Operation) -> Descriptor {
    Descriptor {
        operation: operation as u8,
        flags: flags::BLOCK_ON_FAULT,
        ..Descriptor::default()
    }
}

/// A world with a few pages at both places.
fn world() -> World {
    let world = World::running();
    for page in 0..8 {
        world.map(1, HERE + (page << 12), true);
        world.map(1, THERE + (page << 12), true);
    }
    world
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn succeeded(record: Completion) -> u64 {
    assert_eq!(record.status, status::SUCCESS, "{record:?}");
    assert_eq!(
        (record.error, record.access, record.fault_address),
        (0, 0, 0)
    );
    record.result
}

fn error(record: Completion) -> Error {
    assert_eq!(record.status, status::FAILURE, "{record:?}");
    Error::from_u8(record.error).unwrap()
}

#[test]
fn nop_completes() {
    assert_eq!(succeeded(world().perform(op(Operation::Nop))), 0);
}

#[test]
fn rule_34_copy_is_exact_at_odd_offsets_over_many_pages() {
    let world = world();
    let data = pattern(0x5123);
    world.poke(1, HERE + 0xffb, &data);
    let record = world.perform(Descriptor {
        source: HERE + 0xffb,
        destination: THERE + 3,
        length: data.len() as u64,
        ..op(Operation::Copy)
    });
    succeeded(record);
    assert_eq!(record.bytes_done, data.len() as u64);
    assert!(world.peek(1, THERE + 3, data.len()) == data);
    assert_eq!(world.peek(1, THERE, 3), [0; 3]);
    assert_eq!(world.peek(1, THERE + 3 + data.len() as u64, 3), [0; 3]);
}

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
fn chase_follows_the_pointers_of_the_process() {
    let world = world();
    // Nodes that lie across two pages, in both places.
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

#[test]
fn wrong_descriptors_fail_with_an_error_of_their_own() {
    let world = world();
    let copy = Descriptor {
        source: HERE,
        destination: THERE,
        length: 16,
        ..op(Operation::Copy)
    };
    let cases = [
        (
            Descriptor {
                operation: 7,
                ..copy
            },
            Error::BadOperation,
        ),
        (
            Descriptor {
                operation: 255,
                ..copy
            },
            Error::BadOperation,
        ),
        (Descriptor { flags: 8, ..copy }, Error::Reserved),
        (
            Descriptor {
                reserved0: [0, 0, 0, 0, 0, 1],
                ..copy
            },
            Error::Reserved,
        ),
        (
            Descriptor {
                reserved1: 1,
                ..copy
            },
            Error::Reserved,
        ),
        (
            Descriptor {
                operand0: 1,
                ..copy
            },
            Error::Reserved,
        ),
        (
            Descriptor {
                length: (1 << 32) + 1,
                ..copy
            },
            Error::BadLength,
        ),
        (
            Descriptor {
                source: u64::MAX,
                ..copy
            },
            Error::BadLength,
        ),
        (
            Descriptor {
                destination: u64::MAX - 14,
                ..copy
            },
            Error::BadLength,
        ),
        (
            Descriptor {
                source: 0xfee0_0000,
                ..copy
            },
            Error::BadAddress,
        ),
        (
            Descriptor {
                destination: 1 << 62,
                ..copy
            },
            Error::BadAddress,
        ),
        (
            Descriptor {
                source: 1,
                ..op(Operation::Nop)
            },
            Error::Reserved,
        ),
        (
            Descriptor {
                source: 1,
                ..op(Operation::Fill)
            },
            Error::Reserved,
        ),
        (
            Descriptor {
                operand0: 4096,
                ..op(Operation::Chase)
            },
            Error::Reserved,
        ),
        (
            Descriptor {
                operand1: 4,
                ..op(Operation::Chase)
            },
            Error::Misaligned,
        ),
        (
            Descriptor {
                source: 4,
                ..op(Operation::Chase)
            },
            Error::Misaligned,
        ),
    ];
    for (descriptor, expected) in cases {
        let record = world.perform(descriptor);
        assert_eq!(error(record), expected, "{descriptor:?}");
        assert_eq!(record.bytes_done, 0);
    }
    succeeded(world.perform(copy));
}
