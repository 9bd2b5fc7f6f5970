//! The input on its own thread: reading blocks, and the loop must not.

use tokio::sync::mpsc;

use tradewind_input::{Chunk, InputError, Source};

/// Chunks that are read ahead of the loop. More would only cost memory: the loop takes a chunk as
/// soon as it has room.
const CHUNKS_AHEAD: usize = 2;

/// Reads a source to its end. The last thing received is `Ok(None)` or an error; when the receiver
/// is dropped, the thread ends with the read it is in.
pub(crate) fn spawn(
    mut source: impl Source + Send + 'static,
) -> std::io::Result<mpsc::Receiver<Result<Option<Chunk>, InputError>>> {
    let (chunks, receiver) = mpsc::channel(CHUNKS_AHEAD);
    std::thread::Builder::new().name("input".to_owned()).spawn(move || {
        loop {
            let read = source.read();
            let is_last = !matches!(read, Ok(Some(_)));
            if chunks.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(receiver)
}
