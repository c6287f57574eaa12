// SPDX-License-Identifier: MIT OR Apache-2.0
//! A figure as SVG. Its colours are names for the page's style, which has them for light and dark:
//! a colour here stands for a role, and is what is seen where no style is.

use super::inputs::{Axis, Figure, Point};
use super::numbers::value;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::ops::Range;

/// Size in the picture's own units. The page makes it narrower, not wider.
const SIZE: (u32, u32) = (520, 320);

/// The role of axes' texts, of the grid, and of the curves; `style.css` has the same.
const INK: RGBColor = RGBColor(0x11, 0x11, 0x11);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const COLOURS: [RGBColor; CURVES] = [
    RGBColor(0x00, 0x5f, 0x99),
    RGBColor(0xb4, 0x4a, 0x00),
    RGBColor(0x00, 0x7a, 0x58),
    RGBColor(0xa0, 0x3f, 0x7d),
    RGBColor(0x55, 0x55, 0x55),
    RGBColor(0x6b, 0x4f, 0xbb),
];
/// How many curves look different.
pub const CURVES: usize = 6;

/// The mark of a curve's points, for its legend.
pub fn mark(curve: usize) -> &'static str {
    ["●", "▲", "■", "✕", "○", "▲"][curve % CURVES]
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// Draws a figure.
///
/// # Errors
///
/// The values have no picture: a sentence.
pub fn draw(figure: &Figure) -> Result<String, String> {
    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, SIZE).into_drawing_area();
        paint(&area, figure).map_err(|error| error.to_string())?;
    }
    Ok(picture)
}

fn paint<'a>(area: &Area<'a>, figure: &Figure) -> Result<(), Failure<'a>> {
    let points = || figure.series.iter().flat_map(|series| &series.points);
    let x = Scale::new(&figure.x, points().map(|point| point.x));
    let y = Scale::new(&figure.y, points().flat_map(|point| [point.p10, point.p90]));
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(24)
        .x_label_area_size(54)
        .y_label_area_size(80)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let text = ("sans-serif", 20).into_font().color(&INK);
    chart
        .configure_mesh()
        .x_desc(&figure.x.label)
        .y_desc(&figure.y.label)
        .x_labels(6)
        .y_labels(6)
        .label_style(text.clone())
        .axis_desc_style(text)
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|place| value(&x.axis(), x.value(*place)))
        .y_label_formatter(&|place| value(&y.axis(), y.value(*place)))
        .draw()?;
    for (n, series) in figure.series.iter().enumerate() {
        let colour = COLOURS[n % CURVES];
        let at = |point: &Point, value: f64| (x.place(point.x), y.place(value));
        let upper = series.points.iter().map(|point| at(point, point.p90));
        let lower = series.points.iter().rev().map(|point| at(point, point.p10));
        let band: Vec<_> = upper.chain(lower).collect();
        chart.draw_series([Polygon::new(band, colour.mix(0.15))])?;
        let medians = series.points.iter().map(|point| at(point, point.median));
        let medians: Vec<(f64, f64)> = medians.collect();
        chart.draw_series(LineSeries::new(medians.clone(), colour.stroke_width(2)))?;
        let marks = |style: ShapeStyle| medians.iter().map(move |at| (*at, style));
        match n % CURVES {
            1 | 5 => {
                let marks = marks(colour.filled());
                chart.draw_series(marks.map(|(at, style)| TriangleMarker::new(at, 6, style)))?
            }
            2 => {
                let square =
                    |(at, style)| EmptyElement::at(at) + Rectangle::new([(-4, -4), (4, 4)], style);
                chart.draw_series(marks(colour.filled()).map(square))?
            }
            3 => {
                let marks = marks(colour.stroke_width(2));
                chart.draw_series(marks.map(|(at, style)| Cross::new(at, 4, style)))?
            }
            4 => {
                let marks = marks(colour.stroke_width(2));
                chart.draw_series(marks.map(|(at, style)| Circle::new(at, 4, style)))?
            }
            _ => {
                let marks = marks(colour.filled());
                chart.draw_series(marks.map(|(at, style)| Circle::new(at, 4, style)))?
            }
        };
    }
    area.present()
}

/// An axis. Places on it are the values or their logarithms to base 2.
#[derive(Clone)]
struct Scale {
    logarithmic: bool,
    bytes: bool,
    places: RangedCoordf64,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Scale {
        let mut scale = Scale {
            logarithmic: axis.logarithmic,
            bytes: axis.bytes,
            places: (0.0..1.0).into(),
        };
        let places: Vec<f64> = values
            .map(|value| scale.place(value))
            .filter(|place| place.is_finite())
            .collect();
        let low = places.iter().copied().fold(f64::INFINITY, f64::min);
        let high = places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (from, to) = match axis.logarithmic {
            true => (low.floor(), high.ceil()),
            false => (low.min(0.0), high * 1.08),
        };
        if from.is_finite() && to.is_finite() {
            scale.places = (from..if to > from { to } else { from + 1.0 }).into();
        }
        scale
    }

    fn axis(&self) -> Axis {
        Axis {
            label: String::new(),
            logarithmic: self.logarithmic,
            bytes: self.bytes,
        }
    }

    fn place(&self, value: f64) -> f64 {
        match self.logarithmic {
            true => value.max(f64::MIN_POSITIVE).log2(),
            false => value,
        }
    }

    fn value(&self, place: f64) -> f64 {
        match self.logarithmic {
            true => place.exp2(),
            false => place,
        }
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.places.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if !self.logarithmic {
            return self.places.key_points(hint);
        }
        let Range { start, end } = self.places.range();
        let room = hint.max_num_points().clamp(2, 6) as f64;
        // Powers of two; those for which there is no room are left out.
        let step = ((end - start) / room).ceil().max(1.0);
        let count = ((end - start) / step) as usize;
        (0..=count).map(|n| start + n as f64 * step).collect()
    }

    fn range(&self) -> Range<f64> {
        self.places.range()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        value.to_string()
    }
}
