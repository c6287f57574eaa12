// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parents that the virtual unit makes itself: I/O address spaces with the guest's memory, and the
//! second-stage page tables of them. It knows no table of the guest.
//!
//! Devices of one iommufd share an I/O address space, and a page table of it as far as the hardware
//! lets them. A device below a unit with erratum 772415 shares with its like only: their address
//! space has nothing that is read-only.

use crate::host::{DeviceId, HostError, HostIommu, HwptId, IoasId, Mapping, ParentFlags};
use crate::mutant::{Mutant, breaks};

/// What a piece of the guest's physical address space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SectionKind {
    /// Memory.
    Ram,
    /// Memory of a device, a BAR for instance, that another device may or may not reach.
    RamDevice,
    /// Memory that the guest has closed to others.
    Protected,
    /// Registers, or nothing.
    Other,
}

/// A piece of the guest's physical address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Address of the first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// Where it lies in the host, in the sense of [`Mapping::host`].
    pub host: u64,
    /// What it is.
    pub kind: SectionKind,
    /// It cannot be written to.
    pub read_only: bool,
}

/// Bytes of a page.
const PAGE: u64 = 4096;

impl Section {
    /// What of a section is mapped: memory, the whole pages within it, below bit 63. With
    /// `bypass_read_only`, only what can be written to.
    pub fn mapping(&self, bypass_read_only: bool) -> Option<Mapping> {
        let is_memory = matches!(self.kind, SectionKind::Ram | SectionKind::RamDevice);
        if (!is_memory || self.address >> 63 != 0) && !breaks(Mutant::N3_29) {
            return None;
        }
        if self.read_only && bypass_read_only && !breaks(Mutant::N4_24) {
            return None;
        }
        let end = self.address.checked_add(self.length)? / PAGE * PAGE;
        let iova = match breaks(Mutant::N4_20) {
            true => self.address / PAGE * PAGE,
            false => self.address.checked_next_multiple_of(PAGE)?,
        };
        let length = end.checked_sub(iova).filter(|length| *length > 0)?;
        Some(Mapping {
            iova,
            host: self.host.wrapping_add(iova.wrapping_sub(self.address)),
            length,
            writable: !self.read_only,
        })
    }
}

#[derive(Debug)]
struct Parent {
    hwpt: HwptId,
    flags: ParentFlags,
    users: Vec<DeviceId>,
}

/// An I/O address space with the guest's memory.
#[derive(Debug)]
struct Container {
    ioas: IoasId,
    bypass_read_only: bool,
    parents: Vec<Parent>,
}

/// A device has a parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The parent, which is attached to the device's requests without PASID.
    pub hwpt: HwptId,
    /// What was tried before and could not be used, for a trace.
    pub tried: Vec<HostError>,
}

/// The parents of all devices, of however many iommufds.
#[derive(Debug, Default)]
pub struct Parents {
    containers: Vec<Container>,
    sections: Vec<Section>,
}

impl Parents {
    /// No device, and no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a device a parent and attaches it: one that there is, else a new one in an I/O address
    /// space that there is, else a new one in a new address space, to which all memory is mapped
    /// before a device has it. What cannot be used is tried and passed over.
    ///
    /// # Errors
    ///
    /// Why a new I/O address space could not be used. Nothing of it is left.
    pub fn attach(
        &mut self,
        host: &mut impl HostIommu,
        device: DeviceId,
        flags: ParentFlags,
        bypass_read_only: bool,
    ) -> Result<Attached, HostError> {
        let mut tried = Vec::new();
        let fits = |c: &&mut Container| {
            (c.ioas.iommufd == device.iommufd) && c.bypass_read_only == bypass_read_only
        };
        for container in self.containers.iter_mut().filter(fits) {
            if breaks(Mutant::N4_19) {
                break;
            }
            let same = container.parents.iter_mut().filter(|p| p.flags == flags);
            for parent in same {
                match host.attach(device, None, parent.hwpt) {
                    Ok(()) => {
                        parent.users.push(device);
                        let hwpt = parent.hwpt;
                        return Ok(Attached { hwpt, tried });
                    }
                    Err(error) => tried.push(error),
                }
            }
            match container.add_parent(host, device, flags) {
                Ok(hwpt) => return Ok(Attached { hwpt, tried }),
                Err(error) => tried.push(error),
            }
        }
        let ioas = host.alloc_ioas(device.iommufd)?;
        let mut container = Container {
            ioas,
            bypass_read_only,
            parents: Vec::new(),
        };
        let made = container
            .map_all(host, &self.sections)
            .and_then(|()| container.add_parent(host, device, flags));
        match made {
            Ok(hwpt) => {
                self.containers.push(container);
                Ok(Attached { hwpt, tried })
            }
            Err(error) => {
                // The first error is the one to tell.
                let _ = host.free_ioas(ioas);
                Err(error)
            }
        }
    }

    /// A device goes away: its parent is detached; the last one frees the parent, and the last
    /// parent its I/O address space.
    ///
    /// # Errors
    ///
    /// What the host said. What could not be freed stays known, and is used by the next device.
    pub fn detach(&mut self, host: &mut impl HostIommu, device: DeviceId) -> Result<(), HostError> {
        host.detach(device, None)?;
        let mut result = Ok(());
        for container in &mut self.containers {
            for parent in &mut container.parents {
                parent.users.retain(|user| *user != device);
            }
            container.parents.retain(|parent| {
                if !parent.users.is_empty() {
                    return true;
                }
                let freed = host.free_hwpt(parent.hwpt);
                if freed.is_err() {
                    result = freed;
                }
                freed.is_err()
            });
        }
        self.containers.retain(|container| {
            if !container.parents.is_empty() {
                return true;
            }
            let freed = host.free_ioas(container.ioas);
            if freed.is_err() {
                result = freed;
            }
            freed.is_err()
        });
        result
    }

    /// The guest has a piece of memory more.
    ///
    /// # Errors
    ///
    /// Where it could not be mapped; of memory of devices that is only to be logged.
    pub fn add_section(
        &mut self,
        host: &mut impl HostIommu,
        section: Section,
    ) -> Result<(), Vec<HostError>> {
        self.sections.push(section);
        let mut errors = Vec::new();
        for container in &self.containers {
            if let Some(mapping) = section.mapping(container.bypass_read_only) {
                errors.extend(host.map(container.ioas, &mapping).err());
            }
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }

    /// The guest has a piece of memory less.
    ///
    /// # Errors
    ///
    /// Where it could not be unmapped.
    pub fn remove_section(
        &mut self,
        host: &mut impl HostIommu,
        section: &Section,
    ) -> Result<(), Vec<HostError>> {
        self.sections.retain(|known| known != section);
        let mut errors = Vec::new();
        for container in &self.containers {
            if let Some(m) = section.mapping(container.bypass_read_only) {
                errors.extend(host.unmap(container.ioas, m.iova, m.length).err());
            }
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }

    /// The I/O address spaces that there are.
    pub fn address_spaces(&self) -> impl Iterator<Item = IoasId> {
        self.containers.iter().map(|container| container.ioas)
    }
}

impl Container {
    /// Maps all memory. Memory of devices that cannot be mapped is left out.
    fn map_all(&self, host: &mut impl HostIommu, sections: &[Section]) -> Result<(), HostError> {
        for section in sections {
            let Some(mapping) = section.mapping(self.bypass_read_only) else {
                continue;
            };
            match host.map(self.ioas, &mapping) {
                Err(error) if section.kind != SectionKind::RamDevice => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes a parent and attaches it to a device, or leaves nothing.
    fn add_parent(
        &mut self,
        host: &mut impl HostIommu,
        device: DeviceId,
        flags: ParentFlags,
    ) -> Result<HwptId, HostError> {
        let hwpt = host.alloc_parent(device, self.ioas, flags)?;
        if let Err(error) = host.attach(device, None, hwpt) {
            // The first error is the one to tell.
            let _ = host.free_hwpt(hwpt);
            return Err(error);
        }
        self.parents.push(Parent {
            hwpt,
            flags,
            users: vec![device],
        });
        Ok(hwpt)
    }
}
