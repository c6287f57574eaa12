// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a clause can ask of a bench beyond what all of them have.

/// What a clause asks of a bench beyond the common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Untranslated and translated requests of the function can carry a PASID.
    AccessWithPasid,
    /// Software can act between a look-up and the access that uses it, and between the answer to a
    /// translation request and its use.
    Moments,
    /// Invalidation requests and their completions are messages that can be lost, and whose
    /// completion the unit awaits.
    LostMessages,
    /// The unit takes requests in privileged mode (ECAP.SRS).
    Supervisor,
    /// The unit can be made without RID_PASID (ECAP.RPS).
    WithoutRidPasid,
    /// The unit can be made without a first stage (ECAP.FSTS): with a second alone.
    WithoutFirstStage,
    /// The unit can be made without pages of 1 GiB in its first stage (CAP.FS1GP).
    WithoutOneGibPages,
}

impl Need {
    /// Every need.
    pub const ALL: &[Need] = &[
        Need::AccessWithPasid,
        Need::Moments,
        Need::LostMessages,
        Need::Supervisor,
        Need::WithoutRidPasid,
        Need::WithoutFirstStage,
        Need::WithoutOneGibPages,
    ];
}
