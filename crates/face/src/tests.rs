//! What is answered, with a real dispatcher behind it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tower::ServiceExt as _;
use tradewind_http::{Access, Peer};
use tradewind_proto::JobId;
use tradewind_proto::Payload;
use tradewind_proto::dispatcher::{Dispatcher, DispatcherConfig, Policy};
use tradewind_proto::message::{Layout, Start};
use tradewind_seen::{About, Ask, Asked, End, Look, Runs};

use crate::face::Face;
use crate::routes::router;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn dispatcher() -> Dispatcher {
    let mut dispatcher = Dispatcher::new(DispatcherConfig {
        layout: Layout::Line,
        job: JobId(0x1234),
        name: "thumbs".to_owned(),
        stage: String::new(),
        start: Start::New,
        policy: Policy::default(),
        message_bytes_max: 1 << 20,
        seed: 1,
    });
    for _ in 0..3 {
        dispatcher.handle_task(Payload::from("x"));
    }
    dispatcher
}

fn look(dispatcher: &Dispatcher, end: Option<End>) -> Look {
    Look {
        job: dispatcher.job_id(),
        snapshot: dispatcher.snapshot(),
        about: None,
        busy: Duration::ZERO,
        asked: Asked::Nothing,
        end,
        runs: Runs::default(),
        failures: Vec::new(),
        timeout: None,
    }
}

/// A face of a job that has three tasks and no sink, and whose loop answers.
fn face() -> (Face, Router) {
    let about = About {
        role: "ventilator",
        version: "0.1.0",
        host: "here".to_owned(),
        name: "<b>thumbs</b>".to_owned(),
        sink: "tcp://sink:5558".to_owned(),
        tasks: "tcp://here:5557".to_owned(),
        is_queue: false,
    };
    let (asks, mut asked) = mpsc::channel(4);
    let face = Face::new(about, asks);
    let router = router(&face, Access::default().with_loopback());
    tokio::spawn(async move {
        let dispatcher = dispatcher();
        while let Some(ask) = asked.recv().await {
            match ask {
                Ask::Look(answer) => answer(look(&dispatcher, None)),
                Ask::Explain(seq, answer) => answer(dispatcher.explain(seq)),
            }
        }
    });
    (face, router)
}

async fn ask(router: &Router, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    let mut request = Request::get(path).extension(Peer(LOOPBACK));
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:5560");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.into()).unwrap()
}

#[tokio::test]
async fn a_browser_gets_the_page_and_a_terminal_text() {
    let (face, router) = face();
    face.note(look(&dispatcher(), None));
    let page = ask(&router, "/", &[("accept", "text/html,*/*")]).await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(text(page).await.starts_with("<!doctype html>"));
    let plain = text(ask(&router, "/", &[]).await).await;
    assert!(plain.contains("Waiting for the sink: nobody answers at tcp://sink:5558"), "{plain}");
}

#[tokio::test]
async fn programs_get_the_state_tasks_and_whether_it_is_ready() {
    let (face, router) = face();
    assert_eq!(ask(&router, "/status.json", &[]).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ask(&router, "/healthz", &[]).await.status(), StatusCode::OK);
    face.note(look(&dispatcher(), None));
    let status = text(ask(&router, "/status.json?rows=5&sort=failed", &[]).await).await;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["queue"]["limit"]["by"], "no_sink");
    assert_eq!(status["queue"]["id"], "0000000000001234");
    assert_eq!(status["queue"]["counts"]["queued"], 3);
    let ready = ask(&router, "/readyz", &[]).await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let task = text(ask(&router, "/tasks/2", &[]).await).await;
    let task: serde_json::Value = serde_json::from_str(&task).unwrap();
    assert_eq!(task["state"], "queued");
    assert_eq!(task["why"], "Nothing is handed out without a sink.");
    assert_eq!(ask(&router, "/tasks/x", &[]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(&router, "/nothing", &[]).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(ask(&router, "/status.json?rows=x", &[]).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn metrics_are_in_both_formats() {
    let (face, router) = face();
    face.note(look(&dispatcher(), None));
    let older = ask(&router, "/metrics", &[]).await;
    assert_eq!(older.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let older = text(older).await;
    for line in [
        "# TYPE tradewind_tasks_submitted_total counter",
        "tradewind_tasks_submitted_total{queue=\"<b>thumbs</b>\"} 3.0",
        "tradewind_limited_by{queue=\"<b>thumbs</b>\",by=\"no_sink\"} 1.0",
        "tradewind_limited_by{queue=\"<b>thumbs</b>\",by=\"workers\"} 0.0",
        "tradewind_queue_tasks{queue=\"<b>thumbs</b>\",state=\"queued\"} 3.0",
    ] {
        assert!(older.lines().any(|other| other == line), "{line} in\n{older}");
    }
    let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
    let newer = text(ask(&router, "/metrics", &accept).await).await;
    assert!(newer.contains("# TYPE tradewind_tasks_submitted counter\n"), "{newer}");
    assert!(newer.ends_with("# EOF\n"), "{newer}");
}

#[tokio::test]
async fn only_who_may_ask_is_answered_and_nobody_changes_anything() {
    let (face, router) = face();
    face.note(look(&dispatcher(), None));
    for (headers, wanted) in [
        (&[][..], 200),
        (&[("sec-fetch-site", "same-origin")], 200),
        (&[("sec-fetch-site", "none")], 200),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("origin", "https://example.net")], 403),
        (&[("sec-fetch-site", "same-origin"), ("origin", "https://example.net")], 403),
        (&[("host", "rebound.example.net")], 403),
        (&[("authorization", "Bearer x")], 401),
    ] {
        for path in ["/", "/status.json", "/metrics", "/tasks/1", "/events", "/readyz"] {
            let status = ask(&router, path, headers).await.status().as_u16();
            let wanted = if path == "/readyz" && wanted == 200 { 503 } else { wanted };
            assert_eq!(status, wanted, "{path} {headers:?}");
        }
    }
    let remote = Request::get("/status.json").header("host", "here").body(Body::empty()).unwrap();
    assert_eq!(router.clone().oneshot(remote).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let request = Request::builder().method(&method).uri("/").extension(Peer(LOOPBACK));
        let request = request.header("host", "localhost").body(Body::empty()).unwrap();
        let status = router.clone().oneshot(request).await.unwrap().status();
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
    }
}

#[tokio::test]
async fn a_stream_says_what_is_new_and_the_end() {
    let (face, router) = face();
    let dispatcher = dispatcher();
    face.note(look(&dispatcher, None));
    let response = ask(&router, "/events", &[]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut parts = response.into_body().into_data_stream();
    let first = parts.next().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap();
    assert!(first.contains("event: state\ndata: {\"schema\":1,"), "{first}");
    face.note(look(&dispatcher, Some(End::Complete)));
    let last = parts.next().await.unwrap().unwrap();
    let last = std::str::from_utf8(&last).unwrap();
    assert!(last.contains("event: state\n") && last.ends_with("event: end\ndata: \n\n"), "{last}");
    assert!(parts.next().await.is_none());
}
