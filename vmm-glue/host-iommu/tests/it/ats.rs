// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ats=on|off|auto`: the truth table, and the chain of capabilities that a guest sees.

use crate::bench::device;
use host_iommu::ats::{
    ATS, AtsDecision, AtsMode, AtsNotSupported, AtsWarning, PASID, chain_without, decide,
    hidden_capabilities, host_supports_ats, may_enable_ats,
};
use host_iommu::host::device_capability;
use std::collections::BTreeMap;

const SHOWN: Result<AtsDecision, AtsNotSupported> = Ok(AtsDecision {
    visible: true,
    warning: None,
});

const HIDDEN: Result<AtsDecision, AtsNotSupported> = Ok(AtsDecision {
    visible: false,
    warning: None,
});

fn warned(visible: bool, warning: AtsWarning) -> Result<AtsDecision, AtsNotSupported> {
    let warning = Some(warning);
    Ok(AtsDecision { visible, warning })
}

#[test]
pub(crate) fn n2_1_the_property_is_on_off_or_auto() {
    assert_eq!(AtsMode::default(), AtsMode::Auto);
    let parse = |text: &str| text.parse::<AtsMode>().ok();
    let all = ["on", "off", "auto", "", "On", "1"].map(parse);
    let (on, off, auto) = (Some(AtsMode::On), Some(AtsMode::Off), Some(AtsMode::Auto));
    assert_eq!(all, [on, off, auto, None, None, None]);
}

#[test]
pub(crate) fn n2_2_off_hides_it_always() {
    for host in [None, Some(false), Some(true)] {
        for device in [false, true] {
            assert_eq!(decide(AtsMode::Off, host, device), HIDDEN);
        }
    }
}

#[test]
pub(crate) fn n2_3_on_refuses_a_host_that_cannot() {
    assert_eq!(decide(AtsMode::On, Some(true), true), SHOWN);
    assert_eq!(decide(AtsMode::On, Some(false), true), Err(AtsNotSupported));
    assert_eq!(
        decide(AtsMode::On, Some(false), false),
        Err(AtsNotSupported)
    );
    let words = "ATS requested but not supported by kernel";
    assert_eq!(AtsNotSupported.to_string(), words);
}

#[test]
pub(crate) fn n2_4_auto_hides_it_when_the_host_cannot() {
    assert_eq!(decide(AtsMode::Auto, Some(true), true), SHOWN);
    let decision = decide(AtsMode::Auto, Some(false), true).unwrap();
    assert!(!decision.visible);
}

#[test]
pub(crate) fn n2_5_the_host_says_it_by_a_bit_of_the_device() {
    let mut info = device().info;
    info.capabilities = device_capability::PASID_EXECUTE | device_capability::PASID_PRIVILEGED;
    assert!(host_supports_ats(&info));
    info.capabilities = 1 << 3;
    assert!(!host_supports_ats(&info));
}

#[test]
pub(crate) fn n2_6_a_host_that_says_nothing_counts_as_one_that_can() {
    assert_eq!(decide(AtsMode::On, None, true), SHOWN);
    assert_eq!(decide(AtsMode::Auto, None, true), SHOWN);
}

#[test]
pub(crate) fn n2_7_a_user_is_warned() {
    let masked = warned(false, AtsWarning::Masked);
    assert_eq!(decide(AtsMode::Auto, Some(false), true), masked);
    // Nothing is masked that is not there.
    assert_eq!(decide(AtsMode::Auto, Some(false), false), HIDDEN);
    let without = warned(true, AtsWarning::NoCapability);
    assert_eq!(decide(AtsMode::On, Some(true), false), without);
    assert_eq!(decide(AtsMode::On, None, false), without);
    assert_eq!(decide(AtsMode::Auto, Some(true), false), SHOWN);
    let words = "host kernel reports ATS unsupported; ATS capability will be masked";
    assert_eq!(AtsWarning::Masked.to_string(), words);
}

/// Configuration space with extended capabilities: offset, id, next.
fn configuration(chain: &[(u16, u16, u16)]) -> impl Fn(u16) -> u32 + use<> {
    let header =
        |(at, id, next): &(u16, u16, u16)| (*at, u32::from(*next) << 20 | 1 << 16 | u32::from(*id));
    let headers: BTreeMap<u16, u32> = chain.iter().map(header).collect();
    move |at| headers.get(&at).copied().unwrap_or(0)
}

/// The ids that a guest finds, with their offsets.
fn found(shown: &[(u16, u32)]) -> Vec<(u16, u16)> {
    let headers: BTreeMap<u16, u32> = shown.iter().copied().collect();
    let (mut at, mut all) = (0x100, Vec::new());
    while at != 0 {
        let header = headers[&at];
        all.push((at, header as u16));
        at = (header >> 20) as u16;
    }
    all
}

const CHAIN: &[(u16, u16, u16)] = &[
    (0x100, 0x1, 0x140),
    (0x140, ATS, 0x150),
    (0x150, 0x13, 0x180),
    (0x180, PASID, 0),
];

#[test]
pub(crate) fn n2_8_the_decision_says_which_capabilities_are_hidden() {
    for (mode, host, expected) in [
        (AtsMode::On, Some(true), vec![]),
        (AtsMode::Auto, Some(true), vec![]),
        (AtsMode::Auto, Some(false), vec![ATS]),
        (AtsMode::Off, Some(true), vec![ATS]),
    ] {
        let decision = decide(mode, host, true).unwrap();
        assert_eq!(
            hidden_capabilities(decision, true),
            expected,
            "{mode:?} {host:?}"
        );
    }
}

#[test]
pub(crate) fn n2_9_hiding_relinks_the_chain_alone() {
    let all = found(&chain_without(&[], configuration(CHAIN)));
    assert_eq!(
        all,
        [(0x100, 1), (0x140, ATS), (0x150, 0x13), (0x180, PASID)]
    );
    let without = found(&chain_without(&[ATS], configuration(CHAIN)));
    assert_eq!(without, [(0x100, 1), (0x150, 0x13), (0x180, PASID)]);
    let without = found(&chain_without(&[PASID], configuration(CHAIN)));
    assert_eq!(without, [(0x100, 1), (0x140, ATS), (0x150, 0x13)]);
    // Versions stay; the first header stays where it is, without an id.
    let first: &[_] = &[(0x100, ATS, 0x200), (0x200, 0x10, 0)];
    let shown = chain_without(&[ATS], configuration(first));
    assert_eq!(shown, [(0x100, 0x200 << 20), (0x200, 0x1_0010)]);
    let alone = chain_without(&[ATS], configuration(&first[..1]));
    assert_eq!(alone, [(0x100, 0)]);
    // No extended capability at all, none that can be read, and a chain that leads back.
    assert_eq!(chain_without(&[ATS], |_| 0), []);
    assert_eq!(chain_without(&[ATS], |_| u32::MAX), []);
    let circle: &[_] = &[(0x100, 1, 0x140), (0x140, 2, 0x100)];
    assert_eq!(chain_without(&[], configuration(circle)).len(), 2);
    // The device must not be told to enable what is hidden.
    let (shown, hidden) = (SHOWN.unwrap(), HIDDEN.unwrap());
    assert!(may_enable_ats(shown, 0x8000) && may_enable_ats(hidden, 0x001f));
    assert!(!may_enable_ats(hidden, 0x8000));
}

#[test]
pub(crate) fn n2_10_pasid_is_decided_by_itself() {
    let (shown, hidden) = (SHOWN.unwrap(), HIDDEN.unwrap());
    assert_eq!(hidden_capabilities(hidden, true), [ATS]);
    assert_eq!(hidden_capabilities(shown, false), [PASID]);
    assert_eq!(hidden_capabilities(hidden, false), [ATS, PASID]);
    assert_eq!(hidden_capabilities(shown, true), []);
}
