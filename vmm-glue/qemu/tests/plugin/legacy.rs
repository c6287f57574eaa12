// SPDX-License-Identifier: GPL-2.0-or-later
//! Legacy mode of the VT-d unit: the tables of one function, and the invalidation queue.

use crate::machine::{Address, Machine};
use crate::unit::{GCMD, IQA, IQT, RTADDR};

/// Commands of GCMD.
const TE: u32 = 1 << 31;
const SRTP: u32 = 1 << 30;
const QIE: u32 = 1 << 26;

/// The domain of the device.
pub const DOMAIN: u64 = 5;
/// R and W of second-stage entries.
pub const R: u64 = 1;
pub const W: u64 = 2;
/// PS.
pub const LARGE: u64 = 1 << 7;

/// The tables and the queue of legacy mode.
pub struct Legacy<D> {
    pub machine: Machine,
    /// The device that is translated.
    pub device: D,
    at: Address,
    /// Address of its context entry.
    pub context: u64,
    /// Address of its second-stage table.
    pub second_stage: u64,
    wait: u64,
    queue: u64,
    tail: u64,
}

impl<D> Legacy<D> {
    /// Translation is off. Tables map nothing.
    pub fn new(mut machine: Machine, at: Address, device: D) -> Legacy<D> {
        let (root, context) = (machine.page(), machine.page());
        let (second_stage, wait, queue) = (machine.page(), machine.page(), machine.page());
        machine
            .qemu
            .writeq(root + 16 * u64::from(at.bus), context | 1);
        let mut legacy = Legacy {
            machine,
            device,
            at,
            context: context + 16 * (at.sid() & 0xff),
            second_stage,
            wait,
            queue,
            tail: 0,
        };
        legacy.translated();
        let qemu = &mut legacy.machine.qemu;
        qemu.writeq(RTADDR, root);
        qemu.writel(GCMD, SRTP);
        qemu.writeq(IQA, queue);
        qemu.writel(GCMD, QIE);
        legacy
    }

    /// The device is translated by the tables.
    pub fn translated(&mut self) {
        let (context, table) = (self.context, self.second_stage);
        // 48 bits.
        self.machine.qemu.writeq(context + 8, 2 | DOMAIN << 8);
        self.machine.qemu.writeq(context, table | 1);
    }

    /// The device is passed through.
    pub fn passed_through(&mut self) {
        let context = self.context;
        self.machine.qemu.writeq(context, 1 | 2 << 2);
    }

    /// Switches translation on or off.
    pub fn switch(&mut self, on: bool) {
        let te = if on { TE } else { 0 };
        self.machine.qemu.writel(GCMD, QIE | te);
    }

    /// Writes the entry of an address, of 4 KiB at level 1 and 2 MiB at level 2.
    pub fn map(&mut self, level: u64, address: u64, entry: u64) {
        let mut table = self.second_stage;
        let index = |level: u64| 8 * (address >> (3 + 9 * level) & 511);
        for above in (level + 1..=4).rev() {
            let at = table + index(above);
            table = self.machine.qemu.readq(at) & !0xfff;
            if table == 0 {
                table = self.machine.page();
                self.machine.qemu.writeq(at, table | R | W);
            }
        }
        self.machine.qemu.writeq(table + index(level), entry);
    }

    /// Submits a descriptor, and waits until the unit says that it is done.
    pub fn submit(&mut self, low: u64, high: u64) {
        let wait = self.wait;
        self.machine.qemu.writel(wait, 0);
        for words in [[low, high], [0x5 | 1 << 5 | 0x600d << 32, wait]] {
            let at = self.queue + 16 * self.tail;
            self.machine.qemu.writeq(at, words[0]);
            self.machine.qemu.writeq(at + 8, words[1]);
            self.tail = (self.tail + 1) % 256;
        }
        let tail = self.tail << 4;
        let qemu = &mut self.machine.qemu;
        qemu.writeq(IQT, tail);
        qemu.until("the invalidation queue", |qemu| qemu.readl(wait) == 0x600d);
    }

    /// Invalidates 2^`order` pages of the domain.
    pub fn invalidate_pages(&mut self, address: u64, order: u64) {
        self.submit(0x2 | 3 << 4 | DOMAIN << 16, address | order);
    }

    /// Invalidates all of the domain.
    pub fn invalidate_domain(&mut self) {
        self.submit(0x2 | 2 << 4 | DOMAIN << 16, 0);
    }

    /// Invalidates the context entry of the device, and then its translations.
    pub fn invalidate_context(&mut self) {
        self.submit(0x1 | 3 << 4 | DOMAIN << 16 | self.at.sid() << 32, 0);
        self.invalidate_domain();
    }
}
