//! What holds for a queue: its default, then what the configuration says, then what was set while it ran.

use bytes::Bytes;
use serde_json::{Map, Value};
use tradewind_http::{Fsync, Keep, Settings, SettingsPatch};
use tradewind_proto::dispatcher::{Policy, Timeout};
use tradewind_store::{Change, ControlState};

/// Returns the settings of a queue, by what its configuration and its control log say.
///
/// # Errors
///
/// In words, when a value in the control log is none: it is of another version of this program.
pub(crate) fn effective(config: &SettingsPatch, state: &ControlState) -> Result<Settings, String> {
    let mut set = Map::new();
    for (name, value) in &state.settings {
        // Others are not for people.
        if !name.starts_with('.') {
            let value =
                serde_json::from_slice(value).map_err(|error| format!("{name}: {error}"))?;
            set.insert(name.to_string(), value);
        }
    }
    Ok(SettingsPatch::from_json(set)?.apply(config.clone().apply(Settings::default())))
}

/// Returns the changes of the control log that set these settings: each one that has a value of its own from now on,
/// and each that has that of the configuration again.
pub(crate) fn changes(patch: &SettingsPatch) -> Vec<Change> {
    let values = patch.clone().apply(Settings::default()).to_json();
    let value = |name: &str| {
        let value = values.get(name).unwrap_or(&Value::Null);
        Bytes::from(value.to_string())
    };
    let names = patch.names().into_iter();
    names
        .map(|(name, has_value)| Change::Setting(name.into(), has_value.then(|| value(name))))
        .collect()
}

/// Returns the changes of the control log that set all of these settings.
pub(crate) fn all_changes(settings: &Settings) -> Vec<Change> {
    let set = |(name, value): (String, Value)| {
        // What has no value is set as well: the configuration's does not count any more.
        Change::Setting(name.as_str().into(), Some(Bytes::from(value.to_string())))
    };
    settings.to_json().into_iter().map(set).collect()
}

/// Returns the limits of tasks that settings mean.
pub(crate) fn policy(settings: &Settings) -> Policy {
    Policy {
        retries: settings.retries,
        timeout: settings.timeout.map(Timeout::After),
        max_running: settings.max_running,
        ..Policy::default()
    }
}

/// Returns which records are kept; `None` if all are. `consumed` is the position that the last consumer reads on from.
pub(crate) fn keep(settings: &Settings, consumed: Option<u64>) -> Option<tradewind_store::Keep> {
    match settings.keep {
        Keep::All => None,
        Keep::Time(time) => Some(tradewind_store::Keep::Time(time)),
        Keep::Bytes(bytes) => Some(tradewind_store::Keep::Bytes(bytes)),
        // Where nobody consumes, nothing is consumed.
        Keep::Consumed => Some(tradewind_store::Keep::Consumed(consumed?)),
    }
}

/// Returns whether what is promised is synced before, and whether each request is by itself.
pub(crate) fn durability(settings: &Settings) -> (bool, bool) {
    match settings.fsync {
        Fsync::None => (false, false),
        Fsync::Batch => (true, false),
        Fsync::Record => (true, true),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn patch(json: &str) -> SettingsPatch {
        SettingsPatch::from_json(serde_json::from_str(json).unwrap()).unwrap()
    }

    fn state(changes: Vec<Change>, mut state: ControlState) -> ControlState {
        for change in changes {
            let Change::Setting(name, value) = change else { panic!("{change:?}") };
            match value {
                Some(value) => state.settings.insert(name, value),
                None => state.settings.remove(&name),
            };
        }
        state
    }

    #[test]
    fn what_was_set_stands_above_the_configuration_and_that_above_the_defaults() {
        let config = patch(r#"{"retries": 3, "timeout": "10m"}"#);
        let none = ControlState::default();
        let by_config = effective(&config, &none).unwrap();
        assert_eq!((by_config.retries, by_config.max_running), (3, None));
        let set = state(changes(&patch(r#"{"retries": 5, "max_running": 7}"#)), none);
        let by_set = effective(&config, &set).unwrap();
        assert_eq!((by_set.retries, by_set.max_running), (5, Some(7)));
        assert_eq!(by_set.timeout, Some(Duration::from_secs(600)));
        let unset = state(changes(&patch(r#"{"retries": null}"#)), set.clone());
        assert_eq!(effective(&config, &unset).unwrap().retries, 3, "the configuration's again");
        let all = state(all_changes(&Settings::default()), set);
        assert_eq!(effective(&config, &all).unwrap(), Settings::default());
    }

    #[test]
    fn settings_that_are_not_for_people_are_none() {
        let mut state = ControlState::default();
        state.settings.insert(".job".into(), Bytes::from_static(b"\xff"));
        assert_eq!(effective(&SettingsPatch::default(), &state), Ok(Settings::default()));
        state.settings.insert("retires".into(), Bytes::from_static(b"1"));
        let error = effective(&SettingsPatch::default(), &state).unwrap_err();
        assert!(error.contains("retires"), "{error}");
    }
}
