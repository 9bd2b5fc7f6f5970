//! The client in the library, against a server in this process.

use std::error::Error;
use std::thread;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::net::TcpListener;
use tradewind::queues::{NewTask, ProblemKind, Wanted};
use tradewind::{Client, Status, blocking};
use tradewind_http::memory::Memory;
use tradewind_http::{Access, Limits, Server};

/// Starts a server, and returns its queues and its URL.
async fn serve() -> (Memory, String) {
    let memory = Memory::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let access = Access::default().with_loopback();
    tokio::spawn(Server::new(memory.clone(), access, Limits::default()).listen(listener));
    (memory, url)
}

#[tokio::test]
async fn a_program_submits_tasks_and_takes_records() -> Result<(), Box<dyn Error>> {
    let (memory, url) = serve().await;
    let client = Client::connect(&url)?;
    let task = NewTask::new("https://example.net/1.jpg").key("1.jpg")?;
    let submitted = client.submit("thumbs", task.clone()).await?;
    assert_eq!(client.submit("thumbs", task).await?, submitted);
    memory.record("thumbs-0", Status::Ok);
    let record = client.result(&submitted.id, Duration::from_secs(30)).await?;
    assert_eq!(record.ok_or("no record")?.status, Status::Ok);
    let records: Vec<_> = client.records("thumbs", Wanted::default())?.try_collect().await?;
    assert_eq!(records.len(), 1);
    let error = client.queue("none").await.unwrap_err();
    assert!(error.is(ProblemKind::UnknownQueue), "{error}");
    Ok(())
}

#[tokio::test]
async fn so_does_one_without_a_runtime() {
    let (memory, url) = serve().await;
    let program = thread::spawn(move || {
        let client = blocking::Client::connect(&url).unwrap();
        let id = client.submit("thumbs", "1.jpg").unwrap().id;
        memory.record("thumbs-0", Status::Ok);
        client.result(&id, Duration::from_secs(30)).unwrap().unwrap().status
    });
    let status = tokio::task::spawn_blocking(|| program.join()).await.unwrap().unwrap();
    assert_eq!(status, Status::Ok);
}
