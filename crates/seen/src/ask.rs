//! What a program that runs is asked, by threads that show it.

use tradewind_proto::Seq;
use tradewind_proto::dispatcher::Explained;

use crate::Look;

/// What does something with an answer.
pub type Answer<T> = Box<dyn FnOnce(T) + Send>;

/// A question to the loop of a program: it is answered between two events.
pub enum Ask {
    /// How is the job?
    Look(Answer<Look>),
    /// Where is a task?
    Explain(Seq, Answer<Explained>),
}
