//! The `--sleep` handler: a task is a number of seconds. For trying things out.

use std::time::Duration;

use tradewind_proto::Payload;
use tradewind_proto::message::{Outcome, Status};

use super::{STOPPED, StopSignal};

/// The longest sleep. What asks for more is taken for a mistake.
const SLEEP_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Bytes of a task that is no number which are repeated in its error.
const NAMED_BYTES_MAX: usize = 100;

pub(super) fn run(payload: &[u8], stop: &StopSignal) -> Outcome {
    let Some(duration) = parse(payload) else {
        let named = String::from_utf8_lossy(&payload[..payload.len().min(NAMED_BYTES_MAX)]);
        let error = format!("not a number of seconds to sleep, such as 0.25: {named:?}");
        return Outcome::error(Status::Failed, error);
    };
    if stop.wait_timeout(duration) {
        return Outcome::error(Status::Failed, STOPPED);
    }
    Outcome::ok(Payload::new())
}

/// Plain decimals only: `str::parse` would take `1e9`, `-0` and `inf` too.
fn parse(payload: &[u8]) -> Option<Duration> {
    let text = payload.trim_ascii();
    if !text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.') {
        return None;
    }
    let seconds: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    let duration = Duration::try_from_secs_f64(seconds).ok()?;
    (duration <= SLEEP_MAX).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_is_a_decimal_number_of_seconds() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(parse(text.as_bytes()), millis.map(Duration::from_millis), "{text:?}");
        };
        check("0", Some(0));
        check("0.25", Some(250));
        check(" 3 \r\n", Some(3_000));
        check(".5", Some(500));
        check("2.", Some(2_000));
        check("31622400", Some(31_622_400_000));
        for text in ["", ".", "1.2.3", "-1", "+1", "1e3", "nan", "inf", "1 2", "0x1", "31622401"] {
            check(text, None);
        }
        check(&"9".repeat(400), None);
        assert_eq!(parse(b"1\xff"), None);
    }

    #[test]
    fn mistake_is_named_in_the_error() {
        let stop = StopSignal::new().unwrap();
        let outcome = run(b"soon", &stop);
        assert_eq!(outcome.status, Status::Failed);
        assert_eq!(outcome.error, r#"not a number of seconds to sleep, such as 0.25: "soon""#);
        assert!(run(&[0xff; 100_000], &stop).error.len() < 1_000);
    }

    #[test]
    fn sleep_ends_by_itself_or_when_stopped() {
        let stop = StopSignal::new().unwrap();
        assert_eq!(run(b"0.001", &stop), Outcome::ok(Payload::new()));
        stop.raise();
        assert_eq!(run(b"31622400", &stop), Outcome::error(Status::Failed, STOPPED));
    }
}
