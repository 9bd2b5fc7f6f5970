//! The thread that renews a lease.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tradewind_engine::{EngineError, Epoch, Leases};

use crate::renewal::{LEASE, Renewal};

/// Partition whose lease a job's output has.
pub(crate) const PARTITION: u32 = 0;

/// Is told once when the lease is another's.
pub(crate) type Tell = Box<dyn FnOnce(EngineError) + Send>;

/// A lease that is renewed on a thread of its own, until this is dropped: then it is given up.
#[derive(Debug)]
pub(crate) struct Keeper {
    tells: Sender<Tell>,
}

/// Waits for the end of a lease.
#[derive(Debug)]
pub struct Held(Receiver<()>);

impl Held {
    /// Waits until the lease is given up, for this time at most. Until then another would have to wait for it.
    pub fn wait_given_up(&self, time: Duration) {
        // Nothing is ever sent: the thread has ended.
        let _ = self.0.recv_timeout(time);
    }
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system has none to give.
    pub(crate) fn spawn(leases: Box<dyn Leases>, epoch: Epoch) -> io::Result<(Self, Held)> {
        let (tells, received) = channel();
        let (running, ended) = channel();
        thread::Builder::new().name("lease".to_owned()).spawn(move || {
            keep(leases, epoch, &received);
            drop(running);
        })?;
        Ok((Self { tells }, Held(ended)))
    }

    /// Has this called on the thread once the lease is another's.
    pub(crate) fn tell(&self, tell: Tell) {
        // The thread lives as long as this.
        let _ = self.tells.send(tell);
    }
}

fn keep(mut leases: Box<dyn Leases>, epoch: Epoch, tells: &Receiver<Tell>) {
    let began = Instant::now();
    let mut renewal = Renewal::new(began.elapsed());
    let (mut tell, mut lost) = (None, None);
    loop {
        let left = renewal.poll_timeout().saturating_sub(began.elapsed());
        let next = match &lost {
            Some(_) => tells.recv().map_err(|_| RecvTimeoutError::Disconnected),
            None => tells.recv_timeout(left),
        };
        match next {
            Ok(next) => tell = Some(next),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let answer = leases.renew(PARTITION, epoch, LEASE);
                if !renewal.handle_answer(began.elapsed(), &answer) {
                    lost = answer.err();
                }
            }
        }
        if let Some(error) = &lost
            && let Some(tell) = tell.take()
        {
            let tell: Tell = tell;
            tell(error.clone());
        }
    }
    if lost.is_none() {
        // If it cannot be given up, it lapses.
        let _ = leases.release(PARTITION, epoch);
    }
}
