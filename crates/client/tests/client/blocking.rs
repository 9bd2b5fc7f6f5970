//! The client without `async`.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tradewind_client::{NewTask, Options, Status, Wanted, blocking};

use crate::scene::Scene;

/// Uses a client on another thread: on this one is the server.
async fn with<T: Send + 'static>(
    client: &Arc<blocking::Client>,
    ask: impl FnOnce(&blocking::Client) -> T + Send + 'static,
) -> T {
    let client = Arc::clone(client);
    spawn_blocking(move || ask(&client)).await.unwrap()
}

#[tokio::test]
async fn methods_return_when_the_answer_is_there() {
    let mut scene = Scene::new().await;
    let client = Arc::new(blocking::Client::with(&scene.url(), Options::default()).unwrap());
    let id = with(&client, |client| client.submit("q", "a").unwrap().id).await;
    // The server has ended the connection that is kept, unseen: nobody drives it now.
    scene.restart().await;
    let second = with(&client, |client| client.submit("q", "b")).await;
    assert_eq!(second.unwrap().id.to_string(), "q-1");
    let tasks = (0..1500).map(|at| NewTask::new(at.to_string()));
    let submitted = with(&client, |client| client.submit_all("q", tasks)).await.unwrap();
    assert_eq!(submitted.len(), 1500);
    let result = |wait| {
        let id = id.clone();
        with(&client, move |client| client.result(&id, wait).unwrap())
    };
    assert_eq!(result(Duration::ZERO).await, None);
    for at in 0..1502 {
        scene.memory.record(&format!("q-{at}"), Status::Ok);
    }
    assert_eq!(result(Duration::MAX).await.unwrap().status, Status::Ok);
    let records = |client: &blocking::Client| {
        let records = client.records("q", Wanted::default()).unwrap();
        records.collect::<Result<Vec<_>, _>>().unwrap().len()
    };
    assert_eq!(with(&client, records).await, 1502);
    let queues = with(&client, |client| client.queues().unwrap()).await;
    assert_eq!(queues[0].records, 1502);
    // A runtime is not dropped within another one.
    spawn_blocking(move || drop(client)).await.unwrap();
}
