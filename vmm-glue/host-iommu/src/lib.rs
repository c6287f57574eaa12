// SPDX-License-Identifier: MIT OR Apache-2.0
//! A virtual VT-d unit over the IOMMU of a host: what has to happen in the host when a guest's
//! software programs a unit of the crate `vtd` to which devices of the host are assigned.
//!
//! Everything below the guest is a trait, [`host::HostIommu`], with the objects and rules of
//! iommufd; [`mock::MockHost`] implements it for tests. Above it, a file for each question:
//!
//! | module | question |
//! | --- | --- |
//! | [`compatibility`] | can this device be assigned to this unit? |
//! | [`ats`] | does the guest see its ATS capability? |
//! | [`parents`] | which page table has the guest's memory? |
//! | [`bindings`] | which page table is attached to which address space? |
//! | [`invalidations`] | what has the host to forget? |
//! | [`page_requests`] | which page request is answered by what? |
//! | [`assigned`] | what does an effect of the unit mean to all of these? |
//! | [`ids`] | which PASIDs are free? |
//! | [`virtual_commands`] | how does a guest get one from its host? |
//! | [`cache_invalidate`], [`guest_pasids`] | the same questions in the interfaces before iommufd |
//!
//! Nothing here does I/O, waits, or has a thread. `docs/passthrough.md` has the behaviours by
//! number, each with its test.
//!
//! # Example
//!
//! A device whose guest has set up one address space, and invalidates it:
//!
//! ```
//! use host_iommu::bindings::{AssignedDevice, Bindings};
//! use host_iommu::host::{HostIommu, ParentFlags};
//! use host_iommu::invalidations::iotlb_invalidated;
//! use host_iommu::mock::{MockDevice, MockHost};
//! use host_iommu::tables::{GuestTables, Mode};
//! use pcie_ats::Pasid;
//! use vtd::spec::descriptor::{IotlbScope, PasidScope};
//! use vtd::spec::{DomainId, SourceId};
//! use vtd::{AddressSpace, AddressTranslation, FirstStageTable};
//!
//! /// A guest whose tables have PASID 5.
//! struct Guest(Pasid);
//!
//! impl GuestTables for Guest {
//!     fn mode(&self) -> Mode {
//!         Mode::Scalable
//!     }
//!     fn rid_pasid(&self, _: SourceId) -> Option<Pasid> {
//!         None
//!     }
//!     fn address_space(&self, _: SourceId, pasid: Option<Pasid>) -> Option<AddressSpace> {
//!         let translation = AddressTranslation::FirstStage(FirstStageTable {
//!             table: 0x1000,
//!             levels: 4,
//!             supervisor_requests: false,
//!             write_protect: false,
//!             extended_accessed: false,
//!         });
//!         let domain = DomainId(1);
//!         (pasid == Some(self.0)).then_some(AddressSpace { domain, translation })
//!     }
//!     fn pasids(&self, _: SourceId, _: u32) -> Vec<Pasid> {
//!         vec![self.0]
//!     }
//! }
//!
//! // To assign a device: bind it, and attach a parent.
//! let mut host = MockHost::new();
//! let device = host.bind(1, MockDevice::below(vtd::Config::default()).unwrap());
//! let ioas = host.alloc_ioas(1)?;
//! let flags = ParentFlags { pasid: true, ..ParentFlags::default() };
//! let parent = host.alloc_parent(device, ioas, flags)?;
//! host.attach(device, None, parent)?;
//!
//! let (guest, requester) = (Guest(Pasid::new(5)?), SourceId(0x0008));
//! let mut bindings = Bindings::new();
//! let assigned = AssignedDevice {
//!     requester,
//!     device,
//!     parent,
//!     pasid_limit: 1 << 20,
//!     fault_queue: None,
//! };
//! let changes = bindings.assign(&mut host, &guest, assigned)?;
//! assert!(changes.is_complete());
//! assert_eq!(host.attached_stage(device, Some(guest.0)).unwrap().table, 0x1000);
//!
//! // The guest invalidates the PASID's entry, which has not changed, and its translations.
//! let (domain, pasid) = (DomainId(1), guest.0);
//! let scope = PasidScope::Pasid(domain, pasid);
//! let changes = bindings.pasid_cache_invalidated(&mut host, &guest, scope);
//! assert!(changes.unbound.is_empty());
//! iotlb_invalidated(&mut host, &bindings, IotlbScope::Pasid(domain, pasid), false)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod assigned;
pub mod ats;
pub mod bindings;
pub mod cache_invalidate;
pub mod compatibility;
pub mod guest_pasids;
pub mod host;
pub mod ids;
pub mod invalidations;
pub mod mock;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
mod mutant;
mod nested;
pub mod page_requests;
pub mod parents;
pub mod tables;
pub mod virtual_commands;

/// The examples of the README are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
