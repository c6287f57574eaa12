// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IOTLB alone.

use super::*;

fn mapping(address: u64, shift: u8) -> Mapping {
    Mapping {
        address,
        shift,
        read: true,
        write: false,
        execute: true,
        snoop: true,
        dirty: false,
    }
}

/// Whose place does not tell it from others.
fn owner(tag: u64) -> Owner {
    Owner { tag, place: 5 }
}

fn get(iotlb: &Iotlb, tag: u64, sizes: u8, privileged: bool, address: u64) -> Option<Mapping> {
    let owner = owner(tag);
    let early = iotlb.early(owner.place, address);
    let found = iotlb.get(owner, sizes, privileged, address, Some(early));
    let again = iotlb.get(owner, sizes, privileged, address, None);
    assert_eq!(found, again);
    found
}

#[test]
fn pages_of_three_sizes_lie_side_by_side() {
    let mut iotlb = Iotlb::new(64);
    let mut sizes = 0;
    for (address, shift) in [(0x1234_5000, 12), (0x4020_0000, 21), (0x1_0000_0000, 30)] {
        sizes |= iotlb.insert(owner(7), false, address, &mapping(address << 4, shift));
        let offset = (1 << shift) - 1;
        let found = get(&iotlb, 7, sizes, false, address | offset);
        assert_eq!(found, Some(mapping(address << 4 | offset, shift)));
        assert_eq!(get(&iotlb, 7, sizes, true, address), None);
        assert_eq!(get(&iotlb, 8, sizes, false, address), None);
        assert_eq!(get(&iotlb, 7, sizes, false, address + offset + 1), None);
    }
    assert_eq!(sizes, 7);
}

#[test]
fn tags_of_the_same_page_lie_side_by_side() {
    let mut iotlb = Iotlb::new(64);
    let two = |address: &u64| {
        let [first, second] = iotlb.sets(owner(1).place, 0, *address);
        first != second
    };
    let page = (1..64).map(|n| n << 12).find(two).unwrap();
    // More than a set has room for, all in the same two sets.
    for tag in 1..=6 {
        iotlb.insert(owner(tag), tag == 4, page, &mapping(tag << 12, 12));
    }
    for tag in 1..=6 {
        let found = get(&iotlb, tag, 1, tag == 4, page);
        assert_eq!(found, Some(mapping(tag << 12, 12)), "{tag}");
        assert_eq!(get(&iotlb, tag, 1, tag != 4, page), None, "{tag}");
        assert_eq!(get(&iotlb, tag, 6, tag == 4, page), None, "{tag}");
    }
    assert!(iotlb.remove(owner(1), [1, 1], AlignedRange::page(page)));
    for tag in 1..=7 {
        let found = get(&iotlb, tag, 1, tag == 4, page);
        assert_eq!(found.is_some(), (2..7).contains(&tag), "{tag}");
    }
}

#[test]
fn a_page_invalidation_takes_the_large_page_round_it() {
    let mut iotlb = Iotlb::new(64);
    let sizes = iotlb.insert(owner(7), false, 0x20_0000, &mapping(0, 21));
    assert!(iotlb.remove(owner(7), [sizes, 0], AlignedRange::page(0x3f_f000)));
    assert_eq!(get(&iotlb, 7, sizes, false, 0x20_0000), None);
}

#[test]
fn a_range_takes_the_pages_within() {
    let mut iotlb = Iotlb::new(1024);
    for page in 0..64 {
        iotlb.insert(owner(7), false, page << 12, &mapping(page << 12, 12));
    }
    let range = AlignedRange::containing(0x1_0000, 16).unwrap();
    assert!(iotlb.remove(owner(7), [1, 0], range));
    for page in 0..64 {
        let found = get(&iotlb, 7, 1, false, page << 12).is_some();
        assert_eq!(found, !range.contains(page << 12), "{page}");
    }
    assert!(!iotlb.remove(owner(7), [1, 0], AlignedRange::ALL));
    assert!(iotlb.remove(owner(7), [0, 0], AlignedRange::ALL));
}

#[test]
fn nothing_of_a_key_is_left_out() {
    // Each differs from the first in one bit of tag, address, size or privilege.
    let first = 0x1234_5000u64;
    let mut keys = vec![key(7, 0, false, first), key(7, 1, false, first)];
    keys.push(key(7, 0, true, first));
    keys.extend((3..TAG_BITS).map(|bit| key(7 | 1 << bit, 0, false, first)));
    keys.extend((12..INPUT_BITS - 1).map(|bit| key(7, 0, false, first ^ 1 << bit)));
    keys.push(key(7, 0, false, first | !0 << (INPUT_BITS - 1)));
    for (n, one) in keys.iter().enumerate() {
        let one = one.unwrap();
        let full = Slot {
            data: one.data | !SELECT,
            ..one
        };
        for (m, other) in keys.iter().enumerate() {
            assert_eq!(full.has(&other.unwrap()), n == m, "{n}, {m}");
        }
    }
    // An address that no table translates is not mistaken for one whose bits it has.
    let mut iotlb = Iotlb::new(64);
    iotlb.insert(owner(7), false, first, &mapping(0x1000, 12));
    for bit in INPUT_BITS - 1..u64::BITS {
        let address = first ^ 1 << bit;
        iotlb.insert(owner(7), false, address, &mapping(0x5000, 12));
        assert_eq!(get(&iotlb, 7, 1, false, address), None, "{bit}");
    }
    assert_eq!(get(&iotlb, 7, 1, false, first), Some(mapping(0x1000, 12)));
}

#[test]
fn an_output_address_has_52_bits() {
    let mut iotlb = Iotlb::new(64);
    for bit in 12..64 {
        let address = 1 << bit;
        iotlb.insert(owner(7), false, 0x5000, &mapping(address, 12));
        let found = get(&iotlb, 7, 1, false, 0x5000);
        assert_eq!(found, (bit < 52).then_some(mapping(address, 12)), "{bit}");
        assert!(iotlb.remove(owner(7), [1, 0], AlignedRange::page(0x5000)));
        // Nor does it become a translation of another tag.
        let kept = iotlb.sets.iter().any(|set| set.free() != 0xf);
        assert!(!kept, "{bit}");
    }
}

#[test]
fn tags_whose_low_bits_are_the_same_are_not_the_same() {
    let mut iotlb = Iotlb::new(64);
    let (old, new) = (7, 7 | 1 << TAG_BITS);
    iotlb.insert(owner(old), false, 0x5000, &mapping(0x1000, 12));
    assert_eq!(get(&iotlb, new, 1, false, 0x5000), None);
    assert!(iotlb.remove(owner(new), [1, 0], AlignedRange::page(0x5000)));
    assert!(get(&iotlb, old, 1, false, 0x5000).is_some());
    iotlb.insert(owner(new), false, 0x6000, &mapping(0x2000, 12));
    assert_eq!(get(&iotlb, new, 1, false, 0x5000), None);
    assert_eq!(get(&iotlb, old, 1, false, 0x5000), None);
    assert_eq!(get(&iotlb, old, 1, false, 0x6000), None);
    let found = get(&iotlb, new, 1, false, 0x6000);
    assert_eq!(found, Some(mapping(0x2000, 12)));
}

#[test]
fn a_full_iotlb_keeps_as_much_as_it_can() {
    let mut iotlb = Iotlb::new(4096);
    for page in 0..4096u64 {
        iotlb.insert(owner(7), false, page << 12, &mapping(page << 12, 12));
    }
    let kept = (0..4096u64).filter(|p| get(&iotlb, 7, 1, false, p << 12).is_some());
    assert!(kept.count() > 3000);
    // A half full cache evicts nothing.
    let mut iotlb = Iotlb::new(8192);
    for page in 0..4096u64 {
        iotlb.insert(owner(7), false, page << 12, &mapping(page << 12, 12));
    }
    let kept = (0..4096u64).filter(|p| get(&iotlb, 7, 1, false, p << 12).is_some());
    assert_eq!(kept.count(), 4096);
}

#[test]
fn what_was_invalidated_makes_room_for_what_comes_again() {
    let mut iotlb = Iotlb::new(8192);
    for tag in 1..=10 {
        for page in 0..4096u64 {
            iotlb.insert(owner(tag), false, page << 12, &mapping(page << 12, 12));
        }
        let kept = (0..4096u64).filter(|p| get(&iotlb, tag, 1, false, p << 12).is_some());
        assert_eq!(kept.count(), 4096, "{tag}");
    }
}
