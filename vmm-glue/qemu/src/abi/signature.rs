// SPDX-License-Identifier: GPL-2.0-or-later
//! The function types of this library in the format of a layout file, for comparison with it.

use super::layout::{IOMMUTLBEntry, MemTxAttrs};

/// A type of a parameter or a result.
pub trait Word {
    /// Its word.
    const WORD: &'static str;
}

macro_rules! words {
    ($($type:ty = $word:literal;)+) => {
        $(impl Word for $type {
            const WORD: &'static str = $word;
        })+
    };
}

words! {
    bool = "bool";
    u8 = "8";
    u16 = "16";
    u32 = "32";
    i32 = "32";
    u64 = "64";
    i64 = "64";
    usize = "64";
    isize = "64";
    MemTxAttrs = "MemTxAttrs";
    IOMMUTLBEntry = "IOMMUTLBEntry";
}

impl<T> Word for *const T {
    const WORD: &'static str = "ptr";
}

impl<T> Word for *mut T {
    const WORD: &'static str = "ptr";
}

/// A type of functions.
pub trait Signature {
    /// Its text in a layout file.
    fn signature() -> String;
}

/// The text of a list of words.
fn text(parameters: &[&str], result: Option<&str>) -> String {
    let parameters = parameters.join(", ");
    match result {
        None => format!("({parameters})"),
        Some(result) => format!("({parameters}) -> {result}"),
    }
}

macro_rules! signatures {
    ($(($($parameter:ident)*))+) => {
        $(
            impl<$($parameter,)* Result> Word for unsafe extern "C" fn($($parameter),*) -> Result {
                const WORD: &'static str = "ptr";
            }

            impl<$($parameter,)* Result> Word
                for Option<unsafe extern "C" fn($($parameter),*) -> Result>
            {
                const WORD: &'static str = "ptr";
            }

            impl<$($parameter: Word,)*> Signature for unsafe extern "C" fn($($parameter),*) {
                fn signature() -> String {
                    text(&[$($parameter::WORD),*], None)
                }
            }

            impl<$($parameter: Word,)* Result: Word> Signature
                for unsafe extern "C" fn($($parameter),*) -> Result
            {
                fn signature() -> String {
                    text(&[$($parameter::WORD),*], Some(Result::WORD))
                }
            }
        )+
    };
}

signatures! {
    ()
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E F)
    (A B C D E F G)
    (A B C D E F G H)
    (A B C D E F G H I)
    (A B C D E F G H I J)
    (A B C D E F G H I J K)
    (A B C D E F G H I J K L)
}

impl<A: Word> Signature for unsafe extern "C" fn(A, ...) {
    fn signature() -> String {
        text(&[A::WORD, "..."], None)
    }
}

impl<A: Word, B: Word, C: Word, D: Word, E: Word> Signature
    for unsafe extern "C" fn(A, B, C, D, E, ...)
{
    fn signature() -> String {
        text(&[A::WORD, B::WORD, C::WORD, D::WORD, E::WORD, "..."], None)
    }
}

/// The text of a function's type.
pub fn of<F: Signature>(_function: F) -> String {
    F::signature()
}

#[cfg(test)]
mod tests {
    use std::ffi::{c_int, c_void};

    use qemu_layout::Table;

    use super::super::functions::Realize;
    use super::super::layout::*;
    use super::*;

    type Read = unsafe extern "C" fn(*mut c_void, u64, u32) -> u64;
    type Write = unsafe extern "C" fn(*mut c_void, u64, u64, u32);
    type ReadWithAttributes =
        unsafe extern "C" fn(*mut c_void, u64, *mut u64, u32, MemTxAttrs) -> u32;
    type WriteWithAttributes = unsafe extern "C" fn(*mut c_void, u64, u64, u32, MemTxAttrs) -> u32;
    type ConfigRead = unsafe extern "C" fn(*mut Object, u32, c_int) -> u32;
    type ConfigWrite = unsafe extern "C" fn(*mut Object, u32, u32, c_int);
    type Translate = unsafe extern "C" fn(*mut c_void, u64, c_int, c_int) -> IOMMUTLBEntry;
    type FlagsChanged = unsafe extern "C" fn(*mut c_void, u32, u32, ErrorOut) -> c_int;
    type Replay = unsafe extern "C" fn(*mut c_void, *mut IOMMUNotifier);
    type AttributesToIndex = unsafe extern "C" fn(*mut c_void, MemTxAttrs) -> c_int;
    type Remap =
        unsafe extern "C" fn(*mut Object, *const MSIMessage, *mut MSIMessage, u16) -> c_int;
    type Notify = unsafe extern "C" fn(*mut Notifier, *mut c_void);
    type Responded = unsafe extern "C" fn(*mut IOMMUPRINotifier, *mut IOMMUPRIResponse);
    type OfObject = unsafe extern "C" fn(*mut Object);
    type OfClass = unsafe extern "C" fn(*mut ObjectClass, *const c_void);
    type Expired = unsafe extern "C" fn(*mut c_void);

    /// The functions that this library passes to QEMU, except the operations of a bus.
    #[test]
    fn functions_that_qemu_calls_have_the_signatures_of_the_table() {
        let table = Table::builtin();
        for (name, signature) in [
            ("MemoryRegionOps.read", Read::signature()),
            ("MemoryRegionOps.write", Write::signature()),
            (
                "MemoryRegionOps.read_with_attrs",
                ReadWithAttributes::signature(),
            ),
            (
                "MemoryRegionOps.write_with_attrs",
                WriteWithAttributes::signature(),
            ),
            ("PCIDeviceClass.realize", Realize::signature()),
            ("PCIDeviceClass.exit", OfObject::signature()),
            ("PCIDeviceClass.config_read", ConfigRead::signature()),
            ("PCIDeviceClass.config_write", ConfigWrite::signature()),
            ("IOMMUMemoryRegionClass.translate", Translate::signature()),
            (
                "IOMMUMemoryRegionClass.notify_flag_changed",
                FlagsChanged::signature(),
            ),
            ("IOMMUMemoryRegionClass.replay", Replay::signature()),
            (
                "IOMMUMemoryRegionClass.attrs_to_index",
                AttributesToIndex::signature(),
            ),
            ("X86IOMMUClass.int_remap", Remap::signature()),
            ("IOMMUNotifier.notify", IommuNotify::signature()),
            ("IOMMUPRINotifier.notify", Responded::signature()),
            ("Notifier.notify", Notify::signature()),
            ("QEMUTimer.cb", Expired::signature()),
            ("ResettablePhases.exit", ResettableExit::signature()),
            ("TypeInfo.instance_init", OfObject::signature()),
            ("TypeInfo.class_init", OfClass::signature()),
        ] {
            assert_eq!(table.signature(name), Some(signature.as_str()), "{name}");
        }
    }
}
