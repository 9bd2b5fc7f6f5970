//! Peers that are measured: each module starts one of them.

pub(crate) mod bare;
pub(crate) mod beanstalkd;
pub(crate) mod celery;
pub(crate) mod dask;
pub(crate) mod engine;
pub(crate) mod nats;
mod python;
pub(crate) mod queue;
pub(crate) mod redis;
pub(crate) mod shell;
pub(crate) mod tradewind;
