//! Headers that lack what commands ask for, and lines that commands read from standard input.

use tradewind_e2e::Scene;

#[test]
fn a_field_that_the_header_lacks_is_an_error_before_the_first_task() {
    let csv = "name,mail\na,b\nc,d\n";
    let check = |flags: &str, input: &str, command: &[&str], wanted: &str| {
        let scene = Scene::new();
        let run = scene.run().words(flags).input(input).arg("--").args(command);
        let ended = run.run().expect(3);
        assert_eq!(ended.text(), "");
        assert!(ended.stderr.contains(wanted), "{command:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("line 1"), "{}", ended.stderr);
        scene.assert_nothing_left();
    };
    let wanted = "the command asks for the field \"Name\", which the header does not have: it has \
                  \"name\", \"mail\"";
    check("--input-format csv", csv, &["echo", "{Name}"], wanted);
    check("--input-format csv --stdin", csv, &["cat", "{Name}"], wanted);
    check("--input-format csv", csv, &["echo", "{name}-{3}"], "the field \"3\"");
    check("--header : --colsep ,", csv, &["echo", "{nam.}"], "the field \"nam.\"");
    check("--input-format csv", "a,b,a\n1,2,3\n", &["echo", "{a}"], "the name \"a\" twice");

    // A column that is not asked for may be there twice, or have no name.
    let scene = Scene::new();
    for (input, command) in [
        ("a,b,,\n1,2,3,4\n", ["echo", "{b}"]),
        ("a,b,a\n1,2,3\n", ["echo", "{b}"]),
        ("b,a\n2,1\n", ["echo", "{b.}"]),
        ("a,b\n1,2\n", ["echo", "{-1}"]),
    ] {
        let run = scene.run().words("--input-format csv").input(input).arg("--").args(command);
        assert_eq!(run.run().expect(0).text(), "2\n");
    }
    // Of jsonl each row has its own.
    let run = scene.run().words("--input-format jsonl").input("{\"a\":1}\n{\"b\":2}\n");
    let ended = run.args(["--", "echo", "{b}"]).run().expect(1);
    assert_eq!(ended.text(), "2\n");
}

#[test]
fn a_pipeline_asks_for_fields_in_its_first_stage() {
    let scene = Scene::new();
    let stage = |name: &str, command: &str| {
        format!("[[stage]]\nname = '{name}'\ncommand = \"{command}\"\n")
    };
    scene.file("p.toml", stage("a", "echo {Name}") + &stage("b", "echo"));
    let run = scene.run().words("--pipeline p.toml --input-format csv").input("name\nx\n");
    let ended = run.run().expect(3);
    assert!(ended.stderr.contains("asks for the field \"Name\""), "{}", ended.stderr);
}

#[test]
fn lines_end_in_a_newline_on_standard_input() {
    let scene = Scene::new();
    let numbers: String = (1..=6).map(|n| format!("{n}\n")).collect();
    let run = |flags: &str, input: &str, command: &str| {
        let run = scene.run().words("--stdin -j 1").words(flags).input(input);
        run.args(["--", "sh", "-c", command]).run().expect(0).text().to_owned()
    };
    assert_eq!(run("-n 3", &numbers, "wc -l"), "3\n3\n");
    let read = "while read x; do echo got $x; done";
    let all: String = (1..=6).map(|n| format!("got {n}\n")).collect();
    for flags in ["-n 3", "-n 4", "-n 1", ""] {
        assert_eq!(run(flags, &numbers, read), all, "{flags}");
    }
    assert_eq!(run("", "a\n\nb", "wc -c"), "2\n1\n2\n");
    assert_eq!(run("--colsep ,", "a,b\nc,d\n", "wc -l"), "1\n1\n");
    assert_eq!(run("-n 2 -0", "a\0b\0c\0", "tr '\\0' ,"), "a,b,\nc,\n");
    // What is no line is as it was.
    assert_eq!(run("-0", "a\0b", "wc -c"), "1\n1\n");
    assert_eq!(run("--input-format jsonl", "[1]\n[2]\n", "wc -c"), "3\n3\n");
    // The task itself has none: what is stored, compared and put in for {} is as it was.
    let run = scene.run().words("--stdin --with-task --output o.jsonl").input("a\n");
    run.args(["--", "sh", "-c", "printf %s \"$1\"; cat", "sh", "{}"]).run().expect(0);
    let text = String::from_utf8(scene.read("o.jsonl")).expect("it is text");
    assert!(text.contains("\"task\":\"a\"") && text.contains("\"output\":\"aa\\n\""), "{text}");
}
