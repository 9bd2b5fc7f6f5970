//! Bodies of requests, read within their limits.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::limits::{Budget, Held, JSON_BYTES_MAX, Limits};
use crate::params::{check_encoding, header, media_type, number};
use crate::problem::{Kind, Problem};

/// Bytes that are reserved for a body before any of them has come.
const RESERVED_BYTES_MAX: usize = 64 << 10;

/// A body, and its part of the memory that those of all requests may have.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    /// Twice its bytes: while it is parsed, its tasks are there too.
    _held: Held,
}

/// Reads a body.
///
/// # Errors
///
/// When it is too large, comes too slowly or not to its end, or there is no room for it.
pub(crate) async fn read(
    request: Request<Body>,
    bytes_max: usize,
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Result<Received, Problem> {
    check_encoding(request.headers())?;
    let reading = read_within(request, bytes_max, budget);
    let too_slow = || {
        let seconds = limits.body_time.as_secs_f64();
        Problem::new(Kind::Timeout, format!("the body has to be there after {seconds} s")).closing()
    };
    timeout(limits.body_time, reading).await.map_err(|_| too_slow())?
}

async fn read_within(
    request: Request<Body>,
    bytes_max: usize,
    budget: &Arc<Budget>,
) -> Result<Received, Problem> {
    let length = length(request.headers())?;
    let too_large = || {
        Problem::new(Kind::TooLarge, format!("a body may have {bytes_max} bytes here")).closing()
    };
    let busy = || Problem::busy("the bodies of other requests take all the memory").closing();
    // Before a byte of it is asked for with `100 Continue`.
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large());
    }
    let mut held = budget.part();
    let reserved = length.map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let mut bytes = BytesMut::with_capacity(reserved.min(RESERVED_BYTES_MAX));
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        let broken = |_| Problem::bad_request("the body is malformed, or ended too soon").closing();
        // Trailers say nothing that is asked for here.
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if data.len() > bytes_max - bytes.len() {
            return Err(too_large());
        }
        if !held.grow(data.len().saturating_mul(2)) {
            return Err(busy());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Received { bytes: bytes.freeze(), _held: held })
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let name = CONTENT_LENGTH.as_str();
    header(headers, name)?.map(|text| number(name, text)).transpose()
}

/// Reads a body that is a JSON object, of one of these media types.
///
/// # Errors
///
/// When it is none, or as with [`read`].
pub(crate) async fn read_json(
    request: Request<Body>,
    media_types: &'static [&'static str],
    limits: &Limits,
    budget: &Arc<Budget>,
) -> Result<Received, Problem> {
    let media_type = media_type(request.headers())?;
    let received = read(request, JSON_BYTES_MAX, limits, budget).await?;
    // No body needs no type.
    let is_right = received.bytes.is_empty()
        || media_type.is_some_and(|media_type| media_types.contains(&&*media_type));
    if !is_right {
        let is_patch = media_types.len() > 1;
        return Err(Problem::media_type(media_types[0], is_patch));
    }
    Ok(received)
}
