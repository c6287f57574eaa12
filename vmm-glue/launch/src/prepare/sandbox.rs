// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a program inside the prepared root, which it cannot change, in separate namespaces, so that
//! nothing stays mounted or running in any case.

use std::path::Path;

use crate::external::External;

/// Mounts and enters the root. Arguments: the root, the directory for `/mnt`, the directory for
/// `/usr/src` (or nothing), then the program and its arguments.
const ENTER: &str = r#"
set -e
root=$1 work=$2 sources=$3
shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount --bind "$work" "$root/mnt"
if [ -n "$sources" ]; then
    mount --bind "$sources" "$root/usr/src"
    mount -o remount,bind,ro "$root/usr/src"
fi
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
"#;

/// A program in the root. `work` is its `/mnt`, the only writable directory besides `/tmp`;
/// `sources` replaces its `/usr/src`.
pub fn enter(root: &Path, work: &Path, sources: Option<&Path>, program: &[&str]) -> External {
    External::new("sh")
        .args(["-c", ENTER, "enter"])
        .arg(root)
        .arg(work)
        .arg(sources.unwrap_or(Path::new("")))
        .args(program)
        .clear_env()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/tmp")
        .env("LC_ALL", "C")
        .with_mounts(root)
}
