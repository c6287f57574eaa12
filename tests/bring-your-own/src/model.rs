// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of `model/small_iommu.h`, as the suite calls a model.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::time::Duration;
use svm_suite::bench::{Model, Platform};
use svm_suite::pcie_ats::{
    AlignedRange, InvalidateCompletion, InvalidateRequest, Itag, MAX_TRANSLATIONS,
    MemoryAddressType, MemoryRequest, PageRequest, Pasid, PrgResponse, Prgi, ResponseCode,
    Translation, TranslationError, TranslationRequest,
};
use svm_suite::vtd::Access;

/// What the C functions see.
mod c {
    use std::ffi::{c_int, c_uint, c_void};

    /// The unit.
    #[repr(C)]
    pub struct Iommu {
        opaque: [u8; 0],
    }

    /// `struct small_bus`.
    #[repr(C)]
    pub struct Bus {
        pub opaque: *mut c_void,
        pub load: extern "C" fn(*mut c_void, u64, *mut u64) -> bool,
        pub store: extern "C" fn(*mut c_void, u64, u64) -> bool,
        pub store32: extern "C" fn(*mut c_void, u64, u32) -> bool,
        pub invalidate: extern "C" fn(*mut c_void, u16, u8, u32, u64, bool, bool),
        pub respond: extern "C" fn(*mut c_void, u16, u32, u16, u8),
    }

    /// `struct small_request`.
    #[repr(C)]
    pub struct Request {
        pub address: u64,
        pub pasid: u32,
        pub requester: u16,
        pub address_type: c_int,
        pub kind: c_int,
        pub privileged: bool,
    }

    /// `struct small_translation`.
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    pub struct Translation {
        pub address: u64,
        pub size_log2: u8,
        pub read: bool,
        pub write: bool,
        pub privileged: bool,
    }

    /// `struct small_page_request`.
    #[repr(C)]
    pub struct PageRequest {
        pub address: u64,
        pub pasid: u32,
        pub requester: u16,
        pub prgi: u16,
        pub read: bool,
        pub write: bool,
        pub execute: bool,
        pub privileged: bool,
        pub last: bool,
    }

    unsafe extern "C" {
        pub fn small_iommu_new(one_gib_pages: bool) -> *mut Iommu;
        pub fn small_iommu_free(iommu: *mut Iommu);
        pub fn small_iommu_reset(iommu: *mut Iommu);
        pub fn small_iommu_read(iommu: *mut Iommu, offset: u16, size: u8) -> u64;
        pub fn small_iommu_write(
            iommu: *mut Iommu,
            bus: *const Bus,
            offset: u16,
            value: u64,
            size: u8,
        );
        pub fn small_iommu_access(
            iommu: *mut Iommu,
            bus: *const Bus,
            request: *const Request,
            address: *mut u64,
        ) -> bool;
        pub fn small_iommu_translate(
            iommu: *mut Iommu,
            bus: *const Bus,
            request: *const Request,
            pages: c_uint,
            answer: *mut Translation,
            count: *mut c_uint,
        ) -> c_int;
        pub fn small_iommu_page_request(
            iommu: *mut Iommu,
            bus: *const Bus,
            request: *const PageRequest,
        );
        pub fn small_iommu_completed(iommu: *mut Iommu, bus: *const Bus, itags: u32);
    }
}

/// `SMALL_NO_PASID`.
const NO_PASID: u32 = u32::MAX;
/// `enum small_address_type`.
const UNTRANSLATED: i32 = 0;
const TRANSLATION_REQUEST: i32 = 1;
const TRANSLATED: i32 = 2;
/// `enum small_kind`.
const READ: i32 = 0;
const ZERO_LENGTH_READ: i32 = 1;
const WRITE: i32 = 2;
const ATOMIC: i32 = 3;

fn number(pasid: Option<Pasid>) -> u32 {
    pasid.map_or(NO_PASID, Pasid::get)
}

/// The unit that C made.
pub struct SmallIommu(NonNull<c::Iommu>);

// SAFETY: The unit has no state outside of its structure, and no thread of its own.
unsafe impl Send for SmallIommu {}

impl SmallIommu {
    /// One as after power-up.
    ///
    /// # Panics
    ///
    /// If there is no memory for it.
    pub fn new(one_gib_pages: bool) -> Self {
        // SAFETY: The function has no conditions.
        let iommu = unsafe { c::small_iommu_new(one_gib_pages) };
        match NonNull::new(iommu) {
            Some(iommu) => SmallIommu(iommu),
            None => panic!("there is no memory for a unit"),
        }
    }
}

impl Drop for SmallIommu {
    fn drop(&mut self) {
        // SAFETY: `small_iommu_new` made it, and nobody uses it any more.
        unsafe { c::small_iommu_free(self.0.as_ptr()) }
    }
}

/// The platform of the call that is in progress.
///
/// # Safety
///
/// `opaque` is that of a [`c::Bus`] of [`with_bus`], within its call.
unsafe fn platform<'a>(opaque: *mut c_void) -> &'a mut Platform<'a> {
    // SAFETY: `with_bus` has the platform borrowed as long as the call takes, and C's functions call
    // back one at a time.
    unsafe { &mut *opaque.cast() }
}

extern "C" fn load(opaque: *mut c_void, address: u64, value: *mut u64) -> bool {
    // SAFETY: C passes what it was given, and a place for the value.
    let (platform, place) = unsafe { (platform(opaque), &mut *value) };
    match platform.load(address) {
        Some(loaded) => {
            *place = loaded;
            true
        }
        None => false,
    }
}

extern "C" fn store(opaque: *mut c_void, address: u64, value: u64) -> bool {
    // SAFETY: C passes what it was given.
    unsafe { platform(opaque) }.store(address, value)
}

extern "C" fn store32(opaque: *mut c_void, address: u64, value: u32) -> bool {
    // SAFETY: C passes what it was given.
    unsafe { platform(opaque) }.store32(address, value)
}

extern "C" fn invalidate(
    opaque: *mut c_void,
    requester: u16,
    itag: u8,
    pasid: u32,
    address: u64,
    s: bool,
    global: bool,
) {
    let Ok(itag) = Itag::new(itag) else { return };
    let request = InvalidateRequest {
        itag,
        pasid: Pasid::new(pasid).ok(),
        range: AlignedRange::decode(address, s),
        global,
    };
    // SAFETY: C passes what it was given.
    unsafe { platform(opaque) }.invalidate(requester, request);
}

extern "C" fn respond(opaque: *mut c_void, requester: u16, pasid: u32, prgi: u16, code: u8) {
    let Ok(prgi) = Prgi::new(prgi) else { return };
    let response = PrgResponse {
        prgi,
        pasid: Pasid::new(pasid).ok(),
        code: ResponseCode::from_bits(code),
    };
    // SAFETY: C passes what it was given.
    unsafe { platform(opaque) }.respond(requester, response);
}

/// Calls something with a bus that leads to a platform.
fn with_bus<T>(platform: &mut Platform<'_>, call: impl FnOnce(*const c::Bus) -> T) -> T {
    let bus = c::Bus {
        opaque: std::ptr::from_mut(platform).cast(),
        load,
        store,
        store32,
        invalidate,
        respond,
    };
    call(&bus)
}

impl Model for SmallIommu {
    fn read(&mut self, offset: u16, size: u8) -> u64 {
        // SAFETY: The unit is there; it checks the offset.
        unsafe { c::small_iommu_read(self.0.as_ptr(), offset, size) }
    }

    fn write(&mut self, platform: &mut Platform<'_>, offset: u16, value: u64, size: u8) {
        let iommu = self.0.as_ptr();
        // SAFETY: Unit and bus are there while the call takes; the unit checks the offset.
        with_bus(platform, |bus| unsafe {
            c::small_iommu_write(iommu, bus, offset, value, size);
        });
    }

    fn access(
        &mut self,
        platform: &mut Platform<'_>,
        requester: u16,
        request: &MemoryRequest,
        access: Access,
    ) -> Option<u64> {
        let request = c::Request {
            address: request.address,
            pasid: number(request.pasid),
            requester,
            address_type: match request.address_type {
                MemoryAddressType::Untranslated => UNTRANSLATED,
                MemoryAddressType::Translated => TRANSLATED,
            },
            kind: match access {
                Access::Read => READ,
                Access::ZeroLengthRead => ZERO_LENGTH_READ,
                Access::Write => WRITE,
                Access::Atomic => ATOMIC,
            },
            privileged: request.privileged,
        };
        let mut address = 0;
        let iommu = self.0.as_ptr();
        // SAFETY: Unit, bus, request and the place of the address are there while the call takes.
        let passes = with_bus(platform, |bus| unsafe {
            c::small_iommu_access(iommu, bus, &request, &mut address)
        });
        passes.then_some(address)
    }

    fn translate(
        &mut self,
        platform: &mut Platform<'_>,
        requester: u16,
        request: &TranslationRequest,
        answer: &mut [Translation],
    ) -> Result<usize, TranslationError> {
        let asked = c::Request {
            address: request.address,
            pasid: number(request.pasid),
            requester,
            address_type: TRANSLATION_REQUEST,
            kind: if request.no_write { READ } else { WRITE },
            privileged: request.privileged,
        };
        let mut found = [c::Translation::default(); MAX_TRANSLATIONS];
        let most = answer.len().min(MAX_TRANSLATIONS) as u32;
        let pages = u32::from(request.pages).clamp(1, most);
        let mut count = 0;
        let iommu = self.0.as_ptr();
        // SAFETY: Unit, bus and request are there while the call takes, and so are the places of
        // count and answer, which has one for each of the pages.
        let completion = with_bus(platform, |bus| unsafe {
            c::small_iommu_translate(iommu, bus, &asked, pages, found.as_mut_ptr(), &mut count)
        });
        match completion {
            0 => {}
            1 => return Err(TranslationError::UnsupportedRequest),
            _ => return Err(TranslationError::CompleterAbort),
        }
        let count = count as usize;
        for (place, found) in answer.iter_mut().zip(&found[..count]) {
            *place = Translation {
                range: AlignedRange::containing(found.address, found.size_log2)
                    .map_err(|_| TranslationError::CompleterAbort)?,
                read: found.read,
                write: found.write,
                execute: false,
                privileged: found.privileged,
                global: false,
                untranslated_only: false,
                non_snooped: false,
            };
        }
        Ok(count)
    }

    fn page_request(&mut self, platform: &mut Platform<'_>, requester: u16, request: &PageRequest) {
        let request = c::PageRequest {
            address: request.address,
            pasid: number(request.pasid),
            requester,
            prgi: request.prgi.get(),
            read: request.read,
            write: request.write,
            execute: request.execute,
            privileged: request.privileged,
            last: request.last,
        };
        let iommu = self.0.as_ptr();
        // SAFETY: Unit, bus and request are there while the call takes.
        with_bus(platform, |bus| unsafe {
            c::small_iommu_page_request(iommu, bus, &request);
        });
    }

    fn completed(
        &mut self,
        platform: &mut Platform<'_>,
        _: u16,
        completion: &InvalidateCompletion,
    ) {
        let iommu = self.0.as_ptr();
        // SAFETY: Unit and bus are there while the call takes.
        with_bus(platform, |bus| unsafe {
            c::small_iommu_completed(iommu, bus, completion.itag_vector);
        });
    }

    /// The unit waits for nothing that takes time.
    fn advance(&mut self, _: &mut Platform<'_>, _: Duration) {}

    fn reset(&mut self) {
        // SAFETY: The unit is there.
        unsafe { c::small_iommu_reset(self.0.as_ptr()) }
    }
}
