//! Names and settings of queues, and how they are written: what a server of queues and its clients both parse.
//!
//! Without I/O and without HTTP. Text becomes a value here, once, or an error that says how the value is written.

mod kept;
mod names;
mod settings;
mod whole;

pub use kept::{KEPT_TASKS_MAX, Kept, KeptAsk};
pub use names::{
    ConsumerName, KEY_BYTES_MAX, NAME_BYTES_MAX, NameError, QueueName, TaskId, TaskKey,
};
pub use settings::{
    Change, Fsync, Keep, SettingError, Settings, SettingsPatch, Unique, WrittenPatch,
    WrittenSettings, excerpt, time,
};
pub use whole::whole;
