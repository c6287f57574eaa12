// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays the recorded boot.

use crate::player::play;
use crate::recording::{Call, Recording, number, words};
use std::collections::BTreeMap;
use vtd::Config;
use vtd::config::InterruptRemapping;
use vtd::spec::register::{fsts, global, offset, prs};

/// The configuration of `-device svm-vtd,intremap=on` in a QEMU that emulates the processors'
/// interrupt controllers itself and so has no x2APIC.
fn config() -> Config {
    Config {
        interrupt_remapping: Some(InterruptRemapping {
            extended_mode: false,
            posted: false,
        }),
        ..Config::default()
    }
}

#[test]
fn the_unit_does_again_what_it_did_when_linux_drove_it() {
    play(crate::BOOT, config()).unwrap();
}

#[test]
fn the_recording_has_all_that_it_is_to_show() {
    let recording = Recording::parse(crate::BOOT).unwrap();
    let mut counts = BTreeMap::new();
    let mut count = |what: &'static str, is: bool| {
        *counts.entry(what).or_insert(0) += u32::from(is);
    };
    for event in &recording.events {
        let call = Call::parse(event.line).unwrap();
        let answer = event.line.split(" = ").nth(1).unwrap_or_default();
        let sets = |at, bit: u32| matches!(call, Call::Write(o, _, v) if o == at && v & u64::from(bit) != 0);
        let finds = |at, bit: u32| {
            matches!(call, Call::Read(o, _) if o == at)
                && number(answer).unwrap() & u64::from(bit) != 0
        };
        count("root table set", sets(offset::GCMD, global::SRTP));
        count("queue on", sets(offset::GCMD, global::QIE));
        count("translation on", sets(offset::GCMD, global::TE));
        count("interrupt table set", sets(offset::GCMD, global::SIRTP));
        count("interrupt remapping on", sets(offset::GCMD, global::IRE));
        count(
            "remapped interrupt",
            matches!(call, Call::Interrupt(..)) && event.below.len() == 1,
        );
        count("fault found", finds(offset::FSTS, fsts::PPF));
        count("fault cleared", sets(offset::FRCD + 12, 1 << 31));
        count("second fault cleared", sets(offset::FRCD + 28, 1 << 31));
        count(
            "page requests found",
            matches!(call, Call::Read(offset::PQT, _)),
        );
        count("page request cleared", sets(offset::PRS, prs::PPR));
        count(
            "translation request",
            matches!(call, Call::Ats(..)) && answer != "0x0",
        );
        count(
            "page not present",
            matches!(call, Call::Ats(..)) && answer == "0x0",
        );
        count("page request", matches!(call, Call::Page(..)));
        count("translated request", matches!(call, Call::Translated(..)));
        count(
            "blocked",
            matches!(call, Call::Translate(..)) && answer.starts_with("fault"),
        );
        count("completion", matches!(call, Call::Complete(..)));
        for line in &event.below {
            match words(line)[..] {
                [">", "invalidate", _, "-", ..] => count("Device-TLB invalidation", true),
                [">", "invalidate", ..] => count("Device-TLB invalidation with PASID", true),
                [">", "respond", .., "success"] => count("pages served", true),
                [">", "respond", .., "invalid-request"] => count("pages refused", true),
                [">", "interrupt", ..] => count("interrupt", true),
                [">", "invalidated", "contexts", ..] => count("context invalidation", true),
                [">", "invalidated", "pasids", ..] => count("PASID invalidation", true),
                [">", "invalidated", "interrupts", ..] => count("interrupt invalidation", true),
                [">", "invalidated", "iotlb", ..] => count("IOTLB invalidation", true),
                ["writes", _, "4", ..] => count("wait status", true),
                ["writes", _, "32", ..] => count("page request descriptor", true),
                _ => {}
            }
        }
    }
    let missing: Vec<_> = counts.iter().filter(|(_, n)| **n == 0).collect();
    assert!(missing.is_empty(), "{missing:?} of {counts:?}");
    assert_eq!(counts.len(), 27, "{counts:?}");
}

/// Replays the recording with a change of the first line that begins with `wanted`. Removing a call
/// also removes the lines that follow from it.
fn play_changed(wanted: &str, change: impl Fn(&str) -> String) -> Result<(), String> {
    let mut lines = crate::BOOT.split_inclusive('\n').peekable();
    let mut text = String::new();
    while let Some(line) = lines.next_if(|line| !line.starts_with(wanted)) {
        text += line;
    }
    let found = lines.next().unwrap();
    let changed = change(found);
    if changed.is_empty() && !found.starts_with(' ') {
        while lines.next_if(|line| line.starts_with(' ')).is_some() {}
    }
    text += &changed;
    text.extend(lines);
    play(&text, config())
}

#[test]
fn a_recording_that_says_something_else_is_refused() {
    let without = |wanted| play_changed(wanted, |_| String::new()).unwrap_err();
    let other = |wanted, from: &str, to: &str| {
        play_changed(wanted, |line| line.replacen(from, to, 1)).unwrap_err()
    };
    // The unit did something that the recording does not contain.
    for wanted in [
        "  writes ",
        "  > interrupt ",
        "  > invalidate ",
        "  > respond ",
        "  > queue-ready",
        "  > translation on",
    ] {
        assert!(without(wanted).contains("it was\n"), "{wanted}");
    }
    // The unit gave a different answer.
    for (wanted, from, to) in [
        ("read 0x1c ", " = 0x", " = 0x1"),
        ("read 0xc8 ", " = 0x", " = 0x1"),
        ("ats ", " = 0x", " = 0x1"),
        ("  writes ", " 0x", " 0x1"),
        ("  > respond ", "success", "invalid-request"),
    ] {
        assert!(other(wanted, from, to).contains("it was\n"), "{wanted}");
    }
    // The guest did something else.
    assert!(without("write 0x20 ").contains("it was\n"));
    // Without it, the unit continues with descriptors that were queued later.
    assert!(without("process ").contains("where the recording knows nothing"));
    // The function did not answer, and the unit continued to wait.
    assert!(without("complete ").contains("  writes "));
    // Memory differed from the recording.
    assert!(without("  reads ").contains("where the recording knows nothing"));
}
