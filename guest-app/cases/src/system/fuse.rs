// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file that a program serves (FUSE), for page faults that remain unanswered until the test
//! answers them.
//!
//! It implements the parts of the protocol of `/dev/fuse` (Linux, `include/uapi/linux/fuse.h`) that
//! one regular file needs: the file is the root of its file system, mounted over an ordinary file.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::module::Module;

/// The device of the protocol.
pub const DEVICE: &str = "/dev/fuse";
/// Size of the file in bytes.
pub const SIZE: u64 = 4096;

/// Version of the implemented protocol: 7.31. The kernel follows it.
const VERSION: (u32, u32) = (7, 31);
/// The root's node.
const ROOT: u64 = 1;
/// Type and permissions of the file.
const MODE: u32 = 0o100_644;
/// Bytes of a request's header: length, operation, id, node, user, group, process.
const IN_HEADER: usize = 40;
/// Bytes of an answer's header: length, error, id.
const OUT_HEADER: usize = 16;
/// Bytes of the buffer for a request; the kernel requires at least 8 KiB.
const BUFFER: usize = 1 << 17;
/// How long the kernel may keep attributes, in seconds.
const VALID: u64 = 3600;

/// The operations that such a file receives.
mod operation {
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const RELEASE: u32 = 18;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
}

/// Consecutive numbers in the machine's byte order.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn zeros(mut self, bytes: usize) -> Self {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }
}

/// Loads the module `fuse` unless FUSE is already available. Returns `false` if there is none.
///
/// # Errors
///
/// The module cannot be loaded.
pub fn is_available() -> anyhow::Result<bool> {
    if !Path::new(DEVICE).exists() {
        if let Some(module) = Module::find("fuse")? {
            module.load()?;
        }
    }
    Ok(Path::new(DEVICE).exists())
}

/// Removes a file that a [`Server`] has mounted, if any. Processes that have it open keep it.
pub fn unmount(path: &Path) {
    // Neither needs to exist.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

/// The program's side of a mounted file. Dropping it fails the unanswered requests; the mount
/// remains until [`unmount`].
#[derive(Debug)]
pub struct Server {
    device: File,
}

impl Server {
    /// Creates a file at `path` and mounts the served file over it.
    ///
    /// # Errors
    ///
    /// Those of opening [`DEVICE`] and of `mount`.
    pub fn mount(path: &Path) -> anyhow::Result<Server> {
        File::create(path).with_context(|| path.display().to_string())?;
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE)
            .context(DEVICE)?;
        let options = format!(
            "fd={},rootmode={MODE:o},user_id=0,group_id=0",
            device.as_raw_fd()
        );
        let (source, kind) = (Some("svmctl"), Some("fuse"));
        mount(source, path, kind, MsFlags::empty(), Some(options.as_str()))
            .context("mount of a file system of FUSE")?;
        Ok(Server { device })
    }

    /// Serves the file until it is unmounted. `read` is called before a read is answered.
    ///
    /// # Errors
    ///
    /// Those of `read`, and of reading and writing the device.
    pub fn serve(&mut self, mut read: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = match self.device.read(&mut buffer) {
                Ok(length) => length,
                // Unmounted.
                Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // A request was cancelled before it was read.
                Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => continue,
                Err(error) => return Err(error).context(DEVICE),
            };
            ensure!(length >= IN_HEADER, "a request of {length} bytes");
            let word = |at: usize| -> anyhow::Result<u32> {
                let bytes = buffer.get(at..at + 4).context("a short request")?;
                Ok(u32::from_ne_bytes(bytes.try_into()?))
            };
            let (operation, id) = (word(4)?, u64::from(word(8)?) | u64::from(word(12)?) << 32);
            let answer = match operation {
                operation::FORGET | operation::BATCH_FORGET | operation::INTERRUPT => continue,
                operation::INIT => Ok(init()),
                operation::GETATTR => Ok(attributes()),
                operation::OPEN => Ok(Message::default().zeros(16)),
                operation::READ => {
                    let (offset, size) = (word(IN_HEADER + 8)?, word(IN_HEADER + 16)?);
                    read()?;
                    let left = (SIZE as u32).saturating_sub(offset);
                    Ok(Message::default().zeros(size.min(left) as usize))
                }
                operation::FLUSH | operation::RELEASE | operation::DESTROY => {
                    Ok(Message::default())
                }
                _ => Err(Errno::ENOSYS),
            };
            match self.answer(id, answer) {
                // The request was cancelled meanwhile, or the file is being unmounted.
                Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => {}
                Err(error) => bail!("{DEVICE}: an answer is refused: {error}"),
            }
        }
    }

    fn answer(&mut self, id: u64, answer: Result<Message, Errno>) -> Result<(), Errno> {
        let (error, body) = match answer {
            Ok(body) => (0, body.0),
            Err(errno) => (errno as i32, Vec::new()),
        };
        let length = (OUT_HEADER + body.len()) as u32;
        let mut message = Message::default()
            .u32(length)
            .u32(error.wrapping_neg() as u32)
            .u64(id);
        message.0.extend(body);
        // In one piece: the kernel accepts an answer as a whole or refuses it.
        nix::unistd::write(&self.device, &message.0).map(drop)
    }
}

/// The answer to INIT: version, no read-ahead, no features, one request in the background.
fn init() -> Message {
    Message::default()
        .u32(VERSION.0)
        .u32(VERSION.1)
        .u32(0)
        .u32(0)
        .u16(1)
        .u16(1)
        .u32(SIZE as u32)
        .u32(1)
        .zeros(36)
}

/// The answer to GETATTR.
fn attributes() -> Message {
    Message::default()
        .u64(VALID)
        .zeros(8)
        .u64(ROOT)
        .u64(SIZE)
        .u64(SIZE / 512)
        .zeros(3 * 8 + 3 * 4)
        .u32(MODE)
        .u32(1)
        .zeros(3 * 4)
        .u32(SIZE as u32)
        .zeros(4)
}
