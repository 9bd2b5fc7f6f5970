//! Leases in a bucket: a value for each partition, replaced under its revision.
//!
//! They are read from the leader of the bucket's stream. Another replica may be behind: by what it has, an owner would
//! take its own lease for another's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::kv::{Config, CreateErrorKind, Store, UpdateErrorKind};
use async_nats::jetstream::message::StreamMessage;
use tradewind_engine::{EngineError, Epoch, Lease, Leases, Watched};

use crate::connection::{Connection, away};

/// Headers of an entry that was removed.
const OPERATION: &str = "KV-Operation";
const MARKER_REASON: &str = "Nats-Marker-Reason";

#[derive(Debug)]
pub(crate) struct NatsLeases {
    connection: Arc<Connection>,
    bucket: Store,
    began: Instant,
    watched: HashMap<u32, Watched>,
}

impl NatsLeases {
    pub(crate) fn open(connection: Arc<Connection>) -> Result<Self, EngineError> {
        connection.check()?;
        let bucket = format!("{}-leases", connection.url.stream);
        let found = match connection.wait(connection.context.get_key_value(&bucket)) {
            Ok(found) => found,
            // To make it where it is does nothing.
            Err(_) => {
                let num_replicas = connection.url.replicas;
                let config = Config { bucket, history: 1, num_replicas, ..Config::default() };
                connection.wait(connection.context.create_key_value(config)).map_err(away)?
            }
        };
        Ok(Self { connection, bucket: found, began: Instant::now(), watched: HashMap::new() })
    }

    fn get(&self, partition: u32) -> Result<Option<(u64, Lease)>, EngineError> {
        self.connection.check()?;
        let subject = format!("{}{partition}", self.bucket.prefix);
        let message = self.connection.last(&self.bucket.stream, &subject)?;
        let Some(message) = message.filter(|message| is_put(&message.headers)) else {
            return Ok(None);
        };
        let StreamMessage { sequence: revision, payload, .. } = message;
        let lease = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok());
        let amiss = || EngineError::Amiss { position: revision, what: "it is no lease".into() };
        Ok(Some((revision, lease.ok_or_else(amiss)?)))
    }

    /// Replaces a lease. Returns false if it was replaced since.
    fn put(
        &self,
        partition: u32,
        revision: Option<u64>,
        lease: &Lease,
    ) -> Result<bool, EngineError> {
        let (key, value) = (partition.to_string(), lease.to_string().into());
        let unsure = |error: String| EngineError::Unsure(error);
        match revision {
            None => match self.connection.wait(self.bucket.create(key, value)) {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(unsure(error.to_string())),
            },
            Some(revision) => {
                match self.connection.wait(self.bucket.update(key, value, revision)) {
                    Ok(_) => Ok(true),
                    Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
                    Err(error) => Err(unsure(error.to_string())),
                }
            }
        }
    }

    /// Returns an error if a lease with a higher epoch was taken.
    pub(crate) fn check(&self, partition: u32, epoch: Epoch) -> Result<(), EngineError> {
        match self.get(partition)? {
            Some((_, lease)) if lease.epoch > epoch => {
                Err(EngineError::Fenced { epoch, by: Some(lease.epoch) })
            }
            _ => Ok(()),
        }
    }
}

/// Was a value put, and not one removed?
fn is_put(headers: &HeaderMap) -> bool {
    [OPERATION, MARKER_REASON].iter().all(|name| headers.get(*name).is_none())
}

impl Leases for NatsLeases {
    fn take(
        &mut self,
        partition: u32,
        owner: &str,
        time: Duration,
    ) -> Result<Option<Epoch>, EngineError> {
        let seen = self.get(partition)?;
        let revision = seen.as_ref().map(|(revision, _)| *revision);
        let watched = self.watched.entry(partition).or_default();
        let lease = seen.as_ref().map(|(_, lease)| lease);
        let now = self.began.elapsed();
        let Some(epoch) = watched.handle_seen(now, revision.unwrap_or(0), lease) else {
            return Ok(None);
        };
        let lease = Lease { epoch, time, owner: Some(owner.to_owned()) };
        Ok(self.put(partition, revision, &lease)?.then_some(epoch))
    }

    fn holders(&mut self) -> Result<BTreeMap<u32, String>, EngineError> {
        let Store { prefix, stream, .. } = &self.bucket;
        let all = format!("{prefix}>");
        let now = self.began.elapsed();
        let (mut holders, mut from) = (BTreeMap::new(), 1);
        while let Some(entry) = self.connection.next(stream, &all, from)? {
            from = entry.sequence + 1;
            let number = entry.subject.strip_prefix(prefix).and_then(|it| it.parse().ok());
            let text = std::str::from_utf8(&entry.payload).ok();
            let (Some(number), Some(Ok(lease))) = (number, text.map(str::parse::<Lease>)) else {
                continue;
            };
            let watched: &mut Watched = self.watched.entry(number).or_default();
            let is_free = watched.handle_seen(now, entry.sequence, Some(&lease)).is_some();
            if let Some(owner) = lease.owner.filter(|_| !is_free) {
                holders.insert(number, owner);
            }
        }
        Ok(holders)
    }

    fn renew(&mut self, partition: u32, epoch: Epoch, time: Duration) -> Result<(), EngineError> {
        loop {
            let seen = self.get(partition)?;
            let Some((revision, lease)) = seen else {
                return Err(EngineError::Fenced { epoch, by: None });
            };
            if lease.epoch != epoch || lease.owner.is_none() {
                let by = (lease.epoch > epoch).then_some(lease.epoch);
                return Err(EngineError::Fenced { epoch, by });
            }
            if self.put(partition, Some(revision), &Lease { time, ..lease })? {
                return Ok(());
            }
        }
    }

    fn release(&mut self, partition: u32, epoch: Epoch) -> Result<(), EngineError> {
        while let Some((revision, lease)) = self.get(partition)? {
            if lease.epoch != epoch || lease.owner.is_none() {
                break;
            }
            if self.put(partition, Some(revision), &Lease { owner: None, ..lease })? {
                break;
            }
        }
        Ok(())
    }
}
