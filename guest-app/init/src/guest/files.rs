// SPDX-License-Identifier: MIT OR Apache-2.0
//! The user's files, copied into the guest and out of it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::sys::termios::tcdrain;
use svm_init::events::{Event, FetchEvent, Status};
use svm_init::paths;
use svm_init::plan::{Exit, Fetch};

use super::channel::{self, Channel};

/// Copies files to places on which other file systems were mounted meanwhile.
pub fn place_late() -> Result<()> {
    super::busybox(&["cp", "-a", &format!("{}/.", paths::LATE), "/"])?;
    fs::remove_dir_all(paths::LATE).with_context(|| format!("cannot remove {}", paths::LATE))
}

/// Copies files out of the guest and reports each.
pub fn fetch(fetch: &Fetch, channel: &mut Channel) -> Result<()> {
    let (found, missing): (Vec<_>, Vec<_>) = fetch
        .paths
        .iter()
        .partition(|path| Path::new(path).symlink_metadata().is_ok());
    for path in missing {
        report(channel, path, Err("the guest has no such file".to_owned()))?;
    }
    if found.is_empty() {
        return Ok(());
    }
    let outcome = pack(&found, fetch.by).map_err(|error| format!("{error:#}"));
    for path in found {
        report(channel, path, outcome.clone())?;
    }
    Ok(())
}

fn report(channel: &mut Channel, path: &str, outcome: Result<(), String>) -> Result<()> {
    channel.send(&Event::Fetch(FetchEvent {
        path: path.to_owned(),
        status: match outcome {
            Ok(()) => Status::Ok,
            Err(_) => Status::Failed,
        },
        message: outcome.err().unwrap_or_default(),
    }))
}

/// Writes one archive of all files.
fn pack(paths: &[&String], by: Exit) -> Result<()> {
    let sink = match by {
        Exit::Disk => {
            let disk = disk()?;
            OpenOptions::new()
                .write(true)
                .open(&disk)
                .with_context(|| format!("cannot open {}", disk.display()))?
        }
        Exit::Port => channel::open_raw(paths::FETCH_PORT.as_ref())?,
    };
    let output = Command::new("/bin/busybox")
        .args(["tar", "-c", "-f", "-", "-C", "/", "--"])
        .args(paths.iter().map(|path| path.trim_start_matches('/')))
        .stdin(Stdio::null())
        .stdout(sink.try_clone().context("cannot duplicate a file")?)
        .output()
        .context("cannot run /bin/busybox")?;
    flush(&sink, by).context("cannot write all of it")?;
    ensure!(
        output.status.success(),
        "tar: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn flush(sink: &File, by: Exit) -> Result<()> {
    match by {
        Exit::Disk => sink.sync_all()?,
        Exit::Port => tcdrain(sink)?,
    }
    Ok(())
}

/// The disk for the files that leave the guest. The guest may have others.
fn disk() -> Result<PathBuf> {
    let blocks = "/sys/block";
    for entry in fs::read_dir(blocks).with_context(|| format!("cannot read {blocks}"))? {
        let entry = entry.with_context(|| format!("cannot read {blocks}"))?;
        let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
        if serial.trim() == paths::FETCH_DISK {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    anyhow::bail!(
        "there is no disk with the serial number {}; is the module virtio_blk loaded?",
        paths::FETCH_DISK
    )
}
