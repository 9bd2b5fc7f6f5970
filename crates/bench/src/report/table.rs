//! The tables, as text and as markdown.

use std::fmt::Write;

use super::number::{bound, number, range, ratio};
use crate::figure::{Figure, Outcome, Series, Target};
use crate::machine::Machine;

const TARGET_COLUMNS: [&str; 5] = ["", "target", "bound", "figure", ""];

/// For a terminal.
pub(crate) fn text(machine: &Machine, outcome: &Outcome) -> String {
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
    text += "\n";
    for note in &outcome.notes {
        let _ = writeln!(text, "{note}");
    }
    text
}

/// For a README.
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
    // What was not measured of a program, on purpose, has no row.
    let is_told = |series: &Series| series.spread().is_some() || series.skipped.is_some();
    let told = figure.series.iter().enumerate().filter(|(_, series)| is_told(series));
    let rows = told.map(|(index, series)| {
        let mut row = figure_row(figure, series);
        if figure.is_race {
            let ratio = (index > 0).then(|| figure.ratio_to(&series.who)).flatten();
            row.push(ratio.map(self::ratio).unwrap_or_default());
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
    let figure = target.figure.map(|figure| {
        format!("{} ({})", number(figure.median, target.unit), range(figure, target.unit))
    });
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
