//! The commands of the chapter about engines do what is shown, on servers of engines at the addresses that it names.

use std::env;
use std::sync::Arc;

use tradewind_e2e::chaos::{EngineKind, EngineServer};
use tradewind_e2e::{Namespaces, Scene, program};

use super::pages::Page;
use super::shell::{Step, play, script, steps};
use super::{has_nats, has_postgres, skip};

/// Runs the commands for an engine on a host of its own, after these.
fn walk(network: &Arc<Namespaces>, engine: &str, before: &str) {
    let page = Page::read("docs/src/growing.md");
    let scene = Scene::on_host(network, 0);
    let mut all: Vec<Step<'_>> = Vec::new();
    for block in page.blocks() {
        match block.comment.and_then(|comment| comment.split_once(": ")) {
            Some(("file", name)) => drop(scene.file(name, block.lines.join("\n") + "\n")),
            Some(("engine", name)) if name == engine => all.extend(steps(&block)),
            _ => {}
        }
    }
    assert!(!all.is_empty(), "there are commands for {engine}");
    scene.file("script", format!("{before}\n{}", script(&all, false)));
    let dir = |program: &str| program.rsplit_once('/').map(|(dir, _)| dir.to_owned());
    let ours = program("tradewind");
    let nats = env::var("NATS_SERVER").ok().and_then(|path| dir(&path));
    let path = [dir(&ours.display().to_string()), nats, env::var("POSTGRES_BIN").ok()];
    let path: Vec<String> = path.into_iter().flatten().chain(env::var("PATH")).collect();
    let shell = scene.other("bash").arg("script").home(scene.dir()).env("PATH", path.join(":"));
    let wrong = play(&page.name, shell, &all);
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn network(test: &str) -> Option<Arc<Namespaces>> {
    match Namespaces::new(1) {
        Ok(network) => Some(Arc::new(network)),
        Err(error) => {
            skip(test, &format!("network namespaces take root and iproute2: {error}"));
            None
        }
    }
}

#[test]
fn the_walk_with_nats_does_what_is_shown() {
    let test = "the_walk_with_nats_does_what_is_shown";
    if !has_nats() {
        return skip(test, "there is no nats-server, which scripts/engines installs");
    }
    let Some(network) = network(test) else { return };
    walk(&network, "nats", "");
}

#[test]
fn the_walk_with_postgres_does_what_is_shown() {
    let test = "the_walk_with_postgres_does_what_is_shown";
    if !has_postgres() {
        return skip(test, "there is no PostgreSQL, which scripts/engines installs");
    }
    let Some(network) = network(test) else { return };
    network.within(|| {
        let _engine = EngineServer::start_on(EngineKind::Postgres, &network, 0);
        let user = "-c 'create role tradewind login' -c 'create database shop owner tradewind'";
        // Its port is open before it takes sessions.
        let ready = "until pg_isready -q -h 127.0.0.1; do sleep 0.1; done";
        let made = format!("psql -q postgres://chaos@127.0.0.1/postgres {user}");
        walk(&network, "postgres", &format!("{ready}\n{made}"));
    });
}
