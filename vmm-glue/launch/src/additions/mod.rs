// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user's additions to a guest: files and programs, and kernel modules. All errors are found
//! before anything is prepared, except a module for another kernel, which is known only afterwards.

pub mod copy;
pub mod elf;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use svm_init::paths;
use svm_init::plan::Module;

use crate::cli::Additions;
use crate::plans::DRIVER;
use copy::Collection;

/// Part of the guest's memory that copied files may take: the kernel's own limit for its first file
/// system is half.
const SHARE: u64 = 45;

/// The collected additions.
#[derive(Clone, Debug, Default)]
pub struct Added {
    /// Files.
    pub files: Collection,
    /// Modules to load after the driver, and their files.
    pub modules: Vec<(Module, PathBuf)>,
    /// Absolute paths in the guest of the files to fetch.
    pub fetch: Vec<String>,
    /// The driver is not loaded.
    pub no_driver: bool,
}

impl Added {
    /// Collects the additions of the options, for a guest with this amount of memory.
    pub fn collect(options: &Additions, memory: &str) -> Result<Self> {
        let mut files = Collection::default();
        for argument in &options.copy {
            files.add(argument)?;
        }
        let mut modules: Vec<(Module, PathBuf)> = Vec::new();
        for path in &options.module {
            let name = module_name(path)?;
            elf::module_magic(path)?;
            if name == DRIVER && !options.no_driver {
                bail!(
                    "{} bears the name of the device's own driver: load it instead of that by \
                     --no-driver",
                    path.display()
                );
            }
            ensure!(
                modules.iter().all(|(module, _)| module.name != name),
                "two modules are called {name} (option --module)"
            );
            modules.push((Module::new(&name), path.clone()));
        }
        for option in &options.module_option {
            let Some((name, parameter)) = option.split_once('.') else {
                bail!("expected MODULE.KEY=VALUE, not {option:?} (option --module-option)");
            };
            let Some((module, _)) = modules.iter_mut().find(|(module, _)| module.name == name)
            else {
                bail!("no --module is called {name:?}, of which {option:?} is a parameter");
            };
            if !module.parameters.is_empty() {
                module.parameters.push(' ');
            }
            module.parameters.push_str(parameter);
        }
        let added = Self {
            files,
            modules,
            fetch: options.fetch.iter().map(|path| absolute(path)).collect(),
            no_driver: options.no_driver,
        };
        added.check_size(memory)?;
        Ok(added)
    }

    /// Fails if a guest with this amount of memory has no room for the files.
    pub fn check_size(&self, memory: &str) -> Result<()> {
        let size = self.files.size();
        if let Some(memory) = bytes(memory) {
            ensure!(
                size <= memory / 100 * SHARE,
                "what is copied has {} MiB, and a guest of {} MiB has room for {SHARE} % of its \
                 memory: give it more by --memory",
                size >> 20,
                memory >> 20
            );
        }
        Ok(())
    }

    /// Fails if a module is for another kernel than `driver`, which was built for the guest's.
    pub fn check_kernel(&self, driver: &Path) -> Result<()> {
        if self.modules.is_empty() {
            return Ok(());
        }
        let expected = elf::module_magic(driver)?;
        for (_, path) in &self.modules {
            let found = elf::module_magic(path)?;
            ensure!(
                found == expected,
                "{} is a module for the kernel {found:?}, and the guest's is {expected:?}: build it \
                 for that one, or boot yours by --kdir",
                path.display()
            );
        }
        Ok(())
    }
}

/// The name of a module, from the name of its file.
fn module_name(path: &Path) -> Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_suffix(".ko")
        .map(str::to_owned)
        .with_context(|| {
            format!(
                "{} is no kernel module: a file NAME.ko was expected (option --module; one that is \
             compressed has to be unpacked first)",
                path.display()
            )
        })
}

/// An absolute path in the guest; relative paths start at the directory of commands.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{}/{path}", paths::HOME),
    }
}

/// An amount of memory in QEMU's format: MiB unless a letter says otherwise. None if it is invalid;
/// QEMU will report that.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_uppercase();
    let (number, shift) = match text.strip_suffix(['K', 'M', 'G', 'T']) {
        Some(number) => {
            let unit = text.chars().last()?;
            (number, 10 * ("KMGT".find(unit)? as u32 + 1))
        }
        None => (text.as_str(), 20),
    };
    number.parse::<u64>().ok()?.checked_shl(shift)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn refused(options: &Additions, memory: &str) -> String {
        Added::collect(options, memory).unwrap_err().to_string()
    }

    #[test]
    fn memory_is_read_as_qemu_reads_it() {
        assert_eq!(bytes("1G"), Some(1 << 30));
        assert_eq!(bytes("512"), Some(512 << 20));
        assert_eq!(bytes("64k"), Some(64 << 10));
        assert_eq!(bytes("1G,slots=2"), None);
    }

    #[test]
    fn what_does_not_fit_into_the_guest_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("big");
        let file = fs::File::create(&path).unwrap();
        file.set_len(500 << 20).unwrap();
        let options = Additions {
            copy: vec![path],
            ..Additions::default()
        };
        assert!(refused(&options, "1G").contains("--memory"));
        Added::collect(&options, "2G").unwrap();
    }

    #[test]
    fn fetched_paths_are_absolute() {
        let options = Additions {
            fetch: vec!["out".into(), "/tmp/x".into()],
            ..Additions::default()
        };
        let added = Added::collect(&options, "1G").unwrap();
        assert_eq!(added.fetch, ["/root/out", "/tmp/x"]);
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("m.ko", "is no kernel module"),
            ("m.ko.xz", "NAME.ko was expected"),
        ] {
            let path = directory.path().join(name);
            fs::write(&path, "text").unwrap();
            let options = Additions {
                module: vec![path],
                ..Additions::default()
            };
            let error = refused(&options, "1G");
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_parameter_belongs_to_a_module() {
        let options = Additions {
            module_option: vec!["m.a=1".into()],
            ..Additions::default()
        };
        assert!(refused(&options, "1G").contains("no --module is called \"m\""));
    }
}
