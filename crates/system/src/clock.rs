//! The only place at which the loops, and the parts they own, ask for the time or for random
//! numbers.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};
use tradewind_proto::Time;

/// Turns the system's clocks into the numbers that machines take.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Clock {
    /// Returns the present time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.time(Instant::now())
    }

    /// Returns an instant as machines count time.
    #[must_use]
    pub fn time(&self, instant: Instant) -> Time {
        // Micros of a u64 last for half a million years.
        Time(instant.saturating_duration_since(self.origin).as_micros() as u64)
    }

    /// Returns the instant of a machine's deadline, for a runtime to wait for.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.origin + time.since(Time(0))
    }

    /// Returns microseconds since 1970, by this machine's clock.
    #[must_use]
    pub fn unix_us(&self) -> u64 {
        unix_us()
    }
}

/// Returns microseconds since 1970, by this machine's clock; 0 for a time before.
#[must_use]
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// Returns random bytes of the operating system, for a key.
#[must_use]
pub fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    let mut rest = &mut key[..];
    while !rest.is_empty() {
        // It is interrupted by a signal at most, and never fails for so few bytes.
        let count = getrandom(&mut *rest, GetRandomFlags::empty()).unwrap_or(0);
        rest = &mut rest[count..];
    }
    key
}

/// Returns a random number for a session, a job or a seed. Never 0.
#[must_use]
pub fn random_id() -> u64 {
    let key = u128::from_le_bytes(random_key());
    (key as u64).max(1)
}
