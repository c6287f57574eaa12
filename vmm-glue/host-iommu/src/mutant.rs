// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mutants of the crate: each breaks one rule, so that a test can prove that it would notice. Those
//! with a number are of the rows of docs/passthrough.md.
//!
//! Only the tests of this crate can set one, with the feature `mutants`. Without it, nothing is
//! left of them.

/// Declares the mutants once.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A rule that is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name,)+
        }

        #[cfg(feature = "mutants")]
        impl Mutant {
            /// Every mutant.
            pub const ALL: &[Mutant] = &[$(Mutant::$name,)+];

            /// What is wrong.
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Mutant::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

mutants! {
    /// The default allocator does not give the lowest id.
    N1_1,
    /// A freed id of the default allocator stays allocated.
    N1_2,
    /// An id is found in any set.
    N1_3,
    /// New data of an id are dropped.
    N1_4,
    /// The default allocator is used whatever is registered.
    N1_5,
    /// A custom allocator is taken while ids of the default one are in use.
    N1_6,
    /// An allocator can be registered twice.
    N1_7,
    /// Allocators of one provider do not share their ids.
    N1_8,
    /// The allocator that came last is active.
    N1_9,
    /// The ids of a provider go with the first of its allocators that leaves.
    N1_10,
    /// An id that a custom allocator gave twice is not given back to it.
    N1_11,
    /// An allocator that waits cannot leave.
    N1_12,
    /// A guest uses virtual commands that the unit does not report.
    N1_13,
    /// The host answers commands without its ids.
    N1_14,
    /// A guest looks at a response once.
    N1_25,
    /// A guest keeps a PASID outside of the range.
    VirtualRange,
    /// The end of a command that has timed out is taken for that of the next one.
    GivenUp,
    /// Any version of a cache invalidation is taken.
    N1_30,
    /// The leaf flag is another bit.
    N1_31,
    /// Any cache goes with any selection.
    N1_32,
    /// All of a PASID is invalidated as pages.
    N1_33,
    /// Sizes are rounded down.
    N1_34,
    /// The Device-TLB keeps what the IOTLB forgets.
    N1_35,
    /// A Device-TLB forgets one page of a PASID.
    N1_36,
    /// A device without scalable mode is served.
    N1_37,
    /// A guest in caching mode invalidates Device-TLBs of what was not present.
    N1_38,
    /// Unbinding leaves the page table attached.
    N1_40,
    /// Unknown versions, formats and flags are taken.
    N1_41,
    /// What the hardware cannot do is bound.
    N1_42,
    /// WPE is turned round.
    N1_43,
    /// A PASID of the host can be bound to one device alone.
    N1_44,
    /// The guest's PASID is not recorded.
    N1_45,
    /// What failed stays recorded.
    N1_46,
    /// Unbinding frees the PASID.
    N1_47,
    /// `ats=off` shows ATS.
    N2_2,
    /// `ats=on` takes a host without ATS.
    N2_3,
    /// `ats=auto` shows ATS on a host without it.
    N2_4,
    /// What the host says of ATS is another bit.
    N2_5,
    /// A host that says nothing has no ATS.
    N2_6,
    /// Nobody is warned.
    N2_7,
    /// The decision has no effect on the capabilities.
    N2_8,
    /// A hidden first capability keeps its id.
    N2_9,
    /// PASID is hidden with ATS.
    N2_10,
    /// Shadowing is allowed without caching mode.
    N3_27,
    /// Anything is mapped as if it were memory.
    N3_29,
    /// A partial invalidation says that all entries were done.
    N4_1,
    /// Nesting is read from another bit.
    N4_6,
    /// A host without nesting is taken.
    N4_9,
    /// A device can be assigned twice.
    N4_10,
    /// Requests without PASID belong to entry 0 whatever RID_PASID is.
    N4_11,
    /// An invalidation by domain takes all domains.
    N4_12,
    /// An invalidation of a PASID takes it in every domain.
    N4_13,
    /// What is new in the tables is not bound.
    N4_14,
    /// Tables count although translation is off.
    N4_15,
    /// A reset changes nothing.
    N4_16,
    /// A first stage without a table is bound.
    N4_17,
    /// WPE and EAFE change places.
    N4_18,
    /// No parent is shared.
    N4_19,
    /// Pages are mapped of which a section has a part only.
    N4_20,
    /// A nested page table that nobody has stays.
    N4_21,
    /// PASIDs are not bound.
    N4_22,
    /// An event that failed is reported as complete.
    N4_23,
    /// Read-only memory is mapped below a unit with the erratum.
    N4_24,
    /// A function mask is ignored.
    N4_25,
    /// An invalidation takes its PASID in every domain.
    N4_26,
    /// Nothing is read again when translation changes.
    N4_27,
    /// Nested page tables are not shared.
    N4_30,
    /// A device that is plugged in is not bound.
    N4_32,
    /// The unit asks for no parent.
    N4_40,
    /// The erratum is not looked at.
    N4_41,
    /// A device behind a bridge is taken.
    N4_43,
    /// The old page table is detached before the new one is attached.
    N4_44,
    /// The device's own limit of PASIDs is ignored.
    N4_45,
    /// What is new is bound before what is gone is unbound.
    N4_46,
    /// Nested page tables cannot be attached to PASIDs.
    N4_47,
    /// The PASID capability is somewhere else.
    N4_48,
    /// Dirty tracking is not seen.
    N4_49,
    /// Large ranges wrap round.
    Range,
    /// The leaf hint is lost.
    Leaf,
    /// An invalidation that fails is not tried as a whole.
    Whole,
    /// One page table that fails keeps the others from being invalidated.
    Others,
    /// A device whose groups have no index left is told that its request is invalid.
    Overflow,
    /// Each request is a group.
    Groups,
    /// Failures of the guest are success for the host.
    Code,
    /// Groups of an address space that is gone stay outstanding.
    Detach,
    /// A response that the host refuses keeps the others back.
    Refused,
}

#[cfg(feature = "mutants")]
thread_local! {
    /// The rule that is broken in this thread.
    static MUTANT: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Sets the rule that is broken in this thread.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    MUTANT.set(mutant);
}

/// Whether the rule of a mutant is broken.
#[cfg(feature = "mutants")]
pub(crate) fn breaks(mutant: Mutant) -> bool {
    MUTANT.get() == Some(mutant)
}

/// Whether the rule of a mutant is broken: never.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn breaks(_: Mutant) -> bool {
    false
}
