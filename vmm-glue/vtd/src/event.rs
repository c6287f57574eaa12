// SPDX-License-Identifier: MIT OR Apache-2.0
//! The event interrupts of the unit: control, data, address and upper address registers, and the
//! rules of mask and pending, which are the same for the fault event (section 7.3), the
//! invalidation completion event (section 6.5.2.10) and the page request event (section 7.5).

use crate::effect::{Effect, Effects};
use crate::mutant::{Mutant, breaks};
use crate::spec::interrupt::Message;

/// IM: Interrupt Mask.
const IM: u32 = 1 << 31;
/// IP: Interrupt Pending.
const IP: u32 = 1 << 30;

/// The registers of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    mask: bool,
    pending: bool,
    data: u32,
    address: u32,
    upper: u32,
}

impl Default for Event {
    /// After a reset the event is masked.
    fn default() -> Self {
        Event {
            mask: !breaks(Mutant::S76A),
            pending: false,
            data: 0,
            address: 0,
            upper: 0,
        }
    }
}

impl Event {
    /// Reads the double word at `offset` from the control register.
    pub const fn read(&self, offset: u16) -> u32 {
        match offset {
            0 => (if self.mask { IM } else { 0 }) | (if self.pending { IP } else { 0 }),
            4 => self.data,
            8 => self.address,
            12 => self.upper,
            _ => 0,
        }
    }

    /// Writes the double word at `offset` from the control register. Unmasking sends a pending
    /// interrupt.
    pub fn write(&mut self, offset: u16, value: u32, fx: &mut Effects) {
        match offset {
            0 => {
                self.mask = value & IM != 0;
                self.send(fx);
            }
            4 => self.data = value & 0xffff,
            8 => self.address = value & !3,
            12 => self.upper = value,
            _ => {}
        }
    }

    /// Handles an interrupt condition.
    pub fn raise(&mut self, fx: &mut Effects) {
        self.pending = true;
        self.send(fx);
    }

    /// Software has serviced all conditions: an interrupt that is still pending is dropped.
    pub const fn serviced(&mut self) {
        self.pending = false;
    }

    /// Sends a pending interrupt that is not masked.
    fn send(&mut self, fx: &mut Effects) {
        if self.pending && !self.mask {
            self.pending = false;
            fx.push(Effect::Interrupt(Message {
                address: (self.upper as u64) << 32 | self.address as u64,
                data: self.data,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_event_is_pending_until_it_is_unmasked_or_serviced() {
        let (mut event, mut fx) = (Event::default(), Effects::new());
        assert_eq!(event.read(0), IM);
        event.write(4, 0xffff_1234, &mut fx);
        event.write(8, 0xfee0_1003, &mut fx);
        event.write(12, 0x1234_5600, &mut fx);
        assert_eq!(
            [4, 8, 12].map(|o| event.read(o)),
            [0x1234, 0xfee0_1000, 0x1234_5600]
        );
        event.raise(&mut fx);
        assert_eq!((event.read(0), fx.len()), (IM | IP, 0));
        event.write(0, 0, &mut fx);
        let message = Message {
            address: 0x1234_5600_fee0_1000,
            data: 0x1234,
        };
        assert_eq!(fx, [Effect::Interrupt(message)]);
        assert_eq!(event.read(0), 0);
        event.raise(&mut fx);
        assert_eq!(fx.len(), 2);
        event.write(0, IM, &mut fx);
        event.raise(&mut fx);
        event.serviced();
        event.write(0, 0, &mut fx);
        assert_eq!(fx.len(), 2);
    }

    #[test]
    fn pending_is_read_only() {
        let (mut event, mut fx) = (Event::default(), Effects::new());
        event.write(0, IP, &mut fx);
        assert_eq!((event.read(0), fx.len()), (0, 0));
    }
}
