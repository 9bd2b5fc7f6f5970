//! One program for all targets; `FUZZ_TARGET` says which.
#![no_main]

mod answers;
mod input;
mod journal;
mod liars;
mod meter;
mod pipeline;
mod run;
mod spool;
mod store;
mod template;
mod text;
mod wire;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

/// Takes any bytes. To panic is to fail.
type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("wire", wire::wire),
    ("meter", meter::meter),
    ("journal", journal::journal),
    ("input", input::input),
    ("pipeline", pipeline::pipeline),
    ("text", text::text),
    ("template", template::template),
    ("answers", answers::answers),
    ("spool", spool::spool),
    ("store", store::store),
    ("liars", liars::liars),
];

fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let wanted = std::env::var("FUZZ_TARGET").unwrap_or_default();
        match TARGETS.iter().find(|(name, _)| *name == wanted) {
            Some((_, target)) => *target,
            None => {
                let names: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
                eprintln!("FUZZ_TARGET is one of {}", names.join(", "));
                std::process::exit(2);
            }
        }
    })(data);
});

/// Takes the first byte off, or 0.
fn byte(data: &mut &[u8]) -> u8 {
    match data.split_first() {
        Some((first, rest)) => {
            *data = rest;
            *first
        }
        None => 0,
    }
}
