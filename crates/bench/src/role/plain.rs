//! What a user of an engine writes without Tradewind, by the engine's usual client: loops that take tasks in batches, store
//! a result of each, and remove the tasks. And programs that fill either's logs with tasks.

use std::collections::VecDeque;
use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use clap::Subcommand;
use futures::StreamExt;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};

/// Number of messages that a worker fetches at a time.
const FETCH: usize = 100;

/// Number of publishes of a filler that are not acknowledged yet.
const PENDING_MAX: usize = 2000;

/// Number of rows of a filler's transaction.
const ROWS: i64 = 10_000;

/// Pause of a worker that finds no message while others have some that are not acknowledged.
const PAUSE: Duration = Duration::from_millis(1);

/// Programs of an engine's own client.
#[derive(Debug, Subcommand)]
pub(crate) enum Plain {
    /// Of JetStream: make streams of tasks and results, and a consumer.
    NatsSetUp { address: String, name: String },
    /// Of JetStream: publish tasks, each under a subject of its own if asked to.
    NatsFill {
        address: String,
        subject: String,
        count: u64,
        bytes: usize,
        #[arg(long)]
        unique: bool,
    },
    /// Of JetStream: publish each task as its result, and acknowledge it.
    NatsLoop { address: String, name: String, count: u64, workers: usize },
    /// Of PostgreSQL: make tables of tasks and results.
    PostgresSetUp { config: String, name: String },
    /// Of PostgreSQL: insert tasks.
    PostgresFill { config: String, table: String, count: i64, bytes: i32 },
    /// Of PostgreSQL: store each task as its result, and delete it.
    PostgresLoop { config: String, name: String, limit: i64, workers: usize },
}

pub(super) fn run(plain: Plain) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match plain {
            Plain::NatsSetUp { address, name } => nats_set_up(&address, &name).await,
            Plain::NatsFill { address, subject, count, bytes, unique } => {
                nats_fill(&address, &subject, count, bytes, unique).await
            }
            Plain::NatsLoop { address, name, count, workers } => {
                let done = Arc::new(AtomicU64::new(0));
                let workers = (0..workers)
                    .map(|_| nats_worker(address.clone(), name.clone(), count, done.clone()));
                all(workers).await
            }
            Plain::PostgresSetUp { config, name } => {
                let text = format!(
                    "create table {name}_tasks (id bigint generated always as identity primary key, payload bytea not null);
                     create table {name}_results (task bigint primary key, payload bytea not null)"
                );
                Ok(postgres(&config).await?.batch_execute(&text).await?)
            }
            Plain::PostgresFill { config, table, count, bytes } => {
                postgres_fill(&config, &table, count, bytes).await
            }
            Plain::PostgresLoop { config, name, limit, workers } => {
                all((0..workers).map(|_| postgres_worker(config.clone(), name.clone(), limit))).await
            }
        }
    })
}

async fn all<W>(workers: impl Iterator<Item = W>) -> Result<()>
where
    W: Future<Output = Result<()>> + Send + 'static,
{
    let mut workers: JoinSet<Result<()>> = workers.collect();
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn nats(address: &str) -> Result<jetstream::Context> {
    let client = async_nats::connect(address).await.context("cannot reach NATS")?;
    Ok(jetstream::new(client))
}

async fn nats_set_up(address: &str, name: &str) -> Result<()> {
    let nats = nats(address).await?;
    let stream = |kind: &str, retention| Config {
        name: format!("{name}_{kind}"),
        subjects: vec![format!("{name}_{kind}")],
        retention,
        ..Config::default()
    };
    nats.create_stream(stream("RESULTS", RetentionPolicy::Limits)).await?;
    let tasks = nats.create_stream(stream("TASKS", RetentionPolicy::WorkQueue)).await?;
    let config = pull::Config {
        durable_name: Some("workers".into()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 100_000,
        ..pull::Config::default()
    };
    tasks.create_consumer(config).await?;
    Ok(())
}

async fn nats_fill(
    address: &str,
    subject: &str,
    count: u64,
    bytes: usize,
    is_unique: bool,
) -> Result<()> {
    let nats = nats(address).await?;
    let mut pending = VecDeque::new();
    for number in 0..count {
        let payload = format!("{number:0bytes$}");
        let subject = if is_unique { format!("{subject}.{number}") } else { subject.to_owned() };
        pending.push_back(
            nats.send_publish(
                subject,
                jetstream::message::PublishMessage::build().payload(payload.into()),
            )
            .await?,
        );
        if pending.len() >= PENDING_MAX
            && let Some(first) = pending.pop_front()
        {
            first.into_future().await?;
        }
    }
    for left in pending {
        left.into_future().await?;
    }
    Ok(())
}

async fn nats_worker(
    address: String,
    name: String,
    count: u64,
    done: Arc<AtomicU64>,
) -> Result<()> {
    let nats = nats(&address).await?;
    let (tasks, results) = (format!("{name}_TASKS"), format!("{name}_RESULTS"));
    let consumer: jetstream::consumer::PullConsumer =
        nats.get_consumer_from_stream("workers", tasks).await?;
    while done.load(Ordering::Relaxed) < count {
        let mut fetched = consumer.fetch().max_messages(FETCH).messages().await?;
        let (mut messages, mut published) = (Vec::new(), Vec::new());
        while let Some(message) = fetched.next().await {
            let message = message.map_err(anyhow::Error::from_boxed)?;
            published.push(nats.publish(results.clone(), message.payload.clone()).await?);
            messages.push(message);
        }
        if messages.is_empty() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        // Not before its result is there.
        for published in published {
            published.await?;
        }
        for message in &messages {
            message.ack().await.map_err(anyhow::Error::from_boxed)?;
        }
        done.fetch_add(messages.len() as u64, Ordering::Relaxed);
    }
    Ok(nats.client().flush().await?)
}

async fn postgres(config: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(config, NoTls).await.context("cannot reach PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

async fn postgres_fill(config: &str, table: &str, count: i64, bytes: i32) -> Result<()> {
    let client = postgres(config).await?;
    let insert = format!(
        "insert into {table} (payload) select convert_to(lpad(i::text, $3, '0'), 'UTF8') from generate_series($1::bigint, $2::bigint) i"
    );
    let insert = client.prepare(&insert).await?;
    let mut from = 0_i64;
    while from < count {
        let to = count.min(from + ROWS) - 1;
        client.execute(&insert, &[&from, &to, &bytes]).await?;
        from = to + 1;
    }
    Ok(client.batch_execute(&format!("vacuum analyze {table}")).await?)
}

async fn postgres_worker(config: String, name: String, limit: i64) -> Result<()> {
    let mut client = postgres(&config).await?;
    let select = client
        .prepare(&format!(
            "select id, payload from {name}_tasks order by id limit $1 for update skip locked"
        ))
        .await?;
    let insert = client
        .prepare(&format!(
            "insert into {name}_results (task, payload) select * from unnest($1::bigint[], $2::bytea[])"
        ))
        .await?;
    let delete = client.prepare(&format!("delete from {name}_tasks where id = any($1)")).await?;
    loop {
        let transaction = client.transaction().await?;
        let rows = transaction.query(&select, &[&limit]).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let payloads: Vec<&[u8]> = rows.iter().map(|row| row.get(1)).collect();
        // Sent together.
        let values: [&(dyn ToSql + Sync); 2] = [&ids, &payloads];
        tokio::try_join!(
            transaction.execute(&insert, &values),
            transaction.execute(&delete, &values[..1]),
        )?;
        transaction.commit().await?;
    }
}
