//! The commands in the README and in the book do what is shown.
//!
//! A page's blocks run one after the other, in one shell and a directory of their own. In a block of
//! `console` a line that begins with `$ ` is a command, and what follows is all that it writes to standard
//! output; `…` stands for any text, alone on a line for any lines. A line that begins with `NAME$ ` runs on a
//! machine of that name: all of a block's run at once, and all have to end. A block of `sh` has to succeed. A
//! comment before a block says what else it is: `file: NAME`, `not run: REASON`, or `engine: NAME`, whose server the test
//! target `engines` has.

use std::process::Command;

use tradewind_e2e::{Scene, program};

use super::pages::{Block, Page, root};
use super::shell::{HOSTS, Step, play, script, steps};

/// Blocks that are not run.
const NOT_RUN_MAX: usize = 10;

fn has_tool(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Can programs here have a network and names of hosts that are theirs alone?
fn has_network() -> bool {
    let try_out = "ip link set lo up && mount --bind /etc/hosts /etc/hosts";
    let mut command = Command::new("unshare");
    command.args(["-r", "-n", "-m", "sh", "-c", try_out]);
    command.output().is_ok_and(|output| output.status.success())
}

fn is_run_elsewhere(comment: &str) -> bool {
    ["not run: ", "engine: "].iter().any(|it| comment.starts_with(it))
}

/// Runs a page; gives what is not as it says.
fn run(page: &Page, has_network: bool) -> Vec<String> {
    let scene = Scene::new();
    let mut all = Vec::new();
    for block in page.blocks() {
        let comment = block.comment.unwrap_or_default();
        if let Some(name) = comment.strip_prefix("file: ") {
            scene.file(name, block.lines.join("\n") + "\n");
        } else if ["console", "sh"].contains(&block.language) && !is_run_elsewhere(comment) {
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
    play(&page.name, shell.env("PATH", format!("{programs}:{path}")), &all)
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
                Some(Some(("engine", "nats" | "postgres"))) => assert!(is_command),
                Some(other) => panic!("{}:{line}: {other:?} is not understood", page.name),
                None => run += usize::from(is_command),
            }
        }
    }
    assert!(not_run <= NOT_RUN_MAX, "{not_run} blocks are not run");
    assert!(run > 20, "only {run} blocks are run");
}
