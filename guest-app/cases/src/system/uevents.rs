// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's device events for user space, as `udev` receives them.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The multicast group of the kernel's own events.
const KERNEL: u32 = 1;

/// A listener. It receives the events since it was opened.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Starts to listen.
    ///
    /// # Errors
    ///
    /// Those of `socket` and `bind`.
    pub fn listen() -> anyhow::Result<Uevents> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
        let socket = socket(family, kind, flags, SockProtocol::NetlinkKObjectUEvent)
            .context("a socket for uevents")?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL)).context("bind")?;
        Ok(Uevents(socket))
    }

    /// The events since the last call, each as `ACTION@PATH` followed by its variables.
    ///
    /// # Errors
    ///
    /// Those of `recv`: `ENOBUFS` if there were more events than the socket holds.
    pub fn take(&self) -> anyhow::Result<Vec<Vec<String>>> {
        let mut events = Vec::new();
        let mut buffer = [0; 8192];
        loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => events.push(
                    buffer[..length]
                        .split(|&byte| byte == 0)
                        .filter(|text| !text.is_empty())
                        .map(|text| String::from_utf8_lossy(text).into_owned())
                        .collect(),
                ),
                Err(Errno::EAGAIN) => return Ok(events),
                Err(error) => return Err(error).context("recv"),
            }
        }
    }
}
