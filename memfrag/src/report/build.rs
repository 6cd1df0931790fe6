//! From events to a report.

use super::model::{
    Allocator, End, Events, Exit, Function, Mapped, Metrics, Peak, Process, Recording, Report, Timeline, Totals,
};
use super::moment::{Looks, Moment};
use super::names::Names;
use super::sites::{self, Seen, Sites};
use super::{allocator, blame, ledger};
use crate::analysis::{By, metrics};
use crate::capture::{Counters, Sink};
use crate::glibc::Layout;
use crate::heap::{Footprint, Heap, Heaps, Point};
use crate::recording::Item;
use crate::target::{Mapping, MemorySample, ProcessInfo, Residency};
use memfrag_common::loss::{COUNTERS, Counter};
use memfrag_common::{Event, Op};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

mod saved;

/// Call sites in a report.
const TOP_SITES: usize = 20;

/// Owners in a report's blame that release most, and beside them those that strand most.
const TOP_BLAME: usize = 20;
const TOP_STRANDED: usize = 5;

/// Most points of a timeline in a report.
const TIMELINE_POINTS: usize = 256;

/// Sets of mappings that are kept of one process, so that a site in an unloaded library can still be named.
const SNAPSHOTS: usize = 16;

/// What only the recording as a whole can tell.
#[derive(Clone, Debug, Default)]
pub struct RecordingMeta {
    /// The file; empty for a trace that was not recorded.
    pub file: String,
    /// Length of the trace in nanoseconds.
    pub duration_ns: u64,
    /// How the events were captured: `ebpf`, `preload`, or an import's format.
    pub backend: String,
    /// Whether the recording was brought to its end.
    pub complete: bool,
    /// Size of the recording.
    pub bytes_on_disk: u64,
}

/// Gathers a report from what it is pushed: a capture's output, or a recording read again.
#[derive(Debug, Default)]
pub struct ReportBuilder {
    heaps: Heaps,
    events: Events,
    until: Option<u64>,
    last_time: u64,
    /// By index of the process.
    mappings: HashMap<usize, Arc<Vec<Seen>>>,
    /// Live bytes when a process's memory was last read, by index of the process.
    live_at_reading: HashMap<usize, u64>,
    looks: Looks,
    names: Option<Arc<Names>>,
    counters: BTreeMap<Option<u32>, Counters>,
    missing: u64,
}

impl Sink for ReportBuilder {
    fn events(&mut self, events: &[Event]) {
        let until = self.until.unwrap_or(u64::MAX);
        for wanted in events.split(|event| event.time > until) {
            self.count(wanted);
            self.heaps.apply_all(wanted);
        }
    }

    fn process(&mut self, process: &ProcessInfo) {
        if self.is_wanted(process.time) {
            self.heaps.learn(process);
        }
    }

    fn mappings(&mut self, time: u64, pid: u32, mappings: &[Mapping]) {
        if !self.is_wanted(time) {
            return;
        }
        if self.heaps.index_of(pid).is_none() {
            self.heaps.learn(&ProcessInfo { time, pid, ..ProcessInfo::default() });
        }
        let Some(at) = self.heaps.index_of(pid) else { return };
        if let Some(allocator) = allocator::identify(mappings, self.is_walked(at)) {
            let footprint = if allocator.name == "glibc" { Footprint::Glibc } else { Footprint::Requested };
            self.heaps.set_footprint(at, footprint);
        }
        // Calls come from code alone; what else is mapped would be most of what is kept of a process that has ended.
        let code = mappings.iter().filter(|mapping| mapping.executable);
        let snapshots = self.mappings.entry(at).or_default();
        if snapshots.last().is_none_or(|last| last.files.iter().ne(code.clone())) {
            let snapshots = Arc::make_mut(snapshots);
            if snapshots.len() == SNAPSHOTS {
                // The first ones hold what was there from the beginning; the middle is most like its neighbours.
                snapshots.remove(SNAPSHOTS / 2);
            }
            let mut files: Vec<Mapping> = code.cloned().collect();
            files.shrink_to_fit();
            snapshots.push(Seen { time, files });
        }
    }

    fn memory(&mut self, sample: &MemorySample) {
        if !self.is_wanted(sample.time) {
            return;
        }
        self.heaps.sample(sample);
        if let Some(at) = self.heaps.index_of(sample.pid) {
            let process = &self.heaps.processes()[at];
            if process.ended().is_none() {
                self.live_at_reading.insert(at, self.heaps.heap(process).live().bytes);
            }
        }
    }

    fn residency(&mut self, residency: &Residency) {
        if self.is_wanted(residency.time)
            && let Some((at, execs)) = self.process_of(residency.pid)
            && self.heaps.remember(residency.pid)
        {
            self.looks.pages(at, execs, residency);
        }
    }

    fn layout(&mut self, time: u64, pid: u32, layout: &Layout) {
        if !self.is_wanted(time) {
            return;
        }
        self.heaps.reconcile(time, pid, layout);
        if let Some(at) = self.heaps.index_of(pid)
            && self.is_walked(at)
        {
            self.heaps.set_footprint(at, Footprint::Glibc);
        }
        if let Some((at, execs)) = self.process_of(pid)
            && let Some(heap) = self.heaps.snapshot(pid)
        {
            self.looks.walk(at, execs, time, layout, heap);
        }
    }
}

impl ReportBuilder {
    /// A report on the state at the end or, with `until`, on that at a moment (nanoseconds since the trace began).
    pub fn new(until: Option<u64>) -> Self {
        Self { until, ..Self::default() }
    }

    /// Leaves out, from now on, what is later than a moment. What was taken stays, so none of it should be.
    pub fn keep_until(&mut self, until: Option<u64>) {
        self.until = until;
    }

    /// Names call sites by these from now on, and knows their stacks. Without, a site is a place in a file.
    pub fn name_by(&mut self, names: Arc<Names>) {
        self.names = Some(names);
    }

    /// Keeps account of what happens on the pages of a process's heap: see [`Heaps::watch`].
    pub fn watch(&mut self, process: usize) {
        self.heaps.watch(process);
    }

    /// The last look at the resident pages of a process, by its index, since it became the program that it is.
    pub fn last_residency(&self, process: usize) -> Option<&Residency> {
        let execs = self.heaps.processes().get(process)?.execs();
        self.looks.residency(process, execs)
    }

    /// A copy of all that was gathered. The heaps are shared until either side goes on: see [`Heaps::share`].
    #[must_use]
    pub fn share(&mut self) -> Self {
        Self {
            heaps: self.heaps.share(),
            events: self.events,
            until: self.until,
            last_time: self.last_time,
            mappings: self.mappings.clone(),
            live_at_reading: self.live_at_reading.clone(),
            looks: self.looks.clone(),
            names: self.names.clone(),
            counters: self.counters.clone(),
            missing: self.missing,
        }
    }

    /// Ends what [`Self::watch`] began.
    pub fn unwatch(&mut self, process: usize) {
        self.heaps.unwatch(process);
    }

    /// What the backend has counted since the trace began, for one process or as a whole. A later count replaces an
    /// earlier one.
    pub fn counters(&mut self, pid: Option<u32>, counters: &Counters) {
        self.counters.insert(pid, *counters);
    }

    /// Events that were recorded and that damage to the file took.
    pub fn missing(&mut self, events: u64) {
        self.missing = self.missing.saturating_add(events);
    }

    /// Takes a part of a recording.
    pub fn take(&mut self, item: Item<'_>) {
        match item {
            Item::Events(events) => self.events(events),
            Item::Process(process) => self.process(&process),
            Item::Mappings { time, pid, mappings } => self.mappings(time, pid, &mappings),
            Item::Memory(sample) => self.memory(&sample),
            Item::Residency(residency) => self.residency(&residency),
            Item::Layout { time, pid, layout } => self.layout(time, pid, &layout),
            Item::Counters { pid, counters, .. } => self.counters(pid, &counters),
            Item::Missing { events } => self.missing(events),
            // A recording that its disk could not take ends early, and says so.
            Item::End(end) => self.missing(end.not_recorded),
        }
    }

    /// Events taken so far.
    pub fn event_count(&self) -> u64 {
        self.events.total
    }

    /// Events that could not be taken, as far as is known: lost in the capture, or by damage to the file.
    pub fn lost(&self) -> u64 {
        // Gaps in the stream and loss counters tell of the same events; neither may know of all.
        self.heaps.anomalies().lost_events.max(self.counted_lost()).saturating_add(self.missing)
    }

    /// Counts from now on how long blocks live; see [`Heap::lifetimes`].
    pub fn count_lifetimes(&mut self) {
        self.heaps.count_lifetimes();
    }

    /// How many events there were so far. `bytes_on_disk` is the size of the recording.
    pub fn counted(&self, bytes_on_disk: u64) -> Events {
        Events {
            lost: self.lost(),
            unmatched_free: self.heaps.anomalies().unmatched_frees,
            bytes_on_disk,
            ..self.events
        }
    }

    /// The heaps as they are now.
    pub fn heaps(&self) -> &Heaps {
        &self.heaps
    }

    /// Whose blocks keep free memory in a process, or in the one with most resident bytes. Also gives its id.
    /// `None` when that process, or none, was ever looked at.
    pub fn blame(&self, pid: Option<u32>, by: By) -> Option<(u32, blame::Blame)> {
        let processes = self.heaps.processes().iter().enumerate();
        let seen = processes.rev().filter(|(_, process)| pid.is_none_or(|pid| pid == process.pid()));
        let moments = seen.filter_map(|(at, process)| Some((at, process.pid(), self.moment(at)?)));
        let (at, pid, moment) = moments.max_by_key(|(_, _, moment)| moment.residency.resident_bytes())?;
        let heap = self.heaps.heap(&self.heaps.processes()[at]);
        Some((pid, blame::of(&moment, by, &blame::Places { heap, sites: self.sites_of(at) }, true)))
    }

    /// Where the call sites of a process lie, the latest under this id.
    pub fn sites(&self, pid: u32) -> Sites<'_> {
        self.heaps.index_of(pid).map_or_else(Sites::default, |at| self.sites_of(at))
    }

    /// The allocator of a process, by its index, if the files that it maps tell, and whether its heap was walked.
    pub fn allocator(&self, process: usize) -> Option<Allocator> {
        let walked = self.is_walked(process);
        self.snapshots(process).last().and_then(|seen| allocator::identify(&seen.files, walked))
    }

    /// The report's part on a process, the latest under this id, as it is at `now_ns`, captured by `backend`. `None` when
    /// there is none.
    pub fn about(&self, pid: u32, now_ns: u64, backend: &str) -> Option<Process> {
        let mut process = self.describe(self.heaps.index_of(pid)?, now_ns);
        process.older_unknown &= comes_late(backend);
        Some(process)
    }

    /// The report, when nothing more comes.
    pub fn finish(self, meta: RecordingMeta) -> Report {
        self.report(meta)
    }

    /// The report as it is now.
    pub fn report(&self, meta: RecordingMeta) -> Report {
        let duration_ns = meta.duration_ns.max(self.last_time);
        let now = self.until.map_or(duration_ns, |until| until.min(duration_ns));
        let mut processes: Vec<Process> = (0..self.heaps.processes().len()).map(|at| self.describe(at, now)).collect();
        processes.sort_by_key(|process| std::cmp::Reverse(process.peak.requested_bytes));
        for process in &mut processes {
            process.older_unknown &= comes_late(&meta.backend);
        }
        Report {
            format: "memfrag-report",
            version: 1,
            recording: Recording {
                file: meta.file,
                duration_ns,
                backend: meta.backend,
                complete: meta.complete,
                at_ns: self.until,
            },
            events: self.counted(meta.bytes_on_disk),
            counters: named(&self.all_counters()),
            processes,
        }
    }

    fn is_wanted(&self, time: u64) -> bool {
        self.until.is_none_or(|until| time <= until)
    }

    fn count(&mut self, events: &[Event]) {
        self.events.total += events.len() as u64;
        for event in events {
            match event.op {
                Op::Alloc { .. } => self.events.alloc += 1,
                Op::Free { .. } => self.events.free += 1,
                Op::ReallocEnd { .. } => self.events.realloc += 1,
                _ => {}
            }
            self.last_time = self.last_time.max(event.time);
        }
    }

    /// Whether a process's heap was walked, and is glibc's therefore.
    fn is_walked(&self, at: usize) -> bool {
        self.heaps.heap(&self.heaps.processes()[at]).walked_at().is_some()
    }

    /// The index of a process, and how often it became another program.
    fn process_of(&self, pid: u32) -> Option<(usize, u64)> {
        let at = self.heaps.index_of(pid)?;
        Some((at, self.heaps.processes()[at].execs()))
    }

    fn moment(&self, at: usize) -> Option<Moment<'_>> {
        let is_glibc = self.allocator(at).is_some_and(|allocator| allocator.name == "glibc");
        self.looks.moment(&self.heaps, at, is_glibc)
    }

    /// The counters of the whole: as the backend counts them, and at least what those of the processes add up to.
    fn all_counters(&self) -> Counters {
        let mut sum = [0_u64; COUNTERS];
        for (_, counters) in self.counters.iter().filter(|(pid, _)| pid.is_some()) {
            sum.iter_mut().zip(counters).for_each(|(sum, count)| *sum = sum.saturating_add(*count));
        }
        if let Some(whole) = self.counters.get(&None) {
            sum.iter_mut().zip(whole).for_each(|(sum, count)| *sum = (*sum).max(*count));
        }
        sum
    }

    fn counted_lost(&self) -> u64 {
        let counters = self.all_counters();
        Counter::ALL.iter().filter(|counter| counter.is_loss()).map(|&counter| counters[counter as usize]).sum()
    }

    fn describe(&self, at: usize, now: u64) -> Process {
        let process = &self.heaps.processes()[at];
        let heap = self.heaps.heap(process);
        let info = self.heaps.info(at);
        let parent = process.parent().map(|parent| self.heaps.processes()[parent].pid());
        let shares = self.heaps.shares_heap(process);
        let about = Process {
            pid: process.pid(),
            ppid: parent.or(process.info().map(|info| info.ppid)).unwrap_or(0),
            comm: info.map(|info| info.comm.clone()).unwrap_or_default(),
            exe: info.map(|info| info.exe.display().to_string()).unwrap_or_default(),
            cmdline: info.map(|info| info.cmdline.clone()).unwrap_or_default(),
            settings: info.map(|info| info.settings.clone()).unwrap_or_default(),
            started_ns: process.started(),
            exit: process.ended().map(|at| Exit::new(at, process.status())),
            execs: process.execs(),
            threads: process.threads().len().max(1) as u64,
            events: process.events(),
            shares_heap_of: parent.filter(|_| shares),
            counters: self.counters.get(&Some(process.pid())).map(named).unwrap_or_default(),
            ..Process::default()
        };
        if shares {
            return about;
        }
        let call_sites = self.sites_of(at);
        let (totals, peak, live, maps) = (heap.totals(), heap.peak(), heap.live(), heap.maps());
        let reading = process.memory();
        let moment = self.moment(at);
        let blame = moment.as_ref().map(|moment| {
            let mut blame = blame::of(moment, By::Site, &blame::Places { heap, sites: call_sites }, false);
            blame.shorten(TOP_BLAME, TOP_STRANDED);
            blame
        });
        let resident = moment.as_ref().map(Moment::pages);
        let look = moment.as_ref().zip(resident.as_ref()).map(|(moment, resident)| moment.look(resident));
        let measures = metrics::Metrics::of(heap, look);
        Process {
            totals: Totals {
                allocations: totals.allocations,
                frees: totals.frees,
                reallocations: totals.reallocations,
                requested_bytes: totals.requested_bytes,
                freed_bytes: totals.freed_bytes,
            },
            inherited: heap.inherited().into(),
            older: heap.older_amount().into(),
            walked_at_ns: heap.walked_at(),
            older_unknown: heap.walked_at().is_none() && self.ran_already(at),
            discarded_by_exec: heap.discarded().into(),
            peak: Peak { at_ns: peak.time, live_blocks: peak.live.blocks, requested_bytes: peak.live.bytes },
            end: End {
                live_blocks: live.blocks,
                requested_bytes: live.bytes,
                rss_bytes: reading.map(|reading| reading.rss),
                rss_anon_bytes: reading.map(|reading| reading.rss_anon),
                rss_at_ns: reading.map(|reading| reading.time),
                metrics: Metrics::new(&measures, self.overhead(at, reading)),
                ledger: moment.map(|moment| ledger::Ledger::new(moment.residency.time, &moment.ledger())),
            },
            allocator: self.allocator(at),
            functions: heap
                .functions()
                .iter()
                .map(|(function, totals)| Function {
                    name: function.name(),
                    calls: totals.calls,
                    failed: totals.failed,
                    bytes: totals.bytes,
                })
                .collect(),
            anomalies: heap.anomalies().iter().filter(|kind| kind.1 > 0).map(|kind| (kind.0, kind.1)).collect(),
            damaged_at_ns: heap.damaged_at(),
            top_sites: sites::top(heap, &call_sites, TOP_SITES),
            blame,
            mapped: Mapped {
                mapped_bytes: maps.mapped_bytes,
                unmapped_bytes: maps.unmapped_bytes,
                brk_growth_bytes: maps.brk_growth,
            },
            timeline: timeline(heap, process.ended().map_or(now, |_| 0)),
            ..about
        }
    }

    fn overhead(&self, at: usize, reading: Option<&MemorySample>) -> Option<f64> {
        let live = self.live_at_reading.get(&at).copied().filter(|&live| live > 0)?;
        reading.map(|reading| reading.rss as f64 / live as f64)
    }

    fn sites_of(&self, at: usize) -> Sites<'_> {
        Sites::new(self.snapshots(at), self.names.as_deref())
    }

    /// Whether a process, or the one that its program and blocks are from, ran before the trace began.
    fn ran_already(&self, mut at: usize) -> bool {
        loop {
            let process = &self.heaps.processes()[at];
            if process.execs() > 0 || self.heaps.heap(process).walked_at().is_some() {
                return false;
            }
            match process.parent() {
                // A parent always stands before its child, so this ends.
                Some(parent) if parent < at => at = parent,
                _ => return true,
            }
        }
    }

    /// The mappings of a process, or what it has of its parent's.
    fn snapshots(&self, mut at: usize) -> &[Seen] {
        loop {
            if let Some(snapshots) = self.mappings.get(&at) {
                return snapshots;
            }
            match self.heaps.processes()[at].parent() {
                // A parent always stands before its child, so this ends.
                Some(parent) if parent < at => at = parent,
                _ => return &[],
            }
        }
    }
}

fn named(counters: &Counters) -> BTreeMap<&'static str, u64> {
    Counter::ALL.iter().map(|&c| (c.name(), counters[c as usize])).filter(|(_, count)| *count > 0).collect()
}

fn timeline(heap: &Heap, now: u64) -> Timeline {
    let (start_ns, width, points) = heap.timeline_at(now);
    let group = points.len().div_ceil(TIMELINE_POINTS).max(1);
    let groups: Vec<&[Point]> = points.chunks(group).collect();
    let each = |value: &dyn Fn(&[Point]) -> u64| groups.iter().map(|group| value(group)).collect();
    let last = |value: fn(&Point) -> u64| move |group: &[Point]| group.last().map_or(0, value);
    let sum = |value: fn(&Point) -> u64| move |group: &[Point]| group.iter().map(value).sum();
    Timeline {
        start_ns,
        step_ns: width.saturating_mul(group as u64),
        live_bytes: each(&last(|point| point.live.bytes)),
        max_live_bytes: each(&|group| group.iter().map(|point| point.max_bytes).max().unwrap_or(0)),
        live_blocks: each(&last(|point| point.live.blocks)),
        allocations: each(&sum(|point| point.allocations)),
        frees: each(&sum(|point| point.frees)),
        rss_bytes: groups.iter().map(|group| group.iter().rev().find_map(|point| point.rss)).collect(),
    }
}

/// Whether a backend can come to programs that run already. The preload library is in its programs from their start.
fn comes_late(backend: &str) -> bool {
    backend == "ebpf"
}

#[cfg(test)]
mod tests;
