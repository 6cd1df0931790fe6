//! What trimming a heap would return and did return. Field names are those of the JSON document; they are added to,
//! never renamed within a version. Sizes are bytes.

use crate::glibc::inject::Trimmed;
use crate::glibc::{TrimYield, Walk, Walker};
use crate::report::heap::model::{Allocator, Reading};
use crate::target::ProcessInfo;
use serde::Serialize;

/// What `malloc_trim(0)` would return, and did.
#[derive(Clone, Debug, Serialize)]
pub struct TrimReport {
    /// Always `memfrag-trim`.
    pub format: &'static str,
    /// Version of the field names.
    pub version: u32,
    /// Process id.
    pub pid: u32,
    /// The kernel's short name of the process.
    pub comm: String,
    /// The command line's words.
    pub cmdline: Vec<String>,
    /// The allocator.
    pub allocator: Allocator,
    /// How the heap was read, and how sure that is.
    pub walk: Reading,
    /// Resident bytes of the arenas.
    pub resident_bytes: u64,
    /// Bytes that `malloc_trim(0)` would return.
    pub predicted_bytes: u64,
    /// Bytes that are free and resident, and that it would not return.
    pub stuck_free_bytes: u64,
    /// Runs of free chunks between blocks in use.
    pub free_runs: u64,
    /// The arenas, the main one first.
    pub arenas: Vec<Arena>,
    /// By how much the resident anonymous memory shrank; with `--apply` only, as what follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured_bytes: Option<u64>,
    /// What the call did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
}

/// What would be returned of one arena.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Arena {
    /// Address of its state.
    pub address: u64,
    /// Whether it is the main arena, in the brk heap.
    pub is_main: bool,
    /// Its resident bytes.
    pub resident_bytes: u64,
    /// Bytes that would be returned.
    pub predicted_bytes: u64,
    /// Bytes that are free and resident, and would stay.
    pub stuck_free_bytes: u64,
    /// Runs of free chunks between blocks in use.
    pub free_runs: u64,
    /// Whether its top chunk stays because something else has moved the break.
    pub top_is_cut_off: bool,
}

/// A call of `malloc_trim(0)` in the process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Applied {
    /// What it returned: whether memory went back to the system.
    pub released: bool,
    /// The thread that called it.
    pub tid: u32,
    /// How long that thread stood still, in nanoseconds.
    pub stopped_ns: u64,
    /// Resident anonymous bytes of the process right before.
    pub anonymous_before_bytes: u64,
    /// Resident anonymous bytes right after.
    pub anonymous_after_bytes: u64,
}

impl TrimReport {
    /// Puts together what was predicted, and what was done if it was.
    pub fn new(
        process: &ProcessInfo,
        walker: &Walker,
        walk: &Walk,
        predicted: &TrimYield,
        trimmed: Option<&Trimmed>,
    ) -> Self {
        let arenas = predicted.arenas.iter().map(|arena| Arena {
            address: arena.address,
            is_main: arena.is_main,
            resident_bytes: arena.resident_bytes,
            predicted_bytes: arena.bytes,
            stuck_free_bytes: arena.stuck_bytes,
            free_runs: arena.free_runs,
            top_is_cut_off: arena.top_is_cut_off,
        });
        Self {
            format: "memfrag-trim",
            version: 1,
            pid: walk.pid,
            comm: process.comm.clone(),
            cmdline: process.cmdline.clone(),
            allocator: Allocator::new(walker, walk),
            walk: Reading::new(walk),
            resident_bytes: predicted.resident_bytes(),
            predicted_bytes: predicted.bytes(),
            stuck_free_bytes: predicted.stuck_bytes(),
            free_runs: predicted.free_runs(),
            arenas: arenas.collect(),
            measured_bytes: trimmed.map(Trimmed::bytes),
            applied: trimmed.map(|trimmed| Applied {
                released: trimmed.released,
                tid: trimmed.tid,
                stopped_ns: u64::try_from(trimmed.elapsed.as_nanos()).unwrap_or(u64::MAX),
                anonymous_before_bytes: trimmed.before,
                anonymous_after_bytes: trimmed.after,
            }),
        }
    }
}
