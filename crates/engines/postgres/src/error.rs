//! What an error of the client or of the server means for who made the call.

use std::error::Error as _;
use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::DbError;
use tradewind_engine::EngineError;

/// Returns what an error says of a call that has not been committed: nothing was done.
pub(crate) fn of(error: &Error) -> EngineError {
    if let Some(error) = error.as_db_error() {
        return of_code(error);
    }
    let words = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    let is_tls = cause
        .and_then(io::Error::get_ref)
        .is_some_and(|inner| inner.downcast_ref::<rustls::Error>().is_some());
    match error.is_closed() || cause.is_some() && !is_tls {
        true => EngineError::Away(words),
        false => EngineError::Refused(words),
    }
}

fn of_code(error: &DbError) -> EngineError {
    let code = error.code().code();
    let words = match error.detail() {
        Some(detail) => format!("{} ({detail}; SQLSTATE {code})", error.message()),
        None => format!("{} (SQLSTATE {code})", error.message()),
    };
    of_words(code, words)
}

/// Tells errors apart by their code: the first two characters are its class.
fn of_words(code: &str, words: String) -> EngineError {
    match (code, code.get(..2).unwrap_or_default()) {
        ("53100", _) => EngineError::Full(words),
        // A lock that was waited for too long, and a standby, which may become the server.
        ("55P03" | "25006", _) => EngineError::Away(words),
        // A connection, a transaction that another was in the way of, resources, an operator, the system.
        (_, "08" | "40" | "53" | "57" | "58") => EngineError::Away(words),
        // A session that was ended because it was idle.
        ("25P03" | "25P04", _) => EngineError::Away(words),
        _ => EngineError::Refused(words),
    }
}

/// Returns what the same error says of a call that may have been committed.
pub(crate) fn unsure(error: EngineError) -> EngineError {
    match error {
        EngineError::Away(words) => EngineError::Unsure(words),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_who_has_to_do_something() {
        type Kind = fn(String) -> EngineError;
        let cases: [(&str, Kind); 9] = [
            ("53100", EngineError::Full),
            ("53300", EngineError::Away),
            ("57P03", EngineError::Away),
            ("57014", EngineError::Away),
            ("40P01", EngineError::Away),
            ("55P03", EngineError::Away),
            ("28P01", EngineError::Refused),
            ("3D000", EngineError::Refused),
            ("42501", EngineError::Refused),
        ];
        for (code, wanted) in cases {
            assert_eq!(of_words(code, "words".into()), wanted("words".into()), "{code}");
        }
    }
}
