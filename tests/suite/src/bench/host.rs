// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a bench is, and the machines that it makes.

use crate::deviations::Deviation;
use crate::need::Need;
use machine::Moment;
use machine::os::Board;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

/// What a machine is to be like, where it matters to a clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The device. Its laboratory is on in any case.
    pub device: svm_endpoint::Config,
    /// The unit has a first stage with pages of 1 GiB (CAP.FS1GP).
    pub one_gib_pages: bool,
    /// The unit has a first stage (ECAP.FSTS).
    pub first_stage: bool,
    /// The unit has RID_PASID (ECAP.RPS), if the bench can choose.
    pub rid_pasid: bool,
    /// What else the unit is to be like, so that two benches have the same one; none as the bench
    /// has it. Then the device is at 00:04.0, and nothing remaps interrupts.
    pub unit: Option<UnitWish>,
}

/// A unit that several benches can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnitWish {
    /// Whose capabilities it has, where the two units of QEMU's benches differ.
    pub like: Like,
    /// Scalable mode (ECAP.SMTS). Without it the unit has no first stage.
    pub scalable: bool,
    /// Bits of the second stage's input addresses (CAP.MGAW), and of host addresses: 39 or 48. A
    /// first stage needs 48.
    pub address_bits: u8,
    /// Snoop control (ECAP.SC).
    pub snoop_control: bool,
    /// Caching mode (CAP.CM).
    pub caching_mode: bool,
}

/// Whose capabilities a unit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Like {
    /// Those of QEMU's `intel-iommu`.
    IntelIommu,
    /// Those of this project's `svm-vtd`.
    SvmVtd,
}

impl Default for Wish {
    fn default() -> Self {
        Wish {
            device: svm_endpoint::Config {
                laboratory: true,
                // As many as a process has addresses for on every bench.
                address_bits: 48,
                ..svm_endpoint::Config::default()
            },
            one_gib_pages: true,
            first_stage: true,
            rid_pasid: true,
            unit: None,
        }
    }
}

/// Something to be done at the moments of the device's requests.
pub type Hook = Box<dyn FnMut(&Moment) + Send>;

/// A machine with one unit and one device, and what can be done to it beyond what software's
/// accesses do.
pub trait Host: Board {
    /// Function Level Reset (PCIe 6.6.2).
    fn reset_function(&self);

    /// Puts the function into D3hot, or into D0 (PCIe 5.3.1).
    fn set_power(&self, on: bool);

    /// Lets time pass: nothing else does.
    fn advance(&self, by: Duration);

    /// Whether vectors have sent interrupts since this was last asked: how many, as far as the
    /// machine can tell them apart.
    fn take_interrupts(&self) -> usize;

    /// Where interrupts of the function go in memory, if they are not for processors.
    fn mailbox(&self) -> Option<u64>;

    /// Has something done at each moment of the function's requests, or nothing any more. False if
    /// the machine has no such moments.
    fn set_hook(&self, hook: Option<Hook>) -> bool;

    /// Resets everything, as after power-up.
    fn reset_system(&self);

    /// Makes the machine as it was when it was made: everything is reset, and memory is zero. False
    /// if another one has to be made for that.
    fn renew(&self) -> bool {
        false
    }

    /// Lets invalidation requests to the function be lost. False if it has no such link.
    fn lose_invalidations(&self, lose: bool) -> bool;
}

/// A machine that is shared.
pub type Shared = Arc<dyn Host>;

/// A bench.
pub trait Bench: Debug + Sync {
    /// Its name on the command line and in reports.
    fn name(&self) -> &'static str;

    /// Makes a machine.
    ///
    /// # Panics
    ///
    /// If it cannot.
    fn machine(&self, wish: &Wish) -> Shared;

    /// Why it cannot do something; none if it can.
    fn lacks(&self, need: Need) -> Option<&'static str>;

    /// Whether this project's unit is there, and can break its rules.
    fn has_unit_mutants(&self) -> bool {
        false
    }

    /// Where the unit is known to break a clause: a run is good with these, and fails without.
    fn deviations(&self) -> &'static [Deviation] {
        &[]
    }

    /// What is tested, with its version.
    fn subject(&self) -> String;
}

/// The panic of a machine that ended: how, and what it said.
#[derive(Debug)]
pub struct Gone(pub String);
