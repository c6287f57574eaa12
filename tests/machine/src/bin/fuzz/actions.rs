// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can happen to a machine.

use crate::world::{FORBIDDEN, POOL, Statistics, World};
use machine::os::{
    CONTEXT_GLOBAL, INTERRUPTS_GLOBAL, IOTLB_GLOBAL, PASID_GLOBAL, Words, context_device,
    device_tlb, device_tlb_pasid, fence, iotlb_domain, iotlb_domain_pages, iotlb_pasid,
    iotlb_pasid_pages, page_group_response, pasid_entry, wait,
};
use pcie_ats::{PrgResponse, ResponseCode};
use vtd::memory::Memory;
use vtd::spec::register::{global, offset};

/// The registers of a unit that are written most.
const REGISTERS: [u16; 33] = [
    offset::GCMD,
    offset::GCMD,
    offset::RTADDR,
    offset::CCMD,
    offset::CCMD + 4,
    offset::FSTS,
    offset::FECTL,
    offset::FECTL + 4,
    offset::FECTL + 8,
    offset::PMEN,
    offset::PLMBASE,
    offset::PLMLIMIT,
    offset::PHMBASE,
    offset::PHMLIMIT,
    offset::IQH,
    offset::IQT,
    offset::IQT,
    offset::IQT,
    offset::IQA,
    offset::ICS,
    offset::IECTL,
    offset::IQERCD,
    offset::IRTA,
    offset::PQH,
    offset::PQT,
    offset::PQA,
    offset::PRS,
    offset::PRS,
    offset::PECTL,
    offset::IVA,
    offset::IOTLB,
    offset::FRCD + 12,
    offset::VER,
];

impl World {
    /// Does one thing.
    pub fn act(&mut self, statistics: &mut Statistics) {
        match self.draw.below(32) {
            0..=2 => self.write_unit(),
            3 => self.orderly_unit(),
            4..=8 => self.queue(),
            9..=12 => self.change_table(),
            13 => self.heal(),
            14..=16 => self.translate(statistics),
            17 | 18 => self.ask(statistics),
            19 => self.page_request(),
            20 | 21 => self.access(statistics),
            22 => self.interrupt(),
            23 => self.complete(),
            24 => self.shadow(),
            25 => self.configure(),
            26 | 27 => self.write_bar(),
            28 => self.experiment(),
            29 | 30 => self.step(statistics),
            _ => self.rarity(),
        }
    }

    // Units.

    fn write_unit(&mut self) {
        let at = match self.draw.once_in(6) {
            true => self.draw.below(0x400) as u16 & !3,
            false => self.draw.one(&REGISTERS),
        };
        let size = if at % 8 == 0 && self.draw.once_in(2) {
            8
        } else {
            4
        };
        let size = if self.draw.once_in(50) {
            self.draw.one(&[0, 1, 2, 3, 16])
        } else {
            size
        };
        let value = match self.draw.below(6) {
            0 => self.frame() | self.draw.below(8),
            1 => self.frame() | 1 << 10 | self.draw.one(&[0, 1 << 11]),
            2 => 1 << self.draw.below(64),
            3 => self.draw.below(64) * 16,
            4 => self.machine.unit_read(0, at & !7, 8) ^ 1 << self.draw.below(64),
            _ => self.draw.word(),
        };
        // Tables and queues of a tame case lie in frames: whatever else points there is not tame.
        let points = matches!(
            at & !7,
            offset::RTADDR | offset::IQA | offset::IRTA | offset::PQA
        );
        if self.tame && points {
            let value = self.frame() | value & 0xfff;
            self.tell(|| format!("unit {at:#x} <- {value:#x} (8)"));
            return self.machine.unit_write(0, at & !7, value, 8);
        }
        self.tell(|| format!("unit {at:#x} <- {value:#x} ({size})"));
        self.machine.unit_write(0, at, value, size);
        if at == offset::IQT {
            self.tail = self.machine.unit_read(0, offset::IQT, 8);
        }
    }

    /// What a driver would do: commands one at a time, errors cleared, the queue at its place.
    fn orderly_unit(&mut self) {
        let write32 = |at, value: u32| self.machine.unit_write(0, at, value.into(), 4);
        let status = self.machine.unit_read(0, offset::GSTS, 4) as u32 & 0x96ff_ffff;
        let bit = match self.draw.below(8) {
            0 => global::SRTP,
            1 => global::SIRTP,
            2 => global::IRE,
            3 => global::CFI,
            4 | 5 => global::QIE,
            _ => global::TE,
        };
        let off = self.draw.once_in(4);
        self.tell(|| format!("command {bit:#x}, off {off}"));
        write32(offset::GCMD, if off { status & !bit } else { status | bit });
        write32(offset::FSTS, u32::MAX);
        write32(offset::PRS, u32::MAX);
        let scalable = self.machine.unit_read(0, offset::RTADDR, 8) >> 10 & 3 == 1;
        let iqa = self.machine.unit_read(0, offset::IQA, 8) & !(1 << 11);
        self.machine
            .unit_write(0, offset::IQA, iqa | u64::from(scalable) << 11, 8);
        self.tail = self.machine.unit_read(0, offset::IQH, 8) & !31;
        self.machine.unit_write(0, offset::IQT, self.tail, 8);
        let pqt = self.machine.unit_read(0, offset::PQT, 8);
        self.machine.unit_write(0, offset::PQH, pqt, 8);
    }

    /// Puts a descriptor into the queue, and mostly moves the tail behind it.
    fn queue(&mut self) {
        let mut words = self.descriptor();
        if self.draw.once_in(8) {
            words[self.draw.below(2) as usize] ^= 1 << self.draw.below(64);
        }
        let iqa = self.machine.unit_read(0, offset::IQA, 8);
        let (base, size) = (iqa & !0xfff, 4096u64 << (iqa & 7));
        let width = if iqa >> 11 & 1 != 0 { 32 } else { 16 };
        self.tail %= size;
        let extra = if self.draw.once_in(40) {
            self.draw.word()
        } else {
            0
        };
        let all = [words[0], words[1], extra, 0];
        for (n, word) in all.iter().take(width / 8).enumerate() {
            let at = base + self.tail + n as u64 * 8;
            // The queue may have been put where there is no memory.
            if !(self.tame && at >= FORBIDDEN) {
                let _ = self.machine.ram().store(at, *word);
            }
        }
        self.tail = (self.tail + width as u64) % size;
        self.tell(|| format!("descriptor {words:x?}, tail {:#x}", self.tail));
        if !self.draw.once_in(6) {
            self.machine.unit_write(0, offset::IQT, self.tail, 8);
        }
    }

    fn descriptor(&mut self) -> Words {
        let did = self.draw.below(6) as u16;
        let (pasid, range, requester) = (self.some_pasid(), self.range(), self.requester());
        let status = self.frame() + self.draw.below(1024) * 4;
        let value = self.draw.below(256) as u32;
        match self.draw.below(17) {
            0 => CONTEXT_GLOBAL,
            1 => PASID_GLOBAL,
            2 => IOTLB_GLOBAL,
            3 => INTERRUPTS_GLOBAL,
            4 => context_device(did, requester),
            5 => pasid_entry(did, pasid),
            6 => iotlb_pasid(did, pasid),
            7 => iotlb_pasid_pages(did, pasid, range),
            8 => iotlb_domain(did),
            9 => iotlb_domain_pages(did, range),
            10 => device_tlb(requester, range),
            11 => device_tlb_pasid(requester, pasid, range),
            12 | 13 => page_group_response(
                requester,
                &PrgResponse {
                    prgi: self.prgi(),
                    pasid: Some(pasid).filter(|_| !self.draw.once_in(6)),
                    code: ResponseCode::from_bits(self.draw.one(&[0, 0, 0, 1, 15])),
                },
            ),
            14 => wait(status, value),
            15 => fence(status, value),
            // In a tame case, no status may go where only frames of the pool are not.
            _ if self.tame => wait(status, 0),
            _ => [self.draw.word(), self.draw.word()],
        }
    }

    // Tables.

    /// Changes a word of some table, most likely one that says something.
    fn change_table(&mut self) {
        let mut at = 0;
        for _ in 0..16 {
            at = self.frame() + self.draw.below(512) * 8;
            if self.machine.ram().load(at) != Ok(0) {
                break;
            }
        }
        let old = self.machine.ram().load(at).unwrap_or_default();
        let new = match self.draw.below(6) {
            0 => self.entry(),
            1 => 0,
            2 => self.frame() | old & 0xfff,
            3 if !self.tame => old ^ 1 << self.draw.below(64),
            _ => old ^ 1 << self.draw.one(&[0, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 63]),
        };
        // A pointer stays one to a frame.
        self.tell(|| format!("[{at:#x}] {old:#x} -> {new:#x}"));
        let _ = self.machine.ram().store(at, new);
    }

    /// Puts back as they were the frames, or the registers that point to them.
    fn heal(&mut self) {
        if self.draw.once_in(3) {
            self.tell(|| "heal memory".into());
            let _ = self.machine.ram().write(POOL, &self.snapshot);
        } else {
            self.tell(|| "heal registers".into());
            let write = |at, value| self.machine.unit_write(0, at, value, 8);
            let command = |bits: u32| {
                self.machine.unit_write(0, offset::GCMD, bits.into(), 4);
            };
            command(0);
            for (at, value) in self.pointers {
                write(at, value);
            }
            for at in [offset::IQT, offset::PQH, offset::PQT] {
                write(at, 0);
            }
            for at in [offset::FSTS, offset::PRS, offset::ICS] {
                self.machine.unit_write(0, at, u32::MAX.into(), 4);
            }
            let on = global::QIE | global::IRE | global::TE;
            for bits in [global::SRTP, global::SIRTP, on] {
                command(bits);
            }
            self.tail = 0;
        }
    }
}
