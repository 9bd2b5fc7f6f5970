//! Queues and jobs whose logs are an engine's, on a real server that each test starts: run by `scripts/engines`.

mod jobs;
mod queues;
