//! How an output begins with a job, by what it has already.

use tradewind_proto::collector::{Counts, Opening};
use tradewind_proto::message::Start;
use tradewind_records::{Claim, Earlier, OpenError};

/// How an output begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// As the job's: it has nothing that counts.
    New,
    /// With the job that it has; pending if this is to be resumed by a ventilator of another one.
    GoOn(Option<Start>),
}

/// Decides how an output begins.
///
/// # Errors
///
/// When it cannot take the job's records.
pub(crate) fn begin(
    name: &str,
    opening: &Opening,
    claim: Option<&Claim>,
    counts: &Counts,
    is_complete: bool,
) -> Result<Begin, OpenError> {
    let refused =
        |reason: String| OpenError::Elsewhere { output: format!("output {name}"), reason };
    let count = counts.total();
    let Some(claim) = claim else {
        if count == 0 {
            return Ok(Begin::New);
        }
        let records = if count == 1 { "record" } else { "records" };
        let text = format!("has {count} {records} that are no job's; name another stream");
        return Err(refused(text));
    };
    if claim.job == opening.job {
        // The sink was started again, and the ventilator was not.
        return Ok(Begin::GoOn(None));
    }
    match opening.start {
        Start::New if count == 0 => Ok(Begin::New),
        Start::New => {
            let other = (claim.name != opening.name).then(|| claim.name.clone());
            let earlier = Earlier { count, not_ok: counts.not_ok(), is_complete, other };
            let text = format!("has {earlier}; --resume continues it, or name another stream");
            Err(refused(text))
        }
        Start::RetryFailed if counts.not_ok() > 0 => Err(OpenError::CannotRetry {
            needed: "a file as --output: a record in an engine is never replaced",
        }),
        start @ (Start::Resume | Start::RetryFailed) => Ok(Begin::GoOn(Some(start))),
    }
}

#[cfg(test)]
mod tests {
    use tradewind_proto::JobId;
    use tradewind_proto::collector::Order;
    use tradewind_records::Format;

    use super::*;

    #[test]
    fn an_output_begins_by_what_it_has() {
        let check = |job: Option<u64>, start: Start, (ok, failed): (u64, u64), wanted: &str| {
            let claim = job.map(|job| {
                Claim::new(JobId(job), "job".into(), Format::Jsonl, Order::Completion, false)
            });
            let opening = Opening {
                job: JobId(1),
                name: "job".into(),
                start,
                stage: String::new(),
                is_untouched: false,
                key: None,
            };
            let counts = Counts { ok, failed, ..Counts::default() };
            let begun = begin("nats://a/S", &opening, claim.as_ref(), &counts, true);
            let text = match begun {
                Ok(begun) => format!("{begun:?}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(text, wanted);
        };
        check(None, Start::New, (0, 0), "New");
        check(None, Start::Resume, (0, 0), "New");
        check(
            None,
            Start::Resume,
            (1, 0),
            "output nats://a/S has 1 record that are no job's; name another stream",
        );
        check(Some(1), Start::New, (3, 0), "GoOn(None)");
        check(Some(2), Start::New, (0, 0), "New");
        check(
            Some(2),
            Start::New,
            (3, 1),
            "output nats://a/S has 4 records of an earlier run of this job, which is complete, 1 of them not ok; \
             --resume continues it, or name another stream",
        );
        check(Some(2), Start::Resume, (3, 1), "GoOn(Some(Resume))");
        check(Some(2), Start::Resume, (0, 0), "GoOn(Some(Resume))");
        check(Some(2), Start::RetryFailed, (3, 0), "GoOn(Some(RetryFailed))");
        check(
            Some(2),
            Start::RetryFailed,
            (3, 1),
            "--retry-failed needs a file as --output: a record in an engine is never replaced",
        );
    }
}
