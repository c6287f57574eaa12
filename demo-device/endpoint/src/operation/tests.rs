// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each operation, through a whole device.

use crate::testing::World;
use svm_abi::completion::{Completion, Error, status};
use svm_abi::counters::index;
use svm_abi::descriptor::{Descriptor, Operation, flags, operand, translation};

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
pub(crate) fn rule_34_copy_is_exact_at_odd_offsets_over_many_pages() {
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
                operation: Operation::ALL.len() as u8,
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
                source: 1 << 60,
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

#[test]
fn drain_completes_behind_all_earlier_descriptors() {
    let world = world();
    let before = world.submit(Descriptor {
        destination: HERE,
        length: 0x8000,
        operand0: 1,
        ..op(Operation::Fill)
    });
    let drain = world.submit(Descriptor {
        flags: flags::FENCE,
        ..op(Operation::Drain)
    });
    while world.record(1, drain).status == status::PENDING {
        world.endpoint.step(&world);
    }
    succeeded(world.record(1, before));
    assert_eq!(world.peek(1, HERE + 0x7ff8, 1), [1]);
    let bad = Descriptor {
        length: 1,
        ..op(Operation::Drain)
    };
    assert_eq!(error(world.perform(bad)), Error::Reserved);
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

#[test]
fn rule_73_translate_shows_permissions_and_addresses_only_to_a_laboratory() {
    use crate::Config;
    for laboratory in [false, true] {
        let world = World::running_with(Config {
            laboratory,
            ..Config::default()
        });
        let frame = world.map(1, HERE, false);
        let translate = |source, operand0| Descriptor {
            source,
            operand0,
            ..op(Operation::Translate)
        };
        let shown = if laboratory { frame } else { 0 };
        assert_eq!(
            succeeded(world.perform(translate(HERE + 5, operand::WRITE))),
            12 | translation::READ | shown
        );
        // This is an answer, not a fault, and no page is requested.
        assert_eq!(succeeded(world.perform(translate(THERE, 0))), 12);
        assert!(world.inner.lock().unwrap().page_requests.is_empty());
        assert_eq!(
            error(world.perform(translate(1 << 62, 0))),
            Error::BadAddress
        );
        // It bypasses the cache: a translation is requested each time.
        let before = world.counter(0, index::TRANSLATION_REQUESTS);
        for _ in 0..3 {
            succeeded(world.perform(translate(HERE, 0)));
        }
        assert_eq!(world.counter(0, index::TRANSLATION_REQUESTS) - before, 3);
    }
}

#[test]
fn rule_39_translate_asks_again_when_it_was_overtaken() {
    let world = world();
    let translate = Descriptor {
        source: HERE,
        ..op(Operation::Translate)
    };
    succeeded(world.perform(op(Operation::Nop)));
    let before = world.counter(0, index::TRANSLATION_REQUESTS);
    *world.on_translate.lock().unwrap() = Some(Box::new(|world| {
        world.change(1, HERE, |m| m.write = false);
        let _ = world.invalidate(1, pcie_ats::AlignedRange::page(HERE));
    }));
    assert_eq!(
        succeeded(world.perform(translate)) & (translation::READ | translation::WRITE),
        translation::READ
    );
    assert_eq!(world.counter(0, index::TRANSLATION_REQUESTS) - before, 2);
}

#[test]
fn cache_control_drops_the_own_entries_of_a_range() {
    let world = world();
    world.start(1, 2);
    world.map(2, HERE, true);
    let fill = Descriptor {
        destination: HERE,
        length: 0x4000,
        ..op(Operation::Fill)
    };
    let drop = |source, length, operand0| Descriptor {
        source,
        length,
        operand0,
        ..op(Operation::CacheControl)
    };
    world.submit_to(1, 2, Descriptor { length: 8, ..fill });
    succeeded(world.perform(fill));
    assert_eq!(succeeded(world.perform(drop(HERE + 0xfff, 2, 0))), 2);
    assert_eq!(succeeded(world.perform(drop(HERE, 0x4000, 0))), 2);
    assert_eq!(succeeded(world.perform(drop(HERE, 0, 0))), 0);
    succeeded(world.perform(fill));
    assert_eq!(succeeded(world.perform(drop(HERE, 1 << 32, 0))), 4);
    // Ring and records.
    assert_eq!(succeeded(world.perform(drop(0, 0, operand::ALL))), 2);
    assert_eq!(
        error(world.perform(drop(HERE, 0, operand::ALL))),
        Error::Reserved
    );
    // The other process keeps its entries.
    let before = world.counter(1, index::TRANSLATION_REQUESTS);
    world.submit_to(1, 2, Descriptor { length: 8, ..fill });
    world.run();
    assert_eq!(world.counter(1, index::TRANSLATION_REQUESTS), before);
}

#[test]
fn rule_34_every_operation_is_exact_at_every_offset_of_a_page_end() {
    let world = world();
    let data = pattern(0x3000);
    world.poke(1, HERE, &data);
    for offset in 0x1000 - 17..=0x1000 {
        for length in [1, 2, 7, 8, 9, 16, 17, 64] {
            let (from, to) = (HERE + offset, THERE + 0x2000 - offset % 32);
            world.poke(1, to - 1, &[0; 70]);
            let copy = Descriptor {
                source: from,
                destination: to,
                length,
                ..op(Operation::Copy)
            };
            succeeded(world.perform(copy));
            let (start, end) = (offset as usize, (offset + length) as usize);
            let got = world.peek(1, to - 1, length as usize + 2);
            assert_eq!(got[1..=length as usize], data[start..end]);
            assert_eq!((got[0], got[length as usize + 1]), (0, 0));
            let compare = Descriptor {
                operation: Operation::Compare as u8,
                ..copy
            };
            assert_eq!(succeeded(world.perform(compare)), length);
            let crc = Descriptor {
                operation: Operation::Crc32c as u8,
                destination: 0,
                ..copy
            };
            assert_eq!(
                succeeded(world.perform(crc)),
                u64::from(::crc32c::crc32c(&data[start..end]))
            );
            let fill = Descriptor {
                operation: Operation::Fill as u8,
                source: 0,
                operand0: 0x0807_0605_0403_0201,
                ..copy
            };
            succeeded(world.perform(fill));
            let expected: Vec<u8> = (0..length).map(|n| (n % 8) as u8 + 1).collect();
            assert_eq!(world.peek(1, to, length as usize), expected);
        }
    }
}

#[test]
fn the_longest_transfer_is_four_gibibytes() {
    // One page of memory represents the whole range, so that the range need not exist.
    let world = World::running();
    let range = pcie_ats::AlignedRange::containing(1 << 40, 33).unwrap();
    world.map_to(1, range, 1 << 40, true, true);
    let prefetch = Descriptor {
        source: (1 << 40) + 1,
        length: 1 << 32,
        ..op(Operation::Prefetch)
    };
    let record = world.perform(prefetch);
    succeeded(record);
    assert_eq!(record.bytes_done, 1 << 32);
    for operation in [
        Operation::Copy,
        Operation::Fill,
        Operation::Compare,
        Operation::Crc32c,
        Operation::Prefetch,
    ] {
        let long = Descriptor {
            length: (1 << 32) + 1,
            ..op(operation)
        };
        assert_eq!(error(world.perform(long)), Error::BadLength);
    }
    // A fill continues to the end of the mapping.
    let record = world.perform(Descriptor {
        destination: (1 << 40) + (1 << 33) - 0x1_2345,
        length: 1 << 32,
        ..op(Operation::Fill)
    });
    assert_eq!(error(record), Error::PageFault);
    assert_eq!(record.bytes_done, 0x1_2345);
    assert_eq!(record.fault_address, (1 << 40) + (1 << 33));
}
