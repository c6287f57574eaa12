// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a guest sees the ATS capability of an assigned device (`ats=on|off|auto`), and how a
//! capability is hidden. It knows no host: what that says comes in as an argument.

use crate::host::{HardwareInfo, device_capability};
use crate::mutant::{Mutant, breaks};

/// The property `ats` of an assigned device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AtsMode {
    /// The guest sees ATS; without it the device is refused.
    On,
    /// The guest does not see ATS.
    Off,
    /// The guest sees ATS if the host can use it.
    #[default]
    Auto,
}

impl std::str::FromStr for AtsMode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "on" => Ok(AtsMode::On),
            "off" => Ok(AtsMode::Off),
            "auto" => Ok(AtsMode::Auto),
            _ => Err(UnknownMode),
        }
    }
}

/// The property has another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ats is on, off or auto")]
pub struct UnknownMode;

/// What a user should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AtsWarning {
    /// The host cannot use ATS, so the guest does not see it.
    #[error("host kernel reports ATS unsupported; ATS capability will be masked")]
    Masked,
    /// The device has no ATS capability that could be shown.
    #[error("ats=on has no effect: the device has no ATS capability")]
    NoCapability,
}

/// The device is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("ATS requested but not supported by kernel")]
pub struct AtsNotSupported;

/// What the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AtsDecision {
    /// The capability is left in the chain, if the device has it.
    pub visible: bool,
    /// What a user should know.
    pub warning: Option<AtsWarning>,
}

/// Whether the host can use ATS for a device, by what it says of its hardware.
pub fn host_supports_ats(info: &HardwareInfo) -> bool {
    let bit = match breaks(Mutant::N2_5) {
        true => device_capability::PASID_PRIVILEGED,
        false => device_capability::ATS_NOT_SUPPORTED,
    };
    info.capabilities & bit == 0
}

/// Decides before capabilities are added. `host` is what the host says; none if there is no object
/// that could say it, which counts as support.
pub fn decide(
    mode: AtsMode,
    host: Option<bool>,
    device_has_ats: bool,
) -> Result<AtsDecision, AtsNotSupported> {
    let supported = host.unwrap_or(!breaks(Mutant::N2_6));
    let decision = |visible, warning| Ok(AtsDecision { visible, warning });
    let warn = |warning| match breaks(Mutant::N2_7) {
        true => None,
        false => Some(warning),
    };
    match mode {
        AtsMode::Off => decision(breaks(Mutant::N2_2), None),
        AtsMode::On if !supported && !breaks(Mutant::N2_3) => Err(AtsNotSupported),
        AtsMode::On if !device_has_ats => decision(true, warn(AtsWarning::NoCapability)),
        AtsMode::On => decision(true, None),
        AtsMode::Auto if !supported && !breaks(Mutant::N2_4) => decision(
            false,
            device_has_ats.then(|| warn(AtsWarning::Masked)).flatten(),
        ),
        AtsMode::Auto => decision(true, None),
    }
}

/// Extended capability id of ATS (PCIe 7.8.8).
pub const ATS: u16 = 0x000f;
/// Extended capability id of PASID (PCIe 7.8.9).
pub const PASID: u16 = 0x001b;

/// Where extended capabilities begin (PCIe 7.6).
const FIRST: u16 = 0x100;
/// Bytes of configuration space.
const END: u16 = 0x1000;

/// The headers of extended capabilities that a guest reads in the place of the device's, by offset,
/// so that it does not find those of `hidden`. Only the chain changes: registers stay where they
/// are, so the server of the device has to refuse what a guest writes to a hidden one. `read` gives
/// the 32 bits of an offset.
///
/// The first header has to be there. If it is hidden, it has id 0 and leads to the next.
pub fn chain_without(hidden: &[u16], read: impl Fn(u16) -> u32) -> Vec<(u16, u32)> {
    // In the order of the chain. One that leads back ends.
    let mut chain: Vec<(u16, u32)> = Vec::new();
    let mut at = FIRST;
    while (FIRST..END).contains(&at) && !chain.iter().any(|(known, _)| *known == at) {
        let header = read(at);
        if header == 0 || header == u32::MAX {
            break;
        }
        chain.push((at, header));
        at = (header >> 20) as u16 & !3;
    }
    let id = |header: u32| header as u16;
    let stays = |header: u32| !hidden.contains(&id(header));
    let Some((first, rest)) = chain.split_first() else {
        return Vec::new();
    };
    let kept: Vec<_> = rest.iter().filter(|(_, header)| stays(*header)).collect();
    let next_of = |n: usize| kept.get(n).map_or(0, |(at, _)| u32::from(*at) << 20);
    let mut shown = Vec::new();
    let head = match stays(first.1) || breaks(Mutant::N2_9) {
        true => first.1 & 0xf_ffff,
        false => 0,
    };
    shown.push((first.0, head | next_of(0)));
    let rest = kept.iter().enumerate();
    shown.extend(rest.map(|(n, (at, header))| (*at, header & 0xf_ffff | next_of(n + 1))));
    shown
}

/// The extended capabilities that are hidden of a device, by two decisions that do not depend on
/// each other.
pub fn hidden_capabilities(ats: AtsDecision, pasid_visible: bool) -> Vec<u16> {
    let mut hidden = Vec::new();
    if !ats.visible && !breaks(Mutant::N2_8) {
        hidden.push(ATS);
    }
    if !pasid_visible || !ats.visible && breaks(Mutant::N2_10) {
        hidden.push(PASID);
    }
    hidden
}

/// Whether a write that a guest makes to the ATS control register may reach the device: one that is
/// hidden is not enabled (PCIe 7.8.8.3, bit 15 of the upper half).
pub fn may_enable_ats(ats: AtsDecision, control: u16) -> bool {
    ats.visible || control & 1 << 15 == 0
}
