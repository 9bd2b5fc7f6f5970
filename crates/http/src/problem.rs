//! Answers that say why something was not done, as RFC 9457 has them.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use crate::refusal::Refusal;
use tradewind_queue::NameError;
use tradewind_queue::SettingError;

/// Media type of a problem.
pub(crate) const PROBLEM: &str = "application/problem+json";

/// Time after which a request that found no room may come again.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Kind of a problem: programs tell them apart by their type, people by their title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    BadRequest,
    Unauthorized,
    Forbidden,
    NoResource,
    UnknownQueue,
    UnknownTask,
    UnknownConsumer,
    MethodNotAllowed,
    Timeout,
    Unsettled,
    NotEmpty,
    Gone,
    RecordsGone,
    TooLarge,
    UriTooLong,
    MediaType,
    OtherTask,
    BadValue,
    HeadTooLarge,
    Elsewhere,
    Failed,
    Full,
    Away,
    Busy,
    Closed,
}

impl Kind {
    /// Returns the status, the end of the type, and the title.
    pub(crate) fn facts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (S::BAD_REQUEST, "bad-request", "The request is malformed"),
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "A token is needed"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The request may come from a web page"),
            Self::NoResource => (S::NOT_FOUND, "no-resource", "There is no such path"),
            Self::UnknownQueue => (S::NOT_FOUND, "unknown-queue", "There is no such queue"),
            Self::UnknownTask => (S::NOT_FOUND, "unknown-task", "There is no such task"),
            Self::UnknownConsumer => {
                (S::NOT_FOUND, "unknown-consumer", "There is no such consumer")
            }
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method-not-allowed", "The path has no such method")
            }
            Self::Timeout => (S::REQUEST_TIMEOUT, "timeout", "The request came too slowly"),
            Self::Unsettled => (S::CONFLICT, "unsettled", "The task has no record yet"),
            Self::NotEmpty => (S::CONFLICT, "not-empty", "The queue has tasks without a record"),
            Self::Gone => (S::GONE, "gone", "The record is no longer kept"),
            Self::RecordsGone => (S::GONE, "records-gone", "Records are no longer kept"),
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too-large", "The body is too large"),
            Self::UriTooLong => (S::URI_TOO_LONG, "uri-too-long", "The URI is too long"),
            Self::MediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "media-type", "The body has another media type")
            }
            Self::OtherTask => {
                (S::UNPROCESSABLE_ENTITY, "other-task", "The key is that of another task")
            }
            Self::BadValue => (S::UNPROCESSABLE_ENTITY, "bad-value", "A value cannot be taken"),
            Self::HeadTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "head-too-large",
                "The headers are too many or too large",
            ),
            Self::Elsewhere => {
                (S::MISDIRECTED_REQUEST, "elsewhere", "Another program answers that")
            }
            Self::Failed => (S::INTERNAL_SERVER_ERROR, "failed", "The request failed"),
            Self::Full => (S::SERVICE_UNAVAILABLE, "full", "No more tasks fit"),
            Self::Away => (S::SERVICE_UNAVAILABLE, "away", "What the queue needs does not answer"),
            Self::Busy => (S::SERVICE_UNAVAILABLE, "busy", "There are too many requests"),
            Self::Closed => (S::SERVICE_UNAVAILABLE, "closed", "The program ends"),
        }
    }
}

/// An answer that says why something was not done.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    detail: String,
    members: BTreeMap<&'static str, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Written<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    members: &'a BTreeMap<&'static str, Value>,
}

impl Problem {
    /// Makes a problem. Text of others in its detail is to be fit to be shown.
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), members: BTreeMap::new(), headers: Vec::new() }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        let challenge = HeaderValue::from_static("Bearer realm=\"tradewind\"");
        Self::new(Kind::Unauthorized, detail).with_header(WWW_AUTHENTICATE, challenge)
    }

    pub(crate) fn busy(detail: &'static str) -> Self {
        Self::new(Kind::Busy, detail).with_retry_after(BUSY_RETRY_AFTER)
    }

    pub(crate) fn method_not_allowed(allowed: &str) -> Self {
        let detail = format!("it has {allowed}");
        let allowed = HeaderValue::from_str(allowed).expect("methods are plain text");
        Self::new(Kind::MethodNotAllowed, detail).with_header(ALLOW, allowed)
    }

    /// A body of another media type than these.
    pub(crate) fn media_type(wanted: &'static str, is_patch: bool) -> Self {
        let problem = Self::new(Kind::MediaType, format!("the body is to be {wanted}"));
        match is_patch {
            true => problem.with_header(
                HeaderName::from_static("accept-patch"),
                HeaderValue::from_static(wanted),
            ),
            false => problem,
        }
    }

    /// Tells the client that no further request of its connection is read.
    pub(crate) fn closing(self) -> Self {
        self.with_header(CONNECTION, HeaderValue::from_static("close"))
    }

    fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.members.insert(name, value.into());
        self
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn with_retry_after(self, time: Duration) -> Self {
        // Whole seconds, and never none: a client that comes back at once finds the same.
        let seconds = time.as_millis().div_ceil(1000).clamp(1, 86_400);
        let value = HeaderValue::from_str(&seconds.to_string()).expect("digits are plain text");
        self.with_header(RETRY_AFTER, value)
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.kind.facts().0
    }

    /// Returns the seconds after which the request may come again, if that is known.
    pub(crate) fn retry_after(&self) -> Option<&str> {
        let mut headers = self.headers.iter();
        let (_, value) = headers.find(|(name, _)| *name == RETRY_AFTER)?;
        Some(value.to_str().expect("digits are plain text"))
    }

    /// Returns the JSON, on one line.
    pub(crate) fn json(&self) -> String {
        let (status, kind, title) = self.kind.facts();
        let r#type = format!("urn:tradewind:{kind}");
        let Self { detail, members, .. } = self;
        let written = Written { r#type, title, status: status.as_u16(), detail, members };
        serde_json::to_string(&written).expect("all keys are strings")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.json()));
        *response.status_mut() = self.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        response.headers_mut().extend(self.headers);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        let of = |kind| Self::new(kind, detail);
        match refusal {
            Refusal::UnknownQueue(_) | Refusal::UnknownPartition(_) => of(Kind::UnknownQueue),
            Refusal::UnknownTask(_) => of(Kind::UnknownTask),
            Refusal::UnknownConsumer { .. } => of(Kind::UnknownConsumer),
            Refusal::Gone(_) => of(Kind::Gone),
            Refusal::RecordsGone { first, .. } => of(Kind::RecordsGone).with("first", first),
            Refusal::Unsettled(_) => of(Kind::Unsettled),
            Refusal::OtherTask { key, id } => {
                of(Kind::OtherTask).with("key", key.as_str()).with("id", id.to_string())
            }
            Refusal::TwoTasks { key } => of(Kind::OtherTask).with("key", key.as_str()),
            Refusal::NotEmpty(_) => of(Kind::NotEmpty),
            Refusal::TooLarge { .. } => of(Kind::TooLarge),
            Refusal::Settings(_) => of(Kind::BadValue),
            Refusal::Full { retry_after, .. } => of(Kind::Full).with_retry_after(retry_after),
            Refusal::Elsewhere(_) => of(Kind::Elsewhere),
            Refusal::Away { retry_after, .. } => of(Kind::Away).with_retry_after(retry_after),
            Refusal::Closed => of(Kind::Closed).with_retry_after(BUSY_RETRY_AFTER),
            Refusal::Failed(_) => of(Kind::Failed),
        }
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

impl From<SettingError> for Problem {
    fn from(error: SettingError) -> Self {
        Self::new(Kind::BadValue, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_its_type_status_and_facts() {
        let id = "q-7".parse().unwrap();
        let key = "a\u{1b}b".to_owned().try_into().unwrap();
        let problem = Problem::from(Refusal::OtherTask { key, id });
        let wanted = concat!(
            r#"{"type":"urn:tradewind:other-task","title":"The key is that of another task","#,
            r#""status":422,"detail":"the key is that of task q-7, which is another task","#,
            r#""id":"q-7","key":"a\u001bb"}"#
        );
        assert_eq!(problem.json(), wanted);
        let key = "k".to_owned().try_into().unwrap();
        let two = Problem::from(Refusal::TwoTasks { key });
        let wanted = concat!(
            r#"{"type":"urn:tradewind:other-task","title":"The key is that of another task","#,
            r#""status":422,"detail":"two tasks of this request have the key, and are different ones","#,
            r#""key":"k"}"#
        );
        assert_eq!(two.json(), wanted);
        let response = problem.into_response();
        assert_eq!(response.status().as_u16(), 422);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM);
    }

    #[test]
    fn who_comes_back_does_so_after_a_whole_second_or_more() {
        for (retry_after, wanted) in [(0, "1"), (1, "1"), (1001, "2"), (90_000, "90")] {
            let retry_after = Duration::from_millis(retry_after);
            let problem = Problem::from(Refusal::Full { what: "the disk is full", retry_after });
            let response = problem.into_response();
            assert_eq!(response.status().as_u16(), 503);
            assert_eq!(response.headers()[RETRY_AFTER], wanted);
        }
    }
}
