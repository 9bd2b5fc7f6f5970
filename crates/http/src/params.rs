//! What a request says in its query and its headers.

use std::time::Duration;

use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use percent_encoding::percent_decode;
use tradewind_text::duration_or_zero;

use crate::problem::{Kind, Problem};
use tradewind_queue::TaskKey;
use tradewind_queue::excerpt;

/// Parameters of a query, each once.
#[derive(Debug)]
pub(crate) struct Params(Vec<(&'static str, String)>);

impl Params {
    /// Parses a query that may have these parameters.
    ///
    /// # Errors
    ///
    /// When it has another one, or one twice: a misspelt one would go unnoticed, and of two that differ
    /// programs on the way may see the other.
    pub(crate) fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut params = Vec::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            let Some(name) = known.iter().copied().find(|known| *known == name) else {
                let known = match known.join(", ") {
                    known if known.is_empty() => "no parameters".to_owned(),
                    known => format!("the parameters {known}"),
                };
                let name = excerpt(&name);
                return Err(Problem::bad_request(format!("\"{name}\" is not among {known}")));
            };
            if params.iter().any(|(other, _)| *other == name) {
                return Err(Problem::bad_request(format!("{name} is there twice")));
            }
            params.push((name, value));
        }
        Ok(Self(params))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| &**value)
    }

    /// Returns a whole number.
    ///
    /// # Errors
    ///
    /// When the parameter is none.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.get(name).map(|text| number(name, text)).transpose()
    }

    /// Returns a time: a number of seconds, or with a unit.
    ///
    /// # Errors
    ///
    /// When the parameter is none.
    pub(crate) fn time(&self, name: &str) -> Result<Option<Duration>, Problem> {
        let time = |text| {
            duration_or_zero(text).map_err(|_| {
                let text = excerpt(text);
                Problem::bad_request(format!(
                    "{name} is a time, as in 30, 30s or 5m, not \"{text}\""
                ))
            })
        };
        self.get(name).map(time).transpose()
    }
}

/// Parses a whole number of digits alone.
pub(crate) fn number(name: &str, text: &str) -> Result<u64, Problem> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_digits).ok_or_else(|| {
        Problem::bad_request(format!("{name} is a whole number, not \"{}\"", excerpt(text)))
    })
}

fn decoded(text: &str) -> Result<String, Problem> {
    let text = text.replace('+', " ");
    let decoded = percent_decode(text.as_bytes()).decode_utf8();
    decoded
        .map(|text| text.into_owned())
        .map_err(|_| Problem::bad_request("the query is not UTF-8"))
}

/// Returns the only value of a header, if it is there.
///
/// # Errors
///
/// When it is there twice, or is no text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key(name) {
            true => Err(Problem::bad_request(format!("{name} is there twice"))),
            false => Ok(None),
        };
    };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text.trim_matches([' ', '\t']))),
        Err(_) => Err(Problem::bad_request(format!("{name} is not UTF-8"))),
    }
}

/// Returns the media type of the body, in lower case and without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let value = header(headers, CONTENT_TYPE.as_str())?;
    Ok(value.map(|value| essence(value).to_ascii_lowercase()))
}

/// Returns a problem if the body is compressed: its bytes would be taken for the task.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let encoding = header(headers, CONTENT_ENCODING.as_str())?;
    match encoding.is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity")) {
        true => Ok(()),
        false => Err(Problem::new(Kind::MediaType, "the body is to have no content-encoding")),
    }
}

/// Returns whether the client asks for a media type by its name.
pub(crate) fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|it| essence(it).eq_ignore_ascii_case(wanted))
}

fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Returns the key of `Idempotency-Key`: as a string in quotes, as draft-ietf-httpapi-idempotency-key-header
/// has it, or the value as it is.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<TaskKey>, Problem> {
    let Some(value) = header(headers, "idempotency-key")? else { return Ok(None) };
    let key = match value.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).ok_or_else(|| {
            Problem::bad_request("Idempotency-Key begins with a quote, and is no string in quotes")
        })?,
        None => value.to_owned(),
    };
    Ok(Some(TaskKey::try_from(key)?))
}

/// Returns the rest of a string of RFC 8941 without its quotes.
fn unquoted(rest: &str) -> Option<String> {
    let mut text = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(text),
            '\\' => text.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
            c @ ' '..='~' => text.push(c),
            _ => return None,
        }
    }
}

/// Returns the seconds of `Prefer: wait=N` (RFC 7240): of the first, if there are more. One that is malformed
/// is passed over, as preferences are.
pub(crate) fn preferred_wait(headers: &HeaderMap) -> Option<u32> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let preferences = values.flat_map(|value| value.split(','));
    let mut waits = preferences.filter_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
    });
    let wait = waits.next()?;
    wait.bytes().all(|byte| byte.is_ascii_digit()).then(|| wait.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&[u8]]) -> HeaderMap {
        let value = |value: &&[u8]| (name.parse().unwrap(), value.to_vec().try_into().unwrap());
        values.iter().map(value).collect()
    }

    #[test]
    fn a_query_has_known_parameters_once() {
        let known = &["after", "wait"];
        let params = Params::parse(Some("wait=1h+30m&after=%34%32&&"), known).unwrap();
        assert_eq!(params.number("after").unwrap(), Some(42));
        assert_eq!(params.time("wait").unwrap(), Some(Duration::from_secs(5400)));
        assert!(Params::parse(None, known).unwrap().number("after").unwrap().is_none());
        for (query, wanted) in [
            ("wiat=1", r#""wiat" is not among the parameters after, wait"#),
            ("wait=1&wait=1", "wait is there twice"),
            ("%1b[2J", r#""\u{1b}[2J" is not among"#),
            ("wait=%ff", "the query is not UTF-8"),
        ] {
            let problem = Params::parse(Some(query), known).unwrap_err();
            assert!(problem.json().contains(&serde_json::to_string(wanted).unwrap()[1..5]));
            assert_eq!(problem.status(), 400, "{query}");
        }
        for query in ["after=", "after=-1", "after=+1", "after=1e3", "after=99999999999999999999"] {
            let params = Params::parse(Some(query), known).unwrap();
            assert_eq!(params.number("after").unwrap_err().status(), 400, "{query}");
        }
        for query in ["wait=soon", "wait=-1", "wait="] {
            let params = Params::parse(Some(query), known).unwrap();
            assert_eq!(params.time("wait").unwrap_err().status(), 400, "{query}");
        }
    }

    #[test]
    fn a_key_is_a_string_in_quotes_or_the_value_as_it_is() {
        let key = |values: &[&[u8]]| match idempotency_key(&headers("idempotency-key", values)) {
            Ok(key) => Ok(key.map(|key| key.to_string())),
            Err(problem) => Err(problem.status().as_u16()),
        };
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[b"report-2026"]), Ok(Some("report-2026".to_owned())));
        assert_eq!(key(&[b"\"report-2026\""]), Ok(Some("report-2026".to_owned())));
        assert_eq!(key(&[br#""a\"b\\c d""#]), Ok(Some(r#"a"b\c d"#.to_owned())));
        assert_eq!(key(&["ü".as_bytes()]), Ok(Some("ü".to_owned())));
        let long = [b'a'; 513];
        let others: [&[&[u8]]; 7] =
            [&[b""], &[b"\"\""], &[b"\"a"], &[b"\"a\"b"], &[br#""\n""#], &[b"a", b"a"], &[&long]];
        for values in others {
            assert_eq!(key(values), Err(400), "{values:?}");
        }
        assert_eq!(key(&[b"\xff"]), Err(400));
    }

    #[test]
    fn a_preference_is_taken_if_it_is_one() {
        let wait = |values: &[&[u8]]| preferred_wait(&headers("prefer", values));
        assert_eq!(wait(&[b"wait=30"]), Some(30));
        assert_eq!(wait(&[b"respond-async, Wait = \"5\"; a=b", b"wait=9"]), Some(5));
        assert_eq!(wait(&[b"respond-async", b"wait=9"]), Some(9));
        let none: [&[u8]; 7] =
            [b"wait", b"wait=", b"wait=-1", b"wait=+1", b"wait=99999999999", b"a=wait=1", b""];
        for value in none {
            assert_eq!(wait(&[value]), None, "{value:?}");
        }
    }

    #[test]
    fn media_types_are_told_without_their_parameters() {
        let of = |value: &[u8]| media_type(&headers("content-type", &[value])).unwrap();
        assert_eq!(of(b"Application/JSON; charset=utf-8").unwrap(), "application/json");
        let accept = headers("accept", &[b"text/html, */*;q=0.1", b"Text/Event-Stream;q=0.9"]);
        assert!(accepts(&accept, "text/event-stream") && !accepts(&accept, "text/plain"));
        assert!(check_encoding(&headers("content-encoding", &[b"identity"])).is_ok());
        let problem = check_encoding(&headers("content-encoding", &[b"gzip"])).unwrap_err();
        assert_eq!(problem.status(), 415);
    }
}
