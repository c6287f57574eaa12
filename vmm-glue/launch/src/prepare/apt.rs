// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian packages by the host's apt, with lists, cache and configuration of its own: the host's
//! package state is read for the mirror and the proxies and never changed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{host, recipe};
use crate::cache::Cache;
use crate::external::External;
use crate::progress::{Progress, Task};

/// Suites whose mirror has all others, too.
const SUITES: &[&str] = &[
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// Settings of the host's apt that say how the network is reached.
const NETWORK_SETTINGS: &[&str] = &[
    "Acquire::http",
    "Acquire::https",
    "Acquire::Retries",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    "Acquire::Check-Valid-Until",
];

/// apt with directories of its own. One process at a time may have it.
#[derive(Debug)]
pub struct Apt {
    directory: PathBuf,
    log: PathBuf,
}

/// A kernel, resolved from the package index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPackages {
    /// Release of the kernel, as `uname -r` prints it.
    pub release: String,
    /// Release without the flavour: the common headers have it in their name.
    pub common: String,
    /// Version of the packages.
    pub version: String,
}

impl Apt {
    /// Sets the directories up and fetches the package lists.
    pub fn open(cache: &Cache, mirror: Option<&str>, progress: &Progress) -> Result<Self> {
        let task = progress.task("reading the package index");
        let directory = cache.directory("apt")?;
        let apt = Self {
            log: cache.logs()?.join("apt.log"),
            directory,
        };
        let mirror = match mirror {
            Some(mirror) => mirror.to_owned(),
            None => host_mirror()?,
        };
        apt.configure(&mirror, &host::keyring()?)?;
        let _ = fs::remove_file(&apt.log);
        apt.call("apt-get", &["update", "--quiet", "--error-on=any"])
            .run_logged(&apt.log, &task)
            .with_context(|| {
                format!(
                    "cannot fetch the package index from {mirror}; is the network up, and does \
                     the mirror have {} and {}? Another one can be given by --mirror or SVM_MIRROR",
                    recipe::SUITE,
                    recipe::BACKPORTS
                )
            })?;
        task.done();
        Ok(apt)
    }

    /// The file with the sources, in the form of `sources.list`.
    pub fn sources(&self) -> PathBuf {
        self.directory.join("sources.list")
    }

    /// The file with the pins.
    pub fn preferences(&self) -> PathBuf {
        self.directory.join("preferences")
    }

    /// The file with the settings for the network.
    pub fn network(&self) -> PathBuf {
        self.directory.join("network.conf")
    }

    /// Resolves QEMU's version and fails where its series is gone.
    pub fn qemu(&self) -> Result<String> {
        let table = self
            .call("apt-cache", &["madison", "qemu-system-x86"])
            .output()?;
        choose_version(&madison_versions(&table), recipe::QEMU_SERIES).map_err(|existing| {
            anyhow::anyhow!(
                "QEMU {} is no longer in the package index, which has {existing}; the plug-in knows \
                 the layout of {0} only. Use a mirror that still has it (--mirror), or your own \
                 QEMU of that series (--qemu); a newer series takes a change of QEMU_SERIES in {}",
                recipe::QEMU_SERIES,
                recipe::FILE
            )
        })
    }

    /// Resolves the newest kernel of the series.
    pub fn kernel(&self) -> Result<KernelPackages> {
        let prefix = format!("linux-binary-{}.", recipe::KERNEL_SERIES);
        let names = self.call("apt-cache", &["pkgnames", &prefix]).output()?;
        let Some(common) = newest_kernel(&names, recipe::KERNEL_SERIES) else {
            let names = self
                .call("apt-cache", &["pkgnames", "linux-source-"])
                .output()?;
            bail!(
                "Linux {} is no longer in the package index, which has {}; use a mirror that still \
                 has it (--mirror), or your own kernel (--kdir); a newer series takes a change of \
                 KERNEL_SERIES in {}",
                recipe::KERNEL_SERIES,
                source_series(&names),
                recipe::FILE
            );
        };
        let release = format!("{common}-amd64");
        let binary = format!("linux-binary-{release}");
        let table = self.call("apt-cache", &["madison", &binary]).output()?;
        let version = madison_versions(&table)
            .into_iter()
            .next()
            .with_context(|| format!("the package index has no version of {binary}"))?;
        Ok(KernelPackages {
            release,
            common,
            version,
        })
    }

    /// Fetches packages into a directory, each `name=version`.
    pub fn download(&self, packages: &[String], into: &Path, task: &Task) -> Result<()> {
        fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
        self.call("apt-get", &["download", "--quiet"])
            .args(packages)
            .directory(into)
            .run_logged(&self.log, task)
            .with_context(|| format!("cannot fetch {}", packages.join(", ")))
    }

    fn call(&self, program: &str, arguments: &[&str]) -> External {
        External::new(program)
            .args(arguments)
            .env("APT_CONFIG", self.directory.join("apt.conf"))
            .env("LC_ALL", "C")
    }

    fn configure(&self, mirror: &str, keyring: &Path) -> Result<()> {
        let directory = &self.directory;
        for sub in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(sub);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let settings = External::new("apt-config").arg("dump").output()?;
        let network = network_settings(&settings);
        write("network.conf", &network)?;
        write(
            "apt.conf",
            &format!("{}{network}", configuration(directory)),
        )?;
        write("sources.list", &sources(mirror, keyring))?;
        write("preferences", &preferences())?;
        write("status", "")
    }
}

/// The mirror that the host's apt uses.
pub fn host_mirror() -> Result<String> {
    // Without the release files, which a machine without package lists does not have.
    let format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)";
    let targets = External::new("apt-get")
        .args(["--no-release-info", "indextargets", "--format", format])
        .env("LC_ALL", "C")
        .output()
        .context("cannot ask apt for its package sources")?;
    choose_mirror(&targets).with_context(|| {
        format!(
            "apt on this machine knows no Debian mirror (a source of one of {}, component main): \
             give one by --mirror URI or SVM_MIRROR",
            SUITES.join(", ")
        )
    })
}

/// The first mirror of Debian itself among lines `uri|release|component`.
fn choose_mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut fields = line.split('|');
        let (uri, release, component) = (fields.next()?, fields.next()?, fields.next()?);
        let fits = component == "main"
            && SUITES.contains(&release)
            && ["http://", "https://", "file:"]
                .iter()
                .any(|scheme| uri.starts_with(scheme));
        fits.then(|| uri.trim_end_matches('/').to_owned())
    })
}

fn network_settings(dump: &str) -> String {
    dump.lines()
        .filter(|line| {
            let name = line.split_whitespace().next().unwrap_or_default();
            NETWORK_SETTINGS.iter().any(|setting| {
                name.strip_prefix(setting)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            })
        })
        .map(|line| format!("{line}\n"))
        .collect()
}

/// apt's configuration. It is read first, and keeps apt from reading the host's.
fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "{directory}/preferences";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{directory}";
Dir::State::lists "{directory}/lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
"#
    )
}

fn sources(mirror: &str, keyring: &Path) -> String {
    [recipe::SUITE, recipe::BACKPORTS]
        .map(|suite| {
            format!(
                "deb [signed-by={}] {mirror} {suite} main\n",
                keyring.display()
            )
        })
        .concat()
}

fn preferences() -> String {
    let backported: Vec<_> = recipe::BACKPORTED
        .iter()
        .map(|source| format!("src:{source}:any"))
        .collect();
    format!(
        "Package: {}\nPin: release n={}\nPin-Priority: 990\n\n\
         Package: src:qemu:any\nPin: version 1:{}.*\nPin-Priority: 990\n",
        backported.join(" "),
        recipe::BACKPORTS,
        recipe::QEMU_SERIES
    )
}

/// The versions in a table of `apt-cache madison`, newest first, as apt orders them.
fn madison_versions(table: &str) -> Vec<String> {
    table
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(|version| version.trim().to_owned())
        .collect()
}

/// A version without epoch and Debian revision.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split(['-', '+', '~']).next().unwrap_or(version)
}

/// The newest version of a series, or the list of what there is.
fn choose_version(versions: &[String], series: &str) -> Result<String, String> {
    let fits = |version: &&String| {
        upstream(version)
            .strip_prefix(series)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    versions.iter().find(fits).cloned().ok_or_else(|| {
        let existing: Vec<_> = versions.iter().map(|version| upstream(version)).collect();
        if existing.is_empty() {
            "none".to_owned()
        } else {
            existing.join(", ")
        }
    })
}

/// The newest `7.2.12+deb13` among lines `linux-binary-7.2.12+deb13-amd64`; other flavours do not
/// count.
fn newest_kernel(names: &str, series: &str) -> Option<String> {
    let prefix = format!("linux-binary-{series}.");
    names
        .lines()
        .filter_map(|name| {
            let (patch, flavour) = name.trim().strip_prefix(&prefix)?.split_once('-')?;
            let number: u32 = patch.split('+').next()?.parse().ok()?;
            (flavour == "amd64").then(|| (number, format!("{series}.{patch}")))
        })
        .max()
        .map(|(_, common)| common)
}

fn source_series(names: &str) -> String {
    let mut series: Vec<_> = names
        .lines()
        .filter_map(|name| name.trim().strip_prefix("linux-source-"))
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    series.sort_unstable();
    if series.is_empty() {
        "none".to_owned()
    } else {
        series.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
https://packages.example.org/x/|stable|extra
http://mirror.example.org/debian-security/|bookworm-security|main
cdrom://disk/|bookworm|main
http://mirror.example.org/debian/|bookworm|main
http://other.example.org/debian/|bookworm|main
";

    #[test]
    fn the_mirror_is_the_first_of_debian_itself() {
        assert_eq!(
            choose_mirror(TARGETS).unwrap(),
            "http://mirror.example.org/debian"
        );
        assert_eq!(choose_mirror("http://m/ubuntu/|noble|main\n"), None);
        assert_eq!(choose_mirror(""), None);
    }

    #[test]
    fn the_newest_version_of_the_series_is_chosen() {
        let table = "qemu-system-x86 | 1:11.1.3+ds-1~bpo13+1 | http://m trixie-backports/main\n\
                     qemu-system-x86 | 1:10.0.13+ds-0+deb13u1 | http://m trixie/main\n";
        let versions = madison_versions(table);
        assert_eq!(
            choose_version(&versions, "11.1").unwrap(),
            "1:11.1.3+ds-1~bpo13+1"
        );
        assert_eq!(
            choose_version(&versions, "11.2").unwrap_err(),
            "11.1.3, 10.0.13"
        );
        assert_eq!(
            choose_version(&versions, "1").unwrap_err(),
            "11.1.3, 10.0.13"
        );
        assert_eq!(choose_version(&[], "1").unwrap_err(), "none");
    }

    #[test]
    fn the_newest_kernel_is_by_number_and_of_the_plain_flavour() {
        let names = "linux-binary-7.2.9+deb13-amd64\nlinux-binary-7.2.12+deb13-amd64\n\
                     linux-binary-7.2.13+deb13-cloud-amd64\nlinux-binary-7.20.1+deb13-amd64\n";
        assert_eq!(newest_kernel(names, "7.2").unwrap(), "7.2.12+deb13");
        assert_eq!(newest_kernel(names, "7.3"), None);
    }

    #[test]
    fn the_series_that_exist_are_listed() {
        let names = "linux-source-7.3\nlinux-source-6.12\nlinux-source-extra\n";
        assert_eq!(source_series(names), "6.12, 7.3");
        assert_eq!(source_series(""), "none");
    }

    #[test]
    fn only_settings_of_the_network_are_taken_over() {
        let dump = "APT \"\";\nAcquire::http::Proxy \"http://p:1\";\nAcquire::httpx \"1\";\n\
                    Acquire::Retries \"3\";\nDPkg::Post-Invoke \"rm\";\n";
        assert_eq!(
            network_settings(dump),
            "Acquire::http::Proxy \"http://p:1\";\nAcquire::Retries \"3\";\n"
        );
    }

    #[test]
    fn the_pins_name_series_and_suite() {
        let text = preferences();
        assert!(text.contains("Pin: version 1:11.1.*"), "{text}");
        assert!(text.contains("src:linux:any"), "{text}");
    }
}
