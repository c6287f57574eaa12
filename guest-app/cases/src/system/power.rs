// SPDX-License-Identifier: MIT OR Apache-2.0
//! System suspend, and a timer that ends it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Where to tell the kernel to suspend.
const STATE: &str = "/sys/power/state";
/// How far a suspend test proceeds before it resumes.
const DEPTH: &str = "/sys/power/pm_test";
/// Seconds that it stays there; 5 if it cannot be set.
const STAY: &str = "/sys/module/suspend/parameters/pm_test_delay";

/// Whether the kernel can suspend to idle.
pub fn can_suspend_to_idle() -> bool {
    let states = fs::read_to_string(STATE).unwrap_or_default();
    states.split_whitespace().any(|state| state == "freeze")
}

/// Suspends to idle until something wakes the machine.
///
/// # Errors
///
/// The kernel refuses.
pub fn suspend_to_idle() -> io::Result<()> {
    fs::write(STATE, "freeze")
}

/// The kernel's own suspend test: all devices are suspended, with interrupts off, but the
/// processors are not.
///
/// # Errors
///
/// The kernel has no such test, or refuses.
pub fn rehearse_suspend_to_idle() -> io::Result<()> {
    fs::write(DEPTH, "platform")?;
    let _ = fs::write(STAY, "0");
    let slept = suspend_to_idle();
    fs::write(DEPTH, "none").and(slept)
}

/// The power management timer of ACPI (ACPI 6.5, 4.8.3.3). It always counts. A change of its
/// highest bit can raise an event, which wakes a machine that is suspended to idle.
///
/// The kernel does not use the event. If it is awake when the event arrives, it logs an error and
/// disables the event. If that happens before it suspends, nothing wakes it any more.
#[derive(Debug)]
pub struct AcpiTimer {
    ports: File,
    /// I/O port of the event's status; the port that enables the event is two further on.
    status: u64,
}

impl AcpiTimer {
    /// Time between two events: 2^23 ticks of 3.579545 MHz.
    pub const PERIOD: Duration = Duration::from_micros(2_343_484);

    /// The bit of the timer's event in both registers (TMR_STS and TMR_EN).
    const TIMER: u8 = 1;
    /// The kernel's name for the registers of ACPI's fixed events.
    const EVENTS: &str = ": ACPI PM1a_EVT_BLK";

    /// Finds the timer; `None` if the kernel lists none.
    ///
    /// # Errors
    ///
    /// The machine's ports cannot be accessed.
    pub fn find() -> io::Result<Option<AcpiTimer>> {
        let ports = fs::read_to_string("/proc/ioports")?;
        let Some(status) = event_port(&ports) else {
            return Ok(None);
        };
        let ports = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/port")?;
        Ok(Some(AcpiTimer { ports, status }))
    }

    /// Waits for the beginning of a period, and enables the event for its end.
    ///
    /// # Errors
    ///
    /// Those of accesses to the ports; the timer does not count.
    pub fn arm(&self) -> io::Result<()> {
        // Writing a one clears the bit.
        self.ports.write_all_at(&[Self::TIMER], self.status)?;
        let start = std::time::Instant::now();
        while !self.has_passed()? {
            if start.elapsed() > 10 * Self::PERIOD {
                return Err(io::Error::other("the timer of ACPI does not count"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.ports.write_all_at(&[Self::TIMER], self.status)?;
        self.ports.write_all_at(&[Self::TIMER], self.status + 2)
    }

    fn has_passed(&self) -> io::Result<bool> {
        let mut status = [0];
        self.ports.read_exact_at(&mut status, self.status)?;
        Ok(status[0] & Self::TIMER != 0)
    }
}

/// The first port of ACPI's fixed events, from `/proc/ioports`.
fn event_port(ports: &str) -> Option<u64> {
    let line = ports
        .lines()
        .find(|line| line.ends_with(AcpiTimer::EVENTS))?;
    let (first, _) = line.trim().split_once('-')?;
    u64::from_str_radix(first, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_first_of_its_line() {
        let ports = "0000-0cf7 : PCI Bus 0000:00\n  0600-067f : pnp\n    \
                     0600-0603 : ACPI PM1a_EVT_BLK\n    0604-0605 : ACPI PM1a_CNT_BLK\n";
        assert_eq!(event_port(ports), Some(0x600));
        assert_eq!(event_port("0000-0cf7 : PCI Bus 0000:00\n"), None);
    }
}
