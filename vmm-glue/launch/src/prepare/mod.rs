// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the parts of a guest: the [`workshop`] makes the shared [`root`] and [`kernel`] in the
//! cache (or, on request, the [`built`] kernel); this module builds the project's [`driver`],
//! plug-in and programs ([`cargo`]), unless the installation contains them.
//!
//! Independent parts are made at the same time.

pub mod apt;
pub mod built;
mod cargo;
pub mod coming;
mod driver;
mod glibc;
pub mod host;
pub mod initramfs;
pub mod kernel;
mod llvm;
pub mod misfit;
pub mod recipe;
pub mod root;
mod sandbox;
pub mod selftests;
pub mod series;
pub mod workshop;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::cache::lock::Lock;
use crate::cache::manifest::Depth;
use crate::cache::{Cache, Component, digest};
use crate::cli::{
    CacheKeyOptions, KernelChoice, LlvmOptions, Parts, Place, PrepareOptions, SelftestsOptions,
};
use crate::external::External;
use crate::installation::Installation;
use crate::layout;
use crate::progress::Progress;

use cargo::Builds;
use series::Series;
use workshop::{Components, Kernel, Manner, Workshop, join};

/// Everything that a guest needs.
#[derive(Clone, Debug)]
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
    /// The kernel's options that are set, and their values.
    pub kernel_options: BTreeMap<String, String>,
    /// The driver.
    pub driver: PathBuf,
    /// The first process.
    pub init: PathBuf,
    /// The program that uses the device.
    pub svmctl: PathBuf,
    /// The example in C.
    pub sum: PathBuf,
    /// The guest's shell and tools.
    pub busybox: PathBuf,
    /// The installation.
    pub installation: Installation,
    /// Keeps the cache from being removed.
    _in_use: Arc<Lock>,
}

/// The firmware of the guest's machine.
const FIRMWARE: &str = "bios-256k.bin";

/// The QEMU to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Qemu {
    /// The prepared root's QEMU, with the root's own libraries.
    Prepared {
        /// The root file system.
        root: PathBuf,
        /// Its version.
        version: String,
    },
    /// The user's own.
    Own {
        /// The program.
        path: PathBuf,
        /// Its layout file, if the plug-in needs one.
        layout: Option<PathBuf>,
        /// Directories of firmware, if it has none.
        firmware: Vec<PathBuf>,
    },
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

/// `svm-vm cache-key`: a word that identifies the recipes of the parts in the cache.
pub fn cache_key(place: &Place, options: &CacheKeyOptions) -> Result<ExitCode> {
    let choice = options.parts.kernel_choice()?;
    let cache = Cache::open(place.cache.as_deref())?;
    // This does not query the suite: the key depends only on the recipes.
    let series = options
        .parts
        .kernel_series
        .unwrap_or(Series::newest_known());
    let components = Components::of(&cache, &choice, series);
    let names: Vec<_> = components.all().into_iter().map(Component::name).collect();
    let key = &digest(names.join(" ").as_bytes())[..12];
    println!("svm-demo-{key}");
    Ok(ExitCode::SUCCESS)
}

/// `svm-vm selftests`: Linux's own, as programs for a guest that is a host.
pub fn selftests(place: &Place, options: &SelftestsOptions) -> Result<ExitCode> {
    host::architecture()?;
    let progress = Progress::new();
    let cache = Cache::open(place.cache.as_deref())?;
    let workshop = Workshop::new(&cache, place.mirror.as_deref(), &progress, Manner::USUAL);
    let series = workshop.series(options.kernel_series)?;
    let (component, _in_use) = workshop.selftests(series)?;
    let into = &options.output;
    std::fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
    for name in selftests::PROGRAMS {
        let (from, to) = (
            component.path(&format!("{}/{name}", selftests::DIRECTORY)),
            into.join(name),
        );
        std::fs::copy(&from, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    progress.line(&format!(
        "the selftests of Linux {series} are in {}",
        into.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// `svm-vm llvm`: the tools of a version, in a root file system whose path is printed.
pub fn llvm(place: &Place, options: &LlvmOptions) -> Result<ExitCode> {
    host::architecture()?;
    let progress = Progress::new();
    let cache = Cache::open(place.cache.as_deref())?;
    let workshop = Workshop::new(&cache, place.mirror.as_deref(), &progress, Manner::USUAL);
    let (component, _in_use) = workshop.llvm(options.major)?;
    println!("{}", root::tree(&component).display());
    Ok(ExitCode::SUCCESS)
}

/// Makes the missing parts.
pub fn prepare(place: &Place, parts: &Parts, progress: &Progress) -> Result<Prepared> {
    prepare_in(place, parts, progress, Manner::USUAL)
}

/// Makes only QEMU and the plug-in.
pub fn prepare_qemu(
    place: &Place,
    qemu: Option<&Path>,
    progress: &Progress,
) -> Result<(Qemu, PathBuf)> {
    host::architecture()?;
    let installation = Installation::find()?;
    buildable(&installation)?;
    let builds = Builds {
        installation: &installation,
        beside_others: false,
        progress,
    };
    if let Some(path) = qemu {
        let qemu = own_qemu(&Cache::open(place.cache.as_deref())?, path)?;
        let plugin = builds.plugin(None)?;
        return Ok((qemu, plugin));
    }
    let cache = Cache::open(place.cache.as_deref())?;
    let components = Components::qemu(&cache);
    let root = &components.root;
    let workshop = Workshop::new(&cache, place.mirror.as_deref(), progress, Manner::USUAL);
    let _in_use = workshop.make(&components, || {})?;
    let tree = root::tree(root);
    let plugin = builds.plugin(Some(&tree))?;
    Ok((
        Qemu::Prepared {
            version: fact(root, "qemu")?,
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
    let choice = parts.kernel_choice()?;
    let installation = Installation::find()?;
    buildable(&installation)?;
    let cache = Cache::open(place.cache.as_deref())?;
    // Before anything is built, because the path may be wrong.
    let own_qemu = |path| own_qemu(&cache, path);
    let qemu = parts.qemu.as_deref().map(own_qemu).transpose()?;
    let own = match &choice {
        KernelChoice::Own { kdir, image } => Some(own_kernel(kdir, image.as_deref())?),
        KernelChoice::Stock | KernelChoice::Built(_) => None,
    };

    let workshop = Workshop::new(&cache, place.mirror.as_deref(), progress, manner);
    let series = match &choice {
        KernelChoice::Stock | KernelChoice::Built(_) => workshop.series(parts.kernel_series)?,
        KernelChoice::Own { .. } => Series::newest_known(),
    };
    let caution = series.caution();
    if let Some(caution) = &caution {
        progress.line(caution);
    }
    let components = Components::of(&cache, &choice, series);
    let tree = root::tree(&components.root);
    let builds = Builds {
        installation: &installation,
        beside_others: workshop.has_work(&components),
        progress,
    };
    let (in_use, programs, plugin, (parts, driver)) = thread::scope(|scope| {
        let programs = scope.spawn(|| builds.programs());
        let plugin =
            |sysroot: Option<PathBuf>| scope.spawn(move || builds.plugin(sysroot.as_deref()));
        let mut building = None;
        let in_use = workshop.make(&components, || {
            // Linking the plug-in needs only the root.
            building = Some(plugin(qemu.is_none().then(|| tree.clone())));
        });
        let in_use = cautioned(in_use, &caution)?;
        let parts = match own {
            Some(parts) => parts,
            None => prepared_kernel(&components)?,
        };
        let driver = cautioned(
            driver::build(&installation, &parts.target, progress),
            &caution,
        )?;
        let plugin = join(building.context("the root was never ready")?)?;
        anyhow::Ok((in_use, join(programs)?, plugin, (parts, driver)))
    })?;
    Ok(Prepared {
        qemu: match qemu {
            Some(qemu) => with_firmware(qemu, &tree)?,
            None => Qemu::Prepared {
                version: fact(&components.root, "qemu")?,
                root: tree.clone(),
            },
        },
        plugin,
        kernel: parts.image,
        modules: parts.modules,
        kernel_options: options(&parts.configuration.0)?,
        configuration: parts.configuration,
        driver,
        init: programs.init,
        svmctl: programs.svmctl,
        sum: programs.sum,
        busybox: tree.join("usr/bin/busybox"),
        installation,
        _in_use: Arc::new(in_use),
    })
}

/// Adds the caution about the kernel, if any, to an error.
fn cautioned<T>(result: Result<T>, caution: &Option<String>) -> Result<T> {
    match caution {
        Some(caution) => result.with_context(|| caution.clone()),
        None => result,
    }
}

/// Fails if cargo cannot build there: it separates paths by colons, so a path cannot contain one.
/// Spaces are allowed.
fn buildable(installation: &Installation) -> Result<()> {
    if installation.built().is_some() {
        return Ok(());
    }
    let root = installation.sources();
    if root.to_string_lossy().contains(':') {
        bail!(
            "{} has a colon in its path, and cargo cannot build there: move the checkout to a path \
             without",
            root.display()
        );
    }
    Ok(())
}

impl Prepared {
    /// A description in one line.
    pub fn describe(&self) -> String {
        let qemu = match &self.qemu {
            Qemu::Prepared { version, .. } => format!("QEMU {version}"),
            Qemu::Own { path, .. } => format!("QEMU {}", path.display()),
        };
        format!("{qemu}, kernel {}", self.configuration.1)
    }
}

fn fact(component: &Component, name: &str) -> Result<String> {
    Ok(component.examine(Depth::Quick)?.fact(name)?.to_owned())
}

/// The parts of a kernel that a guest uses, and that the driver is built for.
struct KernelParts {
    image: kernel::Image,
    modules: Vec<(String, PathBuf)>,
    configuration: (PathBuf, String),
    target: driver::Kernel,
}

/// The options in the file of a kernel's configuration.
fn options(configuration: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(configuration)
        .with_context(|| format!("cannot read {}", configuration.display()))?;
    Ok(svm_doctor::parse_options(&text))
}

/// The parts of a kernel from the cache.
fn prepared_kernel(components: &Components) -> Result<KernelParts> {
    Ok(match &components.kernel {
        Kernel::None => bail!("no kernel was asked for"),
        Kernel::Stock { kernel, series } => {
            let release = fact(kernel, "release")?;
            KernelParts {
                image: kernel::image(kernel),
                modules: kernel::modules(kernel)?,
                configuration: (kernel::configuration(kernel, &release), release.clone()),
                target: driver::Kernel::Prepared {
                    place: format!("driver-{series}"),
                    root: root::tree(&components.root),
                    component: kernel.clone(),
                    release,
                },
            }
        }
        Kernel::Built {
            flavor,
            workplace,
            kernel,
            series,
        } => {
            let release = fact(kernel, "release")?;
            KernelParts {
                image: built::image(kernel),
                // All modules are built in.
                modules: Vec::new(),
                configuration: (built::configuration(kernel, &release), release.clone()),
                target: driver::Kernel::Prepared {
                    place: format!("driver-{}-{series}", flavor.name()),
                    root: root::tree(workplace),
                    component: kernel.clone(),
                    release,
                },
            }
        }
    })
}

/// The parts of the user's own kernel. Built-in modules need no file.
fn own_kernel(kdir: &Path, image: Option<&Path>) -> Result<KernelParts> {
    let kdir = absolute(kdir)?;
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
    Ok(KernelParts {
        image: kernel::Image {
            packed: image,
            unpacked: None,
        },
        modules,
        configuration: (kdir.join(".config"), release.trim().to_owned()),
        target: driver::Kernel::Own(kdir),
    })
}

/// The user's own QEMU, with its layout file.
fn own_qemu(cache: &Cache, path: &Path) -> Result<Qemu> {
    let path = absolute(&layout::program(path)?)?;
    let layout = layout::for_qemu(cache, &path)?;
    Ok(Qemu::Own {
        path,
        layout,
        firmware: Vec::new(),
    })
}

/// Lets a QEMU without firmware, such as one built from a distribution's source, use that of the
/// prepared root.
fn with_firmware(mut qemu: Qemu, root: &Path) -> Result<Qemu> {
    if let Qemu::Own { path, firmware, .. } = &mut qemu {
        // It prints its search path.
        let said = External::new(path.as_path())
            .args(["-L", "help"])
            .output()?;
        let has = |directory: &str| Path::new(directory).join(FIRMWARE).is_file();
        if !said.lines().any(has) {
            *firmware = root::firmware(root);
        }
    }
    Ok(qemu)
}

/// The absolute path of an existing file.
fn absolute(path: &Path) -> Result<PathBuf> {
    path.canonicalize()
        .with_context(|| format!("cannot find {}", path.display()))
}
