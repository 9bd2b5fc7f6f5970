//! Tables, as text and as markdown.

use std::fmt::Write;

use super::number::{bound, number, range, size, thousands, with_range};
use crate::curve::{Curves, Point};
use crate::figure::{Figure, Outcome, Series, Target, Unit};
use crate::machine::Machine;
use crate::stats::Spread;

const TARGET_COLUMNS: [&str; 5] = ["", "target", "bound", "figure", ""];

const GROWTH_NOTE: &str = "Echo tasks, of 16 bytes and for one worker unless it says otherwise, \
    ordered output, all on this machine. Time is from the first \
    byte written to the stdin of a ventilator that all workers have joined to the end of the \
    ventilator and the sink; memory is the most that a process had at a time, of the workers the \
    largest of four.";

const TEXT_COLUMNS: usize = 100;

/// Returns the table for a terminal.
pub(super) fn text(machine: &Machine, outcome: &Outcome) -> String {
    let mut text = header(machine).join("\n") + "\n";
    for figure in &outcome.figures {
        let _ = write!(text, "\n{}\n", title(figure));
        text += &aligned(&figure_rows(figure));
    }
    if !outcome.targets.is_empty() {
        text += "\nTargets\n";
        let rows: Vec<_> = std::iter::once(TARGET_COLUMNS.map(str::to_owned).to_vec())
            .chain(outcome.targets.iter().map(target_row))
            .collect();
        text += &aligned(&rows);
    }
    for note in &outcome.notes {
        let _ = write!(text, "\n{}", wrapped(note));
    }
    text
}

/// Returns the table for a README.
pub(super) fn markdown(machine: &Machine, outcome: &Outcome) -> String {
    let mut text = header(machine).join("  \n") + "\n";
    if !outcome.targets.is_empty() {
        text += "\n";
        let rows: Vec<_> = std::iter::once(TARGET_COLUMNS.map(str::to_owned).to_vec())
            .chain(outcome.targets.iter().map(target_row))
            .collect();
        text += &piped(&rows);
    }
    for figure in &outcome.figures {
        let _ = write!(text, "\n**{}**\n\n", title(figure));
        text += &piped(&figure_rows(figure));
    }
    text += "\n";
    for note in &outcome.notes {
        let _ = writeln!(text, "- {note}");
    }
    text
}

/// Returns the table of growth for a terminal.
pub(super) fn growth_text(machine: &Machine, growth: &[Curves]) -> String {
    let mut text = header(machine).join("\n") + "\n";
    for curves in growth {
        let _ = write!(text, "\nby {}\n{}", curves.name, aligned(&growth_rows(curves)));
    }
    text + "\n" + &wrapped(GROWTH_NOTE)
}

/// Returns the table of growth for a README.
pub(super) fn growth_markdown(machine: &Machine, growth: &[Curves]) -> String {
    let mut text = header(machine).join("  \n") + "\n";
    for curves in growth {
        let _ = write!(text, "\nBy {}:\n\n{}", curves.name, piped(&growth_rows(curves)));
    }
    format!("{text}\n{GROWTH_NOTE}\n")
}

fn growth_rows(curves: &Curves) -> Vec<Vec<String>> {
    let head = [curves.unit, "tasks", "tasks/s", "MB/s", "ventilator", "worker", "sink"];
    let memory = |spread: Option<Spread>| {
        spread.map(|mib| number(mib.median, Unit::Mebibytes)).unwrap_or_default()
    };
    let row = |point: &Point| {
        let rate = point.rate.map(|rate| with_range(rate, Unit::TasksPerSecond));
        let bytes = point.megabytes_a_second().map(|mb| number(mb, Unit::MegabytesPerSecond));
        vec![
            if curves.has_sizes() { size(point.at) } else { thousands(point.at) },
            thousands(point.tasks as f64),
            rate.unwrap_or_default(),
            bytes.unwrap_or_default(),
            memory(point.ventilator_mib),
            memory(point.worker_mib),
            memory(point.sink_mib),
        ]
    };
    let head = head.map(str::to_owned).to_vec();
    std::iter::once(head).chain(curves.points.iter().map(row)).collect()
}

fn header(machine: &Machine) -> Vec<String> {
    let versions = machine.versions.iter().map(|(name, version)| format!("{name} {version}"));
    vec![
        format!("{}; load before: {:.1}", machine.summary(), machine.load),
        format!("{}: {}", machine.date, versions.collect::<Vec<_>>().join(", ")),
    ]
}

fn title(figure: &Figure) -> String {
    let better = if figure.unit.is_better_high() { "more" } else { "less" };
    format!("{}: {}, {} ({better} is better)", figure.workload, figure.name, figure.unit.symbol())
}

fn figure_rows(figure: &Figure) -> Vec<Vec<String>> {
    let mut head = vec![String::new(), "median".into(), "spread".into()];
    if let Some(ours) = figure.series.first().filter(|_| figure.is_race) {
        head.push(format!("{} ÷ this", ours.who));
    }
    // A program for which a figure is left out on purpose has no row.
    let is_told = |series: &Series| series.spread().is_some() || series.skipped.is_some();
    let told = figure.series.iter().enumerate().filter(|(_, series)| is_told(series));
    let rows = told.map(|(index, series)| {
        let mut row = figure_row(figure, series);
        if figure.is_race {
            let ratio = (index > 0).then(|| figure.ratio_to(&series.who)).flatten();
            row.push(ratio.map(|ratio| with_range(ratio, Unit::Times)).unwrap_or_default());
        }
        row
    });
    std::iter::once(head).chain(rows).collect()
}

fn figure_row(figure: &Figure, series: &Series) -> Vec<String> {
    let skipped = series.skipped.as_ref().map(|reason| format!("skipped: {reason}"));
    let (median, spread) = match series.spread() {
        Some(spread) => (number(spread.median, figure.unit), range(spread, figure.unit)),
        None => (String::new(), String::new()),
    };
    vec![series.who.clone(), median, skipped.unwrap_or(spread)]
}

fn target_row(target: &Target) -> Vec<String> {
    let figure = target.figure.map(|figure| with_range(figure, target.unit));
    let verdict = match target.is_met() {
        Some(true) => "met",
        Some(false) => "missed",
        None => "not measured",
    };
    vec![
        target.workload.to_string(),
        target.what.clone(),
        bound(target.bound, target.unit),
        figure.unwrap_or_default(),
        verdict.to_owned(),
    ]
}

/// Rows of cells, one under the other.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, " {cell:width$} ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn wrapped(note: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in note.split_whitespace() {
        let width = word.chars().count();
        if column > 0 {
            let is_full = column + 1 + width > TEXT_COLUMNS;
            text.push(if is_full { '\n' } else { ' ' });
            column = if is_full { 0 } else { column + 1 };
        }
        text += word;
        column += width;
    }
    text + "\n"
}

fn piped(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|{}", " --- |".repeat(row.len()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [vec!["a", "µs", "x"], vec!["long", "1", ""]];
        let rows = rows.map(|row| row.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(aligned(&rows), "  a     µs  x\n  long  1\n");
        assert_eq!(piped(&rows), "| a | µs | x |\n| --- | --- | --- |\n| long | 1 |  |\n");
    }

    #[test]
    fn what_was_not_measured_is_told_with_its_reason() {
        let mut figure = Figure::new('E', "speed", Unit::TasksPerSecond);
        figure.series = vec![
            Series { who: "ours".into(), values: vec![Some(4.0), Some(6.0)], skipped: None },
            Series { who: "theirs".into(), values: vec![Some(2.0), Some(2.0)], skipped: None },
            Series { who: "gone".into(), values: vec![None; 2], skipped: Some("not here".into()) },
            Series { who: "untold".into(), values: vec![None; 2], skipped: None },
        ];
        let rows = figure_rows(&figure);
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[0], ["", "median", "spread", "ours ÷ this"]);
        assert_eq!(rows[1], ["ours", "5.00/s", "4.00/s – 6.00/s", ""]);
        assert_eq!(rows[2], ["theirs", "2.00/s", "", "2.50 (2.00 – 3.00)"]);
        assert_eq!(rows[3], ["gone", "", "skipped: not here", ""]);
    }
}
