//! Logs go to stderr, one line per event. A line that cannot be written is lost, without further
//! effect.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::debug_fn;
use tradewind_shown::shown;

use crate::args::LogArgs;
use crate::exit::{BAR_ENV, Fatal, USAGE, share_with_bar};
use crate::parent;
use tradewind_system::stderr::LogWriter;

/// What libraries say that is not for people.
const LIBRARIES: &str = "async_nats=warn,tokio_postgres=warn";

/// Returns whether to use colours: on terminals, unless `NO_COLOR` is set (no-color.org).
fn is_coloured() -> bool {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    std::io::stderr().is_terminal() && !is_refused
}

/// Starts logging, at `default` unless the user sets a level. To be called once, first of all.
///
/// # Errors
/// When the filter does not parse.
pub fn init(args: &LogArgs, default: &str) -> Result<(), Fatal> {
    if parent::speaks_for_us() && std::env::var_os(BAR_ENV).is_some() {
        share_with_bar();
    }
    let default = if args.quiet { "warn" } else { default };
    let default = format!("{default},{LIBRARIES}");
    let level = args.log.as_deref().unwrap_or(&default);
    let filter = EnvFilter::try_new(level)
        .map_err(|error| Fatal::new(USAGE, format!("--log {level:?} is not a filter: {error}")))?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogWriter)
        .with_ansi(is_coloured())
        .fmt_fields(fields())
        .with_target(false);
    // A program that embeds several roles starts its logs once.
    let _ = logs.try_init();
    Ok(())
}

/// Writes the fields of an event as the subscriber does by itself, with characters that do not show escaped:
/// a part of a message may come from a peer, or from a task.
fn fields() -> impl for<'writer> FormatFields<'writer> + 'static {
    debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", shown(&value)),
            name => write!(writer, "{name}={}", shown(&value)),
        }
    })
    .delimited(" ")
}
