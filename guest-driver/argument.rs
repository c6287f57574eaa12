// SPDX-License-Identifier: GPL-2.0-only

//! The arguments of ioctls, which begin with their size: an older program has a shorter structure
//! than this driver, a newer one a longer structure.

use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

use crate::abi::ioctl;

/// Size of the arguments in their first version. They have no padding, and the same layout for
/// 32-bit and 64-bit programs.
pub(crate) mod first_size {
    pub(crate) const INFO: usize = 56;
    pub(crate) const QUEUE: usize = 24;
    pub(crate) const EVENTFD: usize = 16;
    pub(crate) const MODERATION: usize = 16;
}

const _: () = {
    assert!(size_of::<ioctl::Info>() == first_size::INFO);
    assert!(size_of::<ioctl::Queue>() == first_size::QUEUE);
    assert!(size_of::<ioctl::Eventfd>() == first_size::EVENTFD);
    assert!(size_of::<ioctl::Moderation>() == first_size::MODERATION);
};

// SAFETY: The structure consists of integers and has no padding (asserted above), so all its bytes
// are initialized.
unsafe impl AsBytes for ioctl::Info {}

// SAFETY: The structure is made of integers: every bit pattern is a value.
unsafe impl FromBytes for ioctl::Queue {}

// SAFETY: As above.
unsafe impl FromBytes for ioctl::Eventfd {}

// SAFETY: As above.
unsafe impl FromBytes for ioctl::Moderation {}

// SAFETY: The structure is made of integers and has no padding (asserted above).
unsafe impl AsBytes for ioctl::Queue {}

// SAFETY: As above.
unsafe impl AsBytes for ioctl::Eventfd {}

// SAFETY: As above.
unsafe impl AsBytes for ioctl::Moderation {}

/// The first two fields of all arguments.
#[repr(C)]
struct Header {
    size: u32,
    flags: u32,
}

// SAFETY: The structure is made of integers: every bit pattern is a value.
unsafe impl FromBytes for Header {}

/// Reads and checks the fields that all arguments share, and returns the size that the program
/// gives.
///
/// # Errors
///
/// `EINVAL` if it is smaller than `first`, or flags are set; `E2BIG` if it is larger than any
/// argument can be.
pub(crate) fn read_size(from: UserPtr, first: usize) -> Result<usize> {
    let header: Header = UserSlice::new(from, size_of::<Header>()).reader().read()?;
    let size = header.size as usize;

    if size < first || header.flags != 0 {
        return Err(EINVAL);
    }
    if size > PAGE_SIZE {
        return Err(E2BIG);
    }
    Ok(size)
}

/// Reads the argument of an ioctl, whose first version had `first` bytes: missing fields of a
/// shorter argument are 0, and additional bytes of a longer one must be 0.
///
/// # Errors
///
/// Those of [`read_size`], `E2BIG` if additional bytes are set, and `EFAULT`.
pub(crate) fn read_argument<T: FromBytes + AsBytes + Default>(
    from: UserPtr,
    first: usize,
) -> Result<T> {
    let size = read_size(from, first)?;
    let mut reader = UserSlice::new(from, size).reader();
    let mut argument = T::default();
    let bytes = T::as_bytes_mut(&mut argument);
    let known = size.min(bytes.len());

    reader.read_slice(bytes.get_mut(..known).ok_or(EINVAL)?)?;
    while !reader.is_empty() {
        if reader.read::<u8>()? != 0 {
            return Err(E2BIG);
        }
    }
    Ok(argument)
}
