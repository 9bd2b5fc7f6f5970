//! A worker whose tasks and outputs are values, as JSON: what does an order come to?
//!
//! ```text
//! echo '{"item":"tea","count":3,"price":2.5}' | ventilator --input - &
//! sink --output - &
//! cargo run --release -p tradewind --example orders
//! ```

use serde::{Deserialize, Serialize};
use tradewind::{Json, Reply, Worker};

#[derive(Deserialize)]
struct Order {
    item: String,
    count: u32,
    price: f64,
}

#[derive(Serialize)]
struct Total {
    item: String,
    total: f64,
}

fn main() -> Result<(), tradewind::Error> {
    let mut args = std::env::args().skip(1);
    let ventilator = args.next().unwrap_or_else(|| "tcp://127.0.0.1:5557".to_owned());
    let sink = args.next().unwrap_or_else(|| "tcp://127.0.0.1:5558".to_owned());
    Worker::connect(&ventilator, &sink)?
        .exit_when_done(true)
        .typed(Json::<_, Total>::new())
        .run(|order, _| total(order))
}

fn total(order: Order) -> Result<Reply<Total>, String> {
    if order.count == 0 {
        // A line about nothing is of no use.
        return Ok(Reply::Skip);
    }
    let total = f64::from(order.count) * order.price;
    if total < 0.0 {
        return Err(format!("the price of {} is below 0", order.item));
    }
    Ok(Total { item: order.item, total }.into())
}
