//! `tradewind run --pipeline`: the stages of a file, all on this machine.

mod file;
mod table;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use tradewind_handlers::{Input, Template, TermSeq, check_program};
use tradewind_node::exit::{self, CLOSED, COMMAND, Fatal, OK, USAGE};
use tradewind_node::{Shutdown, block_on};
use tradewind_system::cores;
use tradewind_text::default_name;
use tradewind_ventilator::args::AskedFields;
use tradewind_worker::args::asked_fields;

use self::file::{Feed, Pipeline, Stage, StageHandler};
use super::child::{Children, Part, Role, arg, flag, share_args};
use super::tasks::Tasks;
use super::{RunArgs, attempt_args, drive, listen};

/// Time that a restarted relay waits for workers, if the sink or relay after it is new as well.
/// They are on this machine, and dial at least every two seconds.
const RESUME_WAIT: &str = "4s";

/// Runs the stages of a file to the end of the job, or shows them.
pub(super) fn main(mut args: RunArgs, file: &Path) -> exit::Outcome {
    let pipeline = read(file)?;
    for stage in &pipeline.stages {
        check_command(file, stage, args.handler.unsafe_template)?;
    }
    if args.check {
        return show(&pipeline);
    }
    args.input = args.input.or(pipeline.input.as_deref().map(|path| OsString::from(path).into()));
    args.output.output =
        args.output.output.or(pipeline.output.as_deref().map(|path| OsString::from(path).into()));
    args.check_files(false)?;
    args.check_engines()?;
    let tasks = Tasks::open(None, &args.input(), args.logs.quiet)?;
    block_on(|shutdown| run(args, pipeline, tasks, shutdown))
}

async fn run(
    mut args: RunArgs,
    pipeline: Pipeline,
    tasks: Tasks,
    shutdown: Shutdown,
) -> exit::Outcome {
    let Some(first) = pipeline.stages.first() else {
        return Err(Fatal::new(USAGE, "a pipeline without stages"));
    };
    if let StageHandler::Command { words, feed: Feed::Argument | Feed::Stdin } = &first.handler {
        args.format.asked_fields = asked_fields(words).map(AskedFields::new);
    }
    args.policy.attempts = first.attempts.clone();
    args.handler.fields = args.handler.fields.or(args.fields(false));
    drive(start(&args, &pipeline, tasks)?, shutdown).await
}

fn read(file: &Path) -> Result<Pipeline, Fatal> {
    let bytes = std::fs::read(file).map_err(|error| {
        let text = format!("cannot read the pipeline file {}: {error}", file.display());
        Fatal::new(USAGE, text)
    })?;
    Pipeline::parse(&bytes)
        .map_err(|error| Fatal::new(USAGE, format!("{}:{error}", file.display())))
}

/// A command that does not exist is one clear line instead of a million failed tasks.
fn check_command(file: &Path, stage: &Stage, is_code_fine: bool) -> Result<(), Fatal> {
    let StageHandler::Command { words, feed } = &stage.handler else { return Ok(()) };
    let input = if *feed == Feed::Argument { Input::Argument } else { Input::Stdin };
    let at = |error: &dyn std::fmt::Display| {
        let (line, column) = stage.at;
        format!("{}:{line}:{column}: stage {:?}: {error}", file.display(), stage.name)
    };
    let template = Template::parse(words.iter().map(OsString::from), input)
        .map_err(|error| Fatal::new(USAGE, at(&error)))?;
    let template = if is_code_fine { template.with_code() } else { template };
    // Nothing is put into the words of a command that reads tasks from a pipe.
    if !matches!(feed, Feed::Pipe(_)) {
        template.check_code().map_err(|error| Fatal::new(USAGE, at(&error)))?;
    }
    check_program(&template).map_err(|error| Fatal::new(COMMAND, at(&error)))
}

/// A line for each stage.
fn show(pipeline: &Pipeline) -> exit::Outcome {
    let lines: String = pipeline.stages.iter().map(|stage| format!("{stage}\n")).collect();
    match std::io::stdout().write_all(lines.as_bytes()) {
        Ok(()) => Ok(OK),
        Err(_) => Err(Fatal::new(CLOSED, "")),
    }
}

/// Starts all parts. Between two stages stands a relay; all listeners are open before anybody
/// dials.
fn start(args: &RunArgs, pipeline: &Pipeline, input: Tasks) -> Result<Children, Fatal> {
    let Pipeline { name, stages, .. } = pipeline;
    // For each stage: where its workers get their tasks, where receipts for them come back, and
    // where their results go.
    let mut at = Vec::with_capacity(stages.len());
    let mut listeners = Vec::with_capacity(stages.len());
    let mut children = args.children()?;
    for stage in 1..=stages.len() {
        let at_stage = |name| listen(children.sockets(), &format!("{name}.{stage}"));
        let (tasks, tasks_at) = at_stage("tasks")?;
        let (receipts, receipts_at) = at_stage("receipts")?;
        let (results, results_at) = at_stage("results")?;
        at.push(Stations { tasks: tasks_at, receipts: receipts_at, results: results_at });
        listeners.push((tasks, receipts, results));
    }

    children.allow_for(stages.iter().map(|stage| stage.termseq.total()).max().unwrap_or_default());
    let input_args = input.args();
    let mut input = Some(input);
    let mut before = None;
    for (((tasks, receipts, results), here), stage) in listeners.into_iter().zip(&at).zip(stages) {
        let part = match before.replace((here, results)) {
            None => {
                let named = name.iter().flat_map(|name| arg("--job", name));
                let ventilator =
                    [here.ventilator_args(stage), input_args.clone(), args.ventilator_args()]
                        .concat();
                let ventilator = ventilator.into_iter().chain(named).collect();
                Part {
                    env: input.as_ref().map(Tasks::env).unwrap_or_default(),
                    stdin: input.take().map(Stdio::from),
                    ..Part::new(Role::Ventilator, ventilator, vec![tasks, receipts])
                }
            }
            Some((before, results)) => Part {
                stage: Some(stage.name.clone()),
                // All workers are new at first, and hold nothing.
                first_args: arg("--resume-wait", "0s"),
                later_args: arg("--resume-wait", RESUME_WAIT),
                ..Part::new(
                    Role::Relay,
                    here.relay_args(before, stage),
                    vec![results, tasks, receipts],
                )
            },
        };
        children.start_part(part)?;
    }
    if let Some((last, results)) = before {
        let sink = [last.sink_args(), args.sink_args()].concat();
        let env = args.sink_env()?;
        children.start_part(Part { env, ..Part::new(Role::Sink, sink, vec![results]) })?;
    }
    let host = default_name();
    let workers = stages.iter().map(|stage| stage.workers).sum();
    let share = share_args(workers, stages.len().saturating_sub(1));
    for (place, (here, stage)) in at.iter().zip(stages).enumerate() {
        for worker in 1..=stage.workers {
            let name = format!("{host}.{}.{worker}", place + 1);
            // Only the first stage sees the input as it was read.
            let takes_fields = place == 0 && stage.takes_fields();
            let fields = if takes_fields { args.field_args() } else { Vec::new() };
            // No two of a stage's slots have the same number.
            let first_slot = (worker - 1) * stage.slots.unwrap_or_else(cores);
            let numbers = arg("--first-slot", first_slot.to_string());
            children.start_part(Part {
                stage: Some(stage.name.clone()),
                env: stage.env.clone(),
                ..Part::new(
                    Role::Worker,
                    [
                        fields,
                        numbers,
                        share.clone(),
                        here.worker_args(&name, stage, args.handler.unsafe_template),
                    ]
                    .concat(),
                    Vec::new(),
                )
            })?;
        }
    }
    Ok(children)
}

/// Endpoints of a stage.
struct Stations {
    tasks: String,
    receipts: String,
    results: String,
}

impl Stations {
    /// Returns the arguments of the ventilator or relay that dispatches the stage's tasks.
    fn source_args(&self, stage: &Stage) -> Vec<OsString> {
        [
            arg("--tasks", &self.tasks),
            arg("--receipts", &self.receipts),
            arg("--sink", &self.results),
            arg("--stage", &stage.name),
        ]
        .concat()
    }

    fn ventilator_args(&self, stage: &Stage) -> Vec<OsString> {
        self.source_args(stage)
    }

    fn relay_args(&self, before: &Self, stage: &Stage) -> Vec<OsString> {
        [
            arg("--listen", &before.results),
            arg("--ventilator", &before.receipts),
            self.source_args(stage),
            attempt_args(&stage.attempts),
            flag("--keep-newline", stage.keep_newline).into_iter().collect(),
        ]
        .concat()
    }

    fn sink_args(&self) -> Vec<OsString> {
        [arg("--ventilator", &self.receipts), arg("--listen", &self.results)].concat()
    }

    fn worker_args(&self, name: &str, stage: &Stage, is_code_fine: bool) -> Vec<OsString> {
        let mut args = [
            arg("--ventilator", &self.tasks),
            arg("--sink", &self.results),
            arg("--name", name),
            arg("--max-output", stage.max_output.to_string()),
        ]
        .concat();
        if let Some(slots) = stage.slots {
            args.extend(arg("--slots", slots.to_string()));
        }
        if stage.termseq != TermSeq::default() {
            args.extend(arg("--termseq", stage.termseq.to_string()));
        }
        args.extend(flag("--exit-when-done", true));
        if let Some(code) = stage.skip_exit_code {
            args.extend(arg("--skip-exit-code", code.to_string()));
        }
        match &stage.handler {
            StageHandler::Echo => args.push("--echo".into()),
            StageHandler::Sleep => args.push("--sleep".into()),
            StageHandler::Command { words, feed } => {
                match feed {
                    Feed::Argument => {}
                    Feed::Stdin => args.push("--stdin".into()),
                    Feed::Pipe(mode) => args.extend(arg("--pipe", *mode)),
                }
                args.extend(flag(
                    "--unsafe-template",
                    is_code_fine && !matches!(feed, Feed::Pipe(_)),
                ));
                args.push("--".into());
                args.extend(words.iter().map(OsString::from));
            }
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_becomes_the_flags_of_its_programs() {
        let here = Stations {
            tasks: "tcp://t".to_owned(),
            receipts: "tcp://r".to_owned(),
            results: "tcp://s".to_owned(),
        };
        let before = Stations {
            tasks: "tcp://t0".to_owned(),
            receipts: "tcp://r0".to_owned(),
            results: "tcp://s0".to_owned(),
        };
        let joined = |args: Vec<OsString>| {
            let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
            args.join(" ")
        };
        let stage = |keys: &str| {
            let text = format!("[[stage]]\nname = 'n'\n{keys}");
            let pipeline = Pipeline::parse(text.as_bytes()).unwrap();
            pipeline.stages.into_iter().next().unwrap()
        };
        let check = |keys: &str, flags: &str| {
            let found = joined(here.worker_args("w", &stage(keys), false));
            let ends = "--ventilator tcp://t --sink tcp://s --name w --max-output";
            assert_eq!(found, format!("{ends} {flags}"), "{keys}");
        };
        check("echo = true", "16777216 --exit-when-done --echo");
        check("sleep = true\nslots = 3", "16777216 --slots 3 --exit-when-done --sleep");
        check(
            "termseq = 'INT,1s'\nsleep = true",
            "16777216 --termseq INT,1000,KILL --exit-when-done --sleep",
        );
        check("command = 'a {} b'", "16777216 --exit-when-done -- a {} b");
        check(
            "command = ['a', '-x']\nstdin = true\nmax_output = '1k'",
            "1024 --exit-when-done --stdin -- a -x",
        );
        check(
            "command = 'a'\npipe = 'json'\nskip_exit_code = 10",
            "16777216 --exit-when-done --skip-exit-code 10 --pipe json -- a",
        );
        assert_eq!(
            joined(here.relay_args(&before, &stage("echo = true\nretries = 2\ntimeout = '300%'"))),
            "--listen tcp://s0 --ventilator tcp://r0 --tasks tcp://t --receipts tcp://r \
             --sink tcp://s --stage n --retries 2 --timeout 300% --max-losses 3"
        );
        let relay = joined(here.relay_args(&before, &stage("echo = true\nkeep_newline = true")));
        assert!(relay.ends_with(" --keep-newline"), "{relay}");
        assert_eq!(joined(before.sink_args()), "--ventilator tcp://r0 --listen tcp://s0");
    }
}
