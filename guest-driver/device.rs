// SPDX-License-Identifier: GPL-2.0-only

//! One device: its registers, its contexts and its doorbell pages.
//!
//! The value outlives the binding of the driver to the device where files are still open; its
//! registers are then closed, and its contexts are gone. This module knows nothing of files.

use kernel::{
    bindings,
    device::Bound,
    devres::Devres,
    mm::MmWithUser,
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
    context::{
        Context,
        Tenant, //
    },
    doorbell::{
        self,
        Mappings, //
    },
    irq::{
        self,
        Contexts, //
    },
    regs::{
        Capabilities,
        Function,
        Registers, //
    },
    sva::Bond, //
};

/// One device.
pub(crate) struct Device {
    pdev: ARef<pci::Device>,
    registers: Registers,
    capabilities: Capabilities,
    contexts: Arc<Contexts>,
    /// Physical address of the doorbell BAR.
    doorbells: u64,
    /// Reserves the doorbell BAR, and makes its pages uncached for the whole kernel.
    _doorbells: Devres<pci::Bar<'static>>,
    /// It was said already why SVA cannot be had.
    explained: Atomic<bool>,
}

impl Device {
    /// Takes possession of `pdev`, which is enabled and need not be a bus master yet.
    pub(crate) fn new(pdev: &pci::Device<Bound>) -> Result<Arc<Self>> {
        let registers = Registers::map(pdev)?;
        let capabilities = registers.identify(pdev)?;
        let needed = doorbell::bar_size(capabilities.contexts);
        let size = pdev.resource_len(doorbell::BAR)?;

        if size < needed {
            dev_err!(
                pdev,
                "the doorbell BAR has {} bytes, {} contexts need {}\n",
                size,
                capabilities.contexts,
                needed
            );
            return Err(ENODEV);
        }
        let doorbells = pdev.iomap_region(doorbell::BAR, c"svm_demo doorbells")?;
        let contexts = Contexts::new(capabilities.contexts)?;

        // A kernel that ended without warning (kexec) may have left them at work.
        for context in contexts.iter() {
            context.begin_stop(&registers);
        }
        irq::register(pdev, &contexts, capabilities.vectors)?;

        Ok(Arc::new(
            Self {
                pdev: pdev.into(),
                registers,
                capabilities,
                contexts,
                doorbells: pdev.resource_start(doorbell::BAR)?,
                _doorbells: doorbells.into_devres()?,
                explained: Atomic::new(false),
            },
            GFP_KERNEL,
        )?)
    }

    pub(crate) fn pdev(&self) -> &pci::Device {
        &self.pdev
    }

    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Number of interrupt vectors in use.
    pub(crate) fn vectors(&self) -> u32 {
        self.contexts.vectors()
    }

    /// The interrupt vector of context `index`.
    pub(crate) fn vector(&self, index: u16) -> u16 {
        self.contexts.vector(index)
    }

    /// Page frame number of the doorbell page of context `index`.
    pub(crate) fn doorbell_page(&self, index: u16) -> usize {
        doorbell::page_frame(self.doorbells, index)
    }

    /// Bonds the device with `mm`, and gives the bond and its PASID.
    ///
    /// # Safety
    ///
    /// The device is bound to its driver, and stays so during the call.
    ///
    /// # Errors
    ///
    /// `ENODEV` if SVA cannot be had here; the kernel log says why, once. Others of
    /// [`Bond::new`], which may pass.
    pub(crate) unsafe fn bind(&self, mm: &MmWithUser) -> Result<(Devres<Bond<'static>>, u32)> {
        let device: &kernel::device::Device = (*self.pdev).as_ref();
        // SAFETY: By the requirement of this function; the result is not used after the call.
        let device = unsafe { device.as_bound() };

        let bond = Bond::new(device, mm).map_err(|error| self.refused(error))?;
        let pasid = bond.pasid();

        Ok((bond.into_devres()?, pasid))
    }

    /// Opens a free context for `mappings` and `bond`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if all contexts are in use, `ENODEV` if the device is gone.
    pub(crate) fn open_context(
        &self,
        mappings: Mappings,
        bond: Devres<Bond<'static>>,
    ) -> Result<Arc<Context>> {
        let mut tenant = Some(Tenant { mappings, bond });

        for context in self.contexts.iter() {
            if context.try_open(&self.registers, &mut tenant)? {
                return Ok(context.clone());
            }
        }
        Err(EBUSY)
    }

    /// Takes all contexts away from their users. Nobody opens new ones any more, and the driver is
    /// still bound to the device.
    pub(crate) fn revoke(&self) {
        for context in self.contexts.iter() {
            context.revoke(&self.registers);
        }
        // They stop at the same time: when one has not in time, the others have had that time, too.
        if !self
            .contexts
            .iter()
            .all(|context| context.wait_drained(&self.registers))
        {
            self.silence();
        }
        for context in self.contexts.iter() {
            context.release();
        }
        self.silence();
    }

    /// Makes the function send nothing any more.
    fn silence(&self) {
        // SAFETY: `pdev` is a valid device.
        unsafe { bindings::pci_clear_master(crate::raw(&self.pdev)) };
    }

    /// Turns the refusal of a bond into what programs get, and says why if it is for good.
    fn refused(&self, error: Error) -> Error {
        let Ok(function) = self.registers.function() else {
            return ENODEV;
        };

        match error.to_errno().unsigned_abs() {
            bindings::ENODEV | bindings::EINVAL | bindings::EOPNOTSUPP => {}
            // No PASID at all.
            bindings::ENOSPC if !function.pasid() => {}
            _ => return error,
        }

        if !self.explained.xchg(true, Relaxed) {
            dev_err!(
                self.pdev,
                "the address space of a process cannot be shared ({:?}): {}\n",
                error,
                missing(function).unwrap_or(REFUSED)
            );
        }
        ENODEV
    }
}

/// What the configuration of the function lacks for SVA, if anything.
///
/// The IOMMU driver enables all of it when it finds the function, before this driver does.
pub(crate) fn missing(function: Function) -> Option<&'static str> {
    if !function.pasid() {
        Some(
            "PASID is not enabled: the IOMMU must be on, in scalable mode (intel_iommu=on,sm_on) \
             and with PASIDs, and the function must have the PASID capability",
        )
    } else if !function.ats() {
        Some(
            "ATS is not enabled: the IOMMU must have device TLBs, and the function the ATS \
             capability with page-aligned requests",
        )
    } else if !function.pri() {
        Some(
            "PRI is not enabled: the IOMMU must have page requests, and the function the page \
             request capability with PASIDs in responses",
        )
    } else {
        None
    }
}

/// What remains when the function lacks nothing.
const REFUSED: &str = "the IOMMU driver refuses: the IOMMU needs first-stage translation, snooped \
    page walks with PASID (ECAP.SMPWCS), and the page sizes and levels of the CPU (5-level paging, \
    1 GiB pages), or the CPU must do without (la57=off); see 'SVM disabled' in the boot log";
