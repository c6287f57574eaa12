// SPDX-License-Identifier: GPL-2.0-or-later
//! QEMU's object model: the class of our PCI Express device, and access to other objects. Does not
//! know what the device does.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;

use crate::abi::layout::*;
use crate::abi::qemu;
use crate::bql::Bql;

/// The parts of a type of PCI Express device.
pub struct DeviceType {
    /// Name, as in `-device NAME`.
    pub name: &'static CStr,
    /// Description for `-device help`.
    pub description: &'static CStr,
    /// Vendor id.
    pub vendor_id: u16,
    /// Device id.
    pub device_id: u16,
    /// Revision id.
    pub revision: u8,
    /// Base class and sub-class.
    pub class: u16,
    /// Creates the device of an object.
    pub realize: unsafe extern "C" fn(*mut Object, ErrorOut),
    /// Undoes `realize`.
    pub exit: unsafe extern "C" fn(*mut Object),
    /// Resets the device.
    pub reset: unsafe extern "C" fn(*mut Object),
    /// Software reads configuration space.
    pub config_read: unsafe extern "C" fn(*mut Object, u32, c_int) -> u32,
    /// Software writes configuration space.
    pub config_write: unsafe extern "C" fn(*mut Object, u32, u32, c_int),
    /// Initializes an object.
    pub instance_init: unsafe extern "C" fn(*mut Object),
    /// Finalizes an object.
    pub instance_finalize: unsafe extern "C" fn(*mut Object),
    /// Adds the properties.
    pub properties: fn(&mut Class),
}

/// The class of a type during its creation.
pub struct Class(NonNull<ObjectClass>);

static INTERFACES: [Constant<InterfaceInfo>; 2] = [
    Constant(InterfaceInfo {
        type_name: c"pci-express-device".as_ptr(),
    }),
    Constant(InterfaceInfo {
        type_name: std::ptr::null(),
    }),
];

/// Registers a type.
pub fn register(device: &'static DeviceType) {
    let info = TypeInfo {
        name: device.name.as_ptr(),
        parent: c"pci-device".as_ptr(),
        // The same as the parent's: the state is stored elsewhere.
        instance_size: 0,
        instance_align: 0,
        instance_init: Some(device.instance_init),
        instance_post_init: None,
        instance_finalize: Some(device.instance_finalize),
        is_abstract: false,
        class_size: 0,
        class_init: Some(class_init),
        class_base_init: None,
        class_data: std::ptr::from_ref(device).cast(),
        interfaces: std::ptr::from_ref(&INTERFACES).cast(),
    };
    // SAFETY: QEMU copies the structure; everything that it points to is static.
    unsafe { (qemu().type_register_static)(&info) };
}

/// `TypeInfo.class_init`.
unsafe extern "C" fn class_init(class: *mut ObjectClass, data: *const c_void) {
    let at = &layout().pci_device_class;
    // SAFETY: the data is the pointer from `register`.
    let device = unsafe { &*data.cast::<DeviceType>() };
    let Some(class) = NonNull::new(class) else {
        return;
    };
    let mut class = Class(class);
    // SAFETY: the class inherits from `pci-device`, whose layout `verify` has compared; each field
    // has the written type. `realize` and similar functions take a `PCIDevice`, which begins with
    // its `Object`.
    unsafe {
        class.write(at.realize, device.realize);
        class.write(at.exit, device.exit);
        class.write(at.config_read, device.config_read);
        class.write(at.config_write, device.config_write);
        class.write(at.vendor_id, device.vendor_id);
        class.write(at.device_id, device.device_id);
        class.write(at.revision, device.revision);
        class.write(at.class_id, device.class);
        class.write(at.desc, device.description.as_ptr());
        class.write(at.vmsd, unmigratable(device.name));
        class.write(at.categories, 1u64 << DEVICE_CATEGORY_MISC);
        (qemu().device_class_set_legacy_reset)(class.0.as_ptr(), device.reset);
    }
    (device.properties)(&mut class);
}

impl Class {
    /// The class that QEMU passes to a `class_init`.
    ///
    /// # Safety
    ///
    /// The value is used only inside that function.
    pub unsafe fn new(class: NonNull<ObjectClass>) -> Class {
        Class(class)
    }

    /// As QEMU takes it.
    pub fn as_ptr(&self) -> *mut ObjectClass {
        self.0.as_ptr()
    }

    /// Writes a field.
    ///
    /// # Safety
    ///
    /// The class has a field of this type at the offset.
    pub unsafe fn write<T>(&mut self, offset: usize, value: T) {
        // SAFETY: the caller's promise; the write asks for no alignment.
        unsafe {
            let field = self.0.as_ptr().cast::<u8>().add(offset);
            field.cast::<T>().write_unaligned(value);
        }
    }

    /// Adds a property. QEMU passes `opaque` to `get` and `set`.
    pub fn add_property<T: Sync>(
        &mut self,
        name: &CStr,
        type_name: &CStr,
        description: &CStr,
        get: crate::abi::functions::PropertyAccess,
        set: crate::abi::functions::PropertyAccess,
        opaque: &'static T,
    ) {
        // SAFETY: QEMU copies the strings.
        unsafe {
            (qemu().object_class_property_add)(
                self.0.as_ptr(),
                name.as_ptr(),
                type_name.as_ptr(),
                Some(get),
                Some(set),
                std::ptr::null(),
                std::ptr::from_ref(opaque).cast_mut().cast(),
            );
            (qemu().object_class_property_set_description)(
                self.0.as_ptr(),
                name.as_ptr(),
                description.as_ptr(),
            );
        }
    }
}

/// Another object of the machine, which lives as long as the machine.
#[derive(Clone, Copy)]
pub struct Neighbour(NonNull<Object>);

impl Neighbour {
    /// The only object of a type, if there is one.
    pub fn find(_bql: &Bql, type_name: &CStr) -> Option<Neighbour> {
        // SAFETY: both are C strings; the pointer for ambiguity may be null.
        let object = unsafe {
            (qemu().object_resolve_path_type)(
                c"".as_ptr(),
                type_name.as_ptr(),
                std::ptr::null_mut(),
            )
        };
        NonNull::new(object).map(Neighbour)
    }

    /// Whether there is an object of a type, or several.
    pub fn any(_bql: &Bql, type_name: &CStr) -> bool {
        let mut several = false;
        // SAFETY: both are C strings, and QEMU writes to the given place.
        let object = unsafe {
            (qemu().object_resolve_path_type)(c"".as_ptr(), type_name.as_ptr(), &mut several)
        };
        several || !object.is_null()
    }

    /// The object behind a pointer.
    ///
    /// # Safety
    ///
    /// It exists while the value is in use.
    pub unsafe fn new(object: NonNull<Object>) -> Neighbour {
        Neighbour(object)
    }

    /// The object at a path, if there is one.
    pub fn at(_bql: &Bql, path: &CStr) -> Option<Neighbour> {
        // SAFETY: the path is a C string, and not ambiguous.
        let object = unsafe { (qemu().object_resolve_path)(path.as_ptr(), std::ptr::null_mut()) };
        NonNull::new(object).map(Neighbour)
    }

    /// A child of the object, by its name.
    pub fn child(self, _bql: &Bql, name: &CStr) -> Option<Neighbour> {
        // SAFETY: the object exists, and the name is a C string.
        let child = unsafe { (qemu().object_resolve_path_component)(self.as_ptr(), name.as_ptr()) };
        NonNull::new(child).map(Neighbour)
    }

    /// As QEMU takes it.
    pub fn as_ptr(self) -> *mut Object {
        self.0.as_ptr()
    }

    /// A text or enumeration property; None if the object has no such property.
    pub fn text(self, _bql: &Bql, property: &CStr) -> Option<String> {
        let mut error = std::ptr::null_mut();
        // SAFETY: the object exists; we free the error or the text.
        unsafe {
            let text =
                (qemu().object_property_get_str)(self.0.as_ptr(), property.as_ptr(), &mut error);
            if !succeeded(error) || text.is_null() {
                return None;
            }
            let value = CStr::from_ptr(text).to_string_lossy().into_owned();
            (qemu().g_free)(text.cast());
            Some(value)
        }
    }

    /// Sets a boolean property; false if that is not possible.
    pub fn set_switch(self, _bql: &Bql, property: &CStr, value: bool) -> bool {
        let mut error = std::ptr::null_mut();
        // SAFETY: the object exists; an error is ours to free.
        unsafe {
            (qemu().object_property_set_bool)(
                self.0.as_ptr(),
                property.as_ptr(),
                value,
                &mut error,
            );
            succeeded(error)
        }
    }

    /// Sets a numeric property; false if that is not possible.
    pub fn set_number(self, _bql: &Bql, property: &CStr, value: u64) -> bool {
        let mut error = std::ptr::null_mut();
        // SAFETY: the object exists; an error is ours to free.
        unsafe {
            (qemu().object_property_set_uint)(
                self.0.as_ptr(),
                property.as_ptr(),
                value,
                &mut error,
            );
            succeeded(error)
        }
    }

    /// A boolean property; None if the object has no such property.
    pub fn switch(self, _bql: &Bql, property: &CStr) -> Option<bool> {
        self.get(property, qemu().object_property_get_bool)
    }

    /// A numeric property; None if the object has no such property.
    pub fn number(self, _bql: &Bql, property: &CStr) -> Option<u64> {
        self.get(property, qemu().object_property_get_uint)
    }

    /// Reads a property through one of QEMU's functions.
    fn get<T>(
        self,
        property: &CStr,
        function: unsafe extern "C" fn(*mut Object, *const c_char, ErrorOut) -> T,
    ) -> Option<T> {
        let mut error = std::ptr::null_mut();
        // SAFETY: the object exists; an error is ours to free.
        unsafe {
            let value = function(self.0.as_ptr(), property.as_ptr(), &mut error);
            if error.is_null() {
                return Some(value);
            }
            (qemu().error_free)(error);
        }
        None
    }
}

// SAFETY: all that touches the object asks for a proof of the BQL.
unsafe impl Send for Neighbour {}
// SAFETY: as above.
unsafe impl Sync for Neighbour {}

/// Whether there is no error; frees an error.
///
/// # Safety
///
/// The error is null or owned by the caller.
unsafe fn succeeded(error: *mut Error) -> bool {
    if error.is_null() {
        return true;
    }
    // SAFETY: the caller's promise.
    unsafe { (qemu().error_free)(error) };
    false
}
