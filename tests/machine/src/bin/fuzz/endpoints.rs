// SPDX-License-Identifier: MIT OR Apache-2.0
//! What software does to endpoints, and what is rare.

use crate::world::{Statistics, World};
use std::sync::atomic::Ordering;
use std::time::Duration;
use svm_abi::descriptor::{Descriptor, Operation};
use svm_abi::registers::{context, context_block, control, laboratory, pasid};
use svm_abi::{doorbell, registers};
use svm_endpoint::{Step, config_space};
use vtd::memory::Memory;

impl World {
    pub fn configure(&mut self) {
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

    pub fn write_bar(&mut self) {
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
    pub fn fill_ring(&mut self) {
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

    pub fn experiment(&mut self) {
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

    pub fn step(&mut self, statistics: &mut Statistics) {
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

    pub fn rarity(&mut self) {
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
