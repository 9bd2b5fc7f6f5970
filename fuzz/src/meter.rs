//! The frame meter: how a stream is cut makes no difference to what passes and to the verdict.

use tradewind_lanes::meter::{Found, HELD_BYTES_MAX, Limits, Meter, Ready};

pub fn meter(mut data: &[u8]) {
    let limits = Limits {
        message_bytes_max: u64::from(super::byte(&mut data)) * 16,
        message_frames_max: u32::from(super::byte(&mut data) % 4),
    };
    let seed = super::byte(&mut data);
    // A greeting is long; most streams should come further than that.
    let mut stream = Vec::new();
    if seed & 1 == 0 {
        stream.extend_from_slice(&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0]);
        stream.extend_from_slice(b"NULL");
        stream.resize(64, 0);
        if seed & 2 == 0 {
            stream.extend_from_slice(b"\x04\x06\x05READY");
        }
    }
    stream.extend_from_slice(data);
    let whole = pass(limits, &stream, || usize::MAX);
    assert_eq!(pass(limits, &stream, || 1), whole, "byte by byte");
    let mut size = usize::from(seed);
    let uneven = pass(limits, &stream, || {
        size = size * 5 % 61 + 1;
        size
    });
    assert_eq!(uneven, whole, "in pieces");
}

/// How much passes, who the peer says it is, and how it ends.
fn pass(
    limits: Limits,
    stream: &[u8],
    mut size: impl FnMut() -> usize,
) -> (usize, Option<Ready>, Option<Found>) {
    let mut meter = Meter::new(limits);
    let (mut passed, mut seen, mut ready) = (0, 0, None);
    while seen < stream.len() {
        seen = stream.len().min(seen.saturating_add(size()));
        loop {
            let fed = meter.feed(&stream[passed..seen]);
            passed += fed.passed;
            assert!(passed <= seen, "more passed than there was");
            assert_eq!(meter.bytes_passed(), passed as u64);
            match fed.found {
                None => break,
                Some(Found::Ready(found)) => {
                    assert!(ready.is_none(), "a peer says once who it is");
                    ready = Some(found);
                }
                Some(end) => {
                    let again = meter.feed(&stream[passed..]);
                    assert_eq!((again.passed, again.found.as_ref()), (0, Some(&end)));
                    return (passed, ready, Some(end));
                }
            }
        }
        assert!(seen - passed <= HELD_BYTES_MAX, "too much is held back");
    }
    (passed, ready, None)
}
