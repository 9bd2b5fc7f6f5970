//! The ventilator's flags.

use std::io::IsTerminal;
use std::num::NonZeroU32;
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use tradewind_engine_jobs::EngineSource;
use tradewind_engines::{Engine, EngineError, EngineUrl, EngineUrlError};
use tradewind_face::HttpArgs;
use tradewind_lanes::Endpoint;
use tradewind_node::args::{
    AttemptArgs, EndArgs, GateArgs, KeyArgs, LaneArgs, LivenessArgs, LogArgs,
};
use tradewind_node::exit::{Audience, CONNECT, Fatal, HELP, INPUT, OrExit, USAGE, say};
use tradewind_node::keys::{KeyRole, sink_at};
use tradewind_node::{Inherited, allow_many_files, block_on, exit, logs, parent};
use tradewind_text::Colsep;
use tradewind_text::{duration_or_zero, name, payload_bytes_max};

use tradewind_proto::dispatcher::{Halt, HaltError};
use tradewind_proto::message::{Layout, Start};

use crate::run::{Settings, run_seen};
use tradewind_input::{Asked, Delimiter, Format, InputPath, Measured, Source, open};

const EXAMPLES: &str = "\
Examples:
  ventilator --input names.txt --sink tcp://sink-host:5558
  ventilator --input-format csv --input people.csv --sink tcp://sink-host:5558
  find . -type f -print0 | ventilator -0 --sink tcp://127.0.0.1:5558 --retries 2 --timeout 30s
  ventilator --input nats://nats-host:4222/ORDERS --sink tcp://sink-host:5558";

/// Hand out tasks, one a line of the input, to workers
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{HELP}"))]
pub struct VentilatorArgs {
    /// Input with the tasks: a file, or - for standard input, or the URL of an engine, as nats://HOST:4222/STREAM
    #[arg(long, env = "TRADEWIND_INPUT", value_name = "FILE", default_value = "-")]
    pub input: InputPath,

    /// Name in error messages of an input that the parent process has opened
    #[arg(long, value_name = "FILE", hide = true)]
    pub input_name: Option<InputPath>,

    /// Tasks end with a NUL, not with a newline
    #[arg(long, short = '0', env = "TRADEWIND_NULL", value_parser = BoolishValueParser::new())]
    pub null: bool,

    /// Listen for workers here: tcp://HOST:PORT, or ipc:///PATH for a Unix socket
    #[arg(long, env = "TRADEWIND_TASKS", value_name = "ENDPOINT", default_value = "tcp://*:5557")]
    pub tasks: Endpoint,

    /// Listen for the sink's receipts here, likewise
    #[arg(
        long,
        env = "TRADEWIND_RECEIPTS",
        value_name = "ENDPOINT",
        default_value = "tcp://*:5559"
    )]
    pub receipts: Endpoint,

    /// Where the sink listens [default: the token's, or tcp://127.0.0.1:5558]
    #[arg(long, env = "TRADEWIND_SINK", value_name = "ENDPOINT")]
    pub sink: Option<Endpoint>,

    /// Name of the job in log messages
    #[arg(
        long,
        env = "TRADEWIND_JOB",
        value_name = "NAME",
        value_parser = name,
        default_value = "job"
    )]
    pub job: String,

    /// Name of the stage whose workers run the tasks; part of their records
    #[arg(long, env = "TRADEWIND_STAGE", value_name = "NAME", value_parser = name)]
    pub stage: Option<String>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub resume: ResumeArgs,

    /// How long to wait for workers that may still hold tasks, if the sink is new too
    #[arg(
        long,
        env = "TRADEWIND_RESUME_WAIT",
        value_name = "DURATION",
        value_parser = duration_or_zero,
        default_value = "10s"
    )]
    pub resume_wait: Duration,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub format: FormatArgs,

    /// Column separator: a character for csv, a regular expression for lines with --header. Other
    /// lines are split by the workers
    #[arg(long, short = 'C', env = "TRADEWIND_COLSEP", value_name = "REGEXP")]
    pub colsep: Option<Colsep>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub policy: PolicyArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub http: HttpArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub keys: KeyArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub lanes: LaneArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub gate: GateArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub end: EndArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub liveness: LivenessArgs,

    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub logs: LogArgs,
}

/// Flags for the format of the input.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Input format")]
pub struct FormatArgs {
    /// How to read the input
    #[arg(
        long,
        env = "TRADEWIND_INPUT_FORMAT",
        value_name = "FORMAT",
        value_enum,
        default_value_t = InputFormat::Lines
    )]
    pub input_format: InputFormat,

    /// The first line of the input has the names of the columns; for csv this is the default
    #[arg(
        long,
        env = "TRADEWIND_HEADER",
        value_name = ":",
        num_args = 0..=1,
        default_missing_value = ":",
        conflicts_with = "no_header"
    )]
    pub header: Option<Header>,

    /// The first row of csv is a task like the others, and each task is an array
    #[arg(long, env = "TRADEWIND_NO_HEADER", value_parser = BoolishValueParser::new())]
    pub no_header: bool,

    /// Make one task of N lines
    #[arg(
        long,
        short = 'n',
        visible_short_alias = 'N',
        env = "TRADEWIND_MAX_ARGS",
        value_name = "N"
    )]
    pub max_args: Option<NonZeroU32>,

    /// Make one task of as many lines as fit into a command line (120 KiB); with -n of at most N
    #[arg(
        long,
        short = 'X',
        visible_short_alias = 'm',
        env = "TRADEWIND_XARGS",
        value_parser = BoolishValueParser::new()
    )]
    pub xargs: bool,

    /// Fields that commands use and the header must have
    #[arg(long, hide = true, value_name = "JSON")]
    pub asked_fields: Option<AskedFields>,
}

/// Fields that commands ask for, as `tradewind run` passes them on: as a JSON array of arrays of the
/// names that a field may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskedFields(Asked, String);

impl AskedFields {
    /// These.
    #[must_use]
    pub fn new(fields: Vec<Vec<String>>) -> Self {
        let text = serde_json::to_string(&fields).expect("lists of text are JSON");
        Self(Asked::new(Some(fields)), text)
    }
}

impl std::str::FromStr for AskedFields {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text).map(Self::new)
    }
}

/// Largest size in bytes of one command's arguments with --xargs. A quarter of the smallest stack and
/// 128 KiB, which a single argument may have, are more: there is room for the rest of the command.
const ARGUMENTS_BYTES_MAX: NonZeroU32 = NonZeroU32::new(120 << 10).expect("it is not 0");

/// How to read the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum InputFormat {
    /// Each line is a task.
    #[default]
    Lines,
    /// Each line is JSON: an object, or an array.
    Jsonl,
    /// Rows of CSV (RFC 4180), with a header.
    Csv,
}

/// The names are in the first line. GNU parallel writes a colon for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header;

impl std::str::FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            ":" => Ok(Self),
            _ => Err("a header is the first line, which is written as a colon"),
        }
    }
}

impl InputFormat {
    /// As it is written on a command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

impl FormatArgs {
    /// Returns the settings that the flags give, together with `--null` and `--colsep`.
    ///
    /// # Errors
    /// When they contradict one another.
    pub fn format(&self, null: bool, colsep: Option<&Colsep>) -> Result<Format, Fatal> {
        let Self { input_format, header, no_header, max_args: _, asked_fields, xargs } = self;
        let group = self.group();
        let asked = asked_fields.clone().map_or_else(Asked::default, |fields| fields.0);
        let delimiter = if null { Delimiter::Nul } else { Delimiter::Newline };
        let name = input_format.as_str();
        let refuse = |text: String| Err(Fatal::new(USAGE, text));
        let group_flag = if *xargs { "-X (--xargs)" } else { "-n (--max-args)" };
        if *input_format != InputFormat::Lines && (null || group.is_some()) {
            let flag = if null { "-0 (--null)" } else { group_flag };
            return refuse(format!("{flag} is for lines, and the input is {name}"));
        }
        if *input_format != InputFormat::Csv && *no_header {
            return refuse(format!("--no-header is for csv: {name} have none by themselves"));
        }
        Ok(match input_format {
            InputFormat::Jsonl if header.is_some() || colsep.is_some() => {
                let flag = if header.is_some() { "--header" } else { "--colsep" };
                return refuse(format!("{flag} makes no sense for jsonl, whose fields have names"));
            }
            InputFormat::Jsonl => Format::Jsonl,
            InputFormat::Csv => {
                let separator = colsep.map_or(Some(b','), Colsep::byte);
                let Some(separator) = separator.filter(|byte| !b"\"\r\n".contains(byte)) else {
                    let text = "--colsep of csv is a single character, as in --colsep ';' or '\\t'";
                    return refuse(text.to_owned());
                };
                Format::Csv { separator, has_header: !no_header, asked }
            }
            InputFormat::Lines => match (header, group) {
                (Some(_), Some(_)) => {
                    return refuse(format!("{group_flag} makes tasks of lines without --header"));
                }
                (None, Some(_)) if colsep.is_some() => {
                    return refuse(format!("{group_flag} makes tasks of lines without --colsep"));
                }
                (Some(_), None) => Format::Columns { delimiter, colsep: colsep.cloned(), asked },
                (None, Some((lines, bytes))) => Format::Groups { delimiter, lines, bytes },
                (None, None) => Format::Lines(delimiter),
            },
        })
    }

    /// Refuses flags that say what a task is where that is known: in an engine each is one. JSON they may be.
    ///
    /// # Errors
    /// When there are any.
    pub fn check_engine(&self, null: bool) -> Result<(), Fatal> {
        let given = [
            ("-0 (--null)", null),
            ("--header", self.header.is_some()),
            ("--no-header", self.no_header),
            ("-n (--max-args)", self.max_args.is_some()),
            ("-X (--xargs)", self.xargs),
            ("--input-format csv", self.input_format == InputFormat::Csv),
        ];
        let given = given.iter().find(|(_, is_given)| *is_given);
        given.map_or(Ok(()), |(flag, _)| {
            let text = format!("{flag} makes tasks of lines, and in an engine each task is one");
            Err(Fatal::new(USAGE, text))
        })
    }

    /// Several lines make a task: how many at most, and how much of a command line.
    #[must_use]
    pub fn group(&self) -> Option<(NonZeroU32, Option<NonZeroU32>)> {
        match (self.max_args, self.xargs) {
            (None, false) => None,
            (Some(lines), false) => Some((lines, None)),
            (lines, true) => Some((lines.unwrap_or(NonZeroU32::MAX), Some(ARGUMENTS_BYTES_MAX))),
        }
    }

    /// The flags again, for another process.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        let Self { input_format, header, no_header, max_args, asked_fields, xargs } = self;
        let mut args = vec!["--input-format".to_owned(), input_format.as_str().to_owned()];
        args.extend(header.map(|_| "--header=:".to_owned()));
        args.extend(no_header.then(|| "--no-header".to_owned()));
        args.extend(max_args.map(|lines| format!("--max-args={lines}")));
        args.extend(asked_fields.iter().map(|fields| format!("--asked-fields={}", fields.1)));
        args.extend(xargs.then(|| "--xargs".to_owned()));
        args
    }
}

/// Whether a job goes on.
#[derive(Args, Clone, Debug)]
pub struct ResumeArgs {
    /// Resume the job whose records the output has, with the same input; start a new one if there is none
    #[arg(long, env = "TRADEWIND_RESUME", value_parser = BoolishValueParser::new())]
    pub resume: bool,

    /// With --resume: run tasks again whose records are not ok
    #[arg(
        long,
        env = "TRADEWIND_RETRY_FAILED",
        requires = "resume",
        value_parser = BoolishValueParser::new()
    )]
    pub retry_failed: bool,
}

impl ResumeArgs {
    fn start(&self) -> Start {
        match (self.resume, self.retry_failed) {
            (false, _) => Start::New,
            (true, false) => Start::Resume,
            (true, true) => Start::RetryFailed,
        }
    }
}

/// Limits of a job's tasks.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Retries and timeouts")]
pub struct PolicyArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub attempts: AttemptArgs,

    /// End the job early, as GNU parallel does: now|soon,fail|success|done=N|N%; or never (0), 1
    /// (soon,fail=1), 2 (now,fail=1)
    #[arg(long, env = "TRADEWIND_HALT", value_name = "WHEN,WHY", default_value = "never")]
    pub halt: HaltArg,
}

/// When to end the job early, if ever.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HaltArg(pub Option<Halt>);

/// The text is neither a halt nor one of its short forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; or never (0), 1 (soon,fail=1), 2 (now,fail=1)")]
pub struct HaltArgError(#[from] HaltError);

impl std::str::FromStr for HaltArg {
    type Err = HaltArgError;

    fn from_str(text: &str) -> Result<Self, HaltArgError> {
        match text {
            "never" | "0" => Ok(Self(None)),
            text => Ok(Self(Some(text.parse()?))),
        }
    }
}

impl std::fmt::Display for HaltArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => f.write_str("never"),
            Some(halt) => halt.fmt(f),
        }
    }
}

impl VentilatorArgs {
    /// Opens the input. Is not to be called by a task: an engine is waited for.
    ///
    /// # Errors
    /// When it cannot be read, or when the flags that say how contradict one another.
    pub fn source(&self) -> Result<(Box<dyn Source + Send>, Option<Measured>), Fatal> {
        let task_bytes_max = payload_bytes_max(self.lanes.message_max);
        let task_bytes_max = usize::try_from(task_bytes_max).unwrap_or(usize::MAX);
        if let Some(url) = input_engine(&self.input)? {
            self.format.check_engine(self.null)?;
            let source = open_source(&url, task_bytes_max)?;
            return Ok((Box::new(source), None));
        }
        let format = self.format.format(self.null, self.colsep.as_ref())?;
        let mut input = open(&self.input).or_exit(INPUT)?;
        if let Some(name) = &self.input_name {
            input.path = name.clone();
        }
        let is_typed = self.input == InputPath::Stdin && std::io::stdin().is_terminal();
        if is_typed && !self.logs.quiet && !parent::speaks_for_us() {
            say("reading tasks from the terminal, one a line; Ctrl-D ends them");
        }
        let (input, measured) = Measured::new(input);
        Ok((Box::new(input.tasks(&format, task_bytes_max)), measured))
    }

    /// Returns the settings that the other flags give.
    ///
    /// # Errors
    /// When keys cannot be used, or are lacking.
    pub fn settings(self, mut inherited: Inherited) -> Result<Settings, Fatal> {
        let layout = self.layout();
        let tasks = inherited.or_endpoint(0, self.tasks);
        let receipts = inherited.or_endpoint(1, self.receipts);
        let (listens, dials) = ([&tasks, &receipts], [self.sink.as_ref()]);
        let keys = self.keys.wanted().open(KeyRole::Ventilator, listens, dials)?;
        let sink = sink_at(self.sink, &keys, "tcp://127.0.0.1:5558")?;
        Ok(Settings {
            task_bytes_max: payload_bytes_max(self.lanes.message_max),
            tasks,
            receipts,
            sink,
            keys,
            job: self.job,
            stage: self.stage.unwrap_or_default(),
            start: self.resume.start(),
            layout,
            policy: self.policy.attempts.policy(
                &self.liveness,
                self.resume_wait,
                self.policy.halt.0,
            ),
            lanes: self.gate.options(self.lanes.options()),
            connect_timeout: self.lanes.connect_timeout,
            progress: !self.logs.no_progress && !self.logs.quiet,
            measured: None,
            audience: Audience::User,
            queue: None,
            asks: None,
        })
    }

    /// Returns the layout of tasks that workers have to know.
    fn layout(&self) -> Layout {
        let FormatArgs { input_format, header, .. } = &self.format;
        if *input_format != InputFormat::Lines || header.is_some() {
            return Layout::Json;
        }
        let is_engine = self.input.as_os_str().to_str().is_some_and(EngineUrl::is_one);
        match (self.format.group(), &self.colsep) {
            // A task may be any bytes.
            (None, None) if is_engine => Layout::Whole,
            (Some(_), _) => Layout::Group(if self.null { 0 } else { b'\n' }),
            (None, Some(colsep)) => Layout::Columns(colsep.to_string()),
            (None, None) if self.null => Layout::Whole,
            (None, None) => Layout::Line,
        }
    }

    /// Runs the program: everything between the flags and the exit code.
    ///
    /// # Errors
    /// When the job cannot be run.
    pub fn main(self) -> exit::Outcome {
        logs::init(&self.logs, "info")?;
        allow_many_files();
        let end = self.end;
        let (source, measured) = self.source()?;
        end.apply(block_on(|shutdown| async move {
            let (http, wanted) = (self.http.clone(), self.keys.wanted());
            let mut settings = Settings { measured, ..self.settings(Inherited::from_env())? };
            let shown = http.show(&wanted, &settings.keys, || settings.about("ventilator"))?;
            let (shown, asks) = shown.unzip();
            settings.asks = asks;
            let ran = run_seen(settings, source, shutdown).await;
            if let Some((shown, look)) = shown.zip(ran.look) {
                shown.end(look);
            }
            Ok(ran.result?.code)
        }))
    }
}

/// Returns where the input is if that is in an engine.
///
/// # Errors
/// When it is, and the URL is not as the engine's are.
pub fn input_engine(input: &InputPath) -> Result<Option<EngineUrl>, Fatal> {
    let text = input.as_os_str().to_str().filter(|text| EngineUrl::is_one(text));
    let url = text.map(str::parse).transpose();
    url.map_err(|error: EngineUrlError| Fatal::new(USAGE, format!("--input: {error}")))
}

/// Connects to the engine of the input.
///
/// # Errors
/// When it cannot be reached, or refuses the credentials.
pub fn connect_input(url: &EngineUrl) -> Result<Box<dyn Engine>, Fatal> {
    url.connect().map_err(|error| failed(url, &error))
}

fn failed(url: &EngineUrl, error: &EngineError) -> Fatal {
    let code = if error.is_passing() { CONNECT } else { INPUT };
    Fatal::new(code, format!("cannot open input {url}: {error}"))
}

fn open_source(url: &EngineUrl, task_bytes_max: usize) -> Result<EngineSource, Fatal> {
    let engine = connect_input(url)?;
    for note in engine.notes() {
        tracing::info!("input {url}: {note}");
    }
    let (partitions, name) = (url.partitions(), format!("input {url}"));
    let source = EngineSource::open(&*engine, name, partitions, url.ends(), task_bytes_max);
    let source = source.map_err(|error| failed(url, &error))?;
    let ends: Vec<_> = source.ends().map(|end| end.to_string()).collect();
    tracing::info!(
        "input {url}: reading the tasks that are there; end={} means these",
        ends.join(",")
    );
    Ok(source)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: VentilatorArgs,
    }

    /// Returns the format that the flags give, and checks that they give it again when forwarded.
    fn format(flags: &str) -> Result<Format, String> {
        let parse = |flags: Vec<String>| {
            let cli = Cli::try_parse_from(["ventilator".to_owned()].into_iter().chain(flags));
            cli.map(|cli| cli.args).map_err(|error| error.to_string())
        };
        let args = parse(flags.split(' ').map(str::to_owned).collect())?;
        let meaning = |args: &VentilatorArgs| {
            let format = args.format.format(args.null, args.colsep.as_ref());
            format.map_err(|fatal| fatal.error.to_string())
        };
        let mut again = args.format.to_args();
        again.extend(args.null.then(|| "--null".to_owned()));
        again.extend(args.colsep.iter().map(|colsep| format!("--colsep={colsep}")));
        let again = parse(again).unwrap();
        let (found, again) = (meaning(&args), meaning(&again));
        assert_eq!(found, again, "{flags}");
        found
    }

    #[test]
    fn flags_say_what_a_task_is() {
        let (newline, nul) = (Delimiter::Newline, Delimiter::Nul);
        let check = |flags: &str, wanted: Format| assert_eq!(format(flags), Ok(wanted), "{flags}");
        let colsep = |text: &str| Some(text.parse().unwrap());
        let lines = |count| NonZeroU32::new(count).unwrap();
        check("--input-format lines", Format::Lines(newline));
        check("--null", Format::Lines(nul));
        // Its columns are the workers'.
        check("--colsep ,", Format::Lines(newline));
        check("-n 2", Format::Groups { delimiter: newline, lines: lines(2), bytes: None });
        check("-0 -N 3", Format::Groups { delimiter: nul, lines: lines(3), bytes: None });
        check("--max-args=1", Format::Groups { delimiter: newline, lines: lines(1), bytes: None });
        let bytes = Some(ARGUMENTS_BYTES_MAX);
        let most = NonZeroU32::MAX;
        check("-X", Format::Groups { delimiter: newline, lines: most, bytes });
        check("-0 --xargs -n 5", Format::Groups { delimiter: nul, lines: lines(5), bytes });
        check(
            "--header",
            Format::Columns { delimiter: newline, colsep: None, asked: Asked::default() },
        );
        check(
            "--header : -C ,",
            Format::Columns { delimiter: newline, colsep: colsep(","), asked: Asked::default() },
        );
        check(
            "-0 --header --colsep ::",
            Format::Columns { delimiter: nul, colsep: colsep("::"), asked: Asked::default() },
        );
        check("--input-format jsonl", Format::Jsonl);
        let asked = Asked::default();
        let csv =
            |separator, has_header| Format::Csv { separator, has_header, asked: asked.clone() };
        check("--input-format csv", csv(b',', true));
        check("--input-format csv --header :", csv(b',', true));
        check("--input-format csv --no-header", csv(b',', false));
        check("--input-format csv --colsep ;", csv(b';', true));
        check(r"--input-format csv --colsep \t", csv(b'\t', true));
        check(r"--input-format csv --colsep \|", csv(b'|', true));
    }

    #[test]
    fn flags_that_contradict_one_another_are_refused() {
        let check = |flags: &str, wanted: &str| {
            let error = format(flags).unwrap_err();
            assert!(error.contains(wanted), "{flags}: {error}");
        };
        check("--input-format csv -0", "-0 (--null) is for lines, and the input is csv");
        check("--input-format jsonl -n 2", "-n (--max-args) is for lines, and the input is jsonl");
        check("--input-format jsonl --header", "--header makes no sense for jsonl");
        check("--input-format jsonl --colsep ,", "--colsep makes no sense for jsonl");
        check("--input-format csv --colsep ::", "a single character");
        check("--input-format csv --colsep \"", "a single character");
        check("--no-header", "--no-header is for csv");
        check("--header -n 2", "without --header");
        check("--colsep , -n 2", "without --colsep");
        check("--colsep , -X", "-X (--xargs) makes tasks of lines without --colsep");
        check("--input-format csv -m", "-X (--xargs) is for lines, and the input is csv");
        check("--header --no-header", "cannot be used with");
        check("--header=first", "written as a colon");
        check("-n 0", "zero");
    }

    #[test]
    fn workers_are_told_what_tasks_are_made_of() {
        let check = |flags: &str, layout: &Layout| {
            let words = ["ventilator"].into_iter().chain(flags.split_whitespace());
            assert_eq!(Cli::try_parse_from(words).unwrap().args.layout(), *layout, "{flags}");
        };
        check("", &Layout::Line);
        check("-0", &Layout::Whole);
        check("--input-format jsonl", &Layout::Json);
        check("--input-format csv --no-header", &Layout::Json);
        check("--header --colsep ,", &Layout::Json);
        check("-n 3", &Layout::Group(b'\n'));
        check("-0 -n 3", &Layout::Group(0));
        check("--colsep ,", &Layout::Columns(",".to_owned()));
    }
}
