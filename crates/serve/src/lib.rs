//! Queues that stay open: programs put tasks in while it runs, workers come and go, and records are taken by id or
//! followed.
//!
//! A queue is a job without an end whose input is a log: a ventilator and a sink, each with its loop on a thread of
//! its own, between three logs on the disk. This crate has no decision about a task: it holds the logs, the threads
//! and the gates, and answers what HTTP asks.
//!
//! | module | |
//! | --- | --- |
//! | `control`, `tasks`, `records` | the logs of a queue, shared by its threads, and who waits for what |
//! | `logs` | opening them: both halves in a directory, or one |
//! | `disk` | where the logs lie, and when they are synced |
//! | `submitter` | tasks in: many requests, one sync |
//! | `source` | the task log as the ventilator's input |
//! | `output` | the record log as the sink's output |
//! | `loops` | a queue's ventilator and sink |
//! | `workers` | the workers that may hold tasks, for the next process |
//! | `settings` | what holds for a queue: by default, by the configuration, by what was set |
//! | `queue`, `service` | what can be asked of one queue, and of all |
//! | `on_engine`, `any` | queues whose logs are an engine's; a queue of either kind |
//! | `record_half`, `sink_service` | what can be asked of the records of one queue, and of all |
//! | `remote`, `elsewhere` | records on another host: asked for, and what follows for the tasks |
//! | `gates` | the ports that all queues share |
//! | `serve` | the programs: both halves, or one |
//! | `health` | whether a program that serves is well |
//! | `dir`, `names`, `check` | the directory of all that, and a look at what lies there |

mod any;
#[cfg(feature = "cli")]
mod args;
mod check;
mod config;
mod control;
mod dir;
mod disk;
mod elsewhere;
mod gates;
#[cfg(feature = "cli")]
mod half_args;
#[cfg(feature = "cli")]
mod health;
mod logs;
mod loops;
mod names;
mod on_engine;
mod output;
mod queue;
mod record_half;
mod records;
mod refused;
mod remote;
mod serve;
mod service;
mod settings;
mod sink_service;
mod source;
mod steering;
mod submitter;
mod tasks;
mod waiters;
mod workers;

#[cfg(feature = "cli")]
pub use args::ServeArgs;
pub use check::{CheckError, Checked, check};
pub use config::{Config, ConfigError, QueueConfig, Relays};
pub use dir::InUse;
#[cfg(feature = "cli")]
pub use half_args::{HalfArgs, SinkProgram, VentilatorProgram};
pub use serve::{Ports, RecordPorts, Settings, TaskPorts, serve, serve_records, serve_tasks};
pub use tradewind_face::{NoGateway, ParseTrusted, Trusted};
