//! What the half of a queue with the tasks knows of its records on another host, and what it does by that.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tradewind_http::{KEPT_TASKS_MAX, Kept, KeptAsk, Refusal, Unique};
use tradewind_proto::dispatcher::DispatcherSnapshot;
use tradewind_proto::{JobId, Seq, SeqRange, SeqRanges, SeqSet};
use tradewind_store::{ControlError, Noted, Remember, SubmitError, Told, judge_records};
use tradewind_system::random_id;
use tradewind_ventilator::JudgeSink;

use crate::remote::RemoteRecords;
use crate::tasks::SharedTasks;

/// The records of a queue on another host.
pub(crate) struct Elsewhere {
    pub(crate) records: RemoteRecords,
    job: JobId,
    known: Arc<Mutex<Known>>,
}

/// What is known of the records.
#[derive(Default)]
struct Known {
    noted: Noted,
    /// Tasks with records, by the last hello of the sink, until that was looked at.
    heard: Option<SeqRanges>,
    /// Whether it was said that the sink does not answer.
    is_away: bool,
}

impl Elsewhere {
    /// Begins with a queue whose tasks these are. Returns also the tasks that are known to have their records, and what
    /// its ventilator is to know of the job.
    pub(crate) fn begin(
        records: RemoteRecords,
        logs: &Arc<SharedTasks>,
    ) -> Result<(Self, SeqSet, (JobId, JudgeSink)), ControlError> {
        let (job, _) = logs.control().begin(JobId(random_id()))?;
        let noted = logs.control().noted();
        let known = Arc::new(Mutex::new(Known { noted, ..Known::default() }));
        let mut recorded = SeqSet::new();
        let low = Seq(noted.low.max(logs.tasks().first()));
        recorded.insert_range(SeqRange { start: Seq(0), end: low });
        let judge = {
            let (known, logs) = (known.clone(), logs.clone());
            move |theirs: JobId, stored: &SeqRanges| {
                let noted = lock(&known).noted;
                judge_records((job, noted, logs.submitted()), theirs, stored)
                    .map_err(|reason| reason.to_string())?;
                lock(&known).heard = Some(stored.clone());
                Ok(())
            }
        };
        Ok((Self { records, job, known }, recorded, (job, Box::new(judge))))
    }

    /// Returns what holds for all records.
    pub(crate) async fn head(&self, within: Option<Duration>) -> Result<Kept, Refusal> {
        self.kept(0..0, within).await
    }

    async fn kept(&self, tasks: Range<u64>, within: Option<Duration>) -> Result<Kept, Refusal> {
        let kept = self.records.kept(&KeptAsk { tasks, within }).await?;
        match &kept.job {
            Some(job) if *job != format!("{:016x}", self.job.0) => {
                Err(Refusal::Failed("the records that --records names are those of another job"))
            }
            _ => Ok(kept),
        }
    }

    /// Notes what has come about, and removes tasks that are not needed any more. While the sink does not answer
    /// nothing is removed.
    pub(crate) async fn tend(
        &self,
        logs: &Arc<SharedTasks>,
        snapshot: &DispatcherSnapshot,
        unique: Unique,
    ) {
        if let Err(error) = self.note(logs, snapshot).await {
            let dir = logs.dir().display();
            tracing::warn!("{dir}: what has its record cannot be noted: {error}");
        }
        let tended = self.trim(logs, unique).await;
        let was_away = std::mem::replace(&mut lock(&self.known).is_away, tended.is_err());
        match tended {
            Ok(()) if was_away => tracing::info!("the sink answers again"),
            Err(refusal) if !was_away => {
                let dir = logs.dir().display();
                tracing::warn!("{dir}: what is not needed any more stays for now: {refusal}");
            }
            _ => {}
        }
    }

    async fn note(
        &self,
        logs: &Arc<SharedTasks>,
        snapshot: &DispatcherSnapshot,
    ) -> Result<(), ControlError> {
        let noted = Noted { low: snapshot.low_water_mark.0, stored: snapshot.settled };
        let heard = lock(&self.known).heard.take();
        let logs = logs.clone();
        let note = move || {
            if let Some(heard) = heard {
                logs.control().lock().settle(&heard.to_set());
            }
            logs.control().note(noted)?;
            Ok::<_, ControlError>(logs.control().noted())
        };
        if let Ok(noted) = tokio::task::spawn_blocking(note).await {
            lock(&self.known).noted = noted?;
        }
        Ok(())
    }

    async fn trim(&self, logs: &Arc<SharedTasks>, unique: Unique) -> Result<(), Refusal> {
        self.records.introduce().await?;
        let (within, remember) = match unique {
            Unique::Kept => (None, Remember::Kept),
            Unique::Stored => (None, Remember::Not),
            Unique::Time(time) => (Some(time), Remember::Position),
        };
        let head = self.head(within).await?;
        let first = if remember == Remember::Not { u64::MAX } else { head.first };
        changing(logs, move |logs| logs.tasks().forget_below(first)).await?;
        let segments = logs.tasks().closed_segments();
        for segment in segments {
            if let Some(told) = self.tell(segment.clone()).await? {
                let remove = move |logs: &SharedTasks| {
                    logs.tasks().remove_told(&segment, &told, remember).map(drop)
                };
                changing(logs, remove).await?;
            }
        }
        Ok(())
    }

    /// Returns what is to be known of the records of these tasks; `None` if one of the tasks is needed. Nothing is
    /// locked meanwhile: they are all there, and none is added.
    async fn tell(&self, segment: Range<u64>) -> Result<Option<Told>, Refusal> {
        let mut told = Told::default();
        let mut next = segment.start;
        while next < segment.end {
            let end = segment.end.min(next + KEPT_TASKS_MAX);
            let kept = self.kept(next..end, None).await?;
            if kept.needed {
                return Ok(None);
            }
            told.positions.extend(kept.positions);
            told.end = kept.end;
            next = end;
        }
        Ok(Some(told))
    }
}

/// Does something with a task log that waits for the disk.
async fn changing(
    logs: &Arc<SharedTasks>,
    change: impl FnOnce(&SharedTasks) -> Result<(), SubmitError> + Send + 'static,
) -> Result<(), Refusal> {
    let logs = logs.clone();
    let changed = tokio::task::spawn_blocking(move || {
        change(&logs).map_err(|error| {
            tracing::warn!("{}: {error}", logs.dir().display());
            Refusal::Failed("the task log cannot be changed")
        })
    });
    changed.await.unwrap_or(Err(Refusal::Failed("the task log was not changed")))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
