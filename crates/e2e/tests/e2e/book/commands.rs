//! The commands in the README and in the book do what is shown.
//!
//! A page's blocks run one after the other, in one shell and a directory of their own. In a block of
//! `console` a line that begins with `$ ` is a command, and what follows is all that it writes to standard
//! output; `…` stands for any text, alone on a line for any lines. A line that begins with `NAME$ ` runs on a
//! machine of that name: all of a block's run at once, and all have to end. A block of `sh` has to succeed. A
//! comment before a block says what else it is: `file: NAME`, or `not run: REASON`.

use std::fmt::Write as _;
use std::process::Command;

use tradewind_e2e::{Scene, program};

use super::pages::{Block, Page, root};

/// Names of machines in the documents. Here they are all this one.
const HOSTS: [&str; 3] = ["vent-host", "sink-host", "work-host"];

/// Blocks that are not run.
const NOT_RUN_MAX: usize = 10;

/// Text that a shell is to run.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// A command, and all that it writes.
    Command { line: usize, command: String, output: Vec<&'a str> },
    /// Lines of a script.
    Script { line: usize, lines: Vec<&'a str> },
    /// Commands on several machines at once.
    Machines { line: usize, commands: Vec<&'a str> },
}

impl Step<'_> {
    fn text(&self) -> String {
        match self {
            Self::Command { command, .. } => command.clone(),
            Self::Script { lines: words, .. } | Self::Machines { commands: words, .. } => {
                words.join("\n")
            }
        }
    }
}

fn has_tool(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn on_a_machine(line: &str) -> Option<&str> {
    HOSTS.iter().find_map(|host| line.strip_prefix(host)?.strip_prefix("$ "))
}

fn steps<'a>(block: &Block<'a>) -> Vec<Step<'a>> {
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

fn script(steps: &[Step<'_>], has_network: bool) -> String {
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

/// Can programs here have a network and names of hosts that are theirs alone?
fn has_network() -> bool {
    let try_out = "ip link set lo up && mount --bind /etc/hosts /etc/hosts";
    let mut command = Command::new("unshare");
    command.args(["-r", "-n", "-m", "sh", "-c", try_out]);
    command.output().is_ok_and(|output| output.status.success())
}

/// Runs a page; gives what is not as it says.
fn run(page: &Page, has_network: bool) -> Vec<String> {
    let scene = Scene::new();
    let mut all = Vec::new();
    for block in page.blocks() {
        let comment = block.comment.unwrap_or_default();
        if let Some(name) = comment.strip_prefix("file: ") {
            scene.file(name, block.lines.join("\n") + "\n");
        } else if ["console", "sh"].contains(&block.language) && !comment.starts_with("not run: ") {
            all.extend(steps(&block));
        }
    }
    if !has_network {
        // What comes later in the page may look at what they have left.
        let needs_network = |step: &Step<'_>| match step {
            Step::Machines { .. } => true,
            step => step.text().contains("tradewind serve"),
        };
        all.truncate(all.iter().position(needs_network).unwrap_or(all.len()));
    }
    for tool in ["curl", "python3"] {
        let uses = |step: &Step<'_>| step.text().split_whitespace().any(|word| word == tool);
        if let Some(first) = all.iter().position(uses).filter(|_| !has_tool(tool)) {
            tradewind_e2e::note_skipped(
                &format!("commands of {}", page.name),
                &format!("there is no {tool}"),
            );
            all.truncate(first);
        }
    }
    if all.is_empty() {
        return Vec::new();
    }
    scene.file("hosts", format!("127.0.0.1 localhost {}\n", HOSTS.join(" ")));
    scene.file("script", script(&all, has_network));
    if page.name == "README.md" {
        for folder in ["crates", "examples"] {
            let copied =
                Command::new("cp").arg("-r").arg(root().join(folder)).arg(scene.dir()).status();
            assert!(copied.is_ok_and(|status| status.success()), "{folder} can be copied");
        }
    }
    let programs = program("tradewind");
    let programs = programs.parent().expect("a program is in a directory").display();
    let path = std::env::var("PATH").unwrap_or_default();
    let shell = if has_network {
        scene.other("unshare").words("-r -n -m bash script")
    } else {
        scene.other("bash").arg("script")
    };
    let shell = shell.home(scene.dir());
    let ended = shell.env("PATH", format!("{programs}:{path}")).run();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let mut wrong = Vec::new();
    let mut parts = said.split(MARK).skip(1);
    for step in &all {
        let (Some(output), Some(code)) = (parts.next(), parts.next()) else {
            wrong.push(format!("{}: the shell ended early", page.name));
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
                "{}:{line}: {step:?}\n  exit code {code}, and wrote:\n{output}",
                page.name
            ));
        }
    }
    if !wrong.is_empty() {
        wrong.push(format!("standard error of {}:\n{}", page.name, ended.stderr));
    }
    wrong
}

#[test]
fn commands_do_what_is_shown() {
    let has_network = has_network();
    if !has_network {
        let reason = "unshare, ip or the right to use them is missing";
        tradewind_e2e::note_skipped("commands on several machines", reason);
    }
    let mut wrong = Vec::new();
    for page in Page::all() {
        wrong.extend(run(&page, has_network));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn what_is_not_run_says_why_and_is_little() {
    const KNOWN: [&str; 10] =
        ["console", "sh", "text", "hex", "python", "rust", "toml", "csv", "json", "sql"];
    let (mut not_run, mut run) = (0, 0);
    for page in Page::all() {
        for block in page.blocks() {
            let Block { line, language, comment, .. } = block;
            assert!(KNOWN.contains(&language), "{}:{line}: what is {language:?}?", page.name);
            let is_command = ["console", "sh"].contains(&language);
            match comment.map(|comment| comment.split_once(": ")) {
                Some(Some(("not run", reason))) => {
                    assert!(is_command && !reason.is_empty(), "{}:{line}", page.name);
                    not_run += 1;
                }
                Some(Some(("file", _))) => assert!(!is_command, "{}:{line}", page.name),
                Some(other) => panic!("{}:{line}: {other:?} is not understood", page.name),
                None => run += usize::from(is_command),
            }
        }
    }
    assert!(not_run <= NOT_RUN_MAX, "{not_run} blocks are not run");
    assert!(run > 20, "only {run} blocks are run");
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
