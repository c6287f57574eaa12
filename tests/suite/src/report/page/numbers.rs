// SPDX-License-Identifier: MIT OR Apache-2.0
//! Measured values as text.

use super::inputs::Axis;

/// A number with three digits or more.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// A value of a quantity.
pub fn value(axis: &Axis, value: f64) -> String {
    if axis.bytes {
        let units = ["B", "KiB", "MiB", "GiB"];
        let mut value = value;
        let mut at = 0;
        while value >= 1024.0 && at + 1 < units.len() {
            value /= 1024.0;
            at += 1;
        }
        return format!("{} {}", plain(value), units[at]);
    }
    plain(value)
}

/// A number, without digits that say nothing.
fn plain(value: f64) -> String {
    match value.fract() == 0.0 {
        true => format!("{value}"),
        false => short(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short_and_bytes_have_units() {
        let axis = |bytes| Axis {
            label: String::new(),
            logarithmic: true,
            bytes,
        };
        assert_eq!(value(&axis(true), 64.0), "64 B");
        assert_eq!(value(&axis(true), 1_048_576.0), "1 MiB");
        assert_eq!(value(&axis(false), 655_360.0), "655360");
        assert_eq!(value(&axis(false), 81.466_796), "81.5");
        assert_eq!(value(&axis(false), 0.123_4), "0.123");
    }
}
