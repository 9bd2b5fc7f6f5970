//! The command line, taken apart; and what is wrong with it, in one line.

use std::ffi::OsString;

use clap::builder::{OsStr, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error, Parser};

use crate::exit::{USAGE, flush, say};
use crate::shutdown::survive;

/// The first thing that a program does: takes the command line apart, or ends the process: with the help that
/// was asked for, or with one line that says what is wrong.
#[must_use]
pub fn parse<C: Parser>(program: &str) -> C {
    survive();
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut command = without_empty_variables(C::command());
    let parsed = command
        .try_get_matches_from_mut(&words)
        .and_then(|mut matches| C::from_arg_matches_mut(&mut matches))
        .map_err(|error| error.format(&mut command));
    parsed.unwrap_or_else(|error| {
        if matches!(
            error.kind(),
            ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        ) {
            error.exit();
        }
        say(&format!("{program}: {}", explain(&error, &command, &words)));
        flush();
        std::process::exit(USAGE.into());
    })
}

/// An empty variable is one that is not set: compose files make such of `${NAME:-}`.
fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|v| v.is_empty());
    command
        .mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(Resettable::<OsStr>::Reset),
            _ => arg,
        })
        .mut_subcommands(without_empty_variables)
}

/// Returns the error, and the words to type instead.
fn explain(error: &Error, command: &Command, words: &[OsString]) -> String {
    if let Some(line) = missing_dashes(error, command, words) {
        return format!("the command goes after --: {line}");
    }
    let text = error.render().to_string();
    // What is wrong comes first; after a blank line come hints and the usage.
    let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let mut what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    for (theirs, ours) in WORDS {
        what = what.replace(theirs, ours);
    }
    if what.contains("..=") {
        what = what.replace(" is not in ", " is not between ").replace("..=", " and ");
    }
    let kinds =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    let suggestion = kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    });
    if let Some(hint) = known_elsewhere(error, command, words) {
        return format!("{what}; {hint} (see --help)");
    }
    match suggestion.or_else(|| nearest_subcommand(error, command)) {
        Some(suggestion) => format!("{what}; did you mean {suggestion}? (see --help)"),
        None => format!("{what} (see --help)"),
    }
}

/// Flags of GNU parallel and xargs; the flag of a program that has what they do; and what to know.
const THEIRS: [(&str, &str, &str); 12] = [
    ("-P", "jobs", "here it is -j (--jobs)"),
    ("--max-procs", "jobs", "here it is -j (--jobs)"),
    ("-a", "input", "here it is --input"),
    ("--arg-file", "input", "here it is --input"),
    ("-k", "ordered", IN_ORDER),
    ("--keep-order", "ordered", IN_ORDER),
    ("-I", "jobs", "here the replacement string is always {}, and {{}} is a literal {}"),
    ("--bar", "no-progress", BAR),
    ("--eta", "no-progress", BAR),
    ("--progress", "no-progress", BAR),
    ("--csv", "input-format", "here it is --input-format csv"),
    ("--resume-failed", "retry-failed", "here it is --resume --retry-failed"),
];

const IN_ORDER: &str = "here lines are in the order of the input anyway; else --ordered";

const BAR: &str = "here there is one where stderr is a terminal and the output goes elsewhere";

/// Returns a hint about an unknown flag that is another program's.
fn known_elsewhere(error: &Error, command: &Command, words: &[OsString]) -> Option<&'static str> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let subcommand = words.iter().skip(1).find_map(|word| command.find_subcommand(word));
    let command = subcommand.unwrap_or(command);
    let has = |flag: &str| command.get_arguments().any(|arg| arg.get_long() == Some(flag));
    let flag = unknown.split('=').next().unwrap_or_default();
    let known = THEIRS.iter().find(|(theirs, ours, _)| *theirs == flag && has(ours));
    known.map(|(.., hint)| *hint)
}

/// The subcommand that was meant: two letters that have changed places are more than clap forgives
/// in a word of three.
fn nearest_subcommand(error: &Error, command: &Command) -> Option<String> {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let distance = |name: &str| strsim::osa_distance(typed, name);
    let names = command.get_subcommands().map(Command::get_name);
    names.filter(|name| distance(name) <= 2).min_by_key(|name| distance(name)).map(str::to_owned)
}

/// The command line as it should be, if what is wrong is a command without `--` before it.
fn missing_dashes(error: &Error, command: &Command, words: &[OsString]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let subcommand = words.iter().skip(1).find_map(|word| command.find_subcommand(word));
    let takes_command =
        subcommand.unwrap_or(command).get_positionals().any(|arg| arg.is_last_set());
    if unknown.starts_with('-') || !takes_command {
        return None;
    }
    let at = words.iter().position(|word| word == unknown.as_str())?;
    let quote = |word: &OsString| match word.to_string_lossy() {
        plain if !plain.is_empty() && plain.chars().all(is_plain) => plain.into_owned(),
        other => format!("'{}'", other.replace('\'', r"'\''")),
    };
    let program = command.get_name().to_owned();
    let before = words[1..at].iter().map(quote);
    let after = words[at..].iter().map(quote);
    let line = [program].into_iter().chain(before).chain(["--".to_owned()]).chain(after);
    Some(line.collect::<Vec<_>>().join(" "))
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "-_./:=,+@%{}".contains(c)
}

/// The standard library's words for values that are wrong, and words for people.
const WORDS: [(&str, &str); 8] = [
    ("invalid digit found in string", "this is not a whole number"),
    ("cannot parse integer from empty string", "a number is missing"),
    ("number too large to fit in target type", "this is too large"),
    ("number too small to fit in target type", "this is too small"),
    ("number would be zero for non-zero type", "this must be at least 1"),
    ("invalid float literal", "this is not a number"),
    ("cannot parse float from empty string", "a number is missing"),
    ("value was not a boolean", "this is neither true nor false"),
];

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use clap::CommandFactory;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "tool")]
    enum Tool {
        Run {
            #[arg(long)]
            input: Option<String>,
            #[arg(long)]
            retries: Option<u32>,
            #[arg(long, short = 'n')]
            max_args: Option<NonZeroU32>,
            #[arg(last = true)]
            command: Vec<OsString>,
        },
        Sink,
    }

    fn error(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut command = Tool::command();
        let error = command.try_get_matches_from_mut(&words).unwrap_err();
        explain(&error, &command, &words)
    }

    #[test]
    fn a_flag_of_another_program_is_explained_where_we_have_what_it_does() {
        let hint = "unexpected argument '-a' found; here it is --input (see --help)";
        assert_eq!(error("tool run -a x"), hint);
        assert_eq!(error("tool sink -a x"), "unexpected argument '-a' found (see --help)");
        assert_eq!(error("tool run -P 3"), "unexpected argument '-P' found (see --help)");
    }

    #[test]
    fn what_is_misspelt_is_named_as_it_is_spelt() {
        let check = |line: &str, wanted: &str| assert_eq!(error(line), wanted, "{line}");
        check(
            "tool run --inptu x",
            "unexpected argument '--inptu' found; did you mean --input? (see --help)",
        );
        check("tool rnu", "unrecognized subcommand 'rnu'; did you mean run? (see --help)");
        check("tool run --xyzzy", "unexpected argument '--xyzzy' found (see --help)");
    }

    #[test]
    fn a_command_without_dashes_is_shown_with_them() {
        let check = |line: &str, wanted: &str| {
            assert_eq!(error(line), format!("the command goes after --: {wanted}"), "{line}");
        };
        check("tool run echo x", "tool run -- echo x");
        check("tool run --retries 2 echo {} -n", "tool run --retries 2 -- echo {} -n");
        check("tool run it's $HOME", r"tool run -- 'it'\''s' '$HOME'");
        assert_eq!(error("tool sink x"), "unexpected argument 'x' found (see --help)");
    }

    #[test]
    fn numbers_that_are_none_are_told_so_in_words_for_people() {
        let check = |line: &str, wanted: &str| {
            let error = error(line);
            assert!(error.contains(wanted), "{line}: {error}");
        };
        check(
            "tool run --retries x",
            "invalid value 'x' for '--retries <RETRIES>': this is not a whole number",
        );
        check("tool run --retries 99999999999", "99999999999 is not between 0 and 4294967295");
        check("tool run -n 99999999999", "this is too large");
        check("tool run -n 0", "this must be at least 1");
    }
}
