// SPDX-License-Identifier: MIT OR Apache-2.0
//! `ats=on|off|auto`: the truth table, and the chain of capabilities that a guest sees.

use crate::bench::{device, holds};
use host_iommu::ats::{
    ATS, AtsDecision, AtsMode, AtsNotSupported, AtsWarning, PASID, chain_without, decide,
    hidden_capabilities, host_supports_ats, may_enable_ats,
};
use host_iommu::host::device_capability;
use proptest::prelude::*;
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

/// `ats`, what the host says of ATS, whether the device has it: what the guest finds, and what the
/// user is told.
const TABLE: &str = "
    on    yes      with     ATS
    on    yes      without  ATS     no effect
    on    no       with     refused
    on    no       without  refused
    on    nothing  with     ATS
    on    nothing  without  ATS     no effect
    off   yes      with     none
    off   yes      without  none
    off   no       with     none
    off   no       without  none
    off   nothing  with     none
    off   nothing  without  none
    auto  yes      with     ATS
    auto  yes      without  ATS
    auto  no       with     none    will be masked
    auto  no       without  none
    auto  nothing  with     ATS
    auto  nothing  without  ATS
";

#[test]
pub(crate) fn the_decision_is_that_of_the_truth_table() {
    let mut rows = 0;
    for row in TABLE.lines().filter(|row| !row.trim().is_empty()) {
        let words: Vec<&str> = row.split_whitespace().collect();
        let host = match words[1] {
            "nothing" => None,
            word => Some(word == "yes"),
        };
        let decision = decide(words[0].parse().unwrap(), host, words[2] == "with");
        let found = match decision {
            Err(_) => "refused",
            Ok(decision) if decision.visible => "ATS",
            Ok(_) => "none",
        };
        assert_eq!(found, words[3], "{row}");
        let warning = decision.ok().and_then(|decision| decision.warning);
        let told = warning.map_or(String::new(), |warning| warning.to_string());
        let words = words[4..].join(" ");
        assert_eq!(words.is_empty(), told.is_empty(), "{row}: {told}");
        assert!(told.contains(&words), "{row}: {told}");
        rows += 1;
    }
    assert_eq!(rows, 18, "every row");
}

/// A device's configuration space from 100h on, in words of 32 bits: `rest` where no header is. The
/// capabilities are in the order of the chain: id, version, and where from 104h on; the first is at
/// 100h.
fn space_with(chain: &[(u16, u8, u16)], rest: u32) -> (Vec<u32>, Vec<(u16, u16)>) {
    let mut words = vec![rest; 0x3c0];
    let mut there: Vec<(u16, u16)> = Vec::new();
    for (n, (id, _, at)) in chain.iter().enumerate() {
        let at = if n == 0 { 0x100 } else { *at };
        if there.iter().all(|(known, _)| *known != at) {
            there.push((at, *id));
        }
    }
    for (n, (at, id)) in there.iter().enumerate() {
        let next = there.get(n + 1).map_or(0, |(at, _)| u32::from(*at));
        let version = chain.iter().find(|(of, ..)| of == id).unwrap().1;
        words[usize::from(at - 0x100) / 4] = next << 20 | u32::from(version) << 16 | u32::from(*id);
    }
    (words, there)
}

/// What a guest finds that follows the chain, and does not loop: offsets and ids, without those that
/// have no id.
fn followed(words: &[u32]) -> Vec<(u16, u16)> {
    let (mut at, mut all) = (0x100u16, Vec::new());
    for _ in 0..words.len() {
        let Some(word) = at
            .checked_sub(0x100)
            .and_then(|at| words.get(usize::from(at) / 4))
        else {
            break;
        };
        if *word as u16 != 0 {
            all.push((at, *word as u16));
        }
        at = (word >> 20) as u16 & !3;
    }
    all
}

/// The space as the guest reads it.
fn patched(words: &[u32], hidden: &[u16]) -> Vec<u32> {
    let mut shown = words.to_vec();
    for (at, header) in chain_without(hidden, |at| words[usize::from(at - 0x100) / 4]) {
        shown[usize::from(at - 0x100) / 4] = header;
    }
    shown
}

#[test]
pub(crate) fn what_is_hidden_is_passed_over_and_nothing_else_changes() {
    let id = prop_oneof![Just(ATS), Just(PASID), Just(0x13u16), 1u16..8];
    let at = (0x41u16..0x3ff).prop_map(|word| word * 4);
    let chain = proptest::collection::vec((id.clone(), 1u8..4, at), 1..12);
    let hidden = proptest::collection::vec(id, 0..4);
    holds(
        400,
        (chain, hidden, any::<u32>()),
        |(chain, hidden, rest)| {
            let (words, there) = space_with(&chain, rest);
            prop_assert_eq!(followed(&words), there.clone());
            let shown = patched(&words, &hidden);
            let left = there.iter().filter(|(_, id)| !hidden.contains(id)).copied();
            let left: Vec<_> = left.collect();
            prop_assert_eq!(followed(&shown), left.clone());
            // Of a header that is left, no more than the next one; the first one, if it is hidden, loses
            // its id and version.
            for (n, (before, after)) in words.iter().zip(&shown).enumerate() {
                let at = 0x100 + 4 * n as u16;
                let stays = left.iter().any(|(of, _)| *of == at);
                let same = match (stays, at) {
                    (true, _) => before & 0xf_ffff == after & 0xf_ffff,
                    (false, 0x100) => after & 0xf_ffff == 0,
                    (false, _) => before == after,
                };
                prop_assert!(same, "{at:#x}: {before:#x}, {after:#x}");
            }
            Ok(())
        },
    );
}

#[test]
pub(crate) fn a_chain_of_any_words_ends() {
    // Headers at few places, so that they lead to each other, and back.
    let word = (any::<u16>(), 0u32..0x30).prop_map(|(id, next)| {
        let next = if next < 0x20 { 0x100 + next } else { next };
        next << 20 | u32::from(id % 0x20)
    });
    let words = proptest::collection::vec(word, 0x3c0);
    holds(200, words, |words| {
        let shown = followed(&patched(&words, &[ATS, PASID]));
        let found: Vec<u16> = shown.iter().map(|(_, id)| *id).collect();
        prop_assert!(
            !found.contains(&ATS) && !found.contains(&PASID),
            "{found:x?}"
        );
        let mut once = shown.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert!(once.len() == shown.len() && shown.len() <= 0x3c0);
        Ok(())
    });
}
