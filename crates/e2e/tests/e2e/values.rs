//! `:::` and `::::`: every combination of the values is a task, and no other.
//!
//! Through the program and not the library: what a compiler makes of the one says nothing about
//! the other.

use rustix::fs::{CWD, Mode, mkfifoat};
use tradewind_e2e::{Scene, Signal, Start, program, records, wait_until};

/// Lists of linked sources of values.
type Lists = Vec<Vec<Vec<String>>>;

/// All combinations, by taking the lists apart one by one.
fn combinations(lists: &[Vec<Vec<String>>]) -> Vec<Vec<String>> {
    let Some((list, rest)) = lists.split_first() else { return vec![Vec::new()] };
    let shortest = list.iter().map(Vec::len).min().unwrap_or(0);
    let rest = combinations(rest);
    let row = |row: usize| -> Vec<_> { list.iter().map(|source| source[row].clone()).collect() };
    let with_rest = |row: Vec<String>| rest.iter().map(move |rest| [&row[..], rest].concat());
    (0..shortest).map(row).flat_map(with_rest).collect()
}

/// A letter for each source, a number for each value; some are empty, and some have spaces.
fn lists(shape: &[&[usize]]) -> Lists {
    let mut letters = 'a'..='z';
    let mut source = |length: &usize| {
        let letter = letters.next().unwrap();
        let value = |place| match place {
            2 => String::new(),
            3 => format!("{letter} {place}"),
            _ => format!("{letter}{place}"),
        };
        (0..*length).map(value).collect()
    };
    shape.iter().map(|list| list.iter().map(&mut source).collect()).collect()
}

fn words(lists: &Lists) -> Vec<String> {
    let mut words = Vec::new();
    for list in lists {
        for (place, source) in list.iter().enumerate() {
            words.push(if place == 0 { ":::" } else { ":::+" }.to_owned());
            words.extend(source.iter().cloned());
        }
    }
    words
}

/// Shapes by list and source, and the number of their tasks, which was counted by hand.
const SHAPES: [(&[&[usize]], usize); 18] = [
    (&[&[1]], 1),
    (&[&[3]], 3),
    (&[&[2], &[2]], 4),
    (&[&[3], &[3]], 9),
    (&[&[1], &[4]], 4),
    (&[&[4], &[1]], 4),
    (&[&[2], &[2], &[2]], 8),
    (&[&[2], &[3], &[4]], 24),
    (&[&[5], &[1], &[4]], 20),
    (&[&[2], &[1], &[1], &[2]], 4),
    (&[&[2], &[2], &[2], &[2], &[2]], 32),
    (&[&[10], &[10], &[3]], 300),
    (&[&[2, 2]], 2),
    (&[&[2, 2], &[2]], 4),
    (&[&[2], &[3, 3]], 6),
    (&[&[4, 3, 5], &[2, 3], &[2]], 12),
    (&[&[3], &[0]], 0),
    (&[&[3, 0], &[2]], 0),
];

#[test]
fn every_combination_of_the_values_is_a_task() {
    let scene = Scene::new();
    for (shape, count) in SHAPES {
        let lists = lists(shape);
        let wanted = combinations(&lists);
        assert_eq!(wanted.len(), count, "{shape:?}");
        let run = scene.run().words("--format jsonl -j 4 -- printf %s|").args(words(&lists));
        let found = records(&run.run().expect(0).stdout, count as u64);
        let found: Vec<_> = found.iter().map(|record| record.output.clone().unwrap()).collect();
        let wanted: Vec<_> = wanted.iter().map(|values| values.join("|") + "|").collect();
        assert_eq!(found, wanted, "{shape:?}");
    }
    scene.assert_nothing_left();
}

#[test]
fn combinations_are_arguments_lines_of_a_dry_run_and_standard_input_alike() {
    let scene = Scene::new();
    let shape: &[&[usize]] = &[&[3], &[2, 2], &[2]];
    let lists = lists(shape);
    let tasks = combinations(&lists);
    let check = |start: Start, line: fn(&[String]) -> String| {
        let ended = start.args(words(&lists)).run().expect(0);
        let wanted: Vec<_> = tasks.iter().map(|values| line(values)).collect();
        assert_eq!(ended.text().lines().collect::<Vec<_>>(), wanted);
    };
    let fields = |values: &[String]| format!("[{}] [{}]", values[3], values[0]);
    check(scene.run().words("-j 3 -- printf").args(["[%s] [%s]\n", "{4}", "{1}"]), fields);
    let quoted = |values: &[String]| {
        let quote = |value: &String| match value.contains(' ') || value.is_empty() {
            true => format!("'{value}'"),
            false => value.clone(),
        };
        let words: Vec<_> = values.iter().map(quote).collect();
        format!("echo {}", words.join(" "))
    };
    check(scene.run().words("--dry-run -- echo"), quoted);
    // As find -print0 ends its names.
    let nul = |values: &[String]| values.join("_") + "_";
    check(scene.run().words("--stdin -- sh -c").arg("tr '\\0' _; echo"), nul);
    scene.assert_nothing_left();
}

#[test]
fn values_come_from_files_too() {
    let scene = Scene::new();
    let (colours, sizes) = (scene.file("colours", "red\nblue\n"), scene.file("sizes", "s\nm\nl"));
    let (colours, sizes) = (colours.to_str().unwrap(), sizes.to_str().unwrap());
    let check = |words: &[&str], wanted: &str| {
        let run = scene.run().words("-j 2 -- echo {2}-{1}").args(words);
        assert_eq!(run.input("x\ny\n").run().expect(0).text().replace('\n', " "), wanted);
    };
    check(&["::::", colours, sizes], "s-red m-red l-red s-blue m-blue l-blue ");
    check(&["::::", colours, ":::", "1", "2"], "1-red 2-red 1-blue 2-blue ");
    check(&[":::", "1", "2", "::::", colours], "red-1 blue-1 red-2 blue-2 ");
    check(&["::::", colours, "::::+", sizes], "s-red m-blue ");
    check(&["::::", "-", colours], "red-x blue-x red-y blue-y ");
    let alone = scene.run().words("-- echo {1}.{1} ::::").arg(sizes).run().expect(0);
    assert_eq!(alone.text(), "s.s\nm.m\nl.l\n");
    let none = scene.run().words("-- echo :::: none ::: a").run().expect(3);
    assert_eq!(none.stderr, "tradewind: input \"none\" does not exist\n");
    scene.assert_nothing_left();
}

#[test]
fn a_named_pipe_is_read_from_its_beginning_and_its_writer_is_let_finish() {
    let scene = Scene::new();
    mkfifoat(CWD, scene.path("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
    scene.file("stages.toml", "[[stage]]\nname = 'echo'\ncommand = 'echo'\n");
    let check = |words: &str, wanted: &str| {
        // It comes late, and takes its time for each line.
        let slow = "sleep 0.05; exec > pipe; for i in 1 2 3; do echo $i; sleep 0.05; done";
        let writer = scene.other("bash").args(["-c", slow]).start();
        assert_eq!(scene.run().words(words).run().expect(0).text(), wanted, "{words}");
        writer.wait().expect(0);
    };
    check("--input pipe -- echo", "1\n2\n3\n");
    check("--pipeline stages.toml --input pipe", "1\n2\n3\n");
    check("-- echo :::: pipe", "1\n2\n3\n");
    check("-- echo {2} ::: x :::: pipe", "1\n2\n3\n");
    check("--dry-run --input pipe -- echo", "echo 1\necho 2\necho 3\n");
    // As a shell passes on a process substitution, and its own input.
    let other = scene.other("bash").args(["-c", "\"$0\" run --input <(seq 3) -- echo"]);
    assert_eq!(other.arg(program("tradewind")).run().expect(0).text(), "1\n2\n3\n");
    let own = scene.run().words("--input /dev/stdin -- echo").input("1\n2\n").run().expect(0);
    assert_eq!(own.text(), "1\n2\n");
    scene.assert_nothing_left();
}

#[test]
fn a_named_pipe_that_nobody_opens_can_be_given_up() {
    let scene = Scene::new();
    mkfifoat(CWD, scene.path("pipe"), Mode::RUSR | Mode::WUSR).unwrap();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut run = scene.run().words("--input pipe -- echo").start();
        // It sleeps as soon as it waits for the other end, and not before.
        let stat = format!("/proc/{}/stat", run.pid().as_raw_pid());
        wait_until("it waits for the other end", || {
            std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains("(tradewind) S"))
        });
        run.signal(signal);
        let code = run.wait().code();
        assert!(code == 130 || code == 128 + signal.as_raw(), "{signal:?}: {code}");
    }
    scene.assert_nothing_left();
}

#[test]
fn as_many_arguments_as_fit_make_a_command() {
    let scene = Scene::new();
    let count = |words: &str, input: &str| {
        let script = "echo $#; for last; do :; done; echo ${#1} ${#last}";
        let run = scene.run().words(words).args(["--", "sh", "-c", script, "sh"]);
        run.input(input).run().expect(0).text().to_owned()
    };
    assert_eq!(count("-X", "a\nb b\n\nccc\n"), "4\n1 3\n");
    assert_eq!(count("--xargs -0", "a\nb\0c\0"), "2\n3 1\n");
    assert_eq!(count("-X -n 3", "1\n2\n3\n4\n"), "3\n1 1\n1\n1 1\n");
    assert_eq!(count("-X", ""), "");
    // All come through, in order, in as few commands as a command line allows.
    let numbers: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    let run = scene.run().words("-m -j 2 -- printf %s\\n").input(numbers.clone()).run().expect(0);
    assert!(run.text() == numbers, "what came out is not what went in");
    let tasks: u64 = run.stderr.split(' ').next().unwrap().parse().unwrap();
    assert!((2..=15).contains(&tasks), "{tasks} commands");
    // What no command line has room for is alone, and fails alone.
    let long = format!("a\n{}\nb\n", "x".repeat(130_000));
    assert_eq!(count("-X", &long), "1\n1 1\n1\n130000 130000\n1\n1 1\n");
    scene.assert_nothing_left();
}
