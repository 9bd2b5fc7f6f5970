//! Records in a table, one for each task.
//!
//! Who writes locks the row of the partition's fence and looks at its epoch. So positions ascend in the order in which
//! transactions are committed, and a reader passes over none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use tradewind_engine::{
    Committed, EngineError, Epoch, NewRecord, RecordLog, format_stored, parse_stored,
};
use tradewind_proto::message::Status;
use tradewind_proto::{Seq, SeqSet};
use tradewind_store::StoredRecord;

use crate::connection::{
    Connection, ENTRY_BYTES_MAX, Log, Session, Value, parts, signed, unsigned, value,
};

/// Bytes that a record takes in a statement beside its line.
const VALUE_BYTES: usize = 64;

/// Records whose tasks are read at a time.
const SYNC_RECORDS: i64 = 50_000;

/// Records that are removed at a time.
const REMOVE_RECORDS: i64 = 20_000;

const FENCE: &str = "select epoch from orders_fences where partition = $1 for no key update";

const RAISE: &str = "update orders_fences set epoch = $2 where partition = $1";

/// Pages of tasks that are near one another: all from the first to the last.
const NEAR: &str = "
        select first_position, ids from orders_pages where partition = $1 and first_position between
            (select coalesce(max(first_position), 0) from orders_pages where partition = $1
                and first_position <= (select min(task) from unnest($2) task))
            and (select max(task) from unnest($2) task)";

/// Pages of tasks that are anywhere.
const FAR: &str = "
        select first_position, ids from orders_pages where partition = $1 and first_position in (
            select (select max(first_position) from orders_pages where partition = $1 and first_position <= task)
            from unnest($2) task
        )";

/// Positions for each task up to which tasks are near one another: pages in which none of them is are few then.
const NEAR_POSITIONS: i64 = 4;

/// Inserts records, unless their tasks have some, with the ids of the tasks where these have positions.
const INSERT: &str = "
    with page as (PAGES
    ), named as (
        select first_position + place - 1 as task, id
        from page cross join lateral unnest(ids) with ordinality u (id, place)
    )
    insert into orders_records (partition, task, task_id, status, line)
    select $1, r.task, named.id, r.status, r.line
    from unnest($2, $3, $4) with ordinality r (task, status, line, place) left join named on named.task = r.task
    order by r.place
    on conflict do nothing
    returning task";

const READ: &str = "
    select position, task, status, line from (
        select r.*, row_number() over places as number, sum(octet_length(line)) over places as bytes
        from (
            select position, task, status, line from orders_records
            where partition = $1 and position >= $2 order by position limit 1000
        ) r window places as (order by position)
    ) r where number = 1 or bytes <= $3
    order by position";

const REMOVE: &str = "
    with removed as (
        select position from orders_records where partition = $1 and position < $2 order by position limit $3
    )
    delete from orders_records r using removed
    where r.partition = $1 and r.position = removed.position
    returning r.position";

#[derive(Debug)]
pub(crate) struct PostgresRecords {
    connection: Arc<Connection>,
    partition: i32,
    known: Known,
}

/// What is known of the tasks that have records.
#[derive(Clone, Debug, Default)]
struct Known {
    stored: SeqSet,
    /// Position of the checkpoint that `stored` has: records of tasks that it names may have been removed.
    checkpoint: i64,
    /// Position of the last record that was read.
    read_to: i64,
}

impl PostgresRecords {
    pub(crate) fn new(connection: Arc<Connection>, partition: i32) -> Self {
        Self { connection, partition, known: Known::default() }
    }

    /// Reads which tasks have got records since it was read last.
    fn sync(&mut self) -> Result<(), EngineError> {
        let (partition, known) = (self.partition, &mut self.known);
        self.connection.run(async |session| known.read_checkpoint(session, partition).await)?;
        while self.connection.run(async |session| known.read_on(session, partition).await)? {}
        Ok(())
    }
}

impl Known {
    /// Reads a checkpoint that is newer.
    async fn read_checkpoint(
        &mut self,
        session: &Session<'_>,
        partition: i32,
    ) -> Result<(), EngineError> {
        let text =
            "select position, tasks from orders_checkpoints where partition = $1 and position > $2";
        let values = [(&partition as _, Type::INT4), (&self.checkpoint as _, Type::INT8)];
        let rows = session.query(text, &values).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let position = value::<i64>(row, 0)?;
        let amiss = |_| EngineError::Amiss {
            position: unsigned(position),
            what: "its checkpoint is no set of tasks".into(),
        };
        let stored = parse_stored(value(row, 1)?).map_err(amiss)?;
        for range in stored.to_ranges().as_slice() {
            self.stored.insert_range(*range);
        }
        self.checkpoint = position;
        self.read_to = self.read_to.max(position);
        Ok(())
    }

    /// Reads some records' tasks. Returns whether there may be more.
    ///
    /// The checkpoint is read afterwards: records that were removed between are in that.
    async fn read_on(
        &mut self,
        session: &Session<'_>,
        partition: i32,
    ) -> Result<bool, EngineError> {
        let text = "select position, task from orders_records where partition = $1 and position > $2 \
                    order by position limit $3";
        let values = [
            (&partition as _, Type::INT4),
            (&self.read_to as _, Type::INT8),
            (&SYNC_RECORDS as _, Type::INT8),
        ];
        let rows = session.query(text, &values).await?;
        for row in &rows {
            self.stored.insert(Seq(unsigned(value(row, 1)?)));
        }
        if let Some(last) = rows.last() {
            self.read_to = self.read_to.max(value(last, 0)?);
        }
        self.read_checkpoint(session, partition).await?;
        Ok(rows.len() as i64 == SYNC_RECORDS)
    }

    /// Writes down what is known. To be called when all records were read, and nobody else writes any.
    async fn write_checkpoint(
        &mut self,
        session: &Session<'_>,
        partition: i32,
    ) -> Result<(), EngineError> {
        let text = "insert into orders_checkpoints as c (partition, position, tasks) values ($1, $2, $3) \
                    on conflict (partition) do update set position = excluded.position, tasks = excluded.tasks \
                    where c.position < excluded.position";
        let tasks = format_stored(&self.stored);
        let values: [Value<'_>; 3] =
            [(&partition, Type::INT4), (&self.read_to, Type::INT8), (&tasks, Type::TEXT)];
        session.query(text, &values).await?;
        self.checkpoint = self.read_to;
        Ok(())
    }
}

/// Makes a partition's records this owner's, unless they are the next one's.
pub(crate) fn own(
    connection: &Connection,
    partition: i32,
    epoch: Epoch,
) -> Result<(), EngineError> {
    let by = connection.run(async |session| {
        session.begin().await?;
        let by = raise(session, partition, epoch).await?;
        session.commit().await?;
        Ok(by)
    })?;
    fenced(epoch, by)
}

/// Locks the fence of a partition until the transaction ends, and says under which epoch it is written. Returns a
/// higher one if there is one.
async fn raise(
    session: &Session<'_>,
    partition: i32,
    epoch: Epoch,
) -> Result<Option<Epoch>, EngineError> {
    let rows = session.query(FENCE, &[(&partition, Type::INT4)]).await?;
    let words = "the tables are not as schema.sql makes them: a fence is missing";
    let row = rows.first().ok_or_else(|| EngineError::Refused(words.into()))?;
    let found = Epoch(unsigned(value(row, 0)?));
    if found < epoch {
        let values = [(&partition as _, Type::INT4), (&signed(epoch.0) as _, Type::INT8)];
        session.query(RAISE, &values).await?;
    }
    Ok((found > epoch).then_some(found))
}

fn fenced(epoch: Epoch, by: Option<Epoch>) -> Result<(), EngineError> {
    match by {
        Some(_) => Err(EngineError::Fenced { epoch, by }),
        None => Ok(()),
    }
}

async fn insert(
    session: &Session<'_>,
    partition: i32,
    records: &[&NewRecord],
) -> Result<Vec<Seq>, EngineError> {
    let tasks: Vec<_> = records.iter().map(|record| signed(record.seq.0)).collect();
    let statuses: Vec<_> = records.iter().map(|record| record.status.as_str()).collect();
    let lines: Vec<_> = records.iter().map(|record| &record.line[..]).collect();
    let values: [Value<'_>; 4] = [
        (&partition, Type::INT4),
        (&tasks, Type::INT8_ARRAY),
        (&statuses, Type::TEXT_ARRAY),
        (&lines, Type::BYTEA_ARRAY),
    ];
    let span = tasks.iter().max().zip(tasks.iter().min()).map_or(0, |(last, first)| last - first);
    let is_near = span <= NEAR_POSITIONS * i64::try_from(tasks.len()).unwrap_or(i64::MAX / 8);
    let text = INSERT.replace("PAGES", if is_near { NEAR } else { FAR });
    let rows = session.query(&text, &values).await?;
    rows.iter().map(|row| Ok(Seq(unsigned(value(row, 0)?)))).collect()
}

impl RecordLog for PostgresRecords {
    fn line_bytes_max(&self) -> usize {
        ENTRY_BYTES_MAX
    }

    fn commit(
        &mut self,
        epoch: Epoch,
        records: &[NewRecord],
    ) -> Result<Vec<Committed>, EngineError> {
        for (place, record) in records.iter().enumerate() {
            let (bytes, max) = (record.line.len(), ENTRY_BYTES_MAX);
            if bytes > max {
                return Err(EngineError::TooLarge { place, bytes, max });
            }
        }
        let (partition, known) = (self.partition, &mut self.known);
        let (by, added) = self.connection.run(async |session| {
            session.begin().await?;
            let by = raise(session, partition, epoch).await?;
            let mut added = BTreeSet::new();
            if by.is_none() {
                // Of a record that was removed only the checkpoint knows.
                known.read_checkpoint(session, partition).await?;
                let new = records.iter().filter(|record| !known.stored.contains(record.seq));
                let new: Vec<_> = new.collect();
                for part in parts(&new, |record| record.line.len() + VALUE_BYTES) {
                    added.extend(insert(session, partition, part).await?);
                }
            }
            session.commit().await?;
            Ok((by, added))
        })?;
        fenced(epoch, by)?;
        let mut left = added;
        let answers = records.iter().map(|record| {
            self.known.stored.insert(record.seq);
            match left.remove(&record.seq) {
                true => Committed::New,
                false => Committed::Known,
            }
        });
        Ok(answers.collect())
    }

    fn stored(&mut self) -> Result<SeqSet, EngineError> {
        self.sync()?;
        Ok(self.known.stored.clone())
    }

    fn checkpoint(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        // Most of it before others wait for this.
        self.sync()?;
        let (partition, known) = (self.partition, &mut self.known);
        let by = self.connection.run(async |session| {
            session.begin().await?;
            let by = raise(session, partition, epoch).await?;
            if by.is_none() {
                while known.read_on(session, partition).await? {}
                known.write_checkpoint(session, partition).await?;
            }
            session.commit().await?;
            Ok(by)
        })?;
        fenced(epoch, by)
    }

    fn get(&mut self, seq: Seq) -> Result<Option<(u64, StoredRecord)>, EngineError> {
        let text = "select position, task, status, line from orders_records where partition = $1 and task = $2";
        let task = signed(seq.0);
        let values = [(&self.partition as _, Type::INT4), (&task as _, Type::INT8)];
        let rows = self.connection.run(async |session| session.query(text, &values).await)?;
        rows.first().map(record_of).transpose()
    }

    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<(u64, StoredRecord)>, EngineError> {
        let (from, bytes) = (signed(from), signed(bytes_max as u64));
        let values = [
            (&self.partition as _, Type::INT4),
            (&from as _, Type::INT8),
            (&bytes as _, Type::INT8),
        ];
        self.connection.follow(Log::Records, wait, || {
            let rows = self.connection.run(async |session| session.query(READ, &values).await)?;
            rows.iter().map(record_of).collect()
        })
    }

    fn remove_below(&mut self, epoch: Epoch, position: u64) -> Result<(), EngineError> {
        self.checkpoint(epoch)?;
        let below = signed(position).min(self.known.checkpoint.saturating_add(1));
        let values = [
            (&self.partition as _, Type::INT4),
            (&below as _, Type::INT8),
            (&REMOVE_RECORDS as _, Type::INT8),
        ];
        loop {
            let rows = self.connection.run(async |session| session.write(REMOVE, &values).await)?;
            if (rows.len() as i64) < REMOVE_RECORDS {
                return Ok(());
            }
        }
    }
}

fn record_of(row: &Row) -> Result<(u64, StoredRecord), EngineError> {
    let position = unsigned(value(row, 0)?);
    let name: &str = value(row, 2)?;
    let status = Status::ALL.into_iter().find(|status| status.as_str() == name);
    let amiss = || EngineError::Amiss { position, what: format!("{name:?} is no status") };
    let bytes = Bytes::copy_from_slice(value(row, 3)?);
    let record = StoredRecord {
        seq: Seq(unsigned(value(row, 1)?)),
        status: status.ok_or_else(amiss)?,
        bytes,
    };
    Ok((position, record))
}
