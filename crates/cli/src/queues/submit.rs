//! `tradewind submit`.

use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::stream::{self, StreamExt};
use tokio::sync::mpsc;
use tradewind_client::{Batch, Client, Error, NewTask, ProblemKind, QueueName, TaskId};
use tradewind_input::{Asked, Delimiter, Format, InputPath, Item, Source, open};
use tradewind_node::exit::{Fatal, INPUT, OK, OrExit, Outcome, SYSTEM, USAGE};
use tradewind_text::duration;

use super::HELP;
use super::read::code_of;
use super::server::{Out, ServerArgs, fatal};

/// Submit tasks to a queue: prints one id a line, and returns when the tasks are on the server's disk
///
/// The tasks are the arguments, the lines of --input, or without both those of standard input. A queue that
/// is not there is made.
#[derive(Args, Clone, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{KEYS}\n\n{HELP}"))]
pub(crate) struct SubmitArgs {
    /// Name of the queue
    queue: QueueName,

    /// Tasks; - is standard input
    #[arg(value_name = "TASK", conflicts_with = "input")]
    tasks: Vec<OsString>,

    /// Input with the tasks: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    input: Option<InputPath>,

    /// How to read the input: a task is a line, a JSON object or array on a line, or a row of CSV as a JSON
    /// object
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = InputFormat::Lines)]
    input_format: InputFormat,

    /// Tasks of the input end with a NUL, not with a newline
    #[arg(long, short = '0')]
    null: bool,

    /// Key of the task: submitted again under the same key, it is the same task, with the same id
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Keys of the tasks: this text, a colon, and the number of the task from 1
    #[arg(long, value_name = "TEXT", conflicts_with = "key")]
    key_prefix: Option<String>,

    /// Give the tasks of --input no keys: run again, the command submits them again
    #[arg(long, conflicts_with_all = ["key", "key_prefix"])]
    no_keys: bool,

    /// Retry a failed task up to N times, instead of as often as the queue says
    #[arg(long, value_name = "N")]
    retries: Option<u32>,

    /// Stop an attempt that runs longer, instead of after the queue's time
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,

    /// When all are submitted, wait for their records and print these instead of the ids, in the order of the
    /// tasks
    #[arg(long)]
    wait: bool,

    #[command(flatten)]
    server: ServerArgs,
}

const EXAMPLES: &str = "\
Examples:
  tradewind submit thumbs https://example.net/1.jpg
  tradewind submit reports --key report-2026-11-25 'last day' --wait
  tradewind submit thumbs --input urls.txt --retries 3 > ids.txt
  find . -name '*.jpg' -print0 | tradewind submit thumbs -0";

const KEYS: &str = "\
Keys:
  Each task of --input FILE has a key: the file's name, a hash of its path, and the number of the task. So the
  command can be run again after it was interrupted, and submits what is missing. A file whose tasks were
  changed meanwhile is refused; one that has become longer is not. Hosts whose files have one path, and files
  that are written anew each day, want a --key-prefix of their own.";

/// How to read the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InputFormat {
    Lines,
    Jsonl,
    Csv,
}

/// Number of tasks of a request, and its bytes after which it gets no further one.
const BATCH_TASKS_MAX: usize = 5000;
const BATCH_BYTES: usize = 1 << 20;

/// Bytes of the longest task that is read. The server has a limit of its own.
const TASK_BYTES_MAX: usize = 64 << 20;

/// Number of requests that are made ready ahead.
const BATCHES_AHEAD: usize = 2;

/// Number of records that are asked for at a time.
const RESULTS_AT_ONCE: usize = 16;

/// Characters of a file's name in its tasks' keys.
const KEY_NAME_CHARS_MAX: usize = 80;

/// Keys of the tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Keys {
    None,
    One(String),
    /// With the number of the task, from 1.
    Prefix(String),
}

impl Keys {
    fn key(&self, number: usize) -> Option<String> {
        match self {
            Self::None => None,
            Self::One(key) => Some(key.clone()),
            Self::Prefix(prefix) => Some(format!("{prefix}:{number}")),
        }
    }

    /// Returns the number of the task with this key.
    fn number(&self, key: &str) -> Option<usize> {
        match self {
            Self::Prefix(prefix) => key.strip_prefix(prefix)?.strip_prefix(':')?.parse().ok(),
            Self::None | Self::One(_) => None,
        }
    }
}

/// Tasks of one request.
struct Portion {
    /// Number of the first, from 1.
    first: usize,
    batch: Batch,
}

/// Makes tasks of payloads, and requests of tasks.
struct Maker {
    keys: Keys,
    retries: Option<u32>,
    timeout: Option<Duration>,
    /// Number of the next task, from 1.
    next: usize,
    batch: Batch,
}

impl Maker {
    /// Adds a task. Returns the request if that is full.
    fn add(&mut self, payload: Vec<u8>) -> Result<Option<Portion>, Fatal> {
        let mut task = NewTask::new(payload);
        if let Some(key) = self.keys.key(self.next) {
            task = task.key(key).or_exit(USAGE)?;
        }
        if let Some(retries) = self.retries {
            task = task.retries(retries);
        }
        if let Some(timeout) = self.timeout {
            task = task.timeout(timeout);
        }
        self.batch.push(&task);
        self.next += 1;
        let is_full = self.batch.len() == BATCH_TASKS_MAX || self.batch.bytes() >= BATCH_BYTES;
        Ok(if is_full { self.take() } else { None })
    }

    /// Returns the request, if it has a task.
    fn take(&mut self) -> Option<Portion> {
        let batch = std::mem::take(&mut self.batch);
        (!batch.is_empty()).then(|| Portion { first: self.next - batch.len(), batch })
    }
}

/// Where the tasks come from.
enum From {
    Words(Vec<OsString>),
    Input(InputPath),
}

impl SubmitArgs {
    /// Does what was asked for.
    pub(crate) fn main(self) -> Outcome {
        let from = self.from()?;
        let keys = self.key_names(&from)?;
        let name = match &from {
            From::Words(_) => String::new(),
            From::Input(path) => format!("{path}, "),
        };
        let maker = Maker {
            keys: keys.clone(),
            retries: self.retries,
            timeout: self.timeout,
            next: 1,
            batch: Batch::new(),
        };
        let portions = self.portions(from, maker)?;
        let Self { queue, wait, server, .. } = self;
        let is_json = server.json;
        server.run(|client| async move {
            let submission = Submission { client, queue, keys, name, is_json, wait };
            submission.run(portions).await
        })
    }

    fn from(&self) -> Result<From, Fatal> {
        match (&self.input, &self.tasks[..]) {
            (Some(path), _) => Ok(From::Input(path.clone())),
            (None, [word]) if word == "-" => Ok(From::Input(InputPath::Stdin)),
            (None, []) if std::io::stdin().is_terminal() => Err(Fatal::new(
                USAGE,
                "no task: give TASK..., --input FILE, or - for what is typed here",
            )),
            (None, []) => Ok(From::Input(InputPath::Stdin)),
            (None, _) if self.null || self.input_format != InputFormat::Lines => {
                let text = "--null and --input-format are for an input, not for tasks as arguments";
                Err(Fatal::new(USAGE, text))
            }
            (None, words) => Ok(From::Words(words.to_vec())),
        }
    }

    fn key_names(&self, from: &From) -> Result<Keys, Fatal> {
        if let Some(prefix) = &self.key_prefix {
            return Ok(Keys::Prefix(prefix.clone()));
        }
        match (from, &self.key) {
            (From::Words(words), Some(key)) if words.len() == 1 => Ok(Keys::One(key.clone())),
            (_, Some(_)) => {
                let text = "--key is for one TASK: several have --key-prefix";
                Err(Fatal::new(USAGE, text))
            }
            (From::Input(InputPath::File(path)), None) if !self.no_keys => {
                Ok(prefix_of(path).map_or(Keys::None, Keys::Prefix))
            }
            _ => Ok(Keys::None),
        }
    }

    /// Begins to read the tasks, on a thread of its own.
    fn portions(
        &self,
        from: From,
        mut maker: Maker,
    ) -> Result<mpsc::Receiver<Result<Portion, Fatal>>, Fatal> {
        let format = match (self.input_format, self.null) {
            (InputFormat::Lines, false) => Format::Lines(Delimiter::Newline),
            (InputFormat::Lines, true) => Format::Lines(Delimiter::Nul),
            (_, true) => return Err(Fatal::new(USAGE, "-0 (--null) is for lines")),
            (InputFormat::Jsonl, _) => Format::Jsonl,
            (InputFormat::Csv, _) => {
                Format::Csv { separator: b',', has_header: true, asked: Asked::default() }
            }
        };
        // What is wrong with the input is said before the server is asked.
        let input = match &from {
            From::Words(_) => None,
            From::Input(path) => Some(open(path).or_exit(INPUT)?),
        };
        let (portions, receiver) = mpsc::channel(BATCHES_AHEAD);
        let send = move |portion| match portions.blocking_send(portion) {
            Ok(()) => Ok(()),
            // The other end has failed, and said why.
            Err(_) => Err(Fatal::new(SYSTEM, "")),
        };
        let read = move || -> Result<(), Fatal> {
            let (From::Input(_), Some(input)) = (&from, input) else {
                let From::Words(words) = from else { return Ok(()) };
                for word in words {
                    if let Some(portion) = maker.add(word.into_vec())? {
                        send(Ok(portion))?;
                    }
                }
                return maker.take().map_or(Ok(()), |portion| send(Ok(portion)));
            };
            let name = input.path.clone();
            let mut source = input.tasks(&format, TASK_BYTES_MAX);
            let end = loop {
                let chunk = match source.read() {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error).or_exit(INPUT),
                };
                let mut bad = None;
                for item in chunk {
                    let why = match item {
                        Item::Task(payload) => {
                            if let Some(portion) = maker.add(payload.to_vec())? {
                                send(Ok(portion))?;
                            }
                            continue;
                        }
                        Item::TooLarge { bytes } => format!("it has {bytes} bytes"),
                        Item::Unfit { reason } => reason,
                    };
                    bad = Some(format!("{name}, task {}: {why}", maker.next));
                    break;
                }
                // More may be long in coming.
                if let Some(portion) = maker.take() {
                    send(Ok(portion))?;
                }
                if let Some(bad) = bad {
                    break Err(Fatal::new(INPUT, bad));
                }
            };
            end.or_else(|error| send(Err(error)))
        };
        let thread = std::thread::Builder::new().name("input".to_owned());
        thread.spawn(move || drop(read())).or_exit(SYSTEM)?;
        Ok(receiver)
    }
}

/// What is submitted, and where.
struct Submission {
    client: Client,
    queue: QueueName,
    keys: Keys,
    /// Name of the input, for errors.
    name: String,
    is_json: bool,
    wait: bool,
}

impl Submission {
    async fn run(self, mut portions: mpsc::Receiver<Result<Portion, Fatal>>) -> Outcome {
        let mut out = Out::new();
        let mut seqs = Vec::new();
        let mut count = 0;
        while let Some(portion) = portions.recv().await {
            let Portion { first, batch } = portion.map_err(|fatal| after(count, fatal))?;
            let tasks = batch.len();
            let submitted = self.client.submit_batch(self.queue.as_str(), batch).await;
            let submitted =
                submitted.map_err(|error| after(count, self.explain(error, first, tasks)))?;
            count += tasks;
            for submitted in submitted {
                if self.wait {
                    seqs.push(submitted.id.seq);
                } else if self.is_json {
                    let (id, key) = (submitted.id.to_string(), submitted.key);
                    out.line(serde_json::json!({"id": id, "key": key}).to_string())?;
                } else {
                    out.line(submitted.id.to_string())?;
                }
            }
            out.flush()?;
        }
        if self.wait { self.records(seqs, out).await } else { Ok(OK) }
    }

    /// Prints the records of tasks.
    async fn records(self, seqs: Vec<u64>, mut out: Out) -> Outcome {
        let Self { client, queue, .. } = &self;
        let records = stream::iter(seqs).map(|seq| async move {
            let id = TaskId { queue: queue.clone(), seq };
            client.result(&id, Duration::MAX).await
        });
        let mut records = records.buffered(RESULTS_AT_ONCE).ready_chunks(RESULTS_AT_ONCE);
        let mut code = OK;
        while let Some(chunk) = records.next().await {
            for record in chunk {
                if let Some(record) = record.map_err(fatal)? {
                    out.line(record.json())?;
                    code = code.max(code_of(&record));
                }
            }
            out.flush()?;
        }
        Ok(code)
    }

    /// Returns the error of a request with these tasks, and which of them it is about.
    fn explain(&self, error: Error, first: usize, tasks: usize) -> Fatal {
        let key = error.problem().filter(|problem| problem.kind == ProblemKind::OtherTask);
        let number = key.and_then(|problem| self.keys.number(problem.key.as_deref()?));
        let name = &self.name;
        if let Some(number) = number {
            let text = format!(
                "{name}task {number}: {error}: the input or the flags are not those that were submitted under \
                 these keys; --key-prefix submits all under others, and --no-keys under none"
            );
            return Fatal::new(INPUT, text);
        }
        let is_problem = error.problem().is_some_and(|problem| !problem.is_transient());
        let mut fatal = fatal(error);
        if is_problem && tasks > 1 {
            let last = first + tasks - 1;
            fatal.error = fatal.error.context(format!("{name}tasks {first} to {last}"));
        }
        fatal
    }
}

/// Returns an error with the number of tasks that were submitted before it.
fn after(count: usize, fatal: Fatal) -> Fatal {
    let Some(count) = NonZeroUsize::new(count) else { return fatal };
    let Fatal { code, error } = fatal;
    let s = if count.get() == 1 { " was" } else { "s were" };
    Fatal::new(code, format!("{error:#} ({count} task{s} submitted before)"))
}

/// Returns the beginning of the keys of a file's tasks: its name, and a hash of where it is. `None` for what
/// is no file, as a pipe: it has other tasks the next time.
fn prefix_of(path: &Path) -> Option<String> {
    let path = fs::canonicalize(path).ok()?;
    if !fs::metadata(&path).ok()?.is_file() {
        return None;
    }
    let name = path.file_name()?.to_string_lossy();
    let name: String = name.chars().take(KEY_NAME_CHARS_MAX).collect();
    Some(format!("{name}-{:016x}", fnv1a(path.as_os_str().as_bytes())))
}

/// Hash of 64 bits that is the same in all versions: FNV-1a (draft-eastlake-fnv).
fn fnv1a(bytes: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_number_of_their_task_and_give_it_back() {
        let keys = Keys::Prefix("a:b".to_owned());
        assert_eq!(keys.key(17).as_deref(), Some("a:b:17"));
        assert_eq!(keys.number("a:b:17"), Some(17));
        for other in ["a:b17", "a:b:", "a:17", "a:b:1:2"] {
            assert_eq!(keys.number(other), None, "{other}");
        }
    }

    #[test]
    fn a_files_keys_are_of_its_name_and_place() {
        // Of the document that describes the hash. Keys that were given must not change.
        assert_eq!((fnv1a(b""), fnv1a(b"foobar")), (0xcbf2_9ce4_8422_2325, 0x8594_4171_f739_67e8));
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            prefix_of(&path).unwrap()
        };
        let (first, second) = (file("a/urls.txt"), file("b/urls.txt"));
        assert!(first.starts_with("urls.txt-") && first != second, "{first} {second}");
        assert_eq!(prefix_of(&dir.path().join("b/../a/./urls.txt")), Some(first));
        assert!(file(&"ü".repeat(120)).len() < 400);
        assert_eq!(prefix_of(Path::new("/dev/null")), None);
        assert_eq!(prefix_of(dir.path()), None);
    }

    #[test]
    fn requests_have_a_bounded_number_of_tasks_and_bytes() {
        let maker =
            |keys| Maker { keys, retries: None, timeout: None, next: 1, batch: Batch::new() };
        let mut small = maker(Keys::None);
        let mut full = (0..BATCH_TASKS_MAX).filter_map(|_| small.add(vec![]).unwrap());
        assert_eq!(full.next().map(|it| (it.first, it.batch.len())), Some((1, BATCH_TASKS_MAX)));
        assert!(full.next().is_none());
        drop(full);
        assert!(small.add(vec![]).unwrap().is_none());
        let rest = small.take().unwrap();
        assert_eq!((rest.first, rest.batch.len()), (BATCH_TASKS_MAX + 1, 1));
        assert!(small.take().is_none());
        let mut large = maker(Keys::Prefix("k".to_owned()));
        assert_eq!(large.add(vec![b'x'; BATCH_BYTES]).unwrap().unwrap().batch.len(), 1);
        let error = maker(Keys::One("k".repeat(600))).add(vec![]).err().unwrap();
        assert_eq!(error.code, USAGE);
    }
}
