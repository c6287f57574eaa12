// SPDX-License-Identifier: MIT OR Apache-2.0
//! Permissions for other users, and the message if they do not suffice.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// Permissions that all users need for shared directories, and for the files in them.
pub(super) const SHARED_DIRECTORY: u32 = 0o755;
pub(super) const SHARED_FILE: u32 = 0o644;

/// Lets all users use the prepared parts, whatever the umask. Only the owner of a file can do this;
/// files of other owners stay unchanged.
pub(super) fn share(path: &Path, mode: u32) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
}

/// Explains an error at a path: names a directory that the user may not enter.
pub fn unreachable(path: &Path, error: std::io::Error) -> anyhow::Error {
    if error.kind() != std::io::ErrorKind::PermissionDenied {
        return error.into();
    }
    let closed = path.ancestors().collect::<Vec<_>>().into_iter().rev();
    let closed = closed
        .filter(|directory| directory.is_dir())
        .find(|directory| nix::unistd::access(*directory, nix::unistd::AccessFlags::X_OK).is_err());
    match closed.and_then(|directory| Some((directory, fs::metadata(directory).ok()?))) {
        Some((directory, metadata)) => anyhow::anyhow!(
            "{} belongs to the user {} and has the mode {:04o}, which keeps others out: its owner \
             can give it to all by `chmod -R a+rX {}`",
            directory.display(),
            metadata.uid(),
            metadata.mode() & 0o7777,
            directory.display()
        ),
        None => error.into(),
    }
}
