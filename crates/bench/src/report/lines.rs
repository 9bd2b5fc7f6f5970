//! Picture of growth: for each quantity that grows the rate above, the memory below.

use super::axis::Axis;
use super::svg::{Anchor, FAINT, GRID, HEADING, LABEL, SMALL, Svg, TITLE};
use crate::curve::{Curves, Point};
use crate::machine::Machine;

const MARGIN: f64 = 28.0;
const SCALE_WIDTH: f64 = 48.0;
const PLOT_WIDTH: f64 = 290.0;
const PLOT_HEIGHT: f64 = 190.0;
const PLOT_GAP: f64 = 62.0;
/// Width of a character: more than most take at this size.
const CHAR_WIDTH: f64 = 7.0;
const HEADER_HEIGHT: f64 = 88.0;

/// Line of a plot: its name, its colour, its values.
struct Line {
    name: &'static str,
    colour: &'static str,
    value: fn(&Point) -> Option<f64>,
}

const RATES: [Line; 2] = [
    Line { name: "tasks/s", colour: "#0b7285", value: |point| Some(point.rate?.median) },
    Line { name: "MB/s", colour: "#e8590c", value: Point::megabytes_a_second },
];

const MEMORY: [Line; 3] = [
    Line {
        name: "ventilator",
        colour: "#0b7285",
        value: |point| Some(point.ventilator_mib?.median),
    },
    Line { name: "worker", colour: "#e8590c", value: |point| Some(point.worker_mib?.median) },
    Line { name: "sink", colour: "#5f3dc4", value: |point| Some(point.sink_mib?.median) },
];

/// Draws the whole picture.
pub(super) fn picture(machine: &Machine, all: &[Curves]) -> String {
    let mut svg = Svg::default();
    let title = "Tradewind: throughput and memory as work grows";
    svg.text((MARGIN, 38.0), Anchor::Start, TITLE, title);
    let said = format!("{}, on {}", machine.date, machine.summary());
    svg.text((MARGIN, 58.0), Anchor::Start, SMALL, &said);
    let column_width = SCALE_WIDTH + PLOT_WIDTH + MARGIN;
    let below = HEADER_HEIGHT + PLOT_HEIGHT + PLOT_GAP;
    for (column, curves) in all.iter().enumerate() {
        let left = MARGIN + column as f64 * column_width + SCALE_WIDTH;
        svg.text((left, HEADER_HEIGHT), Anchor::Start, HEADING, curves.name);
        let rates = if curves.has_sizes() { &RATES[..] } else { &RATES[..1] };
        let (above, below) = ((left, HEADER_HEIGHT + 28.0), (left, below + 28.0));
        plot(&mut svg, curves, rates, "", Axis::log, above);
        plot(&mut svg, curves, &MEMORY, "peak memory, MiB:", Axis::linear, below);
    }
    let width = MARGIN + all.len() as f64 * column_width;
    svg.finish(width, below + 28.0 + PLOT_HEIGHT + PLOT_GAP - MARGIN, title)
}

/// Draws lines over the quantity that grows, which has a logarithmic axis.
fn plot(
    svg: &mut Svg,
    curves: &Curves,
    lines: &[Line],
    what: &str,
    axis_up: fn(&[f64], f64) -> Axis,
    (left, top): (f64, f64),
) {
    let points = &curves.points;
    let places: Vec<f64> = points.iter().map(|point| point.at).collect();
    let values: Vec<f64> =
        lines.iter().flat_map(|line| points.iter().filter_map(line.value)).collect();
    let (across, up) = (Axis::log(&places, PLOT_WIDTH), axis_up(&values, PLOT_HEIGHT));
    let bottom = top + PLOT_HEIGHT;
    for tick in up.ticks() {
        let y = bottom - up.at(tick);
        svg.line(&[(left, y), (left + PLOT_WIDTH, y)], 1.0, GRID);
        svg.text((left - 6.0, y + 4.0), Anchor::End, SMALL, &short(tick));
    }
    for tick in across.ticks() {
        let x = left + across.at(tick);
        svg.line(&[(x, top), (x, bottom)], 1.0, GRID);
        svg.text((x, bottom + 16.0), Anchor::Middle, SMALL, &short(tick));
    }
    svg.text((left + PLOT_WIDTH, bottom + 32.0), Anchor::End, SMALL, curves.unit);
    svg.line(&[(left, top), (left, bottom), (left + PLOT_WIDTH, bottom)], 1.0, FAINT);
    svg.text((left, top - 8.0), Anchor::Start, SMALL, what);
    let mut x = left + what.chars().count() as f64 * CHAR_WIDTH;
    for line in lines {
        let font = super::svg::Font { colour: line.colour, ..LABEL };
        svg.text((x, top - 8.0), Anchor::Start, font, line.name);
        x += (line.name.chars().count() + 2) as f64 * CHAR_WIDTH;
        let along: Vec<(f64, f64)> = points
            .iter()
            .filter_map(|point| Some((point.at, (line.value)(point)?)))
            .map(|(at, value)| (left + across.at(at), bottom - up.at(value)))
            .collect();
        svg.line(&along, 2.0, line.colour);
        for at in along {
            svg.dot(at, line.colour);
        }
    }
}

/// Returns a round number, as short as possible.
fn short(tick: f64) -> String {
    match tick {
        1e6.. => format!("{} M", tick / 1e6),
        1e3.. => format!("{} k", tick / 1e3),
        _ => format!("{tick}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Spread;

    #[test]
    fn each_line_goes_through_each_point() {
        let point = |at: f64| {
            let spread = Spread::of([at * 2.0]);
            Point {
                at,
                tasks: 10,
                megabytes: 1.0,
                rate: spread,
                ventilator_mib: spread,
                worker_mib: spread,
                sink_mib: None,
            }
        };
        let curves =
            Curves { name: "grows", unit: "bytes", points: vec![point(10.0), point(100.0)] };
        let picture = picture(&Machine::unknown(), &[curves]);
        assert_eq!(picture.matches("<circle").count(), 2 * (RATES.len() + MEMORY.len() - 1));
    }

    #[test]
    fn round_numbers_are_short() {
        for (tick, expected) in [(1.0, "1"), (100.0, "100"), (1e4, "10 k"), (1e8, "100 M")] {
            assert_eq!(short(tick), expected);
        }
    }
}
