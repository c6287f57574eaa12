// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kernel modules: unloads one and loads it again with the same parameters.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use svm_init::paths;

/// A loaded module that can be loaded again.
#[derive(Debug)]
pub struct Module {
    name: CString,
    file: PathBuf,
    parameters: CString,
}

impl Module {
    /// The module `name`, whose file is in the guest; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// Its parameters cannot be read.
    pub fn find(name: &str) -> anyhow::Result<Option<Module>> {
        let file = Path::new(paths::MODULES).join(format!("{name}.ko"));
        if !file.is_file() {
            return Ok(None);
        }
        Ok(Some(Module {
            parameters: CString::new(parameters(name)?)?,
            name: CString::new(name)?,
            file,
        }))
    }

    /// Unloads it, without waiting.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if it is in use, and others of `delete_module`.
    pub fn unload(&self) -> Result<(), Errno> {
        delete_module(&self.name, DeleteModuleFlags::O_NONBLOCK)
    }

    /// Loads it.
    ///
    /// # Errors
    ///
    /// Those of `finit_module`.
    pub fn load(&self) -> anyhow::Result<()> {
        let file = File::open(&self.file)?;
        finit_module(file, &self.parameters, ModuleInitFlags::empty())
            .with_context(|| format!("the kernel refuses {}", self.file.display()))
    }
}

/// The parameters of a loaded module, as `name=value`.
fn parameters(name: &str) -> anyhow::Result<String> {
    let directory = Path::new("/sys/module").join(name).join("parameters");
    let Ok(entries) = fs::read_dir(&directory) else {
        // Without parameters there is no directory.
        return Ok(String::new());
    };
    let mut words = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let value = fs::read_to_string(&path)?;
        words.push(format!("{name}={}", value.trim()));
    }
    Ok(words.join(" "))
}
