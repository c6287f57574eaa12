// SPDX-License-Identifier: MIT OR Apache-2.0
//! The actions of a hostile program, and their random choice: mostly well-formed uses of the
//! interface, some with wrong parts, and occasionally nonsense. This module only chooses actions
//! and performs none.

use svmctl::abi::descriptor::{self, Descriptor, Operation, flags};
use svmctl::abi::doorbell;
use svmctl::abi::ioctl::{self, Queue};
use svmctl::region::PAGE;

use super::victim;
use crate::harness::random::Random;
use crate::test::raw;

/// Address of the memory that a hostile program uses; the addresses next to it are not mapped.
pub const SANDBOX: u64 = 0x2c00_0000_0000;
/// Length of that memory.
pub const SANDBOX_LENGTH: usize = 64 * PAGE;
/// Files that it may have open.
pub const SLOTS: usize = 4;

/// One action.
#[derive(Clone, Debug)]
pub enum Action {
    /// Opens the device.
    Open(usize),
    /// Closes a file; its doorbell page may stay mapped.
    Close(usize),
    /// Writes bytes at an offset of the sandbox and calls `ioctl`.
    Ioctl {
        slot: usize,
        request: u64,
        argument: u64,
        put: (usize, Vec<u8>),
    },
    /// Starts a ring in the sandbox.
    Start {
        slot: usize,
        offset: usize,
        log2: u32,
    },
    /// Stops it.
    Stop(usize),
    /// Maps the file, and keeps the mapping if it is one of the doorbell page.
    Map {
        slot: usize,
        length: usize,
        protection: i32,
        flags: i32,
        offset: i64,
    },
    /// Unmaps the doorbell page.
    Unmap(usize),
    /// Reads.
    Read { slot: usize, length: usize },
    /// Polls, without waiting.
    Poll(usize),
    /// Writes descriptors to the ring and rings the doorbell for them.
    Submit { slot: usize, work: Vec<Descriptor> },
    /// Writes a register of the doorbell page.
    Write {
        slot: usize,
        offset: u64,
        value: u64,
    },
    /// Reads a register of the doorbell page.
    Look { slot: usize, offset: u64 },
    /// Gives advice about pages of the sandbox.
    Advise {
        first: usize,
        pages: usize,
        advice: i32,
    },
    /// Changes the protection of pages of the sandbox.
    Protect {
        first: usize,
        pages: usize,
        protection: i32,
    },
    /// Writes bytes to the sandbox, over rings, records and lists.
    Scribble { offset: usize, data: Vec<u8> },
    /// Lets a child try the files and end.
    Fork,
}

/// An address for the device or the kernel: in the sandbox, or a mapped or unmapped one elsewhere.
fn address(random: &mut Random) -> u64 {
    let inside = SANDBOX + random.below(SANDBOX_LENGTH as u64);
    match random.below(16) {
        0..8 => inside & !7,
        8..10 => inside,
        10 => SANDBOX + SANDBOX_LENGTH as u64 - random.below(64),
        11 => victim::ADDRESS as u64 + random.below(victim::LENGTH as u64),
        12 => *[
            0,
            raw::NOWHERE,
            0xfee0_0000,
            (1 << 47) - 64,
            0xffff_8880_0000_0000,
            0xffff_ffff_8100_0000,
            u64::MAX - 63,
        ]
        .get(random.index(7))
        .unwrap_or(&0),
        // Between the address widths of the processor and of the device, and beyond both.
        13 => 1 << (47 + random.below(17)),
        14 => random.next_u64() & ((1 << 47) - 1) & !0xfff,
        _ => random.next_u64(),
    }
}

/// A length, mostly within the memory.
fn length(random: &mut Random) -> u64 {
    match random.below(8) {
        0..5 => random.below(2 * PAGE as u64),
        5 => random.below(SANDBOX_LENGTH as u64),
        6 => 1 << random.below(40),
        _ => random.next_u64(),
    }
}

/// An operand, mostly a small one.
fn operand(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => 0,
        1 => random.below(64) & !7,
        2 => length(random),
        _ => random.next_u64(),
    }
}

/// A descriptor.
pub fn descriptor(random: &mut Random) -> Descriptor {
    let operation = match random.below(12) {
        0 => random.next_u64() as u8,
        _ => random.of(Operation::ALL) as u8,
    };
    let mut words = Descriptor {
        operation,
        flags: random.next_u64() as u8 & flags::ALL,
        completion: if random.once_in(4) {
            0
        } else {
            address(random) & !31
        },
        source: address(random),
        destination: address(random),
        length: length(random),
        operand0: operand(random),
        operand1: operand(random),
        ..Descriptor::default()
    };
    // Without this, most descriptors would fail because of a word that must be 0.
    if !random.once_in(4) {
        make_plausible(&mut words, random);
    }
    if random.once_in(16) {
        words.flags = random.next_u64() as u8;
    }
    if random.once_in(32) {
        words.reserved0[random.index(6)] = random.next_u64() as u8;
    }
    if random.once_in(32) {
        words.reserved1 = random.next_u64();
    }
    words
}

/// Clears the words that must be 0 for an operation, and aligns those that must be aligned.
fn make_plausible(words: &mut Descriptor, random: &mut Random) {
    let Some(operation) = Operation::from_u8(words.operation) else {
        return;
    };
    let (source, destination, length, first, second) = (
        words.source,
        words.destination,
        words.length,
        words.operand0,
        words.operand1,
    );
    let set = |words: &mut Descriptor, all: [u64; 5]| {
        [
            words.source,
            words.destination,
            words.length,
            words.operand0,
            words.operand1,
        ] = all;
    };
    let all = match operation {
        Operation::Nop | Operation::Drain => [0; 5],
        Operation::Copy | Operation::Compare => [source, destination, length, 0, 0],
        Operation::Fill => [0, destination, length, first, 0],
        Operation::Crc32c => [source, 0, length, first & 0xffff_ffff, 0],
        Operation::FetchAdd => [0, destination & !7, 0, first, 0],
        Operation::CompareSwap => [0, destination & !7, 0, first, second],
        Operation::Chase => [source & !7, 0, length, first & 0x38, second & 0x38],
        Operation::Gather => [source & !15, destination, random.below(40), first, 0],
        Operation::Prefetch => [source, 0, length, first & 1, 0],
        Operation::Translate => [source, 0, 0, first & 1, 0],
        Operation::CacheControl if random.once_in(2) => [0, 0, 0, descriptor::operand::ALL, 0],
        Operation::CacheControl => [source, 0, length, 0, 0],
        // An operation of a later interface: unchanged.
        _ => [source & !63, 0, random.below(40), 0, 0],
    };
    set(words, all);
}

/// Bytes of a structure for an ioctl.
fn structure(random: &mut Random) -> Vec<u8> {
    let words: Vec<u64> = match random.below(4) {
        0 => (0..5).map(|_| random.next_u64()).collect(),
        1 => vec![address(random), random.below(20)],
        2 => vec![address(random) & !63, random.next_u64()],
        // An invalid eventfd, or moderation.
        _ => vec![random.below(8), random.below(3)],
    };
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// The number of an ioctl.
fn request(random: &mut Random) -> u64 {
    let number = random.of(&[
        ioctl::INFO,
        ioctl::QUEUE_SETUP,
        ioctl::QUEUE_STOP,
        ioctl::EVENTFD,
        ioctl::MODERATION,
    ]);
    let right = match number {
        ioctl::INFO => raw::INFO,
        ioctl::QUEUE_SETUP => raw::QUEUE_SETUP,
        ioctl::QUEUE_STOP => raw::QUEUE_STOP,
        _ => nix::request_code_none!(ioctl::TYPE, number),
    };
    match random.below(8) {
        0 => random.next_u64() & 0xffff_ffff,
        // The right number with another size or direction.
        1 => right ^ (1 << (16 + random.below(16))),
        2 => right & !0xff | random.below(256),
        _ => right,
    }
}

impl Action {
    /// Chooses an action.
    pub fn choose(random: &mut Random) -> Action {
        let slot = random.index(SLOTS);
        match random.below(64) {
            0..4 => Action::Open(slot),
            4..6 => Action::Close(slot),
            6..14 => Action::Ioctl {
                slot,
                request: request(random),
                argument: address(random),
                put: (random.index(SANDBOX_LENGTH - 64) & !7, structure(random)),
            },
            14..20 => Action::Start {
                slot,
                offset: random.index(SANDBOX_LENGTH / 2) & !63,
                log2: random.below(8) as u32,
            },
            20..23 => Action::Stop(slot),
            23..25 => Action::Map {
                slot,
                length: random.of(&[1, PAGE, PAGE, PAGE, 2 * PAGE, 1 << 20, 1 << 40]),
                protection: random.below(8) as i32,
                flags: random.of(&[
                    nix::libc::MAP_SHARED,
                    nix::libc::MAP_SHARED,
                    nix::libc::MAP_PRIVATE,
                    nix::libc::MAP_SHARED | nix::libc::MAP_POPULATE,
                ]),
                offset: random.of(&[0, 0, 0, PAGE as i64, 1 << 30, i64::MAX & !0xfff]),
            },
            25..27 => Action::Map {
                slot,
                length: PAGE,
                protection: nix::libc::PROT_READ | nix::libc::PROT_WRITE,
                flags: nix::libc::MAP_SHARED,
                offset: 0,
            },
            27 => Action::Unmap(slot),
            28..31 => Action::Read {
                slot,
                length: random.of(&[0, 1, 7, 8, 8, 8, 9, 4096]),
            },
            31..33 => Action::Poll(slot),
            33..47 => Action::Submit {
                slot,
                work: (0..=random.below(6)).map(|_| descriptor(random)).collect(),
            },
            47..50 => Action::Write {
                slot,
                offset: match random.below(3) {
                    0 => doorbell::TAIL,
                    1 => random.below(doorbell::END) & !7,
                    _ => random.below(doorbell::PAGE_SIZE) & !7,
                },
                value: match random.below(3) {
                    0 => random.below(64),
                    1 => 1 << random.below(64),
                    _ => random.next_u64(),
                },
            },
            50..52 => Action::Look {
                slot,
                offset: random.below(doorbell::PAGE_SIZE) & !7,
            },
            52..56 => Action::Advise {
                first: random.index(SANDBOX_LENGTH / PAGE),
                pages: 1 + random.index(8),
                advice: random.of(&[
                    nix::libc::MADV_DONTNEED,
                    nix::libc::MADV_PAGEOUT,
                    nix::libc::MADV_FREE,
                    nix::libc::MADV_COLD,
                ]),
            },
            56..59 => Action::Protect {
                first: random.index(SANDBOX_LENGTH / PAGE),
                pages: 1 + random.index(8),
                protection: random.of(&[0, 1, 3, 3, 3]),
            },
            59..63 => Action::Scribble {
                offset: random.index(SANDBOX_LENGTH - 256) & !7,
                data: (0..1 + random.index(32))
                    .flat_map(|_| address(random).to_le_bytes())
                    .collect(),
            },
            _ => Action::Fork,
        }
    }
}

/// The words of a queue.
pub fn queue(offset: usize, log2: u32) -> Queue {
    Queue {
        ring: SANDBOX + offset as u64,
        ring_log2: log2,
        ..Queue::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_does_the_same() {
        let actions = |seed| {
            let mut random = Random::part(seed, 3);
            (0..200)
                .map(|_| format!("{:?}", Action::choose(&mut random)))
                .collect::<Vec<_>>()
        };
        assert_eq!(actions(1), actions(1));
        assert_ne!(actions(1), actions(2));
    }

    #[test]
    fn every_kind_of_action_comes_soon() {
        let mut random = Random::new(1);
        let kinds: std::collections::BTreeSet<String> = (0..1000)
            .map(|_| format!("{:?}", Action::choose(&mut random)))
            .map(|text| text.split([' ', '(']).next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(kinds.len(), 16, "{kinds:?}");
    }

    #[test]
    fn most_descriptors_have_the_words_that_their_operation_wants() {
        let mut random = Random::new(1);
        let good = (0..1000)
            .map(|_| descriptor(&mut random))
            .filter(|words| words.operation == Operation::FetchAdd as u8)
            .filter(|words| words.destination % 8 == 0 && words.length == 0)
            .count();
        assert!(good > 20, "{good}");
    }
}
