// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that runs out of memory in the middle of a call: the call fails with a matching error,
//! the next one succeeds, and nothing is leaked.
//!
//! Each case fails the first place of a call where the kernel can fail, then the second, and so on
//! until the call has no more such places.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use svm_init::kernel::BOUND;
use svmctl::abi::ioctl::{DOORBELL_SIZE, Eventfd, Moderation, Queue};
use svmctl::region::{PAGE, Region};

use super::leaks::Before;
use super::raw::RawFile;
use crate::harness::bench::{Bench, expect_bytes, pattern};
use crate::harness::{Case, Verdict, remark, skipped};
use crate::system::child::{Child, Line};
use crate::system::injection::{Injection, Trigger, fail_by_chance};

/// See the module.
pub const CASES: &[Case] = &[
    Case::new("open fails at each place in turn", opens).provoking(PROVOKED),
    Case::new("close succeeds whatever fails in it", closes).provoking(PROVOKED),
    Case::new("ioctls, mmap and poll fail at each place in turn", calls).provoking(PROVOKED),
    Case::new(
        "the driver takes the function, or fails to, at each place in turn",
        driver_binds,
    )
    .provoking(DRIVER_PROVOKED),
    Case::new("processes whose memory fails by chance", by_chance)
        .provoking(PROVOKED)
        .killing(),
];

/// A failed page fault is retried and logged.
const PROVOKED: &[&str] = &["*VM_FAULT_OOM leaked out"];
/// Messages about a driver whose probe fails, from the driver itself and from the code that it
/// calls.
const DRIVER_PROVOKED: &[&str] = &[
    "*VM_FAULT_OOM leaked out",
    "*probe with driver svm_demo failed",
    "*no MSI-X vector can be had",
    "*vectors instead of",
    "*can't reserve [mem",
    "*kobject_add_internal failed",
    "*kobject: can not set name properly!",
    "*debugfs: out of free dentries",
    "*Failed to add kobject for irq",
    "*kmemleak: Cannot allocate",
    BOUND[0],
    BOUND[1],
];

/// Why a case cannot run.
const NO_INJECTION: &str = "this kernel injects no failures, or not of every kind (CONFIG_FAILSLAB, \
     CONFIG_FAIL_PAGE_ALLOC, CONFIG_FAULT_INJECTION_USERCOPY); the debug kernel does: make test-debug";

/// Why the driver's own calls cannot be distinguished from others.
const NO_FILTER: &str =
    "this kernel does not look at the caller (CONFIG_FAULT_INJECTION_STACKTRACE_FILTER)";

/// The function with which Linux creates the files of an interrupt below /proc. It does not check
/// for errors (`kernel/irq/proc.c`), and the kernel warns when the interrupt is freed and a file is
/// missing (`remove_proc_entry()`). So its allocations do not fail here: the warning would be
/// Linux's own, and ignoring it could hide others.
const IRQ_PROC: &str = "register_irq_proc";

/// Upper bound for the number of places of a call.
const PLACES: u32 = 20_000;
/// After this many consecutive places that were not reached, the call has no more. The number of
/// places differs from call to call.
const BEHIND: u32 = 4;
/// The first places of a long call, each of which is tried; of the others only some are.
const EACH: u32 = 64;
/// Beyond those, each step skips one place for every `SPREAD` places beyond them.
const SPREAD: u32 = 12;

/// The first places of a bind, each of which is tried, at the standard scale. A bind takes a second
/// or two if the kernel checks itself and the function has many vectors, each with the same places.
const EACH_OF_BIND: u32 = 160;
/// Beyond those, each step skips one place for every `SPREAD_OF_BIND` places beyond them.
const SPREAD_OF_BIND: u32 = 4;

/// The errors that a failure may cause. Copies from and to the process fail as with a bad address.
const OUT_OF_MEMORY: &[Errno] = &[Errno::ENOMEM, Errno::EFAULT];
/// A failed allocation of a PASID looks as if no PASID were left (Linux,
/// `iommu_alloc_global_pasid()`).
const CANNOT_BIND: &[Errno] = &[Errno::ENOMEM, Errno::EFAULT, Errno::ENOSPC];

/// Outcomes of a call with injected failures.
#[derive(Debug, Default)]
struct Outcomes {
    /// Number of injected failures.
    injected: u32,
    /// Calls that succeeded despite a failure.
    survived: u32,
    /// Errors of the other calls.
    errors: BTreeMap<String, u32>,
}

impl Outcomes {
    /// Tries places until the call has no more. `attempt` makes a call with a failure at one place,
    /// and returns the result and whether the call reached the place; `allowed` are the permitted
    /// errors.
    fn collect(
        what: &str,
        allowed: &[Errno],
        mut attempt: impl FnMut(u32) -> anyhow::Result<(Result<(), Errno>, bool)>,
    ) -> anyhow::Result<Outcomes> {
        let mut outcomes = Outcomes::default();
        let (mut place, mut behind) = (1, 0);
        while behind < BEHIND {
            ensure!(
                place < PLACES,
                "{what} does not come to its end: {outcomes}"
            );
            let (result, injected) =
                attempt(place).with_context(|| format!("{what}, place {place}"))?;
            if injected {
                outcomes.injected += 1;
                behind = 0;
            } else {
                behind += 1;
            }
            match result {
                Ok(()) if injected => outcomes.survived += 1,
                Ok(()) => {}
                Err(error) if injected && allowed.contains(&error) => {
                    *outcomes.errors.entry(format!("{error:?}")).or_default() += 1;
                }
                Err(error) => bail!(
                    "{what} gave {error:?}, with a failure at place {place} {}; {allowed:?} may \
                     come of one",
                    if injected { "injected" } else { "not reached" }
                ),
            }
            place += 1 + place.saturating_sub(EACH) / SPREAD;
        }
        ensure!(
            !outcomes.errors.is_empty(),
            "{what} has {} places where the kernel can fail, and never did: {outcomes}",
            outcomes.injected
        );
        Ok(outcomes)
    }
}

impl std::fmt::Display for Outcomes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failures:", self.injected)?;
        for (error, count) in &self.errors {
            write!(f, " {count} {error},")?;
        }
        write!(f, " {} survived", self.survived)
    }
}

/// Opens the device, and does nothing else that could fail.
fn open(device: &Path) -> Result<OwnedFd, Errno> {
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true);
    options
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(device)
        .map(OwnedFd::from)
        .map_err(|error| errno(&error))
}

fn opens(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let Some(_injection) = Injection::begin()? else {
        return skipped(NO_INJECTION);
    };
    let before = Before::take(bench)?;
    let device = bench.device().to_owned();
    // Each in a separate process, because the first bond of a process takes more work than the
    // others.
    let first = Outcomes::collect("the first open of a process", CANNOT_BIND, |place| {
        let mut child = Child::fork(|line: &mut Line| {
            let trigger = Trigger::open()?;
            let (result, injected) = trigger.fire(place, || open(&device))?;
            let error = result.as_ref().err().map(|&error| error as i32);
            if result.is_err() {
                // After a failure the process still works.
                drop(open(&device).context("the next open")?);
            }
            line.tell(&(error, injected))
        })?;
        let (error, injected) = child.line().receive::<(Option<i32>, bool)>()?;
        child.finish()?;
        Ok((
            error.map_or(Ok(()), |raw| Err(Errno::from_raw(raw))),
            injected,
        ))
    })?;
    let trigger = Trigger::open()?;
    let further = Outcomes::collect("a further open", CANNOT_BIND, |place| {
        let (result, injected) = trigger.fire(place, || open(&device))?;
        Ok((result.map(drop), injected))
    })?;
    bench.queue().nop()?;
    let left = before.check(bench, (first.injected + further.injected).into())?;
    remark(format!("first: {first}; further: {further}; {left}"))
}

fn closes(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let Some(_injection) = Injection::begin()? else {
        return skipped(NO_INJECTION);
    };
    let before = Before::take(bench)?;
    let device = bench.device().to_owned();
    // Without this, a trigger without effect would look like a close that cannot fail.
    let (result, injected) = Trigger::open()?.fire(1, || open(&device))?;
    ensure!(
        injected,
        "no failure was injected at the first place of an open, which gave {result:?}"
    );
    drop(result);
    let further = close_at_each("a close", |place| close_at(place, &device))?;
    // When a process closes its last file, its bond ends.
    let last = close_at_each("the last close of a process", |place| {
        let mut child = Child::fork(|line: &mut Line| line.tell(&close_at(place, &device)?))?;
        let reached = child.line().receive()?;
        child.finish()?;
        Ok(reached)
    })?;
    bench.queue().nop()?;
    let left = before.check(bench, (further + last + 2 * BEHIND).into())?;
    let told = |count| match count {
        0 => "it asks for no memory and reads none of the program's, so nothing in it can fail"
            .to_owned(),
        count => format!("{count} failures, all survived"),
    };
    let (further, last) = (told(further), told(last));
    remark(format!(
        "with other files open: {further}; the last of a process: {last}; {left}"
    ))
}

/// Tries a failure at each place in turn by `close`, which returns whether it reached the place.
/// Returns the number of places.
fn close_at_each(
    what: &str,
    mut close: impl FnMut(u32) -> anyhow::Result<bool>,
) -> anyhow::Result<u32> {
    let (mut place, mut behind, mut injected) = (1, 0, 0);
    while behind < BEHIND {
        ensure!(place < PLACES, "{what} does not come to its end");
        let reached = close(place).with_context(|| format!("{what}, place {place}"))?;
        behind = if reached { 0 } else { behind + 1 };
        injected += u32::from(reached);
        place += 1;
    }
    Ok(injected)
}

/// Opens the device, starts a queue with an eventfd, and closes the file with a failure at a place.
/// Returns whether the close reached the place.
fn close_at(place: u32, device: &Path) -> anyhow::Result<bool> {
    let trigger = Trigger::open()?;
    let memory = Region::new(PAGE)?;
    let file = RawFile::open(device)?;
    file.queue_setup(&ring(&memory))?;
    let eventfd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    file.eventfd(&Eventfd {
        fd: eventfd.as_fd().as_raw_fd(),
        ..Eventfd::default()
    })?;
    let fd = OwnedFd::from(file).into_raw_fd();
    let (result, reached) = trigger.fire(place, || nix::unistd::close(fd))?;
    result?;
    Ok(reached)
}

/// A ring of one page.
fn ring(memory: &Region) -> Queue {
    Queue {
        ring: memory.address(0),
        ring_log2: 4,
        ..Queue::default()
    }
}

/// Makes a call with a failure at each place, and then once without a failure, to check that the
/// file still works. `undo` receives the result of a successful call, and must not fail.
fn each<T>(
    trigger: &Trigger,
    what: &str,
    call: impl Fn() -> Result<T, Errno>,
    undo: impl Fn(T) -> Result<(), Errno>,
) -> anyhow::Result<String> {
    let undone = || format!("{what} cannot be undone");
    let outcomes = Outcomes::collect(what, OUT_OF_MEMORY, |place| {
        let (result, injected) = trigger.fire(place, &call)?;
        let result = match result {
            Ok(value) => Ok(undo(value).with_context(undone)?),
            Err(error) => Err(error),
        };
        Ok((result, injected))
    })?;
    let value = call().with_context(|| format!("{what} without a failure"))?;
    undo(value).with_context(undone)?;
    Ok(format!("{what}: {outcomes}"))
}

/// Maps the doorbell page.
fn map(file: &RawFile) -> Result<MmapRaw, Errno> {
    let mut options = MmapOptions::new();
    let page = options.len(DOORBELL_SIZE).map_raw(file.as_fd().as_raw_fd());
    page.map_err(|error| errno(&error))
}

fn errno(error: &io::Error) -> Errno {
    error
        .raw_os_error()
        .map_or(Errno::UnknownErrno, Errno::from_raw)
}

fn calls(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let Some(_injection) = Injection::begin()? else {
        return skipped(NO_INJECTION);
    };
    let before = Before::take(bench)?;
    let trigger = Trigger::open()?;
    let file = RawFile::open(bench.device())?;
    let memory = Region::new(PAGE)?;
    let queue = ring(&memory);
    let eventfd = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    let [attach, detach] = [eventfd.as_fd().as_raw_fd(), -1].map(|fd| Eventfd {
        fd,
        ..Eventfd::default()
    });
    let gathered = Moderation {
        count: 8,
        microseconds: 100,
        ..Moderation::default()
    };
    let mut remarks = vec![
        each(&trigger, "INFO", || file.info(), |_| Ok(()))?,
        each(
            &trigger,
            "QUEUE_SETUP",
            || file.queue_setup(&queue),
            |()| file.queue_stop(),
        )?,
        each(
            &trigger,
            "EVENTFD",
            || file.eventfd(&attach),
            |()| file.eventfd(&detach),
        )?,
        each(
            &trigger,
            "MODERATION",
            || file.moderation(&gathered),
            |()| file.moderation(&Moderation::default()),
        )?,
        each(
            &trigger,
            "mmap",
            || map(&file),
            |page| {
                drop(page);
                Ok(())
            },
        )?,
        each(
            &trigger,
            "poll",
            || {
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, PollTimeout::ZERO)
            },
            |_| Ok(()),
        )?,
    ];
    drop(file);
    bench.queue().nop()?;
    remarks.push(before.check(bench, 1)?);
    remark(remarks.join("; "))
}

/// The function of a device file, and the directory of its driver.
struct Function {
    address: String,
    driver: PathBuf,
}

impl Function {
    fn of(device: &Path) -> anyhow::Result<Function> {
        let name = device.file_name().context("no name of a device")?;
        let link = Path::new("/sys/class/svm_demo").join(name).join("device");
        let function = fs::canonicalize(&link).with_context(|| link.display().to_string())?;
        let address = function.file_name().context("no address of a function")?;
        Ok(Function {
            address: address.to_string_lossy().into_owned(),
            driver: fs::canonicalize(function.join("driver"))?,
        })
    }

    /// Name of the driver's module.
    fn module(&self) -> anyhow::Result<String> {
        let link = self.driver.join("module");
        let module = fs::canonicalize(&link).with_context(|| link.display().to_string())?;
        let name = module.file_name().context("no name of a module")?;
        Ok(name.to_string_lossy().into_owned())
    }

    fn is_bound(&self) -> bool {
        self.driver.join(&self.address).exists()
    }

    /// A sysfs file that controls the driver's binding to a function.
    fn order(&self, name: &str) -> anyhow::Result<File> {
        let path = self.driver.join(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).open(&path);
        file.with_context(|| path.display().to_string())
    }

    fn write(&self, order: &File) -> Result<(), Errno> {
        nix::unistd::write(order, self.address.as_bytes()).map(drop)
    }
}

fn driver_binds(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let Some(mut injection) = Injection::begin()? else {
        return skipped(NO_INJECTION);
    };
    let before = Before::take(bench)?;
    let device = bench.device().to_owned();
    let function = Function::of(&device)?;
    // The driver core's work before and after it calls the driver is not part of the driver.
    if !injection.only_within(&function.module()?, IRQ_PROC)? {
        return skipped(NO_FILTER);
    }
    let (bind, unbind) = (function.order("bind")?, function.order("unbind")?);
    bench.close();
    function.write(&unbind)?;
    let trigger = Trigger::open()?;
    let mut errors: BTreeMap<String, u32> = BTreeMap::new();
    let each = bench.rounds(EACH_OF_BIND);
    let (mut place, mut tried, mut behind, mut survived) = (1, 0, 0, 0);
    while behind < BEHIND {
        ensure!(place < PLACES, "bind does not come to its end: {errors:?}");
        let (result, injected) = trigger.fire(place, || function.write(&bind))?;
        behind = if injected { 0 } else { behind + 1 };
        match result {
            Ok(()) => {
                ensure!(
                    function.is_bound(),
                    "place {place}: bind succeeded, and the function has no driver"
                );
                let file = RawFile::open(&device);
                let file = file.with_context(|| format!("place {place}: bind succeeded"))?;
                file.info()?;
                drop(file);
                function.write(&unbind)?;
                survived += u32::from(injected);
            }
            Err(error) => {
                ensure!(
                    injected,
                    "bind gave {error:?}, and no failure was injected at place {place}"
                );
                ensure!(
                    !function.is_bound(),
                    "place {place}: bind gave {error:?}, and the function has its driver"
                );
                *errors.entry(format!("{error:?}")).or_default() += 1;
            }
        }
        tried += 1;
        place += 1 + place.saturating_sub(each) / SPREAD_OF_BIND;
    }
    ensure!(
        !errors.is_empty(),
        "a bind has about {place} places where the kernel can fail, and never did: {survived} \
         survived"
    );
    function.write(&bind).context("bind without a failure")?;
    bench.renew()?;
    bench.queue().nop()?;
    let left = before.check(bench, place.into())?;
    remark(format!(
        "{errors:?}, {survived} survived, {tried} of about {place} places tried; {left}"
    ))
}

/// Processes that work while their memory fails.
const PROCESSES: u32 = 8;
/// Number of tries of each process.
const TRIES: u32 = 40;
/// Percentage of the allocations that fail.
const PERCENT: u32 = 3;

fn by_chance(bench: &mut Bench) -> anyhow::Result<Verdict> {
    let Some(mut injection) = Injection::begin()? else {
        return skipped(NO_INJECTION);
    };
    injection.by_chance(PERCENT)?;
    let before = Before::take(bench)?;
    let (mut succeeded, mut failed, mut aborted) = (0, 0, 0);
    let processes = bench.rounds(PROCESSES);
    for _ in 0..processes {
        let mut child = Child::fork(|line: &mut Line| {
            let (good, bad) = work(bench)?;
            line.tell(&(good, bad))
        })?;
        let told = child.line().receive::<(u32, u32)>();
        match (child.wait()?, told) {
            (WaitStatus::Exited(_, 0), Ok((good, bad))) => {
                succeeded += good;
                failed += bad;
            }
            // A program that cannot allocate memory for itself aborts.
            (WaitStatus::Signaled(_, Signal::SIGABRT, _), _) => aborted += 1,
            (status, told) => bail!("a process ended by {status:?}, and had told {told:?}"),
        }
    }
    ensure!(
        aborted == processes || succeeded > 0 && failed > 0,
        "{succeeded} tries succeeded and {failed} failed: both were expected"
    );
    bench.queue().nop()?;
    let left = before.check(bench, processes.into())?;
    remark(format!(
        "{succeeded} tries succeeded, {failed} failed, {aborted} processes gave up; {left}"
    ))
}

/// Opens, copies and closes. Failures must be reported as errors; results of successful calls must
/// be correct.
fn work(bench: &Bench) -> anyhow::Result<(u32, u32)> {
    let (from, to) = (Region::new(PAGE)?, Region::new(PAGE)?);
    let contents = pattern(PAGE, 21);
    from.write(0, &contents);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..TRIES {
        to.write(0, &[0; PAGE]);
        fail_by_chance(true)?;
        let copied = bench.open_queue(16).and_then(|mut queue| {
            let copy = svmctl::Descriptor::copy(from.at(0), to.at(0), PAGE as u64);
            // SAFETY: both are regions, which are accessed atomically and outlive the call.
            unsafe { queue.execute(&copy) }
        });
        // This call itself may fail.
        while fail_by_chance(false).is_err() {}
        match copied {
            Ok(_) => {
                expect_bytes("a copy that succeeded", &to.read(0..PAGE), &contents)?;
                good += 1;
            }
            Err(_) => bad += 1,
        }
    }
    Ok((good, bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call with three places where it can fail. A failure at the second one causes no error.
    fn collect(allowed: &[Errno], error: Errno) -> anyhow::Result<Outcomes> {
        Outcomes::collect("a call", allowed, |place| {
            let result = match place {
                1 | 3 => Err(error),
                _ => Ok(()),
            };
            Ok((result, place <= 3))
        })
    }

    #[test]
    fn each_place_is_tried_until_the_call_has_no_more() {
        let outcomes = collect(OUT_OF_MEMORY, Errno::ENOMEM).unwrap();
        assert_eq!(outcomes.to_string(), "3 failures: 2 ENOMEM, 1 survived");
    }

    #[test]
    fn an_error_that_is_no_answer_to_the_failure_is_told_with_its_place() {
        let error = collect(OUT_OF_MEMORY, Errno::EIO).unwrap_err().to_string();
        assert!(
            error.contains("EIO") && error.contains("place 1 injected"),
            "{error}"
        );
    }

    #[test]
    fn an_error_without_a_failure_is_none_of_the_allowed() {
        let attempt = |_| Ok((Err(Errno::ENOMEM), false));
        let error = Outcomes::collect("a call", OUT_OF_MEMORY, attempt).unwrap_err();
        assert!(error.to_string().contains("not reached"), "{error}");
    }

    #[test]
    fn a_call_that_no_failure_harms_was_not_tested() {
        let attempt = |place| Ok((Ok(()), place < 3));
        let error = Outcomes::collect("a call", OUT_OF_MEMORY, attempt).unwrap_err();
        assert!(error.to_string().contains("never did"), "{error}");
    }

    #[test]
    fn a_call_without_an_end_is_given_up() {
        let attempt = |_| Ok((Err(Errno::ENOMEM), true));
        let error = Outcomes::collect("a call", OUT_OF_MEMORY, attempt).unwrap_err();
        assert!(error.to_string().contains("come to its end"), "{error}");
    }
}
