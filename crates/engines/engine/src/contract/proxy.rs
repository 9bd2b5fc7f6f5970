//! The way to a server, on which answers are late or lost.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use super::Fault;

/// Passes connections on to a server on this host.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    way: Way,
    streams: Vec<TcpStream>,
}

/// What the way back does with answers.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    is_dropped: bool,
    delay: Duration,
}

impl Proxy {
    /// Begins to pass connections on to the server at this port, whether it is there yet or not.
    #[must_use]
    pub fn begin(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let port = listener.local_addr().expect("it has an address").port();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                let ends =
                    || (client.try_clone().expect("it can"), server.try_clone().expect("it can"));
                let ((one, two), (three, four)) = (ends(), ends());
                lock(&accepting).streams.extend([one, two]);
                let way = Arc::clone(&accepting);
                thread::spawn(move || copy(&three, &four, &Mutex::default()));
                thread::spawn(move || copy(&server, &client, &way));
            }
        });
        Self { port, shared }
    }

    /// Returns the port at which this is the server.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes what happens to the way happen. What happens to the server is not for this.
    pub fn fault(&self, fault: Fault) {
        let mut shared = lock(&self.shared);
        match fault {
            Fault::Kill | Fault::Start => {}
            Fault::DropAnswers => shared.way.is_dropped = true,
            Fault::Slow(delay) => shared.way.delay = delay,
            Fault::Mend => {
                shared.way = Way::default();
                for stream in shared.streams.drain(..) {
                    let _ = stream.shutdown(Shutdown::Both);
                }
            }
        }
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream, shared: &Mutex<Shared>) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let way = lock(shared).way;
        thread::sleep(way.delay);
        if !way.is_dropped && to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("nobody panicked")
}
