//! What can be asked, and what the answers are.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::time::timeout;
use tradewind_client::{
    Batch, Change, Client, Error, Fsync, Keep, NewTask, Options, ProblemKind, Settings,
    SettingsPatch, Status, TaskState, Unique, Unreachable,
};
use tradewind_http::{Limits, Refusal};

use crate::scene::{NEVER, Proxy, Scene, scripted};

#[tokio::test]
async fn a_task_is_submitted_and_has_its_record() {
    let scene = Scene::new().await;
    let client = scene.client();
    let task = NewTask::new(&b"\0\xff"[..]).key("k \"ü\"\n").unwrap();
    let task = task.retries(2).timeout(Duration::from_secs(90));
    let submitted = client.submit("thumbs", task.clone()).await.unwrap();
    assert_eq!(submitted.id.to_string(), "thumbs-0");
    assert_eq!(submitted.key.as_deref(), Some("k \"ü\"\n"));
    let wanted = tradewind_http::NewTask {
        payload: vec![0, 255].into(),
        key: Some("k \"ü\"\n".to_owned().try_into().unwrap()),
        retries: Some(2),
        timeout: Some(Duration::from_secs(90)),
    };
    assert_eq!(scene.memory.tasks("thumbs"), [wanted]);
    assert_eq!(client.submit("thumbs", task).await.unwrap(), submitted);
    assert_eq!(scene.memory.tasks("thumbs").len(), 1);

    let id = &submitted.id;
    assert_eq!(client.task(id).await.unwrap(), TaskState::Queued);
    scene.memory.start("thumbs-0");
    assert_eq!(client.task(id).await.unwrap(), TaskState::Running);
    assert_eq!(client.result(id, Duration::from_millis(20)).await.unwrap(), None);
    let waits = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { client.result(&id, Duration::MAX).await }
    });
    timeout(NEVER, scene.memory.waiting(1)).await.unwrap();
    scene.memory.record("thumbs-0", Status::Failed);
    let record = timeout(NEVER, waits).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!((record.position, record.status, &record.id), (0, Status::Failed, id));
    assert_eq!(client.task(id).await.unwrap(), TaskState::Record(record));
}

#[tokio::test]
async fn problems_have_their_kinds() {
    let scene = Scene::new().await;
    let client = scene.client();
    let known = NewTask::new("a").key("known").unwrap();
    client.submit("q", known).await.unwrap();
    let other = NewTask::new("b").key("known").unwrap();
    let error = client.submit("q", other).await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!((problem.kind, problem.status), (ProblemKind::OtherTask, 422));
    assert_eq!(problem.id.as_ref().unwrap().to_string(), "q-0");
    assert_eq!(problem.key.as_deref(), Some("known"));
    assert!(!error.is_transient() && error.to_string().contains("q-0"), "{error}");
    let id = &"q-7".parse().unwrap();
    assert!(client.task(id).await.unwrap_err().is(ProblemKind::UnknownTask));
    let id = &"none-7".parse().unwrap();
    assert!(client.cancel(id).await.unwrap_err().is(ProblemKind::UnknownQueue));
    let id = &"q-0".parse().unwrap();
    assert!(client.retry(id, None).await.unwrap_err().is(ProblemKind::Unsettled));
    assert!(client.remove_queue("q").await.unwrap_err().is(ProblemKind::NotEmpty));
    assert!(client.consumer("q", "c").await.unwrap_err().is(ProblemKind::UnknownConsumer));
    assert!(matches!(client.queue("Q").await.unwrap_err(), Error::Name(_)));

    let client = scene.impatient();
    let (what, retry_after) = ("the disk is full", Duration::from_secs(7));
    scene.memory.refuse(Refusal::Full { what, retry_after });
    let error = client.submit("q", "a").await.unwrap_err();
    assert!(error.is(ProblemKind::Full) && error.is_transient(), "{error}");
    assert_eq!(error.problem().unwrap().retry_after, Some(retry_after));
}

#[tokio::test]
async fn a_task_is_cancelled_and_retried() {
    let scene = Scene::new().await;
    let client = scene.client();
    let first = client.submit("q", "a").await.unwrap().id;
    let second = client.submit("q", "b").await.unwrap().id;
    scene.memory.start("q-1");
    let cancelled = client.cancel(&first).await.unwrap().into_record().unwrap();
    assert_eq!(cancelled.status, Status::Cancelled);
    assert_eq!(client.cancel(&second).await.unwrap(), TaskState::Running);
    for key in ["retry-of-q-0", "ü"] {
        let retried = client.retry(&first, Some(key)).await.unwrap();
        assert_eq!(retried.key.as_deref(), Some(key));
        assert_eq!(client.retry(&first, Some(key)).await.unwrap(), retried);
    }
    assert_eq!(client.retry(&first, None).await.unwrap().id.to_string(), "q-4");
    assert!(matches!(client.retry(&first, Some("a\n")).await, Err(Error::HeaderKey)));
    assert_eq!(scene.memory.tasks("q").len(), 5);
}

#[tokio::test]
async fn queues_are_made_changed_and_removed() {
    let scene = Scene::new().await;
    let client = scene.client();
    let settings = Settings {
        retries: 3,
        timeout: Some(Duration::from_secs(600)),
        max_running: Some(200),
        keep: Keep::Consumed,
        unique: Unique::Time(Duration::from_secs(3600)),
        fsync: Fsync::Record,
    };
    let (state, is_new) = client.put_queue("thumbs", &settings).await.unwrap();
    assert!(is_new && !state.is_paused);
    assert_eq!(state.settings, settings);
    let patch = SettingsPatch {
        timeout: Change::Default,
        keep: Change::To(Keep::Bytes(5 << 20)),
        ..SettingsPatch::default()
    };
    let state = client.patch_queue("thumbs", &patch).await.unwrap();
    let changed = Settings { timeout: None, keep: Keep::Bytes(5 << 20), ..settings };
    assert_eq!(state.settings, changed);
    assert!(client.pause("thumbs").await.unwrap().is_paused);
    let state = client.queue("thumbs").await.unwrap();
    assert!(state.is_paused && state.json().contains(r#""paused":true"#));
    assert!(!client.resume("thumbs").await.unwrap().is_paused);
    client.submit("other", "a").await.unwrap();
    let queues = client.queues().await.unwrap();
    let names: Vec<_> = queues.iter().map(|state| (state.name.as_str(), state.queued)).collect();
    assert_eq!(names, [("other", 1), ("thumbs", 0)]);
    assert!(!client.put_queue("thumbs", &Settings::default()).await.unwrap().1);
    client.remove_queue("thumbs").await.unwrap();
    assert!(client.queue("thumbs").await.unwrap_err().is(ProblemKind::UnknownQueue));
}

#[tokio::test]
async fn many_tasks_are_one_request_or_as_many_as_they_need() {
    let limits = Limits { tasks_max: 1500, ..Limits::default() };
    let scene = Scene::with(limits).await;
    let client = scene.client();
    let tasks = |count: usize| (0..count).map(|at| NewTask::new(at.to_string()));
    let too_many: Batch = tasks(1501).collect();
    assert!(client.submit_batch("q", too_many).await.unwrap_err().is(ProblemKind::TooLarge));
    assert!(scene.memory.tasks("q").is_empty());
    assert_eq!(client.submit_batch("q", Batch::new()).await.unwrap(), []);
    let submitted = client.submit_batch("q", tasks(1500).collect()).await.unwrap();
    assert_eq!(submitted[1499].id.to_string(), "q-1499");
    let answers: Vec<_> = client.submit_all("all", tasks(2500)).try_collect().await.unwrap();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
    assert_eq!(answers[2][499].id.to_string(), "all-2499");
    // And by their bytes.
    let large = (0..3).map(|_| NewTask::new(vec![b'x'; 700_000]));
    let answers: Vec<_> = client.submit_all("large", large).try_collect().await.unwrap();
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    // The first error is the last item.
    let bad = [NewTask::new("a").key("k").unwrap(), NewTask::new("b").key("k").unwrap()];
    let items: Vec<_> =
        client.submit_all("bad", bad.into_iter().chain(tasks(2500))).collect().await;
    assert_eq!(items.len(), 1);
    assert!(items[0].as_ref().unwrap_err().is(ProblemKind::OtherTask));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_problem_and_no_lost_connection() {
    let limits = Limits { body_bytes_max: 100_000, ..Limits::default() };
    let scene = Scene::with(limits).await;
    for bytes in [150_000, 20_000_000] {
        let error = scene.impatient().submit("q", vec![b'x'; bytes]).await.unwrap_err();
        assert!(error.is(ProblemKind::TooLarge), "{bytes}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_at_once() {
    let mut scene = Scene::new().await;
    scene.stop().await;
    let error = scene.client().queues().await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { why: Unreachable::Io(_), .. })
            && error.is_transient()
    );
    let wanted = format!("failed to connect to {}: connection refused", scene.url());
    assert_eq!(error.to_string(), wanted);
}

#[tokio::test]
async fn another_program_is_told_from_a_server_of_queues() {
    let (url, _) = scripted(vec!["220 mail\r\n".to_owned(); 2]).await;
    let error = Client::with(&url, Options::default()).unwrap().queues().await.unwrap_err();
    assert!(matches!(error, Error::Answer { .. }), "{error}");
    assert!(error.to_string().contains("does not answer as a server of queues does"), "{error}");
}

#[tokio::test]
async fn connections_are_kept_for_the_next_request() {
    let scene = Scene::new().await;
    let proxy = Proxy::new(scene.address).await;
    let client = Client::with(&proxy.url, Options::default()).unwrap();
    for _ in 0..10 {
        client.queues().await.unwrap();
        // A problem too leaves its connection.
        client.queue("none").await.unwrap_err().problem().unwrap();
    }
    assert_eq!(proxy.accepted.load(Ordering::SeqCst), 1);
}
