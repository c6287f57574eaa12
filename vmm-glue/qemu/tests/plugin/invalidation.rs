// SPDX-License-Identifier: GPL-2.0-or-later
//! Invalidations: after them, nothing of what they took is used.

use svm_abi::completion::status;
use svm_abi::{counters, registers};

use crate::context::{DESTINATION, PASID, fill, map_new, ready};
use crate::machine::{DEVICE, Machine};

#[test]
fn an_invalidated_frame_is_not_used_again() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let old = map_new(&mut machine, DESTINATION);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x11));
    let new = map_new(&mut machine, DESTINATION);
    // The device still has the old translation: nobody has told it otherwise.
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x22));
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x22, 0)
    );
    machine.invalidate(DEVICE, PASID, DESTINATION);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x33));
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x22, 0x33)
    );
    let device = |machine: &mut Machine, index: usize| {
        let at = context.bars.registers + registers::DEVICE_COUNTERS + 8 * index as u64;
        machine.qemu.readq(at)
    };
    assert_eq!(device(&mut machine, counters::index::INVALIDATIONS), 1);
    assert_eq!(
        device(&mut machine, counters::index::INVALIDATED_ENTRIES),
        1
    );
    machine.qemu.quit();
}

#[test]
fn an_invalidation_of_everything_reaches_the_device() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let old = map_new(&mut machine, DESTINATION);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x11));
    let new = map_new(&mut machine, DESTINATION);
    // One page of the IOTLB; the size bit and no zero below bit 63 for the device: all of it.
    machine.invalidate(DEVICE, PASID, DESTINATION);
    machine.invalidate_device(DEVICE, PASID, 0x7fff_ffff_ffff_f000 | 1 << 11);
    context.succeed(&mut machine, fill(DESTINATION, 8, 0x33));
    assert_eq!(
        (machine.qemu.readq(old), machine.qemu.readq(new)),
        (0x11, 0x33)
    );
    machine.qemu.quit();
}

/// Rule: when an invalidation is answered, no access with the old translation is still on its
/// way. Frames change under a busy device; a frame that was given up is zeroed, and stays zero.
#[test]
fn no_write_lands_in_a_frame_after_its_invalidation() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    let mut given_up = Vec::new();
    let mut frame = map_new(&mut machine, DESTINATION);
    let mut last = None;
    for round in 1..=40 {
        // Enough for the device to be busy while the page moves.
        for _ in 0..8 {
            last = Some(context.submit(&mut machine, fill(DESTINATION, 0x1000, round)));
        }
        let new = map_new(&mut machine, DESTINATION);
        machine.invalidate(DEVICE, PASID, DESTINATION);
        machine.qemu.write(frame, &[0; 0x1000]);
        given_up.push(frame);
        frame = new;
        let last = last.unwrap();
        assert_eq!(context.wait(&mut machine, last).status, status::SUCCESS);
    }
    for frame in given_up {
        assert_eq!(
            machine.qemu.read(frame, 0x1000),
            [0; 0x1000],
            "a write came late"
        );
    }
    machine.qemu.quit();
}

#[test]
fn an_invalidation_reaches_a_pasid_that_no_context_uses_any_more() {
    let Some((mut machine, mut context)) = ready("") else {
        return;
    };
    map_new(&mut machine, DESTINATION);
    context.succeed(&mut machine, fill(DESTINATION, 8, 1));
    context.write(
        &mut machine,
        registers::context::CONTROL,
        registers::control::STOP,
    );
    let status = context.status(&mut machine);
    assert_eq!(
        registers::status::state(status),
        registers::status::DISABLED
    );
    machine.invalidate(DEVICE, PASID, DESTINATION);
    let counter = context.bars.registers
        + registers::DEVICE_COUNTERS
        + 8 * counters::index::INVALIDATIONS as u64;
    assert_eq!(machine.qemu.readq(counter), 1);
    machine.qemu.quit();
}
