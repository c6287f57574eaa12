// SPDX-License-Identifier: MIT OR Apache-2.0
//! An open context: the bond of this process's address space with one device.

use std::path::Path;

use svm_abi::descriptor::Operation;
use svm_abi::ids::ABI_VERSION;
use svm_abi::ioctl::Info;

use crate::device::{CharDevice, DeviceFile};
use crate::error::Error;

/// A context of a device, bound to the address space of this process, that has no queue yet.
pub struct Context {
    pub(crate) file: Box<dyn DeviceFile>,
    pub(crate) info: Info,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let info = &self.info;
        f.debug_struct("Context")
            .field("info", info)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Opens a device file, `/dev/svm0` or similar.
    ///
    /// # Errors
    ///
    /// [`Error::Open`], whose text says what to check, and [`Error::Version`].
    pub fn open(path: impl AsRef<Path>) -> Result<Context, Error> {
        let path = path.as_ref();
        let file = CharDevice::open(path).map_err(|cause| Error::Open {
            path: path.to_owned(),
            cause,
        })?;
        Context::with_file(Box::new(file))
    }

    /// Uses a device file that is already open, or a [`crate::model::Model`].
    ///
    /// # Errors
    ///
    /// Those of the ioctl `INFO`, and [`Error::Version`].
    pub fn with_file(file: Box<dyn DeviceFile>) -> Result<Context, Error> {
        let info = file.info().map_err(Error::system("ioctl INFO"))?;
        if info.device_version >> 8 != u32::from(ABI_VERSION) >> 8 {
            return Err(Error::Version {
                found: info.device_version,
            });
        }
        Ok(Context { file, info })
    }

    /// Information about context and device.
    pub fn info(&self) -> &Info {
        &self.info
    }
}

/// The operations that a device performs.
pub fn operations(info: &Info) -> impl Iterator<Item = Operation> {
    let bits = info.operations;
    let has = move |operation: &Operation| bits >> (*operation as u8) & 1 != 0;
    Operation::ALL.iter().copied().filter(has)
}
