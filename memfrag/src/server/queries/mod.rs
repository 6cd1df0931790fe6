//! What the page may ask: the queries of `docs/PROTOCOL.md`.
//!
//! [`answer`] takes a query's kind and parameters and the [`Context`] of the client that asks: the state at its cursor,
//! frozen, so that nobody waits for an answer that takes long. Each kind is a function from these to a serializable
//! value. Parameters are read strictly, answers are bounded, and every loop over blocks or events looks at the
//! [`Limit`].
//!
//! | module | kinds |
//! |---|---|
//! | `report` | `report`, `blame` |
//! | `series` | `series` |
//! | `place` | `at`, `holes` |
//! | `history` | `history` |
//! | `blocks` | `blocks` |
//! | `events` | `events` |
//! | `range` | `range`, `compare` |
//! | `distributions` | `distributions` |
//! | `flame` | `flame` |
//! | `recorded` | states of the recordings that the server has |
//! | `digest` | the same number for the same live blocks |
//! | `parameters`, `site` | what goes in, and call sites as they go out |
//! | `limit` | how long an answer may take |

mod blocks;
mod digest;
mod distributions;
mod events;
mod flame;
mod history;
mod limit;
mod parameters;
mod place;
mod range;
mod recorded;
mod report;
mod series;
mod site;
#[cfg(test)]
mod tests;

pub use limit::Limit;
pub use recorded::Recorded;

use crate::heap::{Heap, Process};
use crate::recording::Reader;
use crate::report::ReportBuilder;
use serde_json::{Map, Value};
use std::sync::Arc;
use thiserror::Error;

/// A recording's state at a moment.
#[derive(Debug)]
pub struct State {
    /// What was gathered until then.
    pub builder: ReportBuilder,
    /// The moment, in nanoseconds since the trace began.
    pub at_ns: u64,
    /// The recording, as far as it went when the state was taken.
    pub reader: Arc<Reader>,
    /// What people call the recording.
    pub name: String,
}

/// States beside the one at the cursor.
pub trait States {
    /// The state of a source, by its number, or of the one asked about, at a moment: that after all events whose time is
    /// not later.
    ///
    /// # Errors
    /// [`QueryError::NoSource`], [`QueryError::TooLong`], or when the recording cannot be read.
    fn at(&self, source: Option<usize>, at_ns: u64, limit: &Limit) -> Result<State, QueryError>;
}

/// Classes of blocks that a map's palette shows.
pub trait Palette {
    /// The blocks of a class: `mode` is `site`, `thread` or `size`, `value` that of its cells. `None` when there is no
    /// such class.
    fn class(&self, mode: &str, value: u8) -> Option<Class>;
}

/// Blocks that have something in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Of a call, by its return address.
    Site(u64),
    /// Of the thread that allocated.
    Thread(u32),
    /// Of these requested sizes, both included.
    Size(u64, u64),
    /// That no event told of.
    Older,
}

/// Who asks, and about what.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The state at the cursor.
    pub state: &'a State,
    /// The process that is watched.
    pub pid: u32,
    /// Where other states come from.
    pub states: &'a dyn States,
    /// The client's palettes, when it has a map.
    pub palette: Option<&'a dyn Palette>,
    /// How long the answer may take.
    pub limit: &'a Limit,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("at_ns", &self.state.at_ns).field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Why a query has no answer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QueryError {
    /// There is no query of this kind.
    #[error("there is no query {kind:?}")]
    Kind {
        /// What was asked for.
        kind: String,
    },
    /// It does not take this.
    #[error("{kind}: {problem}")]
    Parameters {
        /// The kind of query.
        kind: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The process was not there.
    #[error("there is no process {pid} in the recording until {at_ns} ns")]
    NoProcess {
        /// The process asked for.
        pid: u32,
        /// The moment asked for.
        at_ns: u64,
    },
    /// There is no such source.
    #[error("there is no source {source_number}")]
    NoSource {
        /// Its number.
        source_number: usize,
    },
    /// The recording does not tell.
    #[error("{0}")]
    Unknown(String),
    /// It would have taken too long.
    #[error("this takes longer than {seconds} seconds; ask for less")]
    TooLong {
        /// The limit.
        seconds: u64,
    },
    /// Who asked does not want to know any more.
    #[error("called off")]
    Cancelled,
    /// The recording cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl State {
    /// The latest process under an id, and the heap that it acts on.
    pub(super) fn process(&self, pid: u32) -> Result<(&Process, &Heap), QueryError> {
        let heaps = self.builder.heaps();
        let process = heaps.find(pid).ok_or(QueryError::NoProcess { pid, at_ns: self.at_ns })?;
        Ok((process, heaps.heap(process)))
    }
}

/// Answers a query.
///
/// # Errors
/// See [`QueryError`]; the message says what is wrong in words for the one who asked.
pub fn answer(kind: &str, parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    match kind {
        "report" => report::report(parameters, context),
        "blame" => report::blame(parameters, context),
        "series" => series::series(parameters, context),
        "at" => place::at(parameters, context),
        "holes" => place::holes(parameters, context),
        "history" => history::history(parameters, context),
        "blocks" => blocks::blocks(parameters, context),
        "events" => events::events(parameters, context),
        "range" => range::range(parameters, context),
        "compare" => range::compare(parameters, context),
        "distributions" => distributions::distributions(parameters, context),
        "flame" => flame::flame(parameters, context),
        _ => Err(QueryError::Kind { kind: kind.chars().take(40).collect() }),
    }
}
