//! Recordings written, damaged in every way, and read back.

mod checkpoint;
mod damage;
mod disk;
mod follow;
mod golden;
mod haste;
mod hostile;
mod memory;
mod order;
mod redact;
mod round_trip;
mod samples;
mod stacks;
