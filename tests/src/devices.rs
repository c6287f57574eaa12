// SPDX-License-Identifier: MIT OR Apache-2.0
//! Machines of other shapes than that of the guest's test plan.
//!
//! Behind `svm-vtd`, Linux drives a network adapter, a virtio disk and an NVMe disk, each through
//! the unit and with real data, in each mode of the unit that changes the way, and after booting
//! again. A file of the host comes in over the network and goes out to both disks, where the host
//! finds it; and the kernel has nothing to say. The unit records what it does: for each device it
//! has translated reads and writes, and remapped interrupts where that is on. The first of these
//! machines is made with QEMU's unit too. How long the kernel takes to boot with either unit is
//! printed. It is no test.
//!
//! The project's own device works behind a root port. Behind a switch, and as one function of
//! several, Linux does not enable PASID, and `svmctl doctor` names the function that it is for.
//!
//! And two of the project's own devices serve more than 255 processes in one guest, with more
//! contexts than vectors; when the machine goes off, both are silent.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::launcher::Launcher;
use crate::parts::Part;
use crate::suite;

/// The devices, by the addresses that they are given.
const DEVICES: [(&str, &str); 3] = [
    ("the virtio disk", "00:10.0"),
    ("the NVMe disk", "00:11.0"),
    ("the network adapter", "00:12.0"),
];

/// Size of a disk.
const DISK: u64 = 16 << 20;
/// Size of the file.
const DATA: usize = 2 << 20;

/// How a machine differs from the others.
#[derive(Clone, Copy)]
struct Machine {
    /// What is shown of it.
    title: &'static str,
    /// Name of the run.
    name: &'static str,
    iommu: &'static str,
    /// Properties of the IOMMU.
    options: &'static [&'static str],
    /// Whether interrupts are remapped.
    remaps: bool,
    /// The processor.
    cpu: &'static str,
    /// Whether the kernel's packed image is booted, which can switch on 5-level paging.
    packed: bool,
    /// What the guest must find, in a shell.
    finds: &'static str,
    /// Whether it can do a part of the demonstration.
    shares: bool,
    /// How often it boots.
    boots: usize,
}

const SCALABLE: Machine = Machine {
    title: "scalable mode, booted three times",
    name: "devices-scalable",
    iommu: "svm-vtd",
    options: &[],
    remaps: false,
    cpu: "max,la57=off",
    packed: false,
    finds: "true",
    shares: true,
    boots: 3,
};

/// The machines with this project's unit.
const MACHINES: &[Machine] = &[
    SCALABLE,
    Machine {
        title: "scalable mode, 5-level processors, interrupt remapping with x2APIC",
        name: "devices-la57",
        options: &["intremap=on", "eim=on"],
        remaps: true,
        cpu: "max",
        packed: true,
        finds: "grep -qw la57 /proc/cpuinfo && \
                dmesg | grep -q 'DMAR-IR: Enabled IRQ remapping in x2apic mode'",
        boots: 1,
        ..SCALABLE
    },
    Machine {
        title: "legacy mode, interrupt remapping",
        name: "devices-legacy",
        options: &["scalable-mode=off", "intremap=on"],
        remaps: true,
        finds: "dmesg | grep -q 'DMAR-IR: Enabled IRQ remapping in xapic mode'",
        shares: false,
        boots: 1,
        ..SCALABLE
    },
    Machine {
        title: "legacy mode, caching mode",
        name: "devices-caching",
        options: &["scalable-mode=off", "caching-mode=on", "snoop-control=off"],
        // Linux invalidates each page at once then.
        finds: "dmesg | grep -q 'IOMMU batching disallowed'",
        shares: false,
        boots: 1,
        ..SCALABLE
    },
];

/// The first machine with QEMU's unit.
const REFERENCE: Machine = Machine {
    title: "the same machine with QEMU's unit",
    name: "devices-intel-iommu",
    iommu: "intel-iommu",
    boots: 1,
    ..SCALABLE
};

/// How often the boots with either unit are timed.
const TIMED: usize = 3;

/// Runs the machines.
///
/// # Errors
///
/// None: what goes wrong is a test that failed.
pub fn run(launcher: &Launcher, part: &mut Part) -> anyhow::Result<()> {
    for machine in MACHINES.iter().chain([&REFERENCE]) {
        let what = format!("a network adapter and two disks, {}", machine.title);
        part.test(&what, |_| machine.run(launcher).map(|()| ""));
    }
    let begin = Instant::now();
    match boot_times(launcher) {
        Ok([reference, own]) => part.line(format_args!(
            "# boot of the kernel, in turns, fastest of {TIMED}: svm-vtd {own:.2} s, \
             intel-iommu {reference:.2} s, ratio {:.3}",
            own / reference
        )),
        Err(error) => part.fail(format_args!("boot with either unit: {error:#}")),
    }
    part.took("boots with either unit, timed", begin.elapsed());
    part.test(
        "behind a root port and a switch, and one function of two",
        |_| behind_ports(launcher).map(|()| ""),
    );
    part.test("two devices, and more than 255 processes", |_| {
        many_processes(launcher).map(|()| "")
    });
    Ok(())
}

/// How long the kernel takes to boot with QEMU's unit and with `svm-vtd`, in seconds: in turns,
/// since what disturbs the host for a while must not count for one of them only.
fn boot_times(launcher: &Launcher) -> anyhow::Result<[f64; 2]> {
    let mut fastest_of = [f64::INFINITY; 2];
    for _ in 0..TIMED {
        for (iommu, best) in ["intel-iommu", "svm-vtd"].iter().zip(&mut fastest_of) {
            let name = format!("boot-{iommu}");
            launcher.succeeding(&["run", "--name", &name, "--iommu", iommu, "--exec", "true"])?;
            let boots = boots(&launcher.run_dir(&name))?;
            ensure!(!boots.is_empty(), "the guest does not say that it is ready");
            *best = best.min(fastest(&boots));
        }
    }
    Ok(fastest_of)
}

/// The smallest of some numbers.
fn fastest(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The files that a machine works on.
struct Files {
    directory: PathBuf,
    contents: Vec<u8>,
}

impl Files {
    /// Empty disks, and a file of random contents to be fetched.
    fn create(directory: PathBuf) -> anyhow::Result<Files> {
        fs::create_dir_all(directory.join("served"))?;
        let mut contents = vec![0; DATA];
        File::open("/dev/urandom")?.read_exact(&mut contents)?;
        fs::write(directory.join("served/file"), &contents)?;
        for disk in ["virtio.raw", "nvme.raw"] {
            File::create(directory.join(disk))?.set_len(DISK)?;
        }
        Ok(Files {
            directory,
            contents,
        })
    }

    /// A path as QEMU's options have it: commas are doubled.
    fn path(&self, name: &str) -> anyhow::Result<String> {
        let path = self.directory.join(name);
        let text = path.to_str().context("the checkout's path is not UTF-8")?;
        Ok(text.replace(',', ",,"))
    }

    /// Arguments of QEMU for the devices.
    fn devices(&self) -> anyhow::Result<Vec<String>> {
        let drive = |name: &str, id: &str| -> anyhow::Result<String> {
            let path = self.path(name)?;
            Ok(format!("file={path},format=raw,if=none,id={id}"))
        };
        let arguments = [
            ("-drive", drive("virtio.raw", "disk0")?),
            (
                "-device",
                "virtio-blk-pci,drive=disk0,addr=10.0,iommu_platform=on,disable-legacy=on"
                    .to_owned(),
            ),
            ("-drive", drive("nvme.raw", "disk1")?),
            ("-device", "nvme,drive=disk1,addr=11.0,serial=1".to_owned()),
            (
                "-netdev",
                format!("user,id=net0,restrict=on,tftp={}", self.path("served")?),
            ),
            ("-device", "e1000e,netdev=net0,addr=12.0".to_owned()),
        ];
        let pair = |(option, value): (&str, String)| [option.to_owned(), value];
        Ok(arguments.into_iter().flat_map(pair).collect())
    }

    /// Whether both disks begin with the file.
    fn compare(&self) -> anyhow::Result<()> {
        for disk in ["virtio.raw", "nvme.raw"] {
            let mut found = vec![0; DATA];
            File::open(self.directory.join(disk))?.read_exact(&mut found)?;
            let differs = found.iter().zip(&self.contents).position(|(a, b)| a != b);
            if let Some(at) = differs {
                anyhow::bail!("{disk} differs from the file from byte {at:#x} on");
            }
        }
        Ok(())
    }
}

impl Machine {
    /// Runs it.
    fn run(&self, launcher: &Launcher) -> anyhow::Result<()> {
        let directory = launcher.run_dir(self.name);
        let files = Files::create(directory.clone())?;
        let script = self.script();
        let mut arguments = vec![
            "run", "--name", self.name, "--iommu", self.iommu, "--exec", &script,
        ];
        if self.packed {
            arguments.push("--packed-kernel");
        }
        for option in self.options {
            arguments.extend(["--iommu-option", option]);
        }
        let records = self.iommu == "svm-vtd";
        let record = format!("record={}", files.path("recording")?);
        if records {
            arguments.extend(["--iommu-option", &record]);
        }
        arguments.extend(["--", "-cpu", self.cpu, "-action", "reboot=reset"]);
        let devices = files.devices()?;
        arguments.extend(devices.iter().map(String::as_str));
        launcher.succeeding(&arguments)?;
        files.compare()?;
        let boots = boots(&directory)?;
        ensure!(
            boots.len() == self.boots,
            "the guest booted {} times, {} were expected",
            boots.len(),
            self.boots
        );
        if records {
            let file = File::open(directory.join("recording"))?;
            let recording = BufReader::new(file)
                .lines()
                .collect::<Result<Vec<_>, _>>()?;
            went_through(&recording, self.remaps)?;
        }
        Ok(())
    }

    /// What the guest does each time that it boots.
    fn script(&self) -> String {
        let share = if self.shares {
            "svmctl demo heap 'page never touched' 'mapped file' >/tmp/demo 2>&1 || \
             { cat /tmp/demo; fail 'the device failed'; }"
        } else {
            ":"
        };
        let (finds, boots) = (self.finds, self.boots);
        format!(
            r#"
fail() {{ echo "$1"; exit 1; }}
cd /svm/modules
for module in $(cat order); do
    [ -e /sys/module/$(echo $module | tr - _) ] || insmod $module.ko || fail "no $module"
done
for turn in $(seq 200); do
    [ -b /dev/vda ] && [ -b /dev/nvme0n1 ] && [ -e /sys/class/net/eth0 ] && break
    usleep 50000
done
for device in block/vda/device/.. block/nvme0n1/device/device net/eth0/device; do
    case $(cat /sys/class/$device/iommu_group/type) in
    DMA*) ;;
    *) fail "$device is not translated" ;;
    esac
done
{finds} || fail 'the mode is another one'
ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0
tftp -g -b 1428 -r file -l /tmp/file 10.0.2.2 || fail 'the file does not come'
for disk in /dev/vda /dev/nvme0n1; do
    dd if=/tmp/file of=$disk bs=64k conv=fsync 2>/dev/null || fail "$disk cannot be written"
    echo 3 >/proc/sys/vm/drop_caches
    dd if=$disk bs=64k count={blocks} 2>/dev/null | cmp - /tmp/file || fail "$disk reads wrong"
done
{share}
# In legacy mode the driver says that its device has no PASIDs.
dmesg -r | grep -v svm_demo |
    grep -E '^<[0-4]>.*(DMAR|iommu|nvme|virtio|e1000e|eth0|WARNING|BUG|Call Trace)' && \
    fail 'the kernel has complained'
boot=$(dd if=/dev/nvme0n1 bs=512 skip=20000 count=1 2>/dev/null | tr -d '\0')
boot=$((boot + 1))
printf $boot | dd of=/dev/nvme0n1 bs=512 seek=20000 conv=fsync 2>/dev/null
[ $boot -ge {boots} ] || {{ reboot -f; sleep 1000; }}
"#,
            blocks = DATA >> 16,
        )
    }
}

/// Sees in a recording of the unit (its format is that of `vtd::recording`) that the requests of
/// each device went through it.
fn went_through(recording: &[String], remaps: bool) -> anyhow::Result<()> {
    for (device, requester) in DEVICES {
        // Translated to another address, that of a page of memory.
        let translated = |access: &str| {
            let begin = format!("translate {requester} - ");
            recording.iter().any(|line| {
                let words = line.strip_prefix(&begin).map(|rest| rest.split(' '));
                let words: Vec<&str> = words.into_iter().flatten().collect();
                matches!(words[..], [from, how, _, "=", to, "in", ..] if how == access && from != to)
            })
        };
        for access in ["read", "write"] {
            ensure!(
                translated(access),
                "the unit has not translated a {access} of {device}"
            );
        }
        let delivered = recording.iter().any(|line| {
            line.starts_with(&format!("interrupt {requester} ")) && line.contains(" = deliver ")
        });
        ensure!(
            delivered || !remaps,
            "the unit has not remapped an interrupt of {device}"
        );
        let blocked = recording.iter().find(|line| {
            let of = |call: &str| line.starts_with(&format!("{call} {requester} "));
            (of("translate") || of("interrupt")) && line.contains(" = fault")
        });
        ensure!(
            blocked.is_none(),
            "a request of {device} was blocked: {blocked:?}"
        );
    }
    Ok(())
}

/// How long the kernel took from its start to the first process, for each time that it did.
fn boots(directory: &Path) -> anyhow::Result<Vec<f64>> {
    let text = fs::read_to_string(directory.join("events.jsonl"))?;
    let mut boots = Vec::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line)?;
        if event["event"] == "ready" {
            let micros = event["uptime_micros"].as_f64();
            boots.push(micros.context("the guest does not say when it was ready")? / 1e6);
        }
    }
    Ok(boots)
}

/// The device in places from which a request with a PASID has a way, and in places from which it
/// may have none: the ports of QEMU's switch have no ACS, and neither has a device of two
/// functions.
fn behind_ports(launcher: &Launcher) -> anyhow::Result<()> {
    let script = include_str!("../suite/src/guest/ports.sh");
    // What the machine has for it, as `svm-suite` has it in its guest.
    let devices = include_str!("../suite/src/guest/ports.txt").lines();
    let devices = devices.filter(|line| !line.starts_with('#'));
    let mut arguments = vec!["run", "--name", "ports", "--exec", script, "--"];
    arguments.extend(devices.flat_map(|device| ["-device", device]));
    launcher.succeeding(&arguments)?;
    let results = launcher.run_dir("ports").join("results.json");
    suite::judged("guest-intel-iommu", [8], &results)?;
    Ok(())
}

/// 300 processes hold contexts, and with them PASIDs, of two devices; the next ones, with PASIDs
/// that do not fit into 8 bits, use both devices.
fn many_processes(launcher: &Launcher) -> anyhow::Result<()> {
    let log = launcher.run_dir("many-processes").join("configuration.log");
    let log_argument = log.to_str().context("the checkout's path is not UTF-8")?;
    let script = r#"
fail() { echo "$1"; exit 1; }
[ -c /dev/svm1 ] || fail 'there is one device'
for process in $(seq 300); do
    sh -c "exec 3<>/dev/svm$((process % 2)) && echo >&4 && exec sleep 1000" &
done 4>/tmp/opened
for turn in $(seq 600); do
    [ $(wc -l </tmp/opened) = 300 ] && break
    usleep 50000
done
[ $(wc -l </tmp/opened) = 300 ] || fail "$(wc -l </tmp/opened) of 300 processes have a context"
for device in /dev/svm0 /dev/svm1; do
    svmctl --device $device info >/tmp/info || fail "no information"
    pasid=$(sed -n 's/.*PASID of this process *//p' /tmp/info)
    [ "$pasid" -gt 255 ] || fail "the PASID is $pasid: $(cat /tmp/info)"
    svmctl --device $device demo >/tmp/demo 2>&1 || { cat /tmp/demo; fail "$device failed"; }
    # The contexts share 64 vectors, and the driver has to find out whose interrupt it was.
    svmctl --device $device test eventfd >/tmp/test 2>&1 || { cat /tmp/test; fail "$device failed"; }
done
"#;
    let arguments = [
        "run",
        "--name",
        "many-processes",
        "--device-option",
        "contexts=256",
        "--exec",
        script,
        "--",
        "-device",
        "svm-demo,contexts=256",
        "-trace",
        "pci_cfg_write",
        "-D",
        log_argument,
    ];
    launcher.succeeding(&arguments)?;
    let text = fs::read_to_string(&log).with_context(|| log.display().to_string())?;
    let masters = masters(&text);
    ensure!(
        masters.len() == 2,
        "two functions were bus masters, not {masters:?}"
    );
    let still: Vec<_> = masters
        .iter()
        .filter(|(_, at_the_end)| **at_the_end)
        .collect();
    ensure!(
        still.is_empty(),
        "bus masters when the machine went off: {still:?}"
    );
    Ok(())
}

/// The functions of the project's device that were bus masters at some time, and whether they were
/// to the end, as QEMU's log of what was written to configuration spaces has it.
fn masters(log: &str) -> BTreeMap<&str, bool> {
    const BUS_MASTER: u64 = 1 << 2;
    let mut masters = BTreeMap::new();
    for line in log.lines() {
        let Some((_, rest)) = line.split_once("pci_cfg_write svm-demo ") else {
            continue;
        };
        let Some((slot, value)) = rest.split_once(" @0x4 <- 0x") else {
            continue;
        };
        let value = u64::from_str_radix(value.trim(), 16).unwrap_or(0);
        let master = value & BUS_MASTER != 0;
        if master || masters.contains_key(slot) {
            masters.insert(slot, master);
        }
    }
    masters
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recording in which all goes through the unit.
    fn all() -> Vec<String> {
        let of = |(_, requester): &(&str, &str)| {
            [
                format!("translate {requester} - 0xfffff000 read - = 0x5000 in 0xfffff000/12 rw"),
                format!("translate {requester} - 0xffffe000 write - = 0x6000 in 0xffffe000/12 rw"),
                format!("interrupt {requester} 0xfee00010 0x0 = deliver 0xfee00000 0x41"),
            ]
        };
        DEVICES.iter().flat_map(of).collect()
    }

    #[test]
    fn who_was_a_bus_master_and_who_is_to_the_end_is_read_from_the_log() {
        let log = "pci_cfg_write svm-demo 00:01.0 @0x4 <- 0x2\n\
                   12@1.5:pci_cfg_write svm-demo 00:01.0 @0x4 <- 0x406\n\
                   pci_cfg_write svm-demo 00:02.0 @0x4 <- 0x406\n\
                   pci_cfg_write svm-demo 00:03.0 @0x4 <- 0x402\n\
                   pci_cfg_write e1000e 00:12.0 @0x4 <- 0x406\n\
                   pci_cfg_write svm-demo 00:01.0 @0x40 <- 0x0\n\
                   pci_cfg_write svm-demo 00:02.0 @0x4 <- 0x402\n";
        let expected = BTreeMap::from([("00:01.0", true), ("00:02.0", false)]);
        assert_eq!(masters(log), expected);
    }

    #[test]
    fn each_device_must_have_gone_through_the_unit() {
        assert!(went_through(&all(), true).is_ok());
        for missing in 0..9 {
            let mut recording = all();
            let line = recording.remove(missing);
            let lacks = went_through(&recording, true).is_err();
            assert!(lacks, "without {line}");
            let interrupt = line.starts_with("interrupt");
            assert_eq!(went_through(&recording, false).is_ok(), interrupt, "{line}");
        }
    }

    #[test]
    fn an_address_that_stays_as_it_is_was_not_translated() {
        let mut recording = all();
        recording[0] = recording[0].replace("= 0x5000 in", "= 0xfffff000 in");
        assert!(went_through(&recording, true).is_err());
        recording[0] =
            recording[0].replace("= 0xfffff000 in 0xfffff000/12 rw", "= fault 0x5 LSS.1");
        recording.extend(all());
        assert!(went_through(&recording, true).is_err());
    }
}
