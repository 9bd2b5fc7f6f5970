//! Answers that say why something was not done, as RFC 9457 has them.

use std::fmt;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use tradewind_queue::TaskId;
use tradewind_shown::shown;

/// Beginning of a problem's type.
const URN: &str = "urn:tradewind:";

/// Bytes of a detail that is kept.
const DETAIL_BYTES_MAX: usize = 1000;

/// An answer that says why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// Kind, by its type.
    pub kind: ProblemKind,
    /// Status of the answer.
    pub status: u16,
    /// What is wrong, for people.
    pub detail: String,
    /// Time after which the same may be asked again.
    pub retry_after: Option<Duration>,
    /// Of [`RecordsGone`](ProblemKind::RecordsGone): position of the first record that is kept.
    pub first: Option<u64>,
    /// Of [`OtherTask`](ProblemKind::OtherTask): the task that has the key.
    pub id: Option<TaskId>,
    /// Of [`OtherTask`](ProblemKind::OtherTask): the key.
    pub key: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shown(&self.detail))
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $urn:literal,)*) => {
        /// Kind of a problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ProblemKind {
            $($(#[$doc])* $name,)*
            /// Another kind: of a newer server, or of something between it and this program.
            Unknown,
        }

        impl ProblemKind {
            fn of(end: &str) -> Self {
                match end {
                    $($urn => Self::$name,)*
                    _ => Self::Unknown,
                }
            }

            #[cfg(test)]
            const KNOWN: &[&str] = &[$($urn,)*];
        }
    };
}

kinds! {
    /// The request is malformed.
    BadRequest = "bad-request",
    /// A token is needed.
    Unauthorized = "unauthorized",
    /// The request may come from a web page.
    Forbidden = "forbidden",
    /// There is no such path: a server of another version.
    NoResource = "no-resource",
    /// There is no such queue.
    UnknownQueue = "unknown-queue",
    /// There is no such task.
    UnknownTask = "unknown-task",
    /// There is no such consumer.
    UnknownConsumer = "unknown-consumer",
    /// The path has no such method: a server of another version.
    MethodNotAllowed = "method-not-allowed",
    /// The request came too slowly.
    Timeout = "timeout",
    /// The task has no record yet.
    Unsettled = "unsettled",
    /// The queue has tasks without a record.
    NotEmpty = "not-empty",
    /// The record is no longer kept.
    Gone = "gone",
    /// Records after the position are no longer kept.
    RecordsGone = "records-gone",
    /// A task or the body is too large, or the tasks are too many.
    TooLarge = "too-large",
    /// The URI is too long.
    UriTooLong = "uri-too-long",
    /// The body has another media type.
    MediaType = "media-type",
    /// The key is that of another task.
    OtherTask = "other-task",
    /// A value cannot be taken.
    BadValue = "bad-value",
    /// The headers are too many or too large.
    HeadTooLarge = "head-too-large",
    /// Another program answers that: the sink's server knows records, the ventilator's all.
    Elsewhere = "elsewhere",
    /// The request failed at the server, whose log has more.
    Failed = "failed",
    /// No more tasks fit: of the disk, or of a bound.
    Full = "full",
    /// The sink, on another host, does not answer.
    Away = "away",
    /// There are too many requests.
    Busy = "busy",
    /// The program ends.
    Closed = "closed",
}

#[derive(Deserialize)]
struct Written {
    r#type: String,
    status: Option<u16>,
    detail: Option<String>,
    title: Option<String>,
    first: Option<u64>,
    id: Option<String>,
    key: Option<String>,
}

impl Problem {
    /// Reads the body of an answer with such a status. One that is no problem is not of a server of ours.
    pub(crate) fn parse(
        status: Option<StatusCode>,
        retry_after: Option<Duration>,
        body: &[u8],
    ) -> Self {
        let written = serde_json::from_slice::<Written>(body).ok();
        let code = status.map_or(0, |status| status.as_u16());
        let Some(written) = written else {
            let reason = status.and_then(|status| status.canonical_reason()).unwrap_or("no reason");
            let detail = format!("status {code} ({reason})");
            let kind = ProblemKind::Unknown;
            let (first, id, key) = (None, None, None);
            return Self { kind, status: code, detail, retry_after, first, id, key };
        };
        let kind = written.r#type.strip_prefix(URN).map_or(ProblemKind::Unknown, ProblemKind::of);
        let mut detail = written.detail.or(written.title).unwrap_or_default();
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self {
            kind,
            status: written.status.filter(|_| code == 0).unwrap_or(code),
            detail,
            retry_after,
            first: written.first,
            id: written.id.and_then(|id| id.parse().ok()),
            key: written.key,
        }
    }

    /// Returns whether the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        use ProblemKind as K;
        match self.kind {
            K::Timeout | K::Full | K::Away | K::Busy | K::Closed => true,
            // Of a proxy whose server is not there.
            K::Unknown => matches!(self.status, 502..=504),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_its_kind_and_facts() {
        let body = br#"{"type":"urn:tradewind:other-task","title":"t","status":422,"detail":"d\u001b[2J","id":"q-7","key":"k"}"#;
        let problem = Problem::parse(Some(StatusCode::UNPROCESSABLE_ENTITY), None, body);
        assert_eq!((problem.kind, problem.status), (ProblemKind::OtherTask, 422));
        assert_eq!(problem.id, "q-7".parse().ok());
        assert_eq!(problem.key.as_deref(), Some("k"));
        assert_eq!(problem.to_string(), r"d\u{1b}[2J");
        assert!(!problem.is_transient());
        let body = br#"{"type":"urn:tradewind:closed","title":"t","status":503,"detail":"d"}"#;
        let problem = Problem::parse(None, None, body);
        assert_eq!((problem.kind, problem.status), (ProblemKind::Closed, 503));
        assert!(problem.is_transient());
    }

    #[test]
    fn what_is_no_problem_of_ours_is_of_an_unknown_kind() {
        for body in ["", "<html>", "[]", r#"{"type":"about:blank","detail":"x"}"#] {
            for (status, is_transient) in [(502, true), (404, false)] {
                let status = StatusCode::from_u16(status).unwrap();
                let problem = Problem::parse(Some(status), None, body.as_bytes());
                assert_eq!(problem.kind, ProblemKind::Unknown, "{body}");
                assert_eq!(problem.is_transient(), is_transient, "{body}");
            }
        }
    }

    #[test]
    fn the_kinds_are_those_of_the_server() {
        let server = include_str!("../../http/src/problem.rs");
        let is_type = |text: &&str| text.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let facts = server.split_once("fn facts").unwrap().1.split_once("\n    }\n").unwrap().0;
        let mut theirs: Vec<&str> =
            facts.split('"').skip(1).step_by(2).filter(|text| is_type(text)).collect();
        let mut ours = ProblemKind::KNOWN.to_vec();
        theirs.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, theirs);
    }
}
