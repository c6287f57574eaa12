// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replays a recording with a new unit and records it again. The two recordings must be equal,
//! except for the unit's reads of memory.

use crate::image::Image;
use crate::recording::{Call, Event, Recording, number, words};
use pcie_ats::{AlignedRange, Translation};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use vtd::recording::{RecordedUnit, Sink};
use vtd::{Capabilities, Config, Effects, QueueTurn};

/// Room for the translations of a completion.
const NOTHING: Translation = Translation {
    range: AlignedRange::page(0),
    read: false,
    write: false,
    execute: false,
    privileged: false,
    global: false,
    untranslated_only: false,
    non_snooped: false,
};

/// Plays a recording into a unit with this configuration.
pub fn play(text: &str, config: Config) -> Result<(), String> {
    let recording = Recording::parse(text)?;
    let caps = Capabilities::new(config).map_err(|error| error.to_string())?;
    let are = [caps.cap().0, caps.ecap().0];
    if are != recording.capabilities {
        let were = recording.capabilities;
        return Err(format!("CAP and ECAP were {were:#x?}, and are {are:#x?}"));
    }
    let heard = Arc::new(Mutex::new(String::new()));
    let ear = heard.clone();
    let sink: Sink = Box::new(move |text| ear.lock().unwrap().push_str(text));
    let mut unit = RecordedUnit::new(caps, Some(sink));
    // Only the calls of the new recording count.
    heard.lock().unwrap().clear();
    let image = Image::default();
    let (mut last, mut turn) = (String::new(), None);
    for event in recording
        .events
        .iter()
        .flat_map(|e| std::iter::repeat_n(e, e.times as usize))
    {
        let told = |error| format!("line {}: {error}", event.number);
        fill(&image, event).map_err(told)?;
        call(&mut unit, &mut turn, &image, event).map_err(told)?;
        // A call that equals the previous one is only counted.
        let new = std::mem::take(&mut *heard.lock().unwrap());
        let new: String = new
            .split_inclusive('\n')
            .filter(|l| !l.starts_with("again "))
            .collect();
        if !new.is_empty() {
            last = new;
        }
        if let Some(address) = image.unknown() {
            return Err(told(format!(
                "{}: the unit read at {address:#x}, where the recording knows nothing",
                event.line
            )));
        }
        compare(event, &last).map_err(told)?;
    }
    Ok(())
}

/// Writes the data that a call read to the image.
fn fill(image: &Image, event: &Event<'_>) -> Result<(), String> {
    // The data that this call has read or written so far.
    let mut seen: BTreeMap<u64, u8> = BTreeMap::new();
    for line in &event.below {
        match words(line)[..] {
            ["reads", address, size, "failed"] => {
                image.make_hole(number(address)?, number(size)?);
            }
            ["reads", address, size, ref data @ ..] => {
                let data = bytes(number(size)?, data)?;
                for (address, byte) in (number(address)?..).zip(data) {
                    match seen.insert(address, byte) {
                        None => image.fill(address, &[byte]),
                        Some(before) if before == byte => {}
                        Some(_) => {
                            return Err(format!(
                                "{address:#x} changed during the call, so the recording cannot \
                                 be played: record anew"
                            ));
                        }
                    }
                }
            }
            ["writes", address, size, ref data @ ..] if data.last() != Some(&"failed") => {
                seen.extend((number(address)?..).zip(bytes(number(size)?, data)?));
            }
            ["swaps", address, current, new, "=", found] if current == found => {
                seen.extend((number(address)?..).zip(number(new)?.to_le_bytes()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The bytes of little-endian words of up to 8 bytes.
fn bytes(size: u64, data: &[&str]) -> Result<Vec<u8>, String> {
    let words = data.iter().map(|word| number(word));
    let mut bytes: Vec<u8> = words
        .collect::<Result<Vec<u64>, _>>()?
        .into_iter()
        .flat_map(u64::to_le_bytes)
        .collect();
    bytes.truncate(size as usize);
    Ok(bytes)
}

/// Makes a call.
fn call(
    unit: &mut RecordedUnit,
    turn: &mut Option<QueueTurn>,
    image: &Image,
    event: &Event<'_>,
) -> Result<(), String> {
    // Answers and effects are in the new recording.
    let fx = &mut Effects::new();
    match Call::parse(event.line)? {
        Call::Reset => unit.reset(fx),
        Call::Read(offset, size) => {
            unit.read(offset, size);
        }
        Call::Write(offset, size, value) => unit.write(offset, value, size, fx),
        Call::Translate(request) => {
            let _ = unit.translate(image, &request, fx);
        }
        Call::Translated(requester, pasid, address, access) => {
            let _ = unit.translated_request(image, requester, pasid, address, access, fx);
        }
        Call::Ats(requester, request) => {
            let mut room = vec![NOTHING; request.pages.into()];
            let _ = unit.translation_request(image, requester, &request, &mut room, fx);
        }
        Call::Page(requester, request) => unit.page_request(image, requester, &request, fx),
        Call::Hold(requester, pasid) => unit.hold_address_space(image, requester, pasid),
        Call::Complete(requester, completion) => {
            unit.invalidate_completion(image, requester, &completion, fx);
        }
        Call::Interrupt(requester, request) => {
            let _ = unit.remap_interrupt(image, requester, request, fx);
        }
        Call::Route(requester, request) => {
            unit.route_interrupt(image, requester, request);
        }
        Call::Process(now) => {
            // The turn before has ended.
            *turn = None;
            *turn = Some(unit.process_queue(image, now, fx));
        }
        Call::Failed => {
            let turn = turn.as_ref().ok_or("nothing was processed before")?;
            unit.invalidation_failed(turn, fx);
        }
        Call::Advance(now) => unit.advance(now, fx),
    }
    Ok(())
}

/// Compares the effects of a call with the recorded ones.
fn compare(event: &Event<'_>, heard: &str) -> Result<(), String> {
    let counts = |line: &&str| !line.trim_start().starts_with("reads ");
    let was = event.below.iter().filter(|line| counts(line));
    let was = std::iter::once(event.line).chain(was.copied());
    let is = heard.lines().filter(counts).map(|line| line.trim_start());
    let (was, is): (Vec<&str>, Vec<&str>) = (was.collect(), is.collect());
    if was == is {
        return Ok(());
    }
    Err(format!(
        "it was\n  {}\nand is\n  {}",
        was.join("\n  "),
        is.join("\n  ")
    ))
}
