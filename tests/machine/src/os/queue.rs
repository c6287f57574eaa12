// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver of an invalidation queue (section 6.5.2 of the VT-d specification).

use super::board::Board;
use super::descriptors::{self, Words};
use super::frames::Frames;
use crate::machine::Machine;
use crate::sync::Mutex;
use vtd::spec::SourceId;
use vtd::spec::capability::ExtendedCapability;
use vtd::spec::invalidation::{
    DeviceTlbInvalidate, InvalidationWait, PasidDeviceTlbInvalidate, kind,
};
use vtd::spec::register::{fsts, offset};

/// Log2 of the queue's size in pages.
const ORDER: u64 = 2;
/// Places for status words.
const STATUS_WORDS: u64 = 512;

/// The queue does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueFault {
    /// IQE: a descriptor is wrong.
    #[error("invalidation queue error at {head:#x}, reason {reason}")]
    Descriptor {
        /// IQH.
        head: u64,
        /// IQEI.
        reason: u8,
    },
    /// ITE: a function did not complete an invalidation request in time.
    #[error("the function {requester:#06x} did not complete an invalidation request in time")]
    TimeOut {
        /// ITESID.
        requester: u16,
    },
    /// Nothing more will happen by itself.
    #[error("the invalidation queue waits for something that does not happen")]
    Stuck,
}

/// A wait descriptor that was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the invalidation is over when this is done"]
pub struct Wait {
    address: u64,
    value: u32,
}

#[derive(Debug)]
struct State {
    tail: u64,
    sequence: u32,
}

/// An invalidation queue.
#[derive(Debug)]
pub struct Queue<B = Machine> {
    machine: B,
    unit: usize,
    /// Bytes of a descriptor: 16 or 32.
    width: u64,
    /// The unit counts invalidation requests by physical function (ECAP.DIT).
    throttles: bool,
    /// The unit drains page requests (ECAP.PDS).
    drains: bool,
    base: u64,
    status: u64,
    state: Mutex<State>,
}

impl<B: Board + Clone> Queue<B> {
    /// Gives the unit a queue; it is not enabled yet.
    pub fn new(machine: &B, unit: usize, frames: &Frames<B>, wide: bool) -> Self {
        let base = frames.allocate_range(12 + ORDER as u8);
        machine.unit_write(unit, offset::IQT, 0, 8);
        let iqa = base | u64::from(wide) << 11 | ORDER;
        machine.unit_write(unit, offset::IQA, iqa, 8);
        let ecap = ExtendedCapability(machine.unit_read(unit, offset::ECAP, 8));
        Queue {
            machine: machine.clone(),
            unit,
            width: if wide { 32 } else { 16 },
            throttles: ecap.dit(),
            drains: ecap.pds(),
            base,
            status: frames.allocate(),
            state: Mutex::new(State {
                tail: 0,
                sequence: 0,
            }),
        }
    }

    /// Bytes of the queue.
    const fn size(&self) -> u64 {
        4096 << ORDER
    }

    /// How many descriptors the queue has room for now.
    fn room(&self, tail: u64) -> usize {
        let head = self.machine.unit_read(self.unit, offset::IQH, 8);
        let size = self.size();
        ((head + size - tail - self.width) % size / self.width) as usize
    }

    /// Submits descriptors with a wait descriptor behind them, if there is room.
    pub fn try_submit(&self, descriptors: &[Words]) -> Option<Wait> {
        self.try_submit_with(descriptors, descriptors::wait)
    }

    /// Submits descriptors with a wait descriptor of a kind behind them, if there is room.
    pub fn try_submit_with(
        &self,
        descriptors: &[Words],
        wait: impl FnOnce(u64, u32) -> Words,
    ) -> Option<Wait> {
        let mut state = self.state.lock();
        if self.room(state.tail) < descriptors.len() + 1 {
            return None;
        }
        state.sequence = state.sequence.wrapping_add(1);
        let ticket = Wait {
            address: self.status + u64::from(state.sequence) % STATUS_WORDS * 8,
            value: state.sequence,
        };
        let last = wait(ticket.address, ticket.value);
        for words in descriptors.iter().chain([&last]) {
            self.put(state.tail, words);
            state.tail = (state.tail + self.width) % self.size();
        }
        self.machine
            .unit_write(self.unit, offset::IQT, state.tail, 8);
        Some(ticket)
    }

    /// Submits descriptors without a wait, if there is room.
    pub fn try_submit_only(&self, descriptors: &[Words]) -> bool {
        let mut state = self.state.lock();
        if self.room(state.tail) < descriptors.len() {
            return false;
        }
        for words in descriptors {
            self.put(state.tail, words);
            state.tail = (state.tail + self.width) % self.size();
        }
        self.machine
            .unit_write(self.unit, offset::IQT, state.tail, 8);
        true
    }

    /// The queue lies in frames of the allocator, which are memory.
    fn put(&self, at: u64, words: &Words) {
        let mut words = *words;
        if !self.throttles {
            words = without_pfsid(words);
        }
        if !self.drains {
            words = without_pd(words);
        }
        let place = self.base + at;
        let _ = self.machine.store(place, words[0]);
        let _ = self.machine.store(place + 8, words[1]);
        if self.width == 32 {
            let _ = self.machine.store(place + 16, 0);
            let _ = self.machine.store(place + 24, 0);
        }
    }

    /// Whether a wait descriptor has written its status. The place may bear the status of a later
    /// one already.
    pub fn is_done(&self, wait: Wait) -> bool {
        let word = self.machine.load(wait.address).unwrap_or_default() as u32;
        word != 0 && word.wrapping_sub(wait.value) as i32 >= 0
    }

    /// What keeps the queue from going on, if the unit says so.
    pub fn fault(&self) -> Option<QueueFault> {
        let fsts = self.machine.unit_read(self.unit, offset::FSTS, 4) as u32;
        let record = self.machine.unit_read(self.unit, offset::IQERCD, 8);
        if fsts & fsts::IQE != 0 {
            return Some(QueueFault::Descriptor {
                head: self.machine.unit_read(self.unit, offset::IQH, 8),
                reason: record as u8 & 15,
            });
        }
        if fsts & fsts::ITE != 0 {
            return Some(QueueFault::TimeOut {
                requester: (record >> 32) as u16,
            });
        }
        None
    }

    /// Clears the errors, after which the unit goes on with the queue.
    pub fn clear_faults(&self) {
        let all = fsts::IQE | fsts::ITE | fsts::ICE;
        self.machine
            .unit_write(self.unit, offset::FSTS, all.into(), 4);
    }
}

/// A descriptor for a unit that does not throttle: PFSID is reserved there (section 6.5.2.5).
fn without_pfsid(words: Words) -> Words {
    match words[0] & 0xf {
        3 => DeviceTlbInvalidate(words).with_pfsid(SourceId(0)).0,
        8 => PasidDeviceTlbInvalidate(words).with_pfsid(SourceId(0)).0,
        _ => words,
    }
}

/// A descriptor for a unit that drains no page requests: PD is reserved there (section 6.5.2.9).
fn without_pd(words: Words) -> Words {
    match kind(words[0]) {
        InvalidationWait::TYPE => InvalidationWait(words).with_pd(false).0,
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcie_ats::{AlignedRange, Pasid};

    #[test]
    fn the_physical_function_is_named_to_units_that_throttle_alone() {
        let (function, range) = (SourceId(0x1234), AlignedRange::ALL);
        let with = descriptors::device_tlb(function, range);
        let without = DeviceTlbInvalidate(without_pfsid(with));
        assert_eq!(without.pfsid(), SourceId(0));
        assert_eq!(without.sid(), function);
        let with = descriptors::device_tlb_pasid(function, Pasid::new(5).unwrap(), range);
        let without = PasidDeviceTlbInvalidate(without_pfsid(with));
        assert_eq!(without.pfsid(), SourceId(0));
        assert_eq!((without.sid(), without.pasid()), (function, 5));
        let other = descriptors::IOTLB_GLOBAL;
        assert_eq!(without_pfsid(other), other);
    }

    #[test]
    fn page_requests_are_drained_by_units_that_can_alone() {
        let wait = without_pd(descriptors::wait(0x1000, 7));
        assert!(InvalidationWait(descriptors::wait(0x1000, 7)).pd());
        assert_eq!(wait, InvalidationWait(wait).with_pd(false).0);
        assert_eq!(
            without_pd(descriptors::IOTLB_GLOBAL),
            descriptors::IOTLB_GLOBAL
        );
    }
}
