// SPDX-License-Identifier: GPL-2.0-or-later
//! PASID-based IOTLB invalidations of many pages (VT-d 6.5.2.4), which QEMU's intel-iommu refuses.
//!
//! MAMV in the capability register limits the address mask (AM) of invalidations of the second
//! stage (11.4.2). QEMU's unit, with MAMV = 18, also applies it to PASID-based invalidations, and
//! stops its queue with an error at one that is larger than 1 GiB. Linux sends one whenever a range
//! to invalidate crosses a multiple of 1 GiB, and on the error removes the descriptor from the
//! queue. The IOTLB then keeps translations of freed pages, and devices keep them until the next
//! descriptor is submitted.
//!
//! A region over the tail register of the invalidation queue examines the submitted descriptors. It
//! turns each such descriptor into an invalidation of all pages of the PASID, which QEMU's unit
//! supports, and then passes the write to the unit.

use std::ffi::CStr;
use std::sync::OnceLock;

use vtd::memory::{Memory, MemoryError};
use vtd::spec::capability::Capability;
use vtd::spec::register::{global, offset};

use super::{PRIORITY, REGISTERS};
use crate::abi::layout::layout;
use crate::abi::{qemu, room};
use crate::bql::Bql;
use crate::memory::{IoRegion, Mmio, Space};
use crate::message;
use crate::qom::Neighbour;
use crate::vtd::GuestMemory;

/// Size of the register in bytes.
const SIZE: u64 = 8;
/// Size of a descriptor of 256 bits.
const DESCRIPTOR: u64 = 32;
/// Bit of IQA_REG: descriptors have 256 bits (11.4.9.3).
const DW: u64 = 1 << 11;
/// The unit's own registers, as a child of its object.
const OWN_REGISTERS: &CStr = c"intel_iommu[0]";

/// The queue, as its registers describe it.
#[derive(Clone, Copy, Debug)]
struct Queue {
    base: u64,
    size: u64,
    head: u64,
}

impl Queue {
    /// The queue for these values of IQA_REG and IQH_REG. None if it cannot hold PASID-based
    /// descriptors.
    fn new(iqa: u64, iqh: u64) -> Option<Queue> {
        let queue = Queue {
            base: iqa & !0xfff,
            size: 0x1000 << (iqa & 7),
            head: iqh & !(DESCRIPTOR - 1),
        };
        (iqa & DW != 0 && queue.head < queue.size).then_some(queue)
    }

    /// Rewrites descriptors that the unit would refuse, from the head to the new tail.
    fn narrow(&self, memory: &impl Memory, tail: u64, mamv: u8) -> Result<(), MemoryError> {
        let tail = tail & !(DESCRIPTOR - 1);
        if tail >= self.size {
            return Ok(()); // The unit reports the error.
        }
        let mut at = self.head;
        while at != tail {
            let address = self.base + at;
            let words = [memory.read_u64(address)?, memory.read_u64(address + 8)?];
            if let Some(new) = all_of_pasid(words, mamv) {
                memory.write(address + 8, &new[1].to_le_bytes())?;
                memory.write(address, &new[0].to_le_bytes())?;
            }
            at = (at + DESCRIPTOR) % self.size;
        }
        Ok(())
    }
}

/// The descriptor that replaces a PASID-based IOTLB invalidation of too many pages.
fn all_of_pasid([low, high]: [u64; 2], mamv: u8) -> Option<[u64; 2]> {
    const TYPE: u64 = 0xf | 7 << 9;
    const PASID_BASED_IOTLB: u64 = 6;
    const GRANULARITY: u64 = 3 << 4;
    const PAGES: u64 = 3 << 4;
    const ALL: u64 = 2 << 4;
    const ADDRESS_MASK: u64 = 0x3f;
    let is_wide = low & TYPE == PASID_BASED_IOTLB
        && low & GRANULARITY == PAGES
        && high & ADDRESS_MASK > u64::from(mamv);
    is_wide.then_some([low & !GRANULARITY | ALL, 0])
}

/// The tail register as the guest accesses it.
struct Tail {
    /// The unit's registers at their address, without this library's overlays.
    unit: Space,
}

impl Tail {
    /// Reads a register.
    fn register(&self, offset: u16) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read_at(offset, 0, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// Reads a part of a register.
    fn read_at(&self, offset: u16, at: u64, part: &mut [u8]) -> Option<()> {
        let address = REGISTERS + u64::from(offset) + at;
        self.unit.read(address, 0, part).ok()
    }

    /// Examines the descriptors that a new tail submits.
    fn submitted(&self, tail: u64) -> Option<()> {
        let status = (self.register(offset::GCMD)? >> 32) as u32;
        if status & global::QIE == 0 {
            return None;
        }
        let mamv = Capability(self.register(offset::CAP)?).mamv();
        let queue = Queue::new(self.register(offset::IQA)?, self.register(offset::IQH)?)?;
        // If a read fails here, it fails in the unit as well, and the unit reports it.
        queue.narrow(&GuestMemory, tail, mamv).ok()
    }
}

impl Mmio for Tail {
    fn read(&self, _bql: &Bql, at: u64, size: u8) -> u64 {
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..size.into()).unwrap_or_default();
        match self.read_at(offset::IQT, at, part) {
            Some(()) => u64::from_le_bytes(bytes),
            None => u64::MAX,
        }
    }

    fn write(&self, _bql: &Bql, at: u64, value: u64, size: u8) {
        if at == 0 {
            let _ = self.submitted(value);
        }
        let bytes = value.to_le_bytes();
        let part = bytes.get(..size.into()).unwrap_or_default();
        // A register cannot refuse.
        let address = REGISTERS + u64::from(offset::IQT) + at;
        let _ = self.unit.write(address, 0, part);
    }
}

/// Lays the region, now or when the machine is complete.
pub fn request(bql: &Bql) {
    static REQUESTED: OnceLock<()> = OnceLock::new();
    if REQUESTED.set(()).is_ok() {
        crate::machine_done::when_complete(bql, apply);
    }
}

/// Adds the region if there is a unit that needs it.
fn apply(bql: &Bql) {
    let Some(iommu) = super::intel_iommu(bql) else {
        return;
    };
    let tail = iommu
        .child(bql, OWN_REGISTERS)
        .and_then(|registers| Tail::new(bql, registers));
    match tail {
        Some(tail) => lay(bql, tail),
        None => message::warning(
            "the intel-iommu has its registers elsewhere than expected: invalidations of \
             more than 1 GiB stop its queue",
        ),
    }
}

impl Tail {
    /// The tail register of a unit whose registers are this memory region; None if they are not.
    fn new(bql: &Bql, registers: Neighbour) -> Option<Tail> {
        let space = room::allocate(layout().address_space.size);
        // SAFETY: the room has the size and the alignment of an address space, and is never freed;
        // the child is a memory region, as its name shows, and lives as long as the machine.
        let unit = unsafe {
            (qemu().address_space_init)(
                space.as_ptr(),
                registers.as_ptr().cast(),
                c"svm-demo-intel-iommu".as_ptr(),
            );
            Space::new(space)
        };
        let tail = Tail { unit };
        let cap = tail.register(offset::CAP)?;
        (cap != 0 && super::register(bql, offset::CAP) == Some(cap)).then_some(tail)
    }
}

/// Lays the region over the register.
fn lay(bql: &Bql, tail: Tail) {
    // SAFETY: the region has no owner and is never dropped.
    let region = unsafe {
        IoRegion::new(
            bql,
            std::ptr::null_mut(),
            c"svm-demo-iqt",
            SIZE,
            Box::new(tail),
        )
    };
    // SAFETY: both regions live for ever.
    unsafe {
        (qemu().memory_region_add_subregion_overlap)(
            (qemu().get_system_memory)(),
            REGISTERS + u64::from(offset::IQT),
            region.as_ptr(),
            PRIORITY,
        );
    }
    std::mem::forget(region);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    /// A queue of 128 descriptors at 0x10000, by the number of the word.
    struct Words(Mutex<BTreeMap<u64, u64>>);

    impl Words {
        fn at(&self, descriptor: u64) -> [u64; 2] {
            let words = self.0.lock().unwrap();
            [0, 8].map(|n| words[&(0x1_0000 + 32 * descriptor + n)])
        }

        fn put(&self, descriptor: u64, [low, high]: [u64; 2]) {
            let mut words = self.0.lock().unwrap();
            words.insert(0x1_0000 + 32 * descriptor, low);
            words.insert(0x1_0000 + 32 * descriptor + 8, high);
        }
    }

    impl Memory for Words {
        fn read(&self, address: u64, data: &mut [u8]) -> Result<(), MemoryError> {
            let words = self.0.lock().unwrap();
            let word = words.get(&address).ok_or(MemoryError { address })?;
            data.copy_from_slice(&word.to_le_bytes()[..data.len()]);
            Ok(())
        }
        fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
            let word = u64::from_le_bytes(data.try_into().unwrap());
            self.0.lock().unwrap().insert(address, word);
            Ok(())
        }
        fn compare_exchange(&self, address: u64, _: u64, _: u64) -> Result<u64, MemoryError> {
            Err(MemoryError { address })
        }
    }

    /// PASID 5 of domain 1.
    const PAGES: u64 = 0x6 | 3 << 4 | 1 << 16 | 5 << 32;
    const ALL: u64 = 0x6 | 2 << 4 | 1 << 16 | 5 << 32;
    const IQA: u64 = 0x1_0000 | DW;

    #[test]
    fn only_wide_descriptors_that_are_submitted_are_changed_round_the_end_too() {
        let words = Words(Mutex::default());
        for n in [126, 127, 0, 1] {
            words.put(n, [PAGES, 0x5555_0000_0000 | 19]);
        }
        words.put(127, [PAGES, 0x5555_0000_0000 | 18]);
        let queue = Queue::new(IQA, 126 * 32).unwrap();
        queue.narrow(&words, 32, 18).unwrap();
        assert_eq!(words.at(126), [ALL, 0]);
        assert_eq!(words.at(127), [PAGES, 0x5555_0000_0000 | 18]);
        assert_eq!(words.at(0), [ALL, 0]);
        // Not submitted.
        assert_eq!(words.at(1), [PAGES, 0x5555_0000_0000 | 19]);
    }

    #[test]
    fn other_descriptors_stay_as_they_are() {
        // Device-TLB of a PASID, IOTLB, wait, all of a PASID.
        for low in [0x8, 0x2 | 3 << 4, 0x5 | 1 << 5, ALL, PAGES | 1 << 9] {
            assert_eq!(all_of_pasid([low, 0x3f], 18), None, "{low:#x}");
        }
        assert_eq!(all_of_pasid([PAGES, 0x3f], 18), Some([ALL, 0]));
    }

    #[test]
    fn what_the_unit_refuses_is_left_to_it() {
        let words = Words(Mutex::default());
        // A tail beyond the queue; descriptors of 128 bits; a head beyond it.
        let queue = Queue::new(IQA, 0).unwrap();
        assert!(queue.narrow(&words, 0x1000, 18).is_ok());
        assert!(Queue::new(0x1_0000, 0).is_none());
        assert!(Queue::new(IQA, 0x1000).is_none());
        // Memory that does not exist.
        assert!(queue.narrow(&words, 32, 18).is_err());
    }
}
