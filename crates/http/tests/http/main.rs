//! The routes over queues in memory, and the server over real sockets.

mod ask;
mod cases;
mod connections;
mod requests;
