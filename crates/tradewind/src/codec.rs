//! Tasks and outputs as values.

use std::fmt::{self, Display};
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Makes a value of a task's bytes, and bytes of an output.
///
/// [`Json`] is one. Any other format is a few lines:
///
/// ```
/// use tradewind::Codec;
///
/// /// Numbers, four bytes each, least significant first.
/// struct Numbers;
///
/// impl Codec for Numbers {
///     type Task = u32;
///     type Output = u32;
///     type Error = String;
///
///     fn decode(&self, task: &[u8]) -> Result<u32, String> {
///         let bytes = task.try_into().map_err(|_| format!("{} bytes, not 4", task.len()))?;
///         Ok(u32::from_le_bytes(bytes))
///     }
///
///     fn encode(&self, output: u32) -> Result<Vec<u8>, String> {
///         Ok(output.to_le_bytes().to_vec())
///     }
/// }
/// ```
pub trait Codec: Send + Sync + 'static {
    /// Type that a handler takes.
    type Task;
    /// Type that a handler returns.
    type Output;
    /// Why something cannot be decoded or encoded.
    type Error: Display;

    /// Makes a value of a task.
    ///
    /// # Errors
    /// When it is none. That is the task's failure, and its handler is not called.
    fn decode(&self, task: &[u8]) -> Result<Self::Task, Self::Error>;

    /// Makes bytes of an output.
    ///
    /// # Errors
    /// When that cannot be. It is the task's failure.
    fn encode(&self, output: Self::Output) -> Result<Vec<u8>, Self::Error>;
}

/// Tasks and outputs as JSON, by way of serde. `Json::new()` takes both types from the handler.
pub struct Json<T, O>(PhantomData<fn(O) -> T>);

impl<T, O> Json<T, O> {
    /// Tasks are `T`s and outputs are `O`s.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, O> Default for Json<T, O> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, O> Clone for Json<T, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, O> Copy for Json<T, O> {}

impl<T, O> fmt::Debug for Json<T, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

impl<T: DeserializeOwned + 'static, O: Serialize + 'static> Codec for Json<T, O> {
    type Task = T;
    type Output = O;
    type Error = serde_json::Error;

    fn decode(&self, task: &[u8]) -> Result<T, serde_json::Error> {
        serde_json::from_slice(task)
    }

    fn encode(&self, output: O) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&output)
    }
}
