//! The README speaks of the flags that there are, of all of them, and of no others.

use std::collections::{BTreeMap, BTreeSet};

use tradewind_e2e::Scene;

const README: &str = include_str!("../../../../README.md");

const COMMANDS: [&str; 5] = ["run", "ventilator", "worker", "relay", "sink"];

/// The flags of each command, in all their forms: `-n`, `--max-args`.
fn flags_of(command: &str) -> Vec<BTreeSet<String>> {
    let help = Scene::new().ours("tradewind").args([command, "--help"]).run().expect(0);
    let is_flag = |line: &&str| line.starts_with("  -") || line.starts_with("      --");
    let all = help.text().lines().filter(is_flag).map(flags_in);
    all.filter(|forms| !forms.is_empty()).collect()
}

/// What looks like a flag in a text, without its value.
fn flags_in(text: &str) -> BTreeSet<String> {
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

/// The commands that the table of flags names: "worker, run", "all but run".
fn commands_in(cell: &str) -> BTreeSet<&'static str> {
    let is_named = |command: &&str| cell.split(", ").any(|word| word == *command);
    match cell {
        "all" => COMMANDS.into(),
        "all but run" => COMMANDS.into_iter().filter(|command| *command != "run").collect(),
        _ => COMMANDS.into_iter().filter(is_named).collect(),
    }
}

#[test]
fn every_flag_is_there_and_every_command_that_has_it() {
    let flags: BTreeMap<&str, Vec<BTreeSet<String>>> =
        COMMANDS.into_iter().map(|command| (command, flags_of(command))).collect();
    assert!(flags.values().all(|flags| flags.len() > 10), "{flags:?}");

    let (_, table) = README.split_once("| flag | of | what it does |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let mut checked = 0;
    for row in table.lines() {
        let row = row.replace("\\|", " ");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, names, commands, ..] = cells[..] else { continue };
        for flag in flags_in(names) {
            let has_it = |command: &&str| flags[command].iter().any(|forms| forms.contains(&flag));
            let have_it: BTreeSet<_> = COMMANDS.into_iter().filter(has_it).collect();
            assert_eq!(commands_in(commands), have_it, "the README's row of {flag}");
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} flags were found in the README's table");

    let mentioned = flags_in(README);
    for (command, flags) in flags {
        for forms in flags {
            assert!(!forms.is_disjoint(&mentioned), "the README lacks {forms:?} of {command}");
        }
    }
}
