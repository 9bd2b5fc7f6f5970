//! The relay's loop: what happens goes into the machines, what they say is done.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tradewind_lanes::{Endpoint, LaneOptions};
use tradewind_node::doors::{Port, gate_door};
use tradewind_node::downstream::{Downstream, DownstreamEvent};
use tradewind_node::exit::{self, Fatal, LISTEN, OK, OrExit, REFUSED, STOPPED, TASKS_FAILED, say};
use tradewind_node::links::dialler;
use tradewind_node::upstream::{Heard, Upstream, UpstreamEvent};
use tradewind_node::{Listen, Progress, ProgressView, Room, Shutdown, parent};
use tradewind_proto::SessionId;
use tradewind_proto::dispatcher::{Ended, Policy};
use tradewind_proto::message::{Card, InputEnd, Role, ToSink};
use tradewind_proto::relay::{Relay, RelayConfig};
use tradewind_system::{Clock, random_id};

/// What a relay was told to do.
pub struct Settings {
    /// Where the workers of the stage before come to, and its ventilator.
    pub listen: Listen,
    /// Where the workers of the stage after come to.
    pub tasks: Listen,
    /// Where the sink of the stage after comes to.
    pub receipts: Listen,
    /// Where the ventilator of the stage before listens for receipts.
    pub ventilator: Endpoint,
    /// Where the sink of the stage after is.
    pub sink: Endpoint,
    /// The name of the stage after; may be empty.
    pub stage: String,
    /// What the stage after allows its tasks and workers.
    pub policy: Policy,
    /// A task is what the stage before has written, with its newline.
    pub keep_newline: bool,
    /// The limits of connections.
    pub lanes: LaneOptions,
    /// How long to try to reach the ventilator and the sink.
    pub connect_timeout: Option<Duration>,
}

/// Everything that can happen.
enum Event {
    Upstream(UpstreamEvent),
    Downstream(DownstreamEvent),
}

/// Events that wait for the loop. What fills it up waits in the sockets.
const EVENTS_MAX: usize = 256;

/// How long a relay whose job is stored waits for a ventilator that is gone to come back for the
/// news.
const FAREWELL: Duration = Duration::from_secs(10);

/// Relays one job to its end.
///
/// # Errors
/// When it cannot be relayed.
pub async fn run(settings: Settings, mut shutdown: Shutdown) -> exit::Outcome {
    let session = SessionId(random_id());
    let message_bytes_max = settings.lanes.message_bytes_max;
    let name = || "relay".to_owned();
    let card = |role| Card { role, session, slots: 0, message_bytes_max, name: name() };
    let (upstream, downstream) = (card(Role::Sink), card(Role::Ventilator));
    let lanes = &settings.lanes;
    let ventilator = dialler(settings.ventilator.clone(), lanes, &upstream, Port::Receipts)?;
    let sink = dialler(settings.sink.clone(), lanes, &downstream, Port::Results)?;

    // Workers of both stages: each gets half of the files.
    let (before, after) = (Room::for_workers(2), Room::for_workers(2));
    let options = (before.options(lanes), after.options(lanes), lanes.clone());
    let door = gate_door(&upstream, Port::Results, before);
    let listen = settings.listen.open(options.0, door).await.or_exit(LISTEN)?;
    let door = gate_door(&downstream, Port::Tasks, after.clone());
    let tasks = settings.tasks.open(options.1, door).await.or_exit(LISTEN)?;
    let door = gate_door(&downstream, Port::Receipts, after);
    let receipts = settings.receipts.open(options.2, door).await.or_exit(LISTEN)?;
    tracing::info!(
        stage = settings.stage,
        listen = %listen.endpoint(),
        tasks = %tasks.endpoint(),
        receipts = %receipts.endpoint(),
        ventilator = %settings.ventilator,
        sink = %settings.sink,
        "the relay is up"
    );

    let (events_in, mut events) = mpsc::channel::<Event>(EVENTS_MAX);
    Upstream::serve(listen, ventilator, settings.connect_timeout, &events_in);
    Downstream::serve(tasks, receipts, sink, settings.connect_timeout, &events_in);
    drop(events_in);

    let mut node = Node {
        clock: Clock::default(),
        relay: Relay::new(RelayConfig {
            session,
            stage: settings.stage,
            policy: settings.policy,
            message_bytes_max: settings.lanes.message_bytes_max,
            keep_newline: settings.keep_newline,
            seed: random_id(),
        }),
        upstream: Upstream::default(),
        downstream: Downstream::default(),
        alone: None,
    };
    let mut batch = Vec::with_capacity(EVENTS_MAX);
    let progress = Progress::new(false);
    let mut looks = shutdown.take_looks();

    while !node.is_over() {
        let due = node.relay.upstream().poll_timeout().min(node.relay.downstream().poll_timeout());
        let due = node.clock.instant(due);
        tokio::select! {
            _ = events.recv_many(&mut batch, EVENTS_MAX) => {
                for event in batch.drain(..) {
                    node.handle_event(event)?;
                }
            }
            () = tokio::time::sleep_until(due.into()) => {}
            () = looks.next() => progress.tell(&node.view()),
            _ = shutdown.asked() => {
                // Nothing is kept here that is not kept elsewhere too.
                if !parent::speaks_for_us() {
                    say("stopped; start it again to go on");
                }
                return Ok(STOPPED);
            }
        }
        node.go_on();
    }

    node.downstream.close().await;
    node.upstream.close().await;
    node.outcome()
}

impl From<UpstreamEvent> for Event {
    fn from(event: UpstreamEvent) -> Self {
        Self::Upstream(event)
    }
}

impl From<DownstreamEvent> for Event {
    fn from(event: DownstreamEvent) -> Self {
        Self::Downstream(event)
    }
}

struct Node {
    clock: Clock,
    relay: Relay,
    upstream: Upstream,
    downstream: Downstream,
    /// Since when everything is stored and there is no ventilator to tell.
    alone: Option<Instant>,
}

impl Node {
    fn is_over(&self) -> bool {
        self.downstream.is_over(self.relay.downstream())
            || self.alone.is_some_and(|since| since.elapsed() > FAREWELL)
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Fatal> {
        let now = self.clock.now();
        match event {
            Event::Upstream(event) => {
                let handled = self.upstream.handle_event(self.relay.upstream_mut(), event);
                handled.map_err(|gave_up| gave_up.fatal("the ventilator"))?;
                while let Some(heard) = self.upstream.poll_heard() {
                    let Heard::Message(message) = heard else { continue };
                    if let ToSink::JobOpen { job, name, .. } = &message
                        && self.relay.upstream().job().is_none()
                    {
                        tracing::info!(job = %job, name, "a job is to be opened");
                    }
                    self.relay.handle_from_upstream(message);
                }
            }
            Event::Downstream(event) => {
                let dispatcher = self.relay.downstream_mut();
                let handled = self.downstream.handle_event(now, dispatcher, event);
                handled.map_err(|gave_up| gave_up.fatal("the sink"))?;
                while let Some(message) = self.downstream.poll_heard() {
                    self.relay.handle_from_downstream(now, message);
                }
            }
        }
        Ok(())
    }

    /// Does what the machines say, until they say nothing more.
    fn go_on(&mut self) {
        let now = self.clock.now();
        if now >= self.relay.upstream().poll_timeout() {
            self.relay.upstream_mut().handle_timeout(now);
        }
        if now >= self.relay.downstream().poll_timeout() {
            self.relay.downstream_mut().handle_timeout(now);
        }
        self.downstream.go_on(now, self.relay.downstream_mut());
        self.upstream.go_on(self.relay.upstream_mut());
        let is_alone = self.relay.is_all_stored() && self.upstream.is_alone();
        self.alone = is_alone.then(|| self.alone.unwrap_or_else(Instant::now));
    }

    /// How far the stage after is with what came here.
    fn view(&mut self) -> ProgressView {
        let snapshot = self.relay.downstream().snapshot();
        let waiting_for = if snapshot.workers.is_empty() {
            Some("workers")
        } else {
            (!snapshot.is_sink_open).then_some("the sink")
        };
        ProgressView {
            done: snapshot.settled,
            total: snapshot.total,
            about: None,
            failed: snapshot.failed,
            workers: snapshot.workers.len() as u64,
            unreached: self.downstream.unreached(&snapshot),
            waiting_for,
        }
    }

    fn outcome(&self) -> exit::Outcome {
        // Beside us there is the ventilator then, which says the same.
        let has_parent = parent::speaks_for_us();
        if let Some(Ended::Refused(reason)) = self.relay.downstream().ended() {
            let text = format!("the job was refused: {reason}");
            return Err(Fatal::new(REFUSED, if has_parent { String::new() } else { text }));
        }
        let snapshot = self.relay.downstream().snapshot();
        tracing::info!(tasks = snapshot.settled, failed = snapshot.failed, "the job is over");
        if !self.relay.is_all_stored() {
            if !has_parent {
                say("the ventilator has given the job up before all of its records were stored");
            }
            return Ok(REFUSED);
        }
        // A job that was stopped before its end is not complete; the ventilator says the same.
        if !has_parent && self.relay.upstream().input_end() == Some(InputEnd::CutShort) {
            say("the job was stopped before the end of its input: the rest was not run");
            return Ok(STOPPED);
        }
        Ok(if snapshot.failed > 0 { TASKS_FAILED } else { OK })
    }
}
