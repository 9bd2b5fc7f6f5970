//! Reports of the measurements: text, markdown, JSON and pictures.

mod axis;
mod bars;
mod lines;
mod number;
mod svg;
mod table;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use number::number;

use crate::curve::Curves;
use crate::figure::Outcome;
use crate::machine::Machine;

/// Marks in a page of the book between which a table is.
const BOOK_BEGIN: &str = "<!-- measured -->";
const BOOK_END: &str = "<!-- end -->";

/// All measurements, for programs.
#[derive(Serialize)]
struct Document<'a> {
    machine: &'a Machine,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// Growth, for programs.
#[derive(Serialize)]
struct GrowthDocument<'a> {
    machine: &'a Machine,
    growth: &'a [Curves],
}

/// Writes the reports of the workloads. Returns the text.
pub(crate) fn write_comparison(dir: &Path, machine: &Machine, outcome: &Outcome) -> Result<String> {
    let text = table::text(machine, outcome);
    write(dir, "bench.json", &serde_json::to_string_pretty(&Document { machine, outcome })?)?;
    write(dir, "bench.txt", &text)?;
    write(dir, "bench.md", &table::markdown(machine, outcome))?;
    write(dir, "bench.svg", &bars::picture(machine, outcome))?;
    Ok(text)
}

/// Puts the table into a page of the book, between its lines for that.
pub(crate) fn put_into_book(page: &Path, machine: &Machine, outcome: &Outcome) -> Result<()> {
    let name = page.display();
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {name}"))?;
    let table = table::markdown(machine, outcome);
    let text = between_marks(&text, &table)
        .with_context(|| format!("{name} has no lines {BOOK_BEGIN} and {BOOK_END}"))?;
    fs::write(page, text).with_context(|| format!("cannot write {name}"))
}

/// Returns a text with another content between its marks; `None` if it has none.
fn between_marks(text: &str, content: &str) -> Option<String> {
    let (before, rest) = text.split_once(BOOK_BEGIN)?;
    let (_, after) = rest.split_once(BOOK_END)?;
    Some(format!("{before}{BOOK_BEGIN}\n{content}{BOOK_END}{after}"))
}

/// Writes the reports of growth. Returns the text.
pub(crate) fn write_growth(dir: &Path, machine: &Machine, growth: &[Curves]) -> Result<String> {
    let text = table::growth_text(machine, growth);
    let document = GrowthDocument { machine, growth };
    write(dir, "growth.json", &serde_json::to_string_pretty(&document)?)?;
    write(dir, "growth.txt", &text)?;
    write(dir, "growth.md", &table::growth_markdown(machine, growth))?;
    write(dir, "growth.svg", &lines::picture(machine, growth))?;
    Ok(text)
}

fn write(dir: &Path, name: &str, content: &str) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join(name);
    fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_a_page_is_replaced() {
        let page = "above\n<!-- measured -->\nold\n<!-- end -->\nbelow\n";
        let expected = "above\n<!-- measured -->\nnew\n<!-- end -->\nbelow\n";
        assert_eq!(between_marks(page, "new\n").as_deref(), Some(expected));
        assert_eq!(between_marks(expected, "new\n").as_deref(), Some(expected));
        assert_eq!(between_marks("above\n<!-- measured -->\n", "new\n"), None);
    }
}
