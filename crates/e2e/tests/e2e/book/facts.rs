//! Exit codes and limits in the book are those of the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tradewind_e2e::Scene;
use tradewind_node::exit;
use tradewind_proto::limits;
use tradewind_wire as wire;

use super::pages::Page;

#[test]
fn exit_codes_are_those_of_the_programs() {
    let codes = [
        exit::OK,
        exit::TASKS_FAILED,
        exit::USAGE,
        exit::INPUT,
        exit::OUTPUT,
        exit::LISTEN,
        exit::CONNECT,
        exit::REFUSED,
        exit::SYSTEM,
        exit::HANDLER,
        exit::WRONG_PEER,
        exit::COMMAND,
        exit::STOPPED,
        exit::CLOSED,
    ];
    let rows = Page::read("docs/src/exit-codes.md").rows("| code | meaning | in detail |");
    let in_book: Vec<u8> = rows.iter().map(|row| row[0].parse().expect("a code")).collect();
    assert_eq!(in_book, codes);

    for program in ["run", "ventilator", "worker", "relay", "sink", "serve"] {
        let help = Scene::new().ours("tradewind").args([program, "--help"]).run().expect(0);
        let help = help.text().to_owned();
        let (_, table) = help.split_once("Exit codes:\n").expect("it has them");
        let mut in_help = BTreeMap::new();
        for line in table.lines().take_while(|line| line.starts_with("  ")) {
            let (code, meaning) = line.trim().split_once(' ').expect("a code and its meaning");
            // What stands in parentheses is a detail.
            let meaning = meaning.split(" (").next().unwrap_or_default();
            in_help.insert(code.to_owned(), meaning.trim().to_owned());
        }
        let in_book: BTreeMap<_, _> =
            rows.iter().map(|row| (row[0].clone(), row[1].replace('`', ""))).collect();
        assert_eq!(in_book, in_help, "tradewind {program} --help");
    }
}

#[test]
fn exit_codes_of_the_commands_of_queues_are_those_of_their_help() {
    let rows = Page::read("docs/src/queues.md").rows("| exit code | meaning |");
    let in_book: BTreeSet<&str> = rows.iter().flat_map(|row| row[0].split(", ")).collect();
    for command in super::flags::CLIENTS.iter().filter(|command| !command.contains(' ')) {
        let help = Scene::new().ours("tradewind").args([command, "--help"]).run().expect(0);
        let (_, table) = help.text().split_once("Exit codes:\n").expect("it has them");
        let lines = table.lines().take_while(|line| line.starts_with("  "));
        let in_help: BTreeSet<&str> =
            lines.filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(in_book, in_help, "tradewind {command} --help");
    }
}

/// Bytes as a book writes them.
fn size(bytes: u64) -> String {
    match bytes {
        bytes if bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        bytes if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        bytes if bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// A number with commas.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn time(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

#[test]
fn limits_are_those_of_the_programs() {
    let message = limits::MESSAGE_BYTES_MAX;
    let room = limits::MESSAGE_OVERHEAD_BYTES;
    let lanes = tradewind_lanes::LaneOptions::default();
    let payload = format!("{} less {}", size(message), size(room));
    let wanted: Vec<(&str, Vec<String>)> = vec![
        ("a message, and so a task or a result", vec![size(message)]),
        ("what of that is not for the payload", vec![size(room)]),
        ("a task", vec![payload.clone()]),
        ("a task's output", vec![size(limits::OUTPUT_BYTES_MAX)]),
        ("a result", vec![payload]),
        ("stderr in a record", vec![size(limits::STDERR_BYTES_MAX as u64)]),
        ("the reason in a record", vec![size(limits::ERROR_BYTES_MAX as u64)]),
        (
            "a worker's, a job's or a stage's name",
            vec![format!("{} bytes", limits::NAME_BYTES_MAX)],
        ),
        ("slots of a worker", vec![count(limits::SLOTS_MAX.into())]),
        ("tasks handed out whose records are not stored", vec![count(limits::UNSETTLED_TASKS_MAX)]),
        (
            "tasks that one worker holds",
            vec![
                count(limits::CREDIT_TASKS_MAX),
                format!("{} ms", limits::QUEUED_WORK_TARGET.as_millis()),
            ],
        ),
        ("task bytes that one worker holds", vec![size(limits::CREDIT_BYTES_MAX)]),
        (
            "record bytes that wait in the sink's memory for an earlier record",
            vec![size(limits::WAITING_BYTES_MAX), size(limits::SPOOL_BYTES_MAX)],
        ),
        ("record bytes that the sink holds in order", vec![size(limits::HELD_BYTES_MAX)]),
        ("record bytes that a sink or relay holds", vec![size(limits::TAKEN_BYTES_MAX)]),
        ("task bytes that the ventilator keeps", vec![size(limits::RETAINED_BYTES_MAX)]),
        (
            "connections to one port",
            vec![count(lanes.connections_max as u64), count(lanes.connections_reserved as u64)],
        ),
        (
            "connections to one port from one address",
            vec![count(lanes.connections_per_address as u64)],
        ),
        (
            "connections to one port that have not said who they are",
            vec![count(lanes.half_open_max as u64)],
        ),
        (
            "messages that have begun to arrive and are not complete, of all peers of a program",
            vec![size(tradewind_lanes::UNFINISHED_BYTES_MAX)],
        ),
        ("a message to a ventilator", vec![size(limits::TO_VENTILATOR_BYTES_MAX)]),
        (
            "what a sink or relay has to say to its ventilator",
            vec![size(tradewind_node::upstream::UNTAKEN_BYTES_MAX)],
        ),
        (
            "a message that arrives slowly",
            vec![
                format!("{}/s", size(tradewind_lanes::RATE_BYTES_MIN)),
                time(lanes.message_lag_max),
            ],
        ),
        ("a worker's silence", vec![time(limits::WORKER_TIMEOUT)]),
        ("losses of a task", vec![limits::LOSSES_MAX.to_string()]),
        (
            "pause before a failed task is tried again",
            vec![time(limits::RETRY_BACKOFF_MIN), time(limits::RETRY_BACKOFF_MAX)],
        ),
        ("sent data that is not acknowledged", vec![time(lanes.unacked_max)]),
    ];
    let rows = Page::read("docs/src/limits.md").rows("| what | limit | where to change it |");
    for (what, values) in wanted {
        let row = rows.iter().find(|row| row[0] == what);
        let row = row.unwrap_or_else(|| panic!("the book has no limit of {what}"));
        for value in values {
            let has_it = row[1].split([',', ';']).any(|part| part.contains(&value))
                || row[1].contains(&value);
            assert!(has_it, "{what}: {} in the book, {value} in the programs", row[1]);
        }
    }
    assert_eq!(size(wire::FRAME_BYTES_MAX as u64), "1 GiB");
}

#[test]
fn limits_of_queues_are_those_of_the_server() {
    let http = tradewind_http::Limits::default();
    let keys = tradewind_store::TasksOptions::default().keys_max;
    let key = tradewind_http::KEY_BYTES_MAX;
    let wanted: [(&str, Vec<String>); 6] = [
        ("a task", vec![size(http.task_bytes_max as u64)]),
        (
            "a request",
            vec![
                size(http.body_bytes_max as u64),
                count(http.tasks_max as u64),
                size(http.bodies_bytes_max as u64),
            ],
        ),
        ("a key", vec![format!("{key} bytes"), count(keys as u64)]),
        ("consumers of a queue", vec![count(tradewind_store::CONSUMERS_MAX as u64)]),
        (
            "HTTP connections",
            vec![
                count(http.connections_max as u64),
                count(http.connections_per_address_max as u64),
            ],
        ),
        ("a wait over HTTP", vec![time(http.wait_max)]),
    ];
    let rows = Page::read("docs/src/queues.md").rows("| limit | |");
    for (what, values) in wanted {
        let row = rows.iter().find(|row| row[0] == what);
        let row = row.unwrap_or_else(|| panic!("the book has no limit of {what}"));
        for value in values {
            assert!(row[1].contains(&value), "{what}: {} in the book, {value} there", row[1]);
        }
    }
}

#[test]
fn limits_of_the_protocol_are_those_of_the_codec() {
    let page = Page::read("docs/src/protocol.md").text;
    let version = format!("This is version **{}**", wire::VERSION);
    let holds = [
        version,
        format!("At most {} bytes.\n\n```hex\n{:02x} 63", wire::CARD_BYTES_MAX, wire::VERSION),
        format!("at most {} bytes, no hidden characters", limits::NAME_BYTES_MAX),
        format!("else 1 to {}", count(limits::SLOTS_MAX.into())),
        format!("list of ranges, at most {}", count(limits::RANGES_MAX as u64)),
        format!(
            "hashes of all of these together, by seq (list, at most {})",
            count(limits::RANGES_MAX as u64)
        ),
        format!(
            "Run these. At most {}; senders stop at {}",
            count(limits::BATCH_TASKS_MAX as u64),
            size(limits::BATCH_BYTES_MAX as u64)
        ),
        format!(
            "A worker's results. At most {}; senders stop at {}",
            count(limits::BATCH_TASKS_MAX as u64),
            size(limits::BATCH_BYTES_MAX as u64)
        ),
        format!("(optional list, at most {})", count(limits::WORKERS_MAX as u64)),
        format!("(list, at most {})", count(tradewind_proto::message::RECEIVED_MAX as u64)),
        format!("error (text, at most {})", size(limits::ERROR_BYTES_MAX as u64)),
        format!("bytes, at most {}", size(limits::STDERR_BYTES_MAX as u64)),
        format!("A worker that is not heard for {}", time(limits::WORKER_TIMEOUT)),
        format!("a task or a result has {} less", size(limits::MESSAGE_OVERHEAD_BYTES)),
    ];
    for text in holds {
        assert!(page.contains(&text), "docs/src/protocol.md lacks: {text}");
    }
    assert_eq!(limits::HEARTBEAT_INTERVAL, Duration::from_secs(1), "the page says once a second");
}
