// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains: second-stage address spaces for requests without a PASID, in both modes.

use super::board::Board;
use super::descriptors;
use super::kernel::{Mode, Os};
use super::queue::QueueFault;
use super::stage::{PS, R, Stage, W};

use crate::machine::{FunctionId, Machine};
use pcie_ats::AlignedRange;
use vtd::spec::DomainId;
use vtd::spec::context::ContextEntry;
use vtd::spec::pasid::{PasidEntry, Pgtt};

/// AW of 48 bits.
pub(super) const AW_48: u8 = 2;

/// A domain of one function.
#[derive(Debug)]
pub struct Domain<B: Board + Clone = Machine> {
    os: Os<B>,
    function: FunctionId,
    did: u16,
    stage: Stage,
}

impl<B: Board + Clone> Domain<B> {
    /// Attaches a function to an empty domain of 4 levels.
    pub fn attach(os: &Os<B>, function: FunctionId) -> Self {
        let kernel = &os.0;
        let stage = Stage::new(&kernel.frames, 4, R | W, 0);
        let did = os.allocate_domain();
        match kernel.mode {
            Mode::Legacy => {
                let place = kernel.context_place(function);
                let entry = ContextEntry::ZERO
                    .with_p(true)
                    // Translation requests are permitted.
                    .with_tt(1)
                    .with_aw(AW_48)
                    .with_did(DomainId(did))
                    .with_ssptptr(stage.pointer());
                kernel.store_all(place, &entry.0);
            }
            Mode::Scalable => {
                // RID_PASID is 0.
                let place = kernel.pasid_place(function, 0);
                let entry = PasidEntry::ZERO
                    .with_p(true)
                    .with_pgtt(Pgtt::SecondStage)
                    .with_aw(AW_48)
                    .with_did(DomainId(did))
                    .with_pwsnp(true)
                    .with_ssptptr(stage.pointer());
                kernel.store_all(place, &entry.0);
            }
        }
        Domain {
            os: os.clone(),
            function,
            did,
            stage,
        }
    }

    /// Its domain id.
    pub fn did(&self) -> u16 {
        self.did
    }

    /// Its tables.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Maps a page of 2^`shift` bytes.
    pub fn map(&self, iova: u64, shift: u8, address: u64, write: bool) {
        let level = (shift - 12) / 9 + 1;
        let flags = R | if write { W } else { 0 } | if level > 1 { PS } else { 0 };
        self.stage
            .set(&self.os.0.frames, iova, level, address | flags);
    }

    /// Unmaps a page, and invalidates.
    pub fn unmap(&self, iova: u64) -> Result<(), QueueFault> {
        let shift = match self.stage.find(&self.os.0.frames, iova) {
            Some(leaf) => super::stage::shift(leaf.level),
            None => return Ok(()),
        };
        self.stage.replace(&self.os.0.frames, iova, 0);
        let range = match AlignedRange::containing(iova, shift) {
            Ok(range) => range,
            Err(error) => panic!("{error}"),
        };
        let machine = self.os.machine();
        self.os.invalidate(
            machine.unit_of(self.function),
            &[
                descriptors::iotlb_domain_pages(self.did, range),
                descriptors::device_tlb(machine.requester(self.function), range),
            ],
        )
    }
}
