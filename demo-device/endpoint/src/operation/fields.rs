// SPDX-License-Identifier: MIT OR Apache-2.0
//! Checks of the fields of descriptors.

use crate::access::Failure;
use svm_abi::completion::Error;
use svm_abi::descriptor::{Descriptor, Operation as Code, flags, operand};
use svm_abi::ids::MAX_TRANSFER_LOG2;

/// Checks the fields that all descriptors share.
pub(super) fn judge(descriptor: &Descriptor) -> Result<Code, Failure> {
    let Some(code) = Code::from_u8(descriptor.operation) else {
        return Err(Failure::of(Error::BadOperation));
    };
    zero(u64::from(descriptor.flags & !flags::ALL))?;
    zero(descriptor.reserved1)?;
    if descriptor.reserved0 != [0; 6] {
        return Err(Failure::of(Error::Reserved));
    }
    Ok(code)
}

/// Checks a field that is reserved in an operation.
pub(super) fn zero(field: u64) -> Result<(), Failure> {
    if field == 0 {
        Ok(())
    } else {
        Err(Failure::of(Error::Reserved))
    }
}

/// The bit of an operand that asks for write permission; the others are reserved.
pub(super) fn wants_write(operand0: u64) -> Result<bool, Failure> {
    zero(operand0 & !operand::WRITE)?;
    Ok(operand0 & operand::WRITE != 0)
}

/// Checks a transfer of `length` bytes from `address` on.
pub(super) fn transfer(address: u64, length: u64) -> Result<(), Failure> {
    if length > 1 << MAX_TRANSFER_LOG2 || address.checked_add(length).is_none() {
        return Err(Failure::of(Error::BadLength));
    }
    Ok(())
}

/// Checks that a number is a multiple of 8.
pub(super) fn aligned(value: u64) -> Result<(), Failure> {
    if value % 8 == 0 {
        Ok(())
    } else {
        Err(Failure::of(Error::Misaligned))
    }
}
