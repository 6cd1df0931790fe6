//! What models add to a report: how often glibc's was right, and large heaps beside other policies.

use super::model::{apply, arena_max};
use super::report::nanoseconds;
use anyhow::Result;
use memfrag::glibc::Version;
use memfrag::model::{Choice, Factory, Lifetimes, ModelHeap, Setting};
use memfrag::report::model::Process;
use memfrag::report::policies::{Comparison, MOST_FORETOLD, Outcome, Real};
use memfrag::report::text::DETAILED;
use memfrag::report::{Report, ReportBuilder};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

/// glibc, held to the observed addresses: what says how far it is foretold.
const OBSERVING: &str = "ptmalloc";
/// What stands beside a heap: glibc's simplest setting for a program with threads, an address-ordered fit, size classes,
/// and what nobody can go below.
const BESIDE: [&str; 4] = ["arena-max-1", "first-fit", "slabs", "compact"];
/// Heaps that never held so many bytes are not compared.
const LITTLE: u64 = 1 << 20;
/// With more processes none is compared: a policy is copied at each fork.
const MOST_PROCESSES: usize = 64;

/// The policies of a process.
type Wanted = (Setting, Vec<&'static Choice>);

/// Enters how far glibc's model foretold what glibc did, and what policies would have made of the largest heaps. Reads the
/// recording once more for that, if it is not too long.
pub(super) fn enter(report: &mut Report, builder: &ReportBuilder, file: &Path, at: Option<Duration>) -> Result<()> {
    let wanted = wanted(report, builder);
    if wanted.is_empty() || report.events.total > MOST_FORETOLD {
        return Ok(());
    }
    let made = wanted.clone();
    let factory: Factory = Box::new(move |pid, _| {
        let of = made.get(&pid);
        of.map_or_else(Vec::new, |(setting, choices)| {
            choices.iter().filter_map(|choice| choice.make(setting)).collect()
        })
    });
    let models = apply(file, at.map(nanoseconds), factory)?;
    let now = at.map_or(report.recording.duration_ns, nanoseconds).min(report.recording.duration_ns);
    for (place, process) in report.processes.iter_mut().enumerate() {
        let Some(heap) = models.heap(process.pid).filter(|_| process.shares_heap_of.is_none()) else { continue };
        if let Some(allocator) = &mut process.allocator {
            let observing = heap.policies().iter().find(|policy| policy.name() == OBSERVING);
            let counts = observing.map(|policy| policy.counts()).filter(|counts| counts.placements > 0);
            let share = counts.and_then(|counts| Some(counts.exact? as f64 / counts.placements as f64));
            allocator.model_agreement = share.filter(|_| allocator.name == "glibc");
        }
        if is_compared(place, process) {
            process.comparison = comparison(process, builder, heap, now);
        }
    }
    Ok(())
}

/// Which policies the heaps are to be under: those that are compared, and those from which they were forked.
fn wanted(report: &Report, builder: &ReportBuilder) -> HashMap<u32, Wanted> {
    let heaps = builder.heaps();
    let mut wanted: HashMap<u32, Wanted> = HashMap::new();
    let observing = Choice::find(OBSERVING);
    for process in &report.processes {
        if let Some(setting) = setting(process) {
            wanted.insert(process.pid, (setting, observing.into_iter().collect()));
        }
    }
    let few = report.processes.len() <= MOST_PROCESSES;
    for (_, process) in
        report.processes.iter().enumerate().filter(|&(place, process)| few && is_compared(place, process))
    {
        let glibc = setting(process);
        let beside: Vec<&Choice> = beside(process).filter_map(Choice::find).collect();
        let mut next = heaps.index_of(process.pid);
        while let Some(at) = next {
            let known = wanted.entry(heaps.processes()[at].pid());
            let (_, choices) = known.or_insert_with(|| (glibc.clone().unwrap_or_else(unversioned), Vec::new()));
            let missing = beside.iter().filter(|choice| choices.iter().all(|known| known.name != choice.name));
            let missing: Vec<&Choice> = missing.copied().collect();
            choices.extend(missing);
            next = heaps.processes()[at].parent().filter(|&parent| parent < at);
        }
    }
    wanted
}

/// Whether a process's heap is worth a comparison, at its place among all, the largest peak first.
fn is_compared(place: usize, process: &Process) -> bool {
    place < DETAILED && process.shares_heap_of.is_none() && process.peak.requested_bytes >= LITTLE
}

/// What stands beside a process's heap.
fn beside(process: &Process) -> impl Iterator<Item = &'static str> {
    let has_arenas = setting(process).is_some() && process.threads > 1;
    BESIDE.into_iter().filter(move |&name| has_arenas || name != "arena-max-1")
}

/// What glibc's policies must know; `None` where the allocator is another one or of a version that is not known.
fn setting(process: &Process) -> Option<Setting> {
    let allocator = process.allocator.as_ref().filter(|allocator| allocator.name == "glibc")?;
    let version = Version::parse(allocator.version.as_deref()?).filter(|version| version.offsets().is_some())?;
    Some(Setting { version, environment: process.settings.clone(), ..unversioned() })
}

/// What suffices for policies that are not glibc's.
fn unversioned() -> Setting {
    let (environment, lifetimes) = (Vec::new(), Lifetimes::default());
    Setting { version: Version::NEWEST, arena_max: arena_max(), environment, lifetimes }
}

/// A heap beside those of its policies that are wanted, others being there for what was forked from it. `None` where its id
/// was given to a later process.
fn comparison(process: &Process, builder: &ReportBuilder, heap: &ModelHeap, now: u64) -> Option<Comparison> {
    let heaps = builder.heaps();
    let at = heaps.index_of(process.pid).filter(|&at| heaps.processes()[at].started() == process.started_ns)?;
    let is_wanted = |name: &str| name == OBSERVING || beside(process).any(|wanted| wanted == name);
    let policies = heap.policies().iter().filter(|policy| is_wanted(policy.name()));
    let policies: Vec<Outcome> = policies.map(|policy| Outcome::new(heap, policy.as_ref())).collect();
    let real = || Real::new(heaps.heap(&heaps.processes()[at]), builder.last_residency(at), now);
    (policies.len() > 1).then(|| Comparison { real: real(), policies })
}
