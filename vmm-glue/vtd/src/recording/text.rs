// SPDX-License-Identifier: MIT OR Apache-2.0
//! The words of a recording, independent of their destination. They are not of the specification.

use crate::effect::{Effect, Invalidated};
use crate::request::{Access, Blocked, Translated};
use crate::spec::SourceId;
use crate::spec::descriptor::{ContextScope, IotlbScope, PasidScope};
use crate::spec::interrupt::Message;
use crate::unit::Remapped;
use pcie_ats::{AlignedRange, Pasid, ResponseCode, Translation, TranslationError};
use std::fmt::{self, Display, Formatter, Write};

/// The text of a value in a recording.
pub struct Of<'a, T>(pub &'a T);

/// The answer to a request.
pub struct Answer<'a, T>(pub &'a T);

/// The letters of flags that are set; `-` if none is.
pub struct Flags<'a>(pub &'a [(char, bool)]);

impl Display for Flags<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.iter().all(|(_, set)| !set) {
            return f.write_char('-');
        }
        let mut set = self.0.iter().filter(|(_, set)| *set);
        set.try_for_each(|(letter, _)| f.write_char(*letter))
    }
}

/// Little-endian words of up to 8 bytes, each after a blank.
pub fn words(data: &[u8]) -> String {
    let mut text = String::new();
    for bytes in data.chunks(8) {
        let value = bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
        // Writing to a string does not fail.
        let _ = write!(text, " {value:#x}");
    }
    text
}

impl Display for Of<'_, Option<Pasid>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pasid) => write!(f, "{}", pasid.get()),
            None => f.write_char('-'),
        }
    }
}

impl Display for Of<'_, Option<SourceId>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(requester) => requester.fmt(f),
            None => f.write_char('-'),
        }
    }
}

impl Display for Of<'_, Access> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Access::Read => "read",
            Access::ZeroLengthRead => "zero-length-read",
            Access::Write => "write",
            Access::Atomic => "atomic",
        })
    }
}

impl Display for Of<'_, Message> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} {:#x}", self.0.address, self.0.data)
    }
}

impl Display for Of<'_, Option<Message>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(message) => Of(message).fmt(f),
            None => f.write_char('-'),
        }
    }
}

impl Display for Of<'_, AlignedRange> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{}", self.0.base(), self.0.shift())
    }
}

impl Display for Of<'_, Blocked> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Blocked::Fault(reason) => {
                write!(f, "fault {:#x} {}", reason.code(), reason.condition())
            }
            Blocked::ProtectedMemory => f.write_str("protected-memory"),
            Blocked::Unsupported(_) => f.write_str("unsupported"),
        }
    }
}

impl Display for Answer<'_, Result<Translated, Blocked>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(t) => {
                let flags = [('r', t.read), ('w', t.write), ('s', t.snoop)];
                let (page, flags) = (Of(&t.page), Flags(&flags));
                write!(f, "{:#x} in {page} {flags}", t.address)
            }
            Err(blocked) => Of(blocked).fmt(f),
        }
    }
}

impl Display for Answer<'_, Result<(), Blocked>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(()) => f.write_str("passes"),
            Err(blocked) => Of(blocked).fmt(f),
        }
    }
}

impl Display for Answer<'_, Result<&[Translation], TranslationError>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(list) => {
                let words: Vec<_> = list.iter().map(|t| format!("{:#x}", t.to_word())).collect();
                f.write_str(&words.join(" "))
            }
            Err(TranslationError::UnsupportedRequest) => f.write_str("unsupported-request"),
            Err(TranslationError::CompleterAbort) => f.write_str("completer-abort"),
            Err(TranslationError::CompletionTimeout) => f.write_str("completion-timeout"),
        }
    }
}

impl Display for Answer<'_, Result<Remapped, Blocked>> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(Remapped::Deliver(message)) => write!(f, "deliver {}", Of(message)),
            Ok(Remapped::Posted(Some(message))) => write!(f, "posted {}", Of(message)),
            Ok(Remapped::Posted(None)) => f.write_str("posted"),
            Err(blocked) => Of(blocked).fmt(f),
        }
    }
}

impl Display for Of<'_, Effect> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let switch = |on: bool| if on { "on" } else { "off" };
        match self.0 {
            Effect::Interrupt(message) => write!(f, "interrupt {}", Of(message)),
            Effect::InvalidateRequest { requester, request } => {
                let (pasid, range) = (Of(&request.pasid), Of(&request.range));
                let flags = [('g', request.global)];
                let (tag, global) = (request.itag.get(), Flags(&flags));
                write!(f, "invalidate {requester} {pasid} {range} {global} {tag}")
            }
            Effect::PrgResponse {
                requester,
                response,
            } => {
                let (pasid, prgi) = (Of(&response.pasid), response.prgi.get());
                let code = match response.code {
                    ResponseCode::Success => "success",
                    ResponseCode::InvalidRequest => "invalid-request",
                    ResponseCode::ResponseFailure => "failure",
                };
                write!(f, "respond {requester} {pasid} {prgi} {code}")
            }
            Effect::QueueReady => f.write_str("queue-ready"),
            Effect::TranslationEnabled(on) => write!(f, "translation {}", switch(*on)),
            Effect::InterruptRemappingEnabled(on) => {
                write!(f, "interrupt-remapping {}", switch(*on))
            }
            Effect::Invalidated(what) => write!(f, "invalidated {}", Of(what)),
            Effect::VirtualCommand(command) => {
                write!(f, "virtual-command {:#x}", command.to_word())
            }
            Effect::Refused(what) => write!(f, "refused: {what}"),
        }
    }
}

impl Display for Of<'_, Invalidated> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self.0 {
            Invalidated::Context(ContextScope::Global) => f.write_str("contexts all"),
            Invalidated::Context(ContextScope::Domain(did)) => {
                write!(f, "contexts domain {}", did.0)
            }
            Invalidated::Context(ContextScope::Device { did, sid, mask }) => {
                write!(f, "contexts domain {} of {sid} {mask:#x}", did.0)
            }
            Invalidated::Pasid(PasidScope::Global) => f.write_str("pasids all"),
            Invalidated::Pasid(PasidScope::Domain(did)) => write!(f, "pasids domain {}", did.0),
            Invalidated::Pasid(PasidScope::Pasid(did, pasid)) => {
                write!(f, "pasids domain {} pasid {}", did.0, pasid.get())
            }
            Invalidated::Iotlb { scope, .. } => Of(&scope).fmt(f),
            Invalidated::Interrupts(None) => f.write_str("interrupts all"),
            Invalidated::Interrupts(Some((first, mask))) => {
                write!(f, "interrupts {first}/{mask}")
            }
        }
    }
}

/// The hint IH is left out: what a player does is the same with and without it.
impl Display for Of<'_, IotlbScope> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self.0 {
            IotlbScope::Global => f.write_str("iotlb all"),
            IotlbScope::Domain(did) => write!(f, "iotlb domain {}", did.0),
            IotlbScope::DomainPages(did, range) => {
                write!(f, "iotlb domain {} range {}", did.0, Of(&range))
            }
            IotlbScope::Pasid(did, pasid) => {
                write!(f, "iotlb domain {} pasid {}", did.0, pasid.get())
            }
            IotlbScope::PasidPages(did, pasid, range) => {
                let (pasid, range) = (pasid.get(), Of(&range));
                write!(f, "iotlb domain {} pasid {pasid} range {range}", did.0)
            }
        }
    }
}
