// SPDX-License-Identifier: GPL-2.0-or-later
//! MSI-X of the device, whose messages are aimed at memory and seen there.

use svm_abi::completion::status;
use svm_abi::descriptor::{Descriptor, flags};
use svm_abi::{counters, ids, registers};

use crate::context::Context;
use crate::machine::{Address, Machine};

/// The message of the tests, and the vector that it is that of.
pub const MESSAGE: u32 = 0x4321;
pub const VECTOR: u16 = 5;

/// MSI-X with one vector in use, whose messages go to memory.
pub struct Msix {
    at: Address,
    capability: u16,
    entry: u64,
    /// Where the pending bits are.
    pub pending: u64,
    /// Where the messages go.
    pub mailbox: u64,
}

impl Msix {
    /// Enables it in the device at an address, for a context; the vector is not masked.
    pub fn enable(machine: &mut Machine, at: Address, context: &Context) -> Msix {
        let mailbox = machine.page();
        Msix::aimed_at(machine, at, context, mailbox)
    }

    /// The same with the address that the messages go to.
    pub fn aimed_at(machine: &mut Machine, at: Address, context: &Context, mailbox: u64) -> Msix {
        machine.map(0, mailbox, mailbox & !0xfff, true);
        let capability = machine.capability(at, 0x11);
        let entry = context.bars.msix + 16 * u64::from(VECTOR);
        machine.qemu.writeq(entry, mailbox);
        machine.qemu.writel(entry + 8, MESSAGE);
        let pending = machine.config_read(at, capability + 8);
        assert_eq!(pending & 7, u32::from(ids::MSIX_BAR));
        let msix = Msix {
            at,
            capability,
            entry,
            pending: context.bars.msix + u64::from(pending & !7),
            mailbox,
        };
        msix.mask(machine, false);
        msix.mask_all(machine, false);
        context.write(
            machine,
            registers::context::VECTOR,
            registers::vector::ENABLE | u64::from(VECTOR),
        );
        msix
    }

    /// Masks the vector.
    pub fn mask(&self, machine: &mut Machine, masked: bool) {
        machine.qemu.writel(self.entry + 12, masked.into());
    }

    /// Masks the function.
    pub fn mask_all(&self, machine: &mut Machine, masked: bool) {
        let control = 1 << 15 | u16::from(masked) << 14;
        machine.config_write16(self.at, self.capability + 2, control);
    }

    /// Whether a message has come, and whether one is pending.
    pub fn state(&self, machine: &mut Machine) -> (bool, bool) {
        let pending = machine.qemu.readq(self.pending) >> VECTOR & 1 != 0;
        (machine.qemu.readl(self.mailbox) == MESSAGE, pending)
    }

    /// Completes a descriptor with an interrupt, and waits until the device has sent that.
    pub fn interrupt(&self, machine: &mut Machine, context: &mut Context) {
        let sent = |context: &Context, machine: &mut Machine| {
            context.counter(machine, counters::index::INTERRUPTS)
        };
        let before = sent(context, machine);
        let nop = Descriptor {
            flags: flags::INTERRUPT,
            ..Default::default()
        };
        assert_eq!(context.run(machine, nop).status, status::SUCCESS);
        while sent(context, machine) == before {}
    }
}
