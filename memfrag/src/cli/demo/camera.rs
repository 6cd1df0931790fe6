//! Records what happens in the arena, as a trace records a process.

use super::super::dashboard::Dashboard;
use super::stage::Role;
use anyhow::Result;
use memfrag::arena::{Arena, Event, Stamp};
use memfrag::capture::Sink as _;
use memfrag::recording::Writer;
use memfrag::target::residency::{Region, RegionKind};
use memfrag::target::{MemorySample, ProcessInfo, Residency, process};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at the arena's pages.
const LOOK: Duration = Duration::from_millis(100);
/// How long events may wait for the disk.
const PATIENCE: Duration = Duration::from_millis(100);

/// An event, and when it happened.
type Seen = (u64, Event);

/// Takes down the events of an arena.
#[derive(Debug)]
pub(super) struct Camera {
    writer: Writer,
    dashboard: Option<Dashboard>,
    seen: Arc<Mutex<Vec<Seen>>>,
    events: Vec<memfrag_common::Event>,
    begin: Instant,
    looked: Option<Instant>,
    range: Range<u64>,
    pid: u32,
}

/// What became of the recording.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) bytes: u64,
    pub(super) missing: u64,
    pub(super) stopped: Option<String>,
    pub(super) dashboard: Option<Dashboard>,
}

impl Camera {
    /// Begins with this process and the file that its call sites are in. Its other files are left out: none of them has
    /// a heap that the events are about.
    pub(super) fn new(arena: &Arena, mut writer: Writer, dashboard: Option<Dashboard>) -> Self {
        writer.set_patience(PATIENCE);
        let pid = std::process::id();
        if let Ok(own) = ProcessInfo::read(pid, 0) {
            let mappings: Vec<_> =
                process::files(pid).unwrap_or_default().into_iter().filter(|file| file.path == own.exe).collect();
            writer.process(&own);
            writer.mappings(0, pid, &mappings);
        }
        let begin = Instant::now();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let film = Arc::clone(&seen);
        arena.observe(Some(Box::new(move |event| lock(&film).push((nanoseconds(begin), *event)))));
        let range = arena.state().range;
        Self { writer, dashboard, seen, events: Vec::new(), begin, looked: None, range, pid }
    }

    /// Hands on what has happened, looks at the memory if that is due, and tells the time.
    pub(super) fn turn(&mut self) {
        for (time, event) in lock(&self.seen).drain(..) {
            let tag = match event {
                Event::Allocated(block) | Event::Freed(block) | Event::Resized { after: block, .. } => block.tag,
                Event::Refused(_) => "",
            };
            let stamp = Stamp { time, pid: self.pid, tid: self.pid, site: Role::of(tag).site() };
            self.events.extend(event.recorded(stamp));
        }
        self.writer.events(&self.events);
        self.events.clear();
        let now = nanoseconds(self.begin);
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.look(now);
        }
        self.writer.tick(now);
        if let Some(dashboard) = &mut self.dashboard {
            dashboard.check();
        }
    }

    /// Tells which pages of the arena are resident. The rest of this process is no part of the demonstration.
    fn look(&mut self, now: u64) {
        self.looked = Some(Instant::now());
        let Ok(residency) = Residency::read(self.pid, now) else { return };
        let inside = |run: &Range<u64>| {
            let both = run.start.max(self.range.start)..run.end.min(self.range.end);
            (!both.is_empty()).then_some(both)
        };
        let resident: Vec<_> =
            residency.regions.iter().flat_map(|region| &region.resident).filter_map(inside).collect();
        let resident_bytes = resident.iter().map(|run| run.end - run.start).sum();
        self.writer.memory(&MemorySample {
            time: now,
            pid: self.pid,
            rss: resident_bytes,
            rss_anon: resident_bytes,
            virtual_bytes: self.range.end - self.range.start,
            ..MemorySample::default()
        });
        let region = Region {
            range: self.range.clone(),
            kind: RegionKind::Anonymous,
            resident_bytes,
            swapped_bytes: 0,
            resident,
        };
        self.writer.residency(&Residency { regions: vec![region], ..residency });
    }

    /// Ends the recording.
    pub(super) fn finish(mut self) -> Result<Recorded> {
        self.turn();
        let now = nanoseconds(self.begin);
        self.look(now);
        let summary = self.writer.finish(now, None)?;
        Ok(Recorded {
            bytes: summary.bytes,
            missing: summary.not_recorded,
            stopped: summary.stopped,
            dashboard: self.dashboard,
        })
    }
}

fn lock(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanoseconds(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
