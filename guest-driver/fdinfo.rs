// SPDX-License-Identifier: GPL-2.0-only

//! `/proc/PID/fdinfo/FD` of an open file, with the keys of [`crate::abi::ioctl::fdinfo`].

use kernel::{
    seq_file::SeqFile,
    seq_print, //
};

use crate::{
    abi::{
        counters,
        ioctl::fdinfo as key, //
    },
    context::{
        Context,
        View, //
    },
    device::Device, //
};

/// Writes all lines of a file with `context` of `device`, bound with `pasid`.
pub(crate) fn show(device: &Device, context: &Context, pasid: u32, to: &SeqFile) {
    seq_print!(to, "{}:\t{}\n", key::DEVICE, device.name());
    seq_print!(to, "{}:\t{}\n", key::CONTEXT, context.index());
    seq_print!(to, "{}:\t{}\n", key::PASID, pasid);

    let Ok(view) = context.view(device.registers()) else {
        seq_print!(to, "{}:\tgone\n", key::STATE);
        return;
    };
    show_view(&view, to);
    seq_print!(to, "{}:\t{}\n", key::VECTOR, device.vector(context.index()));

    let registers = device.registers().context(context.index());
    for counter in counters::COUNTERS {
        if let Ok(value) = registers.counter(counter.index) {
            seq_print!(to, "{}{}:\t{}\n", key::PREFIX, counter.key, value);
        }
    }
}

fn show_view(view: &View, to: &SeqFile) {
    seq_print!(to, "{}:\t{}\n", key::STATE, view.state);
    seq_print!(to, "{}:\t{}\n", key::HALT, view.reason);
    seq_print!(to, "{}:\t{:#x}\n", key::RING, view.ring);
    seq_print!(to, "{}:\t{}\n", key::RING_ENTRIES, view.ring_entries);
    seq_print!(to, "{}:\t{}\n", key::HEAD, view.head);
    seq_print!(to, "{}:\t{}\n", key::TAIL, view.tail);
    seq_print!(to, "{}:\t{}\n", key::EVENTFD, u8::from(view.eventfd));
    seq_print!(
        to,
        "{}:\t{} {}\n",
        key::MODERATION,
        u16::from(view.moderation.completions()),
        u32::from(view.moderation.microseconds())
    );
}
