use super::*;

const LIMITS: Limits = Limits { message_bytes_max: 1000, message_frames_max: 3 };

fn greeting() -> Vec<u8> {
    let mut bytes = vec![0; GREETING_BYTES];
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[12..16].copy_from_slice(b"NULL");
    bytes
}

fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![flags];
    if flags & LONG == 0 {
        bytes.push(body.len().try_into().unwrap());
    } else {
        bytes.extend((body.len() as u64).to_be_bytes());
    }
    bytes.extend(body);
    bytes
}

fn header(flags: u8, body_bytes: u64) -> Vec<u8> {
    let mut bytes = vec![flags | LONG];
    bytes.extend(body_bytes.to_be_bytes());
    bytes
}

fn handshake() -> Vec<u8> {
    [greeting(), frame(COMMAND, b"\x05READY\x0bSocket-Type\0\0\0\x04PUSH")].concat()
}

/// Feeds `bytes` in slices of the lengths that `cut` gives and carries over what did not pass, as the pump
/// does. Answers what passed, and how it ended.
fn pass(bytes: &[u8], cut: impl FnMut() -> usize) -> (Vec<u8>, Option<Found>) {
    let (passed, _, end) = pass_and_see(bytes, cut);
    (passed, end)
}

/// The same, and who the peer said it is.
fn pass_and_see(
    bytes: &[u8],
    mut cut: impl FnMut() -> usize,
) -> (Vec<u8>, Option<Ready>, Option<Found>) {
    let mut meter = Meter::new(LIMITS);
    let (mut carried, mut passed, mut rest) = (Vec::new(), Vec::new(), bytes);
    let mut ready = None;
    while !rest.is_empty() {
        let (slice, after) = rest.split_at(cut().clamp(1, rest.len()));
        rest = after;
        carried.extend(slice);
        loop {
            let metered = meter.feed(&carried);
            passed.extend(carried.drain(..metered.passed));
            assert_eq!(meter.bytes_passed(), passed.len() as u64);
            match metered.found {
                None => break,
                Some(Found::Ready(found)) => {
                    assert_eq!(ready, None, "a peer says once who it is");
                    ready = Some(found);
                }
                Some(end) => {
                    let again = Metered { passed: 0, found: Some(end.clone()) };
                    assert_eq!(meter.feed(&carried), again, "the end is final");
                    assert_eq!(meter.feed(&[]), again, "the end is final");
                    return (passed, ready, Some(end));
                }
            }
        }
        assert!(carried.len() < HELD_BYTES_MAX, "{} bytes held back", carried.len());
    }
    (passed, ready, None)
}

/// `good` passes and `bad` does not, however the stream is cut.
fn check(good: &[u8], bad: &[u8], violation: Option<Violation>) {
    check_end(good, bad, violation.map(Found::Violation));
}

fn check_end(good: &[u8], bad: &[u8], end: Option<Found>) {
    let stream = [good, bad].concat();
    let expected = (good.to_vec(), end);
    assert_eq!(pass(&stream, || usize::MAX), expected, "in one piece");
    assert_eq!(pass(&stream, || 1), expected, "byte by byte");
    for at in 1..stream.len() {
        let mut cuts = [at].into_iter();
        assert_eq!(pass(&stream, || cuts.next().unwrap_or(usize::MAX)), expected, "cut at {at}");
    }
}

fn check_after_handshake(good: &[Vec<u8>], bad: &[u8], violation: Option<Violation>) {
    check(&[handshake(), good.concat()].concat(), bad, violation);
}

#[test]
fn good_streams_pass_whole() {
    check_after_handshake(&[], b"", None);
    check_after_handshake(&[frame(0, b"")], b"", None);
    check_after_handshake(&[frame(0, b"a"), frame(LONG, b"b"), frame(0, &[7; 255])], b"", None);
    check_after_handshake(&[frame(LONG, &[7; 1000]), frame(LONG, &[7; 1000])], b"", None);
    let multipart = [frame(MORE, b"a"), frame(MORE, b""), frame(0, b"c")];
    check_after_handshake(&[multipart.clone(), multipart].concat(), b"", None);
    check(&[greeting(), frame(COMMAND | LONG, &[7; 4096])].concat(), b"", None);
}

#[test]
fn an_incomplete_header_is_held_back() {
    // Shortened by the header's last byte, so nothing of it passes and nothing is wrong yet.
    for header in [frame(0, b""), header(0, 500)] {
        let stream = [handshake(), header[..header.len() - 1].to_vec()].concat();
        assert_eq!(pass(&stream, || usize::MAX), (handshake(), None));
        assert_eq!(pass(&stream, || 1), (handshake(), None));
    }
}

#[test]
fn claims_beyond_the_limit_do_not_pass() {
    let too_big = |bytes| Some(Violation::Message { bytes, max: 1000 });
    check_after_handshake(&[], &header(0, 1001), too_big(1001));
    check_after_handshake(&[], &header(0, 64 << 40), too_big(64 << 40));
    check_after_handshake(&[], &header(0, u64::MAX), too_big(u64::MAX));
    check_after_handshake(&[frame(0, b"fine")], &header(0, u64::MAX), too_big(u64::MAX));
    check_after_handshake(&[frame(MORE | LONG, &[7; 600])], &header(0, 401), too_big(1001));
    check_after_handshake(&[frame(MORE, b"a")], &header(0, u64::MAX), too_big(u64::MAX));
    let command = Violation::Command { bytes: 4097 };
    check(&greeting(), &header(COMMAND, 4097), Some(command));
    check(&greeting(), &header(COMMAND, 64 << 40), Some(Violation::Command { bytes: 64 << 40 }));
}

#[test]
fn a_message_has_its_frames_counted() {
    let two = [frame(MORE, b"a"), frame(MORE, b"b")];
    check_after_handshake(&two, &frame(MORE, b"c"), Some(Violation::Frames { max: 3 }));
}

#[test]
fn a_peer_without_a_say_is_cut_off_at_its_first_word() {
    let mut meter = Meter::new(Limits { message_bytes_max: 1000, message_frames_max: 0 });
    let stream = [handshake(), frame(0, b"")].concat();
    let metered = meter.feed(&stream);
    assert!(matches!(metered.found, Some(Found::Ready(_))), "{metered:?}");
    let rest = meter.feed(&stream[metered.passed..]);
    let found = Some(Found::Violation(Violation::Frames { max: 0 }));
    assert_eq!((metered.passed + rest.passed, rest.found), (handshake().len(), found));
}

#[test]
fn the_handshake_comes_first_and_once() {
    check(&greeting(), &frame(0, b"a"), Some(Violation::Early));
    // Known to be killing, sent in place of READY.
    check(&greeting(), &header(0, 64 << 40), Some(Violation::Early));
    check_after_handshake(&[], &frame(COMMAND, b"\x04PING"), Some(Violation::Late));
    check_after_handshake(&[frame(MORE, b"a")], &frame(COMMAND, b""), Some(Violation::Late));
}

#[test]
fn an_incomplete_command_is_held_back() {
    let whole = handshake();
    for end in GREETING_BYTES..whole.len() {
        assert_eq!(pass(&whole[..end], || usize::MAX), (greeting(), None), "up to {end}");
    }
}

#[test]
fn who_the_peer_says_it_is_is_seen_before_it_passes() {
    let see = |body: &[u8]| {
        let stream = [greeting(), frame(COMMAND, body), frame(0, b"x")].concat();
        for cut in [1, 7, usize::MAX] {
            let (passed, ready, end) = pass_and_see(&stream, || cut);
            assert_eq!((passed, end), (stream.clone(), None));
            let ready = ready.unwrap();
            if cut == usize::MAX {
                return (ready.socket_type, ready.identity);
            }
        }
        unreachable!()
    };
    let pair = |a: &[u8], b: &[u8]| (a.to_vec(), b.to_vec());
    let push = b"\x05READY\x0bSocket-Type\0\0\0\x04PUSH";
    assert_eq!(see(push), pair(b"PUSH", b""));
    let both = [&push[..], b"\x08Identity\0\0\0\x02\xff\0"].concat();
    assert_eq!(see(&both), pair(b"PUSH", b"\xff\0"));
    let other = b"\x05READY\x03Foo\0\0\0\x01x\x08identity\0\0\0\x01i";
    assert_eq!(see(other), pair(b"", b"i"));
    // A property that makes no sense gives no peer; ZeroMQ will report it.
    for bad in [&b""[..], b"\x05HELLO", b"\x05READY\xff", b"\x05READY\x01a\xff\xff\xff\xff"] {
        assert_eq!(see(bad), pair(b"", b""), "{bad:?}");
    }
}

/// An ERROR command ends the stream wherever it comes, and never passes.
fn check_error(body: &[u8], shown: &str) {
    let end = Some(Found::Error(shown.to_owned()));
    for command in [frame(COMMAND, body), frame(COMMAND | LONG, body)] {
        check_end(&greeting(), &command, end.clone());
        check_end(&handshake(), &command, end.clone());
        check_end(&[handshake(), frame(0, b"x")].concat(), &command, end.clone());
        check_end(&[handshake(), frame(MORE, b"x")].concat(), &command, end.clone());
        check_end(&handshake(), &[command, b"\x07more".to_vec()].concat(), end.clone());
    }
}

#[test]
fn a_peer_says_why_it_closes() {
    check_error(b"\x05ERROR\x04why?", "why?");
    check_error(b"\x05ERROR\x02why?", "wh");
    check_error(b"\x05ERROR\x09why?", "why?");
    check_error(b"\x05ERROR\0", "no reason given");
    check_error(b"\x05ERROR", "no reason given");
    // A stranger chose the text: nothing in it may do something to a terminal.
    check_error(b"\x05ERROR\x09\x1b[2J\r\n\0\x7f\xff", "\\u{1b}[2J\\r\\n\\u{0}\\u{7f}\u{fffd}");
    check_error("\x05ERROR\x05a\u{202e}b".as_bytes(), "a\\u{202e}b");
    check_error("\x05ERROR\x05Größe".as_bytes(), "Grö\u{fffd}");
}

#[test]
fn what_we_say_is_what_the_peer_reads() {
    for reason in ["", "role worker may not connect", "ü", &"x".repeat(255), &"ü".repeat(200)] {
        let command = error_command(reason);
        let stream = [greeting(), command.clone()].concat();
        let (_, end) = pass(&stream, || usize::MAX);
        let Some(Found::Error(read)) = end else { panic!("{end:?}") };
        let read = if reason.is_empty() { "" } else { &read };
        assert!(reason.starts_with(read) && read.len() >= reason.len().min(254), "{read}");
    }
    assert_eq!(error_command("no"), b"\x04\x09\x05ERROR\x02no", "ZMTP 3.1's");
}

#[test]
fn it_is_known_what_has_come_of_a_message() {
    let mut meter = Meter::new(LIMITS);
    let mut feed = |bytes: &[u8]| {
        let _ = meter.feed(bytes);
        meter.unfinished().map(|it| (it.held, it.left))
    };
    assert_eq!(feed(&handshake()), None);
    assert_eq!(feed(&frame(0, b"whole")), None);
    assert_eq!(feed(&header(0, 10)), Some((0, 10)));
    assert_eq!(feed(b"1234"), Some((4, 6)));
    assert_eq!(feed(b"567890"), None);
    assert_eq!(feed(&frame(MORE, b"first")), Some((5, 0)));
    assert_eq!(feed(b"\x00\x03a"), Some((6, 2)));
    assert_eq!(feed(&[b"bc", &header(0, 100)[..]].concat()), Some((0, 100)));
}

#[test]
fn it_is_known_where_a_command_may_be_put() {
    let frames =
        [frame(0, b"a"), frame(COMMAND | LONG, b"\x05READY"), frame(0, b""), frame(LONG, b"abc")];
    let stream = frames.concat();
    let mut ends = Vec::new();
    for frame in &frames {
        ends.push(ends.last().unwrap_or(&0) + frame.len());
    }
    for cut in [1, 2, 5, 64, 1000] {
        let (mut track, mut sent) = (Track::default(), 0);
        for slice in stream.chunks(cut) {
            track.sent(slice);
            sent += slice.len();
            assert_eq!(track.is_between_frames(), ends.contains(&sent), "{sent} bytes by {cut}");
        }
    }
}

#[test]
fn unknown_flags_do_not_pass() {
    for flags in (0..=u8::MAX).filter(|flags| ![0, 1, 2, 3, 4, 6].contains(flags)) {
        let bad = [flags, 0, 0, 0, 0, 0, 0, 0, 0];
        check(&greeting(), &bad, Some(Violation::Flags { flags }));
        check_after_handshake(&[], &bad, Some(Violation::Flags { flags }));
    }
}

fn check_greeting(bytes: &[u8], at: usize) {
    let violation = Some(Found::Violation(Violation::Greeting { at, byte: bytes[at] }));
    for size in [usize::MAX, 1, 7] {
        assert_eq!(
            pass(bytes, || size),
            (bytes[..at].to_vec(), violation.clone()),
            "{size} at a time"
        );
    }
}

#[test]
fn other_protocols_and_mechanisms_do_not_pass() {
    check_greeting(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 0);
    for (at, byte) in [(0, 0), (9, 0), (10, 2), (12, b'P'), (15, 0), (16, b'A'), (31, 1)] {
        let mut bytes = greeting();
        bytes[at] = byte;
        check_greeting(&bytes, at);
    }
}

#[test]
fn a_peer_that_has_keys_is_known_as_one() {
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"\x15\x03\x03\x00\x02\x02\x0a"] {
        for size in [usize::MAX, 1] {
            let found = Some(Found::Violation(Violation::Tls));
            assert_eq!(pass(bytes, || size), (Vec::new(), found));
        }
    }
}

/// Reads `passed` as zmq.rs would and looks for what must never be there.
fn assert_harmless(passed: &[u8]) {
    let mut rest = passed.get(GREETING_BYTES..).unwrap_or_default();
    while !rest.is_empty() {
        let header = Header::read(rest).expect("known flags").expect("a whole header");
        assert!(!rest[header.size..].starts_with(b"\x05ERROR") || header.flags & COMMAND == 0);
        assert!(header.body_bytes <= COMMAND_BYTES_MAX.max(LIMITS.message_bytes_max));
        let size = header.size + usize::try_from(header.body_bytes).unwrap();
        rest = rest.get(size..).unwrap_or_default();
    }
}

#[test]
fn noise_never_panics_and_never_passes_an_oversize_header() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..2_000 {
        let mut stream = [Vec::new(), greeting(), handshake()][rng.usize(..3)].clone();
        for _ in 0..rng.usize(..20) {
            match rng.u8(..6) {
                4 => stream.extend(error_command(&"x".repeat(rng.usize(..300)))),
                5 => stream.extend(frame(COMMAND, b"\x05ERROR")),
                0 => stream.extend(frame(rng.u8(..4), &vec![7; rng.usize(..255)])),
                1 => stream.extend(header(rng.u8(..8), 1 << rng.u64(..64))),
                2 => stream.extend(frame(rng.u8(..2), &[])),
                _ => stream.extend((0..rng.usize(..40)).map(|_| rng.u8(..))),
            }
        }
        let (passed, end) = pass(&stream, || rng.usize(1..100));
        assert_harmless(&passed);
        assert!(stream.starts_with(&passed));
        let (whole, whole_end) = pass(&stream, || usize::MAX);
        assert_eq!(end, whole_end);
        if passed.len() >= GREETING_BYTES {
            assert_eq!(passed, whole, "cutting makes no difference");
        }
    }
}
