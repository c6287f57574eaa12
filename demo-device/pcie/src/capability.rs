// SPDX-License-Identifier: MIT OR Apache-2.0
//! The extended capability structures of ATS, PRI and PASID (PCIe 7.8.8, 10.5.1 and 10.5.2): their
//! registers and access rules, independent of what a function does with them.
//!
//! `read` and `write` take double words at offsets from the start of the structure. The header at
//! offset 0 links the structures; the code that lays out configuration space handles it.

use crate::PasidWidth;

/// Extended capability id of ATS (PCIe 10.5.1.1).
pub const ATS_ID: u16 = 0x000f;
/// Extended capability id of PRI (PCIe 10.5.2.1).
pub const PRI_ID: u16 = 0x0013;
/// Extended capability id of PASID (PCIe 7.8.9.1).
pub const PASID_ID: u16 = 0x001b;

/// Size of the ATS structure in bytes.
pub const ATS_SIZE: u16 = 8;
/// Size of the PRI structure in bytes.
pub const PRI_SIZE: u16 = 16;
/// Size of the PASID structure in bytes.
pub const PASID_SIZE: u16 = 8;

/// The ATS extended capability (PCIe 10.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ats {
    /// Invalidate Queue Depth, 0 to 31, where 0 means 32.
    pub queue_depth: u8,
    /// Global Invalidate Supported.
    pub global_invalidate: bool,
    /// Smallest Translation Unit: granules of 4 KiB << `stu`.
    pub stu: u8,
    /// Enable.
    pub enable: bool,
}

impl Ats {
    /// The structure after a reset.
    pub const fn new(queue_depth: u8, global_invalidate: bool) -> Self {
        Ats {
            queue_depth: queue_depth & 31,
            global_invalidate,
            stu: 0,
            enable: false,
        }
    }

    /// Reads the double word at `offset`.
    pub const fn read(&self, offset: u16) -> u32 {
        match offset {
            // Page Aligned Request is always set: requests are aligned to 4 KiB.
            4 => {
                self.queue_depth as u32
                    | 1 << 5
                    | (self.global_invalidate as u32) << 6
                    | (self.stu as u32) << 16
                    | (self.enable as u32) << 31
            }
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of the double word at `offset`. The smallest translation unit
    /// changes only while ATS is not enabled; the write that enables ATS may still set it.
    pub const fn write(&mut self, offset: u16, value: u32, mask: u32) {
        if offset != 4 {
            return;
        }
        let new = self.read(4) & !mask | value & mask;
        if !self.enable {
            self.stu = (new >> 16) as u8 & 31;
        }
        self.enable = new >> 31 != 0;
    }
}

/// The PASID extended capability (PCIe 7.8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasidCapability {
    /// Max PASID Width.
    pub width: PasidWidth,
    /// Execute Permission Supported.
    pub execute_supported: bool,
    /// Privileged Mode Supported.
    pub privileged_supported: bool,
    /// PASID Enable.
    pub enable: bool,
    /// Execute Permission Enable: requests with a PASID may ask for execution.
    pub execute_enable: bool,
    /// Privileged Mode Enable: requests with a PASID may ask for privileged mode.
    pub privileged_enable: bool,
}

impl PasidCapability {
    /// The structure after a reset, with the supported kinds of requests.
    pub const fn new(width: PasidWidth, execute: bool, privileged: bool) -> Self {
        PasidCapability {
            width,
            execute_supported: execute,
            privileged_supported: privileged,
            enable: false,
            execute_enable: false,
            privileged_enable: false,
        }
    }

    /// Reads the double word at `offset`.
    pub const fn read(&self, offset: u16) -> u32 {
        match offset {
            4 => {
                (self.execute_supported as u32) << 1
                    | (self.privileged_supported as u32) << 2
                    | (self.width.bits() as u32) << 8
                    | (self.enable as u32) << 16
                    | (self.execute_enable as u32) << 17
                    | (self.privileged_enable as u32) << 18
            }
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of the double word at `offset`. The control register does not
    /// change while ATS is enabled (PCIe 7.8.9.3); the caller passes that state. Features that are
    /// not supported are never enabled.
    pub const fn write(&mut self, offset: u16, value: u32, mask: u32, ats_enabled: bool) {
        if offset == 4 && !ats_enabled {
            let new = self.read(4) & !mask | value & mask;
            self.enable = new >> 16 & 1 != 0;
            self.execute_enable = self.execute_supported && new >> 17 & 1 != 0;
            self.privileged_enable = self.privileged_supported && new >> 18 & 1 != 0;
        }
    }
}

/// The page request extended capability (PCIe 10.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pri {
    /// Outstanding Page Request Capacity: the largest number of outstanding pages that the function
    /// supports.
    pub capacity: u32,
    /// Outstanding Page Request Allocation: the number of pages that it may have outstanding.
    pub allocation: u32,
    /// Enable.
    pub enable: bool,
    /// Response Failure.
    pub response_failure: bool,
    /// Unexpected Page Request Group Index.
    pub unexpected_prgi: bool,
    /// Stopped: not enabled, and no page request outstanding.
    pub stopped: bool,
}

/// What a write to the page request structure requires of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PriChange {
    /// Nothing.
    None,
    /// It was enabled.
    Enabled,
    /// It was disabled: no new requests; set `stopped` when none is outstanding.
    Disabled,
    /// Reset was written while it was disabled: the function drops outstanding requests.
    Reset,
}

impl Pri {
    /// The structure after a reset.
    pub const fn new(capacity: u32) -> Self {
        Pri {
            capacity,
            allocation: 0,
            enable: false,
            response_failure: false,
            unexpected_prgi: false,
            stopped: true,
        }
    }

    /// Reads the double word at `offset`.
    pub const fn read(&self, offset: u16) -> u32 {
        match offset {
            // PRG Response PASID Required is always set.
            4 => {
                self.enable as u32
                    | (self.response_failure as u32) << 16
                    | (self.unexpected_prgi as u32) << 17
                    | (self.stopped as u32) << 24
                    | 1 << 31
            }
            8 => self.capacity,
            12 => self.allocation,
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of the double word at `offset`, and returns what the function has
    /// to do. Enabling is ignored unless `stopped` is set; the allocation changes only while
    /// disabled and is limited to the capacity; Response Failure and Unexpected PRGI are cleared by
    /// writing 1, and by enabling.
    pub fn write(&mut self, offset: u16, value: u32, mask: u32) -> PriChange {
        let bits = value & mask;
        match offset {
            4 => {
                self.response_failure &= bits >> 16 & 1 == 0;
                self.unexpected_prgi &= bits >> 17 & 1 == 0;
                let enable = if mask & 1 != 0 {
                    bits & 1 != 0
                } else {
                    self.enable
                };
                let reset = bits & 2 != 0;
                match (self.enable, enable) {
                    (false, true) if self.stopped => {
                        self.enable = true;
                        self.stopped = false;
                        self.response_failure = false;
                        self.unexpected_prgi = false;
                        PriChange::Enabled
                    }
                    (true, false) => {
                        self.enable = false;
                        PriChange::Disabled
                    }
                    (false, false) if reset => {
                        self.response_failure = false;
                        self.unexpected_prgi = false;
                        self.stopped = true;
                        PriChange::Reset
                    }
                    _ => PriChange::None,
                }
            }
            12 if !self.enable => {
                self.allocation = (self.allocation & !mask | bits).min(self.capacity);
                PriChange::None
            }
            _ => PriChange::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_04_stu_is_writable_only_while_ats_is_off() {
        let mut ats = Ats::new(0, true);
        ats.write(4, 1 << 31 | 3 << 16, 0xffff_0000);
        assert_eq!((ats.enable, ats.stu), (true, 3));
        ats.write(4, 1 << 31 | 5 << 16, 0xffff_0000);
        assert_eq!(ats.stu, 3);
        ats.write(4, 5 << 16, 0xffff_0000);
        assert!(!ats.enable);
    }

    #[test]
    fn rule_06_pasid_enable_is_stable_while_ats_is_on() {
        let mut pasid = PasidCapability::new(PasidWidth::MAX, false, false);
        pasid.write(4, 1 << 16, 0xffff_0000, false);
        assert!(pasid.enable);
        pasid.write(4, 0, 0xffff_0000, true);
        assert!(pasid.enable);
    }

    #[test]
    fn rule_07_execute_and_privileged_requests_are_enabled_only_where_supported() {
        for (execute, privileged) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut pasid = PasidCapability::new(PasidWidth::MAX, execute, privileged);
            let bits = |n: u32| u32::from(execute) << n | u32::from(privileged) << (n + 1);
            assert_eq!(pasid.read(4), 20 << 8 | bits(1));
            pasid.write(4, 7 << 16, 0xffff_0000, false);
            assert_eq!(pasid.read(4), 20 << 8 | bits(1) | 1 << 16 | bits(17));
            pasid.write(4, 1 << 16, 0xffff_0000, true);
            assert_eq!(pasid.execute_enable, execute);
            pasid.write(4, 1 << 16, 0xffff_0000, false);
            assert!(!pasid.execute_enable && !pasid.privileged_enable);
        }
    }

    #[test]
    fn rule_09_pri_enables_only_when_stopped_and_latches_its_allocation() {
        let mut pri = Pri::new(64);
        pri.write(12, 1000, !0);
        assert_eq!(pri.allocation, 64);
        assert_eq!(pri.write(4, 1, 0xffff), PriChange::Enabled);
        pri.write(12, 8, !0);
        assert_eq!(pri.allocation, 64);
        assert_eq!(pri.write(4, 0, 0xffff), PriChange::Disabled);
        // Requests are still outstanding.
        assert_eq!(pri.write(4, 1, 0xffff), PriChange::None);
        assert!(!pri.enable);
        assert_eq!(pri.write(4, 2, 0xffff), PriChange::Reset);
        assert_eq!(pri.write(4, 1, 0xffff), PriChange::Enabled);
    }

    #[test]
    fn pri_status_bits_are_cleared_by_writing_one() {
        let mut pri = Pri::new(64);
        pri.response_failure = true;
        pri.unexpected_prgi = true;
        pri.write(4, 0, !0);
        assert!(pri.response_failure && pri.unexpected_prgi);
        pri.write(4, 1 << 16, 0xffff_0000);
        assert!(!pri.response_failure && pri.unexpected_prgi);
    }
}
