//! Loop of the relay: feeds the machines and does what they ask.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tradewind_lanes::{Endpoint, LaneOptions};
use tradewind_node::doors::{Port, gate_door};
use tradewind_node::downstream::{Downstream, DownstreamEvent};
use tradewind_node::drive::{self, Driven, EVENTS_MAX, drive};
use tradewind_node::exit::{self, Fatal, LISTEN, OK, OrExit, REFUSED, STOPPED, TASKS_FAILED, say};
use tradewind_node::keys::{MaybeKeys, keep_fresh, session};
use tradewind_node::links::dialler;
use tradewind_node::upstream::{Heard, Upstream, UpstreamEvent};
use tradewind_node::{Asked, Listen, Progress, ProgressView, Room, Shutdown, parent};
use tradewind_proto::dispatcher::{Ended, Policy};
use tradewind_proto::farewell::RelayFarewell;
use tradewind_proto::message::{Card, InputEnd, Role, ToSink};
use tradewind_proto::relay::{Relay, RelayConfig};
use tradewind_system::{Clock, random_id};

/// Settings of a relay.
pub struct Settings {
    /// Port that the ventilator and the workers of the stage upstream connect to.
    pub listen: Listen,
    /// Port that the workers of the stage downstream connect to.
    pub tasks: Listen,
    /// Port that the sink of the stage downstream connects to.
    pub receipts: Listen,
    /// Address of the receipts port of the ventilator upstream.
    pub ventilator: Endpoint,
    /// Address of the sink downstream.
    pub sink: Endpoint,
    /// Queue whose tasks it relays; empty for a job.
    pub queue: String,
    /// Name of the stage downstream; may be empty.
    pub stage: String,
    /// Limits of tasks and workers of the stage downstream.
    pub policy: Policy,
    /// Whether a task keeps the newline at the end of the output upstream.
    pub keep_newline: bool,
    /// Keys for TCP connections.
    pub keys: MaybeKeys,
    /// Limits of connections.
    pub lanes: LaneOptions,
    /// Time after which the ventilator or the sink counts as unreachable; `None` for no limit.
    pub connect_timeout: Option<Duration>,
}

/// Event of the relay.
enum Event {
    Upstream(UpstreamEvent),
    Downstream(DownstreamEvent),
}

/// Relays one job to its end.
///
/// # Errors
/// When an endpoint cannot be listened on, a peer was not reached in time or is the wrong one, keys cannot be
/// used, or the sink refused the job.
pub async fn run(settings: Settings, mut shutdown: Shutdown) -> exit::Outcome {
    let keys = &settings.keys;
    keep_fresh(keys)?;
    let session = session(keys);
    let message_bytes_max = settings.lanes.message_bytes_max;
    let name = || "relay".to_owned();
    let card = |role| Card {
        role,
        session,
        slots: 0,
        message_bytes_max,
        name: name(),
        queue: settings.queue.clone(),
    };
    let (upstream, downstream) = (card(Role::Sink), card(Role::Ventilator));
    let lanes = &settings.lanes;
    let ventilator = dialler(settings.ventilator.clone(), lanes, &upstream, Port::Receipts, keys)?;
    let sink = dialler(settings.sink.clone(), lanes, &downstream, Port::Results, keys)?;

    // Workers of both stages: each gets half of the files.
    let (before, after) = (Room::for_workers(2, 1), Room::for_workers(2, 1));
    let options = (before.options(lanes), after.options(lanes), after.receipts_options(lanes));
    let door = gate_door(&upstream, Port::Results, before, keys);
    let listen = settings.listen.open(options.0, door).await.or_exit(LISTEN)?;
    let door = gate_door(&downstream, Port::Tasks, after.clone(), keys);
    let tasks = settings.tasks.open(options.1, door).await.or_exit(LISTEN)?;
    let door = gate_door(&downstream, Port::Receipts, after, keys);
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

    let clock = Clock::default();
    let mut node = Node {
        clock,
        relay: Relay::new(RelayConfig {
            session,
            stage: settings.stage,
            policy: settings.policy,
            message_bytes_max: settings.lanes.message_bytes_max,
            keep_newline: settings.keep_newline,
            seed: random_id(),
        }),
        upstream: Upstream::new(clock),
        downstream: Downstream::new(clock),
        farewell: RelayFarewell::default(),
    };
    match drive(&mut node, &mut events, &mut shutdown, Progress::new(false)).await? {
        Driven::Stopped => Ok(STOPPED),
        Driven::Over => {
            node.downstream.close().await;
            node.upstream.close().await;
            node.outcome()
        }
    }
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
    farewell: RelayFarewell,
}

impl Node {
    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Message(message) => {
                if let ToSink::JobOpen { job, name, .. } = &message
                    && self.relay.upstream().job().is_none()
                {
                    tracing::info!(job = %job, name, "a job is to be opened");
                }
                self.farewell.handle_message(&message);
                self.relay.handle_from_upstream(message);
            }
            Heard::VentilatorConnected => self.farewell.handle_ventilator_connected(),
            Heard::VentilatorGone => {}
        }
    }

    fn outcome(&self) -> exit::Outcome {
        // The ventilator runs beside this process then, and prints the same.
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
        // A job that was stopped before its end is not complete; the ventilator prints the same.
        if !has_parent && self.relay.upstream().input_end() == Some(InputEnd::CutShort) {
            say("the job was stopped before the end of its input: the rest was not run");
            return Ok(STOPPED);
        }
        Ok(if snapshot.failed > 0 { TASKS_FAILED } else { OK })
    }
}

impl drive::Role for Node {
    type Event = Event;

    fn congestion(&mut self) -> Option<impl Future<Output = ()> + use<>> {
        self.upstream.congestion()
    }

    fn handle_event(&mut self, event: Event) -> Result<(), Fatal> {
        let now = self.clock.now();
        match event {
            Event::Upstream(event) => {
                let collector = self.relay.upstream_mut();
                if let Err(gave_up) = self.upstream.handle_event(now, collector, event)
                    && !self.farewell.handle_ventilator_given_up(&self.relay)
                {
                    return Err(gave_up.fatal("the ventilator"));
                }
                while let Some(heard) = self.upstream.poll_heard() {
                    self.hear(heard);
                }
            }
            Event::Downstream(event) => {
                let dispatcher = self.relay.downstream_mut();
                if let Err(gave_up) = self.downstream.handle_event(now, dispatcher, event)
                    && !self.farewell.handle_sink_given_up(&self.relay)
                {
                    return Err(gave_up.fatal("the sink"));
                }
                while let Some(message) = self.downstream.poll_heard() {
                    self.relay.handle_from_downstream(now, message);
                }
            }
        }
        Ok(())
    }

    fn handle_asked(&mut self, _: Asked) -> Result<bool, Fatal> {
        // All that is here is kept elsewhere too.
        if !parent::speaks_for_us() {
            say("stopped; start it again to resume");
        }
        Ok(true)
    }

    fn drive(&mut self) -> Result<(), Fatal> {
        let now = self.clock.now();
        self.farewell.review(now, &mut self.relay, self.upstream.has_ventilator());
        self.relay.handle_timeout(now);
        self.downstream.drive(now, self.relay.downstream_mut());
        self.upstream.drive(now, self.relay.upstream_mut());
        Ok(())
    }

    fn poll_timeout(&self) -> Instant {
        self.clock.instant(self.relay.poll_timeout().min(self.farewell.poll_timeout()))
    }

    fn is_over(&self) -> bool {
        self.farewell.exit(self.clock.now(), &self.relay).is_some()
    }

    /// Returns the progress of the stage downstream with the tasks of this relay.
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
            unreached: self.downstream.unreached(self.clock.now(), &snapshot),
            waiting_for,
        }
    }
}
