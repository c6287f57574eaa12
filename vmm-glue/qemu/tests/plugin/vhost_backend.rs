// SPDX-License-Identifier: GPL-2.0-or-later
//! A vhost-user back end: a virtio device in this process that works with the addresses of the
//! guest's IOMMU. It asks QEMU for each translation that it lacks, keeps it, and gives it up when
//! QEMU says that it is not valid any more. It offers no service: its queues are never looked at.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// How long QEMU may take for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Requests of QEMU.
mod request {
    pub const GET_FEATURES: u32 = 1;
    pub const SET_MEM_TABLE: u32 = 5;
    pub const GET_VRING_BASE: u32 = 11;
    pub const GET_PROTOCOL_FEATURES: u32 = 15;
    pub const GET_QUEUE_NUM: u32 = 17;
    pub const SET_BACKEND_REQ_FD: u32 = 21;
    pub const IOTLB: u32 = 22;
}

/// VIRTIO_F_VERSION_1, VIRTIO_F_ACCESS_PLATFORM, VHOST_USER_F_PROTOCOL_FEATURES.
const FEATURES: u64 = 1 << 32 | 1 << 33 | 1 << 30;
/// VHOST_USER_PROTOCOL_F_REPLY_ACK, VHOST_USER_PROTOCOL_F_BACKEND_REQ.
const PROTOCOL_FEATURES: u64 = 1 << 3 | 1 << 5;

/// Flags of a message: version 1, a reply, an answer is asked for.
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// Types of IOTLB messages.
const MISS: u8 = 1;
const UPDATE: u8 = 2;
const INVALIDATE: u8 = 3;

/// A part of the guest's memory.
struct Region {
    size: u64,
    /// Where it begins in QEMU's memory, and in the file.
    user: u64,
    offset: u64,
}

/// A translation that is kept.
#[derive(Clone, Copy)]
struct Translation {
    size: u64,
    user: u64,
}

#[derive(Default)]
struct State {
    regions: Vec<Region>,
    /// Where all of the guest's memory is.
    memory: Option<File>,
    /// Where translations are asked for.
    channel: Option<UnixStream>,
    translations: BTreeMap<u64, Translation>,
}

impl State {
    /// The translation of an address that is kept.
    fn cached(&self, address: u64) -> Option<(u64, Translation)> {
        let (base, found) = self.translations.range(..=address).next_back()?;
        (address - base < found.size).then_some((*base, *found))
    }

    /// Gives up all translations of which a part lies in a range.
    fn invalidate(&mut self, address: u64, size: u64) {
        let last = address.saturating_add(size.saturating_sub(1));
        self.translations
            .retain(|base, t| *base > last || base + (t.size - 1) < address);
    }
}

/// The back end. It ends when QEMU does.
pub struct Backend {
    shared: Arc<(Mutex<State>, Condvar)>,
    directory: tempfile::TempDir,
}

impl Backend {
    /// A back end that waits for QEMU.
    pub fn new() -> Backend {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("backend")).unwrap();
        let shared = Arc::<(Mutex<State>, Condvar)>::default();
        let served = shared.clone();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            while serve(&mut stream, &served).is_some() {}
        });
        Backend { shared, directory }
    }

    /// How QEMU is told of its socket.
    pub fn chardev(&self) -> String {
        let path = self.directory.path().join("backend");
        format!("socket,id=backend,path={}", path.display())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    /// Whether the translation of an address is kept.
    pub fn has(&self, address: u64) -> bool {
        self.state().cached(address).is_some()
    }

    /// Writes to an address, for which it asks if it has no translation.
    pub fn write(&self, address: u64, data: &[u8]) {
        let mut state = self.state();
        if state.cached(address).is_none() {
            let mut message = header(1, VERSION, 32);
            message.extend(iotlb(address, MISS));
            let channel = state.channel.as_mut().expect("SET_BACKEND_REQ_FD");
            channel.write_all(&message).unwrap();
        }
        let missing = |state: &mut State| state.cached(address).is_none();
        let waited = self
            .shared
            .1
            .wait_timeout_while(state, PATIENCE, missing)
            .unwrap();
        let (base, found) = waited.0.cached(address).expect("a translation");
        let user = found.user + (address - base);
        let regions = &waited.0.regions;
        let region = regions
            .iter()
            .find(|r| user >= r.user && user - r.user < r.size)
            .expect("a region of memory");
        let memory = waited.0.memory.as_ref().unwrap();
        let at = user - region.user + region.offset;
        memory.write_all_at(data, at).unwrap();
    }
}

/// The header of a message.
fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    [request, flags, size]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

/// An IOTLB message (`struct vhost_iotlb_msg`) of the device.
fn iotlb(address: u64, kind: u8) -> [u8; 32] {
    let mut message = [0; 32];
    message[..8].copy_from_slice(&address.to_le_bytes());
    // Permission to write.
    message[24..26].copy_from_slice(&[2, kind]);
    message
}

/// A little-endian number of 8 bytes.
fn number(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().unwrap())
}

/// Takes a message and answers it. None when QEMU is gone.
fn serve(stream: &mut UnixStream, shared: &(Mutex<State>, Condvar)) -> Option<()> {
    let mut head = [0; 12];
    let (length, file) = stream.recv_with_fd(&mut head).ok()?;
    if length != head.len() {
        return None;
    }
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    let (request, flags) = (word(0), word(4));
    let mut data = vec![0; word(8) as usize];
    stream.read_exact(&mut data).ok()?;
    let mut state = shared.0.lock().unwrap();
    let mut answer = |data: &[u8]| {
        let mut message = header(request, VERSION | REPLY, data.len() as u32);
        message.extend(data);
        stream.write_all(&message).ok()
    };
    match request {
        request::GET_FEATURES => return answer(&FEATURES.to_le_bytes()),
        request::GET_PROTOCOL_FEATURES => return answer(&PROTOCOL_FEATURES.to_le_bytes()),
        request::GET_QUEUE_NUM => return answer(&1u64.to_le_bytes()),
        // The index of the ring, and where it stands.
        request::GET_VRING_BASE => return answer(&data),
        request::SET_BACKEND_REQ_FD => {
            state.channel = file.map(|file| UnixStream::from(std::os::fd::OwnedFd::from(file)));
        }
        request::SET_MEM_TABLE => {
            // Guest address, size, address in QEMU, offset in the file of each. The machine's
            // memory is one file: the first descriptor is that of all.
            let count = data[0] as usize;
            let region = |n: usize| Region {
                size: number(&data, 8 + 32 * n + 8),
                user: number(&data, 8 + 32 * n + 16),
                offset: number(&data, 8 + 32 * n + 24),
            };
            state.regions = (0..count).map(region).collect();
            state.memory = file;
        }
        request::IOTLB => {
            let (address, size) = (number(&data, 0), number(&data, 8));
            let user = number(&data, 16);
            state.invalidate(address, size);
            match data[25] {
                UPDATE => {
                    let translation = Translation { size, user };
                    state.translations.insert(address, translation);
                    shared.1.notify_all();
                }
                INVALIDATE => {}
                kind => panic!("an IOTLB message of type {kind}"),
            }
        }
        // What concerns queues.
        _ => {}
    }
    if flags & NEED_REPLY != 0 {
        return answer(&0u64.to_le_bytes());
    }
    Some(())
}
