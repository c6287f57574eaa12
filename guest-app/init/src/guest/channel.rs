// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's end of the results channel: a serial port in raw mode.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use svm_init::events::Event;
use svm_init::paths;

/// The results channel. It stays open as long as the guest runs: the port loses its settings when
/// its last file is closed.
#[derive(Debug)]
pub struct Channel {
    port: File,
}

/// The path of the results channel: the kernel's command line may name it.
pub fn path(command_line: &str) -> &str {
    let mut words = command_line.split_whitespace();
    words
        .find_map(|word| word.strip_prefix(paths::RESULTS_PARAMETER))
        .unwrap_or(paths::RESULTS)
}

/// Opens a serial port and turns off all processing that would change the bytes.
pub fn open_raw(path: &Path) -> Result<File> {
    let port = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let mut settings =
        tcgetattr(&port).with_context(|| format!("{} is not a terminal", path.display()))?;
    cfmakeraw(&mut settings);
    tcsetattr(&port, SetArg::TCSANOW, &settings)
        .with_context(|| format!("cannot set {} to raw mode", path.display()))?;
    Ok(port)
}

impl Channel {
    /// Opens the port.
    pub fn open(path: &Path) -> Result<Self> {
        let port = open_raw(path)?;
        Ok(Self { port })
    }

    /// A channel to a file.
    #[cfg(test)]
    pub fn to(port: File) -> Self {
        Self { port }
    }

    /// Sends one event.
    pub fn send(&mut self, event: &Event) -> Result<()> {
        event
            .write_to(&mut self.port)
            .context("cannot write to the results channel")?;
        if matches!(event, Event::End(_)) {
            tcdrain(&self.port).context("cannot flush the results channel")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_may_name_the_channel() {
        assert_eq!(path("console=ttyS0 svm_results=/dev/hvc0 x"), "/dev/hvc0");
        assert_eq!(path("console=ttyS0 quiet\n"), paths::RESULTS);
    }
}
