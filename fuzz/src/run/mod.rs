//! The modules of the program that the pipeline file's parser knows, where it looks for them.

const WORKERS_MAX: u32 = 1024;

pub mod pipeline;
