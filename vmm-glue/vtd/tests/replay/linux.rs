// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux does the same with this unit as with QEMU's own. The test compares Linux's register writes
//! and its invalidation descriptors for both units, except for parts that vary from run to run.
//! Intended differences:
//!
//! * Addresses of tables, queues and status words depend on the kernel's allocations: they are
//!   masked.
//! * Fault records: QEMU's unit has one fault recording register, this one has eight and takes
//!   the next at each fault. Linux clears the one that it has read.
//! * Device-TLB invalidations: this unit has ECAP_REG.DIT, so that Linux names in PFSID the queue
//!   to throttle; QEMU's has not, and PFSID stays 0.
//! * Setting the interrupt remapping table: this unit has CAP_REG.ESIRTPS and empties its cache
//!   itself; with QEMU's, Linux must request that.
//! * How often the kernel submits to the queue, and how many page requests it takes at once,
//!   depends on the timing of interrupts and programs.

use crate::recording::{Call, Recording, number, words};
use std::collections::BTreeSet;
use vtd::spec::register::{global, offset};

/// Linux's actions with QEMU's unit.
const INTEL_IOMMU: &str = include_str!("../data/linux-7.3.intel-iommu");

/// Bits 63:12: the address of a table or queue.
const ADDRESS: u64 = !0xfff;

/// A register write: offset, size, value.
type Write = (u16, u8, u64);

/// Linux's actions with a unit.
struct Linux {
    writes: Vec<Write>,
    /// The lower two words of each descriptor; the upper ones are 0.
    descriptors: Vec<[u64; 2]>,
}

/// With QEMU's unit.
fn with_intel_iommu() -> Linux {
    let (mut writes, mut descriptors) = (Vec::new(), Vec::new());
    for line in INTEL_IOMMU.lines().filter(|l| !l.starts_with('#')) {
        match words(line)[..] {
            ["descriptor", low, high] => descriptors.push([low, high].map(|w| number(w).unwrap())),
            _ => writes.extend(write(Call::parse(line).unwrap())),
        }
    }
    Linux {
        writes,
        descriptors,
    }
}

/// With the unit of this crate.
fn with_this_unit() -> Linux {
    let recording = Recording::parse(crate::BOOT).unwrap();
    let (mut writes, mut descriptors) = (Vec::new(), Vec::new());
    let mut last = None;
    for event in &recording.events {
        let call = Call::parse(event.line).unwrap();
        writes.extend(write(call));
        if !matches!(call, Call::Process(_)) {
            continue;
        }
        for line in &event.below {
            let ["reads", address, "16", low, high] = words(line)[..] else {
                continue;
            };
            let address = number(address).unwrap();
            // A wait that follows another descriptor is fetched again when that one is carried out.
            if address % 32 == 0 && last != Some(address) {
                last = Some(address);
                descriptors.push([low, high].map(|w| number(w).unwrap()));
            }
        }
    }
    Linux {
        writes,
        descriptors,
    }
}

fn write(call: Call) -> Option<Write> {
    match call {
        Call::Write(offset, size, value) => Some((offset, size, value)),
        _ => None,
    }
}

impl Linux {
    /// The writes until translation is on, except for those to the tail of the invalidation queue.
    fn boot(&self) -> Vec<Write> {
        let on = |w: &Write| w.0 == offset::GCMD && w.2 & u64::from(global::TE) != 0;
        let end = self.writes.iter().position(on).unwrap();
        let boot = self.writes[..=end].iter();
        let boot = boot.filter(|w| w.0 != offset::IQT);
        boot.map(|w| masked(*w)).collect()
    }

    /// The later writes, with the same exception. A service of page requests counts once, however
    /// often it is repeated.
    fn life(&self) -> Vec<Write> {
        let all = self.writes.iter().filter(|w| w.0 != offset::IQT);
        let mut life: Vec<Write> = Vec::new();
        for write in all.skip(self.boot().len()).map(|w| masked(*w)) {
            life.push(write);
            if let [.., a, b, c, d] = life[..] {
                if a.0 == offset::PRS && (a, b) == (c, d) {
                    life.truncate(life.len() - 2);
                }
            }
        }
        life
    }

    /// The descriptors of an unbind: from the invalidation of the PASID until its page requests are
    /// drained.
    fn unbinds(&self) -> Vec<Vec<[u64; 2]>> {
        let mut unbinds = Vec::new();
        for (n, first) in self.descriptors.iter().enumerate() {
            if kind(first) != PASID_CACHE {
                continue;
            }
            let mut one = Vec::new();
            for descriptor in &self.descriptors[n..] {
                one.push(descriptor_masked(*descriptor));
                // PD, Page-Request Drain.
                if kind(descriptor) == WAIT && descriptor[0] & 1 << 7 != 0 {
                    break;
                }
            }
            unbinds.push(one);
        }
        unbinds
    }
}

/// The global invalidation of interrupt entries.
const INTERRUPTS: u64 = 4;
const WAIT: u64 = 5;
const PASID_CACHE: u64 = 7;
/// PASID-based-Device-TLB invalidation, and the bits of its PFSID (section 6.5.2.6).
const DEVICE_TLB: u64 = 8;
const PFSID: u64 = 0xf << 12 | 0xfff << 52;

/// Type, bits 11:9 and 3:0 (section 6.5.2).
fn kind(descriptor: &[u64; 2]) -> u64 {
    descriptor[0] >> 5 & 0x70 | descriptor[0] & 0xf
}

/// A write without the parts that vary from run to run.
fn masked((at, size, value): Write) -> Write {
    match at {
        offset::IQA | offset::RTADDR | offset::IRTA | offset::PQA => (at, size, value & !ADDRESS),
        // The position in the page request queue.
        offset::PQH if value != 0 => (at, size, 0x20),
        // The upper double word of any fault recording register.
        offset::FRCD..offset::FRCD_END if at & 0xf == 0xc => (offset::FRCD + 12, size, value),
        _ => (at, size, value),
    }
}

/// A descriptor without the intended differences.
fn descriptor_masked(descriptor: [u64; 2]) -> [u64; 2] {
    let [low, high] = descriptor;
    match kind(&descriptor) {
        // The address of the status word.
        WAIT if high != 0 => [low, 1],
        DEVICE_TLB => [low & !PFSID, high],
        _ => descriptor,
    }
}

#[test]
fn linux_boots_by_the_same_writes() {
    let (this, other) = (with_this_unit().boot(), with_intel_iommu().boot());
    assert_eq!(this, other, "{this:#x?}");
    // Queue, root table, translation; the three events with their messages; page requests.
    assert!(this.len() > 20);
}

#[test]
fn linux_serves_and_shuts_down_by_the_same_writes() {
    let (this, other) = (with_this_unit().life(), with_intel_iommu().life());
    assert_eq!(this, other, "{this:#x?}");
    // Page requests, two faults of two writes each, the end.
    let offsets: Vec<u16> = this.iter().map(|w| w.0).collect();
    let frcd = offset::FRCD + 12;
    let fault = [frcd, offset::FSTS];
    let expected = [
        &[offset::PRS, offset::PQH],
        &fault[..],
        &fault,
        &[offset::GCMD],
    ]
    .concat();
    assert_eq!(offsets, expected);
}

#[test]
fn linux_unbinds_by_the_same_descriptors() {
    let (this, other) = (with_this_unit().unbinds(), with_intel_iommu().unbinds());
    assert_eq!(this, other, "{this:#x?}");
    assert!(this.len() >= 3, "{this:#x?}");
    // Invalidations of the PASID, of its translations and of those of the device, each with a wait;
    // then all of them again behind a fence, and a wait that drains.
    assert!(this.iter().all(|one| one.len() == 10), "{this:#x?}");
}

#[test]
fn what_differs_does_so_by_intention() {
    let (this, other) = (with_this_unit(), with_intel_iommu());
    let asked = |linux: &Linux| linux.descriptors.contains(&[INTERRUPTS, 0]);
    assert!(!asked(&this) && asked(&other));
    let function = |linux: &Linux| {
        let mut all = linux.descriptors.iter();
        all.any(|d| kind(d) == DEVICE_TLB && d[0] & PFSID != 0)
    };
    assert!(function(&this) && !function(&other));
    let records = |linux: &Linux| -> BTreeSet<u16> {
        let all = linux.writes.iter().map(|w| w.0);
        all.filter(|at| (offset::FRCD..offset::FRCD_END).contains(at))
            .collect()
    };
    assert_eq!((records(&this).len(), records(&other).len()), (2, 1));
}
