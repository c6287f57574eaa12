// SPDX-License-Identifier: MIT OR Apache-2.0
//! A unit above another one: what it may report, so that the unit below can carry every address
//! space that software makes (sections 11.4.2 and 11.4.3).

use crate::config::{Config, FirstStage, Scalable, Stages};
use crate::mutant::{Mutant, breaks};
use crate::spec::capability::{Capability, ExtendedCapability};
use pcie_ats::PasidWidth;

impl Config {
    /// What is left of a configuration if the first stages of its guest are walked by a unit below,
    /// whose capability registers these are, nested in a second stage (sections 11.4.2 and 11.4.3).
    ///
    /// * Of the stages, the first is left: the second stage below is the host's. Without a first
    ///   stage, or without nesting below, there is nothing to hand down, and the stages stay as they
    ///   are.
    /// * Levels, page sizes, flags, supervisor and execute requests, snoop control and the width of
    ///   PASIDs are those that both units have; page requests need Device-TLBs below too.
    /// * Tables lie where the unit below can reach: below its MGAW.
    #[must_use]
    pub fn limited_by(self, cap: Capability, ecap: ExtendedCapability) -> Config {
        let mut config = self;
        if breaks(Mutant::HostLimits) {
            return config;
        }
        config.host_address_width = config.host_address_width.min(cap.mgaw()).max(32);
        config.snoop_control &= ecap.sc();
        if let Some(device_tlbs) = &mut config.device_tlbs {
            device_tlbs.page_requests &= ecap.dt() && ecap.prs();
        }
        config.scalable = config.scalable.map(|s| scalable(s, cap, ecap));
        config
    }
}

/// What is left of scalable mode.
fn scalable(s: Scalable, cap: Capability, ecap: ExtendedCapability) -> Scalable {
    let stages = match s.stages {
        Stages::First(first) | Stages::Both { first, .. } if ecap.nest() => {
            Stages::First(FirstStage {
                five_levels: first.five_levels && cap.fs5lp(),
                one_gib_pages: first.one_gib_pages && cap.fs1gp(),
                extended_accessed: first.extended_accessed && ecap.eafs(),
            })
        }
        other => other,
    };
    let below = PasidWidth::new(ecap.pasid_width()).ok();
    let pasids = s.pasids.zip(below).map(|(mut pasids, below)| {
        pasids.width = match below.bits() < pasids.width.bits() {
            true => below,
            false => pasids.width,
        };
        pasids.execute_requests &= ecap.ers();
        pasids
    });
    Scalable {
        stages,
        pasids,
        second_stage_dirty: s.second_stage_dirty && !matches!(stages, Stages::First(_)),
        supervisor_requests: s.supervisor_requests && ecap.srs(),
        ..s
    }
}
