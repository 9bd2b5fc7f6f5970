//! What can be asked.

use std::net::IpAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, Request};
use axum::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use tradewind_http::{Access, Peer};
use tradewind_proto::Seq;
use tradewind_seen::{By, Wanted, text};

use crate::events;
use crate::face::Face;
use crate::metrics;
use crate::page::PAGE;

/// Number of rows of a table that are sent, at most.
const ROWS_MAX: usize = 1_000;

/// What of the workers is asked for, and of the points.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    rows: Option<usize>,
    sort: Option<String>,
    down: Option<bool>,
    need: Option<String>,
    after: Option<f64>,
}

impl Asked {
    fn wanted(&self) -> Wanted {
        let default = Wanted::default();
        Wanted {
            rows: self.rows.unwrap_or(default.rows).min(ROWS_MAX),
            sort: self.sort.as_ref().and_then(|sort| sort.parse().ok()).unwrap_or(default.sort),
            is_down: self.down.unwrap_or(default.is_down),
            need: self.need.clone().unwrap_or_default(),
        }
    }
}

/// Makes the router.
pub(crate) fn router(face: &Face, access: Access) -> Router {
    let face = face.clone();
    Router::new().fallback(move |request: Request| {
        let (face, access) = (face.clone(), access.clone());
        async move { answer(&face, &access, request).await }
    })
}

async fn answer(face: &Face, access: &Access, request: Request) -> Response {
    let path = request.uri().path();
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "nothing can be changed here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if path == "/healthz" {
        return plain(StatusCode::OK, "ok\n");
    }
    let peer: Option<IpAddr> = request.extensions().get::<Peer>().map(|peer| peer.0);
    if let Err(refusal) = access.judge_reader(peer, request.headers()) {
        return *refusal;
    }
    let asked = match Query::<Asked>::try_from_uri(request.uri()) {
        Ok(Query(asked)) => asked,
        Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    match path {
        "/" if wants_page(request.headers()) => page(),
        "/" | "/status.txt" => match face.watch().status(&asked.wanted()) {
            Some(status) => plain(StatusCode::OK, text(&status)),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "not yet\n"),
        },
        "/status.json" => match face.watch().status(&asked.wanted()) {
            Some(status) => json(&status),
            None => plain(StatusCode::SERVICE_UNAVAILABLE, "not yet\n"),
        },
        "/events" => {
            let body = events::body(face.clone(), asked.wanted(), asked.after.unwrap_or(0.0));
            with_type(StatusCode::OK, "text/event-stream", body)
        }
        "/metrics" => metrics::answer(face, request.headers()),
        "/readyz" => readiness(face),
        _ => match path.strip_prefix("/tasks/") {
            Some(name) => task(face, name).await,
            None => plain(
                StatusCode::NOT_FOUND,
                "there are /, /status.json, /status.txt, /events, /tasks/N, /metrics, /healthz and /readyz\n",
            ),
        },
    }
}

fn wants_page(headers: &HeaderMap) -> bool {
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    accepts.is_some_and(|accept| accept.contains("text/html"))
}

fn page() -> Response {
    let mut response =
        with_type(StatusCode::OK, "text/html; charset=utf-8", Body::from(&*PAGE.html));
    if let Ok(policy) = HeaderValue::from_str(&PAGE.policy) {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

async fn task(face: &Face, name: &str) -> Response {
    let Ok(seq) = name.trim_start_matches('#').parse() else {
        return plain(StatusCode::NOT_FOUND, "a task is named by its number, from 0 on\n");
    };
    let Some(explained) = face.explain(Seq(seq)).await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "the program ends\n");
    };
    match face.watch().task(&explained) {
        Some(task) => json(&task),
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "not yet\n"),
    }
}

/// Is it connected, and does it get on?
fn readiness(face: &Face) -> Response {
    let watch = face.watch();
    match watch.limit() {
        None => plain(StatusCode::SERVICE_UNAVAILABLE, "not yet\n"),
        Some(By::NoSink | By::Stalled) => {
            let status = watch.status(&Wanted::default());
            let line = status.map(|status| status.queue.limit.line).unwrap_or_default();
            plain(StatusCode::SERVICE_UNAVAILABLE, format!("{line}\n"))
        }
        Some(_) => plain(StatusCode::OK, "ready\n"),
    }
}

fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(StatusCode::OK, "application/json", Body::from(bytes)),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn plain(status: StatusCode, text: impl Into<Body>) -> Response {
    with_type(status, "text/plain; charset=utf-8", text.into())
}

pub(crate) fn with_type(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
