use bytes::Bytes;
use tradewind_proto::Payload;
use tradewind_proto::Rare;
use tradewind_proto::dispatcher::HaltOn;
use tradewind_proto::limits::{
    BATCH_TASKS_MAX, ERROR_BYTES_MAX, QUEUE_BYTES_MAX, RANGES_MAX, SEQS_MAX,
    TO_VENTILATOR_BYTES_MAX, WORKERS_MAX,
};
use tradewind_proto::message::{
    Card, Exit, Failure, InputEnd, Layout, Limits, News, Outcome, RECEIVED_MAX, Received, Report,
    Reported, Role, Start, Status, Task, TaskResult, ToSink, ToVentilator, ToWorker,
};
use tradewind_proto::{
    Attempt, CallId, JobId, JobKey, Seq, SeqRange, SeqRanges, SessionId, Tag, TaskHash,
};

use super::*;

const JOB: JobId = JobId(0x0102_0304_0506_0708);
const SESSION: SessionId = SessionId(7);

/// The message's bytes are exactly these, and these bytes are exactly the message; every shorter
/// and every longer frame is refused.
#[track_caller]
fn check<M: Message + PartialEq + std::fmt::Debug>(message: &M, golden: &str) {
    let frame = encode(message);
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden, "{message:?}");
    assert_eq!(&decode::<M>(&frame).expect("its own frame decodes"), message);
    for length in 0..frame.len() {
        let cut = frame.slice(..length);
        assert!(decode::<M>(&cut).is_err(), "{message:?} cut to {length} bytes");
    }
    let mut longer = frame.to_vec();
    longer.push(0);
    assert!(decode::<M>(&longer.into()).is_err(), "{message:?} with a byte more");
}

/// The bytes of messages that were checked, one example after the other: a change of one is a new protocol
/// version. Each of them stands in the protocol's page.
#[derive(Default)]
struct Golden(Vec<String>);

impl Golden {
    #[track_caller]
    fn check<M: Message + PartialEq + std::fmt::Debug>(&mut self, message: &M, bytes: &str) {
        check(message, bytes);
        self.0.push(bytes.to_owned());
    }

    fn all() -> Vec<String> {
        let mut golden = Self::default();
        messages_to_workers(&mut golden);
        messages_to_the_sink(&mut golden);
        messages_to_the_ventilator(&mut golden);
        cards(&mut golden);
        golden.0
    }
}

fn ranges(seqs: &[u64]) -> SeqRanges {
    seqs.iter().copied().map(Seq).collect()
}

fn task(payload: &'static [u8]) -> Task {
    Task {
        seq: Seq(300),
        attempt: Attempt(2),
        last: true,
        tag: Tag(0x0a0b),
        payload: Payload::from(payload),
        hash: TaskHash(300),
    }
}

fn result() -> TaskResult {
    TaskResult {
        seq: Seq(5),
        attempt: Attempt(1),
        last: false,
        tag: Tag(0x0102_0304_0506_0709),
        started_us: 1_700_000_000_000_000,
        ran_us: 250,
        task_bytes: 4,
        task_hash: TaskHash(70_000),
        outcome: Outcome {
            status: Status::Failed,
            exit: Exit::Code(-1),
            output: Payload::from(b"out"),
            stderr: Rare::from(b"err"),
            error: "bad".to_owned(),
        },
        reported: Some(Box::new(Reported {
            command: Payload::from(b"true x"),
            task: Payload::from(b"x"),
        })),
    }
}

fn messages_to_workers(golden: &mut Golden) {
    let job = JOB;
    let call = CallId(9);
    golden.check(
        &ToWorker::RollCall { job, call, layout: Layout::Unsaid },
        "087700fd08070605040302010900",
    );
    golden.check(
        &ToWorker::RollCall { job, call, layout: Layout::Whole },
        "087700fd08070605040302010901",
    );
    golden.check(
        &ToWorker::RollCall { job, call, layout: Layout::Json },
        "087700fd08070605040302010902",
    );
    golden.check(
        &ToWorker::RollCall { job, call, layout: Layout::Group(b'\n') },
        "087700fd080706050403020109030a",
    );
    let columns = Layout::Columns(r"\t".to_owned());
    golden.check(
        &ToWorker::RollCall { job, call, layout: columns },
        "087700fd08070605040302010904025c74",
    );
    // As the others, which differ in their last byte.
    let line = "087700fd08070605040302010905";
    check(&ToWorker::RollCall { job, call, layout: Layout::Line }, line);
    let limits = Limits { timeout_us: Some(1_000), report: Report { command: true, task: false } };
    let tasks = vec![task(b"abc"), task(b"")];
    golden.check(
        &ToWorker::Tasks { job, limits, tasks: tasks.into() },
        "087701fd080706050403020101fbe8030100180b0a0000000000002c0100000b0a0000000000002c0100000203fb2c01020361626303fb2c010200",
    );
    let settled = ToWorker::Settled { job, below: Seq(4), ranges: ranges(&[6, 7, 9]) };
    golden.check(&settled, "087702fd0807060504030201040206020901");
    golden.check(
        &ToWorker::Recall { job, call: CallId(9), keep: 300 },
        "087703fd080706050403020109fb2c01",
    );
    golden.check(&ToWorker::Cancel { job }, "087704fd0807060504030201");
    golden.check(&ToWorker::Drain, "087705");
    golden.check(&ToWorker::Ping, "087706");
    golden.check(&ToWorker::Done { job }, "087707fd0807060504030201");
    golden.check(&ToWorker::Limits { job, limits }, "087708fd080706050403020101fbe8030100");
}

fn messages_to_the_sink(golden: &mut Golden) {
    let (job, session) = (JOB, SESSION);
    golden.check(&ToSink::Results { job, session, results: vec![result()].into() }, "087300fd080706050403020107080907060504030201015805fd00401e18240a0600fa04fc70110100036f75740101010362616403657272067472756520780178");
    let plain = |exit| TaskResult {
        outcome: Outcome { exit, ..Outcome::ok(Payload::from(b"out")) },
        reported: None,
        ..result()
    };
    let results = vec![plain(Exit::None), plain(Exit::Code(0))].into();
    golden.check(&ToSink::Results { job, session, results }, "087300fd0807060504030201071009070605040302010907060504030201020005fd00401e18240a0600fa04fc70110100036f75740405fd00401e18240a0600fa04fc70110100036f7574");
    let heartbeat = News::Heartbeat { running: 2, queued: 300, slots: 4 };
    golden.check(&ToSink::News { session, news: heartbeat }, "087301070002fb2c0104");
    let holding = News::Holding {
        job,
        call: CallId(1),
        unfinished: ranges(&[1]),
        finished: ranges(&[]),
        hashes: vec![TaskHash(2)].into(),
        tags: vec![Tag(3)].into(),
    };
    golden.check(
        &ToSink::News { session, news: holding },
        "0873010701fd0807060504030201010101010001020103",
    );
    let returned = News::Returned { job, ranges: ranges(&[3, 4]) };
    golden.check(&ToSink::News { session, news: returned }, "0873010702fd0807060504030201010302");
    let recalled = News::Recalled { job, call: CallId(9), ranges: ranges(&[3, 4]) };
    golden.check(&ToSink::News { session, news: recalled }, "0873010706fd080706050403020109010302");
    golden.check(&ToSink::News { session, news: News::Reconnected }, "0873010703");
    let draining = News::Draining { reason: "no".to_owned() };
    golden.check(&ToSink::News { session, news: draining }, "0873010704026e6f");
    golden.check(&ToSink::News { session, news: News::Goodbye }, "0873010705");
    let open = |start| ToSink::JobOpen {
        job,
        name: "sums".to_owned(),
        start,
        stage: String::new(),
        is_untouched: false,
    };
    golden.check(&open(Start::New), "087302fd08070605040302010473756d73000000");
    golden.check(&open(Start::Resume), "087302fd08070605040302010473756d73010000");
    golden.check(&open(Start::RetryFailed), "087302fd08070605040302010473756d73020000");
    let close = |end| ToSink::JobClose { job, total: 1_000_000, end };
    golden.check(&close(InputEnd::Whole), "087303fd0807060504030201fc40420f0000");
    golden
        .check(&close(InputEnd::Halted(HaltOn::Success)), "087303fd0807060504030201fc40420f000101");
    golden.check(&close(InputEnd::CutShort), "087303fd0807060504030201fc40420f0002");
    golden.check(&ToSink::News { session, news: News::Gone }, "0873010708");
    let give_up = ToSink::GiveUp {
        job,
        seq: Seq(8),
        attempt: Attempt(3),
        task_hash: TaskHash(6),
        status: Status::Lost,
        error: "gone".to_owned(),
    };
    golden.check(&give_up, "087304fd08070605040302010803060304676f6e65");
    golden.check(&ToSink::JobDone { job }, "087305fd0807060504030201");
    golden.check(&ToSink::Ping, "087306");
    let hashes = vec![TaskHash(1), TaskHash(300)].into();
    golden.check(
        &ToSink::Inputs { job, from: Seq(5), hashes },
        "087307fd0807060504030201050201fb2c01",
    );
    let of_a_stage = ToSink::JobOpen {
        job,
        name: "sums".to_owned(),
        start: Start::New,
        stage: "parse".to_owned(),
        is_untouched: true,
    };
    golden.check(&of_a_stage, "087302fd08070605040302010473756d730005706172736501");
    let outcome = Outcome::error(Status::Skipped, "");
    let skipped = TaskResult { tag: Tag::default(), outcome, ..result() };
    let passed = ToSink::Forwarded {
        job,
        stage: "parse".to_owned(),
        worker: "w".to_owned(),
        results: vec![skipped].into(),
    };
    golden.check(&passed, "087308fd08070605040302010570617273650177011805fd00401e18240a0600fa04fc7011010000050000067472756520780178");
    golden.check(&ToSink::Cancel { job }, "087309fd0807060504030201");
}

fn messages_to_the_ventilator(golden: &mut Golden) {
    let (job, session) = (JOB, SESSION);
    let hello = ToVentilator::SinkHello {
        asked: JobId(4),
        job,
        sink: SessionId(3),
        stored: ranges(&[0, 1, 2]),
        again: ranges(&[5]),
        workers: Some(vec![session].into()),
        report: Report { command: true, task: false },
        key: JobKey::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]),
    };
    golden.check(
        &hello,
        "08760004fd0807060504030201030100030105010101070100000102030405060708090a0b0c0d0eff",
    );
    let received = vec![Received {
        session,
        ranges: ranges(&[5, 6]),
        ran_us_max: 70,
        ran_us_median: 60,
        ran_us_mean: 65,
        bytes: 90,
        failed: 1,
    }];
    let retry = vec![Failure { session, seq: Seq(7), attempt: Attempt(1), ran_us: 80 }];
    let receipt = ToVentilator::Receipt {
        job,
        received: received.into(),
        stored: ranges(&[4]),
        retry: retry.into(),
        held_bytes: 1 << 20,
        failed: 2,
    };
    golden.check(
        &receipt,
        "087601fd08070605040302010107010502463c415a010104010107070150fc0000100002",
    );
    golden.check(&ToVentilator::Relay { session, news: News::Goodbye }, "0876020705");
    golden.check(&ToVentilator::Relay { session, news: News::Alive }, "0876020707");
    golden.check(&ToVentilator::Complete { job }, "087603fd0807060504030201");
    golden.check(
        &ToVentilator::Refused { job, reason: "no".to_owned() },
        "087604fd0807060504030201026e6f",
    );
    golden.check(&ToVentilator::Ping { is_stuck: true }, "08760501");
    golden
        .check(&ToVentilator::Verified { job, below: Seq(300) }, "087606fd0807060504030201fb2c01");
}

fn card(name: &str) -> Card {
    Card {
        role: Role::Worker,
        session: SessionId(0xffee),
        slots: 4,
        message_bytes_max: 64 << 20,
        name: name.to_owned(),
        queue: String::new(),
    }
}

fn cards(golden: &mut Golden) {
    let queue = "thumbs".to_owned();
    golden.check(
        &Card { queue, ..card("host-1") },
        "086301fbeeff04fc0000000406686f73742d31067468756d6273",
    );
    golden.check(&card("host-1"), "086301fbeeff04fc0000000406686f73742d3100");
}

#[test]
fn cards_are_bounded() {
    let of = |queue: &str| Card {
        queue: queue.to_owned(),
        session: SessionId(u64::MAX),
        slots: SLOTS_MAX,
        message_bytes_max: u64::MAX,
        ..card(&"é".repeat(NAME_BYTES_MAX / 2))
    };
    assert!(encode(&of(&"q".repeat(QUEUE_BYTES_MAX))).len() <= CARD_BYTES_MAX);
    for queue in ["a\nb", &"q".repeat(QUEUE_BYTES_MAX + 1)] {
        assert!(decode::<Card>(&encode(&of(queue))).is_err(), "{queue:?}");
    }
    for name in ["a\nb", "\u{1b}[2J", &"x".repeat(NAME_BYTES_MAX + 1)] {
        assert!(decode::<Card>(&encode(&card(name))).is_err(), "{name:?}");
    }
    for slots in [0, SLOTS_MAX + 1] {
        let card = Card { slots, ..card("host-1") };
        assert!(decode::<Card>(&encode(&card)).is_err(), "{slots} slots");
    }
}

#[test]
fn messages_keep_their_bytes() {
    let golden = Golden::all();
    let different: std::collections::BTreeSet<_> = golden.iter().collect();
    assert_eq!(different.len(), golden.len(), "an example stands twice");
}

#[test]
fn every_status_and_exit_keeps_its_number() {
    let statuses = Status::ALL;
    let exits = [Exit::None, Exit::Code(300), Exit::Signal(9)];
    let encoded = |body: Vec<u8>| body.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut body = Vec::new();
    write(&statuses, &mut body);
    assert_eq!(encoded(body), "000102030405");
    let mut body = Vec::new();
    write(&exits, &mut body);
    assert_eq!(encoded(body), "0001fb58020212");
}

#[test]
fn any_mixture_of_fields_survives() {
    let statuses = Status::ALL;
    let exits = [Exit::None, Exit::Code(0), Exit::Code(3), Exit::Signal(9)];
    for (status, exit) in statuses.into_iter().flat_map(|s| exits.map(|e| (s, e))) {
        for choice in 0..64 {
            let has = |bit: u32| choice & 1 << bit != 0;
            let result = TaskResult {
                attempt: Attempt(if has(0) { 1 } else { 7 }),
                last: has(1),
                reported: has(2).then(|| {
                    let task = if has(5) { Payload::from(b"x") } else { Payload::new() };
                    Box::new(Reported { command: Payload::from(b"cmd"), task })
                }),
                outcome: Outcome {
                    status,
                    exit,
                    output: Payload::from(b"out"),
                    stderr: if has(4) { Rare::from(b"err") } else { Rare::default() },
                    error: if has(3) { "bad".to_owned() } else { String::new() },
                },
                ..result()
            };
            let message =
                ToSink::Results { job: JOB, session: SESSION, results: vec![result].into() };
            assert_eq!(decode::<ToSink>(&encode(&message)).unwrap(), message);
        }
    }
}

#[test]
fn a_result_by_itself_survives_and_nothing_else_is_one() {
    let mut bytes = b"before".to_vec();
    // It has proven already that its worker was given the task.
    let result = TaskResult { tag: Tag::default(), ..result() };
    encode_result(&result, &mut bytes);
    let whole = Bytes::from(bytes);
    assert_eq!(decode_result(&whole, 6).unwrap(), result);
    for end in 6..whole.len() {
        assert!(decode_result(&whole.slice(..end), 6).is_err());
    }
    let longer = Bytes::from([&whole[..], b"x"].concat());
    assert!(matches!(decode_result(&longer, 6), Err(DecodeError::Trailing(1))));
}

#[test]
fn fields_that_nobody_knows_are_refused() {
    let tasks = vec![task(b"abc")].into();
    let frame = encode(&ToWorker::Tasks { job: JOB, limits: Limits::default(), tasks });
    let mut frame = frame.to_vec();
    // The byte before the task's seq, its attempt and its payload.
    let head = frame.len() - 9;
    assert_eq!(frame[head], 3);
    frame[head] |= 1 << 2;
    assert!(decode::<ToWorker>(&frame.into()).is_err());
}

#[test]
fn a_list_of_which_too_little_or_too_much_travels_beside_it_is_refused() {
    let tasks = vec![task(b"abc"), task(b"")].into();
    let frame = encode(&ToWorker::Tasks { job: JOB, limits: Limits::default(), tasks });
    let at = frame.iter().position(|byte| *byte == 24).expect("12 bytes for each task");
    for bytes in [0, 12, 23, 25, 36] {
        let beside = vec![7; bytes];
        let frame = [&frame[..at], &[bytes as u8], &beside, &frame[at + 25..]].concat();
        assert!(decode::<ToWorker>(&frame.into()).is_err(), "{bytes} bytes");
    }
}

#[test]
fn long_payloads_share_the_frames_memory() {
    let tasks = vec![task(b"a payload that is too long to be copied")];
    let frame =
        encode(&ToWorker::Tasks { job: JOB, limits: Limits::default(), tasks: tasks.into() });
    let Ok(ToWorker::Tasks { tasks, .. }) = decode(&frame) else { panic!("tasks decode") };
    assert!(frame.as_ptr_range().contains(&tasks.0[0].payload.as_ptr()));
}

// Fails if a record that counts as some 4 KiB keeps a frame of any size.
#[test]
fn an_error_is_cut_while_it_is_read_and_nothing_keeps_its_frame() {
    let outcome = Outcome {
        output: Payload::from(b"an output of more than 23 bytes"),
        error: "\u{e9}".repeat(1 << 20),
        ..result().outcome
    };
    let results = vec![TaskResult { outcome, ..result() }].into();
    let frame = encode(&ToSink::Results { job: JOB, session: SESSION, results });
    let Ok(ToSink::Results { results, .. }) = decode(&frame) else { panic!("results decode") };
    assert!(frame.is_unique(), "it can be freed");
    let Outcome { output, error, .. } = &results.0[0].outcome;
    assert_eq!(*output, b"an output of more than 23 bytes");
    assert_eq!(*error, "\u{e9}".repeat(ERROR_BYTES_MAX / 2));
    assert_eq!(error.capacity(), ERROR_BYTES_MAX);

    let news = News::Draining { reason: "x".repeat(1 << 20) };
    let frame = encode(&ToSink::News { session: SESSION, news });
    let Ok(ToSink::News { news: News::Draining { reason }, .. }) = decode(&frame) else {
        panic!("news decode")
    };
    assert_eq!((reason.len(), reason.capacity()), (ERROR_BYTES_MAX, ERROR_BYTES_MAX));
}

#[test]
fn payloads_of_any_length_share_the_memory_of_an_honest_frame() {
    for length in [24, 100, 5_000] {
        for count in [1, 2, 100] {
            let output = Payload::from(vec![7; length]);
            let outcome = Outcome { exit: Exit::Code(0), ..Outcome::ok(output) };
            let result = TaskResult { outcome, reported: None, ..result() };
            let results = vec![result; count].into();
            let frame = encode(&ToSink::Results { job: JOB, session: SESSION, results });
            let message = decode::<ToSink>(&frame).expect("results decode");
            assert!(!frame.is_unique(), "{count} outputs of {length} bytes are copied");
            drop(message);
        }
    }
}

#[test]
fn another_version_or_channel_is_refused() {
    let frame = encode(&ToWorker::Ping);
    let mut newer = frame.to_vec();
    newer[0] = VERSION + 1;
    let refused = decode::<ToWorker>(&newer.into());
    assert!(matches!(refused, Err(DecodeError::Version { theirs }) if theirs == VERSION + 1));
    assert!(matches!(decode::<ToSink>(&frame), Err(DecodeError::Channel { theirs: 'w', .. })));
}

#[test]
fn a_list_beyond_its_bound_is_refused_however_small_it_is() {
    let batch = vec![task(b""); BATCH_TASKS_MAX];
    let full = ToWorker::Tasks { job: JOB, limits: Limits::default(), tasks: batch.into() };
    let mut frame = encode(&full).to_vec();
    assert_eq!(decode::<ToWorker>(&frame.clone().into()).expect("a full batch decodes"), full);
    // The count stands before the first task, as 0xfb and two bytes.
    let count = (BATCH_TASKS_MAX as u16).to_le_bytes();
    let at = frame.windows(3).position(|bytes| bytes == [0xfb, count[0], count[1]]);
    let at = at.expect("the batch's count is in the frame");
    frame[at + 1..at + 3].copy_from_slice(&(BATCH_TASKS_MAX as u16 + 1).to_le_bytes());
    let one_more = [0xfb, 0x2c, 0x01, 2, 1, 0];
    frame.extend_from_slice(&one_more);
    assert!(decode::<ToWorker>(&frame.into()).is_err());
}

/// Bytes that decoding a short frame may take at its peak, whatever that frame says of its lists.
const SHORT_FRAME_PEAK_MAX: u64 = 1 << 20;

/// Decodes the frame as each message, whether it is one or not.
#[track_caller]
fn decode_as_all(frame: Vec<u8>) {
    let frame = Bytes::from(frame);
    let taken = allocation_counter::measure(|| {
        let _ = decode::<ToWorker>(&frame);
        let _ = decode::<ToSink>(&frame);
        let _ = decode::<ToVentilator>(&frame);
        let _ = decode::<Card>(&frame);
    });
    let peak = taken.bytes_max;
    assert!(peak <= SHORT_FRAME_PEAK_MAX, "decoding {frame:?} takes {peak} bytes");
}

#[test]
fn no_bytes_make_the_decoder_panic_or_take_memory() {
    let seed: u64 = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..20_000 {
        let length = rng.usize(0..64);
        let mut frame: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
        for channel in [ToWorker::CHANNEL, ToSink::CHANNEL, ToVentilator::CHANNEL] {
            if frame.len() >= 2 {
                frame[..2].copy_from_slice(&[VERSION, channel]);
            }
            decode_as_all(frame.clone());
        }
    }
}

// Fails if a list or a text is made for as much as a frame says, whatever that is.
#[test]
fn no_length_that_a_frame_names_makes_the_decoder_panic_or_take_memory() {
    let lengths = [1 << 10, 1 << 16, 1 << 20, 1 << 24, 1 << 30, u64::MAX];
    for golden in Golden::all() {
        let byte = |place: usize| u8::from_str_radix(&golden[place..place + 2], 16).unwrap();
        let frame: Vec<u8> = (0..golden.len()).step_by(2).map(byte).collect();
        for place in 2..frame.len() {
            for length in lengths {
                // A number of eight bytes, in place of one of one byte.
                let mut changed = frame[..place].to_vec();
                changed.push(253);
                changed.extend_from_slice(&length.to_le_bytes());
                changed.extend_from_slice(&frame[place + 1..]);
                decode_as_all(changed);
            }
        }
    }
}

/// A frame with a list of ranges: each its first seq and its count.
fn returned(ranges: &[(u64, u64)]) -> Bytes {
    let returned = News::Returned { job: JOB, ranges: SeqRanges::new() };
    let frame = encode(&ToSink::News { session: SESSION, news: returned });
    let mut frame = frame[..frame.len() - 1].to_vec();
    write(&ranges, &mut frame);
    frame.into()
}

// Fails if a list of ranges is taken as it comes.
#[test]
fn ranges_that_are_not_normal_are_refused() {
    let last = SEQS_MAX - 1;
    for good in [&[][..], &[(0, 1)], &[(0, 1), (2, 1)], &[(5, 3), (9, 300)], &[(last, 1)]] {
        assert!(decode::<ToSink>(&returned(good)).is_ok(), "{good:?}");
    }
    let bad: [&[(u64, u64)]; 9] = [
        &[(3, 0)],
        &[(0, 2), (2, 1)],
        &[(0, 2), (1, 5)],
        &[(4, 1), (2, 1)],
        &[(4, 1), (4, 1)],
        &[(last, 2)],
        &[(SEQS_MAX, 1)],
        &[(0, u64::MAX)],
        &[(2, u64::MAX)],
    ];
    for bad in bad {
        assert!(decode::<ToSink>(&returned(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn seqs_beyond_the_last_one_are_refused() {
    let frame = |seq| {
        let tasks = vec![Task { seq: Seq(seq), ..task(b"x") }].into();
        encode(&ToWorker::Tasks { job: JOB, limits: Limits::default(), tasks })
    };
    assert!(decode::<ToWorker>(&frame(SEQS_MAX - 1)).is_ok());
    for seq in [SEQS_MAX, u64::MAX] {
        assert!(decode::<ToWorker>(&frame(seq)).is_err(), "{seq}");
    }
    let close = |total| encode(&ToSink::JobClose { job: JOB, total, end: InputEnd::Whole });
    assert!(decode::<ToSink>(&close(SEQS_MAX)).is_ok());
    assert!(decode::<ToSink>(&close(SEQS_MAX + 1)).is_err());
}

// Fails if a receipt may name more tasks than the results that it is for can have.
#[test]
fn a_receipt_for_more_results_than_a_message_has_is_refused() {
    let receipt = |count: u64| {
        let all = SeqRange { start: Seq(7), end: Seq(7 + count) };
        let received = Received {
            session: SESSION,
            ranges: SeqRanges::of(all),
            ran_us_max: 1,
            ran_us_median: 1,
            ran_us_mean: 1,
            bytes: 1,
            failed: 0,
        };
        encode(&ToVentilator::Receipt {
            job: JOB,
            received: vec![received].into(),
            stored: SeqRanges::new(),
            retry: vec![].into(),
            held_bytes: 0,
            failed: 0,
        })
    };
    assert!(decode::<ToVentilator>(&receipt(BATCH_TASKS_MAX as u64)).is_ok());
    assert!(decode::<ToVentilator>(&receipt(BATCH_TASKS_MAX as u64 + 1)).is_err());
}

// Fails if ranges are read into one list and copied into another, or reserved by what the frame says.
#[test]
fn ranges_take_at_most_eight_times_the_memory_of_their_frame() {
    for step in [2, 300, 100_000, 10_000_000_000] {
        let ranges: Vec<(u64, u64)> = (0..RANGES_MAX as u64).map(|n| (n * step, 1)).collect();
        for count in [1_000, 100_000, RANGES_MAX] {
            let frame = returned(&ranges[..count]);
            let taken = allocation_counter::measure(|| {
                assert!(decode::<ToSink>(&frame).is_ok());
            });
            let (peak, bytes) = (taken.bytes_max, frame.len() as u64);
            assert!(peak <= 8 * bytes + (256 << 10), "{count} by {step}: {peak} for {bytes}");
        }
    }
}

/// The bytes of an annotated block of the protocol's page: the hexadecimal numbers in front of each line.
fn bytes_in(block: &str) -> String {
    let is_byte = |word: &&str| word.len() == 2 && word.bytes().all(|it| it.is_ascii_hexdigit());
    block.lines().flat_map(|line| line.split(' ').take_while(is_byte)).collect()
}

#[test]
fn the_protocols_page_has_these_messages_and_no_others() {
    let page = include_str!("../../../docs/src/protocol.md");
    let blocks = page.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap_or(""));
    let mut in_page: Vec<String> = blocks.map(bytes_in).collect();
    let mut golden = Golden::all();
    in_page.sort();
    golden.sort();
    for bytes in &golden {
        assert!(in_page.contains(bytes), "docs/src/protocol.md lacks {bytes}");
    }
    assert_eq!(in_page, golden);
}

/// As many ranges as a list has, with the longest seqs.
fn most_ranges() -> SeqRanges {
    let first = SEQS_MAX - 2 * RANGES_MAX as u64;
    (0..RANGES_MAX as u64).map(|n| SeqRange::one(Seq(first + 2 * n))).collect()
}

#[test]
fn whatever_a_ventilator_hears_fits_into_a_message_to_it() {
    let holding = News::Holding {
        job: JOB,
        call: CallId(u64::MAX),
        unfinished: most_ranges(),
        finished: most_ranges(),
        hashes: vec![TaskHash(u32::MAX); RANGES_MAX].into(),
        tags: vec![Tag(u64::MAX); RANGES_MAX].into(),
    };
    let failure = Failure {
        session: SESSION,
        seq: Seq(SEQS_MAX - 1),
        attempt: Attempt::FIRST,
        ran_us: u64::MAX,
    };
    let batch = (0..BATCH_TASKS_MAX as u64).map(|n| Seq(SEQS_MAX - 1 - 2 * n)).collect();
    let received = Received {
        session: SessionId(u64::MAX),
        ranges: batch,
        ran_us_max: u64::MAX,
        ran_us_median: u64::MAX,
        ran_us_mean: u64::MAX,
        bytes: u64::MAX,
        failed: u64::MAX,
    };
    let messages = [
        ToVentilator::Relay { session: SESSION, news: holding },
        ToVentilator::Receipt {
            job: JOB,
            received: vec![received; RECEIVED_MAX].into(),
            stored: most_ranges(),
            retry: vec![failure; BATCH_TASKS_MAX].into(),
            held_bytes: u64::MAX,
            failed: u64::MAX,
        },
        ToVentilator::SinkHello {
            asked: JOB,
            job: JOB,
            sink: SESSION,
            stored: most_ranges(),
            again: most_ranges(),
            workers: Some(vec![SessionId(u64::MAX); WORKERS_MAX].into()),
            report: Report::default(),
            key: JobKey::new([0xff; 16]),
        },
    ];
    for message in &messages {
        let bytes = encode(message).len() as u64;
        assert!(bytes <= TO_VENTILATOR_BYTES_MAX, "{bytes} bytes");
        assert!(bytes > TO_VENTILATOR_BYTES_MAX / 4, "{bytes} bytes: the bound is for more");
    }
}
