//! Every link leads to a page, a heading or a file, and the table of contents has every page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::pages::{Page, root};

/// The targets of `[text](target)` and `![text](target)` outside of code.
fn targets(page: &Page) -> Vec<String> {
    let mut targets = Vec::new();
    let prose = page.prose();
    // Between two backticks is code; no paragraph has an odd number of them.
    for text in prose.split('`').step_by(2) {
        for part in text.split("](").skip(1) {
            let (target, _) = part.split_once(')').expect("a link has an end");
            targets.push(target.to_owned());
        }
    }
    // A link whose text ends in code: [`x`](target).
    for part in prose.split("`](").skip(1) {
        targets.push(part.split_once(')').expect("a link has an end").0.to_owned());
    }
    targets
}

/// The name of a heading's anchor, as GitHub and mdbook make it.
fn anchor(heading: &str) -> String {
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let heading = heading.trim().to_lowercase();
    heading.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Page) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in page.prose().lines() {
        let heading = line.trim_start_matches('#');
        if heading.len() < line.len() && heading.starts_with(' ') {
            let anchor = anchor(heading);
            assert!(anchors.insert(anchor), "{}: two headings are called {heading}", page.name);
        }
    }
    anchors
}

/// All documents that people read.
fn documents() -> Vec<Page> {
    let others = ["ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md"];
    let examples =
        ["thumbnails", "words", "crawl"].map(|name| format!("examples/{name}/README.md"));
    let mut pages = Page::all();
    pages.extend(others.map(Page::read));
    pages.extend(examples.iter().map(|name| Page::read(name)));
    pages
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let mut checked = 0;
    for page in documents() {
        for target in targets(&page) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let here = root.join(&page.name);
            let dir = here.parent().expect("a page is in a directory");
            let path = if file.is_empty() { here.clone() } else { dir.join(file) };
            assert!(path.exists(), "{}: {target} does not exist", page.name);
            if page.name.starts_with("docs/src/") {
                let path = path.canonicalize().expect("it exists");
                let is_inside = path.starts_with(root.join("docs/src"));
                assert!(is_inside, "{}: {target} is not in the book", page.name);
            }
            if !heading.is_empty() {
                let name = path.canonicalize().expect("it exists");
                let name = name.strip_prefix(&root).expect("it is in the repository");
                let there = Page::read(name.to_str().expect("pages have plain names"));
                let anchors = anchors(&there);
                let is_there = anchors.contains(heading);
                assert!(is_there, "{}: {target}: no such heading in {anchors:?}", page.name);
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} links were found");
}

#[test]
fn every_file_that_is_named_exists() {
    const FOLDERS: [&str; 4] = ["crates/", "scripts/", "examples/", "deploy/"];
    let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let mut checked = 0;
    for page in documents() {
        for word in page.text.split(|c| !is_part(c)) {
            let word = word.trim_start_matches("./").trim_end_matches('.');
            if FOLDERS.iter().any(|folder| word.starts_with(folder)) {
                assert!(root().join(word).exists(), "{}: {word} does not exist", page.name);
                checked += 1;
            }
        }
    }
    assert!(checked > 30, "only {checked} files were found");
}

#[test]
fn the_table_of_contents_has_every_page_once() {
    let summary = Page::read("docs/src/SUMMARY.md");
    let mut listed = targets(&summary);
    listed.sort();
    let is_page = |name: &String| *name != "SUMMARY.md";
    let pages = Page::all();
    let names = pages.iter().filter_map(|page| page.name.strip_prefix("docs/src/"));
    let names: Vec<String> = names.map(str::to_owned).filter(is_page).collect();
    assert_eq!(listed, names);
}

#[test]
fn every_page_begins_with_its_one_title_and_every_picture_is_shown() {
    let mut shown: BTreeSet<PathBuf> = BTreeSet::new();
    for page in Page::all() {
        let titles = page.prose().lines().filter(|line| line.starts_with("# ")).count();
        let is_summary = page.name.ends_with("SUMMARY.md");
        assert!(page.text.starts_with("# "), "{} has no title", page.name);
        assert!(titles == 1 || is_summary, "{} has {titles} titles", page.name);
        let _ = anchors(&page);
        shown.extend(targets(&page).iter().map(PathBuf::from));
    }
    for entry in std::fs::read_dir(root().join("docs/src")).expect("the book is there") {
        let name = PathBuf::from(entry.expect("it can be listed").file_name());
        let is_picture = name.extension().is_some_and(|extension| extension == "svg");
        assert!(!is_picture || shown.contains(&name), "{} is shown nowhere", name.display());
    }
}

#[test]
fn the_readme_is_short() {
    let lines = Page::read("README.md").text.lines().count();
    assert!(lines <= 200, "README.md has {lines} lines: what is more belongs into the book");
    assert!(Path::new(&root()).join("docs/book.toml").exists());
}
