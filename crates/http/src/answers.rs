//! Answers, one function for each thing that can be asked.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HeaderName, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::body::{read, read_json};
use crate::ndjson::{self, Answer, NDJSON, json};
use crate::params::{Params, idempotency_key, media_type, preferred_wait};
use crate::problem::{Kind, Problem};
use crate::queues::{NewTask, QueueState, Queues, Record, Submitted, TaskState};
use crate::records;
use crate::routes::{Operation, PathValues};
use tradewind_proto::limits::SEQS_MAX;
use tradewind_queue::{ConsumerName, KEPT_TASKS_MAX, KeptAsk, QueueName, TaskId, whole};
use tradewind_queue::{Settings, SettingsPatch, WrittenPatch, WrittenSettings};

/// Media type of most answers.
pub(crate) const JSON: &str = "application/json";

/// Media types of changes of settings: an object of JSON is taken for a merge patch.
const PATCHES: &[&str] = &["application/merge-patch+json", JSON];

/// The description of all this, for programs.
pub(crate) const OPENAPI: &str = include_str!("../openapi.json");

type Answered = Result<Response, Problem>;

/// Answers a request.
pub(crate) async fn answer<Q: Queues>(
    app: &Arc<App<Q>>,
    operation: Operation,
    path: PathValues,
    request: Request,
) -> Answered {
    let query = request.uri().query();
    let has_params = [Operation::Submit, Operation::Records, Operation::Kept, Operation::Task]
        .contains(&operation);
    if !has_params {
        Params::parse(query, &[])?;
    }
    let queues = &app.queues;
    let queue = || path[0].parse::<QueueName>();
    match operation {
        Operation::Health => {
            queues.health().await?;
            Ok(response(StatusCode::OK, JSON, r#"{"status":"ok"}"#))
        }
        Operation::OpenApi => Ok(response(StatusCode::OK, JSON, OPENAPI)),
        Operation::Queues => {
            let states = queues.queues().await?;
            let queues = states.iter().map(WrittenQueue::from).collect();
            Ok(json_response(StatusCode::OK, &WrittenQueues { queues }))
        }
        Operation::Queue => Ok(queue_response(StatusCode::OK, &queues.queue(&queue()?).await?)),
        Operation::PutQueue => {
            let queue = queue()?;
            let settings = patch(app, &[JSON], request).await?.apply(Settings::default());
            let (state, is_new) = queues.put_queue(&queue, settings).await?;
            Ok(queue_response(created(is_new), &state))
        }
        Operation::PatchQueue => {
            let queue = queue()?;
            let patch = patch(app, PATCHES, request).await?;
            Ok(queue_response(StatusCode::OK, &queues.patch_queue(&queue, patch).await?))
        }
        Operation::RemoveQueue => {
            queues.remove_queue(&queue()?).await?;
            Ok(no_content())
        }
        Operation::Pause | Operation::Resume => {
            let state = queues.set_paused(&queue()?, operation == Operation::Pause).await?;
            Ok(queue_response(StatusCode::OK, &state))
        }
        Operation::Submit => submit(app, &queue()?, request).await,
        Operation::Records => records::answer(app, queue()?, &request.into_parts().0).await,
        Operation::Kept => {
            let ask = kept_ask(&Params::parse(query, &["from", "count", "within"])?)?;
            Ok(json_response(StatusCode::OK, &queues.kept(&queue()?, ask).await?))
        }
        Operation::Consumer => {
            let (queue, consumer) = (queue()?, path[1].parse()?);
            let position = queues.consumer(&queue, &consumer).await?;
            Ok(consumer_response(StatusCode::OK, &consumer, position))
        }
        Operation::PutConsumer => {
            let (queue, consumer) = (queue()?, path[1].parse()?);
            let received = read_json(request, &[JSON], &app.limits, &app.budget).await?;
            let WrittenPosition { position } = parse(&received.bytes)?;
            let is_new = queues.set_consumer(&queue, &consumer, position).await?;
            Ok(consumer_response(created(is_new), &consumer, position))
        }
        Operation::RemoveConsumer => {
            queues.remove_consumer(&queue()?, &path[1].parse()?).await?;
            Ok(no_content())
        }
        Operation::Task => {
            let id = path[0].parse()?;
            let wait = app.wait(Params::parse(query, &["wait"])?.time("wait")?);
            let state = app.waiting(wait, |wait| queues.task(&id, wait)).await?;
            Ok(response(StatusCode::OK, JSON, state_json(&id, &state)))
        }
        Operation::Cancel => {
            let id = path[0].parse()?;
            let state = queues.cancel(&id).await?;
            Ok(response(settled(&state), JSON, state_json(&id, &state)))
        }
        Operation::Retry => {
            let key = idempotency_key(request.headers())?;
            Ok(submitted_response(&queues.retry(&path[0].parse()?, key).await?))
        }
    }
}

async fn submit<Q: Queues>(app: &Arc<App<Q>>, queue: &QueueName, request: Request) -> Answered {
    let is_many = media_type(request.headers())?.as_deref() == Some(NDJSON);
    let key = idempotency_key(request.headers())?;
    let known: &[_] = if is_many { &[] } else { &["retries", "timeout"] };
    let params = Params::parse(request.uri().query(), known)?;
    let retries = params.number("retries")?.map(ndjson::retries).transpose()?;
    let timeout = params.get("timeout").map(ndjson::timeout).transpose()?;
    let wait = preferred_wait(request.headers()).filter(|_| !is_many);
    if is_many && key.is_some() {
        return Err(Problem::bad_request("each line has a key of its own, not the request"));
    }
    let limits = &app.limits;
    let received = read(request, limits.body_bytes_max, limits, &app.budget).await?;
    if is_many {
        let tasks = ndjson::parse(&received.bytes, limits.tasks_max, limits.task_bytes_max)?;
        let submitted = app.queues.submit(queue, tasks).await?;
        return Ok(response(StatusCode::OK, NDJSON, ndjson::answers(&submitted)));
    }
    ndjson::check_size(received.bytes.len(), limits.task_bytes_max)?;
    let task = NewTask { payload: received.bytes.clone(), key, retries, timeout };
    let mut submitted = app.queues.submit(queue, vec![task]).await?;
    drop(received);
    let submitted = submitted.pop().expect("each task has an answer");
    let Some(seconds) = wait else { return Ok(submitted_response(&submitted)) };
    let wait = app.wait(Some(Duration::from_secs(seconds.into())));
    let id = &submitted.id;
    // It is submitted: that its record is not there is no error any more.
    let Ok(state) = app.waiting(wait, |wait| app.queues.task(id, wait)).await else {
        return Ok(submitted_response(&submitted));
    };
    let answer = response(settled(&state), JSON, state_json(id, &state));
    let applied = format!("wait={}", wait.as_secs());
    let answer = with_header(answer, LOCATION, &location(id));
    Ok(with_header(answer, HeaderName::from_static("preference-applied"), &applied))
}

fn kept_ask(params: &Params) -> Result<KeptAsk, Problem> {
    let from = params.number("from")?.unwrap_or(0);
    let count = params.number("count")?.unwrap_or(0);
    if from > SEQS_MAX || count > KEPT_TASKS_MAX {
        let text = format!("from is a seq, and count is {KEPT_TASKS_MAX} tasks at most");
        return Err(Problem::new(Kind::BadValue, text));
    }
    Ok(KeptAsk { tasks: from..(from + count).min(SEQS_MAX), within: params.time("within")? })
}

async fn patch<Q>(
    app: &Arc<App<Q>>,
    media_types: &'static [&'static str],
    request: Request,
) -> Result<SettingsPatch, Problem> {
    let received = read_json(request, media_types, &app.limits, &app.budget).await?;
    let written: WrittenPatch = match received.bytes.is_empty() {
        true => WrittenPatch::default(),
        false => parse(&received.bytes)?,
    };
    Ok(written.parse()?)
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Problem> {
    json(bytes).map_err(|(kind, why)| Problem::new(kind, format!("the body is refused: {why}")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPosition {
    // By a function, so that it has to be there: `{}` would set a consumer back to the start.
    #[serde(deserialize_with = "whole")]
    position: Option<u64>,
}

#[derive(Serialize)]
struct WrittenConsumer<'a> {
    name: &'a str,
    position: Option<u64>,
}

#[derive(Serialize)]
struct WrittenQueues<'a> {
    queues: Vec<WrittenQueue<'a>>,
}

#[derive(Serialize)]
struct WrittenQueue<'a> {
    name: &'a str,
    paused: bool,
    queued: u64,
    running: u64,
    records: u64,
    position: Option<u64>,
    settings: WrittenSettings,
}

impl<'a> From<&'a QueueState> for WrittenQueue<'a> {
    fn from(state: &'a QueueState) -> Self {
        let QueueState { name, settings, is_paused, queued, running, records, position } = state;
        Self {
            name: name.as_str(),
            paused: *is_paused,
            queued: *queued,
            running: *running,
            records: *records,
            position: *position,
            settings: settings.into(),
        }
    }
}

#[derive(Serialize)]
struct WrittenState<'a> {
    id: String,
    status: &'a str,
}

/// Returns a task's state as a JSON object: its record, or that it waits or runs.
fn state_json(id: &TaskId, state: &TaskState) -> Vec<u8> {
    let status = match state {
        TaskState::Record(record) => return record_json(record),
        TaskState::Queued => "queued",
        TaskState::Running => "running",
    };
    to_vec(&WrittenState { id: id.to_string(), status })
}

/// Returns a record as a JSON object: that of its queue, with its position and id before the rest.
pub(crate) fn record_json(record: &Record) -> Vec<u8> {
    let Record { position, id, json } = record;
    let rest = json.strip_prefix(b"{").expect("a record is an object");
    let mut object = Vec::with_capacity(json.len() + 64);
    object.extend_from_slice(format!(r#"{{"position":{position},"id":"{id}","#).as_bytes());
    object.extend_from_slice(rest);
    object
}

fn created(is_new: bool) -> StatusCode {
    if is_new { StatusCode::CREATED } else { StatusCode::OK }
}

fn settled(state: &TaskState) -> StatusCode {
    match state {
        TaskState::Record(_) => StatusCode::OK,
        TaskState::Queued | TaskState::Running => StatusCode::ACCEPTED,
    }
}

fn submitted_response(submitted: &Submitted) -> Response {
    let answer = json_response(created(submitted.is_new), &Answer::from(submitted));
    with_header(answer, LOCATION, &location(&submitted.id))
}

fn location(id: &TaskId) -> String {
    format!("/v1/tasks/{id}")
}

fn queue_response(status: StatusCode, state: &QueueState) -> Response {
    json_response(status, &WrittenQueue::from(state))
}

fn consumer_response(status: StatusCode, name: &ConsumerName, position: Option<u64>) -> Response {
    json_response(status, &WrittenConsumer { name: name.as_str(), position })
}

fn json_response(status: StatusCode, value: &impl Serialize) -> Response {
    response(status, JSON, to_vec(value))
}

fn to_vec(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("all keys are strings")
}

fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

pub(crate) fn response(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn with_header(mut response: Response, name: HeaderName, value: &str) -> Response {
    let value = HeaderValue::from_str(value).expect("ids and numbers are plain text");
    response.headers_mut().insert(name, value);
    response
}
