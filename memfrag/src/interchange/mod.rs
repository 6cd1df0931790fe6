//! Other tools' formats: what they recorded becomes a recording, and a recording what they read.
//!
//! | module | format |
//! |---|---|
//! | [`memfragx`] | MemFragX: a log of calls as CSV, with `summary.json` and `smaps` |

pub mod memfragx;
