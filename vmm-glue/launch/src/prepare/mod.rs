// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes what a guest needs: the shared [`root`] and [`kernel`] in the cache, and the checkout's
//! own [`driver`], plug-in and programs ([`cargo`]) below its `target/`.
//!
//! What does not depend on each other is made at the same time.

pub mod apt;
mod cargo;
mod driver;
mod glibc;
pub mod host;
pub mod initramfs;
pub mod kernel;
pub mod recipe;
pub mod root;
mod sandbox;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context as _, Result};

use crate::cache::lock::Lock;
use crate::cache::manifest::Depth;
use crate::cache::{Cache, Component};
use crate::checkout::Checkout;
use crate::cli::{Parts, Place, PrepareOptions};
use crate::progress::{Progress, Task};

use apt::Apt;

/// All that a guest needs.
#[derive(Debug)]
pub struct Prepared {
    /// The QEMU to run.
    pub qemu: Qemu,
    /// The plug-in.
    pub plugin: PathBuf,
    /// The kernel's image.
    pub kernel: PathBuf,
    /// Modules of the kernel, names and files, in the order of loading.
    pub modules: Vec<(String, PathBuf)>,
    /// The driver.
    pub driver: PathBuf,
    /// The first process.
    pub init: PathBuf,
    /// The program that uses the device.
    pub svmctl: PathBuf,
    /// The guest's shell and tools.
    pub busybox: PathBuf,
    /// The checkout that it was made for.
    pub checkout: Checkout,
    /// Keeps the cache from being removed.
    _in_use: Lock,
}

/// The QEMU to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Qemu {
    /// That of the prepared root, with the root's own libraries.
    Prepared {
        /// The root file system.
        root: PathBuf,
        /// Its version.
        version: String,
    },
    /// One of the user's own.
    Own(PathBuf),
}

/// How preparing goes about what is there already.
#[derive(Clone, Copy, Debug)]
struct Manner {
    depth: Depth,
    fresh: bool,
}

/// What the making of components shares.
struct Workshop<'a> {
    cache: &'a Cache,
    mirror: Option<&'a str>,
    progress: &'a Progress,
    manner: Manner,
}

/// `svm-vm prepare`.
pub fn command(place: &Place, options: &PrepareOptions) -> Result<ExitCode> {
    let progress = Progress::new();
    let depth = if options.verify {
        Depth::Full
    } else {
        Depth::Quick
    };
    let manner = Manner {
        depth,
        fresh: options.refresh,
    };
    let prepared = prepare_in(place, &options.parts, &progress, manner)?;
    progress.line(&format!("ready: {}", prepared.describe()));
    Ok(ExitCode::SUCCESS)
}

/// Makes what is missing.
pub fn prepare(place: &Place, parts: &Parts, progress: &Progress) -> Result<Prepared> {
    prepare_in(
        place,
        parts,
        progress,
        Manner {
            depth: Depth::Quick,
            fresh: false,
        },
    )
}

/// Makes only QEMU and the plug-in.
pub fn prepare_qemu(
    place: &Place,
    qemu: Option<&Path>,
    progress: &Progress,
) -> Result<(Qemu, PathBuf)> {
    host::architecture()?;
    let checkout = Checkout::find()?;
    if let Some(path) = qemu {
        let plugin = cargo::plugin(&checkout, None, progress)?;
        return Ok((Qemu::Own(absolute(path)?), plugin));
    }
    let cache = Cache::open(place.cache.as_deref())?;
    let _in_use = cache.in_use()?;
    let root = root::component(&cache);
    let manner = Manner {
        depth: Depth::Quick,
        fresh: false,
    };
    let mirror = place.mirror.as_deref();
    Workshop {
        cache: &cache,
        mirror,
        progress,
        manner,
    }
    .make_components(&root, None)?;
    let tree = root::tree(&root);
    let plugin = cargo::plugin(&checkout, Some(&tree), progress)?;
    Ok((
        Qemu::Prepared {
            version: fact(&root, "qemu")?,
            root: tree,
        },
        plugin,
    ))
}

fn prepare_in(
    place: &Place,
    parts: &Parts,
    progress: &Progress,
    manner: Manner,
) -> Result<Prepared> {
    host::architecture()?;
    let checkout = Checkout::find()?;
    let cache = Cache::open(place.cache.as_deref())?;
    let in_use = cache.in_use()?;
    let qemu = parts.qemu.as_deref().map(absolute).transpose()?;
    let kdir = parts.kdir.as_deref().map(absolute).transpose()?;

    let root = root::component(&cache);
    let kernel = kernel::component(&cache, &root);
    let tree = root::tree(&root);
    let workshop = Workshop {
        cache: &cache,
        mirror: place.mirror.as_deref(),
        progress,
        manner,
    };
    let (programs, plugin, driver) = thread::scope(|scope| {
        let programs = scope.spawn(|| cargo::programs(&checkout, progress));
        workshop.make_components(&root, kdir.is_none().then_some(&kernel))?;
        let sysroot = qemu.is_none().then_some(tree.as_path());
        let plugin = scope.spawn({
            let checkout = &checkout;
            move || cargo::plugin(checkout, sysroot, progress)
        });
        let target = match &kdir {
            Some(kdir) => driver::Kernel::Own(kdir.clone()),
            None => driver::Kernel::Prepared {
                root: tree.clone(),
                component: kernel.clone(),
                release: fact(&kernel, "release")?,
            },
        };
        let driver = driver::build(&checkout, &target, progress)?;
        anyhow::Ok((join(programs)?, join(plugin)?, driver))
    })?;
    let (image, modules) = match &kdir {
        None => (kernel::image(&kernel), kernel::modules(&kernel)?),
        Some(kdir) => own_kernel(kdir, parts.kernel.as_deref())?,
    };
    Ok(Prepared {
        qemu: match qemu {
            Some(path) => Qemu::Own(path),
            None => Qemu::Prepared {
                version: fact(&root, "qemu")?,
                root: tree.clone(),
            },
        },
        plugin,
        kernel: image,
        modules,
        driver,
        init: programs.init,
        svmctl: programs.svmctl,
        busybox: tree.join("usr/bin/busybox"),
        checkout,
        _in_use: in_use,
    })
}

impl Workshop<'_> {
    /// Makes root and kernel where they are missing or not sound.
    fn make_components(&self, root: &Component, kernel: Option<&Component>) -> Result<()> {
        let Manner { depth, fresh } = self.manner;
        let sound = |component: &Component| component.examine(depth).is_ok();
        if !fresh && sound(root) && kernel.is_none_or(sound) {
            return Ok(());
        }
        host::root()?;
        host::programs()?;
        host::keyring()?;
        let task = self.progress.quick_task("waiting for the cache");
        let _lock = Lock::exclusive(&self.cache.path("locks/prepare"), &task)?;
        task.done();
        // Another process may have made them while this one waited.
        if !fresh && sound(root) && kernel.is_none_or(sound) {
            return Ok(());
        }
        host::space(self.cache.root())?;
        let apt = Apt::open(self.cache, self.mirror, self.progress)?;
        let logs = self.cache.logs();
        thread::scope(|scope| {
            let (root_is_ready, when_root_is_ready) = mpsc::channel();
            let kernel = kernel.map(|kernel| {
                let (apt, tree, log) = (&apt, root::tree(root), logs.join("kernel.log"));
                let make = move |directory: &Path, task: &Task| {
                    let packages = kernel::fetch(apt, directory, task)?;
                    task.at("waiting for the root");
                    when_root_is_ready
                        .recv()
                        .context("the kernel needs the root")?;
                    kernel::make(directory, &packages, &tree, &log, task)
                };
                scope.spawn(move || kernel.ensure(self.progress, depth, fresh, make))
            });
            let log = logs.join("root.log");
            let made = root.ensure(self.progress, depth, fresh, |directory, task| {
                root::make(directory, &apt, &log, task)
            });
            match made {
                // A kernel that is sound already waits for nobody.
                Ok(_) => drop(root_is_ready.send(())),
                Err(error) => {
                    drop(root_is_ready);
                    return Err(error);
                }
            }
            kernel.map(join).transpose()?;
            Ok(())
        })
    }
}

impl Prepared {
    /// What it is, in a line.
    pub fn describe(&self) -> String {
        let qemu = match &self.qemu {
            Qemu::Prepared { version, .. } => format!("QEMU {version}"),
            Qemu::Own(path) => format!("QEMU {}", path.display()),
        };
        format!("{qemu}, kernel {}", self.kernel.display())
    }
}

/// The result of a thread; its panic goes on here.
fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn fact(component: &Component, name: &str) -> Result<String> {
    Ok(component.examine(Depth::Quick)?.fact(name)?.to_owned())
}

/// Image and modules of a kernel of the user's own. Modules that are built in need no file.
fn own_kernel(kdir: &Path, image: Option<&Path>) -> Result<(PathBuf, Vec<(String, PathBuf)>)> {
    let image = match image {
        Some(image) => absolute(image)?,
        None => absolute(&kdir.join("arch/x86/boot/bzImage"))
            .context("the kernel's build directory has no image; give one by --kernel")?,
    };
    let zram = kdir.join("drivers/block/zram/zram.ko");
    let modules = if zram.is_file() {
        vec![("zram".to_owned(), zram)]
    } else {
        Vec::new()
    };
    Ok((image, modules))
}

/// An absolute path of something that exists.
fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}
