// SPDX-License-Identifier: MIT OR Apache-2.0
//! Primary fault logging (section 7.2.1): the fault recording registers.
//!
//! Other modules decide which faults to record, and handle the fault event.

use crate::mutant::{Mutant, breaks};
use crate::spec::fault::FaultRecord;

/// The result of recording a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was recorded in the register with this index.
    Recorded {
        /// Index of the register.
        index: u8,
        /// No other fault was pending.
        first: bool,
    },
    /// The same fault is already pending.
    Collapsed,
    /// The next register still holds a fault: an overflow.
    Overflow,
}

/// The fault recording registers.
#[derive(Clone, Debug)]
pub struct FaultLog {
    records: Vec<[u64; 2]>,
    next: usize,
}

/// The F field, in the upper word.
const F: u64 = 1 << 63;

impl FaultLog {
    /// A log of `count` registers, at least one.
    pub fn new(count: u16) -> Self {
        FaultLog {
            records: vec![[0; 2]; count.max(1).into()],
            next: 0,
        }
    }

    /// Records a fault.
    ///
    /// It merges a fault with a pending one only if they are equal in every field, so that software
    /// learns of all different faults of one requester.
    pub fn record(&mut self, record: &FaultRecord) -> Recorded {
        let words = record.to_words();
        if breaks(Mutant::B11) && self.pending() {
            return Recorded::Overflow;
        }
        if self.records.contains(&words) {
            return Recorded::Collapsed;
        }
        let first = !self.pending();
        let index = self.next;
        if self.records[index][1] & F != 0 {
            return Recorded::Overflow;
        }
        self.records[index] = words;
        self.next = match breaks(Mutant::G21) {
            true => 0,
            false => (index + 1) % self.records.len(),
        };
        Recorded::Recorded {
            index: index as u8,
            first,
        }
    }

    /// PPF: whether any fault is pending.
    pub fn pending(&self) -> bool {
        self.records.iter().any(|r| r[1] & F != 0)
    }

    /// Makes register 0 the next one (when DMA remapping and interrupt remapping are both off).
    pub const fn rewind(&mut self) {
        self.next = 0;
    }

    /// Reads the double word at `offset` from the first register.
    pub fn read(&self, offset: u16) -> u32 {
        match self.records.get(usize::from(offset / 16)) {
            Some(words) => (words[usize::from(offset / 8 % 2)] >> (offset % 8 * 8)) as u32,
            None => 0,
        }
    }

    /// Writes the double word at `offset` from the first register: a 1 clears F.
    pub fn write(&mut self, offset: u16, value: u32) {
        if offset % 16 == 12 && value >> 31 != 0 {
            if let Some(words) = self.records.get_mut(usize::from(offset / 16)) {
                words[1] &= !F;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::SourceId;
    use crate::spec::fault::{AddressType, FaultReason, RequestKind};

    fn fault(page: u64) -> FaultRecord {
        FaultRecord {
            fi: page << 12,
            sid: SourceId(8),
            fr: FaultReason::Read,
            pasid: None,
            exe: false,
            privileged: false,
            kind: RequestKind::Read,
            at: AddressType::Untranslated,
        }
    }

    #[test]
    fn faults_fill_the_registers_in_a_circle_and_overflow() {
        let mut log = FaultLog::new(3);
        for (page, first) in [(0, true), (1, false), (2, false)] {
            let index = page as u8;
            assert_eq!(
                log.record(&fault(page)),
                Recorded::Recorded { index, first }
            );
        }
        assert_eq!(log.record(&fault(1)), Recorded::Collapsed);
        assert_eq!(log.record(&fault(3)), Recorded::Overflow);
        log.write(12, 1 << 31);
        assert_eq!(
            log.record(&fault(3)),
            Recorded::Recorded {
                index: 0,
                first: false
            }
        );
        assert_eq!(log.read(0), 3 << 12);
        assert_eq!(log.read(16 + 12) >> 31, 1);
        for index in 0..3 {
            log.write(index * 16 + 12, 1 << 31);
        }
        assert!(!log.pending());
    }

    #[test]
    fn only_the_f_field_is_written_and_only_by_a_one() {
        let mut log = FaultLog::new(1);
        log.record(&fault(1));
        let before = [0, 4, 8, 12].map(|o| log.read(o));
        for offset in [0, 4, 8] {
            log.write(offset, !0);
        }
        log.write(12, 0x7fff_ffff);
        assert_eq!([0, 4, 8, 12].map(|o| log.read(o)), before);
        log.write(12, !0);
        assert_eq!(log.read(12), before[3] & 0x7fff_ffff);
    }
}
