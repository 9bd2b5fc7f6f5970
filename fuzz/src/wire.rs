//! Frames of the four channels: what can be read is written and read again as it was.

use std::fmt::Debug;

use bytes::Bytes;
use tradewind_proto::message::{Card, ToSink, ToVentilator, ToWorker};
use tradewind_wire::{Message, VERSION, decode, encode};

pub fn wire(mut data: &[u8]) {
    match super::byte(&mut data) % 4 {
        0 => round_trip::<ToWorker>(data),
        1 => round_trip::<ToSink>(data),
        2 => round_trip::<ToVentilator>(data),
        _ => round_trip::<Card>(data),
    }
}

fn round_trip<M: Message + Debug + PartialEq>(body: &[u8]) {
    // A frame as it stands, and one whose header is right.
    let _ = decode::<M>(&Bytes::copy_from_slice(body));
    let frame = Bytes::from([&[VERSION, M::CHANNEL], body].concat());
    let Ok(message) = decode::<M>(&frame) else { return };
    let written = encode(&message);
    let again = decode::<M>(&written).expect("what was written can be read");
    assert_eq!(again, message);
    assert_eq!(encode(&again), written);
}
