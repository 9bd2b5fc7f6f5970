//! Tasks in a table, with positions in another.
//!
//! What [`PostgresTasks`] submits gets its positions in the same transaction. What programs insert gets them before the
//! first reader has it, in the order of transactions, and only when all transactions that are older have ended: so none
//! that commits late is passed over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use tradewind_engine::{EngineError, Epoch, SubmitId, TaskLog};
use tradewind_store::{KEY_BYTES_MAX, StoredTask, Submitted, TaskOptions};

use crate::connection::{
    Connection, ENTRY_BYTES_MAX, Log, Session, parts, signed, unsigned, value,
};
use crate::records;

/// Bytes that a task takes in a statement beside its payload and its key.
const VALUE_BYTES: usize = 64;

/// Pages that are written in a transaction at the most, of tasks of programs.
const PAGES: usize = 16;

/// Inserts tasks, unless they are known. Keys in order, so that two calls do not wait for each other.
const INSERT: &str = "
    insert into \"orders\" (xid, partition, key, retries, timeout, retry_of, payload, call, place)
    select null, $1, key, retries, micros * interval '1 microsecond', retry_of, payload, $2::uuid, place
    from unnest($3, $4, $5, $6, $7, $8) t (key, retries, micros, retry_of, payload, place)
    order by key, place
    on conflict do nothing
    returning id, place";

/// Columns of a task.
const COLUMNS: &str =
    "id, key, retries, (extract(epoch from timeout) * 1000000)::bigint, retry_of, payload";

/// Locks the positions of a partition until the transaction ends.
const LOCK: &str = "select from orders_partitions where partition = $1 for no key update";

/// Gives positions to tasks that this transaction has inserted.
const PLACE: &str = "
    insert into orders_pages
    select $1, last.end_position, last.end_position + cardinality($2), $2,
        (select min(id) from unnest($2) id), (select max(id) from unnest($2) id), last.seen_xid, last.seen_id
    from (select * from orders_pages where partition = $1 order by first_position desc limit 1) last
    returning first_position";

/// The last page, and tasks of programs that have no position and whose transactions are older than all that are open.
const UNPLACED: &str = "
    with last as (select * from orders_pages where partition = $1 order by first_position desc limit 1),
    fresh as (
        select t.* from last cross join lateral (
            select xid, id from \"orders\"
            where partition = $1 and xid is not null and (xid, id) > (last.seen_xid, last.seen_id)
                and xid < pg_snapshot_xmin(pg_current_snapshot())
            order by xid, id limit 1000
        ) t
    )";

/// Gives them positions. To be sent when they are locked.
const PLACE_UNPLACED: &str = "
    insert into orders_pages
    select $1, last.end_position, last.end_position + cardinality(page.ids), page.ids, page.id_min, page.id_max,
        page.seen_xid, page.seen_id
    from last cross join (
        select array_agg(id order by xid, id) as ids, min(id) as id_min, max(id) as id_max,
            (array_agg(xid order by xid desc, id desc))[1] as seen_xid,
            (array_agg(id order by xid desc, id desc))[1] as seen_id
        from fresh having count(*) > 0
    ) page
    returning first_position";

/// Positions of tasks by their ids; null if they have none.
const POSITIONS: &str = "
    select id, (
        select first_position + array_position(ids, id) - 1 from orders_pages
        where partition = $1 and id_max >= id and id_min <= id and id = any(ids)
        order by id_max limit 1
    ) from unnest($2) id";

/// Positions from one on, of which pages leave none out, with their tasks where these are there: as many as fit into these bytes.
const READ: &str = "
    select position, COLUMNS from (
        select p.position, t.*, count(t.id) over places as number,
            sum(octet_length(t.payload) + coalesce(octet_length(t.key), 0)) over places as bytes
        from (
            select first_position + place - 1 as position, id from (
                select first_position, ids from orders_pages
                where partition = $1 and end_position > $2 and first_position < $2 + 1000 and first_position >= (
                    select max(first_position) from orders_pages where partition = $1 and first_position <= $2
                )
            ) page cross join lateral unnest(ids) with ordinality u (id, place)
            where first_position + place - 1 >= $2
            order by 1 limit 1000
        ) p left join \"orders\" t on t.id = p.id
        window places as (order by p.position)
    ) t where number <= 1 or bytes <= $3
    order by position";

/// Removes tasks from a position on and below another, and pages that no task needs, some pages at a time. Returns
/// where the last of these ends.
const REMOVE: &str = "
    with page as (
        select first_position, end_position, ids from orders_pages
        where partition = $1 and end_position > $2 and first_position < $3 and first_position >= (
            select max(first_position) from orders_pages where partition = $1 and first_position <= $2
        )
        order by first_position limit 32
    ), task as (
        select id, first_position + place - 1 as position
        from page cross join lateral unnest(ids) with ordinality u (id, place)
    ), removed as (
        delete from \"orders\" t using task
        where t.id = task.id and task.position < $3 and (t.key is null or task.position < $4)
    ), removed_page as (
        delete from orders_pages p using page
        where p.partition = $1 and p.first_position = page.first_position and p.end_position <= $4
            and p.first_position < (select max(first_position) from orders_pages where partition = $1)
    )
    select max(end_position) from page";

#[derive(Debug)]
pub(crate) struct PostgresTasks {
    connection: Arc<Connection>,
    partition: i32,
}

/// What became of the tasks of a call.
struct Outcome {
    /// Ids of its tasks, and whether they are new.
    ids: Vec<(i64, bool)>,
    /// Positions of those that are new.
    positions: HashMap<i64, u64>,
    /// Place and id of a task whose key stands for another one. Then nothing was added.
    other: Option<(usize, i64)>,
}

impl PostgresTasks {
    pub(crate) fn new(connection: Arc<Connection>, partition: i32) -> Self {
        Self { connection, partition }
    }

    /// Returns positions of tasks, of which others may have been inserted by programs just now.
    fn positions(&self, ids: &[i64]) -> Result<HashMap<i64, u64>, EngineError> {
        let began = Instant::now();
        loop {
            let found = self.connection.run(async |session| {
                let mut found = HashMap::new();
                let values = [(&self.partition as _, Type::INT4), (&ids as _, Type::INT8_ARRAY)];
                for row in session.query(POSITIONS, &values).await? {
                    if let Some(position) = value(&row, 1)? {
                        found.insert(value(&row, 0)?, unsigned(position));
                    }
                }
                Ok(found)
            })?;
            if ids.iter().all(|id| found.contains_key(id)) {
                return Ok(found);
            }
            if !self.place_unplaced()? {
                if began.elapsed() >= self.connection.url.timeout {
                    return Err(EngineError::Unsure(
                        "a task with the same key waits for a transaction that is still open, and has no position"
                            .into(),
                    ));
                }
                self.connection.pause();
            }
        }
    }

    /// Gives positions to tasks of programs that have none. Returns false if there were none.
    fn place_unplaced(&self) -> Result<bool, EngineError> {
        self.connection.run(async |session| {
            let partition = [(&self.partition as _, Type::INT4)];
            let asking = format!("{UNPLACED} select from fresh limit 1");
            if session.query(&asking, &partition).await?.is_empty() {
                return Ok(false);
            }
            session.begin().await?;
            session.query(LOCK, &partition).await?;
            let text = format!("{UNPLACED} {PLACE_UNPLACED}");
            for _ in 0..PAGES {
                if session.query(&text, &partition).await?.is_empty() {
                    break;
                }
            }
            session.commit().await?;
            Ok(true)
        })
    }

    fn read_now(&self, from: u64, bytes_max: usize) -> Result<Vec<(u64, StoredTask)>, EngineError> {
        let text = READ.replace("COLUMNS", COLUMNS);
        let mut from = signed(from);
        loop {
            let bytes = signed(bytes_max as u64);
            let values = [
                (&self.partition as _, Type::INT4),
                (&from as _, Type::INT8),
                (&bytes as _, Type::INT8),
            ];
            let rows = self.connection.run(async |session| session.query(&text, &values).await)?;
            let Some(last) = rows.last() else {
                if !self.place_unplaced()? {
                    return Ok(Vec::new());
                }
                continue;
            };
            // Where all of them were removed, there may be some behind them.
            from = value::<i64>(last, 0)?.saturating_add(1);
            let mut tasks = Vec::new();
            for row in &rows {
                if value::<Option<i64>>(row, 1)?.is_some() {
                    tasks.push((unsigned(value(row, 0)?), task_of(row, 2)?));
                }
            }
            if !tasks.is_empty() {
                return Ok(tasks);
            }
        }
    }

    fn remove(&self, from: i64, low: i64, keys_low: i64) -> Result<(), EngineError> {
        let mut from = from;
        while from < low {
            let values = [
                (&self.partition as _, Type::INT4),
                (&from as _, Type::INT8),
                (&low as _, Type::INT8),
                (&keys_low as _, Type::INT8),
            ];
            let rows = self.connection.run(async |session| session.write(REMOVE, &values).await)?;
            match rows.first().map(|row| value::<Option<i64>>(row, 0)).transpose()?.flatten() {
                Some(end) if end > from => from = end,
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Returns below which positions tasks are removed: without a key, and with one.
    fn marks(&self) -> Result<(i64, i64), EngineError> {
        self.connection.run(async |session| {
            let text = "select low, keys_low from orders_partitions where partition = $1";
            let rows = session.query(text, &[(&self.partition, Type::INT4)]).await?;
            match rows.first() {
                Some(row) => Ok((value(row, 0)?, value(row, 1)?)),
                None => Ok((0, 0)),
            }
        })
    }
}

impl TaskLog for PostgresTasks {
    fn submit(
        &mut self,
        id: SubmitId,
        tasks: &[StoredTask],
    ) -> Result<Vec<Submitted>, EngineError> {
        check(tasks)?;
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self
            .connection
            .run(async |session| submit(session, self.partition, id, tasks).await)?;
        let Outcome { ids, mut positions, other } = outcome;
        let mut unknown: Vec<_> = other.map(|(_, id)| id).into_iter().collect();
        if other.is_none() {
            unknown.extend(ids.iter().map(|(id, _)| *id));
        }
        unknown.retain(|id| !positions.contains_key(id));
        if !unknown.is_empty() {
            positions.extend(self.positions(&unknown)?);
        }
        let position = |id: i64| positions.get(&id).copied().unwrap_or(0);
        if let Some((place, id)) = other {
            return Err(EngineError::OtherTask { place, position: position(id) });
        }
        let submitted = ids.into_iter().map(|(id, is_new)| match is_new {
            true => Submitted::New(position(id)),
            false => Submitted::Known(position(id)),
        });
        Ok(submitted.collect())
    }

    fn read(
        &mut self,
        from: u64,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<(u64, StoredTask)>, EngineError> {
        self.connection.follow(Log::Tasks, wait, || self.read_now(from, bytes_max))
    }

    fn first(&mut self) -> Result<u64, EngineError> {
        let (low, keys_low) = self.marks()?;
        Ok(unsigned(low.min(keys_low)))
    }

    /// Gives positions to what programs have inserted. A task whose transaction is younger than one that is open has
    /// none yet, and gets one from the end on.
    fn end(&mut self) -> Result<u64, EngineError> {
        while self.place_unplaced()? {}
        self.connection.run(async |session| {
            let text = "select coalesce(max(end_position), 0) from orders_pages where partition = $1 \
                        and first_position = (select max(first_position) from orders_pages where partition = $1)";
            let rows = session.query(text, &[(&self.partition, Type::INT4)]).await?;
            rows.first().map_or(Ok(0), |row| value(row, 0).map(unsigned))
        })
    }

    /// Asks for the epoch first. An owner that loses the partition then removes what it knew to be settled, which stays
    /// true.
    fn trim(&mut self, epoch: Epoch, low: u64, keys_low: u64) -> Result<(), EngineError> {
        records::own(&self.connection, self.partition, epoch)?;
        let (low_before, keys_before) = self.marks()?;
        let (low, keys_low) = (signed(low), signed(keys_low.min(low)));
        self.remove(low_before, low, keys_low)?;
        self.remove(keys_before, keys_low, keys_low)?;
        self.connection.run(async |session| {
            let text = "update orders_partitions set low = greatest(low, $2), keys_low = greatest(keys_low, $3) \
                        where partition = $1 and (low < $2 or keys_low < $3)";
            let values =
                [(&self.partition as _, Type::INT4), (&low as _, Type::INT8), (&keys_low as _, Type::INT8)];
            session.write(text, &values).await.map(drop)
        })
    }
}

fn check(tasks: &[StoredTask]) -> Result<(), EngineError> {
    let mut keyed = HashMap::new();
    for (place, task) in tasks.iter().enumerate() {
        if let Some(key) = &task.key {
            if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
                return Err(EngineError::Key { place });
            }
            if keyed.insert(key, task).is_some_and(|before| before != task) {
                let words = "two tasks of the request have the same key, and are different ones";
                return Err(EngineError::Refused(words.into()));
            }
        }
        let (bytes, max) = (task.payload.len(), ENTRY_BYTES_MAX);
        if bytes > max {
            return Err(EngineError::TooLarge { place, bytes, max });
        }
    }
    Ok(())
}

/// Inserts tasks and gives them positions, all of them or none.
async fn submit(
    session: &Session<'_>,
    partition: i32,
    id: SubmitId,
    tasks: &[StoredTask],
) -> Result<Outcome, EngineError> {
    let call = format!("{:032x}", id.0);
    session.begin().await?;
    let mut ids = vec![None; tasks.len()];
    let mut added = Vec::new();
    for part in places(tasks) {
        for row in insert(session, partition, &call, tasks, part).await? {
            let (id, place) = (value::<i64>(&row, 0)?, value::<i32>(&row, 1)?);
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            let slot = ids.get_mut(place).ok_or_else(|| changed("a place"))?;
            *slot = Some((id, true));
            added.push((place, id));
        }
    }
    let known = known(session, partition, &call, tasks, &ids).await?;
    let mut other = None;
    for (place, id, is_same) in known {
        ids[place] = Some((id, false));
        if !is_same && other.is_none() {
            other = Some((place, id));
        }
    }
    let ids: Option<Vec<_>> = ids.into_iter().collect();
    let ids = ids.ok_or_else(|| EngineError::Away("a task was removed meanwhile".into()))?;
    if other.is_some() {
        session.rollback().await?;
        return Ok(Outcome { ids, positions: HashMap::new(), other });
    }
    added.sort_unstable();
    let added: Vec<_> = added.into_iter().map(|(_, id)| id).collect();
    let mut positions = HashMap::new();
    if !added.is_empty() {
        // Nothing is waited for from here on but the disk: other submitters and readers wait for this.
        session.query(LOCK, &[(&partition, Type::INT4)]).await?;
        let values = [(&partition as _, Type::INT4), (&added as _, Type::INT8_ARRAY)];
        let rows = session.query(PLACE, &values).await?;
        let first = rows.first().ok_or_else(|| changed("the last page"))?;
        let first = unsigned(value(first, 0)?);
        positions.extend(added.into_iter().zip(first..));
    }
    session.commit().await?;
    Ok(Outcome { ids, positions, other: None })
}

/// Splits a call's places into those that go into one statement each.
fn places(tasks: &[StoredTask]) -> Vec<std::ops::Range<usize>> {
    let mut first = 0;
    let bytes = |task: &StoredTask| {
        task.payload.len() + task.key.as_ref().map_or(0, Bytes::len) + VALUE_BYTES
    };
    let parts = parts(tasks, bytes).into_iter().map(|part| {
        first += part.len();
        first - part.len()..first
    });
    parts.collect()
}

async fn insert(
    session: &Session<'_>,
    partition: i32,
    call: &str,
    tasks: &[StoredTask],
    part: std::ops::Range<usize>,
) -> Result<Vec<Row>, EngineError> {
    let tasks = &tasks[part.clone()];
    let keys: Vec<_> = tasks.iter().map(|task| task.key.as_deref()).collect();
    let retries: Vec<_> = tasks.iter().map(|task| task.options.retries.map(i64::from)).collect();
    let micros = |timeout: Duration| i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX);
    let micros: Vec<_> = tasks.iter().map(|task| task.options.timeout.map(micros)).collect();
    let retry_of: Vec<_> = tasks.iter().map(|task| task.options.retry_of.map(signed)).collect();
    let payloads: Vec<_> = tasks.iter().map(|task| &task.payload[..]).collect();
    let places: Vec<_> = part.map(|place| i32::try_from(place).unwrap_or(i32::MAX)).collect();
    let values = [
        (&partition as _, Type::INT4),
        (&call as _, Type::TEXT),
        (&keys as _, Type::BYTEA_ARRAY),
        (&retries as _, Type::INT8_ARRAY),
        (&micros as _, Type::INT8_ARRAY),
        (&retry_of as _, Type::INT8_ARRAY),
        (&payloads as _, Type::BYTEA_ARRAY),
        (&places as _, Type::INT4_ARRAY),
    ];
    session.query(INSERT, &values).await
}

/// Returns tasks of a call that were there before: place, id, and whether it is the same task.
async fn known(
    session: &Session<'_>,
    partition: i32,
    call: &str,
    tasks: &[StoredTask],
    ids: &[Option<(i64, bool)>],
) -> Result<Vec<(usize, i64, bool)>, EngineError> {
    let missing = || tasks.iter().enumerate().filter(|(place, _)| ids[*place].is_none());
    if missing().next().is_none() {
        return Ok(Vec::new());
    }
    let keys: Vec<_> = missing().filter_map(|(_, task)| task.key.as_deref()).collect();
    let unkeyed = missing().filter(|(_, task)| task.key.is_none());
    let places: Vec<_> =
        unkeyed.map(|(place, _)| i32::try_from(place).unwrap_or(i32::MAX)).collect();
    let text = format!(
        "select {COLUMNS}, place from \"orders\" where partition = $1 and key = any($2) \
         union all select {COLUMNS}, place from \"orders\" \
         where partition = $1 and call = $3::uuid and key is null and place = any($4)"
    );
    let values = [
        (&partition as _, Type::INT4),
        (&keys as _, Type::BYTEA_ARRAY),
        (&call as _, Type::TEXT),
        (&places as _, Type::INT4_ARRAY),
    ];
    let (mut by_key, mut by_place) = (HashMap::new(), HashMap::new());
    for row in session.query(&text, &values).await? {
        let (id, task) = (value::<i64>(&row, 0)?, task_of(&row, 1)?);
        match (task.key.clone(), value::<Option<i32>>(&row, 6)?) {
            (Some(key), _) => by_key.insert(key, (id, task)),
            (None, Some(place)) => {
                by_place.insert(usize::try_from(place).unwrap_or(usize::MAX), (id, task))
            }
            (None, None) => None,
        };
    }
    let known = missing().filter_map(|(place, task)| {
        let found = match &task.key {
            Some(key) => by_key.get(key),
            None => by_place.get(&place),
        };
        found.map(|(id, there)| (place, *id, there == task))
    });
    Ok(known.collect())
}

/// Returns the task of a row whose columns begin with the key at this place.
fn task_of(row: &Row, place: usize) -> Result<StoredTask, EngineError> {
    let number = |at: usize| Ok(value::<Option<i64>>(row, place + at)?.map(unsigned));
    let key = value::<Option<&[u8]>>(row, place)?.map(Bytes::copy_from_slice);
    let options = TaskOptions {
        retries: number(1)?.map(|it| it.try_into().unwrap_or(u32::MAX)),
        timeout: number(2)?.map(Duration::from_micros),
        retry_of: number(3)?,
    };
    let payload = Bytes::copy_from_slice(value(row, place + 4)?);
    Ok(StoredTask { key, options, payload })
}

fn changed(what: &str) -> EngineError {
    EngineError::Refused(format!("the tables are not as schema.sql makes them: {what} is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed(key: &str, payload: &str) -> StoredTask {
        let key = Some(key.to_owned().into());
        StoredTask { key, payload: payload.to_owned().into(), ..StoredTask::default() }
    }

    #[test]
    fn a_call_is_looked_at_before_it_is_sent() {
        let large =
            StoredTask { payload: vec![0; ENTRY_BYTES_MAX + 1].into(), ..StoredTask::default() };
        assert_eq!(check(&[keyed("a", "1"), keyed("a", "1")]), Ok(()));
        assert!(matches!(check(&[keyed("a", "1"), keyed("a", "2")]), Err(EngineError::Refused(_))));
        assert_eq!(check(&[keyed("", "1")]), Err(EngineError::Key { place: 0 }));
        assert!(matches!(check(&[large]), Err(EngineError::TooLarge { place: 0, .. })));
    }
}
