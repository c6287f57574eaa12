// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSI-X of a function: the table and the pending bits as registers of their BAR, and what becomes
//! of an interrupt that is masked (PCIe 6.1.4 and 7.7.2). Sends nothing itself.

use vtd::spec::interrupt::Message;

/// Size of an entry of the table in bytes.
pub const ENTRY_SIZE: u64 = 16;
/// Offset of the pending bits in the BAR, 64 in a quad word; the table is at offset 0.
pub const PENDING: u64 = 0x2000;
/// Mask bit of an entry's Vector Control, which is the upper half of its second quad word.
pub const MASKED: u64 = 1 << 32;

/// An entry of the table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
    pending: bool,
}

impl Entry {
    fn message(&self) -> Message {
        Message {
            address: self.address,
            data: self.data,
        }
    }
}

/// An entry after a reset.
const RESET: Entry = Entry {
    address: 0,
    data: 0,
    masked: true,
    pending: false,
};

/// Table, pending bits, and the two bits of Message Control that matter.
#[derive(Debug)]
pub(crate) struct Msix {
    entries: Vec<Entry>,
    /// MSI-X Enable. While it is clear nothing is sent, since the function has no INTx to fall
    /// back on.
    enabled: bool,
    /// Function Mask.
    masked: bool,
}

impl Msix {
    /// As after a reset, with a number of vectors.
    pub fn new(vectors: u16) -> Self {
        Msix {
            entries: vec![RESET; usize::from(vectors)],
            enabled: false,
            masked: false,
        }
    }

    /// Makes everything as after a reset: what was pending is forgotten.
    pub fn reset(&mut self) {
        *self = Msix::new(self.entries.len() as u16);
    }

    /// Sets the two bits of Message Control.
    pub fn set_control(&mut self, enabled: bool, masked: bool) {
        self.enabled = enabled;
        self.masked = masked;
    }

    /// Programs an entry and unmasks it, or masks it.
    pub fn set(&mut self, vector: u16, message: Option<Message>) {
        let Some(entry) = self.entries.get_mut(usize::from(vector)) else {
            return;
        };
        entry.masked = message.is_none();
        if let Some(message) = message {
            (entry.address, entry.data) = (message.address, message.data);
        }
    }

    /// The function has an interrupt for a vector: its message, or none if it is pending from now
    /// on.
    pub fn raise(&mut self, vector: u16) -> Option<Message> {
        let held = !self.enabled || self.masked;
        let entry = self.entries.get_mut(usize::from(vector))?;
        entry.pending = held || entry.masked;
        (!entry.pending).then(|| entry.message())
    }

    /// Takes one message that is pending and may be sent.
    pub fn take(&mut self) -> Option<Message> {
        if !self.enabled || self.masked {
            return None;
        }
        let mut entries = self.entries.iter_mut();
        let entry = entries.find(|entry| entry.pending && !entry.masked)?;
        entry.pending = false;
        Some(entry.message())
    }

    /// Reads 4 or 8 bytes of the BAR.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let value = self.quad(offset & !7) >> (8 * (offset & 4));
        match size {
            8 => value,
            _ => value & 0xffff_ffff,
        }
    }

    fn quad(&self, offset: u64) -> u64 {
        if let Some(first) = offset.checked_sub(PENDING) {
            let pending = self.entries.iter().skip(8 * first as usize).take(64);
            return pending
                .enumerate()
                .fold(0, |bits, (n, entry)| bits | u64::from(entry.pending) << n);
        }
        let entry = self.entries.get((offset / ENTRY_SIZE) as usize);
        entry.map_or(0, |entry| match offset % ENTRY_SIZE {
            0 => entry.address,
            _ => u64::from(entry.data) | u64::from(entry.masked) << 32,
        })
    }

    /// Writes 4 or 8 bytes of the BAR. The pending bits are read-only.
    pub fn write(&mut self, offset: u64, value: u64, size: u8) {
        let old = self.quad(offset & !7);
        let value = match (size, offset % 8) {
            (8, 0) => value,
            (4, 0) => old & !0xffff_ffff | value & 0xffff_ffff,
            (4, 4) => old & 0xffff_ffff | value << 32,
            _ => return,
        };
        if let Some(entry) = self.entries.get_mut((offset / ENTRY_SIZE) as usize) {
            match offset % ENTRY_SIZE / 8 {
                // The two lowest bits are 0: messages are double words.
                0 => entry.address = value & !3,
                _ => {
                    entry.data = value as u32;
                    entry.masked = value & MASKED != 0;
                }
            }
        }
    }
}
