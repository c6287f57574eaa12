// SPDX-License-Identifier: MIT OR Apache-2.0
//! The laboratory: one raw request at a time, from its registers. It deliberately bypasses the
//! cache, the checks and the pins, because it tests the IOMMU and the root complex. [`Silence`]
//! tests the driver.

use crate::dma::Scratch;
use crate::witness::SharedLog;
use pcie_ats::{
    MemoryAddressType, MemoryRequest, PageRequest, Pasid, Prgi, Reset, RootPort, Translation,
    TranslationError, TranslationRequest,
};
use svm_abi::completion::Error;
use svm_abi::registers::{attributes, command, laboratory as registers};

/// Values of STATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    /// Software has written a command.
    Pending(Request),
    /// The command's request is in flight.
    Busy,
    /// The page request was sent and waits for its response.
    Waiting,
    Done,
    Failed(Error),
}

/// A raw request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A translation request.
    Translate(TranslationRequest),
    /// A page request.
    Page(PageRequest),
    /// A read of 8 bytes.
    Read(MemoryRequest),
    /// A write of 8 bytes.
    Write(MemoryRequest, u64),
    /// A zero-length read: it reads nothing, and needs any permission (rule 33).
    Probe(MemoryRequest),
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A translation.
    Translated(Translation),
    /// Success, with the value of a read.
    Done(Option<u64>),
    /// The response to the page request decides.
    Waits,
    /// It failed.
    Failed(Error),
}

impl Request {
    /// Sends the request.
    pub fn perform<P: RootPort + ?Sized>(&self, port: &P, scratch: &mut Scratch) -> Outcome {
        match self {
            Request::Translate(request) => {
                match port.translate(request, &mut scratch.translations[..1]) {
                    Ok(0) | Err(TranslationError::CompleterAbort) => {
                        Outcome::Failed(Error::CompleterAbort)
                    }
                    Ok(_) => Outcome::Translated(scratch.translations[0]),
                    Err(TranslationError::UnsupportedRequest) => {
                        Outcome::Failed(Error::UnsupportedRequest)
                    }
                    Err(TranslationError::CompletionTimeout) => {
                        Outcome::Failed(Error::CompletionTimeout)
                    }
                }
            }
            Request::Page(request) => {
                port.page_request(request);
                // A stop marker has no response, and neither has a request that does not end its
                // group.
                let marker = !request.read && !request.write;
                if request.last && !marker {
                    Outcome::Waits
                } else {
                    Outcome::Done(None)
                }
            }
            Request::Read(request) => {
                let mut data = [0; 8];
                match port.read(request, &mut data) {
                    Ok(()) => Outcome::Done(Some(u64::from_le_bytes(data))),
                    Err(_) => Outcome::Failed(Error::MemoryAccess),
                }
            }
            Request::Probe(request) => match port.read(request, &mut []) {
                Ok(()) => Outcome::Done(None),
                Err(_) => Outcome::Failed(Error::MemoryAccess),
            },
            Request::Write(request, data) => match port.write(request, &data.to_le_bytes()) {
                Ok(()) => Outcome::Done(None),
                Err(_) => Outcome::Failed(Error::MemoryAccess),
            },
        }
    }
}

/// Answers reads of a context's `STATUS` like a function in reset.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silence {
    /// The number of these reads.
    reads: u64,
    /// A STOP has begun them.
    begun: bool,
}

impl Silence {
    /// A context that is not DISABLED gets STOP.
    pub fn begin(&mut self) {
        self.begun = self.reads > 0;
    }

    /// The value that a read of `STATUS` returns if the register has `value`.
    pub fn answer(&mut self, value: u64) -> u64 {
        if !self.begun {
            return value;
        }
        self.reads -= 1;
        self.begun = self.reads > 0;
        !0
    }
}

/// The laboratory's registers.
#[derive(Debug)]
pub(crate) struct Laboratory {
    address: u64,
    attributes: u64,
    data: u64,
    translated: u64,
    completion: u64,
    state: State,
    pub silence: Silence,
    /// What the function has sent.
    log: SharedLog,
    /// The request of it that is shown.
    sent_number: u64,
    /// Changes whenever a request in progress is cancelled.
    pub generation: u64,
}

impl Laboratory {
    /// The laboratory after a reset.
    pub fn new(log: SharedLog) -> Self {
        Laboratory {
            address: 0,
            attributes: 0,
            data: 0,
            translated: 0,
            completion: 0,
            state: State::Idle,
            silence: Silence::default(),
            log,
            sent_number: 0,
            generation: 0,
        }
    }

    /// Resets everything, except that a request in flight stays recognisable as old. The silence
    /// stays, too, because a driver may begin with a function level reset.
    pub fn reset(&mut self, kind: Reset) {
        let silence = match kind {
            Reset::FunctionLevel => self.silence,
            Reset::Conventional => Silence::default(),
        };
        *self = Laboratory {
            generation: self.generation + 1,
            silence,
            ..Laboratory::new(self.log.clone())
        };
    }

    /// Reads a register of [`registers`].
    pub fn read(&self, offset: u64) -> u64 {
        match offset {
            registers::ADDRESS => self.address,
            registers::ATTRIBUTES => self.attributes,
            registers::DATA => self.data,
            registers::STATE => match self.state {
                State::Idle => 0,
                State::Pending(_) | State::Busy | State::Waiting => 1,
                State::Done => 2,
                State::Failed(why) => 3 | (why as u64) << 8,
            },
            registers::TRANSLATED => self.translated,
            registers::COMPLETION => self.completion,
            registers::SILENCE => self.silence.reads,
            registers::SENT => self.log.lock().count(),
            registers::SENT_NUMBER => self.sent_number,
            registers::SENT_WHAT => self.log.lock().get(self.sent_number).what,
            registers::SENT_ADDRESS => self.log.lock().get(self.sent_number).address,
            registers::SENT_LENGTH => self.log.lock().get(self.sent_number).length,
            _ => 0,
        }
    }

    /// Writes a register of [`registers`].
    pub fn write(&mut self, offset: u64, value: u64) {
        match offset {
            registers::ADDRESS => self.address = value,
            registers::ATTRIBUTES => self.attributes = value & attributes::ALL,
            registers::DATA => self.data = value,
            registers::SENT_NUMBER => self.sent_number = value,
            registers::SILENCE => {
                self.silence = Silence {
                    reads: value,
                    begun: false,
                }
            }
            registers::COMMAND if self.state == State::Idle => {
                self.state = match self.request(value) {
                    Some(request) => State::Pending(request),
                    None => State::Failed(Error::BadOperation),
                };
            }
            registers::STATE if matches!(self.state, State::Done | State::Failed(_)) => {
                self.state = State::Idle;
            }
            _ => {}
        }
    }

    /// The request of a command.
    fn request(&self, code: u64) -> Option<Request> {
        let has = |bit: u64| self.attributes & bit != 0;
        let pasid = if has(attributes::PASID_PRESENT) {
            Some(Pasid::new((self.attributes & attributes::PASID) as u32).ok()?)
        } else {
            None
        };
        let memory = |address_type| MemoryRequest {
            address: self.address,
            address_type,
            pasid,
            privileged: has(attributes::PRIVILEGED),
        };
        let untranslated = memory(MemoryAddressType::Untranslated);
        let translated = memory(MemoryAddressType::Translated);
        Some(match code {
            command::TRANSLATE => Request::Translate(TranslationRequest {
                address: self.address,
                pages: 1,
                pasid,
                privileged: has(attributes::PRIVILEGED),
                execute: has(attributes::EXECUTE),
                no_write: has(attributes::NO_WRITE),
            }),
            command::PAGE_REQUEST => Request::Page(PageRequest {
                address: self.address,
                pasid,
                read: has(attributes::READ),
                write: has(attributes::WRITE),
                execute: has(attributes::EXECUTE),
                privileged: has(attributes::PRIVILEGED),
                prgi: self.prgi()?,
                last: has(attributes::LAST),
            }),
            command::UNTRANSLATED_READ => Request::Read(untranslated),
            command::UNTRANSLATED_WRITE => Request::Write(untranslated, self.data),
            command::TRANSLATED_READ => Request::Read(translated),
            command::TRANSLATED_WRITE => Request::Write(translated, self.data),
            command::UNTRANSLATED_PROBE => Request::Probe(untranslated),
            command::TRANSLATED_PROBE => Request::Probe(translated),
            _ => return None,
        })
    }

    fn prgi(&self) -> Option<Prgi> {
        let group = (self.attributes & attributes::GROUP) >> attributes::GROUP_SHIFT;
        Prgi::new(group as u16).ok()
    }

    /// Whether a request waits to be sent.
    pub fn is_pending(&self) -> bool {
        matches!(self.state, State::Pending(_))
    }

    /// Takes the request that waits to be sent.
    pub fn take(&mut self) -> Option<Request> {
        match self.state {
            State::Pending(request) => {
                self.state = State::Busy;
                Some(request)
            }
            _ => None,
        }
    }

    /// Gives up the response that a page request waits for.
    pub fn abandon(&mut self, why: Error) {
        if self.state == State::Waiting {
            self.state = State::Failed(why);
        }
    }

    /// Records the outcome of the request.
    pub fn finish(&mut self, outcome: &Outcome) {
        self.state = match outcome {
            // The response may have arrived already, from inside the request.
            Outcome::Waits if self.state == State::Busy => State::Waiting,
            Outcome::Waits => self.state,
            Outcome::Failed(why) => State::Failed(*why),
            Outcome::Done(data) => {
                self.data = data.unwrap_or(self.data);
                State::Done
            }
            Outcome::Translated(t) => {
                self.translated = t.range.base();
                self.completion = u64::from(t.range.shift())
                    | u64::from(t.read) << 8
                    | u64::from(t.write) << 9
                    | u64::from(t.execute) << 10
                    | u64::from(t.privileged) << 11
                    | u64::from(t.global) << 12
                    | u64::from(t.untranslated_only) << 13;
                State::Done
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_takes_what_the_registers_say() {
        let mut lab = Laboratory::new(SharedLog::default());
        lab.write(registers::ADDRESS, 0x1234_5000);
        lab.write(
            registers::ATTRIBUTES,
            5 | 1 << 31 | 1 << 34 | 9 << 48 | 1 << 40,
        );
        assert_eq!(lab.read(registers::ATTRIBUTES) & 1 << 40, 0);
        lab.write(registers::COMMAND, 1);
        assert_eq!(lab.read(registers::STATE), 1);
        assert_eq!(
            lab.take(),
            Some(Request::Translate(TranslationRequest {
                address: 0x1234_5000,
                pages: 1,
                pasid: Pasid::new(5).ok(),
                privileged: false,
                execute: false,
                no_write: true,
            }))
        );
        lab.write(registers::COMMAND, 2);
        assert_eq!(lab.take(), None);
        lab.finish(&Outcome::Translated(Translation::from_word(0xa000 | 3)));
        assert_eq!(lab.read(registers::STATE), 2);
        assert_eq!(lab.read(registers::TRANSLATED), 0xa000);
        assert_eq!(lab.read(registers::COMPLETION), 12 | 3 << 8);
        lab.write(registers::STATE, 0);
        assert_eq!(lab.read(registers::STATE), 0);
    }

    #[test]
    fn silence_begins_with_a_stop_and_ends_after_so_many_reads() {
        let mut lab = Laboratory::new(SharedLog::default());
        lab.silence.begin();
        assert_eq!(lab.silence.answer(5), 5);
        lab.write(registers::SILENCE, 2);
        assert_eq!(lab.silence.answer(5), 5);
        lab.reset(Reset::FunctionLevel);
        lab.silence.begin();
        assert_eq!(lab.silence.answer(5), !0);
        assert_eq!(lab.read(registers::SILENCE), 1);
        assert_eq!(lab.silence.answer(5), !0);
        assert_eq!(lab.silence.answer(5), 5);
        assert_eq!(lab.read(registers::SILENCE), 0);
        lab.write(registers::SILENCE, 2);
        lab.reset(Reset::Conventional);
        assert_eq!(lab.read(registers::SILENCE), 0);
    }

    #[test]
    fn an_unknown_command_is_refused() {
        let mut lab = Laboratory::new(SharedLog::default());
        lab.write(registers::COMMAND, 9);
        assert_eq!(lab.read(registers::STATE), 3 | 1 << 8);
    }
}
