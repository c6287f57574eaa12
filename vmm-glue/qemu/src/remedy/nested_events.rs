// SPDX-License-Identifier: GPL-2.0-or-later
//! Events of a guest whose host runs on emulated processors (TCG), as on AMD's processors with
//! nested virtualization. QEMU has two flaws there, and a guest of such a host hangs in one of some
//! ten or fifty starts:
//!
//! - VMRUN delivers an interrupt that it injects, and leaves its vector as an exception to come. If the
//!   processor is asked to leave its loop before the next exception, it delivers the vector once more,
//!   whatever IF says (AMD APM volume 2, 15.20).
//! - An exception that a guest takes by itself leaves its type in EVENTINJ, with the valid bit clear,
//!   and #VMEXIT copies that to EXITINTINFO (15.7.2). KVM looks at the type alone: an access to memory
//!   of a device then ends the guest with “KVM internal error. Suberror: 3”.
//!
//! A function in the place of `TCGCPUOps.do_interrupt` leaves out what was delivered, and clears what
//! is not valid. The property `svm-nested-events` of `-accel tcg` switches that off.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use qemu_layout::interface::emulated::EmulatedLayout;

use crate::abi::layout::*;
use crate::abi::{qemu, room};
use crate::memory::Space;
use crate::property;
use crate::qom::Class;

/// The exceptions of x86, and the vectors of interrupts.
const VECTORS_OF_INTERRUPTS: std::ops::RangeInclusive<c_int> = 32..=255;
/// What `exception_index` is for a #VMEXIT.
const VMEXIT: c_int = 0x100;

/// EVENTINJ in the control area of a VMCB (AMD APM volume 2, appendix B), and its valid bit.
const EVENTINJ: u64 = 0xa8;
const VALID: u64 = 1 << 31;

/// Alignment of the state in `ArchCPU`, which follows `CPUState`.
const STATE_ALIGNMENT: usize = 16;

/// `CPUState`, the first part of an `ArchCPU`.
#[repr(C)]
pub struct Cpu {
    _private: [u8; 0],
}

type DoInterrupt = unsafe extern "C" fn(*mut Cpu);

/// QEMU's function.
static KNOWN: OnceLock<DoInterrupt> = OnceLock::new();
static ON: AtomicBool = AtomicBool::new(true);

/// The property of the accelerator.
#[derive(Clone, Debug)]
pub struct Settings {
    nested_events: bool,
}

static PROPERTIES: [property::Property<Settings>; 1] = [property::Property::switch(
    c"svm-nested-events",
    |s| &mut s.nested_events,
    c"do not deliver events of a nested guest twice (default: on)",
)];

impl property::Settings for Settings {
    fn of(_: *mut Object) -> Settings {
        let nested_events = ON.load(Ordering::Relaxed);
        Settings { nested_events }
    }

    fn store(self, _: *mut Object, _later: bool) -> bool {
        ON.store(self.nested_events, Ordering::Relaxed);
        true
    }
}

/// Takes the place of the function in the class of all x86 processors, and adds the property. In a
/// QEMU without emulated processors it does nothing.
pub fn register() {
    let Some(at) = emulated() else { return };
    // SAFETY: types are registered, and QEMU still has one thread.
    let class = |name: &CStr| unsafe { NonNull::new((qemu().object_class_by_name)(name.as_ptr())) };
    let (Some(x86), Some(accelerator)) = (class(c"x86_64-cpu"), class(c"tcg-accel")) else {
        return;
    };
    // SAFETY: the class is as large as the layout says, and so are its operations, which QEMU only
    // reads. The classes of processors do not exist yet: they copy this one.
    unsafe {
        let operations: *const u8 = room::read(x86, at.cpu_class.tcg_ops);
        let Some(operations) = NonNull::new(operations.cast_mut()) else {
            return;
        };
        let size = at.tcg_cpu_ops.size;
        let own: NonNull<u8> = room::constant(size);
        own.copy_from_nonoverlapping(operations, size);
        let known: Option<DoInterrupt> = room::read(own, at.tcg_cpu_ops.do_interrupt);
        let Some(known) = known else {
            return;
        };
        if KNOWN.set(known).is_err() {
            return;
        }
        room::write(
            own,
            at.tcg_cpu_ops.do_interrupt,
            do_interrupt as DoInterrupt,
        );
        room::write(x86, at.cpu_class.tcg_ops, own.as_ptr());
        property::add_all(&mut Class::new(accelerator), &PROPERTIES);
    }
}

/// `TCGCPUOps.do_interrupt`: QEMU calls it with the BQL held, and then forgets the exception.
unsafe extern "C" fn do_interrupt(cpu: *mut Cpu) {
    let (Some(known), Some(at), Some(processor)) = (KNOWN.get(), emulated(), NonNull::new(cpu))
    else {
        return;
    };
    if ON.load(Ordering::Relaxed) {
        // SAFETY: the processor is as large as the layout says.
        unsafe {
            let index: c_int = room::read(processor, at.cpu.exception_index);
            if was_delivered(
                index,
                room::read(processor, state(at) + at.x86_state.exception_is_int),
            ) {
                return;
            }
            if index == VMEXIT {
                clear(room::read(processor, state(at) + at.x86_state.vm_vmcb));
            }
        }
    }
    // SAFETY: it is QEMU's own function, with its argument.
    unsafe { known(cpu) }
}

/// Where `CPUArchState` begins in an `ArchCPU`.
fn state(at: &EmulatedLayout) -> usize {
    at.cpu.size.next_multiple_of(STATE_ALIGNMENT)
}

/// Whether an exception to come can only be an interrupt that VMRUN has delivered: exceptions of the
/// processor have smaller numbers, and the others are of instructions.
fn was_delivered(index: c_int, is_instruction: c_int) -> bool {
    VECTORS_OF_INTERRUPTS.contains(&index) && is_instruction == 0
}

/// Clears EVENTINJ of a VMCB if it is not valid.
fn clear(vmcb: u64) {
    let mut event = [0; 8];
    let space = Space::system();
    let read = space.read(vmcb + EVENTINJ, 0, &mut event);
    if read.is_ok() && is_left_over(u64::from_le_bytes(event)) {
        // Memory that was read can be written; nothing is lost if not.
        let _ = space.write(vmcb + EVENTINJ, 0, &[0; 8]);
    }
}

/// Whether EVENTINJ is not valid, and says something.
fn is_left_over(event: u64) -> bool {
    event & VALID == 0 && event != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vmrun_has_delivered_is_told_from_exceptions_and_instructions() {
        // An interrupt; then a page fault, INT 80h, a #VMEXIT, and none.
        assert!(was_delivered(0x31, 0));
        for (index, is_instruction) in [(14, 0), (0x80, 1), (VMEXIT, 0), (-1, 0)] {
            assert!(!was_delivered(index, is_instruction), "{index}");
        }
    }

    #[test]
    fn only_what_is_not_valid_is_cleared() {
        // The type of a page fault, with and without the valid bit.
        assert!(is_left_over(0x30e) && !is_left_over(0x30e | VALID));
        assert!(!is_left_over(0));
    }
}
