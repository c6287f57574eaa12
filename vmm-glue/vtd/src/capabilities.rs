// SPDX-License-Identifier: MIT OR Apache-2.0
//! The capabilities of a unit: a checked configuration, as CAP_REG and ECAP_REG report it (sections
//! 11.4.2 and 11.4.3), and the values that it determines.

use crate::config::{Config, ConfigError, LargePages, Stages};
use crate::mutant::{Mutant, breaks};
use crate::spec::capability::{Capability, ExtendedCapability};
use crate::spec::register::offset;

/// A checked configuration with its capability registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    config: Config,
    cap: Capability,
    ecap: ExtendedCapability,
}

impl Capabilities {
    /// The capability registers of a configuration.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let range = |what, value: u32, min, max| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::OutOfRange {
                    what,
                    value,
                    min,
                    max,
                })
            }
        };
        range("the major version", config.version.0.into(), 1, 7)?;
        range("the minor version", config.version.1.into(), 0, 15)?;
        let haw = config.host_address_width;
        range("the host address width", haw.into(), 32, 52)?;
        range("the domain id width", config.domain_id_width.into(), 4, 16)?;
        let most = (offset::FRCD_END - offset::FRCD) / 16;
        let records = config.fault_records;
        range(
            "the number of fault records",
            records.into(),
            1,
            most.into(),
        )?;
        range(
            "the context cache's size",
            config.caches.contexts,
            1,
            1 << 16,
        )?;
        range("the PASID cache's size", config.caches.pasids, 1, 1 << 24)?;
        range("the IOTLB's size", config.caches.iotlb, 8, 1 << 26)?;
        let interrupts = config.caches.interrupts;
        range("the interrupt entry cache's size", interrupts, 1, 1 << 16)?;
        if config.domain_id_width % 2 != 0 {
            return Err(ConfigError::OddDomainIdWidth(config.domain_id_width));
        }
        if let Some(s) = &config.scalable {
            let needs = |has: bool, what, needs| {
                if has {
                    Ok(())
                } else {
                    Err(ConfigError::Needs { what, needs })
                }
            };
            let (first, second) = match s.stages {
                Stages::First(first) => (Some(first), false),
                Stages::Second => (None, true),
                Stages::Both { first, .. } => (Some(first), true),
            };
            let ea = first.is_some_and(|f| f.extended_accessed);
            let walks = "coherent page walks (SMPWCS)";
            needs(
                !ea || s.coherent_walks,
                "the extended-accessed flag (EAFS)",
                walks,
            )?;
            let dirty = "second-stage accessed and dirty flags (SSADS)";
            needs(!s.second_stage_dirty || s.coherent_walks, dirty, walks)?;
            needs(
                !s.second_stage_dirty || second,
                dirty,
                "a second stage (SSTS)",
            )?;
        }
        Ok(Capabilities {
            cap: capability(&config),
            ecap: extended_capability(&config),
            config,
        })
    }

    /// The configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// CAP_REG.
    pub const fn cap(&self) -> Capability {
        self.cap
    }

    /// ECAP_REG.
    pub const fn ecap(&self) -> ExtendedCapability {
        self.ecap
    }

    /// VER_REG.
    pub const fn version(&self) -> u32 {
        (self.config.version.0 as u32) << 4 | self.config.version.1 as u32
    }

    /// Host address width.
    pub const fn host_address_width(&self) -> u8 {
        self.config.host_address_width
    }

    /// Whether an address fits into the host address width.
    pub const fn holds(&self, address: u64) -> bool {
        address >> self.config.host_address_width == 0
    }

    /// The width of the second stage that an AW field selects, if it is supported: the number of
    /// levels, and the number of bits of input addresses (also limited by MGAW).
    pub const fn second_stage(&self, aw: u8) -> Option<(u8, u8)> {
        if aw == 0 || aw > 3 || self.cap.sagaw() & 1 << aw == 0 {
            return None;
        }
        let bits = 30 + 9 * aw;
        let mgaw = self.cap.mgaw();
        Some((aw + 2, if bits < mgaw { bits } else { mgaw }))
    }
}

/// CAP_REG (section 11.4.2).
fn capability(c: &Config) -> Capability {
    let first = match c.scalable.map(|s| s.stages) {
        Some(Stages::First(first) | Stages::Both { first, .. }) => Some(first),
        _ => None,
    };
    let posted = c.interrupt_remapping.is_some_and(|i| i.posted);
    // All widths up to the widest: bits 1 to AW of SAGAW.
    let sagaw = (1 << (c.second_stage_width.aw() + 1)) - 2;
    let sslps = match c.large_pages {
        LargePages::None => 0,
        LargePages::TwoMib => 1,
        LargePages::OneGib => 3,
    };
    let mgaw = c.second_stage_width.bits().max(c.host_address_width);
    Capability::ZERO
        .with_nd((c.domain_id_width - 4) / 2)
        .with_plmr(c.protected_memory)
        .with_phmr(c.protected_memory)
        .with_cm(c.caching_mode)
        .with_sagaw(sagaw)
        .with_mgaw_less_1(mgaw - 1)
        .with_zlr(true)
        .with_fro(offset::FRCD / 16)
        .with_sslps(sslps)
        .with_psi(true)
        .with_nfr_less_1(c.fault_records - 1)
        .with_mamv(18)
        .with_dwd(true)
        .with_drd(true)
        .with_fs1gp(first.is_some_and(|f| f.one_gib_pages) || breaks(Mutant::S80A))
        .with_pi(posted)
        .with_fs5lp(first.is_some_and(|f| f.five_levels))
        .with_esirtps(c.interrupt_remapping.is_some())
        .with_esrtps(true)
}

/// ECAP_REG (section 11.4.3).
fn extended_capability(c: &Config) -> ExtendedCapability {
    let mut e = ExtendedCapability::ZERO
        .with_c(true)
        .with_qi(true)
        .with_pt(c.pass_through)
        .with_sc(c.snoop_control)
        .with_iro(offset::IVA / 16)
        .with_vcs(c.virtual_commands)
        .with_adms(c.abort_dma);
    if let Some(d) = &c.device_tlbs {
        e = e
            .with_dt(true)
            .with_nwfs(d.no_write_flag)
            .with_dit(d.throttle);
    }
    if let Some(i) = &c.interrupt_remapping {
        e = e.with_ir(true).with_eim(i.extended_mode).with_mhmv(15);
    }
    if let Some(s) = &c.scalable {
        let (first, second, nested) = match s.stages {
            Stages::First(first) => (Some(first), false, false),
            Stages::Second => (None, true, false),
            Stages::Both { first, nested } => (Some(first), true, nested),
        };
        e = e
            .with_smts(true)
            .with_nest(nested)
            .with_srs(s.supervisor_requests)
            .with_eafs(first.is_some_and(|f| f.extended_accessed))
            .with_ssads(s.second_stage_dirty)
            .with_ssts(second)
            .with_fsts(first.is_some())
            .with_smpwcs(s.coherent_walks && !breaks(Mutant::S80B))
            .with_rps(s.rid_pasid || breaks(Mutant::Rule80))
            .with_rprivs(s.supervisor_requests);
        if let Some(p) = &s.pasids {
            e = e
                .with_pasid(true)
                .with_pss_less_1(p.width.bits() - 1)
                .with_ers(p.execute_requests);
        }
        if c.device_tlbs.is_some_and(|d| d.page_requests) {
            e = e.with_prs(true).with_pds(true).with_sms(true);
        }
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AddressWidth, FirstStage, Scalable};

    fn caps(change: impl FnOnce(&mut Config)) -> Result<Capabilities, ConfigError> {
        let mut config = Config::default();
        change(&mut config);
        Capabilities::new(config)
    }

    #[test]
    fn the_default_has_all_that_linux_asks_for() {
        let c = caps(|_| {}).unwrap();
        let (cap, e) = (c.cap(), c.ecap());
        assert!(e.qi() && e.dt() && e.ir() && e.eim() && e.pt() && e.sc() && e.nest());
        assert!(e.prs() && e.pds() && e.pasid() && e.smts() && e.ssts() && e.fsts());
        assert!(e.smpwcs() && e.ssads() && e.srs() && e.eafs() && e.rps() && e.adms());
        assert_eq!(e.pasid_width(), 20);
        assert!(cap.fs1gp() && cap.fs5lp() && cap.psi() && cap.esrtps() && !cap.cm());
        assert_eq!(
            (cap.domain_id_width(), cap.sagaw(), cap.mgaw()),
            (16, 6, 52)
        );
        assert_eq!((cap.sslps(), cap.fault_recording_registers()), (3, 8));
        assert_eq!(cap.fault_recording_offset(), offset::FRCD);
        assert_eq!(e.iotlb_offset(), offset::IVA);
    }

    #[test]
    fn abilities_go_with_what_they_need() {
        let e = caps(|c| c.scalable = None).unwrap().ecap();
        assert!(e.dt() && !e.prs() && !e.pds() && !e.smts() && !e.pasid() && !e.fsts());
        assert_eq!(e.pasid_width(), 0);
        let c = caps(|c| c.device_tlbs = None).unwrap().ecap();
        assert!(!c.dt() && !c.prs() && !c.pds() && !c.nwfs() && !c.dit() && !c.sms());
        let c = caps(|c| c.interrupt_remapping = None).unwrap();
        assert!(!c.ecap().ir() && !c.ecap().eim() && !c.cap().pi() && !c.cap().esirtps());
        assert_eq!(c.ecap().mhmv(), 0);
        let c = caps(|c| c.scalable.as_mut().unwrap().stages = Stages::Second);
        assert_eq!(c.unwrap().cap().0 & (1 << 56 | 1 << 60), 0);
    }

    #[test]
    fn contradictions_are_refused() {
        let scalable = |change: fn(&mut Scalable)| caps(|c| change(c.scalable.as_mut().unwrap()));
        let needs = |r: Result<_, _>| matches!(r, Err(ConfigError::Needs { .. }));
        assert!(needs(scalable(|s| s.coherent_walks = false)));
        assert!(needs(scalable(|s| {
            s.stages = Stages::First(FirstStage {
                five_levels: false,
                one_gib_pages: true,
                extended_accessed: false,
            });
        })));
        let bounds: [fn(&mut Config); 6] = [
            |c| c.host_address_width = 53,
            |c| c.host_address_width = 31,
            |c| c.fault_records = 0,
            |c| c.fault_records = 15,
            |c| c.version = (8, 0),
            |c| c.caches.iotlb = 0,
        ];
        for change in bounds {
            assert!(matches!(caps(change), Err(ConfigError::OutOfRange { .. })));
        }
        assert_eq!(
            caps(|c| c.domain_id_width = 5),
            Err(ConfigError::OddDomainIdWidth(5))
        );
    }

    #[test]
    fn second_stage_widths_are_those_of_sagaw() {
        let c = caps(|c| c.second_stage_width = AddressWidth::Bits57).unwrap();
        let all = [0, 1, 2, 3, 4].map(|aw| c.second_stage(aw));
        assert_eq!(
            all,
            [None, Some((3, 39)), Some((4, 48)), Some((5, 57)), None]
        );
        let c = caps(|c| c.second_stage_width = AddressWidth::Bits39).unwrap();
        assert_eq!(c.second_stage(2), None);
    }
}
