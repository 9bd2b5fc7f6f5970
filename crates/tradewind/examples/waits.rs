//! A worker whose handler is asynchronous: a hundred tasks wait at once.
//!
//! ```text
//! seq 1000 | ventilator &
//! sink --output - &
//! cargo run --release -p tradewind --example waits
//! ```

use std::time::Duration;

use bytes::Bytes;
use tradewind::{AsyncContext, Worker};

fn main() -> Result<(), tradewind::Error> {
    let mut args = std::env::args().skip(1);
    let ventilator = args.next().unwrap_or_else(|| "tcp://127.0.0.1:5557".to_owned());
    let sink = args.next().unwrap_or_else(|| "tcp://127.0.0.1:5558".to_owned());
    Worker::connect(&ventilator, &sink)?.slots(100).exit_when_done(true).run_async(wait)
}

async fn wait(task: Bytes, _: AsyncContext) -> Result<Bytes, String> {
    // What stands here for a request to some service.
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(task)
}
