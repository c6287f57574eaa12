// SPDX-License-Identifier: MIT OR Apache-2.0
//! The interfaces that a kernel lacks for the driver, from the log of a build: if the driver is
//! built for an unknown series, the first errors say more than the last lines of the log.

use std::fmt;

/// Number of misfits in a message.
const SHOWN: usize = 4;

/// A place in the code that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The file, and the line if known.
    pub place: String,
    /// The compiler's message, with the symbol.
    pub what: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// All misfits in a log, in order, each once.
pub fn find(log: &str) -> Vec<Misfit> {
    let mut found = Vec::new();
    let mut lines = log.lines().peekable();
    while let Some(line) = lines.next() {
        // The linker reports missing symbols with the object file.
        let misfit = if let Some(what) = rust_error(line) {
            let place = lines
                .peek()
                .and_then(|next| next.trim_start().strip_prefix("--> "));
            place.map(|place| Misfit {
                place: within_checkout(place),
                what: what.to_owned(),
            })
        } else {
            c_error(line).or_else(|| modpost_error(line))
        };
        if let Some(misfit) = misfit.filter(|misfit| !found.contains(misfit)) {
            found.push(misfit);
        }
    }
    found
}

/// Some of them in a sentence; none if there are none.
pub fn describe(misfits: &[Misfit]) -> Option<String> {
    let mut names: Vec<_> = misfits.iter().take(SHOWN).map(Misfit::to_string).collect();
    if misfits.len() > SHOWN {
        names.push(format!("{} more", misfits.len() - SHOWN));
    }
    (!names.is_empty()).then(|| names.join("; "))
}

/// The text of a line such as `error[E0432]: unresolved import`.
fn rust_error(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("error")?;
    let rest = match rest.strip_prefix('[') {
        Some(code) => code.split_once(']')?.1,
        None => rest,
    };
    rest.strip_prefix(": ")
}

/// A line such as `file.c:12:3: error: text` or `file.c:12: fatal error: text`.
fn c_error(line: &str) -> Option<Misfit> {
    let (place, what) = line
        .split_once(": error: ")
        .or_else(|| line.split_once(": fatal error: "))?;
    Some(Misfit {
        place: within_checkout(place),
        what: what.to_owned(),
    })
}

/// A line such as `ERROR: modpost: "symbol" [/mnt/guest-driver/svm_demo.ko] undefined!`.
fn modpost_error(line: &str) -> Option<Misfit> {
    let what = line.strip_prefix("ERROR: modpost: ")?;
    let symbol = what.split('"').nth(1)?;
    Some(Misfit {
        place: "svm_demo.ko".to_owned(),
        what: format!("the kernel does not export `{symbol}`"),
    })
}

/// A file's name in the checkout or the kernel's source, with the line and without the column.
fn within_checkout(place: &str) -> String {
    let mut parts = place.splitn(3, ':');
    let path = parts.next().unwrap_or(place);
    let number = parts.next().filter(|text| text.parse::<u32>().is_ok());
    let name = ["guest-driver/", "demo-device/"]
        .iter()
        .find_map(|known| path.find(known).map(|start| &path[start..]))
        .or_else(|| path.strip_prefix("/mnt/build/source/"))
        .map_or_else(|| bare(path), str::to_owned);
    match number {
        Some(number) => format!("{name}:{number}"),
        None => name,
    }
}

/// A file without a directory belongs to the driver, because its build starts there.
fn bare(path: &str) -> String {
    if path.contains('/') {
        path.to_owned()
    } else {
        format!("guest-driver/{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
make: Entering directory '/usr/src/linux-headers-7.4.1-amd64'
  RUSTC [M] svm_demo_main.o
error[E0432]: unresolved import `kernel::pci::DevresBar`
  --> /mnt/guest-driver/compat.rs:45:14
   |
45 | pub(crate) use kernel::{
error: cannot find macro `pci_device_table` in this scope
   --> svm_demo_main.rs:149:9
error[E0432]: unresolved import `kernel::pci::DevresBar`
  --> /mnt/guest-driver/compat.rs:45:14
error: aborting due to 3 previous errors
/mnt/guest-driver/tracepoints.c:9:10: fatal error: trace/define_trace.h: No such file or directory
/mnt/build/source/rust/helpers/helpers.c:7: error: implicit declaration of function 'f'
ERROR: modpost: \"iommu_sva_bind_device\" [/mnt/guest-driver/svm_demo.ko] undefined!
make[3]: *** [scripts/Makefile.build:1: x.o] Error 1
";

    #[test]
    fn files_lines_and_symbols_are_named_once() {
        let found: Vec<_> = find(LOG).iter().map(Misfit::to_string).collect();
        assert_eq!(
            found,
            [
                "guest-driver/compat.rs:45: unresolved import `kernel::pci::DevresBar`",
                "guest-driver/svm_demo_main.rs:149: cannot find macro `pci_device_table` in this \
                 scope",
                "guest-driver/tracepoints.c:9: trace/define_trace.h: No such file or directory",
                "rust/helpers/helpers.c:7: implicit declaration of function 'f'",
                "svm_demo.ko: the kernel does not export `iommu_sva_bind_device`",
            ]
        );
    }

    #[test]
    fn a_message_names_some_and_counts_the_rest() {
        let all = describe(&find(LOG)).unwrap();
        assert!(all.ends_with("; 1 more"), "{all}");
        assert_eq!(describe(&find("make: *** Error 2\n")), None);
    }
}
