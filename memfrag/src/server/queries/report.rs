//! `report` and `blame`: the documents of the verbs of these names.

use super::parameters::{self, Nothing, json};
use super::{Context, QueryError, digest};
use crate::analysis::By;
use crate::report::blame::Document;
use crate::report::model::{Events, Process};
use crate::report::remedies::{Remedy, foretold};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Owners in an answer to `blame`; the others have the smallest releases.
const OWNERS: usize = 1000;

/// What a process holds at a moment.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    at_ns: u64,
    process: Process,
    events: Events,
    digest: String,
    /// What would be resident instead; empty where it is not known which pages are.
    remedies: Vec<Remedy>,
}

pub(super) fn report(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Nothing {} = parameters::take("report", parameters)?;
    json(&summary(context.state, context.pid, context.limit)?)
}

/// The report on a process of a state.
pub(super) fn summary(state: &super::State, pid: u32, limit: &super::Limit) -> Result<Summary, QueryError> {
    let (_, heap) = state.process(pid)?;
    let digest = digest::of(heap, limit)?;
    let process = state.builder.about(pid, state.at_ns, &state.reader.header().backend);
    let process = process.ok_or(QueryError::NoProcess { pid, at_ns: state.at_ns })?;
    limit.check()?;
    let events = state.builder.counted(state.reader.bytes());
    let remedies = process.end.ledger.as_ref().map_or_else(Vec::new, foretold);
    Ok(Summary { at_ns: state.at_ns, process, events, digest, remedies })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Owners {
    #[serde(default)]
    by: Kind,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Site,
    Thread,
    Size,
    Age,
    Module,
    Stack,
}

pub(super) fn blame(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Owners { by } = parameters::take("blame", parameters)?;
    let by = match by {
        Kind::Site => By::Site,
        Kind::Thread => By::Thread,
        Kind::Size => By::Size,
        Kind::Age => By::Age,
        Kind::Module => By::Module,
        Kind::Stack => By::Stack,
    };
    let (process, _) = context.state.process(context.pid)?;
    let comm = process.info().map(|info| info.comm.clone()).unwrap_or_default();
    let Some((pid, mut blame)) = context.state.builder.blame(Some(context.pid), by) else {
        let pid = context.pid;
        return Err(QueryError::Unknown(format!(
            "the recording does not tell which pages of process {pid} were resident until then, and blame is about these"
        )));
    };
    context.limit.check()?;
    blame.sites.truncate(OWNERS);
    let file = context.state.name.clone();
    json(&Document { format: "memfrag-blame", version: 1, file, pid, comm, blame })
}
