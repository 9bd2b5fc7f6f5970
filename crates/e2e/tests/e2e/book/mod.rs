//! The README and the book say what is so: their links lead somewhere, their tables are those of `--help`
//! and of the constants, and their commands do what they show.

mod commands;
mod facts;
mod flags;
mod links;
mod pages;
