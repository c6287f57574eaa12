// SPDX-License-Identifier: GPL-2.0-only

//! The MSI-X vectors. Their handlers only notify the contexts.
//!
//! Context n uses vector n. If there are fewer vectors than contexts, they are shared: context n
//! then uses vector n modulo their number, and another context's interrupt also wakes its waiters.
//!
//! `kernel::pci` of Linux 7.2 returns only the first and the last of the vectors that a driver has
//! allocated, unlike that of 7.3; hence the separate allocation and registration here.

use core::ptr;
use kernel::{
    bindings,
    device::Bound,
    devres,
    error::to_result,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

use crate::{
    bar::Registers,
    compat,
    context::Context,
    faults::Faults,
    raw, //
};

/// The largest number of vectors of a device. A CPU has about 200, for all devices.
const MAX_VECTORS: u32 = 64;

/// The contexts of a device, and the number of their vectors.
pub(crate) struct Contexts {
    contexts: KVec<Arc<Context>>,
    vectors: Atomic<u32>,
}

impl Contexts {
    /// Makes `count` contexts of `/dev/svmN`.
    pub(crate) fn new(count: u16, number: u32, faults: &Arc<Faults>) -> Result<Arc<Self>> {
        let mut contexts = KVec::with_capacity(count.into(), GFP_KERNEL)?;

        for index in 0..count {
            let context = Context::new(index, number, faults.clone());

            contexts.push(Arc::pin_init(context, GFP_KERNEL)?, GFP_KERNEL)?;
        }
        Ok(Arc::new(
            Self {
                contexts,
                vectors: Atomic::new(count.into()),
            },
            GFP_KERNEL,
        )?)
    }

    /// The contexts in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Context>> {
        self.contexts.iter()
    }

    /// Number of vectors in use.
    pub(crate) fn vectors(&self) -> u32 {
        self.vectors.load(Relaxed)
    }

    /// The vector of context `index`.
    pub(crate) fn vector(&self, index: u16) -> u16 {
        // The number of vectors is never 0.
        let vector = u32::from(index).checked_rem(self.vectors()).unwrap_or(0);

        // At most `index`.
        vector as u16
    }

    /// Notifies the contexts that use `vector` of an interrupt.
    fn interrupt(&self, registers: &Registers, vector: u32) {
        let vectors = self.vectors();
        let shared = (vectors as usize) < self.contexts.len();
        let mut index = vector;

        while let Some(context) = self.contexts.get(index as usize) {
            context.interrupt(registers, vector, shared);
            index = index.saturating_add(vectors);
        }
    }
}

/// MSI-X vectors of a function. Dropping them frees them.
///
/// # Invariants
///
/// The function has vectors, and only this value frees them.
struct Vectors {
    pdev: ARef<pci::Device>,
}

impl Vectors {
    /// Allocates vectors, up to `most`, and returns their number.
    fn allocate(pdev: &pci::Device<Bound>, most: u32) -> Result<(Self, u32)> {
        // SAFETY: `pdev` is a valid device; the function checks the other arguments.
        let count = unsafe {
            bindings::pci_alloc_irq_vectors(raw::pci_dev(pdev), 1, most, bindings::PCI_IRQ_MSIX)
        };
        let count = u32::try_from(count).map_err(|_| Error::from_errno(count))?;

        // INVARIANT: They were allocated above.
        Ok((Self { pdev: pdev.into() }, count))
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        // SAFETY: `pdev` is a valid device. By the type invariants it has vectors; their handlers
        // are gone, because they were registered later with the same device.
        unsafe { bindings::pci_free_irq_vectors(raw::pci_dev(&self.pdev)) };
    }
}

/// The registered handler of one vector. Dropping it unregisters the handler.
///
/// # Invariants
///
/// `handler` is registered for `irq`, with the address of the box's contents as its cookie.
struct Registration {
    irq: u32,
    handler: KBox<Handler>,
}

/// The data of a handler.
struct Handler {
    contexts: Arc<Contexts>,
    registers: Arc<Registers>,
    vector: u32,
}

impl Registration {
    fn new(irq: u32, handler: Handler) -> Result<Self> {
        let handler = KBox::new(handler, GFP_KERNEL)?;
        let cookie = ptr::from_ref(&*handler).cast_mut().cast();

        // SAFETY:
        // - `handle()` is a valid handler for this cookie: it reads it as a shared `Handler`.
        // - The contents of the box do not move, and live until `drop()`, which unregisters the
        //   handler first.
        to_result(unsafe {
            bindings::request_irq(irq, Some(handle), 0, c"svm_demo".as_char_ptr(), cookie)
        })?;

        // INVARIANT: The registration above succeeded.
        Ok(Self { irq, handler })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let cookie = ptr::from_ref(&*self.handler).cast_mut().cast();

        // SAFETY: By the type invariants, the handler is registered with this cookie. The call
        // returns when no handler runs any more, and before the box is freed.
        unsafe { bindings::free_irq(self.irq, cookie) };
    }
}

/// # Safety
///
/// Only as the handler that [`Registration::new`] registers.
unsafe extern "C" fn handle(_irq: c_int, cookie: *mut c_void) -> bindings::irqreturn_t {
    // SAFETY: The cookie points to the `Handler` of a `Registration`, which outlives this call.
    let handler = unsafe { &*cookie.cast::<Handler>() };

    handler
        .contexts
        .interrupt(&handler.registers, handler.vector);
    compat::IRQ_HANDLED
}

/// Allocates vectors for `contexts`, up to `available`, and registers their handlers, until `pdev`
/// is unbound.
///
/// # Errors
///
/// `ENODEV` and others of the PCI core if not even one vector is available.
pub(crate) fn register(
    pdev: &pci::Device<Bound>,
    contexts: &Arc<Contexts>,
    registers: &Arc<Registers>,
    available: u16,
) -> Result {
    let wanted = contexts.vectors().min(available.into()).min(MAX_VECTORS);
    let (vectors, wanted) = Vectors::allocate(pdev, wanted)
        .inspect_err(|error| dev_err!(pdev, "no MSI-X vector can be had: {:?}\n", error))?;

    devres::register(pdev.as_ref(), vectors, GFP_KERNEL)?;

    for vector in 0..wanted {
        let result = number(pdev, vector).and_then(|irq| {
            let handler = Handler {
                contexts: contexts.clone(),
                registers: registers.clone(),
                vector,
            };
            let registration = Registration::new(irq, handler)?;

            // Removed before the vectors, which were allocated earlier.
            devres::register(pdev.as_ref(), registration, GFP_KERNEL)
        });

        if let Err(error) = result {
            if vector == 0 {
                return Err(error);
            }
            dev_dbg!(
                pdev,
                "{} vectors instead of {}: {:?}\n",
                vector,
                wanted,
                error
            );
            contexts.vectors.store(vector, Relaxed);
            return Ok(());
        }
    }

    contexts.vectors.store(wanted, Relaxed);
    Ok(())
}

/// Interrupt number of `vector`; an error if it was not allocated.
fn number(pdev: &pci::Device<Bound>, vector: u32) -> Result<u32> {
    // SAFETY: `pdev` is a valid device; the function checks `vector`.
    let irq = unsafe { bindings::pci_irq_vector(raw::pci_dev(pdev), vector) };

    u32::try_from(irq).map_err(|_| Error::from_errno(irq))
}
