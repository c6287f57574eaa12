// SPDX-License-Identifier: GPL-2.0-only

//! The doorbell page in the address space of a process.
//!
//! Page faults map the page, not `mmap()` itself: a lock then protects the decision whether to map
//! it, and the file's address space already knows the mapping. So when the device is removed,
//! closing the door and zapping the pages leaves no page behind, whatever happens at the same time.

use core::ptr::NonNull;
use kernel::{
    bindings,
    mm::virt::{
        flags,
        VmaNew, //
    },
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::abi::{
    doorbell,
    ids,
    ioctl, //
};

const _: () = assert!(
    PAGE_SIZE as u64 == doorbell::PAGE_SIZE,
    "the doorbell pages of the device are not pages of this kernel: a process would get several"
);

/// The mappings of the doorbell page of an open file.
///
/// # Invariants
///
/// `space` is the `f_mapping` of a file that has not been released, and will not be while the value
/// exists.
pub(crate) struct Mappings {
    space: NonNull<bindings::address_space>,
}

// SAFETY: An `address_space` is not tied to a task.
unsafe impl Send for Mappings {}

impl Mappings {
    /// The mappings of `file`.
    ///
    /// # Safety
    ///
    /// `file` is a valid file, and the result is dropped before its `release` operation returns.
    pub(crate) unsafe fn of(file: *mut bindings::file) -> Result<Self> {
        // SAFETY: `file` is valid by the requirements of this function; `f_mapping` does not change
        // after the file was opened.
        let space = unsafe { (*file).f_mapping };

        // INVARIANT: The file is not released before the result is dropped, by the requirements of
        // this function.
        Ok(Self {
            space: NonNull::new(space).ok_or(EINVAL)?,
        })
    }

    /// Unmaps the page from all processes; their next access faults again.
    ///
    /// This also unmaps the pages of other files of the same device node, which their faults map
    /// again.
    pub(crate) fn zap(&self) {
        // SAFETY: By the type invariants, the file has not been released, so its inode, and the
        // address space in it, are alive. The range is that of the one page at offset 0.
        unsafe { bindings::unmap_mapping_range(self.space.as_ptr(), 0, PAGE_SIZE as i64, 1) };
    }
}

/// Prepares `vma` for page faults of the doorbell page, which `operations` handle.
///
/// # Errors
///
/// `EINVAL` unless the mapping is shared, of one page at offset 0, and not executable.
pub(crate) fn prepare(vma: &VmaNew, operations: &'static bindings::vm_operations_struct) -> Result {
    let raw = vma.as_ptr();
    // SAFETY: `VmaNew` proves that the area is valid and under construction, by this task alone.
    let offset = unsafe { (*raw).vm_pgoff };

    if vma.flags() & flags::SHARED == 0
        || offset != 0
        || vma.end() - vma.start() != ioctl::DOORBELL_SIZE
    {
        return Err(EINVAL);
    }
    vma.try_clear_mayexec()?;
    vma.set_io();
    // Permanently, because of `VM_IO`: a child does not inherit the page.
    vma.set_dontcopy();
    vma.set_dontexpand();
    vma.set_dontdump();

    // SAFETY:
    // - As above, the area is valid and not used elsewhere.
    // - `VM_PFNMAP` is right for an area whose pages come only from `vmf_insert_pfn()`, without
    //   copy-on-write because `VM_SHARED` is set. `VM_MIXEDMAP` is not set and stays clear:
    //   `VmaNew` has a method to set it, which relies on `VM_PFNMAP` never being set, but this
    //   function is the last user of this `vma`.
    // - The operations are those of the file's module, for areas of its files.
    unsafe {
        (*raw).__bindgen_anon_2.vm_flags |= flags::PFNMAP;
        (*raw).vm_page_prot = device_page((*raw).vm_page_prot);
        (*raw).vm_ops = operations;
    }
    Ok(())
}

/// Adds "uncached" and "not encrypted" to the attributes of a page, as the C macros
/// `pgprot_noncached()` and `pgprot_decrypted()` do.
fn device_page(prot: bindings::pgprot_t) -> bindings::pgprot_t {
    // SAFETY: The function has no requirements; it looks the mode up in a table of all modes.
    let uncached =
        unsafe { bindings::cachemode2protval(bindings::page_cache_mode__PAGE_CACHE_MODE_UC_MINUS) };
    let pgprot = prot.pgprot | uncached;

    // If the CPU encrypts memory, the page tables of processes mark every page as encrypted.
    #[cfg(CONFIG_ARCH_HAS_CC_PLATFORM)]
    // SAFETY: The function has no requirements; it changes one bit of its argument.
    let pgprot = unsafe { bindings::cc_mkdec(pgprot as u64) } as bindings::pgprotval_t;

    bindings::pgprot { pgprot }
}

#[cfg(not(CONFIG_X86_64))]
compile_error!("the attributes of an uncached page are known for x86-64 only: see device_page()");

/// Page frame number of the doorbell page of context `index`, in a BAR at `bar`.
pub(crate) fn page_frame(bar: u64, index: u16) -> usize {
    ((bar + u64::from(index) * doorbell::PAGE_SIZE) / PAGE_SIZE as u64) as usize
}

/// Number of the doorbell BAR, in the PCI core's type.
pub(crate) const BAR: u32 = ids::DOORBELLS_BAR as u32;

/// Required size in bytes of the doorbell BAR for `contexts` contexts.
pub(crate) fn bar_size(contexts: u16) -> u64 {
    u64::from(contexts) * doorbell::PAGE_SIZE
}
