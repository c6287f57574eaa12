// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each operation, through a whole device.

mod atomics;
mod data;
mod lists;

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
