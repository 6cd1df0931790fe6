//! The programs, one family a file.

mod allocation;
mod free;
mod lifecycle;
mod memory;
mod nothing;
