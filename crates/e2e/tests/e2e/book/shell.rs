//! Commands of a page, run in one shell, and what they write compared with what is shown.

use std::fmt::Write as _;

use tradewind_e2e::Start;

use super::pages::Block;

/// Names of machines in the documents. Here they are all this one.
pub(crate) const HOSTS: [&str; 3] = ["vent-host", "sink-host", "work-host"];

/// Text that a shell is to run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A command, and all that it writes.
    Command { line: usize, command: String, output: Vec<&'a str> },
    /// Lines of a script.
    Script { line: usize, lines: Vec<&'a str> },
    /// Commands on several machines at once.
    Machines { line: usize, commands: Vec<&'a str> },
}

impl Step<'_> {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Command { command, .. } => command.clone(),
            Self::Script { lines: words, .. } | Self::Machines { commands: words, .. } => {
                words.join("\n")
            }
        }
    }
}

fn on_a_machine(line: &str) -> Option<&str> {
    HOSTS.iter().find_map(|host| line.strip_prefix(host)?.strip_prefix("$ "))
}

pub(crate) fn steps<'a>(block: &Block<'a>) -> Vec<Step<'a>> {
    let line = block.line;
    if block.language == "sh" {
        return vec![Step::Script { line, lines: block.lines.clone() }];
    }
    let mut steps = Vec::new();
    for (index, text) in block.lines.iter().enumerate() {
        let line = line + index + 1;
        if let Some(command) = on_a_machine(text) {
            if let Some(Step::Machines { commands, .. }) = steps.last_mut() {
                commands.push(command);
            } else {
                steps.push(Step::Machines { line, commands: vec![command] });
            }
        } else if let Some(command) = text.strip_prefix("$ ") {
            let (command, output) = (command.to_owned(), Vec::new());
            steps.push(Step::Command { line, command, output });
        } else if let Some(Step::Command { output, .. }) = steps.last_mut() {
            output.push(*text);
        } else {
            panic!("line {line}: {text:?} is no command, and no output of one");
        }
    }
    steps
}

/// Before and after each step's output.
const MARK: char = '\u{1e}';

pub(crate) fn script(steps: &[Step<'_>], has_network: bool) -> String {
    let mut script = "exec < /dev/null\n".to_owned();
    if has_network {
        script += "mount --bind hosts /etc/hosts && ip link set lo up || exit 1\n";
    }
    for step in steps {
        let _ = writeln!(script, "printf '{MARK}'");
        match step {
            Step::Command { command, .. } => script += command,
            Step::Script { lines, .. } => {
                let _ = write!(script, "(\nset -e\n{}\n)", lines.join("\n"));
            }
            Step::Machines { commands, .. } => {
                script += "ids=\n";
                for command in commands {
                    let _ = writeln!(script, "( {command} ) & ids+=\" $!\"");
                }
                script += "exit_code=0\nfor id in $ids; do wait $id || exit_code=$?; done\n(exit $exit_code)";
            }
        }
        let _ = writeln!(script, "\nprintf '{MARK}%d\\n' $?");
    }
    script
}

/// Does this text match a pattern in which `…` stands for anything?
fn line_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, parts)) = parts.split_last() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The same for lines, of which `…` alone stands for any.
fn lines_match(patterns: &[&str], lines: &[&str]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((&"…", rest)) => {
            (0..=lines.len()).any(|skipped| lines_match(rest, &lines[skipped..]))
        }
        Some((pattern, rest)) => lines
            .split_first()
            .is_some_and(|(line, others)| line_matches(pattern, line) && lines_match(rest, others)),
    }
}

/// Runs a shell with the script of these steps; gives what is not as the page says.
pub(crate) fn play(name: &str, shell: Start, steps: &[Step<'_>]) -> Vec<String> {
    let ended = shell.run();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let mut wrong = Vec::new();
    let mut parts = said.split(MARK).skip(1);
    for step in steps {
        let (Some(output), Some(code)) = (parts.next(), parts.next()) else {
            wrong.push(format!("{}: the shell ended early", name));
            break;
        };
        let (line, is_right) = match step {
            Step::Command { line, output: wanted, .. } => {
                (line, lines_match(wanted, &output.lines().collect::<Vec<_>>()))
            }
            Step::Script { line, .. } | Step::Machines { line, .. } => (line, true),
        };
        if !is_right || code.trim() != "0" {
            let code = code.trim();
            wrong.push(format!(
                "{name}:{line}: {step:?}\n  exit code {code}, and wrote:\n{output}",
            ));
        }
    }
    if !wrong.is_empty() {
        wrong.push(format!("standard error of {name}:\n{}", ended.stderr));
    }
    wrong
}

#[test]
fn outputs_are_compared_with_what_is_shown() {
    let check = |wanted: &[&str], lines: &[&str], is_match| {
        assert_eq!(lines_match(wanted, lines), is_match, "{wanted:?} {lines:?}");
    };
    check(&[], &[], true);
    check(&[], &["a"], false);
    check(&["a"], &["a"], true);
    check(&["a"], &["b"], false);
    check(&["a"], &["a", "b"], false);
    check(&["…"], &[], true);
    check(&["…"], &["a", "b"], true);
    check(&["a", "…", "z"], &["a", "b", "z"], true);
    check(&["a", "…", "z"], &["a", "b"], false);
    check(&["a…z"], &["abcz"], true);
    check(&["a…z"], &["abc"], false);
    check(&["…b…"], &["abc"], true);
    check(&["a…a"], &["a"], false);
    let block = Block {
        line: 7,
        language: "console",
        comment: None,
        lines: vec!["$ one", "1", "sink-host$ two", "vent-host$ three"],
    };
    let one = Step::Command { line: 8, command: "one".to_owned(), output: vec!["1"] };
    let both = Step::Machines { line: 10, commands: vec!["two", "three"] };
    assert_eq!(steps(&block), [one, both]);
}
