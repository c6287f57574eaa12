// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole examination: the machine and its devices, as readable text.

use std::fmt::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use crate::check::{Check, Verdict, render};
use crate::device::{DeviceReport, Sva, examine_device};
use crate::facts::Facts;
use crate::machine;

/// The results for a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The machine as a whole.
    pub machine: Vec<Check>,
    /// Its devices, bridges included.
    pub devices: Vec<DeviceReport>,
}

/// A requested device that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no PCI function of this machine is or begins with `{0}`: `svmctl doctor` without a name lists \
     them; an address is written as 0000:01:00.0 or 01:00.0"
)]
pub struct NoSuchDevice(pub String);

impl Report {
    /// Examines the machine and all its devices.
    pub fn examine(facts: &Facts) -> Self {
        let devices = facts.devices.iter();
        Self {
            machine: machine::examine(facts),
            devices: devices.map(|d| examine_device(d, facts)).collect(),
        }
    }

    /// Keeps only the named devices. A name is an address, with or without the domain, or the
    /// beginning of one.
    ///
    /// # Errors
    ///
    /// A name matches no device.
    pub fn choose(&mut self, names: &[String]) -> Result<(), NoSuchDevice> {
        let is = |device: &DeviceReport, name: &str| {
            let short = device.address.strip_prefix("0000:");
            device.address.starts_with(name) || short.is_some_and(|short| short.starts_with(name))
        };
        for name in names {
            if !self.devices.iter().any(|device| is(device, name)) {
                return Err(NoSuchDevice(name.clone()));
            }
        }
        if !names.is_empty() {
            self.devices
                .retain(|device| names.iter().any(|name| is(device, name)));
        }
        Ok(())
    }

    /// Whether shared virtual addressing works: the machine lacks nothing, and every device (`all`)
    /// or at least one can do it.
    pub fn works(&self, all: bool) -> bool {
        let works =
            |device: &DeviceReport| matches!(device.sva, Sva::Works | Sva::WithoutPageRequests);
        let machine = self.machine.iter().all(|c| c.verdict != Verdict::Missing);
        machine
            && match all {
                true => self.devices.iter().all(works),
                false => self.devices.iter().any(works),
            }
    }

    /// The report as text of at most `width` columns. `detailed` lists all items of each device.
    /// Otherwise only the obstacles are listed, for the devices that have a capability for shared
    /// addressing.
    pub fn render(&self, width: u16, detailed: bool) -> String {
        let mut text = render(&self.machine);
        let shown: Vec<_> = self
            .devices
            .iter()
            .filter(|device| detailed || !device.bridge)
            .collect();
        if shown.is_empty() {
            text += "\nno PCI device can be seen\n";
            return text;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}", table(&shown, width));
        for device in shown {
            let checks: Vec<Check> = match detailed {
                true => device.checks.clone(),
                false if device.has_capabilities() => device.reasons().cloned().collect(),
                false => continue,
            };
            if checks.is_empty() {
                continue;
            }
            let _ = writeln!(text, "\n{}", device.address);
            for line in render(&checks).lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        if !detailed {
            text += "\n`svmctl doctor ADDRESS` says all of a device.\n";
        }
        text
    }
}

fn table(devices: &[&DeviceReport], width: u16) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header([
            "function", "id", "class", "driver", "PASID", "ATS", "PRI", "group", "IOMMU", "SVA",
        ]);
    for device in devices {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let state = |value: Option<bool>| match value {
            None => "-",
            Some(true) => "on",
            Some(false) => "off",
        };
        let pasid = device.pasid.map_or_else(
            || "-".to_owned(),
            |(bits, enabled)| format!("{} {bits}", state(Some(enabled))),
        );
        table.add_row([
            device.address.clone(),
            text(&device.id),
            device.class.as_deref().map_or("-", class_name).to_owned(),
            text(&device.driver),
            pasid,
            state(device.ats).to_owned(),
            state(device.pri).to_owned(),
            text(&device.group),
            text(&device.iommu),
            answer(device.sva).to_owned(),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    table
}

fn answer(sva: Sva) -> &'static str {
    match sva {
        Sva::Works => "works",
        Sva::WithoutPageRequests => "works, own faults",
        Sva::Impossible => "no",
        Sva::Unknown => "unknown",
    }
}

/// A short name for a class of devices (PCI Code and ID Assignment, chapter 1).
fn class_name(class: &str) -> &str {
    match class.get(..4).unwrap_or_default() {
        "0106" => "SATA",
        "0108" => "NVMe",
        "0200" => "ethernet",
        "0207" => "infiniband",
        "0300" => "VGA",
        "0302" => "3D",
        "0403" => "audio",
        "0600" => "host bridge",
        "0601" => "ISA bridge",
        "0604" => "PCI bridge",
        "0806" => "IOMMU",
        "0880" => "system",
        "0c03" => "USB",
        "0c05" => "SMBus",
        "1200" => "accelerator",
        _ => match class.get(..2).unwrap_or_default() {
            "01" => "storage",
            "02" => "network",
            "03" => "display",
            "04" => "multimedia",
            "05" => "memory",
            "06" => "bridge",
            "07" => "communication",
            "08" => "system",
            "0b" => "processor",
            "0c" => "serial bus",
            "10" => "encryption",
            "11" => "signals",
            "12" => "accelerator",
            _ => class,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(address: &str, sva: Sva) -> DeviceReport {
        DeviceReport {
            address: address.into(),
            id: Some("1234:5356".into()),
            class: Some("120000".into()),
            bridge: false,
            driver: None,
            group: Some("3".into()),
            iommu: Some("dmar0".into()),
            pasid: Some((20, true)),
            ats: Some(true),
            pri: None,
            sva,
            checks: vec![
                Check::new("PASID capability", Verdict::Present, "20 bits", ""),
                Check::new(
                    "page requests (PRI)",
                    Verdict::Optional,
                    "none",
                    "do without",
                ),
            ],
        }
    }

    fn report() -> Report {
        Report {
            machine: vec![Check::new("IOMMU", Verdict::Present, "dmar0", "")],
            devices: vec![
                device("0000:01:00.0", Sva::WithoutPageRequests),
                device("0001:01:00.0", Sva::Impossible),
            ],
        }
    }

    #[test]
    fn a_line_of_the_table_says_what_is_on() {
        let text = report().render(120, false);
        let line = text
            .lines()
            .find(|line| line.starts_with("0000:01"))
            .unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let expected = "0000:01:00.0 1234:5356 accelerator - on 20 on - 3 dmar0 works, own faults";
        assert_eq!(words.join(" "), expected);
        assert!(
            text.contains("without  page requests (PRI): none\n           -> do without"),
            "{text}"
        );
        assert!(!text.contains("20 bits"));
        assert!(report().render(120, true).contains("20 bits"));
    }

    #[test]
    fn a_narrow_terminal_gets_narrow_lines() {
        let text = report().render(80, false);
        let table = text.lines().skip(2).take_while(|line| !line.is_empty());
        for line in table {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn names_choose_devices() {
        let chosen = |names: &[&str]| {
            let mut report = report();
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            report.choose(&names).map(|()| report.devices.len())
        };
        assert_eq!(chosen(&[]), Ok(2));
        assert_eq!(chosen(&["01:00"]), Ok(1));
        assert_eq!(chosen(&["0001:01:00.0"]), Ok(1));
        let error = chosen(&["02:00.0"]).unwrap_err().to_string();
        assert!(error.contains("`02:00.0`"), "{error}");
    }

    #[test]
    fn one_device_will_do_unless_all_are_asked_for() {
        let mut report = report();
        assert!(report.works(false));
        assert!(!report.works(true));
        report.machine[0].verdict = Verdict::Missing;
        assert!(!report.works(false));
    }
}
