// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bench of a machine in this process, with this project's unit.

use super::host::{Bench, Hook, Host, Like, Shared, UnitWish, Wish};
use crate::need::Need;
use machine::{Machine, MachineConfig, Moment, Sender};
use pcie_ats::Reset;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use svm_endpoint::Power;
use vtd::config::{AddressWidth, DeviceTlbs, FirstStage, Pasids, Scalable, Stages};
use vtd::spec::SourceId;

/// The bench.
#[derive(Debug)]
pub struct InProcess;

impl Host for Machine {
    fn reset_function(&self) {
        Machine::reset_function(self, 0, Reset::FunctionLevel);
    }

    fn set_power(&self, on: bool) {
        let power = if on { Power::D0 } else { Power::D3Hot };
        self.endpoint(0).set_power(power);
    }

    fn advance(&self, by: Duration) {
        Machine::advance(self, by);
    }

    fn take_interrupts(&self) -> usize {
        let delivered = self.interrupts().take();
        let of_functions = |sender: &Sender| matches!(sender, Sender::Function(_));
        delivered.iter().filter(|d| of_functions(&d.sender)).count()
    }

    fn mailbox(&self) -> Option<u64> {
        None
    }

    fn set_hook(&self, hook: Option<Hook>) -> bool {
        let hook = hook.map(|mut hook| -> machine::Hook {
            Box::new(move |_: &Machine, moment: &Moment| hook(moment))
        });
        Machine::set_hook(self, 0, hook);
        true
    }

    fn reset_system(&self) {
        self.with_unit(0, |unit, _, fx| unit.reset(fx));
        Machine::reset_function(self, 0, Reset::Conventional);
    }

    fn lose_invalidations(&self, lose: bool) -> bool {
        let link = self.link(0);
        link.loses_invalidations.store(lose, Ordering::Relaxed);
        true
    }
}

/// A unit with the capabilities of one of QEMU's: what the properties of the two come to.
fn unit_config(wish: &Wish, unit: &UnitWish) -> vtd::Config {
    let own = unit.like == Like::SvmVtd;
    let width = match unit.address_bits {
        39 => AddressWidth::Bits39,
        _ => AddressWidth::Bits48,
    };
    let first = FirstStage {
        five_levels: own,
        one_gib_pages: wish.one_gib_pages,
        extended_accessed: own,
    };
    let stages = match (wish.first_stage, own) {
        (true, true) => Stages::Both {
            first,
            nested: true,
        },
        (true, false) => Stages::First(first),
        (false, _) => Stages::Second,
    };
    let usual = vtd::Config::default();
    vtd::Config {
        version: if own { usual.version } else { (1, 0) },
        host_address_width: width.bits(),
        second_stage_width: width,
        snoop_control: unit.snoop_control,
        caching_mode: unit.caching_mode,
        abort_dma: own,
        fault_records: if own { usual.fault_records } else { 1 },
        device_tlbs: usual.device_tlbs.map(|usual| DeviceTlbs {
            throttle: own,
            no_write_flag: own || wish.first_stage,
            page_requests: wish.first_stage,
            ..usual
        }),
        interrupt_remapping: None,
        scalable: unit.scalable.then_some(Scalable {
            stages,
            pasids: Some(Pasids {
                width: wish.device.pasid_width,
                execute_requests: false,
            }),
            coherent_walks: true,
            second_stage_dirty: own,
            supervisor_requests: own || !wish.first_stage,
            rid_pasid: own,
        }),
        strict: false,
        ..usual
    }
}

impl Bench for InProcess {
    fn name(&self) -> &'static str {
        "in-process"
    }

    fn machine(&self, wish: &Wish) -> Shared {
        let mut config = MachineConfig::default();
        config.functions[0].endpoint = wish.device;
        if let Some(Scalable {
            stages, rid_pasid, ..
        }) = &mut config.units[0].scalable
        {
            *rid_pasid = wish.rid_pasid;
            match stages {
                Stages::First(first) | Stages::Both { first, .. } => {
                    first.one_gib_pages = wish.one_gib_pages;
                }
                Stages::Second => {}
            }
            if !wish.first_stage {
                *stages = Stages::Second;
            }
        }
        if let Some(unit) = &wish.unit {
            config.units[0] = unit_config(wish, unit);
            config.functions[0].requester = SourceId(4 << 3);
        }
        match Machine::new(&config) {
            Ok(machine) => Arc::new(machine),
            Err(error) => panic!("{error}"),
        }
    }

    fn lacks(&self, _: Need) -> Option<&'static str> {
        None
    }

    fn has_unit_mutants(&self) -> bool {
        true
    }

    fn subject(&self) -> String {
        format!("vtd {} in process", env!("CARGO_PKG_VERSION"))
    }
}
