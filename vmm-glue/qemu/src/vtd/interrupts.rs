// SPDX-License-Identifier: GPL-2.0-or-later
//! Interrupt requests: writes of functions to the interrupt address range.

use std::ffi::c_void;

use vtd::spec::SourceId;
use vtd::spec::interrupt::{Message, RANGE_BASE, RANGE_LAST};
use vtd::{Access, Remapped, Request};

use super::function::Function;
use super::guest_memory::GuestMemory;
use super::space::{FunctionSpace, of_opaque};
use crate::abi::layout::*;
use crate::bql::Bql;
use crate::memory::Space;
use crate::message;

/// The interrupt address range: its base and size.
pub const RANGE: (u64, u64) = (RANGE_BASE, RANGE_LAST - RANGE_BASE + 1);

/// The operations of the region over the range, in each address space.
pub static OPS: Constant<MemoryRegionOps> = Constant(MemoryRegionOps {
    read: None,
    write: None,
    read_with_attrs: read as *const c_void,
    write_with_attrs: write as *const c_void,
    endianness: DEVICE_LITTLE_ENDIAN,
    valid: MemoryRegionValid {
        min_access_size: 4,
        max_access_size: 4,
        unaligned: false,
        accepts: std::ptr::null(),
    },
    implemented: MemoryRegionImpl {
        min_access_size: 4,
        max_access_size: 4,
        unaligned: false,
    },
});

/// A read is not an interrupt request: the unit blocks it.
unsafe extern "C" fn read(
    opaque: *mut c_void,
    offset: u64,
    value: *mut u64,
    _size: u32,
    attributes: MemTxAttrs,
) -> u32 {
    // SAFETY: it is the opaque pointer of a region over the range; QEMU provides room for the
    // value.
    let space = unsafe {
        *value = 0;
        of_opaque(opaque)
    };
    if attributes.is_translated() {
        return translated(space, RANGE_BASE + offset, Access::Read);
    }
    let request = Request {
        requester: space.function.source_id(),
        pasid: None,
        address: RANGE_BASE + offset,
        access: Access::Read,
        execute: false,
        privileged: false,
    };
    let result = space
        .unit
        .with(|unit, effects| unit.translate(&GuestMemory, &request, effects));
    match result {
        Ok(_) => MEMTX_OK,
        Err(_) => MEMTX_ERROR,
    }
}

/// An interrupt request.
unsafe extern "C" fn write(
    opaque: *mut c_void,
    offset: u64,
    value: u64,
    _size: u32,
    attributes: MemTxAttrs,
) -> u32 {
    // SAFETY: as for `read`; QEMU takes the BQL for the region.
    let (space, bql) = unsafe { (of_opaque(opaque), Bql::held()) };
    let address = RANGE_BASE + offset;
    if attributes.is_translated() {
        return translated(space, address, Access::Write);
    }
    let request = Message {
        address,
        data: value as u32,
    };
    let requester = requester(space, attributes);
    let result = space
        .unit
        .with(|unit, effects| unit.remap_interrupt(&GuestMemory, requester, request, effects));
    match result {
        Ok(Remapped::Deliver(message) | Remapped::Posted(Some(message))) => {
            deliver(&bql, message);
            MEMTX_OK
        }
        Ok(Remapped::Posted(None)) => MEMTX_OK,
        Err(reason) => {
            let of = space.function.source_id();
            message::guest_error(&format!(
                "svm-vtd: interrupt request {address:#x} {value:#x} of {of}: {reason}"
            ));
            MEMTX_ERROR
        }
    }
}

/// A translated address in the range: the unit blocks it and gives the reason.
fn translated(space: &FunctionSpace, address: u64, access: Access) -> u32 {
    let requester = space.function.source_id();
    let result = space.unit.with(|unit, effects| {
        unit.translated_request(&GuestMemory, requester, None, address, access, effects)
    });
    match result {
        Ok(()) => MEMTX_OK,
        Err(_) => MEMTX_ERROR,
    }
}

/// The requester of messages whose attributes have none: the host bridge, which sends nothing
/// itself.
const HOST_BRIDGE: u16 = 0;

/// The sender of a message: several functions below a bridge may share an address space. None if
/// the unit must not validate its source.
fn requester(space: &FunctionSpace, attributes: MemTxAttrs) -> Option<SourceId> {
    let of_message = attributes.requester_id();
    if space.function == Function::IoApic && !space.unit.validates_ioapic {
        // Like QEMU's own unit.
        return None;
    }
    // Attributes may be present for another reason.
    Some(
        if attributes.is_unspecified() || of_message == HOST_BRIDGE {
            space.function.source_id()
        } else {
            SourceId(of_message)
        },
    )
}

/// Sends an interrupt to the processors.
pub fn deliver(bql: &Bql, message: Message) {
    Space::system().send_message(bql, message.address, message.data);
}
