// SPDX-License-Identifier: MIT OR Apache-2.0
//! The IOMMU of a Linux host: [`host_iommu::host::HostIommu`] on `/dev/iommu`, with the devices
//! that VFIO has in `/dev/vfio/devices`.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`abi`] | what the trait says, as the structures of the kernel have it, and back |
//! | `sys` | the ioctls |
//! | [`memory`] | memory that devices may reach |
//! | [`host`] | iommufds, devices and fault queues, and the trait |
//!
//! A program opens an iommufd ([`host::Host::open`]), binds a device to it ([`host::Host::bind`])
//! and uses the trait. Objects that are left when a [`host::Host`] is dropped go with its files:
//! the kernel detaches, unmaps and frees.
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod abi;
pub mod host;
pub mod memory;
mod sys;
