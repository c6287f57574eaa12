// SPDX-License-Identifier: MIT OR Apache-2.0
//! Linux's own selftests of IOMMUFD and VFIO, in a guest that is a host, on each IOMMU. The result of
//! each test is compared with a list that is kept: what passes by now, or fails by now, fails the run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::launcher::Launcher;
use crate::parts::{Job, Part};
use crate::tally::Tally;

/// What the guest does, the programs, and where the lists are.
const SCRIPT: &str = "tests/selftests/run.sh";
const PROGRAMS: &str = "target/selftests";
const LISTS: &str = "tests/selftests";

/// The IOMMUs, the names of the runs, and the programs: those of IOMMUFD use a device of their own,
/// and none of the machine.
const RUNS: &[(&str, &str, &[&str])] = &[
    (
        "svm-vtd",
        "selftests-svm-vtd",
        &[
            "iommufd",
            "iommufd_fail_nth",
            VFIO[0],
            VFIO[1],
            VFIO[2],
            VFIO[3],
            VFIO[4],
        ],
    ),
    ("intel-iommu", "selftests", &VFIO),
];

const VFIO: [&str; 5] = [
    "vfio_pci_device_test",
    "vfio_iommufd_setup_test",
    "vfio_dma_mapping_test",
    "vfio_dma_mapping_mmio_test",
    "vfio_pci_driver_test",
];

/// A test maps a GiB and copies much: processors, memory and a page of a GiB.
const MACHINE: &[&str] = &[
    "--kernel",
    "host",
    "--iommu-option",
    "intremap=on",
    "--memory",
    "5G",
    "--append=hugepagesz=1G hugepages=1",
    "--timeout",
    "1800",
];

/// A part for each IOMMU.
pub fn jobs(launcher: &Launcher) -> Vec<Job<'_>> {
    let job = |&(iommu, name, programs): &'static (&str, &str, &[&str])| {
        Job::new(iommu, 1, move |part: &mut Part| {
            run(launcher, part, iommu, name, programs)
        })
    };
    RUNS.iter().map(job).collect()
}

fn run(
    launcher: &Launcher,
    part: &mut Part,
    iommu: &str,
    name: &str,
    programs: &[&str],
) -> anyhow::Result<()> {
    let checkout = launcher.checkout();
    let text = |path: &str| {
        let path = checkout.join(path);
        let path = path.to_str().context("the checkout's path is not UTF-8")?;
        anyhow::Ok(path.to_owned())
    };
    let (script, output) = (text(SCRIPT)?, text(PROGRAMS)?);
    launcher.succeeding(&["selftests", "--output", &output])?;
    let line = format!("sh run.sh {}", programs.join(" "));
    let mut arguments = vec!["run", "--name", name, "--iommu", iommu, "--exec", &line];
    arguments.extend(["--copy", &output, "--copy", &script]);
    arguments.extend(MACHINE);
    let succeeded = launcher.shown(part, &arguments)?;
    let directory = launcher.run_dir(name);
    let results = std::fs::read_to_string(directory.join("results.json"))
        .context("the guest's run left no results.json")?;
    let found = verdicts(&output_of(&results)?)?;
    let found_list = directory.join("selftests.txt");
    std::fs::write(&found_list, list(&found))?;
    if !succeeded {
        part.fail(format_args!(
            "svm-vm run failed, see {}",
            directory.display()
        ));
    }
    let kept = checkout.join(LISTS).join(format!("{iommu}.txt"));
    compare(part, &read_list(&kept)?, &found);
    if part.tally().failed > 0 {
        part.line(format_args!(
            "# what was found is in {}; {} is the list",
            found_list.display(),
            kept.display()
        ));
    }
    Ok(())
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    Skipped,
}

impl Verdict {
    const ALL: [(Verdict, &'static str); 3] = [
        (Verdict::Passed, "passed"),
        (Verdict::Failed, "failed"),
        (Verdict::Skipped, "skipped"),
    ];

    fn word(self) -> &'static str {
        let mut all = Verdict::ALL.iter();
        all.find(|(verdict, _)| *verdict == self)
            .map_or("", |(_, word)| word)
    }
}

type Verdicts = BTreeMap<String, Verdict>;

/// Counts each test of the list: what ended as it is listed and passed, passed; what is listed as
/// failing or skipped is skipped; and what is not as listed, failed.
fn compare(part: &mut Part, kept: &Verdicts, found: &Verdicts) {
    for (name, expected) in kept {
        match found.get(name) {
            Some(Verdict::Passed) if *expected == Verdict::Passed => {
                part.count(Tally::one(true));
            }
            Some(verdict) if verdict == expected => {
                part.line(format_args!(
                    "# skipped: {name}: {} as listed",
                    expected.word()
                ));
                part.count(Tally {
                    skipped: 1,
                    ..Tally::default()
                });
            }
            other => part.fail(format_args!(
                "{name}: {}, and is listed as {}",
                other.map_or("did not run", |verdict| verdict.word()),
                expected.word()
            )),
        }
    }
    for (name, verdict) in found.iter().filter(|(name, _)| !kept.contains_key(*name)) {
        part.fail(format_args!(
            "{name}: {}, and is not in the list",
            verdict.word()
        ));
    }
}

/// The lines of output of a run.
fn output_of(results: &str) -> anyhow::Result<Vec<String>> {
    let results: serde_json::Value = serde_json::from_str(results)?;
    let steps = results["steps"].as_array().context("no steps")?;
    let lines = steps.iter().filter_map(|step| step["output"].as_array());
    let lines = lines.flatten().filter_map(|line| line.as_str());
    Ok(lines.map(str::to_owned).collect())
}

/// The verdicts in the output of the script: KTAP of several programs, each announced by its name, and
/// its exit status. One that ended without a plan, or before its end, is an error.
fn verdicts(lines: &[String]) -> anyhow::Result<Verdicts> {
    let mut found = Verdicts::new();
    let (mut program, mut planned, mut count) = ("", None, 0);
    for line in lines {
        if let Some(name) = line.strip_prefix("program ") {
            (program, planned, count) = (name, None, 0);
        } else if let Some(plan) = line.strip_prefix("1..") {
            planned = plan.trim().parse::<u32>().ok();
        } else if line.starts_with("exit ") {
            ensure!(
                planned == Some(count),
                "{program} announced {} tests and told of {count}",
                planned.map_or("no".to_owned(), |planned| planned.to_string())
            );
        } else if let Some((name, verdict)) = verdict(line) {
            count += 1;
            found.insert(format!("{program} {name}"), verdict);
        }
    }
    ensure!(!found.is_empty(), "no test was told of");
    Ok(found)
}

/// A test's name and verdict, if a line of KTAP tells it.
fn verdict(line: &str) -> Option<(&str, Verdict)> {
    let (rest, passed) = match line.strip_prefix("not ok ") {
        Some(rest) => (rest, false),
        None => (line.strip_prefix("ok ")?, true),
    };
    let (_, rest) = rest.split_once(' ')?;
    let (name, directive) = rest.split_once(" # ").unwrap_or((rest, ""));
    let verdict = match (passed, directive.starts_with("SKIP")) {
        (_, true) => Verdict::Skipped,
        (true, false) => Verdict::Passed,
        (false, false) => Verdict::Failed,
    };
    Some((name.trim(), verdict))
}

/// A list as text.
fn list(verdicts: &Verdicts) -> String {
    let mut text = String::new();
    for (name, verdict) in verdicts {
        let _ = writeln!(text, "{} {name}", verdict.word());
    }
    text
}

/// Reads a list: a verdict, a program and a test a line. Lines with `#` are comments.
fn read_list(path: &Path) -> anyhow::Result<Verdicts> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (word, name) = line.split_once(' ').unwrap_or((line, ""));
            let mut all = Verdict::ALL.iter();
            let verdict = all.find(|(_, known)| *known == word);
            let (verdict, _) =
                verdict.with_context(|| format!("{}: {line:?} is no verdict", path.display()))?;
            Ok((name.to_owned(), *verdict))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    const OUTPUT: &str = "program a\nTAP version 13\n1..3\n# Starting\nok 1 one.two\n\
        not ok 2 one.three\nok 3 four # SKIP no memory\nexit 1";

    #[test]
    fn the_output_of_programs_is_read() {
        let found = verdicts(&lines(OUTPUT)).unwrap();
        assert_eq!(
            list(&found),
            "skipped a four\nfailed a one.three\npassed a one.two\n"
        );
        let short = OUTPUT.replace("1..3", "1..4");
        let error = verdicts(&lines(&short)).unwrap_err().to_string();
        assert_eq!(error, "a announced 4 tests and told of 3");
        assert!(verdicts(&lines("program a\nSegmentation fault\nexit 139")).is_err());
    }

    #[test]
    fn what_is_not_as_listed_fails() {
        let found = verdicts(&lines(OUTPUT)).unwrap();
        let totals = |kept: &Verdicts| {
            let kept = kept.clone();
            let found = found.clone();
            let job = Job::new("a", 1, move |part: &mut Part| {
                compare(part, &kept, &found);
                Ok(())
            });
            crate::parts::run(vec![job], 1).total().to_string()
        };
        assert_eq!(totals(&found), "1 passed, 0 failed, 2 skipped");
        let mut kept = found.clone();
        kept.insert("a one.two".to_owned(), Verdict::Failed);
        kept.remove("a one.three");
        kept.insert("a gone".to_owned(), Verdict::Passed);
        assert_eq!(totals(&kept), "0 passed, 3 failed, 1 skipped");
    }

    #[test]
    fn a_list_is_read_as_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list.txt");
        let found = verdicts(&lines(OUTPUT)).unwrap();
        std::fs::write(&path, format!("# a comment\n{}", list(&found))).unwrap();
        assert_eq!(read_list(&path).unwrap(), found);
        std::fs::write(&path, "works a b\n").unwrap();
        assert!(
            read_list(&path)
                .unwrap_err()
                .to_string()
                .contains("is no verdict")
        );
    }
}
