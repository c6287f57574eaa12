// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges one PCI device and its path to the root complex by the rules of Linux: when Linux enables
//! PASID, ATS and page requests, and what it requires of a device before it binds an address space
//! to it. Pure functions.

use serde::{Deserialize, Serialize};

use crate::check::{Check, Verdict};
use crate::config_space::{Acs, Depth, Function, Port};
use crate::facts::{Facts, Iommu, IommuKind, PciDevice};
use crate::machine;

/// Whether shared virtual addressing works with a device on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sva {
    /// Nothing prevents it.
    Works,
    /// Page requests are missing. It works for a driver that does not need them: its device handles
    /// page faults in its own way, or memory has to be present.
    WithoutPageRequests,
    /// Something is missing.
    Impossible,
    /// Not everything could be read.
    Unknown,
}

/// A device, judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Domain, bus, device and function.
    pub address: String,
    /// Vendor and device ID as four hexadecimal digits each; absent if they cannot be read.
    pub id: Option<String>,
    /// Base class, sub-class and programming interface, as six hexadecimal digits.
    pub class: Option<String>,
    /// A bridge: it lies on the path of other devices and does not use an address space itself.
    pub bridge: bool,
    /// The driver that is bound to it.
    pub driver: Option<String>,
    /// Number of its IOMMU group.
    pub group: Option<String>,
    /// Its IOMMU.
    pub iommu: Option<String>,
    /// PASID: width in bits, and whether it is on.
    pub pasid: Option<(u8, bool)>,
    /// ATS: whether it is on.
    pub ats: Option<bool>,
    /// Page requests: whether they are on.
    pub pri: Option<bool>,
    /// The conclusion.
    pub sva: Sva,
    /// The checks, item by item.
    pub checks: Vec<Check>,
}

impl DeviceReport {
    /// The items that prevent it, or may do so.
    pub fn reasons(&self) -> impl Iterator<Item = &Check> {
        let verdict = |check: &&Check| check.verdict != Verdict::Present;
        self.checks.iter().filter(verdict)
    }

    /// Whether it was designed for shared virtual addressing: it has one of the capabilities.
    pub fn has_capabilities(&self) -> bool {
        self.pasid.is_some() || self.ats.is_some() || self.pri.is_some()
    }
}

/// A property of the device, which cannot be changed.
const FIXED: &str = "a property of the device";

/// Judges a device of the machine.
pub fn examine_device(device: &PciDevice, facts: &Facts) -> DeviceReport {
    let function = device.function.as_ref().ok();
    // A virtual function shares the capabilities of its physical function.
    let owner = device
        .physical
        .as_ref()
        .and_then(|address| facts.device(address))
        .unwrap_or(device);
    let shared = owner.function.as_ref().ok();
    let mut checks = vec![readable(device)];
    if let (Some(function), Some(shared)) = (function, shared) {
        if function.depth == Depth::Extended {
            checks.push(pasid(shared));
            checks.extend(path(owner, facts, shared.pasid.is_some_and(|p| p.enabled)));
            checks.push(ats(function));
            checks.extend(firmware(owner, facts));
            checks.push(pri(shared, function));
        }
    }
    checks.extend(iommu(device, facts));
    checks.push(driver(device));
    DeviceReport {
        address: device.address.clone(),
        id: function.map(|f| format!("{:04x}:{:04x}", f.vendor, f.device)),
        class: function.map(|f| format!("{:06x}", f.class)),
        bridge: function.is_some_and(|f| f.bridge),
        driver: device.driver.clone(),
        group: device.group.clone(),
        iommu: device.iommu.clone(),
        pasid: shared.and_then(|f| f.pasid).map(|p| (p.width, p.enabled)),
        ats: function.and_then(|f| f.ats).map(|ats| ats.enabled),
        pri: shared.and_then(|f| f.pri).map(|pri| pri.enabled),
        sva: conclude(&checks),
        checks,
    }
}

/// Name of the check of page requests; the conclusion depends on it.
const PAGE_REQUESTS: &str = "page requests (PRI)";

fn conclude(checks: &[Check]) -> Sva {
    let any = |verdict| checks.iter().any(|check| check.verdict == verdict);
    let optional =
        |check: &Check| check.name == PAGE_REQUESTS && check.verdict == Verdict::Optional;
    if any(Verdict::Missing) {
        Sva::Impossible
    } else if any(Verdict::Unknown) {
        Sva::Unknown
    } else if checks.iter().any(optional) {
        Sva::WithoutPageRequests
    } else {
        Sva::Works
    }
}

fn on(enabled: bool) -> &'static str {
    if enabled { "enabled" } else { "not enabled" }
}

fn readable(device: &PciDevice) -> Check {
    let name = "configuration space";
    match &device.function {
        Err(error) => Check::new(
            name,
            Verdict::Unknown,
            error.to_string(),
            "run this as root",
        ),
        Ok(function) => match (function.depth, function.express) {
            (Depth::Header, _) => Check::new(
                name,
                Verdict::Unknown,
                "only the header can be read",
                "run this as root",
            ),
            (_, None) => Check::new(
                name,
                Verdict::Missing,
                "no PCI Express capability",
                "conventional PCI has none of ATS, PASID and page requests",
            ),
            (Depth::Conventional, Some(_)) => Check::new(
                name,
                Verdict::Missing,
                "256 bytes",
                "the capabilities stand in the extended part, which neither this program nor Linux \
                 can reach here: the firmware has to describe it (ACPI MCFG)",
            ),
            (Depth::Extended, Some(express)) => {
                Check::new(name, Verdict::Present, express.port.name(), "")
            }
        },
    }
}

fn pasid(function: &Function) -> Check {
    let name = "PASID capability";
    match function.pasid {
        None => Check::new(name, Verdict::Missing, "none", FIXED),
        Some(pasid) => {
            let found = format!(
                "{} bits, {}{}{}",
                pasid.width,
                on(pasid.enabled),
                if pasid.execute { ", execute" } else { "" },
                if pasid.privileged { ", privileged" } else { "" },
            );
            Check::new(name, Verdict::of(pasid.width > 0), found, FIXED)
        }
    }
}

/// What Linux requires of each function from the device to the root complex before it enables
/// PASID. If it has already enabled PASID, possibly because of a quirk, nothing is missing.
fn path(device: &PciDevice, facts: &Facts, pasid_enabled: bool) -> Vec<Check> {
    let hops: Vec<(&str, Option<&Function>)> = device
        .bridges
        .iter()
        .chain([&device.address])
        .map(|address| {
            let hop = facts.device(address);
            (
                address.as_str(),
                hop.and_then(|hop| hop.function.as_ref().ok()),
            )
        })
        .collect();
    vec![
        judge_path(
            "PASID prefixes end to end",
            hops.iter().find_map(|hop| blocks_prefixes(*hop)),
            pasid_enabled,
            "use another slot: each port on the way has to forward End-End TLP prefixes \
             (DevCap2.EETLPP)",
        ),
        judge_path(
            "requests redirected to the root complex (ACS)",
            hops.iter().find_map(|hop| blocks_redirection(*hop)),
            pasid_enabled,
            "switch ACS on in the firmware, or use another slot: a peer could take a request with \
             a PASID for its own address; `pci=config_acs=` can set it",
        ),
    ]
}

/// Why a function of the path is an obstacle, and whether that is certain.
type Obstacle = (Verdict, String);

fn judge_path(name: &str, obstacle: Option<Obstacle>, enabled: bool, remedy: &str) -> Check {
    match obstacle {
        None => Check::new(name, Verdict::Present, "each function on the way", ""),
        Some((_, why)) if enabled => {
            let found = format!("{why}; Linux has enabled PASID all the same");
            Check::new(name, Verdict::Present, found, "")
        }
        Some((verdict, why)) => Check::new(name, verdict, why, remedy),
    }
}

fn blocks_prefixes((address, function): (&str, Option<&Function>)) -> Option<Obstacle> {
    let unknown = || Some((Verdict::Unknown, format!("{address} cannot be read")));
    let Some(function) = function else {
        return unknown();
    };
    match function.express {
        Some(express) if express.end_to_end_prefixes.is_some() => None,
        Some(express) => Some((
            Verdict::Missing,
            format!("{address} ({}) has none", express.port.name()),
        )),
        None if function.depth != Depth::Header => {
            Some((Verdict::Missing, format!("{address} is conventional PCI")))
        }
        None => unknown(),
    }
}

/// Whether an address is not that of the first function of its device. Linux treats such a function
/// as one of several, whatever its own header says.
fn is_a_further_function(address: &str) -> bool {
    !address.ends_with(".0")
}

fn blocks_redirection((address, function): (&str, Option<&Function>)) -> Option<Obstacle> {
    let unknown = || Some((Verdict::Unknown, format!("{address} cannot be read")));
    let Some(function) = function.filter(|function| function.depth != Depth::Header) else {
        return unknown();
    };
    let Some(express) = function.express else {
        return Some((Verdict::Missing, format!("{address} is conventional PCI")));
    };
    let needed = match express.port {
        Port::RootPort | Port::Downstream => true,
        Port::ToPci | Port::FromPci | Port::EventCollector => {
            let why = format!("{address} is a {}", express.port.name());
            return Some((Verdict::Missing, why));
        }
        // Of the other kinds, only devices with several functions could route requests between
        // them.
        _ => function.multifunction || is_a_further_function(address),
    };
    if !needed {
        return None;
    }
    let at = format!("{address} ({})", express.port.name());
    match function.acs {
        None => Some((
            Verdict::Missing,
            format!("{at} has no ACS, unless Linux has a quirk for it"),
        )),
        Some(acs) => {
            let lacking = acs.lacking(Acs::REQUEST_REDIRECT | Acs::UPSTREAM_FORWARDING);
            let names = [
                (Acs::REQUEST_REDIRECT, "request redirect"),
                (Acs::UPSTREAM_FORWARDING, "upstream forwarding"),
            ];
            let off: Vec<_> = names
                .into_iter()
                .filter(|(bit, _)| lacking & bit != 0)
                .map(|(_, name)| name)
                .collect();
            (!off.is_empty()).then(|| {
                (
                    Verdict::Missing,
                    format!("{at} has {} off", off.join(" and ")),
                )
            })
        }
    }
}

fn ats(function: &Function) -> Check {
    let name = "address translation services (ATS)";
    match function.ats {
        None => Check::new(name, Verdict::Missing, "none", FIXED),
        Some(ats) => {
            let aligned = match ats.page_aligned {
                true => "page-aligned",
                false => "not page-aligned, which Linux refuses",
            };
            let found = format!(
                "{}, {aligned}, invalidation queue depth {}",
                on(ats.enabled),
                ats.queue_depth
            );
            Check::new(name, Verdict::of(ats.page_aligned), found, FIXED)
        }
    }
}

/// What the firmware permits below this root port, if its table could be read.
fn firmware(device: &PciDevice, facts: &Facts) -> Option<Check> {
    let dmar = facts.dmar.as_ref()?;
    let root_port = device.bridges.first().map(String::as_str);
    let permitted = dmar.ats_permitted(&device.address, root_port);
    let found = match (root_port, permitted) {
        (None, _) => "an integrated device".to_owned(),
        (Some(port), true) => format!("the table DMAR permits it below {port}"),
        (Some(port), false) => format!("the table DMAR does not name {port}"),
    };
    Some(Check::new(
        "ATS permitted by the firmware",
        Verdict::of(permitted),
        found,
        "use another slot, or newer firmware: Linux uses ATS only where an ATSR or SATC structure \
         of the table says so",
    ))
}

fn pri(shared: &Function, function: &Function) -> Check {
    let Some(pri) = shared.pri else {
        return Check::new(
            PAGE_REQUESTS,
            Verdict::Optional,
            "none",
            "memory has to be present, or the device has to handle faults with its driver",
        );
    };
    let mut found = format!(
        "{}, {} of {} outstanding allowed",
        on(pri.enabled),
        pri.allocation,
        pri.capacity
    );
    for (is, text) in [
        (pri.response_failure, ", stopped by a Response Failure"),
        (pri.unexpected_index, ", an unexpected group index came"),
    ] {
        if is {
            found += text;
        }
    }
    if !pri.response_pasid_required && function.pasid.is_some() {
        let found = format!("{found}; responses without PASID");
        let remedy = "Linux leaves page requests off then: a property of the device";
        return Check::new(PAGE_REQUESTS, Verdict::Missing, found, remedy);
    }
    if pri.response_failure {
        let remedy = "reset the function: `echo 1 > /sys/bus/pci/devices/…/reset`";
        return Check::new(PAGE_REQUESTS, Verdict::Missing, found, remedy);
    }
    Check::new(PAGE_REQUESTS, Verdict::Present, found, "")
}

/// The device's IOMMU, and everything in it that prevents shared virtual addressing.
fn iommu(device: &PciDevice, facts: &Facts) -> Vec<Check> {
    let name = "behind an IOMMU";
    let remedy = "switch the IOMMU on in the firmware and on the kernel's command line; devices \
                  below some host bridges have none";
    let Some(unit) = &device.iommu else {
        return vec![Check::new(name, Verdict::Missing, "none", remedy)];
    };
    let others = |other: &&PciDevice| other.group == device.group && device.group.is_some();
    let members = facts.devices.iter().filter(others).count();
    let found = format!(
        "{unit}, group {}{}{}",
        device.group.as_deref().unwrap_or("none"),
        match members {
            0 | 1 => String::new(),
            n => format!(" with {} others", n - 1),
        },
        device
            .group_type
            .as_ref()
            .map(|kind| format!(", domain {kind}"))
            .unwrap_or_default(),
    );
    let mut checks = vec![Check::new(name, Verdict::Present, found, "")];
    if members > 1 {
        checks.push(Check::new(
            "an IOMMU group of its own",
            Verdict::Missing,
            format!(
                "{members} functions share group {}",
                device.group.as_deref().unwrap_or("")
            ),
            "Linux binds address spaces to the only device of a group: switch on ACS on the way, \
             or use another slot",
        ));
    }
    checks.extend(unit_in_the_way(
        facts.iommus.iter().find(|other| &other.name == unit),
        facts,
    ));
    checks
}

/// One line for the unit: the checks of the machine have the details.
fn unit_in_the_way(unit: Option<&Iommu>, facts: &Facts) -> Option<Check> {
    let unit = unit?;
    let needs_options = matches!(unit.kind, IommuKind::Vtd { .. });
    let checks = machine::examine_iommu(unit, facts);
    let command_line = needs_options.then(|| machine::command_line(facts));
    let lacking: Vec<Check> = checks
        .into_iter()
        .chain(command_line.into_iter().flatten())
        .chain(machine::forbidden(facts))
        .filter(|check| check.verdict != Verdict::Present)
        .collect();
    let name = "an IOMMU fit for it";
    let missing = lacking
        .iter()
        .any(|check| check.verdict == Verdict::Missing);
    let names: Vec<_> = lacking.iter().map(|check| check.name.as_str()).collect();
    Some(match (lacking.is_empty(), missing) {
        (true, _) => Check::new(name, Verdict::Present, unit.name.as_str(), ""),
        (false, missing) => Check::new(
            name,
            if missing {
                Verdict::Missing
            } else {
                Verdict::Unknown
            },
            names.join("; "),
            "see the checks of the machine",
        ),
    })
}

/// The driver decides whether the device uses what is possible.
fn driver(device: &PciDevice) -> Check {
    let name = "driver";
    match device.driver.as_deref() {
        None => Check::new(
            name,
            Verdict::Optional,
            "none",
            "bind one that knows shared virtual addressing",
        ),
        Some(driver @ "vfio-pci") => Check::new(
            name,
            Verdict::Optional,
            driver,
            "the device is given to a program in user space or to a guest: address spaces of \
             processes are bound by drivers of the kernel only",
        ),
        Some(driver) => Check::new(name, Verdict::Present, driver, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_space::ParseError;
    use crate::config_space::tests::{
        DOWNSTREAM, Dump, ENDPOINT, INTEGRATED, ROOT_PORT, UPSTREAM, accelerator,
    };
    use crate::dmar::Dmar;

    const DEVICE: &str = "0000:01:00.0";
    const PORT: &str = "0000:00:1c.0";

    fn pci(address: &str, dump: &Dump, bridges: &[&str]) -> PciDevice {
        PciDevice {
            address: address.into(),
            function: Function::parse(dump.bytes()),
            driver: Some("idxd".into()),
            group: Some(address.into()),
            group_type: Some("DMA-FQ".into()),
            iommu: Some("dmar0".into()),
            bridges: bridges.iter().map(|&bridge| bridge.to_owned()).collect(),
            physical: None,
        }
    }

    /// A root port with ACS, all on.
    fn port() -> Dump {
        Dump::new(ROOT_PORT).extended(0x000d, &[0x1d, 0x1d])
    }

    /// A device below a root port, on a machine that lacks nothing.
    fn world(device: Dump, port: Dump) -> Facts {
        Facts {
            iommus: vec![Iommu {
                name: "dmar0".into(),
                kind: IommuKind::Vtd {
                    cap: u64::MAX,
                    ecap: u64::MAX,
                },
            }],
            cpu_flags: ["fpu".to_owned()].into(),
            command_line: "intel_iommu=on,sm_on".into(),
            devices: vec![pci(PORT, &port, &[]), pci(DEVICE, &device, &[PORT])],
            ..Facts::default()
        }
    }

    fn report(facts: &Facts) -> DeviceReport {
        examine_device(facts.device(DEVICE).unwrap(), facts)
    }

    /// The items that prevent it.
    fn lacking(facts: &Facts) -> Vec<(String, String)> {
        let report = report(facts);
        let reasons = report.reasons();
        reasons.map(|c| (c.name.clone(), c.found.clone())).collect()
    }

    /// An accelerator with nothing enabled yet.
    fn fresh() -> Dump {
        Dump::new(ENDPOINT)
            .extended(0x001b, &[20 << 8, 0])
            .extended(0x0013, &[0, 1 << 15, 64, 0, 0, 0])
            .extended(0x000f, &[1 << 5, 0])
    }

    #[test]
    fn an_accelerator_with_all_on_works() {
        let facts = world(accelerator(ENDPOINT), port());
        assert_eq!(lacking(&facts), []);
        let report = report(&facts);
        assert_eq!(report.sva, Sva::Works);
        assert_eq!(
            (report.pasid, report.ats, report.pri),
            (Some((20, true)), Some(true), Some(true))
        );
        assert_eq!(report.id.as_deref(), Some("1b36:0010"));
        assert!(report.has_capabilities());
    }

    #[test]
    fn what_the_command_line_switches_off_is_missing() {
        let mut facts = world(accelerator(ENDPOINT), port());
        facts.command_line += " pci=noats";
        assert_eq!(report(&facts).sva, Sva::Impossible);
    }

    #[test]
    fn what_is_not_enabled_yet_is_no_obstacle() {
        let facts = world(fresh(), port());
        assert_eq!(lacking(&facts), []);
        assert_eq!(report(&facts).pasid, Some((20, false)));
    }

    #[test]
    fn an_ordinary_device_lacks_pasid_and_ats() {
        let report = report(&world(Dump::new(ENDPOINT), port()));
        assert_eq!(report.sva, Sva::Impossible);
        let names: Vec<_> = report.reasons().map(|check| check.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "PASID capability",
                "address translation services (ATS)",
                PAGE_REQUESTS
            ]
        );
        assert!(!report.has_capabilities());
    }

    #[test]
    fn a_device_without_page_requests_depends_on_its_driver() {
        let device = Dump::new(ENDPOINT)
            .extended(0x001b, &[20 << 8, 0])
            .extended(0x000f, &[1 << 5, 0]);
        assert_eq!(report(&world(device, port())).sva, Sva::WithoutPageRequests);
    }

    #[test]
    fn responses_without_pasid_keep_page_requests_off() {
        let device = Dump::new(ENDPOINT)
            .extended(0x001b, &[20 << 8, 0])
            .extended(0x0013, &[0, 0, 64, 0, 0, 0])
            .extended(0x000f, &[1 << 5, 0]);
        let facts = world(device, port());
        assert!(lacking(&facts)[0].1.contains("without PASID"));
        assert_eq!(report(&facts).sva, Sva::Impossible);
    }

    #[test]
    fn each_port_on_the_way_forwards_prefixes_and_redirects() {
        let mut blind = port();
        blind.set(0x84, &[0; 4]);
        let facts = world(fresh(), blind);
        let expected = (
            "PASID prefixes end to end",
            format!("{PORT} (root port) has none"),
        );
        assert_eq!(lacking(&facts), [(expected.0.to_owned(), expected.1)]);

        let facts = world(fresh(), Dump::new(ROOT_PORT));
        assert!(
            lacking(&facts)[0].1.contains("has no ACS"),
            "{:?}",
            lacking(&facts)
        );
        let off = Dump::new(ROOT_PORT).extended(0x000d, &[0x1d, 0x01]);
        let facts = world(fresh(), off);
        assert!(
            lacking(&facts)[0]
                .1
                .ends_with("request redirect and upstream forwarding off")
        );
        // An unimplemented bit counts as one that is on.
        let hard_wired = Dump::new(ROOT_PORT).extended(0x000d, &[0x01, 0x01]);
        assert_eq!(lacking(&world(fresh(), hard_wired)), []);
    }

    /// The ports of a switch are on the path, too, and the report names the one that is the
    /// obstacle.
    #[test]
    fn the_port_of_a_switch_that_forwards_no_prefixes_is_named() {
        const UP: &str = "0000:01:00.0";
        const DOWN: &str = "0000:02:00.0";
        const BEHIND: &str = "0000:03:00.0";
        let downstream = || Dump::new(DOWNSTREAM).extended(0x000d, &[0x1d, 0x1d]);
        let behind = |up: &Dump, down: &Dump| {
            let mut facts = world(fresh(), port());
            facts.devices = vec![
                pci(PORT, &port(), &[]),
                pci(UP, up, &[PORT]),
                pci(DOWN, down, &[PORT, UP]),
                pci(BEHIND, &fresh(), &[PORT, UP, DOWN]),
            ];
            let report = examine_device(facts.device(BEHIND).unwrap(), &facts);
            let found: Vec<String> = report.reasons().map(|c| c.found.clone()).collect();
            (report.sva, found)
        };
        let upstream = Dump::new(UPSTREAM);
        assert_eq!(behind(&upstream, &downstream()), (Sva::Works, vec![]));
        let blind = |mut port: Dump| {
            port.set(0x84, &[0; 4]);
            port
        };
        let named = |name: &str| (Sva::Impossible, vec![format!("{name} has none")]);
        assert_eq!(
            behind(&blind(upstream.clone()), &downstream()),
            named("0000:01:00.0 (upstream port)")
        );
        assert_eq!(
            behind(&upstream, &blind(downstream())),
            named("0000:02:00.0 (downstream port)")
        );
        // Without ACS, a switch could route a request from one of its ports to another.
        let (sva, found) = behind(&upstream, &Dump::new(DOWNSTREAM));
        assert_eq!(sva, Sva::Impossible);
        assert!(found[0].starts_with("0000:02:00.0 (downstream port) has no ACS"));
    }

    #[test]
    fn where_linux_has_enabled_pasid_the_path_is_good() {
        let facts = world(accelerator(ENDPOINT), Dump::new(ROOT_PORT));
        assert_eq!(lacking(&facts), []);
        let checks = report(&facts).checks;
        assert!(
            checks
                .iter()
                .any(|check| check.found.contains("all the same"))
        );
    }

    #[test]
    fn functions_of_one_device_redirect_too() {
        let mut device = fresh();
        device.set(0x0e, &[0x80]);
        let facts = world(device, port());
        assert!(lacking(&facts)[0].1.contains("endpoint) has no ACS"));
        // The bit need not be set in the further functions.
        let mut facts = world(fresh(), port());
        let further = "0000:01:00.1";
        facts.devices.push(pci(further, &fresh(), &[PORT]));
        let report = examine_device(facts.device(further).unwrap(), &facts);
        let found: Vec<_> = report.reasons().map(|check| &check.found).collect();
        assert_eq!(report.sva, Sva::Impossible);
        assert!(found[0].starts_with("0000:01:00.1 (endpoint) has no ACS"));
    }

    #[test]
    fn an_integrated_device_has_no_path() {
        let mut facts = world(fresh(), port());
        let mut device = pci("0000:00:03.0", &Dump::new(INTEGRATED), &[]);
        device.function = Function::parse(accelerator(INTEGRATED).bytes());
        facts.devices.push(device);
        facts.dmar = Some(Dmar::default());
        let report = examine_device(facts.device("0000:00:03.0").unwrap(), &facts);
        assert_eq!(report.sva, Sva::Works, "{:#?}", report.checks);
    }

    #[test]
    fn the_firmware_has_to_name_the_root_port() {
        let mut facts = world(fresh(), port());
        facts.dmar = Some(Dmar::default());
        assert_eq!(lacking(&facts)[0].0, "ATS permitted by the firmware");
        facts.dmar = Dmar::parse(&crate::dmar::tests::table(&[(2, 1, &[])]));
        assert_eq!(lacking(&facts), []);
    }

    #[test]
    fn the_iommu_has_to_be_there_and_fit() {
        let mut facts = world(fresh(), port());
        facts.devices[1].iommu = None;
        assert_eq!(lacking(&facts)[0].0, "behind an IOMMU");
        let mut facts = world(fresh(), port());
        facts.command_line = "intel_iommu=on".into();
        assert_eq!(
            lacking(&facts),
            [(
                "an IOMMU fit for it".to_owned(),
                "kernel command line: scalable mode on".to_owned()
            )]
        );
        let mut facts = world(fresh(), port());
        facts.devices[0].group = Some(DEVICE.into());
        assert_eq!(lacking(&facts)[0].0, "an IOMMU group of its own");
    }

    #[test]
    fn a_virtual_function_has_what_its_physical_one_has() {
        let mut facts = world(accelerator(ENDPOINT), port());
        let function = Dump::new(ENDPOINT).extended(0x000f, &[1 << 5, 1 << 15]);
        let mut virtual_function = pci("0000:01:00.1", &function, &[PORT]);
        virtual_function.physical = Some(DEVICE.into());
        facts.devices.push(virtual_function);
        let report = examine_device(facts.device("0000:01:00.1").unwrap(), &facts);
        assert_eq!(report.sva, Sva::Works, "{:#?}", report.checks);
        assert_eq!(report.pasid, Some((20, true)));
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let mut facts = world(fresh(), port());
        facts.devices[1].function = Err(ParseError::Short { length: 0 });
        let first = report(&facts);
        assert_eq!((first.sva, first.id), (Sva::Unknown, None));
        facts.devices[1].function = Function::parse(&fresh().bytes()[..64]);
        let second = report(&facts);
        assert_eq!(second.sva, Sva::Unknown);
        assert_eq!(second.id.as_deref(), Some("1b36:0010"));
        // Root sees that there are no more capabilities.
        facts.devices[1].function = Function::parse(&fresh().bytes()[..256]);
        assert_eq!(report(&facts).sva, Sva::Impossible);
    }

    #[test]
    fn a_device_of_vfio_is_not_the_kernels() {
        let mut facts = world(accelerator(ENDPOINT), port());
        facts.devices[1].driver = Some("vfio-pci".into());
        let report = report(&facts);
        assert_eq!(report.sva, Sva::Works);
        assert_eq!(report.reasons().count(), 1);
    }
}
