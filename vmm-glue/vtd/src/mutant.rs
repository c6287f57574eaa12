// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mutants of the unit: each breaks one rule, so that a test can prove that it notices. `G` and `B`
//! are the rows of docs/vtd.md, `Rule` the unit's rules of docs/rules.md; hosts with several
//! threads rely on `Turn`. `S` are other clauses of rules, which the correctness suite notices. Not of
//! the specification.
//!
//! Only the tests of this crate can set one, with the feature `mutants`. Without the feature, the
//! mutants are not compiled.

/// Declares the mutants once.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A rule that the unit breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// Every mutant.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];

            /// What the unit does wrong.
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Mutant::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

mutants! {
    /// A PASID table entry for nested translation is invalid.
    G01,
    /// A PASID table entry for the second stage is invalid.
    G02,
    /// Accessed and dirty flags are set by walks that are not snooped.
    G03,
    /// A first stage has 4 levels, whatever FSPM says.
    G04,
    /// Requests in privileged mode meet user pages only.
    G05,
    /// The execute-disable bit of first-stage entries is ignored.
    G06,
    /// WPE is ignored.
    G07,
    /// SSADE is ignored.
    G08,
    /// A cached page that permits to write needs no dirty flag.
    G09,
    /// Page requests without PASID are refused.
    G10,
    /// Stop markers are not put into the queue.
    G11,
    /// IOTLB invalidations drain nothing.
    G12,
    /// PGSNP is ignored.
    G13,
    /// Requests without PASID have PASID 0.
    G14,
    /// Abort-DMA mode is a mode that is not valid.
    G15,
    /// DTE is not looked at.
    G16,
    /// Translated requests are not checked.
    G17,
    /// Nothing is said to be for untranslated requests only.
    G18,
    /// A time-out of an invalidation request is not reported.
    G19,
    /// Invalidation requests are counted for each function by itself.
    G20,
    /// There is one fault recording register.
    G21,
    /// A page request that meets a full queue is not answered.
    G22,
    /// Protected memory is not protected.
    G23,
    /// Posted interrupts are delivered as if they were remapped.
    G24,
    /// A context-cache invalidation by domain takes all entries.
    G25,
    /// PASIDs beyond the directory are looked up in it.
    G26,
    /// Reserved bits of PASID table entries are ignored.
    G27,
    /// Faults that are reported by the host are dropped.
    G28,
    /// Page group responses lose their PASID.
    G29,
    /// PASIDs have 8 bits.
    G30,
    /// Hosts are not told of IOTLB invalidations.
    G31,
    /// PGTT of a PASID table entry is looked at before its present bit.
    B01,
    /// Every request needs the entry of PASID 0.
    B02,
    /// A cached page may be written.
    B03,
    /// The levels of a first stage are those of AW.
    B04,
    /// An invalidation of one PASID in the PASID cache takes nothing.
    B05,
    /// Only the first half of a page request descriptor is written.
    B06,
    /// Page requests are taken for first-stage entries alone.
    B07,
    /// The reason for the interrupt range is that of scalable mode.
    B08,
    /// Translations wrap round at the top of the address space.
    B09,
    /// Translations without permission do not say that they are of privileged mode.
    B10,
    /// A second fault overflows the records.
    B11,
    /// The upper half of descriptors is not checked.
    B12,
    /// ICE and ITE cannot be cleared.
    B13,
    /// Read-only pages are answered with the permission to write.
    Rule18,
    /// Recoverable faults of translation requests are recorded.
    Rule23,
    /// The interrupt range is translated for requests without PASID.
    Rule24,
    /// SRE is not looked at.
    Rule25,
    /// The dirty flag is set without permission to write.
    Rule26,
    /// Any address is canonical.
    Rule27,
    /// IOTLB invalidations by PASID take nothing.
    Rule28,
    /// Translated requests with a PASID pass.
    Rule30,
    /// Translated requests reach the interrupt range.
    Rule31,
    /// Fault records have no PASID.
    Rule32,
    /// The invalidation queue goes on behind an error.
    Rule74,
    /// An IOTLB invalidation by domain takes all domains.
    Rule75,
    /// The tail of the page request queue wraps one place early.
    Rule76,
    /// FPD suppresses nothing.
    Rule77,
    /// A global invalidation of the PASID cache takes nothing.
    Rule78,
    /// Pages of 1 GiB are taken where the first stage has none.
    Rule79,
    /// RPS is set in every unit.
    Rule80,
    /// The caches live on over a reset.
    Rule81,
    /// The invalidation queue is processed during the turn of another.
    Turn,
    /// The hint IH of invalidations is lost.
    LeafHint,
    /// A description of an address space does not look at PASIDE.
    PasidEnable,
    /// The round of the queue goes on behind a descriptor that the host has to confirm.
    Confirm,
    /// Page requests that are given up are not answered.
    Abandon,
    /// An address space that hardware of the host walks is not cached.
    Held,
    /// A unit above another one reports all that it is configured with.
    HostLimits,
    /// VCCAP reports nothing.
    N1_20,
    /// VCRSP and VCCAP are in each other's place.
    N1_21,
    /// A command that frees a PASID allocates one.
    N1_22,
    /// IP is not looked at.
    N1_23,
    /// A command that fails ends with success.
    N1_24,
    /// A command is taken while another is in progress.
    N1_26,
    /// PASIDE is not looked at by requests.
    S13,
    /// Translations are twice as large as their pages.
    S15,
    /// A page that is not there is answered with the permission to read.
    S16,
    /// Exe is granted without being asked for.
    S19,
    /// Global is set.
    S21A,
    /// PASIDs lose their lowest bit.
    S21B,
    /// Memory is said to be for untranslated requests only.
    S22,
    /// Translation requests with a PASID are granted nothing in the interrupt range.
    S24A,
    /// Outputs in the interrupt range are permitted.
    S24B,
    /// Translation requests set no dirty flag.
    S26,
    /// Fault records have no requester.
    S32,
    /// Invalidation requests to functions are of one page.
    S36,
    /// A page group response without PASID is an error of the queue.
    S57,
    /// PRE is not looked at.
    S61,
    /// IQERCD does not say why the queue stopped.
    S74,
    /// An IOTLB invalidation by domain takes nothing.
    S75A,
    /// A global IOTLB invalidation takes nothing.
    S75B,
    /// Events are not masked after a reset.
    S76A,
    /// Page request descriptors do not say that execution was requested.
    S76B,
    /// A first stage of levels that there are not has 4.
    S79,
    /// FS1GP is set in every unit.
    S80A,
    /// SMPWCS is clear in every unit.
    S80B,
    /// The upper halves of registers read 0 by themselves.
    S80C,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// Whether a clause of the correctness suite notices it, and no test of this crate.
    pub fn is_of_suite(self) -> bool {
        self as u8 >= Mutant::S13 as u8
    }
}

#[cfg(feature = "mutants")]
thread_local! {
    /// The rule that the units of this thread break.
    static MUTANT: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Sets the rule that the units of this thread break.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    MUTANT.set(mutant);
}

/// Whether the unit breaks the rule of a mutant.
#[cfg(feature = "mutants")]
pub(crate) fn breaks(mutant: Mutant) -> bool {
    MUTANT.get() == Some(mutant)
}

/// Whether the unit breaks the rule of a mutant: never.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn breaks(_: Mutant) -> bool {
    false
}
