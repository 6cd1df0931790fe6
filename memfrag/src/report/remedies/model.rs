//! Remedies for memory that nobody uses. Field names are those of the JSON document; they are added to, never renamed
//! within a version. Sizes are bytes.

use crate::report::ledger::Ledger;
use crate::report::model::Process;
use crate::report::policies::Outcome;
use serde::Serialize;

/// What would become of a process's resident memory.
#[derive(Clone, Debug, Serialize)]
pub struct Remedies {
    /// Always `memfrag-remedies`.
    pub format: &'static str,
    /// Version of the field names.
    pub version: u32,
    /// The recording.
    pub file: String,
    /// Process id.
    pub pid: u32,
    /// Its short name.
    pub comm: String,
    /// Its allocator; null where it is not known.
    pub allocator: Option<String>,
    /// What its environment told allocators, as `NAME=VALUE`: replays have it as well.
    pub settings: Vec<String>,
    /// When its pages were looked at, in nanoseconds since the trace began.
    pub at_ns: u64,
    /// Resident bytes then.
    pub resident_bytes: u64,
    /// What of them blocks in use had asked for.
    pub requested_bytes: u64,
    /// How the replay that measurements are compared with grew, over how the program did; null where nothing was
    /// measured.
    pub replay_agreement: Option<f64>,
    /// The remedies, `nothing` first.
    pub remedies: Vec<Remedy>,
    /// What these numbers do not tell.
    pub limits: Vec<&'static str>,
}

/// One remedy.
#[derive(Clone, Debug, Serialize)]
pub struct Remedy {
    /// Its name.
    pub name: String,
    /// `none`, `trim`, `restart`, `compaction`, `tunable` or `allocator`.
    pub kind: &'static str,
    /// How it is applied.
    pub how: String,
    /// What would be resident, as foretold from the heap's layout or a model; null where nothing foretells it.
    pub predicted_bytes: Option<u64>,
    /// What would be resident, as a replay of the calls came to.
    pub measured_bytes: Option<u64>,
    /// Why nothing was measured, where that was tried.
    pub reason: Option<String>,
}

/// What a replay came to: growth of anonymous memory at the moment of the comparison, or why there is none.
pub type Tried = Result<u64, String>;

impl Remedy {
    fn new(name: &str, kind: &'static str, how: &str, predicted_bytes: Option<u64>) -> Self {
        Self { name: name.to_owned(), kind, how: how.to_owned(), predicted_bytes, measured_bytes: None, reason: None }
    }

    /// Enters what a replay came to, against that of the calls as they were, in a process of so many resident bytes.
    pub fn enter(&mut self, resident: u64, as_it_was: u64, tried: Tried) {
        match tried {
            Ok(grown) => self.measured_bytes = Some(resident.saturating_add(grown).saturating_sub(as_it_was)),
            Err(reason) => self.reason = Some(reason),
        }
    }

    /// Another allocator, of which nothing foretells what it would take.
    pub fn allocator(name: &str, library: Option<&str>) -> Self {
        let how = library.map_or_else(|| "link with it".to_owned(), |library| format!("LD_PRELOAD={library}"));
        Self::new(name, "allocator", &how, None)
    }
}

/// The remedies that a ledger foretells: nothing, trimming, a restart, compaction.
pub fn foretold(ledger: &Ledger) -> Vec<Remedy> {
    let known = ledger.source != "unknown";
    let trimmed = ledger.rss.saturating_sub(ledger.free_pages);
    // What blocks in use take with their headers and padding, and what is not malloc's.
    let packed = trimmed.saturating_sub(ledger.free_in_pages + ledger.cached);
    let when_known = |bytes: u64| known.then_some(bytes);
    vec![
        Remedy::new("nothing", "none", "as it is", Some(ledger.rss)),
        Remedy::new("malloc_trim", "trim", "memfrag trim --pid PID --apply", when_known(trimmed)),
        Remedy::new("restart", "restart", "start it anew and build up what is live", when_known(packed)),
        Remedy::new("compaction", "compaction", "an allocator that moves blocks", when_known(packed)),
    ]
}

impl Remedies {
    /// Those of a process in the state that a report describes; `None` when its pages were not looked at.
    pub fn new(file: String, process: &Process) -> Option<Self> {
        let ledger = process.end.ledger.as_ref()?;
        let mut limits = vec![
            "a restart is that of a program which allocates again what is live now and nothing else, in the order of its \
             age",
            "compaction packs blocks in use without a gap; C programs cannot move blocks, so it is what nobody can go \
             below",
        ];
        if ledger.source == "blocks" {
            limits.push("the layout is made from the live blocks: freed blocks in caches count as free");
        }
        if ledger.source == "unknown" {
            limits.push("how this allocator lays out its memory is not known, so nothing is foretold from it");
        }
        if process.older_unknown {
            limits.push("it ran before the trace: blocks from then are not known, and what they hold counts as free");
        }
        Some(Self {
            format: "memfrag-remedies",
            version: 1,
            file,
            pid: process.pid,
            comm: process.comm.clone(),
            allocator: process.allocator.as_ref().map(|allocator| allocator.name.clone()),
            settings: process.settings.clone(),
            at_ns: ledger.at_ns,
            resident_bytes: ledger.rss,
            requested_bytes: ledger.requested,
            replay_agreement: None,
            remedies: foretold(ledger),
            limits,
        })
    }

    /// Enters the tunables that a model foretells: the difference of their footprint from that of glibc as it is set by
    /// default, where both hold memory that was never written to.
    pub fn foretell_tunables(&mut self, default: &Outcome, tuned: &[Outcome]) {
        for outcome in tuned {
            let Some(environment) = outcome.environment else { continue };
            let footprint = self.resident_bytes.saturating_add(outcome.final_footprint_bytes);
            let predicted = footprint.saturating_sub(default.final_footprint_bytes);
            self.remedies.push(Remedy::new(&outcome.policy, "tunable", environment, Some(predicted)));
        }
        self.limits.push(
            "a tunable's prediction is the difference of modelled footprints: pages that were trimmed or never written \
             to count in both",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_the_difference_from_the_replay_as_it_was() {
        let mut remedy = Remedy::allocator("jemalloc", Some("/lib/libjemalloc.so.2"));
        remedy.enter(100, 60, Ok(70));
        assert_eq!((remedy.measured_bytes, remedy.how.as_str()), (Some(110), "LD_PRELOAD=/lib/libjemalloc.so.2"));
        remedy.enter(100, 60, Ok(0));
        assert_eq!(remedy.measured_bytes, Some(40));
        let mut failed = Remedy::allocator("musl", None);
        failed.enter(100, 60, Err("it is not installed".to_owned()));
        assert_eq!((failed.measured_bytes, failed.reason.as_deref()), (None, Some("it is not installed")));
    }
}
