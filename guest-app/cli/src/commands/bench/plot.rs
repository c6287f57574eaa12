// SPDX-License-Identifier: MIT OR Apache-2.0
//! Results as an SVG picture, with a panel for each figure. It is dark for readers who prefer
//! that. Where there are no colours, the marks of the points tell the curves apart.

use anyhow::{anyhow, ensure};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::results::{Axis, Figure, Point, Results, Series};

/// Size of a panel, in pixels.
const PANEL: (u32, u32) = (620, 400);
/// Height of the heading.
const HEADING: u32 = 64;
/// Panels side by side.
const COLUMNS: usize = 2;

/// Colours of the device's curves, distinguishable with any colour vision. The processor's curves
/// are grey.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
];
const GREYS: [RGBColor; 2] = [RGBColor(0x55, 0x55, 0x55), RGBColor(0x99, 0x99, 0x99)];

/// All colours of a picture, and what each is on a dark ground.
const DARK: [(&str, &str); 10] = [
    ("#FFFFFF", "#16181c"),
    ("#000000", "#e6e6e6"),
    ("#444444", "#b4b4b4"),
    ("#E4E4E4", "#3c3f44"),
    ("#0072B2", "#56b4e9"),
    ("#D55E00", "#ff9a4d"),
    ("#009E73", "#3fd0a3"),
    ("#CC79A7", "#e6a5c9"),
    ("#555555", "#c8c8c8"),
    ("#999999", "#8c8c8c"),
];

/// The mark of a curve's points, as a polygon around them: a disc, triangles, a diamond, a cross
/// and a square.
type Mark = &'static [(i32, i32)];
const MARKS: [Mark; 6] = [
    &[
        (-4, -2),
        (-2, -4),
        (2, -4),
        (4, -2),
        (4, 2),
        (2, 4),
        (-2, 4),
        (-4, 2),
    ],
    &[(0, -5), (5, 4), (-5, 4)],
    &[(0, -6), (5, 0), (0, 6), (-5, 0)],
    &[
        (-1, -5),
        (1, -5),
        (1, -1),
        (5, -1),
        (5, 1),
        (1, 1),
        (1, 5),
        (-1, 5),
        (-1, 1),
        (-5, 1),
        (-5, -1),
        (-1, -1),
    ],
    &[(-4, -4), (4, -4), (4, 4), (-4, 4)],
    &[(0, 5), (5, -4), (-5, -4)],
];

/// Draws the figures that have curves.
pub fn draw(results: &Results) -> anyhow::Result<String> {
    let figures: Vec<_> = results
        .figures
        .iter()
        .filter(|figure| figure.series.iter().any(|series| !series.points.is_empty()))
        .collect();
    ensure!(
        !figures.is_empty(),
        "nothing was measured that could be drawn"
    );
    let columns = figures.len().min(COLUMNS);
    let rows = figures.len().div_ceil(columns);
    let size = (PANEL.0 * columns as u32, HEADING + PANEL.1 * rows as u32);
    let mut picture = String::new();
    {
        let root = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        paint(&root, results, &figures, (rows, columns)).map_err(|error| anyhow!("{error}"))?;
    }
    // After the tag of the picture.
    let begin = picture.find('>').map_or(0, |end| end + 1);
    picture.insert_str(begin, &style());
    Ok(picture)
}

/// The rules that make a picture dark.
fn style() -> String {
    let rules = DARK.map(|(light, dark)| {
        format!("[fill='{light}'] {{ fill: {dark} }} [stroke='{light}'] {{ stroke: {dark} }}\n")
    });
    let rules = rules.concat();
    format!("\n<style>\n@media (prefers-color-scheme: dark) {{\n{rules}}}\n</style>")
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn paint<'a>(
    root: &Area<'a>,
    results: &Results,
    figures: &[&Figure],
    grid: (usize, usize),
) -> Result<(), Failure<'a>> {
    root.fill(&WHITE)?;
    let (heading, panels) = root.split_vertically(HEADING);
    let title = ("sans-serif", 20).into_font().color(&BLACK);
    heading.draw_text("svmctl bench", &title, (16, 10))?;
    let line = ("sans-serif", 13)
        .into_font()
        .color(&RGBColor(0x44, 0x44, 0x44));
    let text = format!(
        "{}. Lines: medians; bands: four samples of five.",
        results.machine.line()
    );
    heading.draw_text(&text, &line, (16, 38))?;
    for (panel, figure) in panels.split_evenly(grid).iter().zip(figures) {
        draw_figure(panel, figure)?;
    }
    root.present()
}

fn draw_figure<'a>(panel: &Area<'a>, figure: &Figure) -> Result<(), Failure<'a>> {
    let points = || figure.series.iter().flat_map(|series| &series.points);
    let x = Scale::new(&figure.x, points().map(|point| point.x));
    let edges = points().flat_map(|point| [point.p10, point.p90]);
    let y = Scale::new(&figure.y, edges);
    let mut chart = ChartBuilder::on(panel)
        .caption(&figure.title, ("sans-serif", 15))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(58)
        .build_cartesian_2d(x.clone(), y.clone())?;
    let pale = RGBColor(0xe4, 0xe4, 0xe4);
    chart
        .configure_mesh()
        .x_desc(&figure.x.label)
        .y_desc(&figure.y.label)
        .label_style(("sans-serif", 12))
        .axis_desc_style(("sans-serif", 12))
        .bold_line_style(pale)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|value| x.write(*value))
        .y_label_formatter(&|value| y.write(*value))
        .draw()?;
    for ((series, colour), mark) in colours(&figure.series)
        .into_iter()
        .zip(MARKS.iter().cycle())
    {
        let at = |point: &Point, value: f64| (x.place(point.x), y.place(value));
        let upper = series.points.iter().map(|point| at(point, point.p90));
        let lower = series.points.iter().rev().map(|point| at(point, point.p10));
        let band: Vec<_> = upper.chain(lower).collect();
        chart.draw_series([Polygon::new(band, colour.mix(0.15))])?;
        let medians: Vec<_> = series
            .points
            .iter()
            .map(|point| at(point, point.median))
            .collect();
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(medians.clone(), style))?
            .label(&series.name)
            .legend(move |(x, y)| {
                EmptyElement::at((x + 9, y))
                    + PathElement::new([(-9, 0), (9, 0)], style)
                    + Polygon::new(*mark, colour)
            });
        let marks = medians
            .into_iter()
            .map(|at| EmptyElement::at(at) + Polygon::new(*mark, colour));
        chart.draw_series(marks)?;
    }
    chart
        .configure_series_labels()
        .position(free_corner(figure, &x, &y))
        .background_style(WHITE.mix(0.85))
        .border_style(pale)
        .label_font(("sans-serif", 12))
        .draw()
}

/// The corner with the fewest points: there the names of the curves hide the least.
fn free_corner(figure: &Figure, x: &Scale, y: &Scale) -> SeriesLabelPosition {
    let share =
        |scale: &Scale, value: f64| (scale.place(value) - scale.from) / (scale.to - scale.from);
    let points = || figure.series.iter().flat_map(|series| &series.points);
    let corners = [
        (SeriesLabelPosition::UpperLeft, false, true),
        (SeriesLabelPosition::UpperRight, true, true),
        (SeriesLabelPosition::LowerRight, true, false),
        (SeriesLabelPosition::LowerLeft, false, false),
    ];
    let hidden = |(_, right, upper): &(SeriesLabelPosition, bool, bool)| {
        points()
            .filter(|point| {
                let (across, up) = (share(x, point.x), share(y, point.median));
                (if *right { across > 0.6 } else { across < 0.4 })
                    && (if *upper { up > 0.65 } else { up < 0.35 })
            })
            .count()
    };
    let best = corners.into_iter().min_by_key(hidden);
    best.map_or(SeriesLabelPosition::UpperLeft, |(position, ..)| position)
}

/// The curves that have points, with their colours.
fn colours(series: &[Series]) -> Vec<(&Series, RGBColor)> {
    let (mut device, mut processor) = (COLOURS.iter().cycle(), GREYS.iter().cycle());
    series
        .iter()
        .filter_map(|series| {
            let of = if series.processor {
                &mut processor
            } else {
                &mut device
            };
            let colour = of.next()?;
            (!series.points.is_empty()).then_some((series, *colour))
        })
        .collect()
}

/// An axis. Positions on it are the values or their logarithms to base 2.
#[derive(Clone)]
struct Scale {
    axis: Axis,
    places: RangedCoordf64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Scale {
        let place = |value: f64| {
            if axis.logarithmic {
                value.log2()
            } else {
                value
            }
        };
        let places: Vec<f64> = values
            .map(place)
            .filter(|place| place.is_finite())
            .collect();
        let low = places.iter().copied().fold(f64::INFINITY, f64::min);
        let high = places.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (mut from, mut to) = match axis.logarithmic {
            true => (low.floor(), high.ceil()),
            false => (low.min(0.0), high * 1.08),
        };
        if !(from.is_finite() && to.is_finite()) {
            (from, to) = (0.0, 1.0);
        }
        if to <= from {
            to = from + 1.0;
        }
        Scale {
            axis: axis.clone(),
            places: (from..to).into(),
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        if self.axis.logarithmic {
            value.max(f64::MIN_POSITIVE).log2()
        } else {
            value
        }
    }

    fn write(&self, place: f64) -> String {
        let value = if self.axis.logarithmic {
            place.exp2()
        } else {
            place
        };
        if self.axis.bytes || value < 1000.0 {
            let text = self.axis.write(value);
            if self.axis.bytes || !text.contains('.') {
                return text;
            }
            return text.trim_end_matches('0').trim_end_matches('.').to_owned();
        }
        format!("{value:.0}")
    }
}

impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.places.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if !self.axis.logarithmic {
            return self.places.key_points(hint);
        }
        // Powers of two; those for which there is no room are left out.
        let room = hint.max_num_points().clamp(2, 10) as f64;
        let step = ((self.to - self.from) / room).ceil().max(1.0);
        let mut at = self.from.ceil();
        let mut points = Vec::new();
        while at <= self.to {
            points.push(at);
            at += step;
        }
        points
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.places.range()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(value: &f64) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::example;
    use super::*;
    use std::collections::BTreeSet;

    /// A figure of so many curves of the device, and as many of the processor.
    fn results_with_curves(count: usize) -> Results {
        let mut results = example();
        let figure = results.figures.iter_mut().find(|f| !f.series.is_empty());
        let series = &mut figure.unwrap().series;
        let mut one = series[0].clone();
        series.clear();
        for processor in [false, true] {
            one.processor = processor;
            series.extend(std::iter::repeat_n(one.clone(), count));
        }
        results
    }

    #[test]
    fn a_picture_has_every_title_curve_and_unit() {
        let results = example();
        let picture = draw(&results).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
        for figure in &results.figures {
            assert!(picture.contains(&figure.title), "{}", figure.title);
            for series in &figure.series {
                assert!(picture.contains(&series.name), "{}", series.name);
            }
        }
        assert!(picture.contains("KiB"));
        assert!(!picture.contains("NaN"));
    }

    #[test]
    fn every_colour_of_a_picture_has_one_for_dark_readers() {
        let picture = draw(&results_with_curves(8)).unwrap();
        let (style, drawing) = picture.split_once("</style>").unwrap();
        assert!(style.contains("@media (prefers-color-scheme: dark)"));
        let colours = drawing.split('"').filter(|text| text.starts_with('#'));
        let colours: BTreeSet<_> = colours.collect();
        assert!(colours.len() > 5, "{colours:?}");
        for colour in colours {
            assert!(DARK.iter().any(|(light, _)| *light == colour), "{colour}");
            assert!(style.contains(&format!("[fill='{colour}']")), "{colour}");
        }
    }

    #[test]
    fn curves_differ_without_colours() {
        let picture = draw(&results_with_curves(4)).unwrap();
        // The corners of the last polygon of each colour, which is a mark: bands come first.
        let corners = |colour: RGBColor| {
            let RGBColor(r, g, b) = colour;
            let fill = format!("fill=\"#{r:02X}{g:02X}{b:02X}\"");
            let is_its = |line: &&str| line.starts_with("<polygon") && line.contains(&fill);
            let last = picture.lines().rev().find(is_its).unwrap();
            last.matches(',').count()
        };
        assert_eq!(COLOURS.map(corners), MARKS.map(<[_]>::len)[..4]);
    }

    #[test]
    fn nothing_cannot_be_drawn() {
        let mut results = example();
        results.figures.clear();
        assert!(draw(&results).is_err());
    }

    #[test]
    fn a_scale_holds_all_values_and_marks_powers_of_two() {
        let scale = Scale::new(&Axis::bytes("x"), [64.0, 5000.0].into_iter());
        assert_eq!((scale.from, scale.to), (6.0, 13.0));
        assert_eq!(scale.write(12.0), "4 KiB");
        let one = Scale::new(&Axis::linear("x"), [0.0].into_iter());
        assert!(one.to > one.from);
        assert_eq!(
            Scale::new(&Axis::linear("x"), [10.0].into_iter()).write(5.0),
            "5"
        );
    }
}
