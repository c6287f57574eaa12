// SPDX-License-Identifier: GPL-2.0-only

//! The operations of an open `/dev/svmN`, as [`crate::abi::ioctl`] documents them for programs.
//!
//! A file belongs to the address space that opened it. Other processes may hold it, after `fork()`
//! or through a socket, but they can only close it.

use core::ptr;
use kernel::{
    bindings,
    error::from_result,
    fs::{
        file::flags::O_NONBLOCK,
        LocalFile, //
    },
    ioctl::_IO,
    mm::{
        virt::VmaNew,
        Mm, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        Arc, //
    },
    transmute::AsBytes,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

use crate::{
    abi::{
        descriptor,
        ioctl, //
    },
    argument::{
        first_size,
        read_argument,
        read_size, //
    },
    bar::Start,
    chardev::{
        Node,
        Opening, //
    },
    context::{
        Context,
        Doorbell,
        FileState,
        HeldResources,
        Owner,
        Pending, //
    },
    device::Device,
    doorbell,
    eventfd::EventFd,
    fdinfo,
    regs, //
};

const INFO: u32 = _IO(ioctl::TYPE as u32, ioctl::INFO as u32);
const QUEUE_SETUP: u32 = _IO(ioctl::TYPE as u32, ioctl::QUEUE_SETUP as u32);
const QUEUE_STOP: u32 = _IO(ioctl::TYPE as u32, ioctl::QUEUE_STOP as u32);
const EVENTFD: u32 = _IO(ioctl::TYPE as u32, ioctl::EVENTFD as u32);
const MODERATION: u32 = _IO(ioctl::TYPE as u32, ioctl::MODERATION as u32);

/// The state of an open file.
struct OpenFile {
    device: Arc<Device>,
    context: Arc<Context>,
    node: Node,
    /// The address space that opened the file and that the context is bound to. Holds the `Mm`, but
    /// not the memory: the address space may end before the file.
    mm: ARef<Mm>,
    /// PASID of the bond.
    pasid: u32,
}

/// The operations of a file share its state through a raw pointer, which the compiler does not
/// check.
const _: () = {
    const fn is_shareable<T: Send + Sync>() {}
    is_shareable::<OpenFile>();
};

impl OpenFile {
    /// Binds a context of the device to the address space of the current task.
    ///
    /// Everything that may fail comes before the bond: this function never ends a bond, because
    /// that may take as long as a page fault of another process.
    ///
    /// # Safety
    ///
    /// `file` is a file of this module that is being opened. The result is dropped before the open
    /// fails, or otherwise before the file's `release` operation returns.
    unsafe fn open(opening: &Opening, file: *mut bindings::file) -> Result<KBox<Self>> {
        let device = opening.device();
        let task = current!();
        // A kernel thread has none.
        let mm = task.mm().ok_or(EINVAL)?;
        let place = KBox::<Self>::new_uninit(GFP_KERNEL_ACCOUNT)?;

        // First, because it also limits the number of contexts and bonds.
        let share = device.share()?;
        let reservation = device.reserve()?;
        // SAFETY: By the requirement of this function, `file` is valid, and the result, whose
        // destructor drops the mappings, is dropped in time.
        let mappings = unsafe { doorbell::Mappings::of(file)? };
        // SAFETY: A device is bound to its driver while it is being opened.
        let (bond, pasid) = unsafe { device.bind(mm)? };
        let owner = Owner {
            process: task.group_leader().pid(),
            pasid,
        };
        let file_state = FileState {
            mappings,
            held: HeldResources {
                _bond: bond,
                _share: share,
                owner,
            },
        };
        let context = reservation.occupy(file_state)?;
        let mm: &Mm = mm;

        Ok(place.write(Self {
            device: device.into(),
            context,
            node: opening.node(),
            mm: mm.into(),
            pasid,
        }))
    }

    /// The state of an open file.
    ///
    /// # Safety
    ///
    /// `file` is a file of this module, and stays open during `'a`.
    unsafe fn borrow<'a>(file: *mut bindings::file) -> &'a Self {
        // SAFETY: `f_open()` has stored a pointer to an `OpenFile` there, which is freed by
        // `f_release()` only.
        unsafe { &*(*file).private_data.cast::<Self>() }
    }

    /// Whether the current task has another address space than the one that opened the file. A
    /// kernel thread has none, neither this one nor another.
    fn is_foreign(&self) -> bool {
        let task = current!();

        task.mm()
            .is_some_and(|mm| !ptr::eq(mm.as_raw(), self.mm.as_raw()))
    }

    /// `EPERM` unless the current task has the address space that opened the file.
    fn check_caller(&self) -> Result {
        let task = current!();

        if task.mm().is_none() || self.is_foreign() {
            return Err(EPERM);
        }
        Ok(())
    }

    fn ioctl(&self, cmd: u32, arg: usize) -> Result {
        self.check_caller()?;

        match cmd {
            INFO => self.info(UserPtr::from_addr(arg)),
            QUEUE_SETUP => self.queue_setup(UserPtr::from_addr(arg)),
            QUEUE_STOP => self.context.stop(self.device.registers()),
            EVENTFD => self.eventfd(UserPtr::from_addr(arg)),
            MODERATION => self.moderation(UserPtr::from_addr(arg)),
            _ => Err(ENOTTY),
        }
    }

    fn info(&self, to: UserPtr) -> Result {
        if self.context.is_gone() {
            return Err(ENODEV);
        }
        let device = self.device.capabilities();
        let known = size_of::<ioctl::Info>();
        let size = read_size(to, first_size::INFO)?;

        // The program has an older structure if it is shorter.
        let mut writer = UserSlice::new(to, size).writer();
        let info = ioctl::Info {
            size: known as u32,
            flags: 0,
            device_version: device.abi_version.into(),
            context: self.context.index().into(),
            pasid: self.pasid,
            contexts: device.contexts.into(),
            ring_log2_max: device.ring_log2.into(),
            transfer_log2_max: device.transfer_log2.into(),
            operations: device.operations,
            atc_entries: device.atc_entries,
            page_requests: device.page_requests,
            batch_log2_max: device.batch_log2.into(),
            reserved: 0,
        };
        writer.write_slice(info.as_bytes().get(..size.min(known)).ok_or(EINVAL)?)?;
        for _ in known..size {
            writer.write(&0u8)?;
        }
        Ok(())
    }

    fn queue_setup(&self, from: UserPtr) -> Result {
        let queue: ioctl::Queue = read_argument(from, first_size::QUEUE)?;

        if queue.flags != 0
            || queue.reserved != 0
            || queue.ring_log2 > self.device.capabilities().ring_log2.into()
            || queue.ring % descriptor::SIZE as u64 != 0
        {
            return Err(EINVAL);
        }
        // Check that the whole ring lies in the user part of the address space.
        (descriptor::SIZE as u64)
            .checked_shl(queue.ring_log2)
            .and_then(|size| queue.ring.checked_add(size))
            .filter(|&end| end <= self.address_limit())
            .ok_or(EINVAL)?;

        self.context.start(
            self.device.registers(),
            Start {
                pasid: self.pasid,
                ring: queue.ring,
                // At most 15.
                ring_log2: queue.ring_log2 as u8,
                vector: self.device.vector(self.context.index()),
            },
        )
    }

    fn eventfd(&self, from: UserPtr) -> Result {
        let eventfd: ioctl::Eventfd = read_argument(from, first_size::EVENTFD)?;

        if eventfd.flags != 0 || eventfd.reserved != 0 {
            return Err(EINVAL);
        }
        self.context.attach(match eventfd.fd {
            -1 => None,
            fd => Some(EventFd::from_fd(fd)?),
        })
    }

    fn moderation(&self, from: UserPtr) -> Result {
        let moderation: ioctl::Moderation = read_argument(from, first_size::MODERATION)?;

        if moderation.flags != 0 {
            return Err(EINVAL);
        }
        if !self.device.capabilities().moderation() {
            return Err(Error::from_errno(-(bindings::EOPNOTSUPP as c_int)));
        }
        let moderation = regs::MODERATION::zeroed()
            .try_with_completions(moderation.count)
            .map_err(|_| EINVAL)?
            .with_microseconds(moderation.microseconds);

        self.context.moderate(self.device.registers(), moderation)
    }

    /// First address after the user part of the address space.
    fn address_limit(&self) -> u64 {
        // SAFETY: The `Mm` is alive; the field is constant once the address space is in use.
        unsafe { (*self.mm.as_raw()).__bindgen_anon_1.task_size as u64 }
    }

    fn mmap(&self, vma: &VmaNew) -> Result {
        self.check_caller()?;

        if self.context.is_gone() {
            return Err(ENODEV);
        }
        doorbell::prepare(vma, AREA_OPERATIONS)
    }

    /// Waits for interrupts, and returns their number.
    fn read(&self, to: UserPtr, length: usize, wait: bool) -> Result<usize> {
        const SIZE: usize = size_of::<u64>();

        self.check_caller()?;
        if length < SIZE {
            return Err(EINVAL);
        }

        let count = loop {
            // Read this before the check, so that no event between check and sleep is lost.
            let events = self.context.signals().events();

            match self.context.pending(self.device.registers(), true) {
                Pending::Gone => return Err(ENODEV),
                Pending::Lost => return Err(Error::from_errno(-(bindings::EBADMSG as c_int))),
                Pending::Halted(0) => return Err(EIO),
                Pending::Interrupts(0) if !wait => return Err(EAGAIN),
                Pending::Interrupts(0) => {}
                Pending::Interrupts(count) | Pending::Halted(count) => break count,
            }

            self.context.signals().wait(events)?;
        };

        UserSlice::new(to, SIZE).writer().write(&count)?;
        Ok(SIZE)
    }

    /// The current events of `poll()`.
    fn ready(&self) -> u32 {
        const READABLE: u32 = bindings::POLLIN | bindings::POLLRDNORM;

        if self.is_foreign() {
            return bindings::POLLERR;
        }
        match self.context.pending(self.device.registers(), false) {
            Pending::Interrupts(0) => 0,
            Pending::Interrupts(_) => READABLE,
            Pending::Halted(0) => bindings::POLLERR,
            Pending::Halted(_) | Pending::Lost => READABLE | bindings::POLLERR,
            Pending::Gone => bindings::POLLERR | bindings::POLLHUP,
        }
    }
}

impl Drop for OpenFile {
    /// Releases the context: stops it, waits, ends the bond.
    fn drop(&mut self) {
        if !self.device.close_context(&self.context) {
            self.node.announce(c"SVM_EVENT=CONTEXT_STUCK");
        }
    }
}

/// The operations. `owner` is this module, which stays loaded while a file is open.
pub(crate) const fn operations(owner: *mut bindings::module) -> bindings::file_operations {
    bindings::file_operations {
        owner,
        open: Some(f_open),
        release: Some(f_release),
        unlocked_ioctl: Some(f_ioctl),
        // The structures are the same for 32-bit programs.
        #[cfg(CONFIG_COMPAT)]
        compat_ioctl: bindings::compat_ptr_ioctl,
        mmap: Some(f_mmap),
        read: Some(f_read),
        poll: Some(f_poll),
        show_fdinfo: Some(f_show_fdinfo),
        ..pin_init::zeroed()
    }
}

/// # Safety
///
/// Only as the `open` operation of a file of a node of `crate::chardev`.
unsafe extern "C" fn f_open(inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    from_result(|| {
        // SAFETY: By the requirement of this function; the result does not escape it.
        let opening = unsafe { Opening::enter(inode)? };
        // SAFETY: `file` is being opened, and its `OpenFile` is dropped by `f_release()`: nothing
        // fails below.
        let open = unsafe { OpenFile::open(&opening, file)? };

        // SAFETY: `file` is valid and not shared yet. It has no position: a read returns the
        // current number of interrupts.
        unsafe {
            bindings::stream_open(inode, file);
            (*file).private_data = KBox::into_raw(open).cast();
        }
        Ok(0)
    })
}

/// # Safety
///
/// Only as the `release` operation of a file that `f_open()` has opened.
unsafe extern "C" fn f_release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: `f_open()` has stored the pointer, and this is the last operation of the file.
    drop(unsafe { KBox::from_raw((*file).private_data.cast::<OpenFile>()) });
    0
}

/// # Safety
///
/// Only as the `unlocked_ioctl` operation of a file that `f_open()` has opened.
unsafe extern "C" fn f_ioctl(file: *mut bindings::file, cmd: c_uint, arg: c_ulong) -> c_long {
    // SAFETY: The caller holds a reference to the file.
    let open = unsafe { OpenFile::borrow(file) };

    from_result(|| open.ioctl(cmd, arg).map(|()| 0))
}

/// # Safety
///
/// Only as the `mmap` operation of a file that `f_open()` has opened.
unsafe extern "C" fn f_mmap(
    file: *mut bindings::file,
    vma: *mut bindings::vm_area_struct,
) -> c_int {
    // SAFETY: The caller holds a reference to the file.
    let open = unsafe { OpenFile::borrow(file) };
    // SAFETY: The caller passes an area that is under construction during the call.
    let vma = unsafe { VmaNew::from_raw(vma) };

    from_result(|| open.mmap(vma).map(|()| 0))
}

/// # Safety
///
/// Only as the `read` operation of a file that `f_open()` has opened.
unsafe extern "C" fn f_read(
    file: *mut bindings::file,
    to: *mut c_char,
    length: usize,
    _position: *mut bindings::loff_t,
) -> isize {
    // SAFETY: The caller holds a reference to the file.
    let open = unsafe { OpenFile::borrow(file) };
    // SAFETY: As above. A `LocalFile` may be one whose position is in use.
    let flags = unsafe { LocalFile::from_raw_file(file) }.flags();

    from_result(|| {
        let length = open.read(
            UserPtr::from_ptr(to.cast()),
            length,
            flags & O_NONBLOCK == 0,
        )?;

        // At most 8.
        Ok(length as isize)
    })
}

/// # Safety
///
/// Only as the `poll` operation of a file that `f_open()` has opened.
unsafe extern "C" fn f_poll(
    file: *mut bindings::file,
    table: *mut bindings::poll_table_struct,
) -> bindings::__poll_t {
    // SAFETY: The caller holds a reference to the file.
    let open = unsafe { OpenFile::borrow(file) };

    // SAFETY: The arguments belong to this call. The queue is in the context, which the open file
    // holds until it is released.
    unsafe { open.context.signals().queue().poll_wait(file, table) };

    open.ready()
}

/// # Safety
///
/// Only as the `show_fdinfo` operation of a file that `f_open()` has opened.
unsafe extern "C" fn f_show_fdinfo(to: *mut bindings::seq_file, file: *mut bindings::file) {
    // SAFETY: The caller holds a reference to the file.
    let open = unsafe { OpenFile::borrow(file) };
    // SAFETY: The caller passes a file that it writes in this task during the call.
    let to = unsafe { SeqFile::from_raw(to) };

    fdinfo::show(&open.device, &open.context, open.pasid, to);
}

/// Milliseconds that a page fault waits at a time for the end of a reset. The time is short because
/// the fault holds the lock of the address space; if it was too short, the access faults again.
const RESET_WAIT: u32 = 10;

/// The operations of the areas that map the doorbell page.
const AREA_OPERATIONS: &bindings::vm_operations_struct = &bindings::vm_operations_struct {
    fault: Some(area_fault),
    ..pin_init::zeroed()
};

/// # Safety
///
/// Only for areas that [`doorbell::prepare`] has prepared, as their `fault` operation.
unsafe extern "C" fn area_fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // SAFETY: The caller passes a valid fault in a valid area, which stays valid during the call.
    let (vma, address) = unsafe {
        let fault = &(*fault).__bindgen_anon_1;
        (fault.vma, fault.address)
    };
    // SAFETY: The area holds a reference to its file, which is one of this module and open.
    let open = unsafe { OpenFile::borrow((*vma).vm_file) };
    let page = open.device.doorbell_page(open.context.index());

    // SAFETY: `vma` is valid, has `VM_PFNMAP` and is not copy-on-write; `address` lies in it, as
    // the caller found it by the address. `page` is the doorbell page in the BAR of the device,
    // which exists while the closure runs: the context is revoked before the driver releases the
    // BAR.
    let map = || unsafe { bindings::vmf_insert_pfn(vma, address, page) };

    // Read this before the check, so that an end of the reset between check and sleep is not lost.
    let events = open.context.signals().events();

    match open.context.with_doorbell(map) {
        Doorbell::Mapped(result) => result,
        Doorbell::Later => {
            // The kernel handles a signal before it repeats the access.
            let _ = open.context.signals().wait_for(events, RESET_WAIT);
            bindings::vm_fault_reason_VM_FAULT_NOPAGE
        }
        Doorbell::Never => bindings::vm_fault_reason_VM_FAULT_SIGBUS,
    }
}
