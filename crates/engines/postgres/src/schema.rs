//! The tables: made where they are missing, and refused where they or the server's settings would lose tasks.

use tokio_postgres::types::Type;
use tradewind_engine::EngineError;

use crate::connection::{Connection, Session, value};
use crate::url::TlsMode;

/// The tables, for `psql`: of a queue with the name `orders`, with the number of its partitions as `:partitions`.
pub const SCHEMA: &str = include_str!("schema.sql");

/// Version of the tables.
const VERSION: i32 = 1;

/// Oldest server, as it numbers itself.
const OLDEST: i32 = 130_000;

/// Time for which a transaction is open that is told of.
const OPEN_SECONDS: i64 = 60;

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) partitions: u32,
    pub(crate) notes: Vec<String>,
}

/// Settings of a server that decide about what is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    version: i32,
    fsync: String,
    synchronous_commit: String,
    full_page_writes: String,
}

impl Settings {
    /// Returns in words which of them would lose tasks, and what to set; `None` if there are none.
    fn refusal(&self) -> Option<String> {
        if self.version < OLDEST {
            let version = self.version / 10_000;
            return Some(format!("the server is PostgreSQL {version}, and 13 or later is needed"));
        }
        let wrong: Vec<_> =
            [("fsync", &self.fsync), ("synchronous_commit", &self.synchronous_commit)]
                .into_iter()
                .filter(|(_, value)| *value == "off")
                .map(|(name, _)| format!("{name} (set it to on)"))
                .collect();
        match wrong.is_empty() {
            true => None,
            false => Some(format!(
                "the server would lose tasks that it acknowledged, by its settings: {}",
                wrong.join(", ")
            )),
        }
    }

    fn notes(&self) -> impl Iterator<Item = String> {
        let is_torn = self.full_page_writes == "off";
        let words = "full_page_writes is off: after a power failure tables may be damaged, unless the file system \
                     writes pages as a whole";
        is_torn.then(|| words.to_owned()).into_iter()
    }
}

/// Makes the tables if there are none, and looks at what is there.
pub(crate) fn check(connection: &Connection) -> Result<Found, EngineError> {
    let url = &connection.url;
    let settings = connection.run(settings)?;
    if let Some(words) = settings.refusal() {
        return Err(EngineError::Refused(words));
    }
    if !connection.run(is_there)? {
        let made = connection.run(async |session| make(session, url.partitions.unwrap_or(1)).await);
        made.map_err(|error| match error {
            EngineError::Refused(words) => EngineError::Refused(format!(
                "table {} is not there, and cannot be made: {words}; schema.sql of the crate \
                 tradewind-engine-postgres makes it by hand",
                url.table
            )),
            error => error,
        })?;
    }
    let table = connection.run(look)?;
    if let Some(words) = table.refusal(url.partitions) {
        return Err(EngineError::Refused(format!("table {} {words}", url.table)));
    }
    let mut notes: Vec<_> = settings.notes().collect();
    if url.tls == TlsMode::Require {
        notes.push("sslmode=require does not ask who answers: verify-full does".into());
    }
    notes.extend(connection.run(open_transactions)?);
    Ok(Found { partitions: table.partitions, notes })
}

async fn settings(session: &Session<'_>) -> Result<Settings, EngineError> {
    let text = "select current_setting('server_version_num')::integer, current_setting('fsync'), \
                current_setting('synchronous_commit'), current_setting('full_page_writes')";
    let rows = session.query(text, &[]).await?;
    let row = one(&rows)?;
    Ok(Settings {
        version: value(row, 0)?,
        fsync: value(row, 1)?,
        synchronous_commit: value(row, 2)?,
        full_page_writes: value(row, 3)?,
    })
}

/// Returns whether there is a table. The server keeps in mind for a session that a name is nobody's, and is told otherwise
/// only where it begins a transaction or locks a table: here the first that is read, so that `make` hears of what it
/// has waited for.
async fn is_there(session: &Session<'_>) -> Result<bool, EngineError> {
    let text = "select count(*) > 0 from pg_class where oid = to_regclass('\"orders\"')";
    let rows = session.query(text, &[]).await?;
    value(one(&rows)?, 0)
}

/// Makes the tables, unless another does so at the same time.
async fn make(session: &Session<'_>, partitions: u32) -> Result<(), EngineError> {
    session.begin().await?;
    let locking = "select pg_advisory_xact_lock(hashtextextended('tradewind \"orders\"', 0))";
    session.query(locking, &[]).await?;
    if !is_there(session).await? {
        session.batch_of(&SCHEMA.replace(":partitions", &partitions.to_string())).await?;
    }
    session.commit().await
}

/// Tables that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    /// Version of them; `None` if they are no queue's.
    version: Option<i32>,
    partitions: u32,
    unlogged: Vec<String>,
    is_moved: bool,
}

impl Table {
    /// Returns in words why the tables cannot be used, and what to do; `None` if they can.
    fn refusal(&self, partitions: Option<u32>) -> Option<String> {
        let have = self.partitions;
        match (self.version, partitions) {
            (None, _) => Some("is there, and is no queue's: schema.sql has the tables of one".into()),
            (Some(VERSION), _) if !self.unlogged.is_empty() => Some(format!(
                "would lose entries: {} (unlogged; alter table … set logged)",
                self.unlogged.join(", ")
            )),
            (Some(VERSION), _) if self.is_moved => Some(
                "came here from another server, by a dump or an upgrade, and numbers of transactions have another \
                 meaning here: see to it that nothing uses it, and call the procedure of it whose name ends in _adopt"
                    .into(),
            ),
            (Some(VERSION), Some(wanted)) if wanted != have => Some(format!(
                "has {have} partitions, and the URL says {wanted}: the number cannot be changed"
            )),
            (Some(VERSION), _) => None,
            (Some(version), _) => {
                Some(format!("has version {version}, and this program knows version {VERSION}"))
            }
        }
    }
}

async fn look(session: &Session<'_>) -> Result<Table, EngineError> {
    let rows = session.query("select to_regclass('orders_settings') is not null", &[]).await?;
    let mut table = Table { version: None, partitions: 0, unlogged: Vec::new(), is_moved: false };
    if !value::<bool>(one(&rows)?, 0)? {
        return Ok(table);
    }
    let text = "select s.version, s.system <> c.system_identifier, (select count(*) from orders_partitions) \
                from orders_settings s, pg_control_system() c";
    let rows = session.query(text, &[]).await?;
    let row = one(&rows)?;
    table.version = Some(value(row, 0)?);
    table.is_moved = value(row, 1)?;
    table.partitions = u32::try_from(value::<i64>(row, 2)?).unwrap_or(u32::MAX);
    let text = "select relname::text from pg_class where relpersistence <> 'p' and oid in \
                (select to_regclass(name)::oid from unnest($1) name) order by 1";
    let names = ["\"orders\"", "orders_pages", "orders_partitions", "orders_fences"]
        .into_iter()
        .chain(["orders_records", "orders_checkpoints", "orders_leases", "orders_settings"]);
    let names: Vec<_> = names.map(|name| session.sql(name)).collect();
    for row in session.query(text, &[(&names, Type::TEXT_ARRAY)]).await? {
        table.unlogged.push(value(&row, 0)?);
    }
    Ok(table)
}

/// Tells of transactions that hold up tasks of programs: those that were committed since wait for them.
async fn open_transactions(session: &Session<'_>) -> Result<Option<String>, EngineError> {
    let text = "select pid, extract(epoch from clock_timestamp() - xact_start)::bigint from pg_stat_activity \
                where backend_xid is not null and pid <> pg_backend_pid() \
                and xact_start < clock_timestamp() - $1 * interval '1 second' order by xact_start limit 1";
    let rows = session.query(text, &[(&OPEN_SECONDS, Type::INT8)]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (pid, seconds) = (value::<i32>(row, 0)?, value::<i64>(row, 1)?);
    Ok(Some(format!(
        "process {pid} of the server has had a transaction open for {seconds} s: tasks that programs have inserted since \
         then are read when it ends"
    )))
}

fn one(rows: &[tokio_postgres::Row]) -> Result<&tokio_postgres::Row, EngineError> {
    rows.first().ok_or_else(|| EngineError::Refused("the server answered with no row".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_lose_tasks_are_named_with_what_to_set() {
        let set = |fsync: &str, commit: &str| Settings {
            version: 150_000,
            fsync: fsync.into(),
            synchronous_commit: commit.into(),
            full_page_writes: "on".into(),
        };
        for commit in ["on", "local", "remote_write", "remote_apply"] {
            assert_eq!(set("on", commit).refusal(), None, "{commit}");
        }
        let words = "the server would lose tasks that it acknowledged, by its settings: ";
        let cases = [
            (set("off", "on"), format!("{words}fsync (set it to on)")),
            (set("on", "off"), format!("{words}synchronous_commit (set it to on)")),
            (
                set("off", "off"),
                format!("{words}fsync (set it to on), synchronous_commit (set it to on)"),
            ),
            (
                Settings { version: 120_001, ..set("on", "on") },
                "the server is PostgreSQL 12, and 13 or later is needed".into(),
            ),
        ];
        for (settings, wanted) in cases {
            assert_eq!(settings.refusal(), Some(wanted));
        }
    }

    #[test]
    fn tables_that_cannot_be_used_are_refused_with_what_to_do() {
        let good =
            Table { version: Some(VERSION), partitions: 2, unlogged: vec![], is_moved: false };
        assert_eq!(good.refusal(None), None);
        assert_eq!(good.refusal(Some(2)), None);
        let cases = [
            (Table { version: None, ..good.clone() }, "no queue's"),
            (Table { version: Some(2), ..good.clone() }, "version 2"),
            (Table { unlogged: vec!["orders_pages".into()], ..good.clone() }, "orders_pages"),
            (Table { is_moved: true, ..good.clone() }, "_adopt"),
        ];
        for (table, wanted) in cases {
            let words = table.refusal(None).unwrap_or_default();
            assert!(words.contains(wanted), "{words}");
        }
        assert!(good.refusal(Some(3)).is_some(), "the number of partitions is another");
    }
}
