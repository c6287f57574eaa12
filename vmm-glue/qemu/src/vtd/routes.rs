// SPDX-License-Identifier: GPL-2.0-or-later
//! Messages that QEMU remaps in advance, for KVM's routes.

use std::ffi::c_int;

use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;

use super::guest_memory::GuestMemory;
use super::instances::host_of;
use crate::abi::layout::*;

/// `X86IOMMUClass.int_remap`: 0, or a negative error number.
pub unsafe extern "C" fn int_remap(
    iommu: *mut Object,
    message: *const MSIMessage,
    remapped: *mut MSIMessage,
    requester: u16,
) -> c_int {
    // SAFETY: both messages are QEMU's, and valid during the call.
    let (message, remapped) = unsafe { (*message, &mut *remapped) };
    let Some(host) = host_of(iommu) else {
        *remapped = message;
        return 0;
    };
    let request = Message {
        address: message.address,
        data: message.data,
    };
    let requester = (requester != SID_INVALID).then_some(SourceId(requester));
    // QEMU sets up a route before there is an interrupt, so a route without a destination is not a
    // fault.
    let route = host
        .unit
        .with(|unit, _| unit.route_interrupt(&GuestMemory, requester, request));
    match route {
        Some(message) => {
            *remapped = MSIMessage {
                address: message.address,
                data: message.data,
            };
            0
        }
        None => -nix::libc::EINVAL,
    }
}
