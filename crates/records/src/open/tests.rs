use std::fs;
use std::os::unix::fs::PermissionsExt;

use tradewind_proto::collector::Records;
use tradewind_proto::message::Status;
use tradewind_proto::{JobKey, Seq, TaskHash};

use super::*;
use crate::examples::record;
use crate::file::synced;
use crate::rewrite::{self, Paths};
use crate::{Output, OutputError};

const KEY: JobKey = JobKey::new([7; 16]);

fn opening(job: u64, start: Start) -> Opening {
    let (job, name, stage) = (JobId(job), "job".into(), String::new());
    Opening { job, name, start, stage, is_untouched: true, key: Some(KEY) }
}

fn open(settings: &Settings) -> Result<FileOutput, OpenError> {
    let (mut output, _) = prepare(settings)?.open(&opening(1, Start::New))?;
    output.begin().unwrap();
    Ok(output)
}

fn settings(output: &Path, joblog: Option<&Path>, overwrite: bool) -> Settings {
    Settings {
        output: OutputTarget::File(output.to_owned()),
        joblog: joblog.map(|path| OutputTarget::File(path.to_owned())),
        overwrite,
        ..Settings::default()
    }
}

#[test]
fn records_and_joblog_are_written_to_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let (output, joblog) = (dir.path().join("out"), dir.path().join("log"));
    fs::write(&output, "").unwrap();
    let mut writer = open(&settings(&output, Some(&joblog), false)).unwrap();
    writer.write(&[record(0, "a"), record(1, "b")]).unwrap();
    writer.commit().unwrap();
    assert_eq!(fs::read_to_string(&output).unwrap(), "a\nb\n");
    assert_eq!(fs::read_to_string(&joblog).unwrap().lines().count(), 3);
    writer.finish(true).unwrap();
}

#[test]
fn a_file_with_something_in_it_is_replaced_only_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let (full, new) = (dir.path().join("full"), dir.path().join("new"));
    fs::write(&full, "precious, and longer than what follows").unwrap();
    let refused = |output: &Path, joblog: &Path, wanted: &str| {
        let error = open(&settings(output, Some(joblog), false)).unwrap_err();
        let wanted = format!(
            "{wanted} {full:?} exists already, and has no journal beside it with which to \
                     resume; give --overwrite to replace it"
        );
        assert_eq!(error.to_string(), wanted);
        assert_eq!(fs::read(&full).unwrap().len(), 38);
    };
    refused(&full, &new, "output");
    refused(&new, &full, "joblog");

    let mut writer = open(&settings(&full, None, true)).unwrap();
    writer.write(&[record(0, "x")]).unwrap();
    writer.finish(true).unwrap();
    assert_eq!(fs::read_to_string(&full).unwrap(), "x\n");
}

#[test]
fn output_and_joblog_are_never_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for joblog in [&file, &link, &dir.path().join("./file")] {
        let error = open(&settings(&file, Some(joblog), true)).unwrap_err();
        let wanted = format!("output {file:?} and joblog {joblog:?} are the same file");
        assert!(error.to_string().starts_with(&wanted), "{error}");
        assert!(error.is_misuse());
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
    let null = Path::new("/dev/null");
    assert!(open(&settings(null, Some(null), false)).is_ok(), "it is no file");
}

#[test]
fn errors_name_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "").unwrap();
    let check = |output: PathBuf, wanted: &str| {
        let error = open(&settings(&output, None, false)).unwrap_err();
        let wanted = wanted.replace('@', &format!("{output:?}"));
        assert_eq!(error.to_string(), wanted.replace('%', dir.path().to_str().unwrap()));
    };
    check(at("none/x"), "directory \"%/none\" of output @ does not exist");
    check(at(""), "output @ is a directory");
    check(at("file/x"), "cannot open output @: Not a directory (os error 20)");
    check("".into(), "cannot open output @: No such file or directory (os error 2)");
}

#[test]
fn a_full_disk_is_an_error_that_can_be_retried() {
    let mut writer = open(&settings(Path::new("/dev/full"), None, false)).unwrap();
    writer.write(&[record(0, "a")]).unwrap();
    for _ in 0..2 {
        assert_eq!(
            writer.commit().unwrap_err().to_string(),
            "cannot write to output \"/dev/full\": No space left on device (os error 28)"
        );
    }
}

/// Runs a function as an unprivileged user: root may do everything.
fn unprivileged<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let run = || {
        if rustix::process::geteuid().is_root() {
            let nobody = rustix::process::Uid::from_raw(65_534);
            // Of this thread alone.
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("root may");
        }
        run()
    };
    std::thread::scope(|scope| scope.spawn(run).join()).expect("it does not panic")
}

#[test]
fn a_file_without_permission_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::set_permissions(file.path(), PermissionsExt::from_mode(0o444)).unwrap();
    let settings = settings(file.path(), None, false);
    let opened = unprivileged(|| open(&settings).map(drop));
    let wanted = format!("no permission to write output {:?}", file.path());
    assert_eq!(opened.unwrap_err().to_string(), wanted);
}

/// An output in a directory of its own, and what is done to it by one start after another.
struct Scene {
    dir: tempfile::TempDir,
    settings: Settings,
}

impl Scene {
    fn new(format: Format, order: Order) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name| dir.path().join(name);
        let settings = Settings { format, order, ..settings(&at("out"), Some(&at("log")), false) };
        Self { dir, settings }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The seqs in the output, which is JSON lines, and in the joblog.
    fn seqs(&self) -> Vec<u64> {
        let of = |line: &str| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap()
        };
        let seqs: Vec<_> = self.text("out").lines().map(of).collect();
        assert_eq!(self.logged(), seqs);
        seqs
    }

    fn logged(&self) -> Vec<u64> {
        let log = self.text("log");
        let first = |line: &str| line.split('\t').next().unwrap().parse::<u64>().unwrap() - 1;
        log.lines().skip(1).map(first).collect()
    }

    fn open(&self, opening: &Opening) -> Result<(FileOutput, Continued), OpenError> {
        let (mut output, continued) = prepare(&self.settings)?.open(opening)?;
        output.begin().unwrap();
        Ok((output, continued))
    }

    /// Opens it for the job, stores these, a commit each, and is killed.
    fn store(&self, job: u64, start: Start, records: &[Records]) -> Continued {
        let (mut output, continued) = self.open(&opening(job, start)).unwrap();
        for record in records {
            output.write(std::slice::from_ref(record)).unwrap();
            output.commit().unwrap();
        }
        continued
    }

    fn refused(&self, job: u64, start: Start) -> String {
        let before = self.names();
        let error = self.open(&opening(job, start)).unwrap_err().to_string();
        assert_eq!(self.names(), before);
        error.replace(self.dir.path().to_str().unwrap(), "%")
    }
}

fn of_status(seq: u64, status: Status) -> Records {
    let mut record = record(seq, format!("{seq}\n"));
    record.results[0].outcome.status = status;
    record.results[0].task_hash = TaskHash(seq as u32 + 100);
    record
}

fn ok(seqs: impl IntoIterator<Item = u64>) -> Vec<Records> {
    seqs.into_iter().map(|seq| of_status(seq, Status::Ok)).collect()
}

/// Seqs 0 to 9: 2 and 7 failed, 5 was cancelled.
fn mixed() -> Vec<Records> {
    let mut records = ok(0..10);
    records[2] = of_status(2, Status::Failed);
    records[5] = of_status(5, Status::Cancelled);
    records[7] = of_status(7, Status::TimedOut);
    records
}

fn stored(continued: &Continued) -> Vec<u64> {
    continued.opened.stored.iter().map(|seq| seq.0).collect()
}

#[test]
fn a_sink_that_starts_again_continues_its_output() {
    for (format, fsync) in [(Format::Lines, Fsync::None), (Format::Jsonl, Fsync::Batch)] {
        let mut scene = Scene::new(format, Order::Seq);
        scene.settings.fsync = fsync;
        let first = scene.store(1, Start::New, &ok(0..3));
        assert!(stored(&first).is_empty());
        // It was killed while it wrote.
        for name in ["out", "log", "out.tradewind"] {
            let text = scene.text(name) + "half a li";
            fs::write(scene.at(name), text).unwrap();
        }
        // Even --overwrite does not make it a new job.
        scene.settings.overwrite = true;
        let second = scene.store(1, Start::New, &ok(3..5));
        assert_eq!(stored(&second), [0, 1, 2]);
        assert_eq!((second.opened.counts.ok, second.cut_bytes), (3, 18));
        let mut hashes = second.journal.as_ref().unwrap().hashes().unwrap();
        assert_eq!(hashes.get(Seq(1)).unwrap(), Some(TaskHash(101)));
        assert_eq!(hashes.get(Seq(3)).unwrap(), Some(TaskHash(103)), "as it is by now");

        let (mut output, third) = scene.open(&opening(1, Start::Resume)).unwrap();
        output.finish(true).unwrap();
        assert_eq!(stored(&third), [0, 1, 2, 3, 4]);
        let mut wanted = Vec::new();
        ok(0..5)
            .iter()
            .flat_map(Records::iter)
            .for_each(|record| format.encode(record, &mut wanted));
        assert_eq!(scene.text("out").as_bytes(), wanted);
        assert_eq!(scene.logged(), [0, 1, 2, 3, 4]);
        assert_eq!(scene.names(), ["log", "out", "out.tradewind"]);
        assert_eq!(third.journal.unwrap().path(), Some(&*scene.at("out.tradewind")));
    }
}

// Fails if what a killed sink has written and not synced is called stored by the next one: a machine that is
// switched off then takes it away.
#[test]
fn records_that_are_read_back_are_synced_before_they_count_as_stored() {
    for (fsync, wanted) in [
        (Fsync::None, &[][..]),
        (Fsync::Batch, &["out", "log", "out.tradewind", "00000000"]),
        (Fsync::Record, &["out", "log", "out.tradewind", "00000000"]),
    ] {
        let mut scene = Scene::new(Format::Lines, Order::Seq);
        scene.store(1, Start::New, &ok(0..3));
        let (mut output, _) = scene.open(&opening(1, Start::New)).unwrap();
        output.spool(&ok(5..6)).unwrap();
        drop(output);
        scene.settings.fsync = fsync;
        synced::take();
        let prepared = prepare(&scene.settings).unwrap();
        let (_output, continued) = prepared.open(&opening(1, Start::New)).unwrap();
        assert_eq!(stored(&continued), [0, 1, 2, 5]);
        assert_eq!(synced::take(), wanted, "{fsync:?}");
    }
}

#[test]
fn another_job_is_resumed_or_replaced_only_on_demand() {
    let mut scene = Scene::new(Format::Lines, Order::Seq);
    scene.store(1, Start::New, &ok(0..3));
    assert_eq!(
        scene.refused(2, Start::New),
        "output \"%/out\" exists already: it has 3 records of an earlier run of this job, which \
         is not complete; --resume continues it, --overwrite replaces it"
    );
    let resumed = scene.store(3, Start::Resume, &ok(3..4));
    assert_eq!((resumed.opened.job, stored(&resumed).len()), (JobId(1), 3));
    assert_eq!(scene.text("out"), "0\n1\n2\n3\n");

    scene.settings.overwrite = true;
    let replaced = scene.store(4, Start::New, &ok(0..1));
    assert_eq!((replaced.opened.job, stored(&replaced).len()), (JobId(4), 0));
    assert_eq!((scene.text("out").as_str(), scene.logged()), ("0\n", vec![0]));
    assert_eq!(stored(&scene.store(4, Start::New, &[])), [0]);
}

#[test]
fn an_output_is_resumed_with_the_flags_it_was_begun_with() {
    let check = |change: fn(&mut Settings), wanted: &str| {
        let mut scene = Scene::new(Format::Jsonl, Order::Seq);
        scene.store(1, Start::New, &ok(0..3));
        change(&mut scene.settings);
        let error = scene.refused(1, Start::New);
        let wanted = format!("output \"%/out\" was begun {wanted}; resume it in the same way");
        assert_eq!(error, wanted);
    };
    check(|settings| settings.format = Format::Lines, "with --format jsonl");
    check(|settings| settings.order = Order::Completion, "with --ordered");
    check(|settings| settings.joblog = None, "with a joblog");
}

#[test]
fn damage_is_refused_and_nothing_is_changed() {
    let scene = Scene::new(Format::Jsonl, Order::Seq);
    scene.store(1, Start::New, &ok(0..5));
    let check = |name: &str, line: usize, wanted: &str| {
        let good = scene.text(name);
        let at = good.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>() + 3;
        let mut bad = good.clone().into_bytes();
        bad[at] ^= 1;
        fs::write(scene.at(name), &bad).unwrap();
        let error = scene.refused(1, Start::Resume);
        assert_eq!(fs::read(scene.at(name)).unwrap(), bad);
        fs::write(scene.at(name), good).unwrap();
        let wanted = format!("{wanted}; --overwrite replaces it");
        assert_eq!(error, wanted);
    };
    let line = scene.text("out").find('\n').unwrap() + 1;
    check(
        "out",
        2,
        &format!(
            "output \"%/out\" is damaged: bytes {line} to {} are not as they were written",
            2 * line
        ),
    );
    check(
        "out.tradewind",
        3,
        "journal \"%/out.tradewind\" is damaged: line 3 is not as it was written",
    );
    check("log", 1, "joblog \"%/log\" is damaged: its contents do not match the journal");
    assert_eq!(stored(&scene.store(1, Start::Resume, &[])).len(), 5);
}

/// All that is in the files, and when they were changed.
fn all(scene: &Scene) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
    let of = |name: String| {
        let path = scene.at(&name);
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        (name, fs::read(path).unwrap(), changed)
    };
    scene.names().into_iter().map(of).collect()
}

#[test]
fn until_it_begins_nothing_is_changed() {
    for (format, start) in [
        (Format::Jsonl, Start::RetryFailed),
        (Format::Jsonl, Start::Resume),
        (Format::Lines, Start::Resume),
    ] {
        let scene = Scene::new(format, Order::Seq);
        scene.store(1, Start::New, &mixed());
        for name in ["out", "log", "out.tradewind"] {
            let text = scene.text(name) + "half a li";
            fs::write(scene.at(name), text).unwrap();
        }
        let before = all(&scene);
        let opened = prepare(&scene.settings).unwrap().open(&opening(2, start));
        let (mut output, continued) = opened.unwrap();
        output.sync().unwrap();
        assert_eq!(continued.opened.pending, Some(start));
        assert_eq!(continued.opened.counts.total(), continued.opened.stored.count());
        drop(output);
        assert!(all(&scene) == before, "{format:?} {start:?}");

        // It says the same when it has begun, and when it was stopped after that.
        let begun = scene.store(2, start, &[]).opened;
        assert_eq!(begun, continued.opened);
        let again = scene.store(1, Start::Resume, &[]).opened;
        assert_eq!((again.stored, again.again), (begun.stored, begun.again.clone()));
        // What tasks were that are to run again is known until they have.
        let mut hashes = scene.store(1, Start::Resume, &[]).journal.unwrap().hashes().unwrap();
        for seq in begun.again.iter() {
            assert_eq!(hashes.get(seq).unwrap(), Some(TaskHash(seq.0 as u32 + 100)));
        }
    }
}

#[test]
fn a_failed_beginning_is_tried_again() {
    for start in [Start::New, Start::RetryFailed] {
        let scene = Scene::new(Format::Jsonl, Order::Seq);
        if start != Start::New {
            scene.store(1, Start::New, &mixed());
        }
        let opened = prepare(&scene.settings).unwrap().open(&opening(2, start));
        let (mut output, _) = opened.unwrap();
        // As a disk without room would be in the way.
        let obstacle = scene.at(match start {
            Start::New => "out.tradewind",
            _ => "out.tradewind.new",
        });
        fs::create_dir(&obstacle).unwrap();
        for _ in 0..2 {
            output.begin().unwrap_err();
        }
        fs::remove_dir(obstacle).unwrap();
        output.begin().unwrap();
        output.write(&ok([2, 5, 7])).unwrap();
        output.finish(true).unwrap();
        drop(output);
        let wanted = if start == Start::New { vec![2, 5, 7] } else { (0..10).collect() };
        assert_eq!(scene.seqs(), wanted);
    }
}

/// Stores all ten, to the end of the job.
fn complete(format: Format) -> Scene {
    let scene = Scene::new(format, Order::Seq);
    let (mut output, _) = scene.open(&opening(1, Start::New)).unwrap();
    output.write(&ok(0..10)).unwrap();
    output.finish(true).unwrap();
    scene
}

#[test]
fn a_complete_job_is_resumed_without_a_change_and_can_grow() {
    for format in [Format::Lines, Format::Jsonl] {
        let scene = complete(format);
        let before = all(&scene);
        let (mut output, continued) = scene.open(&opening(2, Start::Resume)).unwrap();
        assert_eq!(stored(&continued), (0..10).collect::<Vec<_>>());
        output.finish(true).unwrap();
        drop(output);
        assert!(all(&scene) == before);

        for end in [12, 14] {
            let (mut output, _) = scene.open(&opening(3, Start::Resume)).unwrap();
            output.write(&ok(end - 2..end)).unwrap();
            output.finish(true).unwrap();
            drop(output);
            assert_eq!(scene.logged(), (0..end).collect::<Vec<_>>());
            assert_eq!(scene.text("out").lines().count() as u64, end);
        }
        assert_eq!(
            scene.refused(4, Start::New),
            "output \"%/out\" exists already: it has 14 records of an earlier run of this job, \
             which is complete; --resume continues it, --overwrite replaces it"
        );
    }
}

#[test]
fn a_file_changed_after_the_end_is_left_alone() {
    let check = |change: fn(&mut String)| {
        for name in ["out", "log"] {
            let scene = complete(Format::Lines);
            let mut text = scene.text(name);
            change(&mut text);
            fs::write(scene.at(name), &text).unwrap();
            let error = scene.refused(2, Start::Resume);
            assert!(error.contains(&format!("%/{name}\" was changed after")), "{error}");
            assert_eq!(scene.text(name), text);
        }
    };
    check(|text| text.push_str("more\n"));
    check(|text| text.truncate(text.len() - 2));
    check(|text| text.replace_range(text.len() - 3..text.len() - 2, "x"));
}

#[test]
fn a_journal_that_is_left_over_speaks_of_nothing() {
    let mut scene = complete(Format::Lines);
    scene.settings.joblog = None;
    scene.settings.output = OutputTarget::File(scene.at("other"));
    fs::copy(scene.at("out.tradewind"), scene.at("other.tradewind")).unwrap();
    for start in [Start::New, Start::Resume] {
        assert!(stored(&scene.store(2, start, &ok([0]))).is_empty());
        assert_eq!(scene.text("other"), "0\n");
        fs::rename(scene.at("other"), scene.at("moved")).unwrap();
    }
}

#[test]
fn a_job_of_nothing_may_be_run_again() {
    let mut scene = Scene::new(Format::Lines, Order::Seq);
    scene.settings.joblog = None;
    for (job, start) in [(1, Start::New), (2, Start::New), (3, Start::Resume)] {
        let (mut output, _) = scene.open(&opening(job, start)).unwrap();
        output.finish(true).unwrap();
    }
    let mut scene = Scene::new(Format::Jsonl, Order::Seq);
    for start in [Start::New, Start::Resume] {
        let (mut output, _) = scene.open(&opening(1, start)).unwrap();
        output.finish(true).unwrap();
    }
    scene.settings.overwrite = true;
    scene.store(4, Start::New, &ok(0..2));
}

#[test]
fn no_two_sinks_write_one_file() {
    let mut scene = Scene::new(Format::Lines, Order::Seq);
    let (output, _) = scene.open(&opening(1, Start::New)).unwrap();
    assert_eq!(scene.refused(1, Start::New), "output \"%/out\" is in use by another process");
    scene.settings.output = OutputTarget::File("/dev/null".into());
    assert_eq!(scene.refused(1, Start::New), "joblog \"%/log\" is in use by another process");
    drop(output);
    scene.settings.output = OutputTarget::File(scene.at("out"));
    scene.store(1, Start::New, &[]);
}

#[test]
fn a_file_removed_meanwhile_is_written_again() {
    let scene = Scene::new(Format::Jsonl, Order::Seq);
    let (mut output, _) = scene.open(&opening(1, Start::New)).unwrap();
    for (seq, name) in (0..).zip(["out", "log", "out.tradewind"]) {
        output.write(&ok([2 * seq])).unwrap();
        output.commit().unwrap();
        fs::remove_file(scene.at(name)).unwrap();
        output.write(&ok([2 * seq + 1])).unwrap();
        assert!(matches!(output.commit(), Err(OutputError::Removed { .. })));
        output.commit().unwrap();
        assert_eq!(scene.seqs(), (0..2 * seq + 2).collect::<Vec<_>>());
    }
    fs::rename(scene.at("out"), scene.at("moved")).unwrap();
    fs::write(scene.at("out"), "precious").unwrap();
    output.write(&ok([6])).unwrap();
    for _ in 0..2 {
        assert!(matches!(output.commit(), Err(OutputError::Replaced { .. })));
    }
    assert_eq!(scene.text("out"), "precious");
    fs::rename(scene.at("moved"), scene.at("out")).unwrap();
    output.finish(true).unwrap();
    drop(output);
    assert_eq!(stored(&scene.store(1, Start::Resume, &[])).len(), 7);
}

#[test]
fn tasks_that_failed_run_again_and_the_output_has_one_record_of_each() {
    let check = |order, start, again: &[u64], wanted: &[u64]| {
        let scene = Scene::new(Format::Jsonl, order);
        scene.store(1, Start::New, &mixed());
        let resumed = scene.store(2, start, &ok(again.iter().copied().take(1)));
        let kept: Vec<_> = (0..10).filter(|seq| !again.contains(seq)).collect();
        assert_eq!((stored(&resumed), resumed.opened.job), (kept.clone(), JobId(1)));
        assert_eq!(resumed.opened.counts.total(), kept.len() as u64);
        assert_eq!(resumed.opened.counts.cancelled, 0);
        let mut hashes = resumed.journal.as_ref().unwrap().hashes().unwrap();
        for seq in kept.iter().copied() {
            let hash = Some(TaskHash(seq as u32 + 100));
            assert_eq!(hashes.get(Seq(seq)).unwrap(), hash);
        }

        // The sink dies once more.
        let (mut output, continued) = scene.open(&opening(1, start)).unwrap();
        assert_eq!(stored(&continued).len(), kept.len() + 1);
        output.write(&ok(again.iter().copied().skip(1))).unwrap();
        if order == Order::Seq {
            let obstacle = scene.at("out.tradewind.2");
            fs::create_dir(&obstacle).unwrap();
            assert!(matches!(output.finish(true), Err(OutputError::Rewrite { .. })));
            fs::remove_dir(obstacle).unwrap();
        }
        output.finish(true).unwrap();
        drop(output);
        assert_eq!(scene.seqs(), wanted);
        assert_eq!(scene.names(), ["log", "out", "out.tradewind"]);
        let last = scene.store(1, Start::Resume, &[]);
        assert_eq!(stored(&last), (0..10).collect::<Vec<_>>());
    };
    let (seq, completion) = (Order::Seq, Order::Completion);
    let all: Vec<_> = (0..10).collect();
    check(seq, Start::RetryFailed, &[2, 5, 7], &all);
    check(seq, Start::Resume, &[5], &all);
    check(completion, Start::RetryFailed, &[2, 5, 7], &[0, 1, 3, 4, 6, 8, 9, 2, 5, 7]);
    check(completion, Start::Resume, &[5], &[0, 1, 2, 3, 4, 6, 7, 8, 9, 5]);
}

#[test]
fn the_records_of_all_tasks_may_go() {
    let scene = Scene::new(Format::Jsonl, Order::Seq);
    let failed: Vec<_> = (0..3).map(|seq| of_status(seq, Status::Lost)).collect();
    scene.store(1, Start::New, &failed);
    let resumed = scene.store(2, Start::RetryFailed, &ok(0..3));
    assert!(stored(&resumed).is_empty());
    assert_eq!(scene.seqs(), [0, 1, 2]);
}

#[test]
fn lines_go_on_before_the_first_cancelled_task() {
    let scene = Scene::new(Format::Lines, Order::Seq);
    scene.store(1, Start::New, &mixed());
    assert_eq!(
        scene.refused(2, Start::RetryFailed),
        "--retry-failed needs --format jsonl: lines do not have the seq of their task"
    );
    let resumed = scene.store(2, Start::Resume, &ok(5..10));
    assert_eq!(stored(&resumed), [0, 1, 2, 3, 4]);
    assert_eq!(scene.text("out"), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    assert_eq!(scene.logged(), (0..10).collect::<Vec<_>>());
}

#[test]
fn an_output_that_cannot_be_read_is_resumed_by_its_joblog() {
    let mut scene = Scene::new(Format::Jsonl, Order::Completion);
    scene.settings.output = OutputTarget::File("/dev/null".into());
    scene.store(1, Start::New, &mixed());
    assert_eq!(scene.names(), ["log", "log.tradewind"]);
    assert_eq!(
        scene.refused(2, Start::RetryFailed),
        "--retry-failed needs a file as --output: records written elsewhere cannot be removed"
    );
    let resumed = scene.store(2, Start::Resume, &ok([5]));
    assert_eq!(stored(&resumed), [0, 1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(scene.logged(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5]);
    let again = scene.store(1, Start::Resume, &[]);
    assert_eq!(stored(&again), (0..10).collect::<Vec<_>>());
}

#[test]
fn wherever_a_rewrite_is_stopped_the_next_start_finds_the_old_or_the_new_output() {
    let check = |stop: fn(&Scene, &Paths)| {
        let scene = Scene::new(Format::Jsonl, Order::Seq);
        scene.store(1, Start::New, &mixed());
        let paths = Paths {
            output: Some(scene.at("out")),
            joblog: Some(scene.at("log")),
            journal: scene.at("out.tradewind"),
        };
        stop(&scene, &paths);
        let found = stored(&scene.store(1, Start::Resume, &[]));
        let (old, new) = ((0..10).collect::<Vec<_>>(), vec![0, 1, 3, 4, 5, 6, 7, 8, 9]);
        assert!(found == old || found == new, "{found:?}");
        assert_eq!(scene.seqs(), found);
        assert_eq!(scene.names(), ["log", "out", "out.tradewind"]);

        let retried = scene.store(2, Start::RetryFailed, &ok([2, 5, 7]));
        assert_eq!(stored(&retried), [0, 1, 3, 4, 6, 8, 9]);
        let (mut output, _) = scene.open(&opening(1, Start::Resume)).unwrap();
        output.finish(true).unwrap();
        assert_eq!(scene.seqs(), old);
    };
    check(|scene, _| fs::write(scene.at("out.tradewind.1"), "half").unwrap());
    check(|scene, _| {
        fs::write(scene.at("out.tradewind.1"), "whole").unwrap();
        fs::write(scene.at("log.tradewind.1"), "half").unwrap();
        fs::write(scene.at("out.tradewind.new"), "half").unwrap();
    });
    check(|_, paths| rewritten(paths));
    check(|scene, paths| {
        rewritten(paths);
        fs::rename(scene.at("out.tradewind.1"), scene.at("out")).unwrap();
    });
    check(|scene, paths| {
        rewritten(paths);
        fs::rename(scene.at("out.tradewind.1"), scene.at("out")).unwrap();
        fs::rename(scene.at("log.tradewind.1"), scene.at("log")).unwrap();
    });
}

fn rewritten(paths: &Paths) {
    rewrite::rewrite(paths, &[Seq(2)].into_iter().collect()).unwrap();
}

#[test]
fn a_link_is_followed_and_stays_one() {
    let mut scene = Scene::new(Format::Jsonl, Order::Seq);
    std::os::unix::fs::symlink(scene.at("out"), scene.at("link")).unwrap();
    scene.settings.output = OutputTarget::File(scene.at("link"));
    scene.store(1, Start::New, &mixed());
    scene.store(2, Start::RetryFailed, &ok([2, 5, 7]));
    assert_eq!(scene.names(), ["link", "log", "out", "out.tradewind"]);
    assert!(fs::symlink_metadata(scene.at("link")).unwrap().is_symlink());
    assert_eq!(scene.seqs().len(), 10);
}

// Fails if the key is not written, or not read back.
#[test]
fn a_job_keeps_the_key_of_its_tags() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    let mut writer = open(&settings(&output, None, false)).unwrap();
    writer.write(&[record(0, "a")]).unwrap();
    writer.finish(false).unwrap();
    drop(writer);
    let other = Opening { key: Some(JobKey::new([9; 16])), ..opening(1, Start::New) };
    let (_, continued) = prepare(&settings(&output, None, false)).unwrap().open(&other).unwrap();
    assert_eq!(continued.opened.key, Some(KEY));
    let journal = continued.journal.unwrap();
    let mode = fs::metadata(journal.path().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "a secret of its owner's: {mode:o}");
}

#[test]
fn what_has_the_name_of_a_journal_and_is_none_stays_as_it_is() {
    let newer = || {
        let claim = Claim::new(JobId(1), String::new(), Format::Lines, Order::Seq, false);
        let mut line = Vec::new();
        claim.encode(&mut line);
        let json = String::from_utf8(line[9..].to_vec()).unwrap();
        let json = json.replacen("{\"tradewind\":", "{\"tradewind\":99", 1);
        format!("{:08x} {json}", crc32fast::hash(json.trim_end().as_bytes())).into_bytes()
    };
    for (text, is_ours) in [
        (b"my own notes, no journal\n".to_vec(), false),
        (b"0123abcd my own notes".to_vec(), false),
        (newer(), false),
        (Vec::new(), true),
        (b"0123a".to_vec(), true),
        (b"0123abcd {\"trade".to_vec(), true),
        (b"0123abcd {\"tradewind\":2,\"job\"".to_vec(), true),
    ] {
        for overwrite in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let (output, journal) = (dir.path().join("out"), dir.path().join("out.tradewind"));
            fs::write(&journal, &text).unwrap();
            let opened = open(&settings(&output, None, overwrite));
            if is_ours {
                opened.unwrap();
                continue;
            }
            let wanted = format!("journal {journal:?} exists already and is no journal that");
            let error = opened.unwrap_err().to_string();
            assert!(error.starts_with(&wanted), "{error}");
            assert_eq!(fs::read(&journal).unwrap(), text);
        }
    }
}

#[test]
fn links_under_names_that_the_user_did_not_give_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let (output, victim) = (dir.path().join("out"), dir.path().join("victim"));
    for contents in [&b""[..], b"precious"] {
        fs::write(&victim, contents).unwrap();
        let journal = dir.path().join("out.tradewind");
        std::os::unix::fs::symlink(&victim, &journal).unwrap();
        let error = open(&settings(&output, None, true)).unwrap_err().to_string();
        assert!(error.contains("is a symbolic link: it stays as it is"), "{error}");
        assert_eq!(fs::read(&victim).unwrap(), contents);
        assert!(fs::symlink_metadata(&journal).unwrap().is_symlink());
        fs::remove_file(journal).unwrap();
    }

    for name in ["out.tradewind.1", "out.tradewind.new"] {
        let scene = Scene::new(Format::Jsonl, Order::Seq);
        scene.store(1, Start::New, &mixed());
        fs::write(scene.at("victim"), "precious").unwrap();
        std::os::unix::fs::symlink(scene.at("victim"), scene.at(name)).unwrap();
        let prepared = prepare(&scene.settings).unwrap();
        let (mut output, _) = prepared.open(&opening(2, Start::RetryFailed)).unwrap();
        let error = output.begin().unwrap_err();
        assert!(error.to_string().ends_with("is in the way: move it away"), "{error}");
        assert_eq!(fs::read_to_string(scene.at("victim")).unwrap(), "precious");
        fs::remove_file(scene.at(name)).unwrap();
        output.begin().unwrap();
        output.write(&ok([2, 5, 7])).unwrap();
        output.finish(true).unwrap();
        assert_eq!(scene.seqs().len(), 10);
    }
}
