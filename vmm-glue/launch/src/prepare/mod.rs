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

use anyhow::{Context as _, Result, bail};

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
    pub kernel: kernel::Image,
    /// Modules of the kernel, names and files, in the order of loading.
    pub modules: Vec<(String, PathBuf)>,
    /// The kernel's configuration, and its release.
    pub configuration: (PathBuf, String),
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

/// How often components are made before it is an error that they are not sound.
const ATTEMPTS: u32 = 3;

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
    let root = root::component(&cache);
    let workshop = Workshop {
        cache: &cache,
        mirror: place.mirror.as_deref(),
        progress,
        manner: Manner {
            depth: Depth::Quick,
            fresh: false,
        },
    };
    let _in_use = workshop.make_components(&root, None, || {})?;
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
    let (in_use, programs, plugin, driver) = thread::scope(|scope| {
        let programs = scope.spawn(|| cargo::programs(&checkout, progress));
        let plugin = |sysroot: Option<PathBuf>| {
            let checkout = &checkout;
            scope.spawn(move || cargo::plugin(checkout, sysroot.as_deref(), progress))
        };
        let mut building = None;
        let needed = kdir.is_none().then_some(&kernel);
        let in_use = workshop.make_components(&root, needed, || {
            // Linking it needs the root, and nothing else.
            building = Some(plugin(qemu.is_none().then(|| tree.clone())));
        })?;
        let target = match &kdir {
            Some(kdir) => driver::Kernel::Own(kdir.clone()),
            None => driver::Kernel::Prepared {
                root: tree.clone(),
                component: kernel.clone(),
                release: fact(&kernel, "release")?,
            },
        };
        let driver = driver::build(&checkout, &target, progress)?;
        let plugin = join(building.context("the root was never ready")?)?;
        anyhow::Ok((in_use, join(programs)?, plugin, driver))
    })?;
    let (image, modules, configuration) = match &kdir {
        None => {
            let release = fact(&kernel, "release")?;
            let configuration = (kernel::configuration(&kernel, &release), release);
            (
                kernel::image(&kernel),
                kernel::modules(&kernel)?,
                configuration,
            )
        }
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
        configuration,
        driver,
        init: programs.init,
        svmctl: programs.svmctl,
        busybox: tree.join("usr/bin/busybox"),
        checkout,
        _in_use: in_use,
    })
}

impl Workshop<'_> {
    /// Makes root and kernel where they are missing or not sound, and marks the cache as in use.
    /// Calls `when_root_is_ready` as soon as it is.
    fn make_components(
        &self,
        root: &Component,
        kernel: Option<&Component>,
        when_root_is_ready: impl FnOnce(),
    ) -> Result<Lock> {
        let mut when_root_is_ready = Some(when_root_is_ready);
        let mut fresh = self.manner.fresh;
        // Between making and marking another process may replace them: rarely once, never often.
        for _ in 0..ATTEMPTS {
            let in_use = self.cache.in_use()?;
            let sound = |component: &Component| component.examine(self.manner.depth).is_ok();
            if !fresh && sound(root) && kernel.is_none_or(sound) {
                if let Some(call) = when_root_is_ready.take() {
                    call();
                }
                return Ok(in_use);
            }
            // Whoever makes them must be able to replace them; then they are examined again.
            drop(in_use);
            self.make_missing(root, kernel, fresh, &mut when_root_is_ready)?;
            fresh = false;
        }
        root.examine(self.manner.depth)?;
        kernel
            .map(|kernel| kernel.examine(self.manner.depth))
            .transpose()?;
        bail!(
            "what is prepared in {} changes again and again",
            self.cache.root().display()
        )
    }

    fn make_missing(
        &self,
        root: &Component,
        kernel: Option<&Component>,
        fresh: bool,
        when_root_is_ready: &mut Option<impl FnOnce()>,
    ) -> Result<()> {
        host::root()?;
        host::programs()?;
        host::keyring()?;
        let depth = self.manner.depth;
        let task = self.progress.quick_task("waiting for the cache");
        let _lock = Lock::exclusive(&self.cache.path("locks/prepare"), &task)?;
        task.done();
        // Another process may have made them while this one waited.
        let sound = |component: &Component| component.examine(depth).is_ok();
        if !fresh && sound(root) && kernel.is_none_or(sound) {
            return Ok(());
        }
        host::space(self.cache.root())?;
        let apt = Apt::open(self.cache, self.mirror, self.progress)?;
        let logs = self.cache.logs();
        thread::scope(|scope| {
            let (root_is_ready, awaited_root) = mpsc::channel();
            let kernel = kernel.map(|kernel| {
                let (apt, tree, log) = (&apt, root::tree(root), logs.join("kernel.log"));
                let make = move |directory: &Path, task: &Task| {
                    let packages = kernel::fetch(apt, directory, task)?;
                    task.at("waiting for the root");
                    awaited_root.recv().context("the kernel needs the root")?;
                    kernel::make(directory, &packages, &tree, &log, task)
                };
                scope.spawn(move || kernel.ensure(self.progress, depth, fresh, make))
            });
            let log = logs.join("root.log");
            root.ensure(self.progress, depth, fresh, |directory, task| {
                root::make(directory, &apt, &log, task)
            })?;
            // A kernel that is sound already waits for nobody.
            let _ = root_is_ready.send(());
            if let Some(call) = when_root_is_ready.take() {
                call();
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
        format!("{qemu}, kernel {}", self.configuration.1)
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

/// Image, modules, and configuration with release.
type KernelParts = (kernel::Image, Vec<(String, PathBuf)>, (PathBuf, String));

/// The parts of a kernel of the user's own. Modules that are built in need no file.
fn own_kernel(kdir: &Path, image: Option<&Path>) -> Result<KernelParts> {
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
    let path = kdir.join("include/config/kernel.release");
    let release = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let image = kernel::Image {
        packed: image,
        unpacked: None,
    };
    Ok((
        image,
        modules,
        (kdir.join(".config"), release.trim().to_owned()),
    ))
}

/// An absolute path of something that exists.
fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}
