//! Programs put tasks into a queue by plain inserts, in transactions of their own.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tradewind_engine::{Engine, EngineError, Epoch, NewRecord, SubmitId, TaskLog};
use tradewind_engine_postgres::{Postgres, PostgresUrl, SCHEMA};
use tradewind_partitions::partition_of;
use tradewind_proto::Seq;
use tradewind_proto::message::Status;
use tradewind_store::{StoredTask, Submitted};

use crate::server::Server;

const ALL: usize = 64 << 20;

const PATIENCE: Duration = Duration::from_secs(60);

fn url(server: &Server, partitions: u32) -> PostgresUrl {
    let port = server.port();
    let text = format!(
        "postgres://u:p@127.0.0.1:{port}/postgres?table=orders&partitions={partitions}&timeout_ms=1000"
    );
    text.parse().expect("it is one")
}

fn open(server: &Server, partitions: u32) -> Postgres {
    Postgres::connect(url(server, partitions)).expect("it connects")
}

fn tasks(engine: &Postgres, partition: u32) -> Box<dyn TaskLog> {
    engine.tasks(partition).expect("it opens")
}

fn plain(payload: &str) -> StoredTask {
    StoredTask { payload: payload.to_owned().into(), ..StoredTask::default() }
}

fn keyed(key: &str, payload: &str) -> StoredTask {
    StoredTask { key: Some(key.to_owned().into()), ..plain(payload) }
}

/// Reads to the end of a log.
fn read(log: &mut dyn TaskLog) -> Vec<String> {
    let (mut all, mut next) = (Vec::new(), 0);
    loop {
        let page = log.read(next, ALL, Duration::ZERO).expect("it reads");
        let Some((last, _)) = page.last() else { return all };
        next = last + 1;
        let text = |payload: &Bytes| String::from_utf8_lossy(payload).into_owned();
        all.extend(page.iter().map(|(_, task)| text(&task.payload)));
    }
}

#[test]
fn a_transaction_that_commits_late_is_not_passed_over() {
    let server = Server::begin();
    let engine = open(&server, 1);
    let mut log = tasks(&engine, 0);
    let (late, quick) = (server.program(), server.program());
    late.sql("begin; insert into orders (payload) values ('late 1')");
    quick.sql("insert into orders (payload) values ('quick')");
    late.sql("insert into orders (payload) values ('late 2')");
    assert_eq!(read(&mut *log), [""; 0], "an older transaction is open");
    // What the engine puts in does not wait for it.
    let submitted = log.submit(SubmitId(1), &[plain("submitted")]).expect("it is there");
    assert_eq!(submitted, [Submitted::New(0)]);
    assert_eq!(read(&mut *log), ["submitted"]);
    late.sql("commit");
    assert_eq!(read(&mut *log), ["submitted", "late 1", "late 2", "quick"]);
    assert_eq!(read(&mut *tasks(&open(&server, 1), 0)), read(&mut *log));
    assert_eq!(log.end(), Ok(4));
}

#[test]
fn what_is_rolled_back_is_never_read() {
    let server = Server::begin();
    let mut log = tasks(&open(&server, 1), 0);
    let program = server.program();
    program.sql("begin; insert into orders (payload) values ('no'); rollback");
    program.sql("insert into orders (payload) values ('yes')");
    program.sql(
        "begin; insert into orders (payload) values ('this'); savepoint s;
         insert into orders (payload) values ('not this'); rollback to s; commit",
    );
    assert_eq!(read(&mut *log), ["yes", "this"]);
}

#[test]
fn who_comes_while_another_makes_the_tables_has_them_too() {
    let server = Server::begin();
    let other = server.program();
    other.sql("begin; select pg_advisory_xact_lock(hashtextextended('tradewind \"orders\"', 0))");
    let url = url(&server, 2);
    let second = std::thread::spawn(move || Postgres::connect(url).map(drop));
    server.wait_for(
        "select exists (select from pg_locks where locktype = 'advisory' and not granted)",
    );
    other.sql(&SCHEMA.replace(":partitions", "2"));
    other.sql("commit");
    second.join().expect("it ends").expect("the tables are there");
}

#[test]
fn a_reader_that_waits_is_woken_by_a_commit() {
    let server = Server::begin();
    let engine = open(&server, 1);
    let mut log = tasks(&engine, 0);
    let program = server.program();
    let waiting = std::thread::spawn(move || log.read(0, ALL, PATIENCE));
    program.sql("insert into orders (payload) values ('here')");
    let read = waiting.join().expect("it reads").expect("it reads");
    assert_eq!(read[0].1, plain("here"));
}

#[test]
fn a_key_is_the_same_for_programs_and_the_engine() {
    let server = Server::begin();
    let engine = open(&server, 7);
    let program = server.program();
    for number in 0..40 {
        let key = format!("key {number}\u{e9}");
        let insert =
            format!("insert into orders (key, payload) values (convert_to('{key}', 'UTF8'), 'x')");
        program.sql(&insert);
        program.sql(&format!("{insert} on conflict do nothing"));
        assert!(program.try_sql(&insert).is_err(), "a key is there once");
        let partition = partition_of(key.as_bytes(), 7);
        let mut log = tasks(&engine, partition);
        let submitted = log.submit(SubmitId(number), &[keyed(&key, "x")]).expect("it is known");
        assert!(matches!(submitted[..], [Submitted::Known(_)]), "{submitted:?}");
        let error = log.submit(SubmitId(99), &[keyed(&key, "other")]).expect_err("it is another");
        assert!(matches!(error, EngineError::OtherTask { place: 0, .. }), "{error}");
    }
    for number in 0..70 {
        program.sql(&format!("insert into orders (payload) values ('{number}')"));
    }
    let read: Vec<_> =
        (0..7).map(|partition| read(&mut *tasks(&engine, partition)).len()).collect();
    assert_eq!(read.iter().sum::<usize>(), 110);
    assert!(read.iter().all(|count| *count >= 10), "they are spread: {read:?}");
}

#[test]
fn a_key_of_an_open_transaction_is_waited_for_and_not_for_ever() {
    let server = Server::begin();
    let engine = open(&server, 1);
    let mut log = tasks(&engine, 0);
    let program = server.program();
    program.sql("begin; insert into orders (key, payload) values ('k', 'x')");
    let error = log.submit(SubmitId(1), &[keyed("k", "x")]).expect_err("it is not decided");
    assert!(matches!(error, EngineError::Away(_)), "{error}");
    // Others are not held up by it.
    log.submit(SubmitId(2), &[plain("other")]).expect("it is there");
    program.sql("commit");
    // Committed, it has no position before an older transaction ends.
    let older = server.program();
    older.sql("begin; insert into orders (payload) values ('older')");
    program.sql("insert into orders (key, payload) values ('l', 'y')");
    let error = log.submit(SubmitId(3), &[keyed("l", "y")]).expect_err("it is not decided");
    assert!(matches!(error, EngineError::Unsure(_)), "{error}");
    older.sql("commit");
    let known = log.submit(SubmitId(3), &[keyed("l", "y")]).expect("it is known");
    assert!(matches!(known[..], [Submitted::Known(_)]), "{known:?}");
    let again = log.submit(SubmitId(1), &[keyed("k", "x")]).expect("it is known");
    assert!(matches!(again[..], [Submitted::Known(_)]), "{again:?}");
    assert_eq!(read(&mut *log).len(), 4);
}

#[test]
fn records_are_joined_with_what_a_program_inserted() {
    let server = Server::begin();
    let engine = open(&server, 1);
    let mut log = tasks(&engine, 0);
    let program = server.program();
    let id = program.ask("insert into orders (payload) values ('mine') returning id");
    log.submit(SubmitId(1), &[plain("other")]).expect("it is there");
    let position = log.end().expect("it says") - 1;
    let line = Bytes::from_static(b"{\"status\":\"ok\"}\n");
    let record = NewRecord { seq: Seq(position), status: Status::Ok, line };
    let mut records = engine.records(0).expect("they open");
    records.commit(Epoch(1), &[record]).expect("it is stored");
    let query = format!(
        "select convert_from(line, 'UTF8')::json ->> 'status' from orders_records where task_id = {id}"
    );
    assert_eq!(program.ask(&query), "ok");
}

#[test]
fn tables_of_another_server_are_refused_until_they_are_adopted() {
    let server = Server::begin();
    let engine = open(&server, 1);
    let program = server.program();
    program.sql("insert into orders (payload) values ('1'), ('2')");
    assert_eq!(read(&mut *tasks(&engine, 0)), ["1", "2"]);
    program.sql("insert into orders (payload) values ('3')");
    // As a dump of a server leaves them whose numbers are higher.
    program.sql(
        "update orders set xid = '1000000000' where xid is not null;
         update orders_pages set seen_xid = '1000000000' where first_position >= 0;
         update orders_settings set system = system + 1",
    );
    let error = Postgres::connect(url(&server, 1)).expect_err("they are another's");
    assert!(matches!(&error, EngineError::Refused(why) if why.contains("_adopt")), "{error}");
    program.sql("call orders_adopt()");
    program.sql("insert into orders (payload) values ('4')");
    assert_eq!(read(&mut *tasks(&open(&server, 1), 0)), ["1", "2", "3", "4"]);
}

#[test]
fn tables_stay_as_small_as_what_is_in_them() {
    const ROUNDS: u64 = 40;
    const TASKS: u64 = 5000;
    let server = Server::begin();
    server.sql("alter system set autovacuum_naptime = 1");
    server.sql("select pg_reload_conf()");
    let engine = open(&server, 1);
    let (mut log, mut records) = (tasks(&engine, 0), engine.records(0).expect("they open"));
    let program = server.program();
    let size = |table: &str| -> u64 {
        program.ask(&format!("select pg_total_relation_size('{table}')")).parse().expect("a number")
    };
    let (mut sizes, mut next) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let half = TASKS / 2;
        program.sql(&format!(
            "insert into orders (payload) select convert_to(repeat('x', 100), 'UTF8') from generate_series(1, {half})"
        ));
        let call: Vec<_> = (0..half).map(|_| plain(&"y".repeat(100))).collect();
        log.submit(SubmitId(round.into()), &call).expect("they are there");
        let mut read = 0;
        while read < TASKS {
            let page = log.read(next, 1 << 20, PATIENCE).expect("it reads");
            read += page.len() as u64;
            next = page.last().expect("there are some").0 + 1;
            let line = Bytes::from_static(b"{}\n");
            let record = |seq| NewRecord { seq: Seq(seq), status: Status::Ok, line: line.clone() };
            let page: Vec<_> = page.iter().map(|(position, _)| record(*position)).collect();
            records.commit(Epoch(1), &page).expect("they are stored");
        }
        let low = next.saturating_sub(TASKS);
        log.trim(Epoch(1), low, low).expect("it trims");
        records.remove_below(Epoch(1), low).expect("it removes");
        // Vacuum gets its turn, which a queue of months gives it.
        let began = Instant::now();
        let dead = "select coalesce(sum(n_dead_tup), 0) < 15000 from pg_stat_user_tables";
        while program.ask(dead) != "t" {
            assert!(began.elapsed() < PATIENCE, "nothing vacuums");
            std::thread::sleep(Duration::from_millis(20));
        }
        sizes.push(size("orders") + size("orders_pages") + size("orders_records"));
    }
    eprintln!("{} tasks: {sizes:?}", ROUNDS * TASKS);
    let bound = sizes[0] * ROUNDS / 4;
    assert!(sizes.iter().all(|size| *size < bound), "a quarter of what went through: {bound}");
}
