// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rule 48 on a small scale: pages move during the work, their old frames must never be accessed
//! again, and the process's view agrees with a shadow of its memory.

use super::*;
use crate::Config;
use crate::testing::{Numbers, World};
use pcie_ats::AlignedRange;

/// Pages of the process.
const PAGES: u64 = 24;
/// Moves and descriptors.
const ROUNDS: u64 = 3000;

#[test]
pub(super) fn rule_48_what_moves_under_the_work_agrees_with_a_shadow() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut next = |below| numbers.below(below);
    let world = World::running_with(Config {
        atc_entries: 64,
        ..Config::default()
    });
    for page in 0..PAGES {
        world.map(1, HERE + (page << 12), true);
    }
    let mut shadow = vec![0u8; (PAGES << 12) as usize];
    for round in 0..ROUNDS {
        if next(3) == 0 {
            let address = HERE + (next(PAGES) << 12);
            let data = world.peek(1, address, 4096);
            let old = world.mapping(1, address).unwrap().output;
            let fresh = world.frame();
            world.change(1, address, |m| m.output = fresh);
            let _ = world.invalidate(1, AlignedRange::page(address));
            world.poke(1, address, &data);
            world.retire_frame(old);
            continue;
        }
        let length = next(0x2000);
        let [source, destination] = [0, 1].map(|_| next((PAGES << 12) - length));
        let (s, d, n) = (source as usize, destination as usize, length as usize);
        let descriptor = match next(2) {
            0 => {
                shadow.copy_within(s..s + n, d);
                copy(HERE + source, HERE + destination, length)
            }
            _ => {
                shadow[d..d + n].fill(round as u8);
                Descriptor {
                    operand0: u64::from_le_bytes([round as u8; 8]),
                    ..fill(HERE + destination, length)
                }
            }
        };
        success(world.perform(descriptor));
        let trespasses = world.inner.lock().unwrap().trespasses.clone();
        assert!(trespasses.is_empty(), "round {round}: {trespasses:x?}");
    }
    assert!(world.peek(1, HERE, shadow.len()) == shadow);
}
