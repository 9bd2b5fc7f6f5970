//! Bar chart: a panel for each figure, ours in one colour and the others in another.

use super::axis::Axis;
use super::number::number;
use super::svg::{Anchor, FAINT, GRID, HEADING, INK, LABEL, SMALL, Svg, TITLE};
use crate::figure::{Figure, Outcome, Series};
use crate::machine::Machine;
use crate::stats::Spread;

const OURS: &str = "#0b7285";
const THEIRS: &str = "#b8c2cc";

const MARGIN: f64 = 28.0;
const COLUMNS: usize = 2;
const PANEL_WIDTH: f64 = 520.0;
const PANEL_GAP: f64 = 36.0;
const NAMES_WIDTH: f64 = 220.0;
const VALUES_WIDTH: f64 = 84.0;
const BARS_WIDTH: f64 = PANEL_WIDTH - NAMES_WIDTH - VALUES_WIDTH;
const HEADING_HEIGHT: f64 = 24.0;
const ROW_HEIGHT: f64 = 22.0;
const BAR_HEIGHT: f64 = 13.0;
const HEADER_HEIGHT: f64 = 82.0;

/// Draws the whole picture.
pub(super) fn picture(machine: &Machine, outcome: &Outcome) -> String {
    let width = 2.0 * MARGIN + COLUMNS as f64 * PANEL_WIDTH + (COLUMNS - 1) as f64 * PANEL_GAP;
    let mut svg = Svg::default();
    svg.text((MARGIN, 38.0), Anchor::Start, TITLE, "Tradewind and its peers on the same work");
    let said = format!("{}, on {}", machine.date, machine.summary());
    svg.text((MARGIN, 58.0), Anchor::Start, SMALL, &said);
    let legend = "Medians of interleaved rounds; a thin line goes from the least to the most.";
    svg.text((MARGIN, 74.0), Anchor::Start, SMALL, legend);
    let mut bottoms = [HEADER_HEIGHT + MARGIN; COLUMNS];
    for figure in &outcome.figures {
        // Into the column that has more room.
        let column = (0..COLUMNS).min_by(|a, b| bottoms[*a].total_cmp(&bottoms[*b])).unwrap_or(0);
        let left = MARGIN + column as f64 * (PANEL_WIDTH + PANEL_GAP);
        bottoms[column] += panel(&mut svg, figure, (left, bottoms[column])) + PANEL_GAP;
    }
    let height = bottoms.into_iter().fold(0.0, f64::max);
    let versions: Vec<_> = machine.versions.iter().map(|(name, v)| format!("{name} {v}")).collect();
    svg.text((MARGIN, height), Anchor::Start, SMALL, &versions.join(", "));
    svg.finish(width, height + MARGIN, "Tradewind and its peers on the same work")
}

/// Draws a panel. Returns its height.
fn panel(svg: &mut Svg, figure: &Figure, (left, top): (f64, f64)) -> f64 {
    let rows: Vec<(&Series, Spread)> =
        figure.series.iter().filter_map(|series| Some((series, series.spread()?))).collect();
    let ends: Vec<f64> = rows.iter().flat_map(|(_, spread)| [spread.min, spread.max]).collect();
    let axis = Axis::of_bars(&ends, BARS_WIDTH);
    let bars_left = left + NAMES_WIDTH;
    svg.text((left, top), Anchor::Start, HEADING, &figure.name);
    let better = if figure.unit.is_better_high() { "more" } else { "less" };
    let scale = if axis.is_log() { ", log scale" } else { "" };
    let about = format!("{}, {better} is better{scale}", figure.unit.symbol());
    let bottom = top + HEADING_HEIGHT + rows.len() as f64 * ROW_HEIGHT;
    svg.text((left + PANEL_WIDTH, top + 14.0), Anchor::End, SMALL, &about);
    if axis.is_log() {
        for power in axis.ticks() {
            let x = bars_left + axis.at(power);
            svg.line(&[(x, top + HEADING_HEIGHT), (x, bottom)], 1.0, GRID);
        }
    }
    for (index, (series, spread)) in rows.iter().enumerate() {
        let middle = top + HEADING_HEIGHT + (index as f64 + 0.5) * ROW_HEIGHT;
        let is_ours = !figure.is_race || series.who.to_lowercase().contains("tradewind");
        let colour = if is_ours { OURS } else { THEIRS };
        let (text_y, bar_y) = (middle + 4.0, middle - BAR_HEIGHT / 2.0);
        svg.text((bars_left - 8.0, text_y), Anchor::End, LABEL, &series.who);
        let length = axis.at(spread.median).max(1.0);
        svg.rect((bars_left, bar_y), (length, BAR_HEIGHT), colour);
        let (from, to) = (bars_left + axis.at(spread.min), bars_left + axis.at(spread.max));
        if to - from >= 1.0 {
            svg.line(&[(from, middle), (to, middle)], 1.5, INK);
        }
        let value = number(spread.median, figure.unit);
        let right = bars_left + axis.at(spread.max).max(length);
        svg.text((right + 6.0, text_y), Anchor::Start, LABEL, &value);
    }
    svg.line(&[(bars_left, top + HEADING_HEIGHT), (bars_left, bottom)], 1.0, FAINT);
    bottom - top
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Unit;

    #[test]
    fn each_program_has_a_bar() {
        let mut figure = Figure::new('E', "speed", Unit::TasksPerSecond);
        figure.series = vec![Series::once("Tradewind", 2e6), Series::once("other", 500.0)];
        let outcome = Outcome { figures: vec![figure], ..Outcome::default() };
        let picture = picture(&Machine::unknown(), &outcome);
        for (text, times) in [(OURS, 1), (THEIRS, 1), ("2.00 M/s", 1), ("log scale", 1)] {
            assert_eq!(picture.matches(text).count(), times, "{text} in {picture}");
        }
    }
}
