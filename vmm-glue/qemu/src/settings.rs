// SPDX-License-Identifier: GPL-2.0-or-later
//! The properties of `-device svm-demo`, and the endpoint that they describe.

use pcie_ats::PasidWidth;
use svm_abi::ids::MAX_CONTEXTS;
use svm_endpoint::{Config, MAX_ATC_ENTRIES, MAX_ATC_WAYS, MIN_ATC_ENTRIES, MIN_ATC_WAYS};

use crate::property::{self, Property};
use crate::qom::Class;

/// Microseconds, the endpoint's unit of time, in a millisecond.
const MICROSECONDS: u64 = 1000;
/// The longest time between two requests for the same pages, in microseconds: long enough for the
/// guest to take entries out of a full queue.
const BACKOFF: u64 = MICROSECONDS;
/// The longest time-out in milliseconds: an hour.
const MOST_TIMEOUT: u64 = 3_600_000;

/// The largest trace in MiB: a TiB.
const MOST_TRACE: u64 = 1 << 20;

/// The values of the properties.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Contexts.
    pub contexts: u64,
    /// Entries of the address translation cache.
    pub atc_entries: u64,
    /// Entries of a set of it.
    pub atc_ways: u64,
    /// Page request capacity.
    pub pri_capacity: u64,
    /// How long page requests wait for their responses, in milliseconds; 0 for no limit.
    pub page_response_timeout: u64,
    /// Whether to send stop markers.
    pub stop_markers: bool,
    /// Max PASID Width; 0 for as wide as possible.
    pub pasid_bits: u64,
    /// Whether requests for execution are offered.
    pub execute: bool,
    /// Whether requests in privileged mode are offered.
    pub privileged: bool,
    /// Whether the laboratory is present.
    pub lab: bool,
    /// Whether to set ECAP.SMPWCS.
    pub smpwcs: bool,
    /// Whether to avoid asking the intel-iommu about PASIDs whose entry is not present.
    pub pasid_check: bool,
    /// Whether to rewrite wide PASID-based invalidations for the intel-iommu.
    pub wide_invalidations: bool,
    /// Path of the trace file; empty for none.
    pub trace: String,
    /// Size at which the trace ends, in MiB.
    pub trace_limit: u64,
    /// The step of the realization that fails; empty for none.
    pub fail_realize: String,
}

impl Default for Settings {
    fn default() -> Self {
        let config = Config::default();
        Settings {
            contexts: config.contexts.into(),
            atc_entries: config.atc_entries.into(),
            atc_ways: config.atc_ways.into(),
            pri_capacity: config.pri_capacity.into(),
            page_response_timeout: config.page_response_timeout / MICROSECONDS,
            stop_markers: config.stop_markers,
            pasid_bits: 0,
            execute: config.execute,
            privileged: config.privileged,
            lab: config.laboratory,
            smpwcs: true,
            pasid_check: true,
            wide_invalidations: true,
            trace: String::new(),
            trace_limit: 1024,
            fail_realize: String::new(),
        }
    }
}

static PROPERTIES: [Property<Settings>; 16] = [
    Property::number(
        c"contexts",
        (1, MAX_CONTEXTS as u64),
        |s| &mut s.contexts,
        c"contexts, each with a PASID and a doorbell page: 1 to 256 (default: 64)",
    ),
    Property::number(
        c"atc-entries",
        (MIN_ATC_ENTRIES as u64, MAX_ATC_ENTRIES as u64),
        |s| &mut s.atc_entries,
        c"address translation cache entries: a power of two, 4 to 65536 (default: 1024)",
    ),
    Property::number(
        c"atc-ways",
        (MIN_ATC_WAYS as u64, MAX_ATC_WAYS as u64),
        |s| &mut s.atc_ways,
        c"entries of a set of that cache: a power of two, 2 to 16 (default: 4)",
    ),
    Property::number(
        c"pri-capacity",
        (1, u32::MAX as u64),
        |s| &mut s.pri_capacity,
        c"page requests that may be outstanding: 1 to 4294967295 (default: 512)",
    ),
    Property::number(
        c"page-response-timeout",
        (0, MOST_TIMEOUT),
        |s| &mut s.page_response_timeout,
        c"milliseconds that a page request waits for its response before its descriptor fails: \
          0 to 3600000, 0 for ever (default: 0)",
    ),
    Property::switch(
        c"stop-markers",
        |s| &mut s.stop_markers,
        c"the last context of a PASID that stops sends a stop marker instead of waiting for the \
          responses to its page requests (default: off)",
    ),
    Property::number(
        c"pasid-bits",
        (1, PasidWidth::MAX.bits() as u64),
        |s| &mut s.pasid_bits,
        c"PASID width: 1 to 20, at most that of the intel-iommu (default: as wide as possible)",
    ),
    Property::switch(
        c"execute",
        |s| &mut s.execute,
        c"offer requests for execution, Execute Permission Supported (default: off)",
    ),
    Property::switch(
        c"privileged",
        |s| &mut s.privileged,
        c"offer requests in privileged mode, Privileged Mode Supported (default: off)",
    ),
    Property::switch(
        c"lab",
        |s| &mut s.lab,
        c"registers for raw ATS, PRI and memory requests (default: off)",
    ),
    Property::switch(
        c"smpwcs",
        |s| &mut s.smpwcs,
        c"let the intel-iommu report SMPWCS, which Linux needs for SVA (default: on)",
    ),
    Property::switch(
        c"pasid-check",
        |s| &mut s.pasid_check,
        c"do not ask the intel-iommu about PASIDs whose entry is not present, which it does not \
          look at (default: on)",
    ),
    Property::switch(
        c"wide-invalidations",
        |s| &mut s.wide_invalidations,
        c"let the intel-iommu take PASID-based invalidations of more than 1 GiB, which Linux \
          sends (default: on)",
    ),
    Property::text(
        c"trace",
        |s| &mut s.trace,
        c"file for a trace of all requests, as Chrome trace JSON (default: none)",
    ),
    Property::number(
        c"trace-limit",
        (1, MOST_TRACE),
        |s| &mut s.trace_limit,
        c"size in MiB at which the trace ends: 1 to 1048576 (default: 1024)",
    ),
    Property::text(
        c"x-fail-realize",
        |s| &mut s.fail_realize,
        c"for tests: the step at which the device cannot be made: layout, trace, timers, msix, \
          express, power or thread (default: none)",
    ),
];

/// Adds the properties to the class.
pub fn add_all(class: &mut Class) {
    property::add_all(class, &PROPERTIES);
}

impl Settings {
    /// The endpoint's configuration. `iommu_bits` limits the PASID width, if there is a vIOMMU that
    /// limits it.
    pub fn config(&self, iommu_bits: Option<u64>) -> Result<Config, String> {
        let most = iommu_bits
            .unwrap_or(PasidWidth::MAX.bits().into())
            .min(PasidWidth::MAX.bits().into());
        let bits = match self.pasid_bits {
            0 => most,
            bits if bits <= most => bits,
            bits => {
                return Err(format!(
                    "pasid-bits must be 1 to {most}, not {bits}: the intel-iommu has pasid-bits={most}"
                ));
            }
        };
        let config = Config {
            contexts: narrow("contexts", self.contexts)?,
            atc_entries: narrow("atc-entries", self.atc_entries)?,
            atc_ways: narrow("atc-ways", self.atc_ways)?,
            pasid_width: PasidWidth::new(narrow("pasid-bits", bits)?).map_err(|e| e.to_string())?,
            pri_capacity: narrow("pri-capacity", self.pri_capacity)?,
            execute: self.execute,
            privileged: self.privileged,
            laboratory: self.lab,
            page_response_timeout: self.page_response_timeout * MICROSECONDS,
            page_request_backoff: BACKOFF,
            stop_markers: self.stop_markers,
            ..Config::default()
        };
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// A number in the endpoint's type. `set` has refused values that do not fit.
fn narrow<T: TryFrom<u64>>(name: &str, value: u64) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{name} is too large: {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_name_the_real_defaults() {
        let settings = Settings::default();
        property::tests::descriptions_are_true(&PROPERTIES, settings, "as wide as possible");
    }

    #[test]
    fn milliseconds_are_microseconds_to_the_endpoint() {
        let settings = Settings {
            page_response_timeout: MOST_TIMEOUT,
            ..Settings::default()
        };
        let config = settings.config(None).unwrap();
        assert_eq!(config.page_response_timeout, 3_600_000_000);
    }

    #[test]
    fn pasids_are_as_wide_as_the_iommu_allows() {
        let settings = Settings::default();
        assert_eq!(settings.config(None).unwrap().pasid_width, PasidWidth::MAX);
        assert_eq!(settings.config(Some(8)).unwrap().pasid_width.bits(), 8);
        let wide = Settings {
            pasid_bits: 16,
            ..Settings::default()
        };
        assert_eq!(wide.config(Some(20)).unwrap().pasid_width.bits(), 16);
        assert!(wide.config(Some(8)).unwrap_err().contains("1 to 8, not 16"));
    }
}
