//! Settings of streams: those that are made, and what is wrong with others'.

use std::time::Duration;

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};

/// Settings of a stream that is made.
pub(crate) fn wanted(name: &str, subjects: Vec<String>, replicas: usize) -> Config {
    Config {
        name: name.to_owned(),
        subjects,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: 1,
        max_messages: -1,
        max_bytes: -1,
        storage: StorageType::File,
        num_replicas: replicas,
        allow_direct: true,
        ..Config::default()
    }
}

/// Returns in words which settings of a stream would lose entries, and what to set; `None` if there are none.
pub(crate) fn refusal(have: &Config, wanted: &Config) -> Option<String> {
    let checks = [
        ("retention", have.retention == RetentionPolicy::Limits, "limits"),
        ("discard", have.discard == DiscardPolicy::New, "new"),
        ("discard_new_per_subject", have.discard_new_per_subject, "true"),
        ("max_msgs_per_subject", have.max_messages_per_subject == 1, "1"),
        ("max_age", have.max_age == Duration::ZERO, "0"),
        ("storage", have.storage == StorageType::File, "file"),
        ("no_ack", !have.no_ack, "false"),
        ("sealed", !have.sealed, "false"),
        ("deny_purge", !have.deny_purge, "false"),
        ("allow_rollup_hdrs", !have.allow_rollup, "false"),
        ("allow_msg_ttl", !have.allow_message_ttl, "false"),
        ("allow_direct", have.allow_direct, "true"),
        ("persist_mode", have.persist_mode != Some(PersistenceMode::Async), "default"),
        ("mirror", have.mirror.is_none(), "none"),
        ("sources", have.sources.as_ref().is_none_or(Vec::is_empty), "none"),
        ("subject_transform", have.subject_transform.is_none(), "none"),
    ];
    let mut wrong: Vec<_> = checks
        .into_iter()
        .filter(|(_, is_right, _)| !is_right)
        .map(|(name, _, wanted)| format!("{name} (set it to {wanted})"))
        .collect();
    if wanted.subjects.iter().any(|subject| !have.subjects.contains(subject)) {
        wrong.push(format!("subjects (set it to {})", wanted.subjects.join(",")));
    }
    if wrong.is_empty() {
        return None;
    }
    let name = &wanted.name;
    Some(format!("stream {name} would lose entries by its settings: {}", wrong.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours() -> Config {
        wanted("S-0", vec!["S.0.u.>".into()], 1)
    }

    #[test]
    fn each_setting_that_loses_entries_is_named_with_what_to_set() {
        assert_eq!(refusal(&ours(), &ours()), None);
        let cases: [(Config, &str); 6] = [
            (Config { max_age: Duration::from_secs(1), ..ours() }, "max_age (set it to 0)"),
            (Config { storage: StorageType::Memory, ..ours() }, "storage (set it to file)"),
            (Config { discard: DiscardPolicy::Old, ..ours() }, "discard (set it to new)"),
            (
                Config { retention: RetentionPolicy::WorkQueue, ..ours() },
                "retention (set it to limits)",
            ),
            (Config { subjects: vec![], ..ours() }, "subjects (set it to S.0.u.>)"),
            (
                Config { max_messages_per_subject: -1, sealed: true, ..ours() },
                "max_msgs_per_subject (set it to 1), sealed (set it to false)",
            ),
        ];
        for (config, words) in cases {
            let wanted = format!("stream S-0 would lose entries by its settings: {words}");
            assert_eq!(refusal(&config, &ours()), Some(wanted));
        }
    }
}
