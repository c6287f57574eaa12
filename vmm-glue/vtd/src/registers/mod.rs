// SPDX-License-Identifier: MIT OR Apache-2.0
//! The register file (section 11.4): values, access rules and the event interrupts that follow
//! from them. It does not know tables, caches or queues: it returns a write's request to the rest
//! of the unit as a [`Command`].

mod virtual_command;

use crate::capabilities::Capabilities;
use crate::effect::{Effect, Effects, Refusal};
use crate::event::Event;
use crate::fault::{FaultLog, Recorded};
use crate::mutant::{Mutant, breaks};
use crate::spec::SourceId;
use crate::spec::descriptor::QueueError;
use crate::spec::fault::FaultRecord;
use crate::spec::register::{
    ContextCommand, InterruptRemappingTableAddress, InvalidateAddress, InvalidationQueueAddress,
    InvalidationQueueErrorRecord, IotlbCommand, PageRequestQueueAddress, RootTableAddress, fsts,
    global, offset, prs,
};
use crate::spec::virtual_command::Command as VirtualCommand;
use crate::spec::{above, mask};
use virtual_command::VirtualCommands;

/// The request of a register write to the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// GCMD_REG was written with this value.
    Global(u32),
    /// ICC of CCMD_REG was set: invalidate the context cache.
    InvalidateContext,
    /// IVT of IOTLB_REG was set: invalidate the IOTLB.
    InvalidateIotlb,
    /// The invalidation queue may be able to advance: its tail moved, or an error was cleared.
    Queue,
    /// VCMD_REG was written: a virtual command begins.
    Virtual(VirtualCommand),
}

/// The protected memory registers (section 11.4.8).
#[derive(Clone, Copy, Debug, Default)]
struct ProtectedMemory {
    enable: bool,
    low: [u32; 2],
    high: [u64; 2],
}

/// Granule of protected memory regions: the lower bits of their registers are reserved.
const PROTECTED_GRANULE: u64 = 1 << 21;

/// The register file.
#[derive(Clone, Debug)]
pub struct Registers {
    caps: Capabilities,
    gsts: u32,
    rtaddr: RootTableAddress,
    ccmd: ContextCommand,
    iotlb: IotlbCommand,
    iva: InvalidateAddress,
    /// PFO, IQE, ICE and ITE; PPF and FRI are computed.
    fsts: u32,
    fri: u8,
    faults: FaultLog,
    fault_event: Event,
    protected: ProtectedMemory,
    iqh: u64,
    iqt: u64,
    iqa: InvalidationQueueAddress,
    iwc: bool,
    invalidation_event: Event,
    iqercd: InvalidationQueueErrorRecord,
    irta: InterruptRemappingTableAddress,
    pqh: u64,
    pqt: u64,
    /// None until software writes it.
    pqa: Option<PageRequestQueueAddress>,
    prs: u32,
    page_request_event: Event,
    virtual_commands: VirtualCommands,
}

/// Replaces the half of a register that `offset` selects.
fn put(register: &mut u64, offset: u16, value: u32, writable: u64) {
    let shift = u32::from(offset % 8) * 8;
    let writable = writable & 0xffff_ffff << shift;
    *register = *register & !writable | (value as u64) << shift & writable;
}

/// The half of a register that `offset` selects.
fn half(register: u64, offset: u16) -> u32 {
    (register >> (offset % 8 * 8)) as u32
}

impl Registers {
    /// The registers after a reset.
    pub fn new(caps: Capabilities) -> Self {
        Registers {
            gsts: 0,
            rtaddr: RootTableAddress::ZERO,
            ccmd: ContextCommand::ZERO,
            iotlb: IotlbCommand::ZERO,
            iva: InvalidateAddress::ZERO,
            fsts: 0,
            fri: 0,
            faults: FaultLog::new(caps.cap().fault_recording_registers()),
            fault_event: Event::default(),
            protected: ProtectedMemory::default(),
            iqh: 0,
            iqt: 0,
            iqa: InvalidationQueueAddress::ZERO,
            iwc: false,
            invalidation_event: Event::default(),
            iqercd: InvalidationQueueErrorRecord::ZERO,
            irta: InterruptRemappingTableAddress::ZERO,
            pqh: 0,
            pqt: 0,
            pqa: None,
            prs: 0,
            page_request_event: Event::default(),
            virtual_commands: VirtualCommands::default(),
            caps,
        }
    }

    /// Reads 4 or 8 bytes at an aligned offset. Any other access reads as zero (section 11.2
    /// forbids it to software).
    pub fn read(&self, offset: u16, size: u8) -> u64 {
        match size {
            4 if offset % 8 == 4 && breaks(Mutant::S80C) => 0,
            4 if offset % 4 == 0 => self.read32(offset).into(),
            8 if offset % 8 == 0 => {
                u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
            }
            _ => 0,
        }
    }

    /// Reads the double word at an offset.
    fn read32(&self, at: u16) -> u32 {
        use offset as o;
        match at & !7 {
            o::CAP => return half(self.caps.cap().0, at),
            o::ECAP => return half(self.caps.ecap().0, at),
            o::RTADDR => return half(self.rtaddr.0, at),
            o::CCMD => return half(self.ccmd.0, at),
            o::PHMBASE => return half(self.protected.high[0], at),
            o::PHMLIMIT => return half(self.protected.high[1], at),
            o::IQH => return half(self.iqh, at),
            o::IQT => return half(self.iqt, at),
            o::IQA => return half(self.iqa.0, at),
            o::IQERCD => return half(self.iqercd.0, at),
            o::IRTA => return half(self.irta.0, at),
            o::PQH => return half(self.pqh, at),
            o::PQT => return half(self.pqt, at),
            o::PQA => return half(self.pqa.map_or(0, |pqa| pqa.0), at),
            o::IOTLB => return half(self.iotlb.0, at),
            o::VCMD..=o::VCCAP if self.caps.ecap().vcs() => return self.read_virtual(at),
            _ => {}
        }
        match at {
            o::VER => self.caps.version(),
            o::GSTS => self.gsts,
            o::FSTS => self.fault_status(),
            o::FECTL..=0x44 => self.fault_event.read(at - o::FECTL),
            o::PMEN => (self.protected.enable as u32) << 31 | self.protected.enable as u32,
            o::PLMBASE => self.protected.low[0],
            o::PLMLIMIT => self.protected.low[1],
            o::ICS => self.iwc as u32,
            o::IECTL..=0xac => self.invalidation_event.read(at - o::IECTL),
            o::PRS => self.prs,
            o::PECTL..=0xec if self.caps.ecap().prs() => {
                self.page_request_event.read(at - o::PECTL)
            }
            o::FRCD..o::FRCD_END => self.faults.read(at - o::FRCD),
            // GCMD and IVA are write-only.
            _ => 0,
        }
    }

    /// Writes 4 or 8 bytes at an aligned offset. Any other access is ignored.
    pub fn write(
        &mut self,
        offset: u16,
        value: u64,
        size: u8,
        fx: &mut Effects,
    ) -> Option<Command> {
        match size {
            4 if offset % 4 == 0 => self.write32(offset, value as u32, fx),
            8 if offset % 8 == 0 => {
                // No two command registers share 8 bytes. The control register of an event comes
                // last: unmasking sends a pending interrupt with the new data. So does the half of
                // VCMD_REG that has the command: its operand is in both.
                let halves = [(offset, value as u32), (offset + 4, (value >> 32) as u32)];
                let [first, second] = match offset {
                    offset::FECTL | offset::IECTL | offset::PECTL | offset::VCMD => {
                        [halves[1], halves[0]]
                    }
                    _ => halves,
                };
                let first = self.write32(first.0, first.1, fx);
                let second = self.write32(second.0, second.1, fx);
                second.or(first)
            }
            _ => {
                fx.push(Effect::Refused(Refusal::RegisterWrite { offset, size }));
                None
            }
        }
    }

    /// Writes the double word at an offset.
    fn write32(&mut self, at: u16, value: u32, fx: &mut Effects) -> Option<Command> {
        use offset as o;
        let ecap = self.caps.ecap();
        let held = !above(self.caps.host_address_width());
        let mut command = None;
        match at & !7 {
            o::RTADDR => {
                let writable = RootTableAddress::FIELDS[0] & held;
                put(&mut self.rtaddr.0, at, value, writable);
            }
            o::CCMD => {
                let computed = ContextCommand::ZERO.with_caig(3).0;
                let writable = ContextCommand::FIELDS[0] & !computed;
                put(&mut self.ccmd.0, at, value, writable);
                if at & 4 != 0 && value >> 31 != 0 {
                    command = Some(Command::InvalidateContext);
                }
            }
            o::PHMBASE | o::PHMLIMIT if self.caps.cap().phmr() => {
                let writable = !(PROTECTED_GRANULE - 1) & held;
                let register = &mut self.protected.high[usize::from(at & !7 == o::PHMLIMIT)];
                put(register, at, value, writable);
            }
            o::IQT => {
                put(&mut self.iqt, at, value, mask(18, 4));
                if at & 4 == 0 {
                    command = Some(Command::Queue);
                }
            }
            o::IQA => {
                let writable = InvalidationQueueAddress::FIELDS[0] & held;
                put(&mut self.iqa.0, at, value, writable);
            }
            o::IRTA if ecap.ir() => {
                let reserved = InterruptRemappingTableAddress::ZERO
                    .with_eime(!ecap.eim())
                    .0;
                let writable = InterruptRemappingTableAddress::FIELDS[0] & held & !reserved;
                put(&mut self.irta.0, at, value, writable);
            }
            o::PQH if ecap.prs() => put(&mut self.pqh, at, value, mask(18, 5)),
            o::PQT if ecap.prs() => put(&mut self.pqt, at, value, mask(18, 5)),
            o::PQA if ecap.prs() => {
                let pqa = self.pqa.get_or_insert(PageRequestQueueAddress::ZERO);
                let writable = PageRequestQueueAddress::FIELDS[0] & held;
                put(&mut pqa.0, at, value, writable);
            }
            o::IVA => put(&mut self.iva.0, at, value, InvalidateAddress::FIELDS[0]),
            o::IOTLB => {
                let computed = IotlbCommand::ZERO.with_iaig(3).0;
                let writable = IotlbCommand::FIELDS[0] & !computed;
                put(&mut self.iotlb.0, at, value, writable);
                if at & 4 != 0 && value >> 31 != 0 {
                    command = Some(Command::InvalidateIotlb);
                }
            }
            o::VCMD if ecap.vcs() => match at & 4 {
                0 => command = self.virtual_commands.start(value).map(Command::Virtual),
                _ => self.virtual_commands.set_upper(value),
            },
            o::VCMD_EO if ecap.vcs() => {
                let mut operand = self.virtual_commands.operand();
                put(&mut operand, at, value, u64::MAX);
                self.virtual_commands.set_operand(operand);
            }
            _ => command = self.write_single(at, value, fx),
        }
        command
    }

    /// Writes a register of 32 bits.
    fn write_single(&mut self, at: u16, value: u32, fx: &mut Effects) -> Option<Command> {
        use offset as o;
        let granule = !(PROTECTED_GRANULE as u32 - 1);
        match at {
            o::GCMD => return Some(Command::Global(value)),
            o::FSTS => {
                let errors = fsts::IQE | fsts::ITE;
                let resumes = self.fsts & value & errors != 0;
                let clears = match breaks(Mutant::B13) {
                    true => fsts::PFO | fsts::IQE,
                    false => fsts::PFO | errors | fsts::ICE,
                };
                self.fsts &= !(value & clears);
                self.fault_serviced();
                return resumes.then_some(Command::Queue);
            }
            o::FECTL..=0x44 => self.fault_event.write(at - o::FECTL, value, fx),
            o::PMEN if self.caps.cap().plmr() => self.protected.enable = value >> 31 != 0,
            o::PLMBASE if self.caps.cap().plmr() => self.protected.low[0] = value & granule,
            o::PLMLIMIT if self.caps.cap().plmr() => self.protected.low[1] = value & granule,
            o::ICS if value & 1 != 0 => {
                self.iwc = false;
                self.invalidation_event.serviced();
            }
            o::IECTL..=0xac => self.invalidation_event.write(at - o::IECTL, value, fx),
            o::PRS => {
                self.prs &= !value;
                if self.prs == 0 {
                    self.page_request_event.serviced();
                }
            }
            o::PECTL..=0xec if self.caps.ecap().prs() => {
                self.page_request_event.write(at - o::PECTL, value, fx);
            }
            o::FRCD..o::FRCD_END => {
                self.faults.write(at - o::FRCD, value);
                self.fault_serviced();
            }
            _ => {}
        }
        None
    }

    /// Reads a virtual command register.
    fn read_virtual(&self, at: u16) -> u32 {
        use offset as o;
        let [response, capability] = match breaks(Mutant::N1_21) {
            true => [o::VCCAP, o::VCRSP],
            false => [o::VCRSP, o::VCCAP],
        };
        let v = &self.virtual_commands;
        let register = match at & !7 {
            o::VCMD => v.command(),
            o::VCMD_EO => v.operand(),
            at if at == response => v.response(),
            at if at == capability => v.capability(),
            _ => 0,
        };
        half(register, at)
    }

    /// The virtual command registers.
    pub const fn virtual_commands(&mut self) -> &mut VirtualCommands {
        &mut self.virtual_commands
    }

    /// FSTS_REG, including its computed fields.
    fn fault_status(&self) -> u32 {
        let ppf = if self.faults.pending() { fsts::PPF } else { 0 };
        self.fsts | ppf | (self.fri as u32) << 8
    }

    /// Whether software has not yet serviced a condition of the fault event.
    fn fault_unserviced(&self) -> bool {
        self.fsts != 0 || self.faults.pending()
    }

    /// Drops a pending fault event once software has serviced all conditions (section 7.3).
    fn fault_serviced(&mut self) {
        if !self.fault_unserviced() {
            self.fault_event.serviced();
        }
    }

    /// Records a fault (sections 7.2.1 and 7.3).
    pub fn record_fault(&mut self, record: &FaultRecord, fx: &mut Effects) {
        if self.fsts & fsts::PFO != 0 {
            return;
        }
        let quiet = !self.fault_unserviced();
        match self.faults.record(record) {
            Recorded::Recorded { index, first } => {
                if first {
                    self.fri = index;
                }
                if quiet {
                    self.fault_event.raise(fx);
                }
            }
            // An overflow is not an interrupt condition.
            Recorded::Overflow => self.fsts |= fsts::PFO,
            Recorded::Collapsed => {}
        }
    }

    /// Sets IQE, ICE or ITE (sections 6.5.2.11 and 7.3).
    fn set_error(&mut self, bit: u32, fx: &mut Effects) {
        let quiet = !self.fault_unserviced();
        self.fsts |= bit;
        if quiet {
            self.fault_event.raise(fx);
        }
    }

    /// Reports an error of the invalidation queue.
    pub fn queue_error(&mut self, error: QueueError, fx: &mut Effects) {
        if !breaks(Mutant::S74) {
            self.iqercd = self.iqercd.with_iqei(error as u8);
        }
        self.set_error(fsts::IQE, fx);
    }

    /// Reports an unexpected invalidation completion.
    pub fn completion_error(&mut self, requester: SourceId, fx: &mut Effects) {
        if self.fsts & fsts::ICE == 0 {
            self.iqercd = self.iqercd.with_icesid(requester);
        }
        self.set_error(fsts::ICE, fx);
    }

    /// Reports a time-out of an invalidation request.
    pub fn timeout_error(&mut self, requester: SourceId, fx: &mut Effects) {
        if self.fsts & fsts::ITE == 0 {
            self.iqercd = self.iqercd.with_itesid(requester);
        }
        self.set_error(fsts::ITE, fx);
    }

    /// Reports that a wait descriptor with IF completed (section 6.5.2.10).
    pub fn wait_completed(&mut self, fx: &mut Effects) {
        if !self.iwc {
            self.iwc = true;
            self.invalidation_event.raise(fx);
        }
    }

    /// Sets PPR or PRO (section 7.5).
    pub fn set_page_request_status(&mut self, bit: u32, fx: &mut Effects) {
        let quiet = self.prs == 0;
        self.prs |= bit;
        if quiet {
            self.page_request_event.raise(fx);
        }
    }

    /// Whether the page request queue has overflowed (PRO).
    pub const fn page_request_overflow(&self) -> bool {
        self.prs & prs::PRO != 0
    }

    /// Whether the queue may fetch: it is enabled, and neither IQE nor ITE is set.
    pub const fn queue_runs(&self) -> bool {
        self.status(global::QIE) && self.fsts & (fsts::IQE | fsts::ITE) == 0
    }

    /// Whether a field of GSTS_REG is set.
    pub const fn status(&self, field: u32) -> bool {
        self.gsts & field != 0
    }

    /// Sets or clears a field of GSTS_REG. Disabling the queue resets its head (section 6.5.2);
    /// with both translations off, the next fault goes to the first register (section 7.2.1).
    pub const fn set_status(&mut self, field: u32, on: bool) {
        if on {
            self.gsts |= field;
            return;
        }
        self.gsts &= !field;
        if field & global::QIE != 0 {
            self.iqh = 0;
        }
        if self.gsts & (global::TE | global::IRE) == 0 {
            self.faults.rewind();
        }
    }

    /// RTADDR_REG.
    pub const fn rtaddr(&self) -> RootTableAddress {
        self.rtaddr
    }

    /// IRTA_REG.
    pub const fn irta(&self) -> InterruptRemappingTableAddress {
        self.irta
    }

    /// CCMD_REG.
    pub const fn ccmd(&self) -> ContextCommand {
        self.ccmd
    }

    /// IOTLB_REG.
    pub const fn iotlb(&self) -> IotlbCommand {
        self.iotlb
    }

    /// IVA_REG.
    pub const fn iva(&self) -> InvalidateAddress {
        self.iva
    }

    /// Completes a context-cache invalidation: clears ICC and sets CAIG to the granularity; 0
    /// refuses.
    pub const fn complete_context_invalidation(&mut self, caig: u8) {
        self.ccmd = self.ccmd.with_icc(false).with_caig(caig);
    }

    /// Completes an IOTLB invalidation: clears IVT and sets IAIG to the granularity; 0 refuses.
    pub const fn complete_iotlb_invalidation(&mut self, iaig: u8) {
        self.iotlb = self.iotlb.with_ivt(false).with_iaig(iaig);
    }

    /// IQH_REG: offset of the next descriptor.
    pub const fn iqh(&self) -> u64 {
        self.iqh
    }

    /// IQT_REG: offset after the last descriptor.
    pub const fn iqt(&self) -> u64 {
        self.iqt
    }

    /// Moves the head of the invalidation queue.
    pub const fn set_iqh(&mut self, iqh: u64) {
        self.iqh = iqh;
    }

    /// IQA_REG: base, size of the queue in bytes, whether descriptors have 256 bits.
    pub const fn iqa(&self) -> (u64, u64, bool) {
        (self.iqa.iqa(), 4096 << self.iqa.qs(), self.iqa.dw())
    }

    /// PQH_REG, PQT_REG, and from PQA_REG the base and the size of the queue in bytes; none until
    /// software has set up a queue.
    pub fn page_request_queue(&self) -> Option<(u64, u64, u64, u64)> {
        let pqa = self.pqa?;
        Some((self.pqh, self.pqt, pqa.pqa(), 4096 << pqa.pqs()))
    }

    /// Moves the tail of the page request queue.
    pub const fn set_pqt(&mut self, pqt: u64) {
        self.pqt = pqt;
    }

    /// Whether any memory is protected (section 11.4.8).
    pub const fn protects(&self) -> bool {
        self.protected.enable
    }

    /// Whether an access to a range of host addresses meets protected memory (section 11.4.8).
    pub const fn is_protected(&self, first: u64, last: u64) -> bool {
        let p = &self.protected;
        if !p.enable {
            return false;
        }
        overlaps(
            first,
            last,
            p.low[0] as u64,
            p.low[1] as u64 | (PROTECTED_GRANULE - 1),
        ) || overlaps(first, last, p.high[0], p.high[1] | (PROTECTED_GRANULE - 1))
    }
}

/// Whether two ranges have an address in common; a range with its limit below its base is empty.
const fn overlaps(first: u64, last: u64, base: u64, limit: u64) -> bool {
    limit >= base && first <= limit && last >= base
}

#[cfg(test)]
mod tests;
