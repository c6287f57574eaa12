// SPDX-License-Identifier: GPL-2.0-or-later
//! The properties of `-device svm-vtd`: its own, and those that it inherits from `intel-iommu`,
//! combined into the configuration of the unit.

use std::ffi::CStr;
use std::time::Duration;

use pcie_ats::PasidWidth;
use vtd::config::{
    AddressWidth, DeviceTlbs, FirstStage, InterruptRemapping, Pasids, Scalable, Stages,
};
use vtd::{Capabilities, Config};

use crate::bql::Bql;
use crate::message;
use crate::property::{self, Property};
use crate::qom::{Class, Neighbour};

/// The values of the device's own properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// SSTS.
    pub ssts: bool,
    /// NEST.
    pub nest: bool,
    /// FS5LP.
    pub fs5lp: bool,
    /// A separate thread processes the invalidation queue.
    pub thread: bool,
    /// The thread's delay before it processes the queue, in microseconds.
    pub delay: u64,
    /// How long an invalidation of a Device-TLB may take, in milliseconds.
    pub timeout: u64,
    /// Every n-th completion of such an invalidation is lost; 0 for none.
    pub lose_every: u64,
    /// Path of the recording; empty for none.
    pub record: String,
    /// The unit follows the specification where QEMU's own does not.
    pub strict: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            ssts: true,
            nest: true,
            fs5lp: true,
            thread: false,
            delay: 0,
            timeout: 1000,
            lose_every: 0,
            record: String::new(),
            strict: false,
        }
    }
}

static PROPERTIES: [Property<Settings>; 9] = [
    Property::switch(
        c"ssts",
        |s| &mut s.ssts,
        c"second stage in scalable mode, besides the first stage of fsts=on (default: on)",
    ),
    Property::switch(
        c"nest",
        |s| &mut s.nest,
        c"nested translation, if there are both stages (default: on)",
    ),
    Property::switch(
        c"fs5lp",
        |s| &mut s.fs5lp,
        c"5-level paging in the first stage (default: on)",
    ),
    Property::switch(
        c"invalidation-thread",
        |s| &mut s.thread,
        c"process the invalidation queue in a thread of its own (default: off)",
    ),
    Property::number(
        c"invalidation-delay",
        (0, 1_000_000),
        |s| &mut s.delay,
        c"microseconds that this thread waits before it processes the queue: 0 to 1000000 \
          (default: 0)",
    ),
    Property::number(
        c"invalidation-timeout",
        (1, 60_000),
        |s| &mut s.timeout,
        c"milliseconds until an invalidation of a device-TLB times out: 1 to 60000 \
          (default: 1000)",
    ),
    Property::number(
        c"lose-every",
        (0, u32::MAX as u64),
        |s: &mut Settings| &mut s.lose_every,
        c"lose every n-th completion of a device-TLB invalidation, so that it times out: \
          0 to 4294967295, 0 for none (default: 0)",
    )
    .also_later(),
    Property::text(
        c"record",
        |s| &mut s.record,
        c"file for a recording of all that passes between the unit and the machine, which can be \
          played again (default: none)",
    ),
    Property::switch(
        c"strict",
        |s| &mut s.strict,
        c"keep to the specification where the intel-iommu does not: 256-bit descriptors in \
          scalable mode, and source validation of the I/O APIC (default: off)",
    ),
];

/// Adds the properties to the class.
pub fn add_all(class: &mut Class) {
    property::add_all(class, &PROPERTIES);
}

/// The properties of `intel-iommu`. Its realization checks them and refuses contradicting features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inherited {
    scalable_mode: bool,
    fsts: bool,
    svm: bool,
    device_iotlb: bool,
    caching_mode: bool,
    snoop_control: bool,
    fs1gp: bool,
    dma_translation: bool,
    pasid_bits: u64,
    aw_bits: u64,
    intremap: bool,
    eim: bool,
    version: u64,
    stale_tm: bool,
}

/// Sets the defaults of the device: all its features.
pub fn set_defaults(bql: &Bql, device: Neighbour) -> bool {
    let on = |name| device.set_switch(bql, name, true);
    on(c"device-iotlb")
        && on(c"snoop-control")
        && set_switch(bql, device, &SCALABLE_MODE, true)
        && set_switch(bql, device, &FSTS, true)
        && set_svm(bql, device, true)
        && set_pasid_bits(bql, device, PasidWidth::MAX.bits().into())
}

/// The names of a property: in QEMU 11, and in earlier series.
type Names = [&'static CStr; 2];

const SCALABLE_MODE: Names = [c"scalable-mode", c"x-scalable-mode"];
const FSTS: Names = [c"fsts", c"x-flts"];

fn set_switch(bql: &Bql, device: Neighbour, names: &Names, on: bool) -> bool {
    names.iter().any(|name| device.set_switch(bql, name, on))
}

/// `svm`, which series before QEMU 11 lack: it cannot be switched off there.
fn set_svm(bql: &Bql, device: Neighbour, on: bool) -> bool {
    device.switch(bql, c"svm").is_none() || device.set_switch(bql, c"svm", on)
}

/// `pasid-bits`, likewise. Their property `x-pasid-mode` excludes `device-iotlb`.
fn set_pasid_bits(bql: &Bql, device: Neighbour, bits: u64) -> bool {
    device.number(bql, c"pasid-bits").is_none() || device.set_number(bql, c"pasid-bits", bits)
}

/// Switches features off that depend on a feature that was switched off, and reports it: they are
/// on by default, and a user who has switched one on expects it.
pub fn normalize(bql: &Bql, device: Neighbour, settings: &Settings) -> Result<(), String> {
    let mut of = Inherited::read(bql, device)?;
    let dropped = of.drop_dependent();
    let done = set_switch(bql, device, &FSTS, of.fsts)
        && set_svm(bql, device, of.svm)
        && set_pasid_bits(bql, device, of.pasid_bits);
    if !done {
        return Err(missing(c"fsts, svm or pasid-bits"));
    }
    // Before the parent reports errors in defaults that the user has not set.
    let config = settings.config(&of)?;
    Capabilities::new(config).map_err(|error| error.to_string())?;
    for (names, cause) in dropped {
        message::warning(&format!(
            "svm-vtd: without effect because of {cause}: {}",
            names.join(", ")
        ));
    }
    Ok(())
}

/// A property that differs from the supported QEMU.
fn missing(name: &CStr) -> String {
    format!(
        "intel-iommu has no property {} as expected",
        name.to_string_lossy()
    )
}

impl Inherited {
    /// Switches off the features that depend on a feature that is off. Returns them, by their
    /// properties, and the reasons.
    fn drop_dependent(&mut self) -> Vec<(Vec<&'static str>, &'static str)> {
        let mut dropped = Vec::new();
        let mut because = |cause: &'static str, parts: &mut [(&'static str, &mut bool)]| {
            let mut names = Vec::new();
            for (name, part) in parts {
                if std::mem::take(*part) {
                    names.push(*name);
                }
            }
            if !names.is_empty() {
                dropped.push((names, cause));
            }
        };
        let Inherited { fsts, svm, .. } = self;
        let mut pasids = self.pasid_bits != 0;
        if !self.scalable_mode {
            because(
                "scalable-mode=off",
                &mut [("fsts", fsts), ("svm", svm), ("pasid-bits", &mut pasids)],
            );
            self.pasid_bits = 0;
        }
        if self.aw_bits == 39 {
            // First-stage tables have 48 bits or more.
            because("aw-bits=39", &mut [("fsts", fsts), ("svm", svm)]);
        }
        if !*fsts {
            because("fsts=off", &mut [("svm", svm)]);
        }
        if !self.device_iotlb {
            because("device-iotlb=off", &mut [("svm", svm)]);
        }
        if self.pasid_bits == 0 {
            because("pasid-bits=0", &mut [("svm", svm)]);
        }
        dropped
    }

    /// Reads them. `intremap` and `eim` are final after the device has been realized.
    pub fn read(bql: &Bql, device: Neighbour) -> Result<Inherited, String> {
        let switch = |name| device.switch(bql, name).ok_or_else(|| missing(name));
        let number = |name| device.number(bql, name).ok_or_else(|| missing(name));
        let either = |names: &Names| {
            let mut values = names.iter().map(|name| device.switch(bql, name));
            let first = values.find_map(|value| value);
            first.ok_or_else(|| missing(names[0]))
        };
        let choice = |name| {
            let value = device.text(bql, name);
            value.map(|v| v == "on").ok_or_else(|| missing(name))
        };
        Ok(Inherited {
            scalable_mode: either(&SCALABLE_MODE)?,
            fsts: either(&FSTS)?,
            svm: device.switch(bql, c"svm").unwrap_or(true),
            device_iotlb: switch(c"device-iotlb")?,
            caching_mode: switch(c"caching-mode")?,
            snoop_control: switch(c"snoop-control")?,
            fs1gp: switch(c"fs1gp")?,
            dma_translation: switch(c"dma-translation")?,
            pasid_bits: device
                .number(bql, c"pasid-bits")
                .unwrap_or(PasidWidth::MAX.bits().into()),
            aw_bits: number(c"aw-bits")?,
            intremap: choice(c"intremap")?,
            eim: choice(c"eim")?,
            version: number(c"version")?,
            stale_tm: switch(c"stale-tm")?,
        })
    }
}

impl Settings {
    /// The configuration of the unit.
    pub fn config(&self, inherited: &Inherited) -> Result<Config, String> {
        if !inherited.dma_translation {
            return Err("svm-vtd always translates: leave out dma-translation=off".to_owned());
        }
        if inherited.stale_tm {
            return Err(
                "svm-vtd takes no second-stage entries with the TM bit: leave out stale-tm=on"
                    .to_owned(),
            );
        }
        if self.delay != 0 && !self.thread {
            return Err(format!(
                "invalidation-delay={} is the delay of a thread: add invalidation-thread=on",
                self.delay
            ));
        }
        let version = match u8::try_from(inherited.version) {
            // None is chosen.
            Ok(0) => Config::default().version,
            Ok(register) => (register >> 4, register & 0xf),
            Err(_) => {
                return Err(format!(
                    "version is VER_REG, at most 0xff, not {:#x}",
                    inherited.version
                ));
            }
        };
        let second_stage_width = match inherited.aw_bits {
            39 => AddressWidth::Bits39,
            48 => AddressWidth::Bits48,
            other => return Err(format!("aw-bits must be 39 or 48, not {other}")),
        };
        let scalable = inherited.scalable_mode.then(|| self.scalable(inherited));
        Ok(Config {
            version,
            // As in the DMAR table of QEMU's machines.
            host_address_width: second_stage_width.bits(),
            second_stage_width,
            caching_mode: inherited.caching_mode,
            snoop_control: inherited.snoop_control,
            device_tlbs: inherited.device_iotlb.then_some(DeviceTlbs {
                timeout: Duration::from_millis(self.timeout),
                throttle: true,
                no_write_flag: true,
                page_requests: inherited.svm,
            }),
            interrupt_remapping: inherited.intremap.then_some(InterruptRemapping {
                extended_mode: inherited.eim,
                posted: false,
            }),
            scalable: scalable.transpose()?,
            // QEMU's regions do not support protected memory, and pass translated addresses on in
            // pieces larger than a page.
            protected_memory: false,
            strict: self.strict,
            // The kernel of the host can fail to invalidate what it has of a device that is
            // assigned.
            confirm_invalidations: inherited.fsts && !self.ssts,
            ..Config::default()
        })
    }

    /// Scalable mode.
    fn scalable(&self, inherited: &Inherited) -> Result<Scalable, String> {
        let first = FirstStage {
            five_levels: self.fs5lp,
            one_gib_pages: inherited.fs1gp,
            extended_accessed: true,
        };
        let stages = match (inherited.fsts, self.ssts) {
            (true, true) => Stages::Both {
                first,
                nested: self.nest,
            },
            (true, false) => Stages::First(first),
            (false, true) => Stages::Second,
            (false, false) => {
                return Err("scalable mode needs a stage: switch fsts or ssts on".to_owned());
            }
        };
        let pasids = match u8::try_from(inherited.pasid_bits) {
            Ok(0) => None,
            bits => {
                let width = PasidWidth::new(bits.unwrap_or(u8::MAX));
                Some(Pasids {
                    width: width.map_err(|error| format!("pasid-bits: {error}"))?,
                    execute_requests: false,
                })
            }
        };
        Ok(Scalable {
            stages,
            pasids,
            coherent_walks: true,
            second_stage_dirty: self.ssts,
            supervisor_requests: true,
            rid_pasid: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Inherited = Inherited {
        scalable_mode: true,
        fsts: true,
        svm: true,
        device_iotlb: true,
        caching_mode: false,
        snoop_control: true,
        fs1gp: true,
        dma_translation: true,
        pasid_bits: 20,
        aw_bits: 48,
        intremap: true,
        eim: true,
        version: 0,
        stale_tm: false,
    };

    fn capabilities(settings: &Settings, inherited: &Inherited) -> Capabilities {
        Capabilities::new(settings.config(inherited).unwrap()).unwrap()
    }

    #[test]
    fn descriptions_name_the_real_defaults() {
        property::tests::descriptions_are_true(&PROPERTIES, Settings::default(), "");
    }

    #[test]
    fn the_default_is_able_to_do_everything() {
        let c = capabilities(&Settings::default(), &ALL);
        let e = c.ecap();
        assert!(e.smts() && e.smpwcs() && e.nest() && e.prs() && e.pds() && e.ir() && e.eim());
        assert!(c.cap().fs5lp() && c.cap().fs1gp() && !c.cap().cm());
        assert_eq!(e.pasid_width(), 20);
    }

    #[test]
    fn each_property_takes_its_ability_away() {
        let own = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            capabilities(&settings, &ALL)
        };
        assert!(!own(|s| s.nest = false).ecap().nest());
        let first = own(|s| s.ssts = false).ecap();
        assert!(!first.ssts() && !first.nest() && !first.ssads() && first.fsts());
        assert!(!own(|s| s.fs5lp = false).cap().fs5lp());
        let inherited = |change: fn(&mut Inherited)| {
            let mut inherited = ALL;
            change(&mut inherited);
            capabilities(&Settings::default(), &inherited)
        };
        assert!(!inherited(|i| i.scalable_mode = false).ecap().smts());
        assert!(!inherited(|i| i.fsts = false).ecap().fsts());
        assert!(!inherited(|i| i.svm = false).ecap().prs());
        assert!(!inherited(|i| i.device_iotlb = false).ecap().dt());
        assert!(inherited(|i| i.caching_mode = true).cap().cm());
        assert!(!inherited(|i| i.snoop_control = false).ecap().sc());
        assert!(!inherited(|i| i.fs1gp = false).cap().fs1gp());
        assert!(!inherited(|i| i.pasid_bits = 0).ecap().pasid());
        assert_eq!(inherited(|i| i.pasid_bits = 8).ecap().pasid_width(), 8);
        for (bits, second) in [(39, None), (48, Some((4, 48)))] {
            let mut other = ALL;
            other.aw_bits = bits;
            let c = capabilities(&Settings::default(), &other);
            assert_eq!(u64::from(c.cap().mgaw()), bits);
            assert_eq!(u64::from(c.host_address_width()), bits);
            assert_eq!(c.second_stage(2), second);
        }
        assert!(!inherited(|i| i.intremap = false).ecap().ir());
        assert!(!inherited(|i| i.eim = false).ecap().eim());
        assert_eq!(inherited(|_| {}).version(), 0x40);
        assert_eq!(inherited(|i| i.version = 0x31).version(), 0x31);
    }

    #[test]
    fn what_is_dropped_is_named_with_what_it_needs() {
        let dropped = |change: fn(&mut Inherited)| {
            let mut inherited = ALL;
            change(&mut inherited);
            let dropped = inherited.drop_dependent();
            let left = (inherited.fsts, inherited.svm, inherited.pasid_bits);
            (dropped, left)
        };
        assert_eq!(dropped(|_| {}), (vec![], (true, true, 20)));
        for (change, names, cause, left) in [
            (
                (|i| i.scalable_mode = false) as fn(&mut Inherited),
                vec!["fsts", "svm", "pasid-bits"],
                "scalable-mode=off",
                (false, false, 0),
            ),
            (
                |i| i.fsts = false,
                vec!["svm"],
                "fsts=off",
                (false, false, 20),
            ),
            (
                |i| i.device_iotlb = false,
                vec!["svm"],
                "device-iotlb=off",
                (true, false, 20),
            ),
            (
                |i| i.pasid_bits = 0,
                vec!["svm"],
                "pasid-bits=0",
                (true, false, 0),
            ),
            (
                |i| i.aw_bits = 39,
                vec!["fsts", "svm"],
                "aw-bits=39",
                (false, false, 20),
            ),
        ] {
            assert_eq!(dropped(change), (vec![(names, cause)], left));
        }
        // Features that were already off are not reported.
        let all_off = dropped(|i| (i.fsts, i.svm) = (false, false));
        assert_eq!(all_off.0, []);
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_reason() {
        let reason =
            |settings: Settings, inherited: Inherited| settings.config(&inherited).unwrap_err();
        let settings = Settings::default;
        let no_stage = Settings {
            ssts: false,
            ..settings()
        };
        let fsts_off = Inherited { fsts: false, ..ALL };
        assert!(reason(no_stage, fsts_off).contains("fsts or ssts"));
        let off = Inherited {
            dma_translation: false,
            ..ALL
        };
        assert!(reason(settings(), off).contains("dma-translation"));
        let wide = Inherited {
            pasid_bits: 300,
            ..ALL
        };
        assert!(reason(settings(), wide).contains("pasid-bits"));
        let stale = Inherited {
            stale_tm: true,
            ..ALL
        };
        assert!(reason(settings(), stale).contains("stale-tm"));
        let unknown = Inherited {
            version: 0x100,
            ..ALL
        };
        assert!(reason(settings(), unknown).contains("not 0x100"));
        let newer = Inherited {
            version: 0x80,
            ..ALL
        };
        let config = settings().config(&newer).unwrap();
        let refused = Capabilities::new(config).unwrap_err().to_string();
        assert!(refused.contains("major version"), "{refused}");
        let narrow = Inherited { aw_bits: 40, ..ALL };
        assert!(reason(settings(), narrow).contains("not 40"));
    }
}
