// SPDX-License-Identifier: MIT OR Apache-2.0
//! Records all calls between a unit and its host as text that can be replayed.
//!
//! [`RecordedUnit`] is a [`Unit`] that records its calls: register accesses, requests of functions,
//! completions and the time, each with its answer, the unit's memory accesses for it, and the
//! resulting effects. It does not use files: the host provides a [`Sink`].
//!
//! # Format
//!
//! Lines that begin with `#` are comments. The first line is [`HEADER`], the second has the unit's
//! capability registers. Then each call is a line, `CALL` or `CALL = ANSWER`, followed by its
//! consequences on lines that begin with two blanks. Hexadecimal numbers have `0x`; a requester is
//! `bus:device.function`; `-` stands for no PASID and for no flags; a range is its base, a slash
//! and log2 of its size.
//!
//! | call | meaning |
//! | --- | --- |
//! | `unit CAP ECAP` | CAP_REG and ECAP_REG of the unit; the second line |
//! | `again COUNT` | the previous call with its consequences, repeated this often |
//! | `reset` | [`Unit::reset`] |
//! | `read OFFSET SIZE = VALUE` | a register is read |
//! | `write OFFSET SIZE VALUE` | a register is written |
//! | `translate RID PASID ADDRESS ACCESS FLAGS` | an untranslated request: `read`, `zero-length-read`, `write` or `atomic`; flags `x` execute, `p` privileged |
//! | `translated RID PASID ADDRESS ACCESS` | a request with a translated address |
//! | `ats RID PASID ADDRESS PAGES FLAGS` | a translation request; flags as above, and `n` No Write. Its answer is the words of the completion (PCIe 10.2.3.2) |
//! | `page RID PASID ADDRESS FLAGS PRGI LAST` | a page request; flags `r`, `w`, `x`, `p`; `last` or `more` |
//! | `hold RID PASID` | [`Unit::hold_address_space`] |
//! | `complete RID ITAGS COUNT` | an invalidation completion |
//! | `interrupt RID ADDRESS DATA` | an interrupt request; `-` if its requester is not known |
//! | `route RID ADDRESS DATA = ADDRESS DATA` | the destination of an interrupt; `-` if there is none |
//! | `process TIME` | the invalidation queue is processed at a time in nanoseconds |
//! | `advance TIME` | time passes |
//!
//! The answer to a blocked request is `fault` with reason and condition, `protected-memory` or
//! `unsupported`.
//!
//! | line below a call | meaning |
//! | --- | --- |
//! | `reads ADDRESS SIZE WORDS` | the contents of memory, as little-endian words of up to 8 bytes; `failed` if there is no memory |
//! | `writes ADDRESS SIZE WORDS` | the data written to memory, followed by `failed` if there is no memory |
//! | `swaps ADDRESS CURRENT NEW = FOUND` | a compare-and-swap; it succeeded if `FOUND` is `CURRENT` |
//! | `> EFFECT` | an [`Effect`](crate::Effect), in order |

mod recorder;
mod text;
mod watched;

pub use recorder::Sink;

use crate::capabilities::Capabilities;
use crate::effect::Effects;
use crate::memory::Memory;
use crate::request::{Access, Blocked, Request, Translated};
use crate::spec::SourceId;
use crate::spec::interrupt::Message;
use crate::turn::QueueTurn;
use crate::unit::{Remapped, Unit};
use pcie_ats::{
    InvalidateCompletion, PageRequest, Pasid, Translation, TranslationError, TranslationRequest,
};
use recorder::Recorder;
use std::fmt::Write;
use std::ops::Deref;
use std::time::Duration;
use text::{Answer, Flags, Of};
use watched::{Nowhere, Watched};

/// The first line of a recording.
pub const HEADER: &str = "svm-vtd recording 1";

/// A unit that records its calls, if there is a sink. Calls that do not change the unit are those
/// of [`Unit`].
pub struct RecordedUnit {
    unit: Unit,
    recorder: Option<Recorder>,
}

impl std::fmt::Debug for RecordedUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordedUnit")
            .field("unit", &self.unit)
            .field("recorded", &self.recorder.is_some())
            .finish()
    }
}

impl Deref for RecordedUnit {
    type Target = Unit;

    fn deref(&self) -> &Unit {
        &self.unit
    }
}

impl RecordedUnit {
    /// A unit after a reset.
    pub fn new(caps: Capabilities, sink: Option<Sink>) -> Self {
        let recorder = sink.map(|sink| {
            let (cap, ecap) = (caps.cap().0, caps.ecap().0);
            Recorder::new(sink, &format!("{HEADER}\nunit {cap:#x} {ecap:#x}\n"))
        });
        RecordedUnit {
            unit: Unit::new(caps),
            recorder,
        }
    }

    /// [`Unit::reset`].
    pub fn reset(&mut self, fx: &mut Effects) {
        self.call(
            &Nowhere,
            fx,
            |unit, _, fx| unit.reset(fx),
            |()| "reset".to_owned(),
        );
    }

    /// [`Unit::read`].
    pub fn read(&mut self, offset: u16, size: u8) -> u64 {
        self.call(
            &Nowhere,
            &mut Effects::new(),
            |unit, _, _| unit.read(offset, size),
            |value| format!("read {offset:#x} {size} = {value:#x}"),
        )
    }

    /// [`Unit::write`].
    pub fn write(&mut self, offset: u16, value: u64, size: u8, fx: &mut Effects) {
        self.call(
            &Nowhere,
            fx,
            |unit, _, fx| unit.write(offset, value, size, fx),
            |()| format!("write {offset:#x} {size} {value:#x}"),
        );
    }

    /// [`Unit::translate`].
    pub fn translate(
        &mut self,
        memory: &impl Memory,
        request: &Request,
        fx: &mut Effects,
    ) -> Result<Translated, Blocked> {
        self.call(
            memory,
            fx,
            |unit, memory, fx| unit.translate(memory, request, fx),
            |answer| {
                format!(
                    "translate {} {} {:#x} {} {} = {}",
                    request.requester,
                    Of(&request.pasid),
                    request.address,
                    Of(&request.access),
                    Flags(&[('x', request.execute), ('p', request.privileged)]),
                    Answer(answer),
                )
            },
        )
    }

    /// [`Unit::translated_request`].
    pub fn translated_request(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        pasid: Option<Pasid>,
        address: u64,
        access: Access,
        fx: &mut Effects,
    ) -> Result<(), Blocked> {
        self.call(
            memory,
            fx,
            |unit, memory, fx| {
                unit.translated_request(memory, requester, pasid, address, access, fx)
            },
            |answer| {
                let (pasid, access) = (Of(&pasid), Of(&access));
                let answer = Answer(answer);
                format!("translated {requester} {pasid} {address:#x} {access} = {answer}")
            },
        )
    }

    /// [`Unit::translation_request`].
    pub fn translation_request(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &TranslationRequest,
        translations: &mut [Translation],
        fx: &mut Effects,
    ) -> Result<usize, TranslationError> {
        let TranslationRequest { address, pages, .. } = *request;
        let call = self.call(
            memory,
            fx,
            |unit, memory, fx| {
                let result = unit.translation_request(memory, requester, request, translations, fx);
                result.map(|count| &translations[..count])
            },
            |answer| {
                format!(
                    "ats {requester} {} {address:#x} {pages} {} = {}",
                    Of(&request.pasid),
                    Flags(&[
                        ('x', request.execute),
                        ('p', request.privileged),
                        ('n', request.no_write),
                    ]),
                    Answer(answer),
                )
            },
        );
        call.map(<[Translation]>::len)
    }

    /// [`Unit::page_request`].
    pub fn page_request(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        request: &PageRequest,
        fx: &mut Effects,
    ) {
        self.call(
            memory,
            fx,
            |unit, memory, fx| unit.page_request(memory, requester, request, fx),
            |()| {
                format!(
                    "page {requester} {} {:#x} {} {} {}",
                    Of(&request.pasid),
                    request.address,
                    Flags(&[
                        ('r', request.read),
                        ('w', request.write),
                        ('x', request.execute),
                        ('p', request.privileged),
                    ]),
                    request.prgi.get(),
                    if request.last { "last" } else { "more" },
                )
            },
        );
    }

    /// [`Unit::hold_address_space`].
    pub fn hold_address_space(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        pasid: Option<Pasid>,
    ) {
        self.call(
            memory,
            &mut Effects::new(),
            |unit, memory, _| unit.hold_address_space(memory, requester, pasid),
            |()| format!("hold {requester} {}", Of(&pasid)),
        );
    }

    /// [`Unit::invalidate_completion`].
    pub fn invalidate_completion(
        &mut self,
        memory: &impl Memory,
        requester: SourceId,
        completion: &InvalidateCompletion,
        fx: &mut Effects,
    ) {
        self.call(
            memory,
            fx,
            |unit, memory, fx| unit.invalidate_completion(memory, requester, completion, fx),
            |()| {
                let InvalidateCompletion {
                    itag_vector,
                    completion_count,
                } = completion;
                format!("complete {requester} {itag_vector:#x} {completion_count}")
            },
        );
    }

    /// [`Unit::remap_interrupt`].
    pub fn remap_interrupt(
        &mut self,
        memory: &impl Memory,
        requester: Option<SourceId>,
        request: Message,
        fx: &mut Effects,
    ) -> Result<Remapped, Blocked> {
        self.call(
            memory,
            fx,
            |unit, memory, fx| unit.remap_interrupt(memory, requester, request, fx),
            |answer| {
                let (requester, request) = (Of(&requester), Of(&request));
                format!("interrupt {requester} {request} = {}", Answer(answer))
            },
        )
    }

    /// [`Unit::route_interrupt`].
    pub fn route_interrupt(
        &mut self,
        memory: &impl Memory,
        requester: Option<SourceId>,
        request: Message,
    ) -> Option<Message> {
        self.call(
            memory,
            &mut Effects::new(),
            |unit, memory, _| unit.route_interrupt(memory, requester, request),
            |answer| {
                let (requester, request) = (Of(&requester), Of(&request));
                format!("route {requester} {request} = {}", Of(answer))
            },
        )
    }

    /// [`Unit::process_queue`].
    pub fn process_queue(
        &mut self,
        memory: &impl Memory,
        now: Duration,
        fx: &mut Effects,
    ) -> QueueTurn {
        let turn = self.unit.take_turn();
        if turn.is_held() {
            self.call(
                memory,
                fx,
                |unit, memory, fx| unit.process_turn(memory, now, fx),
                |()| format!("process {}", now.as_nanos()),
            );
        }
        turn
    }

    /// [`Unit::invalidation_failed`].
    pub fn invalidation_failed(&mut self, turn: &QueueTurn, fx: &mut Effects) -> bool {
        self.call(
            &Nowhere,
            fx,
            |unit, _, fx| unit.invalidation_failed(turn, fx),
            |failed| format!("failed = {failed}"),
        )
    }

    /// [`Unit::end_turn`]. Not recorded, because a replay does not need it.
    pub fn end_turn(&mut self, turn: QueueTurn) -> bool {
        self.unit.end_turn(turn)
    }

    /// [`Unit::advance`].
    pub fn advance(&mut self, now: Duration, fx: &mut Effects) {
        self.call(
            &Nowhere,
            fx,
            |unit, _, fx| unit.advance(now, fx),
            |()| format!("advance {}", now.as_nanos()),
        );
    }

    /// Calls the unit, and records the call with its consequences.
    fn call<M: Memory, R>(
        &mut self,
        memory: &M,
        fx: &mut Effects,
        work: impl FnOnce(&mut Unit, &Watched<'_, M>, &mut Effects) -> R,
        line: impl FnOnce(&R) -> String,
    ) -> R {
        let watched = Watched::new(memory, self.recorder.is_some());
        let before = fx.len();
        let result = work(&mut self.unit, &watched, fx);
        if let (Some(recorder), Some(lines)) = (&mut self.recorder, watched.into_lines()) {
            let mut event = line(&result);
            event.push('\n');
            event.push_str(&lines);
            for effect in &fx[before..] {
                // Writing to a string does not fail.
                let _ = writeln!(event, "  > {}", Of(effect));
            }
            recorder.record(event);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::spec::register::{global, offset};
    use std::sync::{Arc, Mutex};

    #[test]
    fn calls_are_lines_with_what_follows_from_them_and_the_same_again_is_counted() {
        let text = Arc::new(Mutex::new(String::new()));
        let copy = text.clone();
        let sink: Sink = Box::new(move |more| copy.lock().unwrap().push_str(more));
        let caps = Capabilities::new(Config::default()).unwrap();
        let mut unit = RecordedUnit::new(caps, Some(sink));
        let mut fx = Effects::new();
        for _ in 0..3 {
            unit.read(offset::GSTS, 4);
        }
        unit.write(offset::GCMD, global::TE.into(), 4, &mut fx);
        let request = Request {
            requester: SourceId(0x0108),
            pasid: None,
            address: 0x1234_5000,
            access: Access::Write,
            execute: false,
            privileged: false,
        };
        for _ in 0..2 {
            let _ = unit.translate(&Nowhere, &request, &mut fx);
        }
        drop(unit);
        let (cap, ecap) = (caps.cap().0, caps.ecap().0);
        let expected = format!(
            "svm-vtd recording 1\n\
             unit {cap:#x} {ecap:#x}\n\
             read 0x1c 4 = 0x0\n\
             again 2\n\
             write 0x18 4 0x80000000\n\
             \x20 > translation on\n\
             translate 01:01.0 - 0x12345000 write - = fault 0x8 LRT.1\n\
             \x20 reads 0x10 16 failed\n\
             again 1\n"
        );
        assert_eq!(*text.lock().unwrap(), expected);
    }

    #[test]
    fn without_a_sink_the_unit_is_the_same() {
        let caps = Capabilities::new(Config::default()).unwrap();
        let mut unit = RecordedUnit::new(caps, None);
        let mut fx = Effects::new();
        unit.write(offset::GCMD, global::TE.into(), 4, &mut fx);
        assert!(unit.translation_enabled());
        assert_eq!(fx, [crate::Effect::TranslationEnabled(true)]);
    }
}
