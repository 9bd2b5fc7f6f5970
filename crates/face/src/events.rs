//! The stream of a page: what is new, about once a second.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use futures::stream::unfold;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;
use tradewind_seen::{Point, Wanted};

use crate::face::Face;

/// Time after which a stream says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Number of looks after which the names of many workers are sent anew, if they have changed.
const CREW_LOOKS: u64 = 5;

/// A stream of events to one page.
struct Events {
    face: Face,
    wanted: Wanted,
    after: f64,
    ticks: watch::Receiver<(u64, bool)>,
    crew: Option<(u64, Vec<String>)>,
    state: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing was sent.
    New,
    Going,
    /// The end was sent.
    Over,
}

/// Returns the body of a stream of all after a moment.
pub(crate) fn body(face: Face, wanted: Wanted, after: f64) -> Body {
    let ticks = face.ticks();
    let events = Events { face, wanted, after, ticks, crew: None, state: Stage::New };
    Body::from_stream(unfold(events, |mut events| async move {
        let part = events.next().await?;
        Some((Ok::<_, Infallible>(part), events))
    }))
}

impl Events {
    async fn next(&mut self) -> Option<String> {
        match self.state {
            Stage::Over => return None,
            Stage::New => self.state = Stage::Going,
            Stage::Going => {
                let draining = self.face.draining().clone();
                let changed = tokio::select! {
                    changed = timeout(HEARTBEAT, self.ticks.changed()) => changed,
                    () = draining.begun() => Ok(Ok(())),
                };
                match changed {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(": here\n\n".to_owned()),
                }
            }
        }
        let (looks, has_ended) = *self.ticks.borrow_and_update();
        let mut part = String::new();
        {
            let watch = self.face.watch();
            let points = watch.points(self.after);
            if let Some(last) = points.last() {
                self.after = last.at;
                write(&mut part, "points", &points.iter().map(row).collect::<Vec<_>>());
            }
            if self.crew.as_ref().is_none_or(|(at, _)| looks >= at + CREW_LOOKS) {
                let crew = watch.crew();
                if self.crew.as_ref().is_none_or(|(_, before)| *before != crew) {
                    write(&mut part, "crew", &crew);
                }
                self.crew = Some((looks, crew));
            }
            if let Some(status) = watch.status(&self.wanted) {
                write(&mut part, "state", &status);
            }
        }
        if has_ended || self.face.draining().has_begun() {
            self.state = Stage::Over;
        }
        if has_ended {
            part.push_str("event: end\ndata: \n\n");
        }
        Some(part)
    }
}

fn row(point: &Point) -> (f64, f64, f64, u64) {
    (point.at, point.done, point.failed, point.waiting)
}

fn write(part: &mut String, name: &str, data: &impl Serialize) {
    // It has no map whose keys are no texts, and writes to memory.
    let data = serde_json::to_string(data).unwrap_or_default();
    part.push_str("event: ");
    part.push_str(name);
    part.push_str("\ndata: ");
    part.push_str(&data);
    part.push_str("\n\n");
}
