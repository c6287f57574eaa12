// SPDX-License-Identifier: MIT OR Apache-2.0
//! Parses the text of a recording into calls.

use pcie_ats::{InvalidateCompletion, PageRequest, Pasid, Prgi, TranslationRequest};
use std::time::Duration;
use vtd::recording::HEADER;
use vtd::spec::SourceId;
use vtd::spec::interrupt::Message;
use vtd::{Access, Request};

/// A call of the unit, with its effects.
pub struct Event<'a> {
    /// Number of its line.
    pub number: usize,
    /// The line, with the answer.
    pub line: &'a str,
    /// The lines below it.
    pub below: Vec<&'a str>,
    /// Number of consecutive repetitions.
    pub times: u64,
}

/// A recording.
pub struct Recording<'a> {
    /// CAP_REG and ECAP_REG of the unit.
    pub capabilities: [u64; 2],
    /// The calls, in order.
    pub events: Vec<Event<'a>>,
}

impl<'a> Recording<'a> {
    /// Reads a recording.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let mut lines = text.lines().zip(1..).filter(|(l, _)| !l.starts_with('#'));
        let header = lines.next().map(|(line, _)| line);
        if header != Some(HEADER) {
            return Err(format!("expected {HEADER:?}, not {header:?}: record anew"));
        }
        let unit = lines.next().map_or("", |(line, _)| line);
        let ["unit", cap, ecap] = words(unit)[..] else {
            return Err(format!("expected \"unit CAP ECAP\", not {unit:?}"));
        };
        let capabilities = [number(cap)?, number(ecap)?];
        let mut events: Vec<Event<'_>> = Vec::new();
        for (line, at) in lines {
            let below = line.strip_prefix("  ");
            let again = line.strip_prefix("again ");
            match (below, again, events.last_mut()) {
                (Some(line), _, Some(event)) => event.below.push(line),
                (_, Some(count), Some(event)) => event.times += number(count)?,
                (None, None, _) => events.push(Event {
                    number: at,
                    line,
                    below: Vec::new(),
                    times: 1,
                }),
                _ => return Err(format!("line {at} belongs to no call")),
            }
        }
        Ok(Recording {
            capabilities,
            events,
        })
    }
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Reset,
    Read(u16, u8),
    Write(u16, u8, u64),
    Translate(Request),
    Translated(SourceId, Option<Pasid>, u64, Access),
    Ats(SourceId, TranslationRequest),
    Page(SourceId, PageRequest),
    Hold(SourceId, Option<Pasid>),
    Complete(SourceId, InvalidateCompletion),
    Interrupt(Option<SourceId>, Message),
    Route(Option<SourceId>, Message),
    Process(Duration),
    Failed,
    Advance(Duration),
}

impl Call {
    /// The call of a line.
    pub fn parse(line: &str) -> Result<Call, String> {
        let call = line.split(" = ").next().unwrap_or_default();
        let message = |address, data| {
            Ok::<_, String>(Message {
                address: number(address)?,
                data: small(data)?,
            })
        };
        Ok(match words(call)[..] {
            ["reset"] => Call::Reset,
            ["read", offset, size] => Call::Read(small(offset)?, small(size)?),
            ["write", offset, size, value] => {
                Call::Write(small(offset)?, small(size)?, number(value)?)
            }
            ["translate", rid, of, address, kind, flags] => Call::Translate(Request {
                requester: source(rid)?,
                pasid: pasid(of)?,
                address: number(address)?,
                access: access(kind)?,
                execute: flags.contains('x'),
                privileged: flags.contains('p'),
            }),
            ["translated", rid, of, address, kind] => {
                Call::Translated(source(rid)?, pasid(of)?, number(address)?, access(kind)?)
            }
            ["ats", rid, of, address, pages, flags] => {
                let request = TranslationRequest {
                    address: number(address)?,
                    pages: small(pages)?,
                    pasid: pasid(of)?,
                    privileged: flags.contains('p'),
                    execute: flags.contains('x'),
                    no_write: flags.contains('n'),
                };
                Call::Ats(source(rid)?, request)
            }
            ["page", rid, of, address, flags, prgi, last] => {
                let request = PageRequest {
                    address: number(address)?,
                    pasid: pasid(of)?,
                    read: flags.contains('r'),
                    write: flags.contains('w'),
                    execute: flags.contains('x'),
                    privileged: flags.contains('p'),
                    prgi: Prgi::new(small(prgi)?).map_err(|e| e.to_string())?,
                    last: last == "last",
                };
                Call::Page(source(rid)?, request)
            }
            ["hold", rid, of] => Call::Hold(source(rid)?, pasid(of)?),
            ["complete", rid, itags, count] => {
                let completion = InvalidateCompletion {
                    itag_vector: small(itags)?,
                    completion_count: small(count)?,
                };
                Call::Complete(source(rid)?, completion)
            }
            ["interrupt", rid, address, data] => {
                Call::Interrupt(known(rid)?, message(address, data)?)
            }
            ["route", rid, address, data] => Call::Route(known(rid)?, message(address, data)?),
            ["process", time] => Call::Process(Duration::from_nanos(number(time)?)),
            ["failed", "=", _] => Call::Failed,
            ["advance", time] => Call::Advance(Duration::from_nanos(number(time)?)),
            _ => return Err(format!("no call: {line:?}")),
        })
    }
}

/// The words of a line.
pub fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// A number.
pub fn number(word: &str) -> Result<u64, String> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    }
    .map_err(|error| format!("{word:?} is no number: {error}"))
}

fn small<T: TryFrom<u64>>(word: &str) -> Result<T, String> {
    T::try_from(number(word)?).map_err(|_| format!("{word} is too large"))
}

fn source(word: &str) -> Result<SourceId, String> {
    let part = |digits: Option<&str>| u16::from_str_radix(digits.unwrap_or_default(), 16);
    let mut parts = word.split([':', '.']);
    match [0; 3].map(|_| part(parts.next())) {
        [Ok(bus), Ok(device), Ok(function)] => Ok(SourceId(bus << 8 | device << 3 | function)),
        _ => Err(format!("{word:?} is no function")),
    }
}

fn known(word: &str) -> Result<Option<SourceId>, String> {
    (word != "-").then(|| source(word)).transpose()
}

fn pasid(word: &str) -> Result<Option<Pasid>, String> {
    let pasid = |word| Pasid::new(small(word)?).map_err(|error| error.to_string());
    (word != "-").then(|| pasid(word)).transpose()
}

fn access(word: &str) -> Result<Access, String> {
    [
        ("read", Access::Read),
        ("zero-length-read", Access::ZeroLengthRead),
        ("write", Access::Write),
        ("atomic", Access::Atomic),
    ]
    .iter()
    .find_map(|(name, access)| (*name == word).then_some(*access))
    .ok_or_else(|| format!("{word:?} is no access"))
}
