//! The documents as the tests read them: pages, tables, fenced blocks.

use std::fs;
use std::path::{Path, PathBuf};

/// A document.
#[derive(Debug)]
pub(crate) struct Page {
    /// From the top of the repository: `docs/src/flags.md`.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// The line of the opening fence, from 1.
    pub(crate) line: usize,
    /// Word behind the opening fence: `console`.
    pub(crate) language: &'a str,
    /// The comment right before it, without its marks: `file: people.csv`.
    pub(crate) comment: Option<&'a str>,
    pub(crate) lines: Vec<&'a str>,
}

/// The top of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is there")
}

impl Page {
    /// One page, by its name from the top of the repository.
    pub(crate) fn read(name: &str) -> Self {
        let text = fs::read_to_string(root().join(name));
        let text = text.unwrap_or_else(|error| panic!("cannot read {name}: {error}"));
        Self { name: name.to_owned(), text }
    }

    /// The README, and all pages of the book.
    pub(crate) fn all() -> Vec<Self> {
        let mut names = vec!["README.md".to_owned()];
        let dir = fs::read_dir(root().join("docs/src")).expect("the book is there");
        for entry in dir {
            let name = entry.expect("it can be listed").file_name();
            let name = name.to_str().expect("pages have plain names").to_owned();
            if Path::new(&name).extension().is_some_and(|extension| extension == "md") {
                names.push(format!("docs/src/{name}"));
            }
        }
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }

    pub(crate) fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<Block<'_>> = None;
        let mut before = "";
        for (index, line) in self.text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let comment =
                        before.strip_prefix("<!-- ").and_then(|it| it.strip_suffix(" -->"));
                    open = Some(Block { line: index + 1, language, comment, lines: Vec::new() });
                }
                (Some(_), Some("")) => blocks.extend(open.take()),
                (Some(block), _) => block.lines.push(line),
                (None, None) => {}
            }
            before = line;
        }
        assert!(open.is_none(), "{}: a block has no end", self.name);
        blocks
    }

    /// The text without what stands in blocks.
    pub(crate) fn prose(&self) -> String {
        let mut is_in_block = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.starts_with("```") {
                is_in_block = !is_in_block;
            } else if !is_in_block {
                prose += line;
                prose.push('\n');
            }
        }
        prose
    }

    /// The rows of all tables that have these columns: the cells, as they are written.
    pub(crate) fn rows(&self, columns: &str) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        let mut lines = self.text.lines();
        let mut found = false;
        while let Some(line) = lines.next() {
            if line != columns {
                continue;
            }
            found = true;
            let body = lines.by_ref().skip(1).take_while(|line| line.starts_with('|'));
            rows.extend(body.map(cells));
        }
        assert!(found, "{}: no table has the columns {columns}", self.name);
        rows
    }
}

fn cells(row: &str) -> Vec<String> {
    let row = row.replace("\\|", "\u{0}");
    let cells = row.trim_matches('|').split('|');
    cells.map(|cell| cell.trim().replace('\u{0}', "|")).collect()
}
