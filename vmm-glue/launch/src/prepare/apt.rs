// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian packages through the host's apt, with separate lists, cache and configuration: the host's
//! package state is read for the mirror and the proxies, and never changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::series::{self, Series};
use super::{host, recipe};
use crate::cache::Cache;
use crate::external::External;
use crate::progress::{Progress, Task};

/// Suites whose mirrors also have all others.
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

/// Network settings of the host's apt.
const NETWORK_SETTINGS: &[&str] = &[
    "Acquire::http",
    "Acquire::https",
    "Acquire::Retries",
    "Acquire::ForceIPv4",
    "Acquire::ForceIPv6",
    "Acquire::Check-Valid-Until",
];

/// The source of packages.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Name of the directory of apt's lists.
    pub directory: &'static str,
    /// The suites.
    pub suites: &'static [&'static str],
    /// The suites of packages, in the format of apt's preferences.
    pub pins: fn() -> String,
}

/// The source of the packages of guests.
pub const CURRENT: Origin = Origin {
    directory: "apt",
    suites: &[recipe::SUITE, recipe::BACKPORTS],
    pins: preferences,
};

/// Prefix of the names of packages with a kernel.
const KERNELS: &str = "linux-binary-";

/// Prefix of the names of packages with a kernel's source.
const SOURCES: &str = "linux-source-";

/// The package with QEMU.
pub const QEMU: &str = "qemu-system-x86";

/// apt with its own directories. Only one process at a time may use it.
#[derive(Debug)]
pub struct Apt {
    directory: PathBuf,
    log: PathBuf,
}

/// A kernel, resolved from the package index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPackages {
    /// Name of the package with the source.
    pub source: String,
    /// Release of the kernel, as `uname -r` prints it.
    pub release: String,
    /// Release without the flavour, as in the name of the common headers.
    pub common: String,
    /// Version of the packages.
    pub version: String,
}

impl Apt {
    /// Sets the directories up and fetches the package lists.
    pub fn open(
        cache: &Cache,
        origin: &Origin,
        mirror: Option<&str>,
        progress: &Progress,
    ) -> Result<Self> {
        let task = progress.task("reading the package index");
        let directory = cache.directory(origin.directory)?;
        let apt = Self {
            log: cache.logs()?.join("apt.log"),
            directory,
        };
        let mirror = match mirror {
            Some(mirror) => mirror.to_owned(),
            None => host_mirror()?,
        };
        apt.configure(origin, &mirror, &host::keyring()?)?;
        let _ = fs::remove_file(&apt.log);
        apt.call("apt-get", &["update", "--quiet", "--error-on=any"])
            .run_logged(&apt.log, &task)
            .with_context(|| {
                format!(
                    "cannot fetch the package index from {mirror}; is the network up, and does \
                     the mirror have {}? Another one can be given by --mirror or SVM_MIRROR",
                    origin.suites.join(" and ")
                )
            })?;
        task.done();
        Ok(apt)
    }

    /// The file with the sources, in the format of `sources.list`.
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

    /// The versions of a package, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = self.call("apt-cache", &["madison", package]).output()?;
        Ok(madison_versions(&table))
    }

    /// The packages that a package depends on, without versions.
    pub fn depends(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let name = format!("{package}={version}");
        let text = self.call("apt-cache", &["show", &name]).output()?;
        Ok(depends(&text))
    }

    /// Resolves QEMU's version; fails if its series is gone.
    pub fn qemu(&self) -> Result<String> {
        choose_version(&self.versions(QEMU)?, recipe::QEMU_SERIES).map_err(|existing| {
            anyhow::anyhow!(
                "QEMU {} is no longer in the package index, which has {existing}; the plug-in knows \
                 the layout of {0} only. Use a mirror that still has it (--mirror), or your own \
                 QEMU of that series (--qemu); a newer series takes a change of QEMU_SERIES in {}",
                recipe::QEMU_SERIES,
                recipe::FILE
            )
        })
    }

    /// The series of Linux in the package index from which modules in Rust can be built, sorted.
    pub fn kernel_series(&self) -> Result<Vec<Series>> {
        Ok(complete_series(
            &self.names(KERNELS)?,
            &self.names(SOURCES)?,
        ))
    }

    /// Resolves the newest kernel of a series.
    pub fn kernel(&self, series: Series) -> Result<KernelPackages> {
        series::choose(&self.kernel_series()?, Some(series))?;
        let common = newest_kernel(&self.names(KERNELS)?, series)
            .with_context(|| format!("the package index has no kernel of the series {series}"))?;
        let release = format!("{common}-amd64");
        let binary = format!("{KERNELS}{release}");
        let version = self
            .versions(&binary)?
            .into_iter()
            .next()
            .with_context(|| format!("the package index has no version of {binary}"))?;
        Ok(KernelPackages {
            source: format!("{SOURCES}{series}"),
            release,
            common,
            version,
        })
    }

    /// The names of packages with a prefix.
    fn names(&self, beginning: &str) -> Result<String> {
        self.call("apt-cache", &["pkgnames", beginning]).output()
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

    fn configure(&self, origin: &Origin, mirror: &str, keyring: &Path) -> Result<()> {
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
        write("sources.list", &sources(origin, mirror, keyring))?;
        write("preferences", &(origin.pins)())?;
        write("status", "")
    }
}

/// The mirror that the host's apt uses.
pub fn host_mirror() -> Result<String> {
    // Without the release files, which a machine without package lists lacks.
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

/// apt's configuration. apt reads it first, and it keeps apt from reading the host's.
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

fn sources(origin: &Origin, mirror: &str, keyring: &Path) -> String {
    let keyring = keyring.display();
    let line = |suite| format!("deb [signed-by={keyring}] {mirror} {suite} main\n");
    origin.suites.iter().map(line).collect()
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

/// The packages in the line `Depends` of a package's description.
fn depends(description: &str) -> Vec<String> {
    let line = description
        .lines()
        .find_map(|line| line.strip_prefix("Depends: "));
    let name = |word: &str| word.split_whitespace().next().map(str::to_owned);
    line.map(|line| line.split(',').filter_map(name).collect())
        .unwrap_or_default()
}

/// A version without epoch and Debian revision.
fn upstream(version: &str) -> &str {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    version.split(['-', '+', '~']).next().unwrap_or(version)
}

/// The newest version of a series, or an error with the existing versions.
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

/// The kernels of the plain flavour among names of packages: series, patch number, and the release
/// without the flavour, as `7.3`, `4` and `7.3.4+deb13` of `linux-binary-7.3.4+deb13-amd64`.
fn kernels(names: &str) -> impl Iterator<Item = (Series, u32, &str)> {
    names.lines().filter_map(|name| {
        let common = name
            .trim()
            .strip_prefix(KERNELS)?
            .strip_suffix("-amd64")
            .filter(|common| !common.contains('-'))?;
        let series = Series::of_release(common)?;
        let rest = common.strip_prefix(&series.to_string())?;
        let patch = rest.strip_prefix('.').unwrap_or("0");
        let patch = patch.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((series, patch.parse().ok()?, common))
    })
}

/// The newest kernel of a series.
fn newest_kernel(names: &str, series: Series) -> Option<String> {
    kernels(names)
        .filter(|(of, ..)| *of == series)
        .max()
        .map(|(.., common)| common.to_owned())
}

/// The series that have both a kernel and its source, sorted.
fn complete_series(kernel_names: &str, source_names: &str) -> Vec<Series> {
    let sources: BTreeSet<Series> = source_names
        .lines()
        .filter_map(|name| name.trim().strip_prefix(SOURCES)?.parse().ok())
        .collect();
    let built: BTreeSet<Series> = kernels(kernel_names).map(|(series, ..)| series).collect();
    built.intersection(&sources).copied().collect()
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
                     linux-binary-7.2.13+deb13-cloud-amd64\nlinux-binary-7.20.1+deb13-amd64\n\
                     linux-binary-unsigned-7.2.14+deb13-amd64\nlinux-binary-7.4-amd64\n";
        let newest = |series: &str| newest_kernel(names, series.parse().unwrap());
        assert_eq!(newest("7.2").unwrap(), "7.2.12+deb13");
        assert_eq!(newest("7.20").unwrap(), "7.20.1+deb13");
        assert_eq!(newest("7.4").unwrap(), "7.4");
        assert_eq!(newest("7.3"), None);
    }

    #[test]
    fn a_series_exists_where_the_index_has_kernel_and_source() {
        let kernels = "linux-binary-7.10.1+deb13-amd64\nlinux-binary-7.3.4+deb13-amd64\n\
                       linux-binary-7.1.13+deb13-amd64\nlinux-binary-7.4.1+deb13-cloud-amd64\n";
        let sources = "linux-source-7.10\nlinux-source-7.3\nlinux-source-7.4\n\
                       linux-source-6.12\nlinux-source\nlinux-source-extra\n";
        let found = complete_series(kernels, sources);
        assert_eq!(super::super::series::list(&found), "7.3, 7.10");
        assert_eq!(complete_series("", ""), []);
    }

    #[test]
    fn dependencies_are_names() {
        let text = "Package: x\nDepends: gcc-16-for-host, linux-base (>= 4.12~), a | b\nSize: 1\n";
        assert_eq!(depends(text), ["gcc-16-for-host", "linux-base", "a"]);
        assert_eq!(depends("Package: x\n"), [""; 0]);
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
