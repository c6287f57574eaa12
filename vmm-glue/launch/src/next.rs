// SPDX-License-Identifier: MIT OR Apache-2.0
//! `svm-vm next`: tries the distribution's coming versions, and reports item by item what would
//! break. It changes nothing that other commands use.

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Iommu, MachineOptions, Parts, Place};
use crate::prepare::{self, Prepared, coming};
use crate::progress::Progress;
use crate::run;

/// The report.
#[derive(Debug, Default)]
struct Report {
    items: Vec<Item>,
}

/// One line of the report.
#[derive(Debug)]
struct Item {
    name: String,
    verdict: Verdict,
}

/// The result of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// It works; more about it.
    Good(String),
    /// It would break: what and where.
    Bad(String),
    /// It could not be tried, because of an item above.
    Untried,
}

/// `svm-vm next`.
pub fn command(place: &Place) -> Result<ExitCode> {
    let progress = Progress::new();
    let mut report = Report::default();
    let mut shop = coming::Shop::open(place, &progress)?;
    progress.line(&format!(
        "next: QEMU {}, kernel {}",
        shop.qemu_version(),
        shop.kernel_release()
    ));
    let root = shop.root();
    report.add("QEMU, compilers and libraries are there", &root, |_| {
        String::new()
    });
    let root = root.ok();

    let kernel = format!("kernel {}", shop.kernel_release());
    let metadata = root.as_ref().map(|root| shop.kernel(root));
    report.add_if(
        format!("{kernel}: Rust metadata"),
        metadata.as_ref(),
        |_| shop.kernel_version().to_owned(),
    );
    shop.close();
    // Today's versions, which stay unchanged.
    let prepared = prepare::prepare(place, &Parts::default(), &progress)?;
    let component = metadata.and_then(Result::ok);
    let with_kernel = root.as_ref().zip(component.as_ref());
    let with_kernel = with_kernel.map(|(root, kernel)| shop.with_kernel(&prepared, root, kernel));
    report.add_if(
        format!("{kernel}: the driver builds"),
        with_kernel.as_ref(),
        |(_, warnings)| match warnings.len() {
            0 => "without a warning".to_owned(),
            number => format!("with {number} warnings, the first: {}", warnings[0]),
        },
    );
    let with_kernel = with_kernel.and_then(Result::ok).map(|(made, _)| made);
    for iommu in [Iommu::IntelIommu, Iommu::SvmVtd] {
        let name = format!("{kernel}: demonstration with {}", iommu.name());
        report.demonstrate(name, with_kernel.as_ref(), iommu, &progress);
    }

    let qemu = format!("QEMU {}", shop.qemu_version());
    let with_qemu = root.as_ref().map(|root| shop.with_qemu(&prepared, root));
    let accepted = with_qemu
        .as_ref()
        .map(|prepared| run::accepts(&prepared.qemu, &prepared.plugin));
    report.add_if(
        format!("{qemu}: the plug-in supports it"),
        accepted.as_ref(),
        |()| String::new(),
    );
    let supported = accepted.is_some_and(|outcome| outcome.is_ok());
    let with_qemu = with_qemu.filter(|_| supported);
    for iommu in [Iommu::IntelIommu, Iommu::SvmVtd] {
        let name = format!("{qemu}: demonstration with {}", iommu.name());
        report.demonstrate(name, with_qemu.as_ref(), iommu, &progress);
    }
    print!("{report}");
    Ok(if report.breaks() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Report {
    fn add<T>(
        &mut self,
        name: impl Into<String>,
        outcome: &Result<T>,
        more: impl FnOnce(&T) -> String,
    ) {
        self.add_if(name, Some(outcome), more);
    }

    /// Adds an item; one without an outcome was not tried.
    fn add_if<T>(
        &mut self,
        name: impl Into<String>,
        outcome: Option<&Result<T>>,
        more: impl FnOnce(&T) -> String,
    ) {
        self.items.push(Item {
            name: name.into(),
            verdict: match outcome {
                Some(Ok(value)) => Verdict::Good(more(value)),
                // The outermost context is a sentence; the inner ones are ends of logs.
                Some(Err(error)) => Verdict::Bad(error.to_string()),
                None => Verdict::Untried,
            },
        });
    }

    fn demonstrate(
        &mut self,
        name: String,
        prepared: Option<&Prepared>,
        iommu: Iommu,
        progress: &Progress,
    ) {
        let options = MachineOptions {
            iommu,
            name: Some(format!("next-{}", self.items.len())),
            ..MachineOptions::standard()
        };
        let outcome = prepared.map(|prepared| run::demonstration(prepared, &options, progress));
        self.add_if(name, outcome.as_ref(), Clone::clone);
    }

    /// Number of items that would break.
    fn breaks(&self) -> usize {
        let bad = |item: &&Item| matches!(item.verdict, Verdict::Bad(_));
        self.items.iter().filter(bad).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.items.iter().map(|item| item.name.len()).max();
        for Item { name, verdict } in &self.items {
            let (word, more) = match verdict {
                Verdict::Good(more) => ("ok", more.as_str()),
                Verdict::Bad(why) => ("failed", why.as_str()),
                Verdict::Untried => ("-", "not tried"),
            };
            let line = format!("  {word:6}  {name:0$}  {more}", width.unwrap_or(0));
            writeln!(f, "{}", line.trim_end())?;
        }
        match self.breaks() {
            0 => writeln!(f, "next: nothing would break"),
            number => writeln!(f, "next: {number} of {} would break", self.items.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use qemu_layout::REFUSED;

    use super::*;
    use crate::prepare::Qemu;

    #[test]
    fn an_item_is_good_bad_or_not_tried() {
        let mut report = Report::default();
        report.add("one", &Ok(3), |number| format!("{number} tests"));
        let why = anyhow::anyhow!("the end of a log").context("a.rs:1: no `f`");
        report.add("the second", &Err::<(), _>(why), |()| String::new());
        report.add_if("three", None::<&Result<()>>, |()| String::new());
        assert_eq!(
            report.to_string(),
            "  ok      one         3 tests\n  failed  the second  a.rs:1: no `f`\n\
             \x20 -       three       not tried\nnext: 1 of 3 would break\n"
        );
    }

    /// The report for a QEMU that is asked for the device and runs a line of shell.
    fn asked(line: &str) -> Report {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qemu");
        // Another process writes it: it cannot be run while a child of this process, started by a
        // parallel test, has it open for writing.
        let write = "printf '#!/bin/sh\n%s\n' \"$1\" >\"$0\" && chmod 755 \"$0\"";
        let mut shell = std::process::Command::new("sh");
        let status = shell.args(["-c", write]).arg(&path).arg(line).status();
        assert!(status.unwrap().success());
        let qemu = Qemu::Own {
            path,
            layout: None,
            firmware: Vec::new(),
        };
        let mut report = Report::default();
        let accepted = run::accepts(&qemu, Path::new(""));
        report.add("QEMU", &accepted, |()| String::new());
        report
    }

    #[test]
    fn a_qemu_that_the_plug_in_refuses_is_reported_with_the_reason() {
        let refused = |device: &str| {
            format!("echo 'svm-demo: {REFUSED} {device}: it has no function `pci_pri`.' >&2")
        };
        let unknown = "echo \"qemu: Device 'svm-demo' not found\" >&2; exit 1";
        let known = "echo '  trace=<str>'";
        for (device, rest) in [("svm-demo", unknown), ("svm-vtd", known)] {
            let report = asked(&format!("{}; {rest}", refused(device)));
            let wanted = format!(
                "  failed  QEMU  svm-demo: {REFUSED} {device}: it has no function `pci_pri`.\n\
                 next: 1 of 1 would break\n"
            );
            assert_eq!(report.to_string(), wanted);
        }
        // A QEMU that lacks the device for another reason.
        let text = asked(unknown).to_string();
        let wanted = "QEMU ended with exit status: 1: qemu: Device 'svm-demo' not found\n";
        assert!(text.contains(wanted), "{text}");
        assert_eq!(asked(known).breaks(), 0);
        // And one that succeeds without a message about it.
        assert_eq!(asked("exit 0").breaks(), 1);
    }

    #[test]
    fn what_works_breaks_nothing() {
        let mut report = Report::default();
        report.add("one", &Ok(()), |()| String::new());
        assert_eq!(
            report.to_string(),
            "  ok      one\nnext: nothing would break\n"
        );
    }
}
