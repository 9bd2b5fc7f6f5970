//! Connections to the server: one for each call that is under way, and one that is told of new entries.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tradewind_engine::EngineError;

use crate::error;
use crate::tls;
use crate::url::{PostgresUrl, TlsMode};

/// Connections that are kept when no call needs them.
const IDLE_MAX: usize = 8;

/// Time after which a log is looked at again by who waits for an entry: doubled each time up to the second.
const LOOK: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

/// Time after which it is tried again to be told of new entries.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// Time after which a connection that says nothing is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Bytes of a statement's values beside which more are sent in another one.
pub(crate) const VALUES_BYTES: usize = 8 << 20;

/// Bytes that a task or a record has at most.
pub(crate) const ENTRY_BYTES_MAX: usize = 16 << 20;

/// Value of a statement, with its type.
pub(crate) type Value<'a> = (&'a (dyn ToSql + Sync), Type);

pub(crate) struct Connection {
    runtime: Runtime,
    idle: Mutex<Vec<Link>>,
    way: Way,
    news: Arc<News>,
    listener: Mutex<Option<JoinHandle<()>>>,
    pub(crate) url: PostgresUrl,
}

/// How the server is reached.
#[derive(Clone)]
struct Way {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    /// Settings of each session.
    settings: String,
    place: String,
}

/// Wakes readers.
#[derive(Debug, Default)]
struct News {
    tasks: Notify,
    records: Notify,
}

/// Log that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    Tasks,
    Records,
}

/// Connection, which is closed when this is dropped.
struct Link {
    client: Client,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connection of one call.
pub(crate) struct Session<'a> {
    link: Link,
    table: &'a str,
    /// Whether a commit was sent, and not answered.
    is_committing: Cell<bool>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) fn open(url: PostgresUrl) -> Result<Self, EngineError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()
            .map_err(|error| EngineError::Away(format!("failed to start a runtime: {error}")))?;
        let way = Way::new(&url)?;
        Ok(Self {
            runtime,
            idle: Mutex::default(),
            way,
            news: Arc::default(),
            listener: Mutex::default(),
            url,
        })
    }

    /// Makes a call on a connection that no other call has. One whose call failed is closed, and with it what it began.
    pub(crate) fn run<T>(
        &self,
        call: impl AsyncFnOnce(&Session<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let link = lock(&self.idle).pop().filter(|link| !link.client.is_closed());
        self.runtime.block_on(async {
            let link = match link {
                Some(link) => link,
                None => self.way.connect(None).await?,
            };
            let table = &self.url.table[..];
            let session = Session { link, table, is_committing: Cell::new(false) };
            let answer = tokio::time::timeout(self.url.timeout, call(&session)).await;
            let answer = answer.unwrap_or_else(|_| {
                Err(EngineError::Away(format!("no answer in {:?}", self.url.timeout)))
            });
            match answer {
                Ok(answer) => {
                    let mut idle = lock(&self.idle);
                    if idle.len() < IDLE_MAX {
                        idle.push(session.link);
                    }
                    Ok(answer)
                }
                Err(error) if session.is_committing.get() => Err(error::unsure(error)),
                Err(error) => Err(error),
            }
        })
    }

    /// Reads, and waits for the first entry for this long.
    pub(crate) fn follow<T>(
        &self,
        log: Log,
        wait: Duration,
        mut read: impl FnMut() -> Result<Vec<T>, EngineError>,
    ) -> Result<Vec<T>, EngineError> {
        let (began, mut pause) = (Instant::now(), LOOK[0]);
        loop {
            let news = match log {
                Log::Tasks => &self.news.tasks,
                Log::Records => &self.news.records,
            };
            // What is told of while it is read is not missed.
            let told = news.notified();
            let read = read()?;
            let left = wait.saturating_sub(began.elapsed());
            if !read.is_empty() || left.is_zero() {
                return Ok(read);
            }
            self.listen();
            let pausing = async { tokio::time::timeout(pause.min(left), told).await.is_ok() };
            pause = match self.runtime.block_on(pausing) {
                // It may be another partition's, or wait for a transaction that is older.
                true => LOOK[0],
                false => (pause * 2).min(LOOK[1]),
            };
        }
    }

    /// Waits before something is looked at again.
    pub(crate) fn pause(&self) {
        self.runtime.block_on(async { tokio::time::sleep(LOOK[0]).await });
    }

    fn listen(&self) {
        let mut listener = lock(&self.listener);
        if listener.is_some() {
            return;
        }
        let (way, news, table) = (self.way.clone(), Arc::clone(&self.news), self.url.table.clone());
        *listener = Some(self.runtime.spawn(async move {
            loop {
                // Who waits looks by itself meanwhile.
                if let Ok(mut link) = way.connect(Some((Arc::clone(&news), table.clone()))).await {
                    let listening = format!("listen \"{table}\"; listen {table}_records");
                    if link.client.batch_execute(&listening).await.is_ok() {
                        // It ends with the connection, or by a panic, which leaves nothing to do here.
                        let _ = (&mut link.task).await;
                    }
                }
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        }));
    }
}

impl Way {
    fn new(url: &PostgresUrl) -> Result<Self, EngineError> {
        let variable = |name: &str| std::env::var(name).ok();
        let user = url.user.clone().or_else(|| variable("PGUSER"));
        let words = "the URL names no user, and there is no variable PGUSER";
        let user = user.ok_or_else(|| EngineError::Refused(words.into()))?;
        let mut config = Config::new();
        config
            .user(user)
            .dbname(&url.database)
            .host(&url.host)
            .port(url.port)
            .application_name("tradewind")
            .connect_timeout(url.timeout)
            .keepalives_idle(KEEPALIVE)
            .ssl_mode(match url.tls {
                TlsMode::Disable => tokio_postgres::config::SslMode::Disable,
                TlsMode::Require | TlsMode::VerifyFull => tokio_postgres::config::SslMode::Require,
            });
        let password = url.password.clone().map(|it| it.0).or_else(|| variable("PGPASSWORD"));
        if let Some(password) = password {
            config.password(password);
        }
        let timeout = url.timeout.as_millis();
        // A lock is waited for less long, so that the answer says so. A program that is stopped in the middle of a
        // transaction holds up others no longer than this.
        let mut settings = format!(
            "set statement_timeout = {timeout}; set lock_timeout = {}; \
             set idle_in_transaction_session_timeout = {}; set jit = off",
            timeout / 2 + 1,
            timeout * 2
        );
        if let Some(schema) = &url.schema {
            settings += &format!("; set search_path = \"{schema}\"");
        }
        Ok(Self { config, tls: tls::connector(url)?, settings, place: url.to_string() })
    }

    /// Connects. With `news` what the server tells is passed on.
    async fn connect(&self, news: Option<(Arc<News>, String)>) -> Result<Link, EngineError> {
        let timeout = self.config.get_connect_timeout().copied().unwrap_or_default();
        let connecting = async {
            let link = match self.tls.clone() {
                Some(tls) => self.connect_by(tls, news).await,
                None => self.connect_by(NoTls, news).await,
            }?;
            link.client.batch_execute(&self.settings).await?;
            Ok(link)
        };
        let place = &self.place;
        match tokio::time::timeout(timeout, connecting).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(match error::of(&error) {
                EngineError::Away(words) => {
                    EngineError::Away(format!("failed to connect to {place}: {words}"))
                }
                EngineError::Refused(words) => EngineError::Refused(format!(
                    "failed to connect to {place}: {words}{}",
                    self.advice(&words)
                )),
                error => error,
            }),
            Err(_) => Err(EngineError::Away(format!("{place} has not answered in {timeout:?}"))),
        }
    }

    fn advice(&self, words: &str) -> &'static str {
        match self.tls.is_some() && words.contains("TLS") {
            true => {
                "; hosts other than loopback are to have TLS and a certificate (sslmode=verify-full) unless \
                 sslmode says disable or require; sslrootcert names a file of authorities"
            }
            false => "",
        }
    }

    async fn connect_by<T>(
        &self,
        tls: T,
        news: Option<(Arc<News>, String)>,
    ) -> Result<Link, tokio_postgres::Error>
    where
        T: MakeTlsConnect<Socket>,
        <T as MakeTlsConnect<Socket>>::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let (client, mut connection) = self.config.connect(tls).await?;
        let task = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await
            {
                let (AsyncMessage::Notification(message), Some((news, table))) = (message, &news)
                else {
                    continue;
                };
                match message.channel() == table {
                    true => news.tasks.notify_waiters(),
                    false => news.records.notify_waiters(),
                }
            }
        });
        Ok(Link { client, task })
    }
}

impl Session<'_> {
    /// Sends a statement, in which `orders` stands for the table, and returns its rows. Nothing is prepared: so it
    /// takes one round trip, also through a pool of connections.
    pub(crate) async fn query(
        &self,
        text: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, EngineError> {
        let text = self.sql(text);
        self.link.client.query_typed(&text, values).await.map_err(|error| error::of(&error))
    }

    /// Does the same with a statement that is a transaction of its own.
    pub(crate) async fn write(
        &self,
        text: &str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, EngineError> {
        self.is_committing.set(true);
        let rows = self.query(text, values).await?;
        self.is_committing.set(false);
        Ok(rows)
    }

    /// Returns a text with the table's name in the place of `orders`.
    pub(crate) fn sql(&self, text: &str) -> String {
        text.replace("orders", self.table)
    }

    /// Sends statements without values, in which `orders` stands for the table.
    pub(crate) async fn batch_of(&self, text: &str) -> Result<(), EngineError> {
        self.batch(&self.sql(text)).await
    }

    /// Sends statements without values.
    async fn batch(&self, text: &str) -> Result<(), EngineError> {
        self.link.client.batch_execute(text).await.map_err(|error| error::of(&error))
    }

    /// Begins a transaction in which each statement sees what was committed before it, whatever the default is.
    pub(crate) async fn begin(&self) -> Result<(), EngineError> {
        self.batch("begin isolation level read committed read write").await
    }

    pub(crate) async fn commit(&self) -> Result<(), EngineError> {
        self.is_committing.set(true);
        self.batch("commit").await?;
        self.is_committing.set(false);
        Ok(())
    }

    pub(crate) async fn rollback(&self) -> Result<(), EngineError> {
        self.batch("rollback").await
    }
}

/// Returns a value of a row.
pub(crate) fn value<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    place: usize,
) -> Result<T, EngineError> {
    row.try_get(place).map_err(|error| error::of(&error))
}

/// Returns a number as the server has it, whose numbers are signed. No position is larger.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Returns a number of the server's, none of which is negative.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Splits what is sent into parts of which each has few enough bytes.
pub(crate) fn parts<T>(all: &[T], bytes: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut parts, mut first, mut sum) = (Vec::new(), 0, 0);
    for (place, one) in all.iter().enumerate() {
        let bytes = bytes(one);
        if place > first && sum + bytes > VALUES_BYTES {
            parts.push(&all[first..place]);
            (first, sum) = (place, 0);
        }
        sum += bytes;
    }
    if first < all.len() {
        parts.push(&all[first..]);
    }
    parts
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_split_by_bytes_and_nothing_is_left_out() {
        let half = VALUES_BYTES / 2;
        let cases: [(&[usize], &[usize]); 5] = [
            (&[], &[]),
            (&[1, 2, 3], &[3]),
            (&[half, half, 1], &[2, 1]),
            (&[VALUES_BYTES * 2, 1], &[1, 1]),
            (&[1, VALUES_BYTES * 2, 1], &[1, 1, 1]),
        ];
        for (all, wanted) in cases {
            let lengths: Vec<_> = parts(all, |bytes| *bytes).iter().map(|it| it.len()).collect();
            assert_eq!(lengths, wanted, "{all:?}");
        }
    }
}
