//! Queues whose logs are an engine's, on a real server that each test starts: run by `scripts/engines`.

mod queues;
