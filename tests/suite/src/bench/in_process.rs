// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bench of a machine in this process, with this project's unit.

use super::host::{Bench, Hook, Host, Shared, Wish};
use crate::need::Need;
use machine::{Machine, MachineConfig, Moment, Sender};
use pcie_ats::Reset;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use svm_endpoint::Power;
use vtd::config::{Scalable, Stages};

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
