// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plans: the work of guests. One table each; a step is a program and its conditions to pass.

use std::collections::BTreeMap;

use svm_init::kernel::LOADED;
use svm_init::plan::{Exit, Fetch, Module, Plan, Step};

use crate::cli::{Group, Groups, PlanName};
use crate::run::fetch;

/// Name of the driver's module.
pub const DRIVER: &str = "svm_demo";

/// Size of the compressed swap area, in MiB.
const SWAP_MIB: u32 = 256;

/// Options of kernels that are many times slower.
const SLOW: &[&str] = &["CONFIG_KASAN", "CONFIG_PROVE_LOCKING"];

/// Factor of the time limits of steps on these.
const SLOWNESS: u32 = 10;

/// Prefixes of the names of VFIO's modules, and of modules that only these depend on.
const VFIO: &[&str] = &["vfio", "irqbypass", "iommufd"];

/// The module of VFIO that needs a parameter to work without interrupt remapping, which the guest
/// lacks.
const VFIO_IOMMU: &str = "vfio_iommu_type1";

/// The file that starts the kernel's search for leaked memory, and has its results.
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";

/// The parameters of a run besides its plan.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Modules of the kernel, in the order of loading.
    pub modules: Vec<String>,
    /// Parameters of the driver, `name=value`.
    pub driver_options: Vec<String>,
    /// The kernel's options that are set, and their values.
    pub kernel_options: BTreeMap<String, String>,
    /// The user's own modules, loaded last.
    pub own_modules: Vec<Module>,
    /// Do not load the driver.
    pub no_driver: bool,
    /// The files to fetch from the guest at its end.
    pub fetch: Option<Fetch>,
    /// Which groups of the tests run.
    pub groups: Groups,
}

impl Given {
    /// The modules of VFIO, if the kernel has them.
    fn vfio(&self) -> Vec<Module> {
        let modules = self.modules.iter().filter(|name| of_vfio(name));
        modules
            .map(|name| Module {
                name: name.clone(),
                parameters: match name.as_str() {
                    VFIO_IOMMU => "allow_unsafe_interrupts=1".to_owned(),
                    _ => String::new(),
                },
            })
            .collect()
    }

    /// Whether the kernel has a feature built in.
    fn has(&self, option: &str) -> bool {
        self.kernel_options
            .get(option)
            .is_some_and(|value| value == "y")
    }
}

fn of_vfio(module: &str) -> bool {
    VFIO.iter().any(|start| module.starts_with(start))
}

/// The plan of a name. `scale` multiplies the amount of its tests.
pub fn plan(name: PlanName, scale: &str, given: &Given) -> Plan {
    let plan = match name {
        PlanName::Demo => with_driver(given, vec![demo("demo")]),
        PlanName::Test => without_driver(given, watched_for_leaks(given, test(scale, given))),
    };
    with_additions(given, plan)
}

/// One line of shell, with the driver loaded.
pub fn exec(line: &str, given: &Given) -> Plan {
    // The whole run has a time-out; the step's own must not be shorter.
    let mut plan = with_driver(given, vec![Step::shell("exec", line).within(u32::MAX)]);
    plan.modules.extend(given.vfio());
    with_additions(given, plan)
}

/// A shell for a person, with the driver loaded.
pub fn shell(given: &Given) -> Plan {
    let mut plan = with_driver(given, Vec::new());
    plan.modules.extend(given.vfio());
    plan.shell = true;
    with_additions(given, plan)
}

/// The examination of the guest; `json` selects the output format.
pub fn doctor(json: bool, given: &Given) -> Plan {
    let mut argv = vec!["svmctl", "doctor"];
    argv.extend(json.then_some("--json"));
    without_driver(given, vec![Step::new("doctor", &argv)])
}

/// The demonstration.
fn demo(name: &str) -> Step {
    Step::new(name, &["svmctl", "demo"])
}

/// Groups of `svmctl test`, the names of their steps, and the seconds in which each ends even on a
/// busy machine: the limit is for hangs.
const GROUPS: &[(Group, &str, u32)] = &[
    (
        Group::Interface,
        "what a program can say to the driver and the device",
        120,
    ),
    (Group::Memory, "memory as it is really used", 300),
    (Group::Endings, "every way to die", 900),
    (Group::Scale, "many processes", 300),
    (Group::Fuzz, "hostile programs", 300),
    (Group::Injection, "a kernel that runs out of memory", 120),
];

/// The tests of driver and device in a guest. The demonstration and the tests check the kernel's
/// log themselves, case by case; `svm-init` checks it for other programs and lines of shell.
fn test(scale: &str, given: &Given) -> Vec<Step> {
    let load = format!(
        "insmod /svm/modules/{DRIVER}.ko {}",
        given.driver_options.join(" ")
    );
    let load = format!("{load} && test -c /dev/svm0");
    let chosen = GROUPS.iter().filter(|(group, ..)| given.groups.has(*group));
    let groups = chosen.map(|(group, name, seconds)| {
        Step::new(name, &["svmctl", "test", group.name(), "--scale", scale]).within(*seconds)
    });
    let loading = Step::shell("the driver loads and /dev/svm0 appears", &load).hearing(LOADED);
    if matches!(given.groups, Groups::Only(_)) {
        return std::iter::once(loading).chain(groups).collect();
    }
    let mut steps = vec![loading, demo("the demonstration")];
    steps.extend(groups);
    let silent = commands().into_iter().chain(watching(given));
    steps.extend(silent.map(|step| step.hearing(&[])));
    steps.extend([
        Step::shell(
            "an open file keeps the driver",
            "exec 3<>/dev/svm0 && rmmod svm_demo",
        )
        .expecting_exit(1)
        .expecting_output("Resource temporarily unavailable")
        .hearing(&[]),
        Step::shell(
            "the driver unloads and /dev/svm0 disappears",
            "rmmod svm_demo && ! test -e /dev/svm0",
        )
        .hearing(&[]),
        limit(given).hearing(LOADED),
        Step::shell("the driver loads again", &load).hearing(LOADED),
        demo("the demonstration after loading again"),
        vfio(given).hearing(LOADED),
    ]);
    steps
}

/// The other commands of `svmctl`.
fn commands() -> Vec<Step> {
    vec![
        Step::new("the doctor finds nothing missing", &["svmctl", "doctor"])
            .expecting_output("svm_demo"),
        Step::new(
            "a load in several processes, all of it checked",
            &["svmctl", "stress", "--duration", "4s", "--seed", "1"],
        )
        .expecting_output("every result and every byte was right"),
        Step::shell(
            "measurements, and a plot of them",
            "svmctl bench --quick --quiet --plot /tmp/bench.svg && grep '</svg>' /tmp/bench.svg",
        ),
        Step::shell(
            "the kernel's events are followed while the device works",
            "svmctl trace --duration 2s --json >/tmp/events & \
             while kill -0 $! 2>/dev/null; do svmctl crc32c /bin/busybox; done; wait $! && \
             grep -m 1 qi_submit /tmp/events",
        )
        .expecting_output("dmar0"),
        Step::new(
            "a program in C has the device sum a list",
            &["svm-sum", "/dev/svm0"],
        )
        .expecting_output("the device sums 1000 nodes to 332833500"),
        Step::shell(
            "a checksum of a file is the standard one",
            "printf 123456789 >/tmp/check && svmctl crc32c /tmp/check",
        )
        .expecting_output("e3069283"),
        Step::shell(
            "a copied file is the same",
            "svmctl copy /bin/busybox /tmp/copy && cmp /bin/busybox /tmp/copy",
        ),
    ]
}

/// The driver's files for observation, and the machine's sleep, if the kernel supports them.
fn watching(given: &Given) -> Vec<Step> {
    let contexts = "/sys/kernel/debug/svm_demo/svm0/contexts";
    let mut steps = vec![Step::shell(
        "an open file tells of itself in fdinfo",
        "exec 3<>/dev/svm0 && cat /proc/self/fdinfo/3 && \
         grep -q '^svm-pasid:.[1-9]' /proc/self/fdinfo/3 && \
         grep -q '^svm-state:.disabled' /proc/self/fdinfo/3",
    )];
    if given.has("CONFIG_DEBUG_FS") {
        let line = format!("exec 3<>/dev/svm0 && cat {contexts} && grep -q ' open ' {contexts}");
        steps.push(Step::shell("debugfs knows the owner of a context", &line));
    }
    if given.has("CONFIG_EVENT_TRACING") {
        let line = "cd /sys/kernel/tracing && echo 1 >events/svm_demo/enable && \
                    svmctl demo heap && echo 0 >events/svm_demo/enable && \
                    for event in open start interrupt close; do \
                    grep -q svm_demo_$event: trace || { echo no $event; exit 1; }; done";
        steps.push(Step::shell("tracepoints tell of a context's life", line));
    }
    if given.has("CONFIG_PM_DEBUG") && given.has("CONFIG_SUSPEND") {
        // The kernel's own test of a suspend to idle: all but the sleep itself.
        let line = "exec 3<>/dev/svm0; echo 0 >/sys/module/suspend/parameters/pm_test_delay; \
                    echo devices >/sys/power/pm_test && echo freeze >/sys/power/state && \
                    echo none >/sys/power/pm_test && \
                    grep '^svm-state:.disabled' /proc/self/fdinfo/3 && svmctl demo heap";
        steps.push(Step::shell("the device works after a sleep", line));
    }
    steps
}

/// The module's parameter that limits users.
fn limit(given: &Given) -> Step {
    let line = format!(
        "echo somebody::1000:1000::/:/bin/sh >>/etc/passwd; \
         insmod /svm/modules/{DRIVER}.ko {} contexts_per_user=2 && chmod 666 /dev/svm0 || exit 2; \
         exec 3<>/dev/svm0 4<>/dev/svm0 5<>/dev/svm0 || exit 3; \
         su somebody -c 'exec 6<>/dev/svm0 7<>/dev/svm0 || exit 4; exec 8<>/dev/svm0'; status=$?; \
         exec 3>&- 4>&- 5>&-; rmmod {DRIVER} && exit $status",
        given.driver_options.join(" ")
    );
    // Root exceeds the limit, and another user's third context is refused.
    Step::shell("a user has no more contexts than the parameter says", &line)
        .expecting_exit(1)
        .expecting_output("Disk quota exceeded")
}

/// Drives the device from user space, and afterwards with its driver again.
fn vfio(given: &Given) -> Step {
    let name = "a program drives the device through VFIO, and the driver has it again";
    let modules = given.vfio();
    let built_in = given.has("CONFIG_VFIO_PCI") && given.has("CONFIG_VFIO_IOMMU_TYPE1");
    let skipped = |why| {
        let event =
            format!(r#"{{"event":"test","name":"VFIO","status":"skipped","message":"{why}"}}"#);
        Step::shell(name, &format!("echo '{event}' >>\"$SVM_RESULTS\""))
    };
    if modules.is_empty() && !built_in {
        return skipped("this kernel has no vfio-pci");
    }
    // The reset of a function takes the mutex of its IOMMU group under the lock of its memory; the
    // end of a bond waits for page faults under that mutex; a page fault takes mmap_lock; and a
    // fault of the mapped BAR takes the lock of the memory under mmap_lock. All of this is Linux's
    // own code, and lockdep reports it when one boot uses both VFIO and SVA.
    if given.has("CONFIG_PROVE_LOCKING") {
        return skipped("lockdep reports the order of VFIO and SVA locks of Linux itself");
    }
    let mut line = String::new();
    for module in modules {
        line += &format!(
            "insmod /svm/modules/{}.ko {} && ",
            module.name, module.parameters
        );
    }
    if built_in {
        line += "echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts && ";
    }
    line += "svmctl vfio --bind && svmctl info";
    Step::shell(name, &line)
}

/// Wraps steps in a search for leaked memory, if the kernel has kmemleak.
fn watched_for_leaks(given: &Given, steps: Vec<Step>) -> Vec<Step> {
    if !given.has("CONFIG_DEBUG_KMEMLEAK") {
        return steps;
    }
    // Leaks during boot are not the driver's. The kernel must not scan on its own, because it
    // reports each leak only once.
    let forget =
        format!("echo scan=off >{KMEMLEAK} && echo scan >{KMEMLEAK} && echo clear >{KMEMLEAK}");
    // It does not report objects younger than five seconds (Linux, mm/kmemleak.c), and an object
    // that moves during the first scan looks leaked to it.
    let search = format!(
        "sleep 6; echo scan >{KMEMLEAK} && echo scan >{KMEMLEAK} || exit 2; \
         cat {KMEMLEAK} >/tmp/leaks || exit 2; cat /tmp/leaks; ! test -s /tmp/leaks"
    );
    let before = Step::shell("kmemleak starts anew", &forget);
    let after = Step::shell("kmemleak finds nothing that was lost", &search);
    [before].into_iter().chain(steps).chain([after]).collect()
}

fn with_driver(given: &Given, steps: Vec<Step>) -> Plan {
    let mut plan = without_driver(given, steps);
    plan.modules.extend((!given.no_driver).then(|| Module {
        name: DRIVER.to_owned(),
        parameters: given.driver_options.join(" "),
    }));
    plan
}

/// Adds the user's additions to a plan.
fn with_additions(given: &Given, mut plan: Plan) -> Plan {
    plan.modules.extend(given.own_modules.clone());
    plan.fetch.clone_from(&given.fetch);
    let by_disk = |fetch: &Fetch| fetch.by == Exit::Disk;
    if given.fetch.as_ref().is_some_and(by_disk) && !given.has("CONFIG_VIRTIO_BLK") {
        plan.modules.push(Module::new(fetch::MODULE));
    }
    plan
}

fn without_driver(given: &Given, mut steps: Vec<Step>) -> Plan {
    if SLOW.iter().any(|option| given.has(option)) {
        for step in &mut steps {
            step.timeout_s = step.timeout_s.saturating_mul(SLOWNESS);
        }
    }
    let zram = given.modules.iter().any(|name| name == "zram") || given.has("CONFIG_ZRAM");
    Plan {
        modules: given
            .modules
            .iter()
            .filter(|name| !of_vfio(name))
            .map(|name| Module::new(name))
            .collect(),
        swap_mib: zram.then_some(SWAP_MIB),
        shell: false,
        steps,
        fetch: None,
        trace: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        Given {
            modules: vec!["lz4hc_compress".into(), "zram".into()],
            driver_options: vec!["lab=1".into()],
            ..Given::default()
        }
    }

    fn with_option(option: &str) -> Given {
        Given {
            kernel_options: [(option.to_owned(), "y".to_owned())].into(),
            ..Given::default()
        }
    }

    #[test]
    fn the_demonstration_has_driver_and_swap_before_it() {
        let plan = plan(PlanName::Demo, "1", &given());
        let names: Vec<_> = plan
            .modules
            .iter()
            .map(|module| module.name.as_str())
            .collect();
        assert_eq!(names, ["lz4hc_compress", "zram", "svm_demo"]);
        assert_eq!(plan.modules[2].parameters, "lab=1");
        assert_eq!(plan.swap_mib, Some(SWAP_MIB));
        assert_eq!(plan.steps[0].argv, ["svmctl", "demo"]);
    }

    #[test]
    fn modules_of_ones_own_come_last_and_the_driver_only_where_it_is_wanted() {
        let names = |given: &Given, plan: fn(&Given) -> Plan| -> Vec<String> {
            let modules = plan(given).modules;
            modules.into_iter().map(|module| module.name).collect()
        };
        let mut given = given();
        given.own_modules = vec![Module::new("mine")];
        let plans: [fn(&Given) -> Plan; 3] = [
            |given| plan(PlanName::Demo, "1", given),
            |given| exec("true", given),
            shell,
        ];
        for plan in plans {
            given.no_driver = false;
            let with = names(&given, plan);
            assert_eq!(with[2..], [DRIVER, "mine"]);
            given.no_driver = true;
            assert_eq!(names(&given, plan)[2..], ["mine"]);
        }
    }

    #[test]
    fn the_disk_of_what_is_fetched_has_its_driver() {
        let mut given = given();
        for (by, loaded) in [(Exit::Disk, true), (Exit::Port, false)] {
            let paths = vec!["/root/a".to_owned()];
            given.fetch = Some(Fetch { paths, by });
            let plan = exec("true", &given);
            assert_eq!(plan.fetch, given.fetch);
            let names = plan.modules.iter().map(|module| &module.name);
            assert_eq!(
                names.filter(|name| *name == fetch::MODULE).count() == 1,
                loaded
            );
        }
    }

    #[test]
    fn the_test_loads_the_driver_itself_each_time_with_its_parameters() {
        let plan = plan(PlanName::Test, "1", &given());
        assert!(plan.modules.iter().all(|module| module.name != DRIVER));
        let loads = plan
            .steps
            .iter()
            .filter(|step| step.argv.join(" ").contains("lab=1"));
        // The driver loads, loads with a limit, and loads again.
        assert_eq!(loads.count(), 3);
    }

    #[test]
    fn the_tests_try_as_much_as_was_asked_for() {
        let steps = plan(PlanName::Test, "0.1", &given()).steps;
        let scaled = steps
            .iter()
            .filter(|step| step.argv.ends_with(&["0.1".to_owned()]));
        assert_eq!(scaled.count(), GROUPS.len());
    }

    #[test]
    fn two_parts_of_the_tests_are_all_of_them() {
        let names = |groups| {
            let given = Given { groups, ..given() };
            let steps = plan(PlanName::Test, "1", &given).steps;
            steps.into_iter().map(|step| step.name).collect::<Vec<_>>()
        };
        let all = names(Groups::All);
        for (group, ..) in GROUPS {
            let one = vec![*group];
            let (only, but) = (names(Groups::Only(one.clone())), names(Groups::AllBut(one)));
            assert_eq!(only.len(), 2, "{only:?}");
            // Both load the driver.
            assert_eq!(only[0], but[0]);
            assert_eq!(but.len() + 1, all.len());
            assert!(
                all.iter()
                    .all(|name| only.contains(name) || but.contains(name))
            );
        }
    }

    #[test]
    fn somebody_hears_the_kernel_in_each_step() {
        let steps = plan(PlanName::Test, "1", &given()).steps;
        for step in steps {
            let hears = matches!(
                step.argv[..2].join(" ").as_str(),
                "svmctl demo" | "svmctl test"
            );
            assert_ne!(hears, step.kernel_says.is_some(), "{}", step.name);
        }
    }

    #[test]
    fn modules_of_vfio_are_loaded_for_those_who_may_want_them() {
        let mut given = given();
        assert_eq!(vfio(&given).argv.len(), 3);
        assert!(vfio(&given).argv[2].contains("skipped"));
        let mut built_in = Given::default();
        for option in ["CONFIG_VFIO_PCI", "CONFIG_VFIO_IOMMU_TYPE1"] {
            let options = &mut built_in.kernel_options;
            options.insert(option.to_owned(), "y".to_owned());
        }
        assert!(vfio(&built_in).argv[2].contains("svmctl vfio --bind"));
        let lockdep = ("CONFIG_PROVE_LOCKING".to_owned(), "y".to_owned());
        built_in.kernel_options.extend([lockdep]);
        assert!(vfio(&built_in).argv[2].contains("skipped"));
        given.modules.extend(["vfio".into(), VFIO_IOMMU.into()]);
        let loaded = |plan: Plan| plan.modules.iter().any(|m| m.name == "vfio");
        assert!(!loaded(plan(PlanName::Demo, "1", &given)));
        assert!(loaded(shell(&given)) && loaded(exec("true", &given)));
        assert!(vfio(&given).argv[2].contains("vfio_iommu_type1.ko allow_unsafe_interrupts=1"));
    }

    #[test]
    fn names_of_steps_are_distinct() {
        let mut names: Vec<_> = plan(PlanName::Test, "1", &given())
            .steps
            .into_iter()
            .map(|step| step.name)
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_kernel_without_zram_has_no_swap() {
        assert_eq!(plan(PlanName::Demo, "1", &Given::default()).swap_mib, None);
        let built_in = plan(PlanName::Demo, "1", &with_option("CONFIG_ZRAM"));
        assert_eq!(built_in.swap_mib, Some(SWAP_MIB));
    }

    #[test]
    fn a_kernel_that_watches_itself_has_more_time() {
        let limit = |given: &Given| plan(PlanName::Demo, "1", given).steps[0].timeout_s;
        let ordinary = limit(&given());
        assert_eq!(limit(&with_option("CONFIG_KASAN")), SLOWNESS * ordinary);
    }

    #[test]
    fn a_kernel_with_kmemleak_searches_before_and_after_the_tests() {
        let ordinary = plan(PlanName::Test, "1", &Given::default()).steps;
        let watched = plan(PlanName::Test, "1", &with_option("CONFIG_DEBUG_KMEMLEAK")).steps;
        assert_eq!(watched[1..=ordinary.len()], ordinary);
        assert_eq!(watched.len(), ordinary.len() + 2);
    }
}
