// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a program inside the prepared root, which it cannot change: in namespaces of its own, so
//! that nothing stays mounted or running whatever happens.

use std::path::Path;

use crate::external::External;

/// Mounts and enters. Arguments: the root, the directory to be `/mnt`, the directory to be
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

/// A program in the root. `work` is its `/mnt`, the only place that it can write to beside `/tmp`;
/// `sources` takes the place of its `/usr/src`.
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
