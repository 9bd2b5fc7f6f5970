//! `map`: all three at once.

use std::sync::mpsc;

use tradewind::{Error, map};

#[test]
fn results_are_in_the_order_of_the_tasks_and_errors_in_their_places() {
    let halves = map(0..1_000_u32, 4, |n| match n {
        500 => panic!("in the middle"),
        n if n % 2 == 1 => Err(format!("{n} is odd")),
        n => Ok(n / 2),
    })
    .unwrap();
    let mut count = 0;
    for (n, half) in (0..).zip(halves) {
        match (n, half) {
            (500, Err(Error::Task(error))) => {
                assert_eq!(error.error, "the handler panicked: in the middle");
            }
            (n, Err(Error::Task(error))) => {
                assert_eq!(error.to_string(), format!("task {n} failed: {n} is odd"));
            }
            (n, half) => assert_eq!(half.unwrap() * 2, n),
        }
        count += 1;
    }
    assert_eq!(count, 1_000);
}

#[test]
fn a_panic_of_the_iterator_is_the_last_error() {
    let tasks = (0..10).inspect(|n| assert!(*n < 5, "there is no more"));
    let mut results: Vec<_> = map(tasks, 2, Ok::<i32, String>).unwrap().collect();
    let error = results.pop().unwrap().unwrap_err();
    assert!(matches!(error, Error::Input(_)), "{error:?}");
    assert!(results.len() <= 5);
    assert!((0..).zip(results).all(|(n, result)| result.unwrap() == n));
}

#[test]
fn whoever_drops_it_ends_it() {
    // Held by the iterator and the closure, for as long as they are there.
    let (there, gone) = mpsc::channel::<()>();
    let also_there = there.clone();
    let tasks = (0_u64..).inspect(move |_| drop(there.clone()));
    let mut same = map(tasks, 2, move |n| {
        drop(also_there.clone());
        Ok::<u64, String>(n)
    })
    .unwrap();
    assert_eq!(same.next().unwrap().unwrap(), 0);
    drop(same);
    assert!(gone.recv().is_err());
}
