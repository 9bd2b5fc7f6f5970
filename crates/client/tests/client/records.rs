//! Records as a stream.

use std::sync::atomic::Ordering;

use futures::{StreamExt, TryStreamExt};
use tokio::time::timeout;
use tradewind_client::{Client, Error, NewTask, Options, ProblemKind, Records, Status, Wanted};

use crate::scene::{NEVER, Proxy, Scene, scripted};

/// Submits tasks and writes their records, each third of which is failed.
async fn add(scene: &Scene, from: usize, to: usize) {
    let tasks = (from..to).map(|at| NewTask::new(at.to_string()));
    let _: Vec<_> = scene.client().submit_all("q", tasks).try_collect().await.unwrap();
    for at in from..to {
        let status = if at % 3 == 0 { Status::Failed } else { Status::Ok };
        scene.memory.record(&format!("q-{at}"), status);
    }
}

async fn all(client: &Client, wanted: Wanted) -> Result<Vec<u64>, Error> {
    client.records("q", wanted)?.map_ok(|record| record.position).try_collect().await
}

async fn next(records: &mut Records) -> u64 {
    timeout(NEVER, records.next()).await.unwrap().unwrap().unwrap().position
}

#[tokio::test]
async fn records_are_read_up_to_the_last_that_there_is() {
    let scene = Scene::new().await;
    let client = scene.client();
    add(&scene, 0, 2500).await;
    let positions = |from: u64| (from..2500).collect::<Vec<_>>();
    assert_eq!(all(&client, Wanted::default()).await.unwrap(), positions(0));
    assert_eq!(all(&client, Wanted::default().after(99)).await.unwrap(), positions(100));
    assert_eq!(all(&client, Wanted::default().after(2499)).await.unwrap(), [0; 0]);
    let failed = all(&client, Wanted::default().status(Status::Failed)).await.unwrap();
    assert_eq!(failed, positions(0).into_iter().step_by(3).collect::<Vec<_>>());
    assert_eq!(all(&client, Wanted::default().status(Status::Lost)).await.unwrap(), [0; 0]);
    scene.memory.trim("q", 10);
    let error = all(&client, Wanted::default().after(5)).await.unwrap_err();
    assert!(error.is(ProblemKind::RecordsGone));
    assert_eq!(error.problem().unwrap().first, Some(10));
    assert!(client.records("Q", Wanted::default()).is_err());
}

#[tokio::test]
async fn an_answer_that_is_cut_is_asked_for_again_from_its_last_record() {
    let scene = Scene::new().await;
    add(&scene, 0, 1000).await;
    let proxy = Proxy::new(scene.address).await;
    let client = Client::with(&proxy.url, Options::default()).unwrap();
    client.queues().await.unwrap();
    let positions: Vec<u64> = (0..1000).collect();
    for after in [0, 10, 300, 5_000, 20_001] {
        proxy.lose.store(2, Ordering::SeqCst);
        proxy.after.store(after, Ordering::SeqCst);
        assert_eq!(all(&client, Wanted::default()).await.unwrap(), positions, "{after}");
        assert_eq!(proxy.lost.swap(0, Ordering::SeqCst), 2);
        let mut records = client.records("q", Wanted::default().follow()).unwrap();
        proxy.lose.store(2, Ordering::SeqCst);
        for position in &positions {
            assert_eq!(next(&mut records).await, *position, "{after}");
        }
        assert_eq!(proxy.lost.swap(0, Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn a_server_that_is_started_again_loses_no_record_and_doubles_none() {
    let mut scene = Scene::new().await;
    add(&scene, 0, 10).await;
    let client = scene.client();
    let mut followed = client.records("q", Wanted::default().follow()).unwrap();
    let failed = Wanted::default().status(Status::Failed).follow();
    let mut failed = client.records("q", failed).unwrap();
    for round in 1..4 {
        for position in (round - 1) * 10..round * 10 {
            assert_eq!(next(&mut followed).await, position);
            if position % 3 == 0 {
                assert_eq!(next(&mut failed).await, position);
            }
        }
        scene.restart().await;
        let from = usize::try_from(round * 10).unwrap();
        add(&scene, from, from + 10).await;
    }
}

#[tokio::test]
async fn a_server_that_ends_does_not_end_what_is_read() {
    // Its answer has its end after the page that it is at: not after the last record.
    let record = |at: u64| format!("{{\"position\":{at},\"id\":\"q-{at}\",\"status\":\"ok\"}}\n");
    let answer = |body: String| {
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
        format!("{head} {}\r\n\r\n{body}", body.len())
    };
    let answers = vec![answer(record(0) + &record(1)), answer(record(2)), answer(String::new())];
    let (url, mut requests) = scripted(answers).await;
    let client = Client::with(&url, Options::default()).unwrap();
    assert_eq!(all(&client, Wanted::default()).await.unwrap(), [0, 1, 2]);
    for params in ["", "?after=1", "?after=2"] {
        let request = format!("GET /v1/queues/q/records{params} HTTP/1.1");
        assert_eq!(requests.recv().await.unwrap(), request);
    }
}

#[tokio::test]
async fn a_consumer_goes_on_where_it_was() {
    let scene = Scene::new().await;
    add(&scene, 0, 10).await;
    let client = scene.client();
    let wanted = Wanted::default().consumer("billing").unwrap();
    let positions = |from: u64| (from..10).collect::<Vec<_>>();
    assert_eq!(all(&client, wanted.clone()).await.unwrap(), positions(0));
    // It is there, and its position is what it was set to alone.
    assert_eq!(client.consumer("q", "billing").await.unwrap(), None);
    assert!(!client.set_consumer("q", "billing", Some(6)).await.unwrap());
    assert_eq!(all(&client, wanted.clone()).await.unwrap(), positions(7));
    assert_eq!(client.consumer("q", "billing").await.unwrap(), Some(6));
    client.remove_consumer("q", "billing").await.unwrap();
    assert!(client.set_consumer("q", "billing", None).await.unwrap());
    assert_eq!(all(&client, wanted).await.unwrap(), positions(0));
}

#[tokio::test]
async fn a_stream_ends_with_what_will_not_pass() {
    let scene = Scene::new().await;
    let client = scene.client();
    for wanted in [Wanted::default(), Wanted::default().follow()] {
        let mut records = client.records("none", wanted).unwrap();
        let error = records.next().await.unwrap().unwrap_err();
        assert!(error.is(ProblemKind::UnknownQueue), "{error}");
        assert!(records.next().await.is_none());
    }
    // Of a queue that is removed while it is followed, what came before is not lost.
    add(&scene, 0, 3).await;
    let mut records = client.records("q", Wanted::default().follow()).unwrap();
    assert_eq!(next(&mut records).await, 0);
    timeout(NEVER, scene.memory.waiting(1)).await.unwrap();
    client.remove_queue("q").await.unwrap();
    assert_eq!((next(&mut records).await, next(&mut records).await), (1, 2));
    let error = timeout(NEVER, records.next()).await.unwrap().unwrap().unwrap_err();
    assert!(error.is(ProblemKind::UnknownQueue), "{error}");
    // One that was never reached is not waited for.
    let client = Client::with("http://127.0.0.1:1", Options::default()).unwrap();
    let mut records = client.records("q", Wanted::default().follow()).unwrap();
    let error = timeout(NEVER, records.next()).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}
