// SPDX-License-Identifier: GPL-2.0-or-later
//! A device outside of QEMU: a vfio-user server in this process. It has a configuration space and
//! nothing else, and reaches what QEMU has mapped for it, through the descriptors of the guest's
//! memory, as hardware would through an IOMMU below.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

/// Size of configuration space.
const CONFIG: usize = 256;

/// What a range of the device's addresses is mapped to.
#[derive(Debug)]
struct Mapping {
    size: u64,
    /// Guest memory; none if QEMU has none to give, as of a register.
    memory: Option<File>,
    offset: u64,
    flags: DmaMapFlags,
}

#[derive(Default)]
struct State {
    mappings: BTreeMap<u64, Mapping>,
    config: Vec<u8>,
    told: Vec<Announced>,
}

/// What QEMU has told of a range: its first address and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    Map(u64, u64),
    Unmap(u64, u64),
}

/// The device. It ends when QEMU does.
pub struct Outside {
    state: Arc<Mutex<State>>,
    directory: tempfile::TempDir,
}

impl Outside {
    /// A device that waits for QEMU.
    pub fn new() -> Outside {
        let directory = tempfile::tempdir().unwrap();
        let mut config = vec![0; CONFIG];
        // An identity of no other device, and a class of none.
        config[..4].copy_from_slice(&[0x36, 0x1b, 0x01, 0x00]);
        config[0xb] = 0xff;
        let state = Arc::new(Mutex::new(State {
            config,
            ..State::default()
        }));
        let server = Server::new(
            &directory.path().join("device"),
            true,
            (0..VFIO_PCI_NUM_IRQS).map(no_interrupts).collect(),
            (0..VFIO_PCI_NUM_REGIONS).map(region).collect(),
        );
        let (server, mut backend) = (server.unwrap(), Backend(state.clone()));
        std::thread::spawn(move || server.run(&mut backend));
        Outside { state, directory }
    }

    /// How QEMU is told of it.
    pub fn device(&self, slot: u8) -> String {
        let path = self.directory.path().join("device");
        json!({
            "driver": "vfio-user-pci",
            "addr": format!("{slot:x}.0"),
            "socket": { "type": "unix", "path": path },
        })
        .to_string()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Works with the memory behind a range of the device's addresses, if all of it is mapped
    /// with a permission.
    fn reach<R>(
        &self,
        address: u64,
        length: usize,
        permission: DmaMapFlags,
        work: impl FnOnce(&File, u64) -> R,
    ) -> Option<R> {
        let state = self.state();
        let (base, mapping) = state.mappings.range(..=address).next_back()?;
        let within = address - base;
        let all = mapping.size.checked_sub(within)? >= length as u64;
        let allowed = all && mapping.flags.contains(permission);
        let memory = mapping.memory.as_ref().filter(|_| allowed)?;
        Some(work(memory, mapping.offset + within))
    }

    /// Reads memory as the device. None if it does not reach it.
    pub fn read(&self, address: u64, length: usize) -> Option<Vec<u8>> {
        self.reach(address, length, DmaMapFlags::READ, |memory, offset| {
            let mut data = vec![0; length];
            memory.read_exact_at(&mut data, offset).unwrap();
            data
        })
    }

    /// Writes memory as the device, and says whether it reaches it.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let work = |memory: &File, offset| memory.write_all_at(data, offset).unwrap();
        let done = self.reach(address, data.len(), DmaMapFlags::WRITE, work);
        done.is_some()
    }

    /// Reads memory as the device, by a request for each page: none crosses the border of 4 KiB
    /// (PCIe 2.2.7). The bytes that come before the first request that does not reach it.
    pub fn read_by_pages(&self, address: u64, length: u64) -> Vec<u8> {
        let (mut data, end) = (Vec::new(), address + length);
        let mut at = address;
        while at < end {
            let next = end.min((at | 0xfff) + 1);
            let Some(part) = self.read(at, (next - at) as usize) else {
                break;
            };
            data.extend(part);
            at = next;
        }
        data
    }

    /// All that QEMU has told, in its order.
    pub fn told(&self) -> Vec<Announced> {
        self.state().told.clone()
    }

    /// How often QEMU has mapped and unmapped something.
    pub fn counts(&self) -> (usize, usize) {
        let told = self.told();
        let mapped = told
            .iter()
            .filter(|told| matches!(told, Announced::Map(..)));
        let mapped = mapped.count();
        (mapped, told.len() - mapped)
    }
}

/// An interrupt index without interrupts.
fn no_interrupts(index: u32) -> IrqInfo {
    IrqInfo {
        index,
        flags: 0,
        count: 0,
    }
}

/// Configuration space, or a region that there is not.
fn region(index: u32) -> ServerRegion {
    let config = index == VFIO_PCI_CONFIG_REGION_INDEX;
    ServerRegion {
        region_info: vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            flags: if config {
                VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
            } else {
                0
            },
            index,
            size: if config { CONFIG as u64 } else { 0 },
            ..vfio_region_info::default()
        },
        sparse_areas: Vec::new(),
        mmap_fd: None,
    }
}

/// What the server calls.
struct Backend(Arc<Mutex<State>>);

impl Backend {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl ServerBackend for Backend {
    fn region_read(&mut self, _region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        for (n, byte) in data.iter_mut().enumerate() {
            *byte = state
                .config
                .get(offset as usize + n)
                .copied()
                .unwrap_or_default();
        }
        Ok(())
    }

    fn region_write(&mut self, _region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        for (n, byte) in data.iter().enumerate() {
            // Only the command register can be written.
            if matches!(offset as usize + n, 4 | 5) {
                state.config[offset as usize + n] = *byte;
            }
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        memory: Option<File>,
    ) -> io::Result<()> {
        let mut state = self.state();
        state.told.push(Announced::Map(address, size));
        let before = state.mappings.range(..address.saturating_add(size));
        if before
            .last()
            .is_some_and(|(base, m)| m.size > address.saturating_sub(*base))
        {
            // As VFIO has it.
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mapping = Mapping {
            size,
            memory,
            offset,
            flags,
        };
        state.mappings.insert(address, mapping);
        Ok(())
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        let mut state = self.state();
        state.told.push(Announced::Unmap(address, size));
        let all = flags.contains(DmaUnmapFlags::UNMAP_ALL);
        let last = address.saturating_add(size).saturating_sub(1);
        let whole = |base: u64, m: &Mapping| base >= address && base + (m.size - 1) <= last;
        state.mappings.retain(|base, m| !(all || whole(*base, m)));
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_irqs(
        &mut self,
        _index: u32,
        _flags: u32,
        _start: u32,
        _count: u32,
        _fds: Vec<File>,
    ) -> io::Result<()> {
        Ok(())
    }
}
