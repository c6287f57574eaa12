// SPDX-License-Identifier: GPL-2.0-or-later
//! Emulated processors: [`check`] compares their types with [`super::layout`].

use super::functions::Qemu;
use super::layout::*;
use super::refusal::{Refusal, equal};
use super::room;
use super::verify::{field, sizes};

/// Compares the sizes of the types of processors.
///
/// # Safety
///
/// As for [`super::verify::version_and_layout`], after that has succeeded.
pub unsafe fn check(qemu: &Qemu) -> Result<(), Refusal> {
    let Some(at) = emulated() else { return Ok(()) };
    for (name, expected) in [
        (c"cpu", (at.cpu_class.size, at.cpu.size)),
        (c"x86_64-cpu", (at.x86_cpu_class.size, at.x86_cpu.size)),
    ] {
        // SAFETY: the caller's promise.
        unsafe { sizes(qemu, name, expected)? };
    }
    // SAFETY: as above, and the class has the compared size.
    let operations = unsafe {
        let class = (qemu.object_class_by_name)(c"x86_64-cpu".as_ptr());
        field::<usize>(class, at.cpu_class.tcg_ops)
    };
    let mut bytes = vec![0; at.tcg_cpu_ops.size];
    let read = room::peek(operations, &mut bytes);
    // They begin with `mttcg_supported`, which is true for x86.
    let found = read.is_some() && bytes.first() == Some(&1);
    equal(
        "whether CPUClass.tcg_ops points to operations".to_owned(),
        true,
        found,
    )
}
