//! The client against the server, over real sockets and with queues in memory.

mod blocking;
mod keys;
mod losses;
mod records;
mod requests;
mod scene;
