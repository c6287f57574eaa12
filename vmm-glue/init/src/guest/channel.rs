// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's end of the results channel: a serial port in raw mode.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::termios::{SetArg, cfmakeraw, tcdrain, tcgetattr, tcsetattr};
use svm_init::events::Event;

/// The results channel, open for as long as the guest lives: the port would forget its settings
/// when the last file on it is closed.
#[derive(Debug)]
pub struct Channel {
    port: File,
}

impl Channel {
    /// Opens the port and switches off everything that would change the bytes.
    pub fn open(path: &Path) -> Result<Self> {
        let port = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open the results channel {}", path.display()))?;
        let mut settings = tcgetattr(&port).context("the results channel is not a terminal")?;
        cfmakeraw(&mut settings);
        tcsetattr(&port, SetArg::TCSANOW, &settings)
            .context("cannot set the results channel to raw mode")?;
        Ok(Self { port })
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
