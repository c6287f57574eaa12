// SPDX-License-Identifier: MIT OR Apache-2.0
//! `userfaultfd`: page faults that the program handles itself.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::libc;
use svmctl::region::PAGE;

use super::mapping::{Mapping, Memory};

/// Version of the interface (`UFFD_API`).
const API: u64 = 0xaa;
/// Event of a page fault (`UFFD_EVENT_PAGEFAULT`).
const PAGE_FAULT: u8 = 0x12;
/// Faults on missing pages (`UFFDIO_REGISTER_MODE_MISSING`).
const MISSING: u64 = 1;
/// Length of a message.
const MESSAGE: usize = 32;
/// Offset of the address in the message of a page fault.
const ADDRESS: usize = 16;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct Copy {
    destination: u64,
    source: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

mod call {
    use super::{Api, Copy, Register};

    nix::ioctl_readwrite!(api, 0xaa, 0x3f, Api);
    nix::ioctl_readwrite!(register, 0xaa, 0x00, Register);
    nix::ioctl_readwrite!(copy, 0xaa, 0x03, Copy);
}

/// The missing pages of a mapping, provided by this program.
#[derive(Debug)]
pub struct Userfault(File);

impl Userfault {
    /// Takes over the missing pages of a mapping.
    ///
    /// # Errors
    ///
    /// The kernel has no `userfaultfd` or does not allow it.
    pub fn new(mapping: &Mapping) -> io::Result<Userfault> {
        // SAFETY: the call has one argument, and returns a new descriptor or an error.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) })?;
        // SAFETY: the kernel has just created the descriptor, and no other code has it.
        let file = unsafe { File::from_raw_fd(fd as i32) };
        let mut api = Api {
            api: API,
            features: 0,
            ioctls: 0,
        };
        let mut register = Register {
            start: mapping.address(0),
            len: mapping.len() as u64,
            mode: MISSING,
            ioctls: 0,
        };
        // SAFETY: the kernel reads and writes the two structures. Accesses to missing pages of the
        // mapping wait until the pages are provided, which is harmless.
        unsafe {
            call::api(file.as_raw_fd(), &mut api)?;
            call::register(file.as_raw_fd(), &mut register)?;
        }
        Ok(Userfault(file))
    }

    /// Provides the page at `offset`.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it is already present.
    pub fn provide(&self, mapping: &Mapping, offset: usize, data: &[u8]) -> anyhow::Result<()> {
        ensure!(data.len() == PAGE, "{} bytes are no page", data.len());
        let mut copy = Copy {
            destination: mapping.address(offset),
            source: data.as_ptr().expose_provenance() as u64,
            len: PAGE as u64,
            mode: 0,
            copied: 0,
        };
        // SAFETY: the kernel reads the page from `data` and puts it at an empty place in the
        // mapping.
        unsafe { call::copy(self.0.as_raw_fd(), &mut copy) }.context("UFFDIO_COPY")?;
        Ok(())
    }

    /// Waits until the program touches a missing page, and returns the page's offset.
    ///
    /// # Errors
    ///
    /// Those of `read`.
    pub fn wait(&self, mapping: &Mapping) -> anyhow::Result<usize> {
        let mut message = [0; MESSAGE];
        (&self.0).read_exact(&mut message).context("userfaultfd")?;
        ensure!(
            message[0] == PAGE_FAULT,
            "event {:#x} of userfaultfd",
            message[0]
        );
        let mut word = [0; 8];
        word.copy_from_slice(&message[ADDRESS..ADDRESS + 8]);
        let offset = u64::from_le_bytes(word).wrapping_sub(mapping.address(0)) as usize;
        ensure!(offset < mapping.len(), "a fault outside the mapping");
        Ok(offset / PAGE * PAGE)
    }
}
