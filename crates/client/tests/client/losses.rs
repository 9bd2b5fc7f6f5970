//! Answers that are lost.

use std::sync::atomic::Ordering;

use tradewind_client::{Batch, Client, Error, NewTask, Options};

use crate::scene::{Proxy, Scene};

async fn scene() -> (Scene, Proxy, Client) {
    let scene = Scene::new().await;
    let proxy = Proxy::new(scene.address).await;
    let client = Client::with(&proxy.url, Options::default()).unwrap();
    (scene, proxy, client)
}

#[tokio::test]
async fn a_submit_with_keys_is_sent_again_and_taken_once() {
    let (scene, proxy, client) = scene().await;
    for (count, after) in [(1, 0), (3, 0), (1, 60)] {
        proxy.lose.store(count, Ordering::SeqCst);
        proxy.after.store(after, Ordering::SeqCst);
        let key = format!("{count}-{after}");
        let task = NewTask::new("a").key(key.clone()).unwrap();
        let submitted = client.submit("q", task).await.unwrap();
        assert_eq!(submitted.key, Some(key));
        assert_eq!(proxy.lost.swap(0, Ordering::SeqCst), count);
    }
    assert_eq!(scene.memory.tasks("q").len(), 3);
}

#[tokio::test]
async fn a_submit_without_a_key_may_or_may_not_have_been_taken() {
    let (scene, proxy, client) = scene().await;
    for after in [0, 60] {
        proxy.lose.store(1, Ordering::SeqCst);
        proxy.after.store(after, Ordering::SeqCst);
        // One key is missing.
        let batch: Batch =
            [NewTask::new("a").key(format!("{after}")).unwrap(), "b".into()].into_iter().collect();
        let error = client.submit_batch("q", batch).await.unwrap_err();
        assert!(matches!(error, Error::Uncertain(_)) && !error.is_transient(), "{error}");
        assert!(error.to_string().contains("may or may not have been taken"), "{error}");
    }
    // Once each: nothing was sent again.
    assert_eq!(scene.memory.tasks("q").len(), 4);
}

#[tokio::test]
async fn what_changes_nothing_twice_is_sent_again() {
    let (scene, proxy, client) = scene().await;
    let id = client.submit("q", "a").await.unwrap().id;
    proxy.lose.store(1, Ordering::SeqCst);
    client.cancel(&id).await.unwrap().into_record().unwrap();
    proxy.lose.store(1, Ordering::SeqCst);
    client.pause("q").await.unwrap();
    proxy.lose.store(1, Ordering::SeqCst);
    client.retry(&id, Some("again")).await.unwrap();
    proxy.lose.store(1, Ordering::SeqCst);
    let error = client.retry(&id, None).await.unwrap_err();
    assert!(matches!(error, Error::Uncertain(_)), "{error}");
    assert_eq!(proxy.lost.load(Ordering::SeqCst), 4);
    assert_eq!(scene.memory.tasks("q").len(), 3);
}

#[tokio::test]
async fn a_server_that_is_started_again_is_waited_for() {
    let mut scene = Scene::new().await;
    let client = scene.client();
    client.submit("q", "a").await.unwrap();
    scene.stop().await;
    let waits = tokio::spawn(async move { client.submit("q", "b").await });
    // It has no connection, so nothing was sent.
    tokio::task::yield_now().await;
    scene.start().await;
    let submitted = waits.await.unwrap().unwrap();
    assert_eq!(submitted.id.to_string(), "q-1");
}
