// SPDX-License-Identifier: MIT OR Apache-2.0
//! The slope of a curve, named.

use std::fmt;

/// How a cost grows with a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Growth {
    kind: Kind,
    /// The last value in multiples of the first.
    factor: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Constant,
    Logarithmic,
    Linear,
}

/// Up to this factor from the first value to the last, nothing grows: caches of the processor alone
/// make as much.
const STILL_CONSTANT: f64 = 1.5;

impl Growth {
    /// The growth of points with rising `x`, of which the least squares of the relative error decide
    /// between a logarithm and a line. What falls is constant: it shares a fixed cost.
    pub fn of(points: &[(f64, f64)]) -> Growth {
        let value = |point: Option<&(f64, f64)>| point.map_or(f64::NAN, |point| point.1);
        let factor = value(points.last()) / value(points.first());
        let error = |scale: fn(f64) -> f64| {
            let scaled: Vec<_> = points.iter().map(|(x, y)| (scale(*x), *y)).collect();
            squares(&scaled)
        };
        let kind = if factor < STILL_CONSTANT {
            Kind::Constant
        } else if error(f64::ln) < error(|x| x) {
            Kind::Logarithmic
        } else {
            Kind::Linear
        };
        Growth { kind, factor }
    }
}

/// The sum of the squared relative errors of the best line `y = a + b x` through points.
fn squares(points: &[(f64, f64)]) -> f64 {
    // Each point weighs as much as its value is small, so that errors are relative.
    let sum =
        |f: fn(f64, f64) -> f64| -> f64 { points.iter().map(|(x, y)| f(*x, *y) / (y * y)).sum() };
    let (w, wx, wy) = (sum(|_, _| 1.0), sum(|x, _| x), sum(|_, y| y));
    let (wxx, wxy) = (sum(|x, _| x * x), sum(|x, y| x * y));
    let b = (w * wxy - wx * wy) / (w * wxx - wx * wx);
    let a = (wy - b * wx) / w;
    points
        .iter()
        .map(|(x, y)| ((a + b * x - y) / y).powi(2))
        .sum()
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            Kind::Constant => "constant",
            Kind::Logarithmic => "logarithmic",
            Kind::Linear => "linear",
        };
        write!(f, "{name}, {:.2} times from first to last", self.factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growth(y: impl Fn(f64) -> f64) -> Kind {
        let points: Vec<_> = (0..8)
            .map(|n| f64::from(1 << (2 * n)))
            .map(|x| (x, y(x)))
            .collect();
        Growth::of(&points).kind
    }

    #[test]
    fn each_slope_has_its_name() {
        assert_eq!(growth(|_| 50.0), Kind::Constant);
        assert_eq!(growth(|x| 50.0 / x), Kind::Constant);
        assert_eq!(growth(|x| 50.0 + 10.0 * x.ln()), Kind::Logarithmic);
        assert_eq!(growth(|x| 50.0 + 0.5 * x), Kind::Linear);
        assert_eq!(growth(|x| 3.0 * x), Kind::Linear);
    }
}
