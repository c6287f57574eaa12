// SPDX-License-Identifier: MIT OR Apache-2.0
//! The mutants of the laboratory: switches that each make the device break one rule, so that a test
//! can prove that it notices. The numbers are those of the rules in the conformance table. A mutant
//! with 100 added breaks another clause of the rule, or breaks it only when the device does several
//! things at once. Numbers from 200 on break promises of the device to programs.
//!
//! Only the laboratory's register sets a mutant, and only a device with a laboratory has that
//! register.

/// Declares the mutants once.
macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $name:ident = $rule:literal;)+) => {
        /// A rule that the device breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $name = $rule,)+
        }
        impl Mutant {
            /// Every mutant.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$name,)+];

            /// The mutant of a rule, if the device has one.
            pub const fn of_rule(rule: u64) -> Option<Mutant> {
                match rule {
                    $($rule => Some(Mutant::$name),)+
                    _ => None,
                }
            }

            /// Number of the mutant: the number of its rule, or 100 more; from 200 on there is no
            /// rule.
            pub const fn rule(self) -> u8 {
                self as u8
            }

            /// What the device does wrong.
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Mutant::$name => concat!($($doc),+),)+
                }
            }
        }
    };
}

mutants! {
    /// The list of capabilities ends behind ATS.
    Rule01 = 1;
    /// The ATS capability shows a queue depth of one.
    Rule02 = 2;
    /// Translation requests are not aligned to a page.
    Rule03 = 3;
    /// The smallest translation unit is taken for 4 KiB.
    Rule04 = 4;
    /// Contexts start while ATS is off.
    Rule05 = 5;
    /// PASID Enable changes while ATS is on.
    Rule06 = 6;
    /// PASIDs may be wider than the capability says.
    Rule07 = 7;
    /// Page requests can be enabled while some are outstanding.
    Rule09 = 9;
    /// The cache keeps its entries when ATS is switched off and on.
    Rule10 = 10;
    /// Accesses are sent untranslated, though their translations are known.
    Rule11 = 11;
    /// Translation requests ask for no translation at all.
    Rule12 = 12;
    /// Unsupported Request is taken for a page that is not present.
    Rule13 = 13;
    /// The second translation of a completion is taken for the first once more.
    Rule14 = 14;
    /// Translations are taken to be twice as large as they are.
    Rule15 = 15;
    /// An answer that permits nothing is taken to be of one page, whatever its size.
    Rule16 = 16;
    /// An answer that permits nothing is kept as a permission to read.
    Rule17 = 17;
    /// The answer to a request with No Write set is used for writes.
    Rule18 = 18;
    /// Translation requests ask for the permission to execute.
    Rule19 = 19;
    /// Translation requests ask for privileged mode.
    Rule20 = 20;
    /// All address spaces share their entries.
    Rule21 = 21;
    /// Ranges for untranslated requests only are reached with translated addresses.
    Rule22 = 22;
    /// An access goes on behind the end of its translation.
    Rule29 = 29;
    /// Accesses with translated addresses carry a PASID.
    Rule30 = 30;
    /// Zero-length reads read 8 bytes.
    Rule33 = 33;
    /// The lowest three bits of translated addresses are lost.
    Rule34 = 34;
    /// Atomic operations are content with the permission to read.
    Rule35 = 35;
    /// An invalidation of one PASID removes the entries of all.
    Rule36 = 36;
    /// An invalidation removes an entry only if it is of the same size.
    Rule37 = 37;
    /// An invalidation is answered while an access still uses its range.
    Rule38 = 38;
    /// An answer is used though an invalidation overtook it.
    Rule39 = 39;
    /// Of several invalidations that end together one is completed.
    Rule40 = 40;
    /// Completions of invalidations carry another tag.
    Rule41 = 41;
    /// No invalidation is answered while a page request is outstanding.
    Rule42 = 42;
    /// No invalidation is answered while ATS is off.
    Rule43 = 43;
    /// No invalidation is ever answered.
    Rule44 = 44;
    /// Global Invalidate is ignored.
    Rule45 = 45;
    /// The cache keeps its entries over a function level reset.
    Rule46 = 46;
    /// Invalidations are answered and remove nothing.
    Rule47 = 47;
    /// Every 64th invalidation removes nothing.
    Rule48 = 48;
    /// All page request groups have the same index.
    Rule49 = 49;
    /// Page requests ask for neither read nor write.
    Rule50 = 50;
    /// Every page request of a group is its last.
    Rule51 = 51;
    /// Response Failure is taken for Success.
    Rule52 = 52;
    /// There is no end of requests for a page that is gone again.
    Rule53 = 53;
    /// Invalid Request closes the interface.
    Rule54 = 54;
    /// Page requests go on after a Response Failure.
    Rule55 = 55;
    /// A response to no group is not noted.
    Rule56 = 56;
    /// A response is accepted under any PASID.
    Rule57 = 57;
    /// Credits are not counted.
    Rule58 = 58;
    /// Stopped is set while page requests are outstanding.
    Rule59 = 59;
    /// A page that is not there after a success is taken not to exist.
    Rule61 = 61;
    /// Pages of addresses that are not canonical are requested.
    Rule62 = 62;
    /// Only one page request group is outstanding at a time.
    Rule63 = 63;
    /// Invalid Request is taken for Success.
    Rule64 = 64;
    /// A context stops without waiting for its responses.
    Rule65 = 65;
    /// The translations of a stopped context stay in the cache.
    Rule66 = 66;
    /// A function level reset leaves the contexts as they are.
    Rule67 = 67;
    /// Work goes on when bus mastering is taken away.
    Rule68 = 68;
    /// Work goes on when ATS is switched off.
    Rule69 = 69;
    /// Contexts start while PASID is off.
    Rule70 = 70;
    /// Work goes on in D3hot.
    Rule71 = 71;
    /// Every second completion interrupt is lost.
    Rule72 = 72;
    /// Page requests ask for privileged mode.
    Rule73 = 73;
    /// The highest bit of the Smallest Translation Unit cannot be set.
    Width04 = 104;
    /// Raw requests ask for what is not enabled.
    Enable07 = 107;
    /// Of a large translation only the page that was asked for is used.
    Page15 = 115;
    /// Translations that have grown together survive an invalidation of one of their pages.
    Join37 = 137;
    /// An access that goes on into the next translation does not pin it.
    Extend38 = 138;
    /// Answers that were asked for ahead are kept though an invalidation overtook them.
    Ahead39 = 139;
    /// Groups of pages ahead are sent without credits.
    Ahead58 = 158;
    /// STOP is ignored.
    Stop65 = 165;
    /// A context writes to where another one of its address space has written.
    Mixed = 201;
}
