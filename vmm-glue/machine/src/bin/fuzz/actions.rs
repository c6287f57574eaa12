// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can happen to a machine.

use crate::world::{ARENA, FORBIDDEN, LARGE_PAGES, MEMORY, PAGES, POOL, Statistics, World};
use machine::os::{
    CONTEXT_GLOBAL, INTERRUPTS_GLOBAL, IOTLB_GLOBAL, PASID_GLOBAL, Words, context_device,
    device_tlb, device_tlb_pasid, fence, iotlb_domain, iotlb_domain_pages, iotlb_pasid,
    iotlb_pasid_pages, page_group_response, pasid_entry, wait,
};
use pcie_ats::{
    AlignedRange, InvalidateCompletion, MemoryAddressType, MemoryRequest, PageRequest, Pasid,
    PrgResponse, Prgi, ResponseCode, RootPort, Translation, TranslationRequest,
};
use std::sync::atomic::Ordering;
use std::time::Duration;
use svm_abi::descriptor::{Descriptor, Operation};
use svm_abi::registers::{context, context_block, control, laboratory, pasid};
use svm_abi::{doorbell, registers};
use svm_endpoint::{Step, config_space};
use vm_memory::{GuestAddress, Iommu, Permissions};
use vtd::memory::Memory;
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;
use vtd::spec::register::{global, offset};
use vtd::{Access, Request};

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

    // Values.

    /// A frame of the operating system.
    fn frame(&mut self) -> u64 {
        POOL + self.draw.below((self.pool_end - POOL) / 4096) * 4096
    }

    /// An address that is likely to mean something.
    pub fn address(&mut self) -> u64 {
        let offset = self.draw.below(4096);
        let page = self.draw.below(PAGES + 2) * 4096;
        match self.draw.below(16) {
            0..=5 => ARENA + page + offset,
            6 => 0x40_0000 + page + offset,
            7 => self.draw.one(&LARGE_PAGES) + self.draw.below(2 << 20),
            8..=10 => self.frame() + offset,
            11 => 0x6000_0000_0000 + self.draw.below(4) * 0x8_0000 + offset,
            12 => 0xfee0_0000 + self.draw.below(1 << 20),
            13 => self.draw.one(&[
                0,
                0x7fff_ffff_f000,
                0x8000_0000_0000,
                0xffff_8000_0000_0000,
                0xff_ffff_ffff_f000,
                u64::MAX - 4095,
                1 << 45,
                1 << 52,
            ]),
            14 => (1 << self.draw.below(64)) + offset,
            _ if self.tame => MEMORY + self.draw.below(1 << 30),
            _ => self.draw.word() >> self.draw.below(40),
        }
    }

    /// An address, as far as it cannot be one of the forbidden part.
    fn tame_address(&mut self) -> u64 {
        let address = self.address();
        let near = (FORBIDDEN - 0x2_0000..MEMORY).contains(&address);
        if self.tame && near { 0 } else { address }
    }

    /// A word that may stand in a table: in a tame case, a pointer to a frame with any flags that
    /// do not make it a large page.
    fn entry(&mut self) -> u64 {
        if !self.tame && self.draw.once_in(4) {
            return self.draw.word();
        }
        let flags = self.draw.below(1 << 12) & !(1 << 7);
        match self.draw.below(8) {
            0 => 0,
            1 => flags,
            2 => self.frame() | flags | 1 << 63,
            _ => self.frame() | flags & self.draw.one(&[0x67, 0xfff, 0x7, 0x1f]),
        }
    }

    fn pasid(&mut self) -> Option<Pasid> {
        let any = self.draw.below(1 << 20) as u32;
        match self.draw.below(8) {
            0 => None,
            1 => Pasid::new(any).ok(),
            2 => Pasid::new(0).ok(),
            _ if self.pasids.is_empty() => Pasid::new(any & 15).ok(),
            _ => Some(self.draw.one(&self.pasids)),
        }
    }

    fn some_pasid(&mut self) -> Pasid {
        match self.pasid().or(Pasid::new(1).ok()) {
            Some(pasid) => pasid,
            None => unreachable!("1 is a PASID"),
        }
    }

    fn function(&mut self) -> usize {
        self.draw.below(self.machine.functions() as u64) as usize
    }

    fn requester(&mut self) -> SourceId {
        if self.draw.once_in(10) {
            return SourceId(self.draw.word() as u16);
        }
        let function = self.function();
        self.machine.requester(function)
    }

    fn range(&mut self) -> AlignedRange {
        let shift = self.draw.one(&[12, 12, 12, 13, 15, 21, 30, 39, 47, 63, 64]);
        let address = self.address();
        AlignedRange::containing(address, shift).unwrap_or(AlignedRange::ALL)
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

    fn prgi(&mut self) -> Prgi {
        let index = match self.draw.once_in(4) {
            true => self.draw.below(512),
            false => self.draw.below(8),
        };
        match Prgi::new(index as u16) {
            Ok(prgi) => prgi,
            Err(error) => unreachable!("{error}"),
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

    // Requests.

    /// A request of any kind.
    pub fn request(&mut self) -> Request {
        Request {
            requester: self.requester(),
            pasid: self.pasid(),
            address: self.address(),
            access: self.draw.one(&[
                Access::Read,
                Access::Write,
                Access::Atomic,
                Access::ZeroLengthRead,
            ]),
            execute: self.draw.once_in(4),
            privileged: self.draw.once_in(4),
        }
    }

    fn translate(&mut self, statistics: &mut Statistics) {
        let request = self.request();
        let result = self
            .machine
            .with_unit(0, |unit, ram, fx| unit.translate(ram, &request, fx));
        self.tell(|| format!("{request:x?}: {result:x?}"));
        match result {
            Ok(translated) => {
                let page = translated.page;
                assert!(page.contains(request.address), "{request:x?}: {page:x?}");
                statistics.translated += 1;
            }
            Err(_) => statistics.blocked += 1,
        }
    }

    /// A translation request of any kind.
    pub fn translation_request(&mut self) -> TranslationRequest {
        TranslationRequest {
            address: self.address() & !0xfff,
            pages: self.draw.one(&[1, 2, 16]),
            pasid: self.pasid(),
            privileged: self.draw.once_in(4),
            execute: self.draw.once_in(4),
            no_write: self.draw.once_in(2),
        }
    }

    fn ask(&mut self, statistics: &mut Statistics) {
        let request = self.translation_request();
        let mut answers = [Translation::from_word(0); 16];
        let function = self.function();
        let result = self
            .machine
            .port(function)
            .translate(&request, &mut answers);
        self.tell(|| format!("{request:x?}: {result:x?}"));
        if let Ok(count) = result {
            statistics.ats_answers += 1;
            assert!(
                count >= 1 && count <= usize::from(request.pages),
                "{count} answers"
            );
            let size = answers[0].range.shift();
            assert!(answers[..count].iter().all(|a| a.range.shift() == size));
            for answer in &answers[..count] {
                assert!(!(request.no_write && answer.write && self.has_no_write()));
                assert!(!answer.execute || answer.read, "{answer:?}");
            }
        }
    }

    fn has_no_write(&self) -> bool {
        self.machine
            .with_unit(0, |unit, _, _| unit.capabilities().ecap().nwfs())
    }

    fn page_request(&mut self) {
        let request = PageRequest {
            address: self.address() & !0xfff,
            pasid: self.pasid(),
            read: !self.draw.once_in(4),
            write: self.draw.once_in(2),
            execute: self.draw.once_in(4),
            privileged: self.draw.once_in(4),
            prgi: self.prgi(),
            last: self.draw.once_in(2),
        };
        self.tell(|| format!("{request:x?}"));
        let function = self.function();
        self.machine.port(function).page_request(&request);
    }

    /// A raw access. What is written may stand in a table.
    fn access(&mut self, statistics: &mut Statistics) {
        let function = self.function();
        let translated = self.draw.once_in(2);
        let request = MemoryRequest {
            address: match translated {
                true if self.tame => self.frame() + self.draw.below(512) * 8,
                _ => self.tame_address() & !7,
            },
            address_type: if translated {
                MemoryAddressType::Translated
            } else {
                MemoryAddressType::Untranslated
            },
            pasid: self.pasid().filter(|_| !translated || self.draw.once_in(8)),
            privileged: self.draw.once_in(4),
        };
        let data = self.entry();
        let port = self.machine.port(function);
        let result = match self.draw.below(4) {
            0 => port.write(&request, &data.to_le_bytes()),
            1 if !self.tame => port.fetch_add(&request, data).map(drop),
            2 => port.read(&request, &mut [0; 0x2345]),
            _ => port.read(&request, &mut [0; 8]),
        };
        self.tell(|| format!("{request:x?}: {result:x?}"));
        statistics.accesses += u64::from(result.is_ok());
    }

    fn interrupt(&mut self) {
        let message = Message {
            address: 0xfee0_0000 | self.draw.below(1 << 20) & !3,
            data: self.draw.word() as u32 & self.draw.one(&[0xff, 0xffff_ffff]),
        };
        let requester = (!self.draw.once_in(4)).then(|| self.requester());
        let _ = self.machine.with_unit(0, |unit, ram, fx| {
            unit.remap_interrupt(ram, requester, message, fx)
        });
        let function = self.function();
        let vector = self.draw.below(8) as u16;
        self.tell(|| format!("interrupt {message:x?}, vector {vector}"));
        self.machine.port(function).interrupt(vector);
    }

    fn complete(&mut self) {
        let completion = InvalidateCompletion {
            itag_vector: 1 << self.draw.below(32) | self.draw.one(&[0, 0, 0, u32::MAX]),
            completion_count: self.draw.one(&[1, 1, 2, 8]),
        };
        let function = self.function();
        self.tell(|| format!("{completion:x?}"));
        self.machine
            .port(function)
            .invalidate_completion(&completion);
    }

    fn shadow(&mut self) {
        let access = self.draw.one(&[
            Permissions::Read,
            Permissions::Write,
            Permissions::ReadWrite,
        ]);
        let length = self.draw.one(&[0, 1, 8, 4096, 0x3000]);
        let address = GuestAddress(self.address());
        if let Ok(pieces) = self.remapping.translate(address, length, access) {
            let total: usize = pieces.map(|piece| piece.length).sum();
            assert_eq!(total, length);
        }
    }

    // Endpoints.

    fn configure(&mut self) {
        let at = self.draw.one(&[
            4,
            config_space::ATS + 4,
            config_space::PRI + 4,
            config_space::PRI + 12,
            config_space::PASID + 4,
            config_space::ATS,
            0,
        ]);
        let function = self.function();
        let (value, mask) = match self.draw.once_in(3) {
            true => (self.draw.word() as u32, self.draw.word() as u32),
            // What a driver would write.
            false => match at {
                4 => (4, 4),
                _ => (1 << 31 | 1 << 16 | 1, !0),
            },
        };
        self.tell(|| format!("config {at:#x} <- {value:#x} & {mask:#x}"));
        self.machine.config_write(function, at, value, mask);
    }

    fn write_bar(&mut self) {
        let function = self.function();
        let contexts = u64::from(self.machine.endpoint(function).config().contexts);
        let n = self.draw.below(contexts + 1);
        let ring = 0x6000_0000_0000 + n * (1 << 20);
        match self.draw.below(5) {
            0 => {
                let registers = [
                    (
                        context::CONTROL,
                        self.draw.one(&[control::START, control::STOP]),
                    ),
                    (
                        context::PASID,
                        pasid::VALID | u64::from(self.some_pasid().get()),
                    ),
                    (context::RING, self.draw.one(&[ring, 0, 1 << 47])),
                    (context::RING_LOG2, self.draw.one(&[0, 4, 15, 16])),
                    (context::VECTOR, 1 << 31 | self.draw.below(8)),
                ];
                let (register, value) = self.draw.one(&registers);
                let at = context_block(n as u16) + register;
                self.tell(|| format!("context {n} {register:#x} <- {value:#x}"));
                self.machine.bar_write(function, 0, at, value, 8);
            }
            1 => {
                let (bar, at) = (self.draw.below(6) as u8, self.draw.below(0x2000));
                let value = self.draw.word();
                let size = self.draw.one(&[1, 2, 4, 8]);
                self.tell(|| format!("bar {bar} {at:#x} <- {value:#x} ({size})"));
                self.machine.bar_write(function, bar, at, value, size);
            }
            _ => {
                self.fill_ring();
                let at = n * doorbell::PAGE_SIZE;
                let head = self.machine.bar_read(function, 2, at + doorbell::HEAD, 8);
                let tail = head + self.draw.below(6);
                self.tell(|| format!("doorbell {n} <- {tail:#x}"));
                self.machine
                    .bar_write(function, 2, at + doorbell::TAIL, tail, 8);
            }
        }
    }

    /// Puts a descriptor wherever rings are: into a frame, which may be a ring's.
    fn fill_ring(&mut self) {
        let operations: &[Operation] = if self.tame {
            // The others write what follows from data, and could make any pointer of it.
            &[
                Operation::Nop,
                Operation::Fill,
                Operation::Compare,
                Operation::Copy,
            ]
        } else {
            Operation::ALL
        };
        for _ in 0..16 {
            let aligned = if self.tame { !7 } else { !0 };
            let descriptor = Descriptor {
                operation: self.draw.one(operations) as u8,
                flags: self.draw.below(8) as u8,
                completion: self.address() & !31,
                source: self.address() & aligned,
                destination: self.address() & aligned,
                length: self.draw.one(&[8, 64, 0x1000, 0x3008]),
                operand0: self.entry(),
                operand1: 0,
                ..Descriptor::default()
            };
            let descriptor = match Operation::from_u8(descriptor.operation) {
                Some(Operation::Fill) => Descriptor {
                    source: 0,
                    ..descriptor
                },
                _ if self.draw.once_in(8) => descriptor,
                _ => Descriptor {
                    operand0: 0,
                    ..descriptor
                },
            };
            let at = self.frame() + self.draw.below(16) * 64;
            let old = self.machine.ram().load(at).unwrap_or_default();
            // What looks like a ring: descriptors begin with an operation and flags alone.
            if old < 1 << 16 {
                let _ = self.machine.ram().write(at, &descriptor.to_bytes());
            }
        }
    }

    fn experiment(&mut self) {
        let function = self.function();
        let pasid = self.pasid();
        let translated = self.draw.once_in(2);
        let address = match translated {
            true if self.tame => self.frame(),
            _ => self.tame_address() & !7,
        };
        let command = match (translated, self.draw.below(4)) {
            (true, 0) => 6,
            (true, _) => 5,
            (false, n) => n + 1,
        };
        let attributes = pasid.map_or(0, |pasid| 1 << 31 | u64::from(pasid.get()))
            | self.draw.below(64) << 32
            | u64::from(self.prgi().get()) << 48;
        let data = self.entry();
        self.tell(|| format!("laboratory {command}: {address:#x} {attributes:#x} {data:#x}"));
        for (register, value) in [
            (laboratory::STATE, 0),
            (laboratory::ADDRESS, address),
            (laboratory::ATTRIBUTES, attributes),
            (laboratory::DATA, data),
            (laboratory::COMMAND, command),
        ] {
            let at = registers::LABORATORY + register;
            self.machine.bar_write(function, 0, at, value, 8);
        }
    }

    fn step(&mut self, statistics: &mut Statistics) {
        self.stepping.store(true, Ordering::Relaxed);
        for _ in 0..self.draw.below(20) {
            let function = self.function();
            if self.machine.step_function(function) == Step::Worked {
                statistics.steps += 1;
            }
        }
        self.stepping.store(false, Ordering::Relaxed);
        self.tell(|| "steps".into());
    }

    fn rarity(&mut self) {
        match self.draw.below(10) {
            0 => self.machine.with_unit(0, |unit, _, fx| unit.reset(fx)),
            1 | 2 => {
                let function = self.function();
                let kind = pcie_ats::Reset::FunctionLevel;
                self.machine.reset_function(function, kind);
            }
            3..=6 => self.machine.advance(Duration::from_millis(400)),
            _ => {
                let function = self.function();
                let link = self.machine.link(function);
                let loses = self.draw.once_in(2);
                link.loses_invalidations.store(loses, Ordering::Relaxed);
            }
        }
        self.tell(|| "rarity".into());
    }
}
