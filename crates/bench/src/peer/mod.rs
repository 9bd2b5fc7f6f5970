//! Who is measured: each module knows how one of them is started.

pub(crate) mod bare;
pub(crate) mod beanstalkd;
pub(crate) mod celery;
pub(crate) mod dask;
mod python;
pub(crate) mod shell;
pub(crate) mod tradewind;
