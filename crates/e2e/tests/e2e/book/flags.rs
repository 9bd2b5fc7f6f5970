//! The tables of flags have what `--help` has, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use tradewind_e2e::Scene;

use super::pages::Page;

/// Subcommands of `tradewind keys`, which have a page of their own.
const KEYS: [&str; 5] = ["new", "token", "rotate", "ban", "show"];

const PROGRAMS: [&str; 5] = ["run", "ventilator", "worker", "relay", "sink"];

/// Commands that ask a server of queues: `clients` in the book.
pub(super) const CLIENTS: [&str; 12] = [
    "submit",
    "result",
    "status",
    "records",
    "cancel",
    "retry",
    "pause",
    "resume",
    "queue add",
    "queue set",
    "queue list",
    "queue rm",
];

/// Commands that serve queues, and look at them.
const SERVERS: [&str; 2] = ["serve", "store check"];

/// A flag, of the programs that have it alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flag {
    /// In all its forms, but short for a long one: `-n`, `-N`, `--max-args`.
    forms: BTreeSet<String>,
    /// The value that it has if it is not given; empty if none.
    default: String,
    /// The environment variable that it is taken from; empty if none.
    variable: String,
}

/// Returns the words that look like flags in a text, without their values.
fn forms_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    text.split(|c| !is_part(c))
        .filter(|word| {
            let name = word.trim_start_matches('-');
            match word.len() - name.len() {
                1 => name.len() == 1,
                2 => name.len() > 1,
                _ => false,
            }
        })
        .map(str::to_owned)
        .collect()
}

/// Returns the text that stands behind this in square brackets.
fn bracketed<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(name)?;
    Some(rest.split_once(']')?.0.trim())
}

/// The flags that a program's help lists.
fn flags_of(program: &str) -> BTreeSet<Flag> {
    flags_of_command(&[program])
}

fn flags_of_command(words: &[&str]) -> BTreeSet<Flag> {
    let scene = Scene::new();
    // Without the variables of other tests: help shows their values.
    let help = scene.ours("tradewind").home(scene.dir()).args(words).args(["--help"]);
    let help = help.run().expect(0);
    let mut entries: Vec<String> = Vec::new();
    for line in help.text().lines() {
        if line.starts_with("  -") || line.starts_with("      --") {
            entries.push(line.to_owned() + "\n");
        } else if line.starts_with("          ") || line.is_empty() {
            if let Some(entry) = entries.last_mut() {
                *entry += line;
            }
        } else if line.starts_with("Examples") {
            break;
        }
    }
    let flags = entries.iter().map(|entry| {
        let (first, _) = entry.split_once('\n').expect("it has a first line");
        let first = first.trim_start();
        // Short helps have the description on the same line.
        let mut forms = forms_in(first.split_once("  ").map_or(first, |(forms, _)| forms));
        let rest = entry;
        for name in ["[alias: ", "[aliases: "] {
            forms.extend(forms_in(bracketed(rest, name).unwrap_or_default()));
        }
        let default = bracketed(rest, "[default: ").unwrap_or_default().to_owned();
        let variable = bracketed(rest, "[env: ").unwrap_or_default();
        Flag { forms, default, variable: variable.trim_end_matches('=').to_owned() }
    });
    flags.filter(|flag| !flag.forms.contains("--help")).collect()
}

/// The variable that a flag has by the book's rule.
fn variable_of(forms: &BTreeSet<String>) -> String {
    let long = forms.iter().filter(|form| form.len() > 4);
    let long = long.max_by_key(|form| form.len()).expect("every flag has a long form");
    format!("TRADEWIND{}", long.replacen('-', "", 1).replace('-', "_").to_uppercase())
}

/// The flags in a page's table, by program.
fn flags_in_book(page: &str, programs: &[&str]) -> BTreeMap<String, BTreeSet<Flag>> {
    let rows = Page::read(page).rows("| flag | of | default | effect |");
    let mut in_book: BTreeMap<String, BTreeSet<Flag>> = BTreeMap::new();
    for row in &rows {
        let [flag, of, default, effect] = &row[..] else { panic!("{row:?} has not four cells") };
        let forms = forms_in(flag);
        let default = default.trim_matches('`').to_owned();
        let given =
            effect.split_once("Its variable is `").and_then(|(_, rest)| rest.split('`').next());
        let variable = match given {
            Some(variable) => variable.to_owned(),
            None if effect.contains("It has no variable") => String::new(),
            None => variable_of(&forms),
        };
        let named = of.split(", ").flat_map(|of| match of {
            "clients" => CLIENTS.to_vec(),
            of => vec![of],
        });
        for program in named {
            assert!(programs.contains(&program), "{flag}: which program is {program:?}?");
            let entry =
                Flag { forms: forms.clone(), default: default.clone(), variable: variable.clone() };
            let is_new = in_book.entry(program.to_owned()).or_default().insert(entry);
            assert!(is_new, "{flag} of {program} is there twice");
        }
    }
    in_book
}

#[test]
fn the_flags_of_each_program_are_those_of_its_help() {
    let in_book = flags_in_book("docs/src/flags.md", &[&PROGRAMS[..], &["serve"]].concat());
    for program in PROGRAMS {
        let help = flags_of(program);
        assert!(help.len() > 10, "{program}: {help:?}");
        compare(program, &in_book[program], &help);
    }
}

fn compare(program: &str, book: &BTreeSet<Flag>, help: &BTreeSet<Flag>) {
    let missing: Vec<_> = help.difference(book).collect();
    let extra: Vec<_> = book.difference(help).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{program}: only in --help: {missing:#?}\nonly in the book: {extra:#?}"
    );
}

#[test]
fn the_flags_of_the_commands_of_queues_are_those_of_their_help() {
    let mut in_book = flags_in_book("docs/src/queues.md", &[&SERVERS[..], &CLIENTS].concat());
    // What it has like other programs stands with theirs.
    let common = flags_in_book("docs/src/flags.md", &[&PROGRAMS[..], &["serve"]].concat());
    in_book.entry("serve".to_owned()).or_default().extend(common["serve"].clone());
    for command in SERVERS.iter().chain(&CLIENTS) {
        let words: Vec<&str> = command.split(' ').collect();
        compare(command, &in_book[*command], &flags_of_command(&words));
    }
}

#[test]
fn the_flags_of_the_keys_commands_are_those_of_their_help() {
    let mut in_book = flags_in_book("docs/src/keys.md", &KEYS);
    for command in KEYS {
        let book = in_book.remove(command).unwrap_or_default();
        assert_eq!(book, flags_of_command(&["keys", command]), "{command}");
    }
}

#[test]
fn no_document_speaks_of_a_flag_that_is_not_there() {
    let of_keys = KEYS.iter().flat_map(|command| flags_of_command(&["keys", command]));
    let of_programs = PROGRAMS.iter().flat_map(|program| flags_of(program));
    let of_queues = SERVERS.iter().chain(&CLIENTS);
    let of_queues =
        of_queues.flat_map(|command| flags_of_command(&command.split(' ').collect::<Vec<_>>()));
    let known = of_programs.chain(of_keys).chain(of_queues);
    let known: BTreeSet<String> = known.flat_map(|flag| flag.forms).collect();
    // Every program's own, those of cargo, and those of scripts/bench.
    const OTHERS: [&str; 7] =
        ["--help", "--path", "--locked", "--open", "--growth", "--only", "--book"];
    let mut wrong = Vec::new();
    for page in Page::all() {
        for code in page.prose().split('`').skip(1).step_by(2) {
            let is_long = |form: &&String| form.starts_with("--");
            let is_known = |form: &String| known.contains(form) || OTHERS.contains(&form.as_str());
            let unknown = forms_in(code);
            let mut unknown = unknown.iter().filter(is_long).filter(|form| !is_known(form));
            // There the other program's stand beside ours.
            let is_parallels = page.name.ends_with("gnu-parallel.md");
            wrong.extend(
                unknown
                    .next()
                    .filter(|_| !is_parallels)
                    .map(|form| format!("{}: {form} in {code:?}", page.name)),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
