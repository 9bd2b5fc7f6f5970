//! A relay's shell.

use tradewind_proto::farewell::RelayFarewell;
use tradewind_proto::limits::MESSAGE_BYTES_MAX;
use tradewind_proto::relay::{Relay, RelayConfig};
use tradewind_proto::{SessionId, Time};
use tradewind_testkit::Accepts;

use crate::event::{Process, Route};
use crate::plan::Plan;
use crate::sink::{Intake, leave_little_room};
use crate::ventilator::{Hub, policy, stage_name};
use crate::world::{Clock, World};

pub(crate) struct RelayNode {
    pub(crate) relay: Relay,
    pub(crate) farewell: RelayFarewell,
    pub(crate) is_alive: bool,
    /// It has left by its own rules, and is not started again.
    pub(crate) has_left: bool,
    pub(crate) clock: Clock,
    /// Towards the stage after it.
    pub(crate) hub: Hub,
    /// Towards the stage before it.
    pub(crate) intake: Intake,
    starts: u64,
}

impl RelayNode {
    /// Creates the relay after the stage of this number, with the number of its earlier starts.
    pub(crate) fn new(plan: &Plan, place: usize, starts: u64) -> Self {
        let unique = plan.seed ^ 0x4e1a_0000 ^ ((place as u64) << 8) ^ (starts << 32);
        let config = RelayConfig {
            session: SessionId(unique),
            stage: stage_name(place + 1),
            policy: policy(plan),
            message_bytes_max: MESSAGE_BYTES_MAX,
            keep_newline: false,
            seed: unique,
        };
        let mut relay = Relay::new(config);
        leave_little_room(plan, relay.upstream_mut());
        Self {
            relay,
            farewell: RelayFarewell::default(),
            is_alive: true,
            has_left: false,
            clock: Clock::default(),
            hub: Hub::default(),
            intake: Intake::default(),
            starts,
        }
    }
}

impl World {
    pub(crate) fn drive_relay(&mut self, relay: usize) -> Option<Time> {
        let process = Process::Relay(relay);
        let now = self.time_of(process);
        let is_connected = self.has_ventilator(process);
        let RelayNode { relay: machine, farewell, .. } = &mut self.relays[relay];
        farewell.review(now, machine, is_connected);
        self.drive_hub(process);
        self.drive_intake(process, Accepts { messages: true, records: false });
        let RelayNode { relay: machine, farewell, .. } = &self.relays[relay];
        if let Some(exit) = farewell.exit(now, machine) {
            self.trace.say(self.now, || format!("relay {relay} leaves: {exit:?}"));
            self.check.progressed(self.now);
            self.check.left("a relay");
            (self.relays[relay].is_alive, self.relays[relay].has_left) = (false, true);
            self.call_back();
            self.abandon(process, false);
            return None;
        }
        Some(machine.poll_timeout().min(farewell.poll_timeout()))
    }

    pub(crate) fn kill_relay(&mut self, relay: usize, is_silent: bool) {
        if !self.relays[relay].is_alive {
            return;
        }
        self.trace.say(self.now, || format!("relay {relay} dies"));
        self.abandon(Process::Relay(relay), is_silent);
        self.relays[relay].is_alive = false;
    }

    pub(crate) fn start_relay(&mut self, relay: usize) {
        if self.relays[relay].is_alive || self.relays[relay].has_left && !self.is_waiting() {
            return;
        }
        self.trace.say(self.now, || format!("relay {relay} starts again"));
        self.check.restarted(relay + 1);
        let old = &mut self.relays[relay];
        let mut clock = std::mem::take(&mut old.clock);
        clock.restart();
        let new = RelayNode::new(&self.plan, relay, old.starts + 1);
        self.relays[relay] = RelayNode { clock, ..new };
        self.dial_anew(Route::Job(self.plan.stage(relay + 1)));
        self.dial_anew(Route::Receipts(self.plan.stage(relay)));
        self.seat_again();
        self.drive(Process::Relay(relay));
    }
}
