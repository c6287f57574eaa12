// SPDX-License-Identifier: MIT OR Apache-2.0
//! What other users are allowed, and what they are told where that is not enough.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// What all users need to be allowed for the directories that they share, and for the files in
/// them.
pub(super) const SHARED_DIRECTORY: u32 = 0o755;
pub(super) const SHARED_FILE: u32 = 0o644;

/// Lets everybody use what is prepared, whatever the umask is. Only the owner of a file can: where
/// it is somebody else's, it stays as it is.
pub(super) fn share(path: &Path, mode: u32) {
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
}

/// Explains an error at a path: where a directory may not be entered, it is named.
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
