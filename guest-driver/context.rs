// SPDX-License-Identifier: GPL-2.0-only

//! One context of the device: who has it, and how it is started, stopped and taken away.
//!
//! The order of teardown is the purpose of this module. It is always: no new work (the doorbell
//! page goes, or its owner is gone), stop, wait for the responses to the page requests, end the
//! bond, and only then is the context free for the next one.
//!
//! Locks, in the order in which they may be taken: `state`, then one of `progress` and `doorbell`.
//! None of them is held while user memory is accessed, and only `doorbell` is taken below the mmap
//! lock.

use kernel::{
    devres::Devres,
    new_mutex,
    prelude::*,
    static_lock_class,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Relaxed,
            Release, //
        },
        Mutex, //
    }, //
};

use crate::{
    doorbell::Mappings,
    regs::{
        ContextRegisters,
        Registers,
        Start, //
    },
    sva::Bond,
    wait::WaitQueue, //
};

/// What an open file brings into its context.
pub(crate) struct Tenant {
    /// Where the file's mappings of the doorbell page are.
    pub(crate) mappings: Mappings,
    /// The bond with the address space that opened the file.
    pub(crate) bond: Devres<Bond<'static>>,
}

/// Who has the context.
enum State {
    /// Nobody.
    Free,
    /// An open file.
    Open(Tenant),
    /// Nobody, but it may not have stopped yet: the file was closed while a page request was
    /// without its response, or the device is about to go. The bond lives until it has stopped.
    Draining(Devres<Bond<'static>>),
    /// Nobody ever again: the device is gone.
    Gone,
}

/// How far the readers have come.
struct Progress {
    /// The context was started, and nobody has asked it to stop.
    started: bool,
    /// How many of the interrupts that it has sent since then were given to readers.
    taken: u64,
}

/// One context.
#[pin_data]
pub(crate) struct Context {
    index: u16,
    #[pin]
    state: Mutex<State>,
    #[pin]
    progress: Mutex<Progress>,
    /// Whether page faults on the doorbell page may still be answered with the page.
    #[pin]
    doorbell: Mutex<bool>,
    /// Counts what a sleeper must look at again: interrupts, and that the context was taken away.
    events: Atomic<u64>,
    /// The context was taken away.
    gone: Atomic<bool>,
    #[pin]
    wait: WaitQueue,
}

/// What a reader or poller finds.
pub(crate) enum Pending {
    /// So many interrupts, and the context works.
    Interrupts(u64),
    /// So many interrupts, and the context does not work any more: there will be none.
    Halted(u64),
    /// The device is gone.
    Gone,
}

impl Context {
    /// Makes context `index`, free.
    pub(crate) fn new(index: u16) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            index,
            state <- new_mutex!(State::Free, "svm_demo::Context::state"),
            progress <- new_mutex!(
                Progress { started: false, taken: 0 },
                "svm_demo::Context::progress"
            ),
            doorbell <- new_mutex!(false, "svm_demo::Context::doorbell"),
            events: Atomic::new(0),
            gone: Atomic::new(false),
            wait <- WaitQueue::new(c"svm_demo::Context::wait", static_lock_class!()),
        })
    }

    /// Number of the context in its device.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// Whether the context was taken away.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }

    /// The queue of those who wait for [`Self::notify`].
    pub(crate) fn wait_queue(&self) -> &WaitQueue {
        &self.wait
    }

    fn registers<'a>(&self, registers: &'a Registers) -> ContextRegisters<'a> {
        registers.context(self.index)
    }

    /// Takes the context for the file of `tenant` if it is free. Takes `tenant` then, and only
    /// then.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone.
    pub(crate) fn try_open(
        &self,
        registers: &Registers,
        tenant: &mut Option<Tenant>,
    ) -> Result<bool> {
        // Whoever holds the lock has the context, or is about to give it back.
        let Some(mut state) = self.state.try_lock() else {
            return Ok(false);
        };
        let (State::Free | State::Draining(_)) = *state else {
            return Ok(false);
        };
        let context = self.registers(registers);

        // Not only one that drains: the driver may have found the context at work. Does not wait,
        // because both stop as soon as they can.
        if !context.status()?.is_disabled() {
            return Ok(false);
        }
        // Before the next one can see its doorbell page.
        context.clear()?;

        let Some(tenant) = tenant.take() else {
            return Ok(false);
        };
        // If the context was draining, this ends the old bond.
        *state = State::Open(tenant);
        *self.progress.lock() = Progress {
            started: false,
            taken: 0,
        };
        *self.doorbell.lock() = true;
        Ok(true)
    }

    /// Starts the context on a ring.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is started already, or stopping, `ENODEV` if the device is gone, `EIO` if it
    /// halted at once.
    pub(crate) fn start(&self, registers: &Registers, start: Start) -> Result {
        let state = self.state.lock();
        match *state {
            State::Open(_) => {}
            // The device is about to go.
            State::Draining(_) => return Err(EBUSY),
            State::Free | State::Gone => return Err(ENODEV),
        }
        let context = self.registers(registers);

        if !context.status()?.is_disabled() {
            return Err(EBUSY);
        }

        let mut progress = self.progress.lock();
        let status = context.start(start)?;
        *progress = Progress {
            started: !status.is_halted(),
            // The device counts from the start.
            taken: 0,
        };
        drop(progress);

        if status.is_halted() {
            // Once, since programs can repeat it for ever.
            kernel::do_once_lite! {
                dev_err!(
                    registers.device(),
                    "context {} halted with error {} when it was started\n",
                    self.index,
                    status.error()
                )
            };
            context.stop()?;
            return Err(EIO);
        }
        Ok(())
    }

    /// Stops the context and waits until it is disabled. Does nothing if it is not started.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone, `ETIMEDOUT` if the context is not disabled yet,
    /// `ERESTARTSYS` if a signal came before it was.
    pub(crate) fn stop(&self, registers: &Registers) -> Result {
        let state = self.state.lock();
        let context = self.registers(registers);

        match *state {
            State::Open(_) => {
                self.progress.lock().started = false;
                context.begin_stop()?;
            }
            // The device is about to go, and the context was asked to stop. It may still reach the
            // memory of the process, so this is no time for `ENODEV` yet.
            State::Draining(_) => {}
            State::Free | State::Gone => return Err(ENODEV),
        }

        // Without the lock, because any number of threads may wait here: who takes the context
        // away must not wait for them.
        drop(state);
        let task = current!();
        context.wait_stopped(|| task.signal_pending())
    }

    /// Gives the context back when its file is released.
    pub(crate) fn close(&self, registers: &Registers) {
        let mut state = self.state.lock();
        let tenant = match core::mem::replace(&mut *state, State::Free) {
            State::Open(tenant) => tenant,
            other => {
                *state = other;
                return;
            }
        };
        *self.doorbell.lock() = false;

        // A mapping would hold the file, which is being released: there is none to be taken away.
        let Tenant { bond, mappings: _ } = tenant;

        match self.registers(registers).stop() {
            // No device, no transactions.
            Ok(()) | Err(ENODEV) => drop(bond),
            Err(error) => {
                dev_warn!(
                    registers.device(),
                    "context {} has not stopped ({:?}): \
                     it stays in use until its page requests are answered\n",
                    self.index,
                    error
                );
                *state = State::Draining(bond);
            }
        }
    }

    /// Asks the context to stop, and does not wait.
    pub(crate) fn begin_stop(&self, registers: &Registers) {
        let _state = self.state.lock();

        // Without a device there is nothing to be stopped.
        let _ = self.registers(registers).begin_stop();
    }

    /// Takes the context away from whoever has it, for ever, and asks it to stop. Does not wait for
    /// that: [`Self::wait_drained`] does, and then [`Self::release`] ends the bond and tells.
    pub(crate) fn revoke(&self, registers: &Registers) {
        let mut state = self.state.lock();

        match core::mem::replace(&mut *state, State::Gone) {
            State::Open(Tenant { mappings, bond }) => {
                // Later page faults find the door closed; earlier ones are undone.
                *self.doorbell.lock() = false;
                mappings.zap();
                self.progress.lock().started = false;
                // Without a device there is nothing to be stopped.
                let _ = self.registers(registers).begin_stop();
                *state = State::Draining(bond);
            }
            // It was asked to stop already.
            State::Draining(bond) => *state = State::Draining(bond),
            State::Free | State::Gone => {}
        }
    }

    /// Waits until the context has stopped, if it was revoked. `false` if it has not in time.
    pub(crate) fn wait_drained(&self, registers: &Registers) -> bool {
        let state = self.state.lock();
        let State::Draining(_) = *state else {
            return true;
        };

        match self.registers(registers).wait_stopped(|| false) {
            // No device, no transactions.
            Ok(()) | Err(ENODEV) => true,
            Err(error) => {
                dev_err!(
                    registers.device(),
                    "context {} does not stop ({:?}): its function is cut off from the bus\n",
                    self.index,
                    error
                );
                false
            }
        }
    }

    /// Ends the bond of a context that was revoked, and says so. From now on its user gets
    /// `ENODEV`, which promises that the device does not reach its memory any more.
    pub(crate) fn release(&self) {
        *self.state.lock() = State::Gone;
        self.gone.store(true, Relaxed);

        self.notify();
    }

    /// Calls `map` if the doorbell page may be mapped. The page stays mappable until `map` returns.
    pub(crate) fn with_doorbell<R>(&self, map: impl FnOnce() -> R) -> Option<R> {
        let open = self.doorbell.lock();

        open.then(map)
    }

    /// Says that those who wait must look again. May be called in interrupt context.
    pub(crate) fn notify(&self) {
        // Release: who sees this event also sees what it is about. The queue's lock orders the
        // addition before the look that a sleeper takes.
        self.events.fetch_add(1, Release);
        self.wait.wake_all();
    }

    /// How often [`Self::notify`] was called.
    pub(crate) fn events(&self) -> u64 {
        // Acquire: to be read before what happened is looked at; an event in between is then seen.
        self.events.load(Acquire)
    }

    /// What has happened since the last reader. The interrupts are counted as given if `take`.
    ///
    /// The count is the device's own, so it is right even where contexts share a vector, or where
    /// several messages became one interrupt.
    pub(crate) fn pending(&self, registers: &Registers, take: bool) -> Pending {
        if self.is_gone() {
            return Pending::Gone;
        }

        let registers = self.registers(registers);
        let mut progress = self.progress.lock();
        let (Ok(sent), Ok(status)) = (registers.interrupts(), registers.status()) else {
            return Pending::Gone;
        };
        // Less than before if the function was reset meanwhile.
        let new = sent.saturating_sub(progress.taken);

        if take {
            progress.taken = sent;
        }
        // A context that is disabled without having been asked to was reset with its function.
        if status.is_halted() || (progress.started && status.is_disabled()) {
            Pending::Halted(new)
        } else {
            Pending::Interrupts(new)
        }
    }
}
