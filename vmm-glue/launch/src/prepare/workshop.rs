// SPDX-License-Identifier: MIT OR Apache-2.0
//! Makes the [`Components`] that a guest uses from the cache, independent ones at the same time,
//! and keeps them from being removed. It does not know the checkout.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context as _, Result, bail};

use super::apt::{self, Apt};
use super::built::Flavor;
use super::root::Purpose;
use super::series::{self, Series};
use super::{built, host, kernel, llvm, recipe, root, selftests};
use crate::cache::lock::Lock;
use crate::cache::manifest::Depth;
use crate::cache::{Cache, Component};
use crate::cli::KernelChoice;
use crate::progress::{Progress, Task};

/// Number of attempts to make components before unsound ones are an error.
const ATTEMPTS: u32 = 3;

/// The components that a guest uses from the cache.
#[derive(Clone, Debug)]
pub struct Components {
    /// The root, with QEMU.
    pub root: Component,
    /// The kernel.
    pub kernel: Kernel,
}

/// The kernel among the components.
#[derive(Clone, Debug)]
pub enum Kernel {
    /// None.
    None,
    /// The distribution's, made with the root.
    Stock {
        /// The kernel.
        kernel: Component,
        /// Its series.
        series: Series,
    },
    /// A kernel that is built.
    Built {
        /// Which one.
        flavor: Flavor,
        /// The root file system that it is built in: the root, or another one.
        workplace: Component,
        /// The kernel.
        kernel: Component,
        /// Its series.
        series: Series,
    },
}

/// How preparing handles existing components.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The depth of their examination.
    pub depth: Depth,
    /// Whether to make them again in any case.
    pub fresh: bool,
}

impl Manner {
    /// What is there and looks sound is used.
    pub const USUAL: Self = Self {
        depth: Depth::Quick,
        fresh: false,
    };
}

/// The shared state while components are made.
#[derive(Debug)]
pub struct Workshop<'a> {
    /// Where they are.
    pub cache: &'a Cache,
    /// The requested mirror.
    pub mirror: Option<&'a str>,
    /// The display of the progress.
    pub progress: &'a Progress,
    /// How to handle existing components.
    pub manner: Manner,
    /// The package index, if it was already read, and the lock that keeps others from preparing
    /// meanwhile.
    index: Mutex<Option<(Apt, Lock)>>,
}

impl Components {
    /// Only QEMU.
    pub fn qemu(cache: &Cache) -> Self {
        Self {
            root: root::component(cache, Purpose::Guests),
            kernel: Kernel::None,
        }
    }

    /// The components of a guest with the chosen kernel, in this series if it is a prepared one.
    pub fn of(cache: &Cache, choice: &KernelChoice, series: Series) -> Self {
        let Self { root, kernel } = Self::qemu(cache);
        let kernel = match choice {
            KernelChoice::Stock => Kernel::Stock {
                kernel: kernel::component(cache, &root, series),
                series,
            },
            KernelChoice::Built(flavor) => {
                let workplace = root::component(cache, flavor.workplace());
                Kernel::Built {
                    flavor: *flavor,
                    kernel: built::component(cache, &workplace, series, *flavor),
                    workplace,
                    series,
                }
            }
            KernelChoice::Own { .. } => kernel,
        };
        Self { root, kernel }
    }

    /// The workplace of a kernel, if it is not the root.
    fn toolchain<'a>(&self, workplace: &'a Component) -> Option<&'a Component> {
        (workplace.name() != self.root.name()).then_some(workplace)
    }

    /// All of them.
    pub fn all(&self) -> Vec<&Component> {
        let mut all = vec![&self.root];
        match &self.kernel {
            Kernel::None => {}
            Kernel::Stock { kernel, .. } => all.push(kernel),
            Kernel::Built {
                workplace, kernel, ..
            } => {
                all.extend(self.toolchain(workplace));
                all.push(kernel);
            }
        }
        all
    }

    /// Examines them all; the error is the first that is not sound.
    fn examine(&self, depth: Depth) -> Result<()> {
        for component in self.all() {
            component
                .examine(depth)
                .with_context(|| format!("{} is not sound", component.name()))?;
        }
        Ok(())
    }

    /// Peak disk space for making them, in MiB.
    fn space(&self, manner: Manner) -> u64 {
        let missing =
            |component: &Component| manner.fresh || component.examine(Depth::Quick).is_err();
        let built = match &self.kernel {
            Kernel::Built {
                workplace, kernel, ..
            } if missing(workplace) || missing(kernel) => recipe::DEBUG_SPACE_MIB,
            _ => 0,
        };
        let stock = match &self.kernel {
            Kernel::Stock { kernel, .. } => missing(kernel),
            _ => false,
        };
        if stock || missing(&self.root) {
            built + recipe::SPACE_MIB
        } else {
            built
        }
    }
}

impl<'a> Workshop<'a> {
    /// A workshop.
    pub fn new(
        cache: &'a Cache,
        mirror: Option<&'a str>,
        progress: &'a Progress,
        manner: Manner,
    ) -> Self {
        Self {
            cache,
            mirror,
            progress,
            manner,
            index: Mutex::new(None),
        }
    }

    /// Whether [`Self::make`] would make some of the components, or would wait for others that do.
    pub fn has_work(&self, components: &Components) -> bool {
        self.manner.fresh || components.examine(Depth::Quick).is_err()
    }

    /// Makes components that are missing or not sound, and marks the cache as in use. Calls
    /// `when_root_is_ready` as soon as the root is ready.
    pub fn make(&self, components: &Components, when_root_is_ready: impl FnOnce()) -> Result<Lock> {
        let mut when_root_is_ready = Some(when_root_is_ready);
        let mut manner = self.manner;
        let mut index = self.index().take();
        // Between making and marking another process may replace them; this is rare, and does not
        // repeat.
        for _ in 0..ATTEMPTS {
            let in_use = self.cache.in_use()?;
            if !manner.fresh && components.examine(manner.depth).is_ok() {
                if let Some(call) = when_root_is_ready.take() {
                    call();
                }
                return Ok(in_use);
            }
            // Release the lock, so that the process that makes them can replace them, and examine
            // them again.
            drop(in_use);
            self.make_missing(components, manner, index.take(), &mut when_root_is_ready)?;
            manner.fresh = false;
        }
        components.examine(manner.depth)?;
        bail!(
            "what is prepared in {} changes again and again",
            self.cache.root().display()
        )
    }

    /// The series of the prepared kernel: the requested one, or the choice of [`series::choose`]
    /// from the package index, which is read once, and again only to rebuild components.
    pub fn series(&self, asked: Option<Series>) -> Result<Series> {
        if let Some(asked) = asked {
            series::check(asked)?;
            return Ok(asked);
        }
        let component = series::component(self.cache);
        let Manner { depth, fresh } = self.manner;
        let manifest = match component.examine(depth) {
            Ok(manifest) if !fresh => manifest,
            sound => {
                let alone = self.alone().map_err(|error| match sound {
                    // A user who is not root may have been meant to use what is there.
                    Err(why) if !fresh => error.context(format!("{why:#}")),
                    _ => error,
                })?;
                component.ensure(self.progress, depth, fresh, |_, _| {
                    let apt = Apt::open(self.cache, &apt::CURRENT, self.mirror, self.progress)?;
                    let made = series::make(&apt.kernel_series()?);
                    *self.index() = Some((apt, alone));
                    made
                })?
            }
        };
        series::of(&manifest)
    }

    fn index(&self) -> MutexGuard<'_, Option<(Apt, Lock)>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> Result<Lock> {
        alone(self.cache, self.progress)
    }

    fn make_missing(
        &self,
        components: &Components,
        manner: Manner,
        index: Option<(Apt, Lock)>,
        when_root_is_ready: &mut Option<impl FnOnce()>,
    ) -> Result<()> {
        let (apt, _alone) = match index {
            Some((apt, alone)) => (Some(apt), alone),
            None => {
                let alone = self.alone().map_err(|error| {
                    // A user who is not root may have been meant to use what is there.
                    match components.examine(manner.depth) {
                        Err(why) if !manner.fresh => error.context(format!("{why:#}")),
                        _ => error,
                    }
                })?;
                (None, alone)
            }
        };
        // Another process may have made them while this one waited.
        if !manner.fresh && components.examine(manner.depth).is_ok() {
            return Ok(());
        }
        self.cache.remove_partial()?;
        host::space(self.cache.root(), components.space(manner))?;
        let apt = match apt {
            Some(apt) => apt,
            None => Apt::open(self.cache, &apt::CURRENT, self.mirror, self.progress)?,
        };
        thread::scope(|scope| {
            // Signals that its workplace is ready.
            let (base_is_ready, base) = mpsc::channel();
            let mut root_is_base = None;
            let mut toolchain_thread = None;
            let kernel_thread = match &components.kernel {
                Kernel::None => None,
                Kernel::Stock { kernel, series } => {
                    root_is_base = Some(base_is_ready);
                    let make = self.stock_maker(&apt, *series, &components.root, base);
                    Some(scope.spawn(move || self.ensure(kernel, manner, make)))
                }
                Kernel::Built {
                    flavor,
                    workplace,
                    kernel,
                    series,
                } => {
                    if let Some(toolchain) = components.toolchain(workplace) {
                        let make = self.root_maker(&apt, flavor.workplace());
                        toolchain_thread = Some(scope.spawn(move || {
                            self.ensure(toolchain, manner, make)?;
                            // Nothing may wait for a kernel that is already sound.
                            let _ = base_is_ready.send(());
                            Ok(())
                        }));
                    } else {
                        root_is_base = Some(base_is_ready);
                    }
                    let make = self.built_maker(&apt, *flavor, *series, workplace, base);
                    Some(scope.spawn(move || self.ensure(kernel, manner, make)))
                }
            };
            self.ensure(
                &components.root,
                manner,
                self.root_maker(&apt, Purpose::Guests),
            )?;
            if let Some(ready) = root_is_base {
                let _ = ready.send(());
            }
            if let Some(call) = when_root_is_ready.take() {
                call();
            }
            // Its failure explains the kernel's.
            toolchain_thread.map(join).transpose()?;
            kernel_thread.map(join).transpose()?;
            Ok(())
        })
    }

    fn ensure(
        &self,
        component: &Component,
        manner: Manner,
        make: impl FnOnce(&Path, &Task) -> Result<crate::cache::Made>,
    ) -> Result<()> {
        component
            .ensure(self.progress, manner.depth, manner.fresh, make)
            .map(drop)
    }

    /// Makes a root file system.
    fn root_maker(
        &self,
        apt: &Apt,
        purpose: Purpose,
    ) -> impl FnOnce(&Path, &Task) -> Result<crate::cache::Made> {
        let log = self.log(match purpose {
            Purpose::Guests => "root",
            Purpose::Kernels => "toolchain",
        });
        move |directory, task| root::make(directory, purpose, apt, &log?, task)
    }

    /// Makes the distribution's kernel. It fetches its packages before the root is ready.
    fn stock_maker(
        &self,
        apt: &Apt,
        series: Series,
        root: &Component,
        root_is_ready: mpsc::Receiver<()>,
    ) -> impl FnOnce(&Path, &Task) -> Result<crate::cache::Made> {
        let (tree, log) = (root::tree(root), self.log("kernel"));
        move |directory, task| {
            let log = log?;
            let packages = kernel::fetch(apt, series, directory, &log, task)?;
            task.at("waiting for the root");
            root_is_ready.recv().context("the kernel needs the root")?;
            kernel::make(directory, &packages, &tree, &log, task)
        }
    }

    /// Makes a kernel that is built, likewise.
    fn built_maker(
        &self,
        apt: &Apt,
        flavor: Flavor,
        series: Series,
        workplace: &Component,
        workplace_is_ready: mpsc::Receiver<()>,
    ) -> impl FnOnce(&Path, &Task) -> Result<crate::cache::Made> {
        let (tree, log) = (root::tree(workplace), self.log(flavor.component_name()));
        move |directory, task| {
            let log = log?;
            let packages = built::fetch(apt, series, directory, &log, task)?;
            task.at("waiting for the compilers");
            workplace_is_ready
                .recv()
                .with_context(|| format!("the {} kernel needs its compilers", flavor.name()))?;
            built::make(directory, flavor, &packages, &tree, &log, task)
        }
    }

    /// Makes Linux's selftests of a series, and marks the cache as in use.
    pub fn selftests(&self, series: Series) -> Result<(Component, Lock)> {
        let root = root::component(self.cache, Purpose::Guests);
        let component = selftests::component(self.cache, &root, series);
        let lock = self.single(&component, |apt| {
            let make = self.root_maker(apt, Purpose::Guests);
            self.ensure(&root, self.manner, make)?;
            let log = self.log("selftests")?;
            self.ensure(&component, self.manner, |directory, task| {
                let kernel = selftests::fetch(apt, series, directory, task)?;
                selftests::make(directory, &kernel, &root::tree(&root), &log, task)
            })
        })?;
        Ok((component, lock))
    }

    /// Makes LLVM's tools of a version, and marks the cache as in use.
    pub fn llvm(&self, major: u32) -> Result<(Component, Lock)> {
        let component = llvm::component(self.cache, major);
        let lock = self.single(&component, |apt| {
            let log = self.log("llvm")?;
            self.ensure(&component, self.manner, |directory, task| {
                llvm::make(directory, major, apt, &log, task)
            })
        })?;
        Ok((component, lock))
    }

    /// Makes a component that no guest needs by `make`, if it is missing or not sound, and marks the
    /// cache as in use.
    fn single(&self, component: &Component, make: impl Fn(&Apt) -> Result<()>) -> Result<Lock> {
        for _ in 0..ATTEMPTS {
            let in_use = self.cache.in_use()?;
            if component.examine(self.manner.depth).is_ok() {
                return Ok(in_use);
            }
            drop(in_use);
            let _alone = self.alone()?;
            host::space(self.cache.root(), recipe::SPACE_MIB)?;
            make(&Apt::open(
                self.cache,
                &apt::CURRENT,
                self.mirror,
                self.progress,
            )?)?;
        }
        bail!(
            "what is prepared in {} changes again and again",
            self.cache.root().display()
        )
    }

    fn log(&self, name: &str) -> Result<std::path::PathBuf> {
        Ok(self.cache.logs()?.join(format!("{name}.log")))
    }
}

/// Keeps all others from preparing. Fails if this host or user cannot prepare.
pub fn alone(cache: &Cache, progress: &Progress) -> Result<Lock> {
    host::root()?;
    host::programs()?;
    host::keyring()?;
    let task = progress.quick_task("waiting for the cache");
    let lock = Lock::exclusive(&cache.path("locks/prepare"), &task)?;
    task.done();
    Ok(lock)
}

/// The result of a thread; propagates its panic.
pub fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Made;

    #[test]
    fn there_is_work_until_all_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let series = Series::newest_known();
        let components = Components::of(&cache, &KernelChoice::Stock, series);
        let progress = Progress::new();
        let has_work = |fresh| {
            let depth = Depth::Quick;
            let manner = Manner { depth, fresh };
            Workshop::new(&cache, None, &progress, manner).has_work(&components)
        };
        for component in components.all() {
            assert!(has_work(false), "without {}", component.name());
            let made = |directory: &Path, _: &Task| {
                std::fs::write(directory.join("f"), "")?;
                Ok(Made {
                    key_files: vec!["f".to_owned()],
                    facts: Vec::new(),
                })
            };
            component
                .ensure(&progress, Depth::Quick, false, made)
                .unwrap();
        }
        assert!(!has_work(false));
        assert!(has_work(true), "all is made again");
    }

    #[test]
    fn only_the_debug_kernel_takes_the_toolchain() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(directory.path())).unwrap();
        let names = |choice| {
            let components = Components::of(&cache, &choice, Series::newest_known());
            let names = components.all().into_iter().map(Component::name);
            names
                .map(|name| name.rsplit_once('-').unwrap().0.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(KernelChoice::Stock), ["root", "kernel"]);
        assert_eq!(
            names(KernelChoice::Built(Flavor::Debug)),
            ["root", "toolchain", "debug-kernel"]
        );
        assert_eq!(
            names(KernelChoice::Built(Flavor::Host)),
            ["root", "host-kernel"]
        );
        let own = KernelChoice::Own {
            kdir: "/k".into(),
            image: None,
        };
        assert_eq!(names(own), ["root"]);
    }
}
