//! Source of the tasks: the user's input, or an earlier stage.

use super::relay::Relaying;
use super::resume::Resume;
use crate::message::InputEnd;

/// Source of the tasks, and their number.
#[derive(Debug)]
pub(super) struct Source {
    /// Number of tasks, once it is known.
    pub(super) total: Option<u64>,
    /// Reason for the total.
    pub(super) end: InputEnd,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The tasks are read from the input, in the order of their seqs. If the job is resumed, an
    /// earlier ventilator has dispatched some of them.
    Input(Option<Resume>),
    /// The tasks are an earlier stage's results, and come in any order.
    Stage(Box<Relaying>),
}

impl Source {
    pub(super) fn input(resume: Option<Resume>) -> Self {
        Self { total: None, end: InputEnd::CutShort, kind: Kind::Input(resume) }
    }

    pub(super) fn stage() -> Self {
        let kind = Kind::Stage(Box::default());
        Self { total: None, end: InputEnd::CutShort, kind }
    }

    pub(super) fn resume(&self) -> Option<&Resume> {
        match &self.kind {
            Kind::Input(resume) => resume.as_ref(),
            Kind::Stage(_) => None,
        }
    }

    pub(super) fn resume_mut(&mut self) -> Option<&mut Resume> {
        match &mut self.kind {
            Kind::Input(resume) => resume.as_mut(),
            Kind::Stage(_) => None,
        }
    }

    /// Notes that there was no job to resume: it is a new one.
    pub(super) fn forget_resume(&mut self) {
        if let Kind::Input(resume) = &mut self.kind {
            *resume = None;
        }
    }

    pub(super) fn relaying(&self) -> Option<&Relaying> {
        match &self.kind {
            Kind::Input(_) => None,
            Kind::Stage(relaying) => Some(relaying),
        }
    }

    pub(super) fn relaying_mut(&mut self) -> Option<&mut Relaying> {
        match &mut self.kind {
            Kind::Input(_) => None,
            Kind::Stage(relaying) => Some(relaying),
        }
    }

    /// Returns whether a worker may hold a task that this dispatcher did not dispatch. Then no task
    /// is dispatched before the roll call is over.
    pub(super) fn may_be_held(&self) -> bool {
        match &self.kind {
            Kind::Input(resume) => resume.is_some(),
            Kind::Stage(_) => true,
        }
    }

    /// Returns whether a task that is given up is sent to the sink at once, and not when its turn
    /// comes.
    pub(super) fn has_no_order(&self) -> bool {
        matches!(self.kind, Kind::Stage(_))
    }

    /// Returns whether records may be stored of tasks that are not known here.
    pub(super) fn may_be_stored_before(&self) -> bool {
        matches!(self.kind, Kind::Stage(_))
    }

    /// Returns whether no more tasks will come.
    pub(super) fn is_over(&self) -> bool {
        match &self.kind {
            Kind::Input(_) => self.total.is_some(),
            Kind::Stage(relaying) => relaying.is_all_here(),
        }
    }
}
