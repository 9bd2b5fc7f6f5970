//! The pipeline file: a text goes in, a [`Pipeline`] or an error with line and column comes out.
//!
//! Opens nothing and starts nothing; whether a command exists is asked later.

use std::borrow::Cow;
use std::fmt;

use tradewind_handlers::{TermSeq, TermSeqError};
use tradewind_node::args::AttemptArgs;
use tradewind_proto::dispatcher::Timeout;
use tradewind_proto::limits::{LOSSES_MAX, MESSAGE_BYTES_MAX, SLOTS_MAX};
use tradewind_text::{name, payload_bytes_max, size, timeout};

use super::super::WORKERS_MAX;
use super::table::{At, FileError, Problem, Section, Table, TextOrTexts, Value, line_of, parse};

/// Contents of a pipeline file.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    /// The job's name.
    pub(crate) name: Option<String>,
    /// Input with the tasks, as `--input` takes it.
    pub(crate) input: Option<String>,
    /// Output for the records, as `--output` takes it.
    pub(crate) output: Option<String>,
    /// At least one; the first gets the tasks of the input.
    pub(crate) stages: Vec<Stage>,
}

/// A stage: what its workers do, how many there are, and what a task may take there.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    /// Stands in its records.
    pub(crate) name: String,
    pub(crate) handler: StageHandler,
    /// Exit code of a command whose task needs no later stage.
    pub(crate) skip_exit_code: Option<u32>,
    /// Signals that stop its commands.
    pub(crate) termseq: TermSeq,
    /// Tasks at once in each of its workers; by default the cores.
    pub(crate) slots: Option<u32>,
    /// Its worker processes.
    pub(crate) workers: u32,
    pub(crate) attempts: AttemptArgs,
    /// Its tasks are what the stage before has written, with the newline at the end.
    pub(crate) keep_newline: bool,
    /// Of a task's output, in bytes.
    pub(crate) max_output: u64,
    /// Additional variables of its commands' environment.
    pub(crate) env: Vec<(String, String)>,
    /// Line and column of its handler in the file.
    pub(crate) at: (usize, usize),
}

/// Handler of a stage's workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StageHandler {
    Echo,
    Sleep,
    Command { words: Vec<String>, feed: Feed },
}

/// Ways in which a command gets its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// In its arguments.
    Argument,
    /// On its standard input.
    Stdin,
    /// One after another on the standard input of a command that stays up, in one of the modes of
    /// `--pipe`.
    Pipe(&'static str),
}

/// Keys before the stages.
const TOP_KEYS: &[&str] = &["name", "input", "output", "defaults", "stage"];

/// Keys of `[defaults]`.
const DEFAULT_KEYS: &[&str] =
    &["slots", "workers", "retries", "timeout", "max_losses", "max_output", "env"];

/// Keys of a stage.
const STAGE_KEYS: &[&str] = &[
    "name",
    "command",
    "stdin",
    "pipe",
    "keep_newline",
    "skip_exit_code",
    "termseq",
    "echo",
    "sleep",
    "slots",
    "workers",
    "retries",
    "timeout",
    "max_losses",
    "max_output",
    "env",
];

/// The modes of `worker --pipe`.
const PIPE_MODES: &[&str] = &["lines", "json", "frames"];

/// More processes than one machine is good for, and more ports.
const STAGES_MAX: usize = 64;

const A_STAGE: &str = "a list of stages, each under a [[stage]]";

/// Settings that a stage and `[defaults]` have in common.
#[derive(Clone, Debug, Default)]
struct Common {
    slots: Option<u32>,
    workers: Option<u32>,
    retries: Option<u32>,
    timeout: Option<Timeout>,
    max_losses: Option<u32>,
    max_output: Option<u64>,
    env: Vec<(String, String)>,
}

impl Pipeline {
    /// Reads a file's bytes.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FileError> {
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let text = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                return Err(At::new(error.valid_up_to(), Problem::NotUtf8).in_text(&text));
            }
        };
        parse(text).and_then(|top| Self::read(text, top)).map_err(|at| at.in_text(text))
    }

    fn read(text: &str, mut top: Table<'_>) -> Result<Self, At> {
        top.only(TOP_KEYS)?;
        let defaults = match top.take("defaults") {
            Some(defaults) => {
                let mut defaults = defaults.table(Section::Defaults)?;
                defaults.only(DEFAULT_KEYS)?;
                Common::read(&mut defaults)?
            }
            None => Common::default(),
        };
        let job = top.get("name", |value| value.parsed(name))?;
        let input = top.get("input", path)?;
        let output = top.get("output", path)?;
        let stage = top.require("stage")?;
        let offset = stage.offset;
        let tables = stage.tables(A_STAGE, |place| Section::Stage(place + 1))?;
        if tables.is_empty() || tables.len() > STAGES_MAX {
            let reason = format!("a pipeline has 1 to {STAGES_MAX} stages, not {}", tables.len());
            return Err(Value::bad(offset, "stage", &Section::Top, reason));
        }
        let mut stages: Vec<(usize, Stage)> = Vec::with_capacity(tables.len());
        for table in tables {
            let (offset, stage) = Stage::read(text, table, &defaults)?;
            let same = stages.iter().find(|(_, other)| other.name == stage.name);
            if let Some((other, _)) = same {
                let other_line = line_of(text, *other);
                return Err(At::new(offset, Problem::SameName { name: stage.name, other_line }));
            }
            stages.push((offset, stage));
        }
        let stages = stages.into_iter().map(|(_, stage)| stage).collect();
        Ok(Self { name: job, input, output, stages })
    }
}

impl Stage {
    /// Does it run a command for each task, whose arguments may be the task's fields?
    pub(crate) fn takes_fields(&self) -> bool {
        matches!(self.handler, StageHandler::Command { feed: Feed::Argument | Feed::Stdin, .. })
    }

    /// The stage, and where its name is.
    fn read(text: &str, mut table: Table<'_>, defaults: &Common) -> Result<(usize, Self), At> {
        // Errors are easier to find if they know the name.
        let called = table.get("name", |value| Ok((value.offset, value.parsed(name)?)))?;
        if let Some((_, name)) = &called {
            table.section = Section::Named(name.clone());
        }
        table.only(STAGE_KEYS)?;
        let Some((offset, name)) = called else {
            let section = table.section.clone();
            return Err(At::new(table.offset, Problem::MissingKey { key: "name", section }));
        };
        let (handler, at) = StageHandler::read(&mut table)?;
        let at = At::new(at, Problem::NotUtf8).in_text(text);
        let keep_newline = table.get("keep_newline", |value| value.bool())?.unwrap_or(false);
        let skip_exit_code = table.get("skip_exit_code", |value| value.number(1, 255))?;
        let termseq = table.get("termseq", |value| value.parsed(term_seq))?.unwrap_or_default();
        let Common { slots, workers, retries, timeout, max_losses, max_output, mut env } =
            Common::read(&mut table)?.or(defaults);
        env.sort();
        let stage = Self {
            name,
            handler,
            keep_newline,
            skip_exit_code,
            termseq,
            slots,
            workers: workers.unwrap_or(1),
            attempts: AttemptArgs {
                retries: retries.unwrap_or(0),
                timeout,
                max_losses: max_losses.unwrap_or(LOSSES_MAX),
                max_failures_per_worker: None,
            },
            max_output: max_output.unwrap_or(MAX_OUTPUT),
            env,
            at: (at.line, at.column),
        };
        Ok((offset, stage))
    }
}

fn term_seq(text: &str) -> Result<TermSeq, String> {
    text.parse().map_err(|error: TermSeqError| error.to_string())
}

/// As `worker --max-output` has it by default.
const MAX_OUTPUT: u64 = 16 << 20;

impl StageHandler {
    /// Reads the handler of a stage, and its offset in the file.
    fn read(table: &mut Table<'_>) -> Result<(Self, usize), At> {
        let command = table.get("command", |value| Ok((value.offset, words(value)?)))?;
        let (command_at, command) = command.unzip();
        let mut is_set = |key| -> Result<Option<usize>, At> {
            let set = table.get(key, |value| Ok((value.offset, value.bool()?)))?;
            Ok(set.filter(|(_, is_set)| *is_set).map(|(offset, _)| offset))
        };
        let (echo, sleep, stdin) = (is_set("echo")?, is_set("sleep")?, is_set("stdin")?);
        let pipe =
            table.get("pipe", |value| Ok((value.offset, value.word("pipe", PIPE_MODES)?)))?;
        let (pipe_at, pipe) = pipe.unzip();
        let section = || table.section.clone();
        for (key, is_set, other, is_other_set) in [
            ("command", command_at, "echo", echo),
            ("command", command_at, "sleep", sleep),
            ("echo", echo, "sleep", sleep),
            ("stdin", stdin, "pipe", pipe_at),
        ] {
            if let (Some(at), Some(other_at)) = (is_set, is_other_set) {
                let problem = Problem::Exclusive { key, other, section: section() };
                return Err(At::new(at.max(other_at), problem));
            }
        }
        let feed = match pipe {
            Some(mode) => Feed::Pipe(mode),
            None if stdin.is_some() => Feed::Stdin,
            None => Feed::Argument,
        };
        match (command, echo, sleep) {
            (Some(words), ..) => {
                Ok((Self::Command { words, feed }, command_at.unwrap_or(table.offset)))
            }
            (None, Some(at), _) => Ok((Self::Echo, at)),
            (None, None, Some(at)) => Ok((Self::Sleep, at)),
            (None, None, None) => {
                let problem = Problem::MissingKey { key: "command", section: section() };
                Err(At::new(table.offset, problem))
            }
        }
    }
}

impl Common {
    fn read(table: &mut Table<'_>) -> Result<Self, At> {
        let env = match table.take("env") {
            Some(env) => {
                let offset = env.offset;
                let section = table.section.clone();
                let pairs = env.table(section.clone())?.rest(Value::text)?;
                for (name, value) in &pairs {
                    variable(name, value)
                        .map_err(|reason| Value::bad(offset, "env", &section, reason))?;
                }
                pairs
            }
            None => Vec::new(),
        };
        let limit = "a duration, as in \"30s\", or a percentage, as in \"300%\"";
        Ok(Self {
            slots: table.get("slots", |value| value.number(1, SLOTS_MAX))?,
            workers: table.get("workers", |value| value.number(1, WORKERS_MAX))?,
            retries: table.get("retries", |value| value.number(0, u32::MAX))?,
            timeout: table.get("timeout", |value| value.parsed_or_number(limit, timeout))?,
            max_losses: table.get("max_losses", |value| value.number(1, u32::MAX))?,
            max_output: table
                .get("max_output", |value| value.parsed_or_number("a size", output_size))?,
            env,
        })
    }

    /// Fills in the defaults.
    fn or(self, defaults: &Self) -> Self {
        let mut env = self.env;
        for pair in &defaults.env {
            if env.iter().all(|(name, _)| *name != pair.0) {
                env.push(pair.clone());
            }
        }
        Self {
            slots: self.slots.or(defaults.slots),
            workers: self.workers.or(defaults.workers),
            retries: self.retries.or(defaults.retries),
            timeout: self.timeout.or(defaults.timeout),
            max_losses: self.max_losses.or(defaults.max_losses),
            max_output: self.max_output.or(defaults.max_output),
            env,
        }
    }
}

fn path(value: Value<'_>) -> Result<String, At> {
    value.parsed(|text| match text {
        "" => Err("a path is not empty".to_owned()),
        text if text.contains('\0') => Err("a path has no NUL".to_owned()),
        text => Ok(text.to_owned()),
    })
}

/// Words that mean something to a shell, unless they are quoted.
const SHELL_SIGNS: [&str; 14] =
    ["|", "||", "|&", "&&", "&", ";", "<", ">", ">>", "2>", "2>>", "&>", "2>&1", "<<<"];

/// The first word of a text, as it stands there, that a shell would not take for one.
fn shell_sign(text: &str) -> Option<&'static str> {
    let mut quote = None;
    let mut start = 0;
    let mut chars = text.char_indices();
    let sign = |word: &str| SHELL_SIGNS.into_iter().find(|sign| *sign == word);
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if let Some(sign) = sign(&text[start..at]) {
                    return Some(sign);
                }
                start = at + c.len_utf8();
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => drop(chars.next()),
            _ => {}
        }
    }
    sign(text.get(start..)?)
}

/// A command's words: a list is taken as it is, a text is split as a shell would split it.
fn words(value: Value<'_>) -> Result<Vec<String>, At> {
    let offset = value.offset;
    let place = value.section().clone();
    let bad = |reason: &str| Value::bad(offset, "command", &place, reason.to_owned());
    let words = match value.text_or_texts()? {
        TextOrTexts::Texts(words) => words,
        TextOrTexts::Text(text) => {
            if let Some(sign) = shell_sign(&text) {
                return Err(bad(&format!(
                    "no shell is started, and {sign} would be a word like others: to run it in a \
                     shell, write command = [\"sh\", \"-c\", {text:?}]; if it is one, quote it"
                )));
            }
            shlex::split(&text)
                .ok_or_else(|| bad("a quote is not closed, or the last backslash quotes nothing"))?
        }
    };
    match words.first() {
        None => Err(bad("there is no command in it")),
        Some(program) if program.is_empty() => Err(bad("its first word is empty")),
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            Err(bad("a word of a command has no NUL"))
        }
        Some(_) => Ok(words),
    }
}

fn output_size(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    let most = payload_bytes_max(MESSAGE_BYTES_MAX);
    if bytes <= most {
        Ok(bytes)
    } else {
        Err(format!("{bytes} bytes do not fit into a message: at most {most} do"))
    }
}

/// Can this be in an environment, and is it not one of ours?
fn variable(name: &str, value: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Err(format!("{name:?} cannot be set to {value:?}"));
    }
    if name.starts_with("TRADEWIND_") || name.starts_with("LISTEN_") {
        return Err(format!("{name} is set by tradewind itself"));
    }
    Ok(())
}

impl fmt::Display for Stage {
    /// A line for people: what runs, and how often at once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, slots, workers, attempts, .. } = self;
        write!(f, "{name}: {workers} worker{}", if *workers == 1 { "" } else { "s" })?;
        match slots {
            Some(1) => write!(f, ", 1 slot each")?,
            Some(slots) => write!(f, ", {slots} slots each")?,
            None => write!(f, ", a slot for each core")?,
        }
        match attempts.retries {
            0 => {}
            1 => write!(f, ", 1 retry")?,
            retries => write!(f, ", {retries} retries")?,
        }
        match attempts.timeout {
            Some(Timeout::After(limit)) => write!(f, ", timeout {limit:?}")?,
            Some(Timeout::Percent(percent)) => write!(f, ", timeout {percent}%")?,
            None => {}
        }
        match &self.handler {
            StageHandler::Echo => write!(f, ": echo"),
            StageHandler::Sleep => write!(f, ": sleep"),
            StageHandler::Command { words, feed } => {
                let how = match feed {
                    Feed::Argument => String::new(),
                    Feed::Stdin => ", stdin".to_owned(),
                    Feed::Pipe(mode) => format!(", pipe {mode}"),
                };
                let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                let words = words.join(" ");
                write!(f, "{how}: {words}")
            }
        }
    }
}

/// As a shell would take it, but for the braces of replacement strings, which mean nothing to it.
fn quoted(word: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "{}-_./:=,@%+#".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.into();
    }
    // It has no NUL, so that it can be quoted.
    shlex::try_quote(word).unwrap_or(word.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_a_shell_is_noticed_unless_it_is_quoted() {
        let check =
            |text: &str, wanted: Option<&str>| assert_eq!(shell_sign(text), wanted, "{text}");
        check("echo a | cat", Some("|"));
        check("cat < {} > out", Some("<"));
        check("make && make install", Some("&&"));
        check("sleep 1 &", Some("&"));
        check("cc {} 2>&1", Some("2>&1"));
        check("awk '{ print | \"sort\" }' {}", None);
        check("expr {} \">\" 3", None);
        check(r"expr {} \| 3", None);
        check("curl http://h/?a=1&b=2;c", None);
        check(r#"say "a \" | b" "#, None);
        check("", None);
    }

    const WHOLE: &str = r#"
name = "site"
input = "urls.txt"
output = "results.jsonl"

[defaults]
retries = 1
timeout = "300%"
env = { LANG = "C", TZ = "UTC" }

[[stage]]
name = "fetch"
command = "curl -sf 'a b' {}"
workers = 4
slots = 8
timeout = 1.5

[[stage]]
name = "parse"
command = ["python3", "parse.py", "a b"]
stdin = true
retries = 0
max_losses = 5
max_output = "1MiB"
skip_exit_code = 3
termseq = "INT,500"
env = { TZ = "Asia/Tokyo" }

[[stage]]
name = "index"
pipe = "json"
command = "./index"
max_output = 0x1000
timeout = "2m"

[[stage]]
name = "wait"
sleep = true
echo = false
"#;

    fn parsed(text: &str) -> Pipeline {
        Pipeline::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[test]
    fn a_file_says_what_each_stage_does() {
        let pipeline = parsed(WHOLE);
        assert_eq!(pipeline.name.as_deref(), Some("site"));
        assert_eq!(pipeline.input.as_deref(), Some("urls.txt"));
        assert_eq!(pipeline.output.as_deref(), Some("results.jsonl"));
        let lines: Vec<_> = pipeline.stages.iter().map(Stage::to_string).collect();
        assert_eq!(
            lines,
            [
                "fetch: 4 workers, 8 slots each, 1 retry, timeout 1.5s: curl -sf 'a b' {}",
                "parse: 1 worker, a slot for each core, timeout 300%, stdin: \
                 python3 parse.py 'a b'",
                "index: 1 worker, a slot for each core, 1 retry, timeout 120s, pipe json: ./index",
                "wait: 1 worker, a slot for each core, 1 retry, timeout 300%: sleep",
            ]
        );
        let all = |get: fn(&Stage) -> u64| pipeline.stages.iter().map(get).collect::<Vec<_>>();
        assert_eq!(all(|stage| stage.attempts.max_losses.into()), [3, 5, 3, 3]);
        assert_eq!(all(|stage| stage.max_output), [16 << 20, 1 << 20, 0x1000, 16 << 20]);
        assert_eq!(all(|stage| stage.skip_exit_code.unwrap_or(0).into()), [0, 3, 0, 0]);
        let millis = |stage: &Stage| stage.termseq.total().as_millis() as u64;
        assert_eq!(all(millis), [2_000, 500, 2_000, 2_000]);
        assert_eq!(all(|stage| stage.at.0 as u64), [13, 20, 32, 38]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pipeline.stages[0].env, [pair("LANG", "C"), pair("TZ", "UTC")]);
        assert_eq!(pipeline.stages[1].env, [pair("LANG", "C"), pair("TZ", "Asia/Tokyo")]);
    }

    #[test]
    fn a_stage_needs_a_name_and_something_to_do() {
        let pipeline = parsed("stage = [{name = 'one', echo = true}]");
        assert_eq!(pipeline.stages.len(), 1);
        assert_eq!(pipeline.stages[0].handler, StageHandler::Echo);
        assert!(pipeline.name.is_none() && pipeline.input.is_none() && pipeline.output.is_none());
    }

    /// Lines of a stage named `parse`, from the third on.
    #[track_caller]
    fn check_stage(keys: &str, error: &str) {
        check(format!("[[stage]]\nname = \"parse\"\n{keys}\n"), error);
    }

    #[track_caller]
    fn check(text: impl AsRef<[u8]>, error: &str) {
        let text = text.as_ref();
        let found = Pipeline::parse(text).map_err(|error| error.to_string());
        let shown = String::from_utf8_lossy(text);
        assert_eq!(found.map(|pipeline| pipeline.stages.len()), Err(error.to_owned()), "{shown}");
    }

    #[test]
    fn a_misspelt_key_is_named_with_the_nearest_right_one() {
        check_stage(
            "comand = \"true\"",
            r#"3:1: unknown key "comand" in stage "parse"; did you mean "command"?"#,
        );
        check_stage(
            "command = \"true\"\n  retires = 3",
            r#"4:3: unknown key "retires" in stage "parse"; did you mean "retries"?"#,
        );
        check_stage(
            "command = \"true\"\nmax-output = 3",
            r#"4:1: unknown key "max-output" in stage "parse"; did you mean "max_output"?"#,
        );
        check_stage("xyzzy = 1", r#"3:1: unknown key "xyzzy" in stage "parse""#);
        check(
            "[[stage]]\nnmae = \"parse\"",
            r#"2:1: unknown key "nmae" in stage 1; did you mean "name"?"#,
        );
        check("[[stages]]", r#"1:3: unknown key "stages" in the file; did you mean "stage"?"#);
        check(
            "[default]\nslots = 1",
            r#"1:2: unknown key "default" in the file; did you mean "defaults"?"#,
        );
        check("[defaults]\ncommand = 'x'", r#"2:1: unknown key "command" in the defaults"#);
        // Columns are those of characters.
        check("stage = [{ name = 'ä', 'ö' = 1 }]", r#"1:24: unknown key "ö" in stage "ä""#);
    }

    #[test]
    fn a_missing_key_is_named() {
        check("", r#"1:1: the file has no "stage""#);
        check("[[stage]]\ncommand = 'x'", r#"1:1: stage 1 has no "name""#);
        check("\n[[stage]]\nname = 'a'", r#"2:1: stage "a" has no "command""#);
        check("stage = []", r#"1:9: "stage" in the file: a pipeline has 1 to 64 stages, not 0"#);
    }

    #[test]
    fn a_wrong_type_is_named() {
        let check_key = |key: &str, error: &str| {
            check_stage(&format!("command = 'x'\n{key}"), &format!("4:{error}"));
        };
        check_key("slots = \"4\"", r#"9: "slots" in stage "parse" is a whole number, not a text"#);
        check_key(
            "workers = 1.5",
            r#"11: "workers" in stage "parse" is a whole number, not a number with a fraction"#,
        );
        check_key("stdin = 1", r#"9: "stdin" in stage "parse" is true or false, not a number"#);
        check_key(
            "timeout = true",
            r#"11: "timeout" in stage "parse" is a duration, as in "30s", or a percentage, as in "300%", not true or false"#,
        );
        check_key("env = 'A=b'", r#"7: "env" in stage "parse" is a table, not a text"#);
        check_key("env = { A = 1 }", r#"13: "A" in stage "parse" is a text, not a number"#);
        check_stage(
            "command = 1",
            r#"3:11: "command" in stage "parse" is a text or a list of texts, not a number"#,
        );
        check_stage(
            "command = ['a', 1]",
            r#"3:17: "command" in stage "parse" is a list of nothing but texts, not a number"#,
        );
        check("name = 1", r#"1:8: "name" in the file is a text, not a number"#);
        check(
            "[stage]\nname = 'a'",
            r#"1:1: "stage" in the file is a list of stages, each under a [[stage]], not a table"#,
        );
        check(
            "stage = ['a']",
            r#"1:10: "stage" in the file is a list of stages, each under a [[stage]], not a text"#,
        );
    }

    #[test]
    fn a_value_that_means_nothing_is_named() {
        let check_key = |key: &str, error: &str| {
            check_stage(&format!("command = 'x'\n{key}"), &format!("4:{error}"));
        };
        check_key("slots = 0", r#"9: "slots" in stage "parse": 0 is not between 1 and 4096"#);
        check_key("slots = -1", r#"9: "slots" in stage "parse": -1 is not between 1 and 4096"#);
        check_key(
            "workers = 99999999999999999999",
            r#"11: "workers" in stage "parse": 99999999999999999999 is not between 1 and 1024"#,
        );
        check_key(
            "timeout = 'soon'",
            r#"11: "timeout" in stage "parse": a duration is a number of seconds above 0, or like 300ms, 2m, 1h"#,
        );
        check_key(
            "timeout = '0%'",
            r#"11: "timeout" in stage "parse": a percentage is a number above 0, as in 300%"#,
        );
        check_key(
            "max_output = '1TiB'",
            r#"14: "max_output" in stage "parse": unknown unit "TiB"; sizes are like 4096, 64KiB, 16MiB, 1GiB"#,
        );
        check_key(
            "max_output = '64MiB'",
            r#"14: "max_output" in stage "parse": 67108864 bytes do not fit into a message: at most 67043328 do"#,
        );
        check_key(
            "pipe = 'jsno'",
            r#"8: "pipe" in stage "parse": "jsno" is not one of "lines", "json", "frames"; did you mean "json"?"#,
        );
        check_stage(
            "command = 'x'\npipe = 'lines'\nstdin = true",
            r#"5:9: "stdin" and "pipe" exclude each other, and stage "parse" has both"#,
        );
        check_key(
            "echo = true",
            r#"8: "command" and "echo" exclude each other, and stage "parse" has both"#,
        );
        check_key(
            "env = { TRADEWIND_SLOTS = '1' }",
            r#"7: "env" in stage "parse": TRADEWIND_SLOTS is set by tradewind itself"#,
        );
        check_stage(
            "command = \"echo 'a\"",
            r#"3:11: "command" in stage "parse": a quote is not closed, or the last backslash quotes nothing"#,
        );
        check_stage(
            "command = []",
            r#"3:11: "command" in stage "parse": there is no command in it"#,
        );
        check_stage(
            "command = ['']",
            r#"3:11: "command" in stage "parse": its first word is empty"#,
        );
        let long = "n".repeat(101);
        check(
            format!("[[stage]]\nname = '{long}'"),
            r#"2:8: "name" in stage 1: a name has 1 to 100 bytes"#,
        );
        check(
            "[[stage]]\nname = \"a\\tb\"",
            r#"2:8: "name" in stage 1: a name holds no hidden characters (control, direction, zero width)"#,
        );
        check(
            "[[stage]]\nname = 'a'\necho = true\n[[stage]]\nname = 'a'\necho = true",
            r#"5:8: there are two stages named "a"; the other is in line 2"#,
        );
    }

    #[test]
    fn what_is_not_toml_is_pointed_at() {
        let check_at = |text: &[u8], line: usize, column: usize| {
            let error = Pipeline::parse(text).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        };
        check_at(b"name = \"a\nb\"", 1, 10);
        check_at(b"name = 'a'\nname = 'b'", 2, 1);
        check_at(b"[[stage]]\nname 'a'", 2, 6);
        check_at(b"name = 'a'\n# \xff\n", 2, 3);
    }
}
