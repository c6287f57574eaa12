// SPDX-License-Identifier: MIT OR Apache-2.0
//! Passes open files from one process to another.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, bail};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, socketpair,
};

/// Two connected sockets.
///
/// # Errors
///
/// Those of `socketpair`.
pub fn pair() -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let (domain, kind) = (AddressFamily::Unix, SockType::Datagram);
    socketpair(domain, kind, None, SockFlag::SOCK_CLOEXEC).context("socketpair")
}

/// Sends an open file.
///
/// # Errors
///
/// Those of `sendmsg`.
pub fn send(socket: &OwnedFd, file: BorrowedFd<'_>) -> anyhow::Result<()> {
    let files = [file.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&files)];
    let data = [IoSlice::new(&[0])];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &data, &rights, MsgFlags::empty(), None)
        .context("sendmsg")?;
    Ok(())
}

/// Receives an open file.
///
/// # Errors
///
/// Those of `recvmsg`; no file was received.
pub fn receive(socket: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(i32);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut data, Some(&mut space), flags)
        .context("recvmsg")?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(files) = control {
            if let [file] = files[..] {
                // SAFETY: the kernel has just created this descriptor for this process, and no
                // other code has it.
                return Ok(unsafe { OwnedFd::from_raw_fd(file) });
            }
        }
    }
    bail!("the message held no file")
}
