use super::super::names::Asked;
use std::io::{self, Write};

use tradewind_proto::Payload;

use super::super::{Chunk, InputError, InputPath, Item};
use super::*;

/// More than any row here has.
const LARGE: usize = 10_000;

/// Reader that returns the input in reads of this number of bytes.
struct Pieces {
    input: Vec<u8>,
    size: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.size.min(self.input.len()).min(buffer.len());
        buffer[..size].copy_from_slice(&self.input[..size]);
        self.input.drain(..size);
        Ok(size)
    }
}

/// Everything that the input gives, and the error that it ends with.
fn read(format: &Format, input: &[u8], size: usize, bytes_max: usize) -> (Vec<Item>, String) {
    let reader = Pieces { input: input.to_vec(), size };
    let input = Input { reader, path: InputPath::Stdin, bytes: None };
    let mut source = input.tasks(format, bytes_max);
    let mut items = Vec::new();
    loop {
        match source.read() {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty());
                items.extend(chunk);
            }
            Ok(None) => return (items, String::new()),
            Err(error) => {
                assert_eq!(source.read().unwrap(), None, "after a bad row there is nothing");
                return (items, error.to_string());
            }
        }
    }
}

#[track_caller]
fn check_items(format: &Format, input: &[u8], bytes_max: usize, wanted: &[Item], error: &str) {
    for size in [1, 2, 3, 7, LARGE] {
        let (items, found) = read(format, input, size, bytes_max);
        let input = input.escape_ascii();
        assert_eq!(items, wanted, "{input} in reads of {size}: {found}");
        assert_eq!(found, error, "{input} in reads of {size}");
    }
}

#[track_caller]
fn check(format: &Format, input: impl AsRef<[u8]>, wanted: &[&str]) {
    check_bad(format, input, wanted, "");
}

/// It has these tasks, and then this is wrong.
#[track_caller]
fn check_bad(format: &Format, input: impl AsRef<[u8]>, wanted: &[&str], error: &str) {
    let wanted: Vec<_> = wanted.iter().map(|text| task(text)).collect();
    let error = if error.is_empty() { String::new() } else { format!("standard input, {error}") };
    check_items(format, input.as_ref(), LARGE, &wanted, &error);
}

fn task(text: &str) -> Item {
    Item::Task(Payload::from(text.to_owned()))
}

fn csv(separator: u8, has_header: bool) -> Format {
    Format::Csv { separator, has_header, asked: Asked::default() }
}

fn columns(colsep: Option<&str>) -> Format {
    let colsep = colsep.map(|text| text.parse().unwrap());
    Format::Columns { delimiter: Delimiter::Newline, colsep, asked: Asked::default() }
}

#[test]
fn groups_end_before_a_line_that_is_too_much_for_a_command_line() {
    let arguments = |lines: u32, bytes: u32| Format::Groups {
        delimiter: Delimiter::Newline,
        lines: NonZeroU32::new(lines).unwrap(),
        bytes: NonZeroU32::new(bytes),
    };
    // Each takes 10 bytes: itself, the NUL and a pointer.
    check(&arguments(100, 30), "a\nb\nc\nd\n", &["a\nb\nc", "d"]);
    check(&arguments(2, 30), "a\nb\nc\nd\n", &["a\nb", "c\nd"]);
    check(&arguments(100, 29), "a\nb\nc", &["a\nb", "c"]);
    check(
        &arguments(100, 29),
        "a\n0123456789012345678901234\nc\nd\n",
        &["a", "0123456789012345678901234", "c\nd"],
    );
    check(&arguments(100, 1), "a\n\nc\n", &["a", "", "c"]);
    check(&arguments(100, 30), "", &[]);
}

fn groups(delimiter: Delimiter, lines: u32) -> Format {
    Format::Groups { delimiter, lines: NonZeroU32::new(lines).unwrap(), bytes: None }
}

#[test]
fn rows_of_jsonl_are_passed_on_as_they_are() {
    let check = |input: &str, wanted: &[&str]| check(&Format::Jsonl, input, wanted);
    check("", &[]);
    check("{}", &["{}"]);
    check("{\"a\":1}\n[2, 3]\n", &["{\"a\":1}", "[2, 3]"]);
    check("{\"a\":1}\r\n{\"a\":2}\r\n", &["{\"a\":1}", "{\"a\":2}"]);
    check("  { \"b\" : 1.50,  \"a\":1e2 }\t\n", &["{ \"b\" : 1.50,  \"a\":1e2 }"]);
    check("\n\n{\"a\":1}\n \t\n\n{\"a\":2}\n\n", &["{\"a\":1}", "{\"a\":2}"]);
    check("\u{feff}{\"a\":1}\n", &["{\"a\":1}"]);
    check("{\"a\":{\"b\":[1,{\"c\":null}]}}\n", &["{\"a\":{\"b\":[1,{\"c\":null}]}}"]);
    check("{\"ü\":\"\\u00fc π\"}\n", &["{\"ü\":\"\\u00fc π\"}"]);
    let deep = format!("{}{}", "[".repeat(4_000), "]".repeat(4_000));
    check(&deep, &[&deep]);
}

#[test]
fn a_bad_row_of_jsonl_is_named_and_ends_the_input() {
    let check = |input: &[u8], wanted: &[&str], error: &str| {
        check_bad(&Format::Jsonl, input, wanted, error);
    };
    let row = "{\"a\":1}";
    let rows = |bad: &[u8]| [b"{\"a\":1}\n\n", bad, b"\n{\"a\":3}\n"].concat();
    check(&rows(b"{\"a\":"), &[row], "line 3: column 5 is not JSON: EOF while parsing a value");
    check(&rows(b"{\"a\" 1}"), &[row], "line 3: column 6 is not JSON: expected `:`");
    check(&rows(b"  {'a': 1}"), &[row], "line 3: column 4 is not JSON: key must be a string");
    check(&rows(b"{} {}"), &[row], "line 3: column 4 is not JSON: trailing characters");
    check(&rows(b"NaN"), &[row], "line 3: column 1 is not JSON: expected value");
    check(&rows(b" [\"\xff\"]"), &[row], "line 3: column 4 is not UTF-8");
    for (bad, found) in
        [("5", "a number"), ("-1", "a number"), ("\"a\"", "a string"), ("null", "null")]
    {
        let error = format!("line 3: a row is an object or an array, not {found}");
        check(&rows(bad.as_bytes()), &[row], &error);
    }
    check(b"{\n  \"a\": 1\n}\n", &[], "line 1: column 1 is not JSON: EOF while parsing an object");
}

#[test]
fn a_row_that_is_too_large_keeps_its_place() {
    let large = |bytes| Item::TooLarge { bytes };
    let check = |format: &Format, input: &str, wanted: &[Item]| {
        check_items(format, input.as_bytes(), 12, wanted, "");
    };
    let input = "[1,2,3,4,5,6]\n[1]\n[\"12345678\"]\n[\"123456789\"]";
    let wanted = [large(13), task("[1]"), task("[\"12345678\"]"), large(13)];
    check(&Format::Jsonl, input, &wanted);
    let input = "12345678\n123456789\n1\n";
    check(&csv(b',', false), input, &[task("[\"12345678\"]"), large(13), task("[\"1\"]")]);
    check(&csv(b',', true), "a\n12\n123456\n\n", &[task("{\"a\":\"12\"}"), large(14)]);
    check(&columns(None), "a\n12\n123456\n", &[task("{\"a\":\"12\"}"), large(14)]);
    let input = "12345\n123456\n1\n12345678901\n1\n1234567890123\n1";
    let wanted = [task("12345\n123456"), large(13), large(15), task("1")];
    check(&groups(Delimiter::Newline, 2), input, &wanted);
}

#[test]
fn a_huge_row_is_skipped_without_being_kept() {
    let long = "x\n".repeat(5_000);
    let input = format!("a\n\"{long}\"\nb\n\"");
    let error = "standard input, line 5004: a quote that begins in this row has no end";
    let wanted = [task("[\"a\"]"), Item::TooLarge { bytes: 10_000 }, task("[\"b\"]")];
    check_items(&csv(b',', false), input.as_bytes(), 5_000, &wanted, error);
    let error = "standard input, line 1: the header has 10000 bytes, more than the 5000 that a row \
                 may have";
    let input = format!("\"{long}\",a\n1,2\n").replace(",a", "");
    check_items(&csv(b',', true), input.as_bytes(), 5_000, &[], error);
    let input = "x".repeat(10_000);
    check_items(&columns(None), input.as_bytes(), 5_000, &[], error);
}

#[test]
fn rows_of_csv_are_objects_of_what_the_header_names() {
    let check = |input: &str, wanted: &[&str]| check(&csv(b',', true), input, wanted);
    check("", &[]);
    check("a,b\n", &[]);
    check("a,b", &[]);
    check("a,b\n1,2\n3,4", &["{\"a\":\"1\",\"b\":\"2\"}", "{\"a\":\"3\",\"b\":\"4\"}"]);
    check("a,b\r\n1,2\r\n", &["{\"a\":\"1\",\"b\":\"2\"}"]);
    check("a,b\r1,2\r", &["{\"a\":\"1\",\"b\":\"2\"}"]);
    check("\u{feff}a,b\n1,2\n", &["{\"a\":\"1\",\"b\":\"2\"}"]);
    check("\u{feff}\"a\",b\n1,2\n", &["{\"a\":\"1\",\"b\":\"2\"}"]);
    check("\u{feff}", &[]);
    check("\n\na,b\n\n1,2\n\n\n", &["{\"a\":\"1\",\"b\":\"2\"}"]);
    check("a,b\n,\n", &["{\"a\":\"\",\"b\":\"\"}"]);
    check("a,\n1,2\n", &["{\"a\":\"1\",\"\":\"2\"}"]);
    check("a\n\"\"\n", &["{\"a\":\"\"}"]);
    check("First Name\n Ada \n", &["{\"First Name\":\" Ada \"}"]);
    check("größe\nπ\n", &["{\"größe\":\"π\"}"]);
    check("\"a \"\"q\"\"\"\n\"x\"\"y\"\n", &["{\"a \\\"q\\\"\":\"x\\\"y\"}"]);
}

#[test]
fn csv_is_quoted_as_rfc_4180_has_it() {
    let check = |input: &str, wanted: &[&str]| check(&csv(b',', false), input, wanted);
    check("1,2\n3\n", &["[\"1\",\"2\"]", "[\"3\"]"]);
    check("\"a,b\",c\n", &["[\"a,b\",\"c\"]"]);
    check("\"a\nb\",\"c\r\nd\"\ne,f", &["[\"a\\nb\",\"c\\r\\nd\"]", "[\"e\",\"f\"]"]);
    check("\"a\"\"b\"\n", &["[\"a\\\"b\"]"]);
    check("a\"b,c\n", &["[\"a\\\"b\",\"c\"]"]);
    check("\"a\"", &["[\"a\"]"]);
    check("a\\nb,\tc\n", &["[\"a\\\\nb\",\"\\tc\"]"]);
    super::tests::check(&csv(b'\t', false), "a,b\tc\n", &["[\"a,b\",\"c\"]"]);
    super::tests::check(&csv(b';', true), "a;b\n1;2\n", &["{\"a\":\"1\",\"b\":\"2\"}"]);
}

#[test]
fn a_bad_row_of_csv_is_named_by_the_line_where_it_begins() {
    let check = |header: bool, input: &[u8], wanted: &[&str], error: &str| {
        check_bad(&csv(b',', header), input, wanted, error);
    };
    let first = "{\"a\":\"1\",\"b\":\"2\"}";
    let long = "a,b\n1,2\n1,2,3\n1,2\n";
    check(true, long.as_bytes(), &[first], "line 3: 3 fields where the header has 2");
    check(true, b"a,b\n1,2\n\n\n1", &[first], "line 5: 1 field where the header has 2");
    check(true, b"a,b\r\n1,2\r\n\r\n1\r\n", &[first], "line 4: 1 field where the header has 2");
    let lines = "{\"a\":\"1\\n\\n\",\"b\":\"2\"}";
    check(true, b"a,b\n\"1\n\n\",2\n1\n", &[lines], "line 5: 1 field where the header has 2");
    check(true, b"a,b\n1,2\n\"3\n\n\"\n", &[first], "line 3: 1 field where the header has 2");
    check(true, b"a,b\n1,2\n3,\xff\n", &[first], "line 3: column 2 is not UTF-8");
    check(true, b"a,\xff\n1,2\n", &[], "line 1: column 2 is not UTF-8");
    let open = "a quote that begins in this row has no end";
    check(true, b"a,b\n1,2\n3,\"4\n5,6\n", &[first], &format!("line 3: {open}"));
    check(false, b"1\n\"2\"\"", &["[\"1\"]"], &format!("line 2: {open}"));
    check(false, b"\"", &[], &format!("line 1: {open}"));
    let twice = "line 1: the header has the name \"a\" twice, in columns 1 and 3";
    check(true, b"a,b,a\n1,2,3\n", &[], twice);
}

#[test]
fn a_row_has_no_more_fields_than_can_be_kept() {
    let input = format!("1\n{}\n2\n", ",".repeat(5 << 20));
    let (items, error) = read(&csv(b',', false), input.as_bytes(), 1 << 20, 64 << 20);
    assert_eq!(items, [task("[\"1\"]")]);
    assert_eq!(error, "standard input, line 2: more than 1048576 fields");
}

#[test]
fn columns_under_a_header_have_its_names() {
    let check = |colsep, input: &str, wanted: &[&str]| check(&columns(colsep), input, wanted);
    check(Some(","), "a, b\n1 ,2\n", &["{\"a\":\"1\",\"b\":\"2\"}"]);
    check(Some(r"\s+"), "a b\n1   2\n", &["{\"a\":\"1\",\"b\":\"2\"}"]);
    check(Some(","), "\u{feff}a,b\r\n1,2\r\n", &["{\"a\":\"1\",\"b\":\"2\"}"]);
    check(None, "file\r\n a b \r\n", &["{\"file\":\" a b \"}"]);
    check(None, "file\na\r\n\n", &["{\"file\":\"a\\r\"}", "{\"file\":\"\"}"]);
    check(Some(","), "a,b\n", &[]);
    let first = "{\"a\":\"1\",\"b\":\"2\"}";
    let check_bad = |input: &[u8], wanted: &[&str], error| {
        check_bad(&columns(Some(",")), input, wanted, error);
    };
    check_bad(b"a,b\n1,2\n3\n", &[first], "line 3: 1 field where the header has 2");
    check_bad(b"a,b\n1,2\n3,\xff\n", &[first], "line 3: column 2 is not UTF-8");
    check_bad(
        b"a,a\n1,2\n",
        &[],
        "line 1: the header has the name \"a\" twice, in columns 1 and 2",
    );
}

#[test]
fn lines_are_grouped_as_they_are() {
    use Delimiter::{Newline, Nul};
    let check = |delimiter, lines, input: &str, wanted: &[&str]| {
        check(&groups(delimiter, lines), input, wanted);
    };
    check(Newline, 2, "", &[]);
    check(Newline, 2, "a\nb\nc\nd\n", &["a\nb", "c\nd"]);
    check(Newline, 2, "a\nb\nc", &["a\nb", "c"]);
    check(Newline, 3, "\n\n\n\n", &["\n\n", ""]);
    check(Newline, 1, "a\n\nb\n", &["a", "", "b"]);
    check(Newline, 1000, "a\nb\n", &["a\nb"]);
    check(Nul, 2, "a\n\0b\0c\0", &["a\n\0b", "c"]);
}

#[test]
fn short_rows_under_long_names_come_in_small_chunks() {
    let name = "x".repeat(100 << 10);
    let input = format!("{name}\n{}", "1\n".repeat(100));
    for format in [csv(b',', true), columns(None)] {
        let reader = Pieces { input: input.clone().into(), size: 1 << 20 };
        let input = Input { reader, path: InputPath::Stdin, bytes: None };
        let mut source = input.tasks(&format, 64 << 20);
        let mut tasks = 0;
        while let Some(chunk) = source.read().unwrap() {
            assert!(chunk.bytes() < 2 << 20, "{}", chunk.bytes());
            tasks += chunk.len();
        }
        assert_eq!(tasks, 100);
    }
}

#[test]
fn a_lone_row_is_handed_on_while_the_pipe_stays_open() {
    for (format, input, wanted) in [
        (Format::Jsonl, "[1]\n[2", "[1]"),
        (csv(b',', true), "a\n1\n2", "{\"a\":\"1\"}"),
        (columns(None), "a\n1\n2", "{\"a\":\"1\"}"),
        (groups(Delimiter::Newline, 2), "a\nb\nc", "a\nb"),
    ] {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(input.as_bytes()).unwrap();
        let input = Input { reader, path: InputPath::Stdin, bytes: None };
        let chunk = input.tasks(&format, LARGE).read().unwrap().unwrap();
        assert_eq!(chunk.into_iter().collect::<Vec<_>>(), [task(wanted)]);
    }
}

#[test]
fn a_read_that_fails_loses_nothing() {
    struct Bad(Vec<&'static str>);
    impl Read for Bad {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.pop() {
                Some("") => Err(io::Error::other("bad disk")),
                Some(text) => {
                    buffer[..text.len()].copy_from_slice(text.as_bytes());
                    Ok(text.len())
                }
                None => Ok(0),
            }
        }
    }
    let tasks = |found: Result<Option<Chunk>, InputError>| -> Vec<Item> {
        found.unwrap().unwrap().into_iter().collect()
    };
    for format in [Format::Jsonl, csv(b';', true), groups(Delimiter::Newline, 1)] {
        let reader = Bad(vec!["]\n", "", "[1]\n[2"]);
        let input = Input { reader, path: InputPath::Stdin, bytes: None };
        let mut source = input.tasks(&format, LARGE);
        if !matches!(format, Format::Csv { .. }) {
            assert_eq!(tasks(source.read()), [task("[1]")]);
        }
        let error = source.read().unwrap_err();
        assert_eq!(error.to_string(), "cannot read standard input: bad disk");
        let last = if matches!(format, Format::Csv { .. }) { "{\"[1]\":\"[2]\"}" } else { "[2]" };
        assert_eq!(tasks(source.read()), [task(last)]);
    }
}
