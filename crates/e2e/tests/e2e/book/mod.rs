//! The README and the book say what is so: their links lead somewhere, their tables are those of `--help`
//! and of the constants, their commands do what they show, and another worker can be written from the
//! protocol's page.

mod commands;
mod facts;
mod flags;
mod links;
mod pages;
mod protocol;
mod shell;
