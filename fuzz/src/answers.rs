//! Answers of a handler that stays up: the cuts between its writes make no difference to them.
//!
//! The data is a byte for the mode, one for the largest output, and what the handler writes.

use tradewind_handlers::{Answer, Answers, PipeMode, WrongAnswer};

pub fn answers(mut data: &[u8]) {
    let (mode, limit) = (super::byte(&mut data), super::byte(&mut data));
    let mode = [PipeMode::Lines, PipeMode::Json, PipeMode::Frames][usize::from(mode % 3)];
    let bytes_max = u64::from(limit) * 4;
    let whole = read(mode, bytes_max, data, usize::MAX);
    assert_eq!(read(mode, bytes_max, data, 1), whole, "byte by byte");
    assert_eq!(read(mode, bytes_max, data, 1 + usize::from(limit) % 13), whole, "in pieces");
}

/// All answers, what was none, and whether another one was begun.
fn read(
    mode: PipeMode,
    bytes_max: u64,
    text: &[u8],
    step: usize,
) -> (Vec<Answer>, Option<WrongAnswer>, bool) {
    let mut answers = Answers::new(mode, bytes_max);
    let mut found = Vec::new();
    for piece in text.chunks(step) {
        answers.push(piece);
        loop {
            match answers.next() {
                Ok(Some(answer)) => {
                    let bytes = answer.outcome.output.len() as u64;
                    assert!(bytes <= bytes_max, "an output that is larger than it may be");
                    found.push(answer);
                }
                Ok(None) => break,
                Err(wrong) => return (found, Some(wrong), false),
            }
        }
    }
    (found, None, answers.is_amid())
}
