//! The harness of the end-to-end tests: real programs, started here, under the memfrag that users get.
//!
//! | module | what it is for |
//! |---|---|
//! | [`case`] | one test: it passes, fails, or is skipped aloud with its reason |
//! | [`place`] | the memfrag under test, the C programs and where to put files |
//! | [`process`] | running programs with a time limit, signals, and the code of a process as it lies in memory |
//! | [`memfrag`] | the command line of memfrag: tracing, reports, backends |
//! | [`dashboard`] | a client of the dashboard's server |
//! | [`events`] | a recording as a list of events |
//! | [`known_heap`] | a process that holds a heap still and tells its blocks |
//! | [`ledger`] | the books that `programs/ledger.c` keeps, compared with a recording |
//! | [`oracle`] | the heap that a list of events amounts to, worked out the plain way |
//! | [`redis`] | a redis server on a Unix socket |

pub mod case;
pub mod dashboard;
pub mod events;
pub mod known_heap;
pub mod ledger;
pub mod memfrag;
pub mod oracle;
pub mod place;
pub mod process;
pub mod redis;
