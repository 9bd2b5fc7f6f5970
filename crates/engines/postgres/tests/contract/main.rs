//! PostgreSQL passes the contract of engines, on a server that each case starts.

mod programs;
mod server;

use std::str::FromStr;

use tradewind_engine::contract::{Fault, Proxy, Stage};
use tradewind_engine::{Engine, EngineError};
use tradewind_engine_postgres::{Postgres, PostgresUrl, SCHEMA};

use self::server::Server;

tradewind_engine::contract!(Case::begin, &[]);

struct Case {
    server: Server,
    proxy: Proxy,
}

impl Case {
    fn begin(_name: &str) -> Self {
        let server = Server::begin();
        let proxy = Proxy::begin(server.port());
        Self { server, proxy }
    }

    fn url(&self, login: &str, table: &str) -> PostgresUrl {
        let port = self.proxy.port();
        let text = format!(
            "postgres://{login}@127.0.0.1:{port}/postgres?table={table}&partitions=2&timeout_ms=2000"
        );
        PostgresUrl::from_str(&text).expect("it is one")
    }

    /// Returns what a new process says of a table.
    fn error(&self, table: &str) -> Option<EngineError> {
        Postgres::connect(self.url("u:p", table)).err()
    }
}

impl Stage for Case {
    fn open(&self) -> Result<Box<dyn Engine>, EngineError> {
        Ok(Box::new(Postgres::connect(self.url("u:p", "orders"))?))
    }

    fn fault(&self, fault: Fault) {
        match fault {
            Fault::Kill => self.server.kill(),
            Fault::Start => self.server.start(),
            fault => self.proxy.fault(fault),
        }
    }

    fn remove_task(&self, position: u64) {
        self.server.sql(&format!(
            "delete from orders where id = (select ids[{position} - first_position + 1] from orders_pages \
             where partition = 0 and first_position <= {position} and end_position > {position})"
        ));
    }

    fn open_wrongly(&self) -> EngineError {
        Postgres::connect(self.url("u:wrong", "orders")).expect_err("it is refused")
    }

    fn open_lossy(&self) -> Vec<(String, Option<EngineError>)> {
        let schema = SCHEMA.replace(":partitions", "2");
        let unlogged =
            schema.replace("orders", "lossy").replace("create table", "create unlogged table");
        self.server.sql(&unlogged);
        let mut cases = vec![("unlogged".to_owned(), self.error("lossy"))];
        self.server.sql("create table other (id bigint)");
        cases.push(("no queue's".to_owned(), self.error("other")));
        for setting in ["synchronous_commit", "fsync"] {
            self.server.sql(&format!("alter system set {setting} = off"));
            self.server.sql("select pg_reload_conf()");
            self.server.wait_for(&format!("select current_setting('{setting}') = 'off'"));
            cases.push((setting.to_owned(), self.error("orders")));
        }
        cases
    }

    fn too_large(&self) -> usize {
        (16 << 20) + 1
    }
}
