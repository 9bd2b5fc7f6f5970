//! Bytes of messages that are not complete yet: what holds up the messages behind them.

/// Bytes that arrive on a connection between two checks.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Bytes that had arrived by the last check.
    bytes: u64,
    /// A message has been completed since then.
    has_message: bool,
}

impl Arrivals {
    /// Notes a complete message.
    pub(crate) fn handle_message(&mut self) {
        self.has_message = true;
    }

    /// Returns whether bytes have arrived since the last check and completed no message. The bytes of
    /// heartbeats are none of these, or no peer would ever owe an answer.
    pub(crate) fn check(&mut self, bytes: u64) -> bool {
        let has_bytes = std::mem::replace(&mut self.bytes, bytes) != bytes;
        let has_message = std::mem::take(&mut self.has_message);
        has_bytes && !has_message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_message_count_while_it_is_not_complete() {
        let mut arrivals = Arrivals::default();
        assert!(!arrivals.check(0));
        assert!(arrivals.check(100));
        assert!(arrivals.check(200));
        assert!(!arrivals.check(200), "nothing has come");
        arrivals.handle_message();
        assert!(!arrivals.check(300));
        // A heartbeat each time, which came whole.
        for bytes in 310..400 {
            arrivals.handle_message();
            assert!(!arrivals.check(bytes));
        }
        assert!(arrivals.check(500));
    }
}
