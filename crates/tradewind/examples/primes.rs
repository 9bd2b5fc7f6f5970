//! A worker whose handler is a closure: counts the primes below each task's number.
//!
//! ```text
//! seq 1000 1000 20000 > numbers.txt
//! sink --output - &
//! ventilator --input numbers.txt &
//! cargo run --release -p tradewind --example primes
//! ```

use tradewind::{Context, Worker};

fn main() -> Result<(), tradewind::Error> {
    let mut args = std::env::args().skip(1);
    let ventilator = args.next().unwrap_or_else(|| "tcp://127.0.0.1:5557".to_owned());
    let sink = args.next().unwrap_or_else(|| "tcp://127.0.0.1:5558".to_owned());
    Worker::connect(&ventilator, &sink)?.exit_when_done(true).run(primes_below)
}

fn primes_below(task: &[u8], context: &Context<'_>) -> Result<String, String> {
    let text = std::str::from_utf8(task).map_err(|error| error.to_string())?;
    let limit: u64 = text.trim().parse().map_err(|_| format!("{text:?} is not a number"))?;
    let mut count = 0;
    for number in 2..limit {
        // Timed out, or not wanted any more.
        if context.is_stopped() {
            return Err("stopped".to_owned());
        }
        count += u64::from((2..).take_while(|d| d * d <= number).all(|d| number % d != 0));
    }
    Ok(format!("{limit} {count}"))
}
