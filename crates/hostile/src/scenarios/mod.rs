//! What liars do.

mod bytes;
mod fakes;
mod hosts;
mod impostors;
mod pipelines;
mod requests;
mod resources;
mod texts;
mod workers;

use tradewind_keys::Role as KeyRole;

use crate::stage::Way;
use crate::suite::{Group, NotYet};

/// All of them.
pub(crate) const GROUPS: &[Group] = &[
    requests::GROUP,
    resources::GROUP,
    impostors::GROUP,
    workers::GROUP,
    fakes::GROUP,
    pipelines::GROUP,
    bytes::GROUP,
    texts::GROUP,
    hosts::GROUP,
];

/// Scenarios whose outcome is not the required one yet.
pub(crate) const NOT_YET: &[NotYet] = &[];

/// Ways of one that poses as a worker.
const AS_WORKER: &[Way] = &[Way::Plain, Way::Token(KeyRole::Worker), Way::NoKey, Way::OthersKey];

/// Ways of one that says what workers may say, and gets in for that.
const INSIDE: &[Way] = &[Way::Plain, Way::Token(KeyRole::Worker)];

/// Ways of one that poses as a ventilator or sink, which workers must not be, and no second one beside the
/// first.
const AS_VENTILATOR: &[Way] = &[
    Way::Plain,
    Way::Token(KeyRole::Worker),
    Way::Token(KeyRole::Ventilator),
    Way::Token(KeyRole::Relay),
    Way::NoKey,
    Way::OthersKey,
];
const AS_SINK: &[Way] = &[
    Way::Plain,
    Way::Token(KeyRole::Worker),
    Way::Token(KeyRole::Sink),
    Way::Token(KeyRole::Relay),
    Way::NoKey,
    Way::OthersKey,
];
