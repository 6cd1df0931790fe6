//! The images of all processes: the program that each runs and the code that it has mapped, as of the place in the ring of
//! events that was read last.
//!
//! They follow what the processes told ([`super::sideband`]). That is on other ways than the events, so it waits here until
//! an event comes by that is later: a process tells before it goes on, so whoever has an event has all that was told
//! before it. Processes that began earlier are looked at in `/proc`, as all are where the kernel tells nothing, and where
//! some of it was lost.

mod image;
mod paths;
mod waiting;

use super::monotonic;
use super::sideband::{Sideband, What};
use crate::target::maps::MapLine;
use crate::target::{Mapping, ProcessInfo, process};
use image::{Image, Program};
use paths::Paths;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use waiting::Waiting;

/// Bytes of a page: what is mapped begins and ends with one.
const PAGE: u64 = 4096;

/// For so long, in nanoseconds, it is kept what processes told whose beginning was not read in the ring of events.
const PATIENCE: u64 = 1_000_000_000;

/// The images of all processes.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// `None` where the kernel tells nothing.
    sideband: Option<Sideband>,
    waiting: Waiting,
    known: HashMap<u32, Known>,
    /// The time of the newest event that was read, by `CLOCK_MONOTONIC` in nanoseconds.
    time: u64,
    /// Those whose mappings are others than were said.
    changed: BTreeSet<u32>,
    paths: Paths,
    /// When it was last looked who is not known.
    swept: u64,
}

/// A process that events have told of.
#[derive(Clone, Debug, Default)]
struct Known {
    image: Image,
    /// Who it is, as it was said last.
    info: Option<Rc<ProcessInfo>>,
    /// The number of its code when it was looked at, where the kernel tells nothing.
    space: u64,
}

impl Images {
    pub(super) fn new(sideband: Option<Sideband>) -> Self {
        Self { sideband, ..Self::default() }
    }

    /// An event of this moment was read.
    pub(super) fn come_to(&mut self, time: u64) {
        self.time = self.time.max(time);
    }

    /// What was told and could not be kept: some mappings may not be known.
    pub(super) fn lost(&self) -> u64 {
        self.sideband.as_ref().map_or(0, |sideband| sideband.lost) + self.waiting.lost
    }

    /// Takes everything that was told until now.
    fn listen(&mut self) {
        let (own, waiting) = (std::process::id(), &mut self.waiting);
        if let Some(sideband) = &mut self.sideband {
            sideband.drain(|told| {
                if told.pid != own {
                    waiting.put(told);
                }
            });
        }
    }

    /// Meets a process whose beginning was not seen: as it is now, if it is still what it was.
    pub(super) fn meet(&mut self, pid: u32) {
        if self.known.contains_key(&pid) {
            return;
        }
        let image = self.look(pid).unwrap_or_default();
        self.known.insert(pid, Known { image, ..Known::default() });
        self.changed.insert(pid);
        self.hear(pid, self.time);
    }

    /// Takes what a process told up to a moment, but not that it begins another program: the event of that is still to come.
    fn hear(&mut self, pid: u32, until: u64) {
        // Unless it is lost.
        let lost = self.time.saturating_sub(PATIENCE);
        let until = self.waiting.beginning(pid, lost).map_or(until, |begins| until.min(begins - 1));
        self.hear_all(pid, until);
    }

    /// Takes everything that a process told up to a moment, and tells whether it began a program.
    fn hear_all(&mut self, pid: u32, until: u64) -> bool {
        let Some(known) = self.known.get_mut(&pid) else { return false };
        let mut has_begun = false;
        while let Some(mut told) = self.waiting.next(pid, until) {
            // What it had told before it was looked at was seen then.
            if told.time <= known.image.since {
                continue;
            }
            match &mut told.what {
                What::Exec { .. } => has_begun = true,
                What::Code(line) => self.paths.put_right(pid, line),
            }
            if known.image.take(told) {
                self.changed.insert(pid);
            }
        }
        has_begun
    }

    /// A process made another one, which begins as it is.
    pub(super) fn forked(&mut self, parent: u32, child: u32) {
        self.meet(parent);
        self.hear(parent, self.time);
        self.waiting.forget(child, self.time);
        let Some(known) = self.known.get(&parent) else { return };
        let mut known = Known { space: 0, ..known.clone() };
        // The parent may have been looked at when the child had told something already.
        known.image.since = known.image.since.min(self.time);
        let info = known.info.as_deref().cloned().unwrap_or_default();
        known.info = Some(Rc::new(ProcessInfo { pid: child, ppid: parent, start_ticks: 0, ..info }));
        self.known.insert(child, known);
        self.changed.insert(child);
    }

    /// A process has become another program, of this name if it is known.
    pub(super) fn replaced(&mut self, pid: u32, called: Option<String>) {
        self.listen();
        let known = self.known.entry(pid).or_default();
        // Of who it was, its parent stays.
        let parent = known.info.as_ref().map_or(0, |info| info.ppid);
        known.info = Some(Rc::new(ProcessInfo { pid, ppid: parent, ..ProcessInfo::default() }));
        self.changed.insert(pid);
        if !self.hear_all(pid, self.time)
            && let Some(known) = self.known.get_mut(&pid)
        {
            let program = called.map(|comm| Rc::new(Program { comm, ..Program::default() }));
            known.image = Image { program, ..Image::default() };
            self.look_again(pid);
        }
        self.mend(pid);
    }

    /// A process has mapped code.
    pub(super) fn mapped(&mut self, pid: u32) {
        if self.sideband.is_none() {
            self.look_again(pid);
            return;
        }
        self.listen();
        self.hear(pid, self.time);
        self.mend(pid);
    }

    /// A process has mapped something else than code there, or nothing any more.
    pub(super) fn unmapped(&mut self, pid: u32, start: u64, bytes: u64) {
        // The kernel refuses what is not of whole pages.
        let end = start.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(PAGE));
        let Some(end) = end.filter(|_| start.is_multiple_of(PAGE)) else { return };
        self.hear(pid, self.time);
        if let Some(known) = self.known.get_mut(&pid)
            && self.time > known.image.since
            && known.image.cut(start, end)
        {
            self.changed.insert(pid);
        }
    }

    /// A process is about to end: the last that can be said of it.
    pub(super) fn ending(&mut self, pid: u32) {
        self.listen();
        self.hear(pid, self.time);
    }

    /// A process has ended.
    pub(super) fn ended(&mut self, pid: u32) {
        self.known.remove(&pid);
        self.changed.remove(&pid);
        self.waiting.forget(pid, self.time);
    }

    /// Everything in the ring up to a moment was read: whoever told something before and is not known by now is not traced.
    pub(super) fn sweep(&mut self, time: u64) {
        self.listen();
        if time > self.swept + PATIENCE / 4 {
            self.swept = time;
            self.waiting.sweep(time.saturating_sub(PATIENCE), |pid| self.known.contains_key(&pid));
        }
    }

    /// Takes what the known processes have told by now, and names those whose mappings are others than were said.
    pub(super) fn catch_up(&mut self) -> Vec<u32> {
        for pid in self.waiting.processes() {
            self.hear(pid, self.time);
        }
        self.changed.iter().copied().collect()
    }

    /// The mappings of a process, if they are others than were said of it.
    pub(super) fn untold(&mut self, pid: u32) -> Option<Vec<Mapping>> {
        if !self.changed.remove(&pid) {
            return None;
        }
        Some(self.known.get(&pid)?.image.code.iter().map(MapLine::mapping).collect())
    }

    /// The code at an address of a process, with its code as it is under this number.
    pub(super) fn code(&mut self, pid: u32, space: u64, address: u64) -> Option<MapLine> {
        self.meet(pid);
        if self.sideband.is_some() {
            let found = self.known.get(&pid)?.image.at(address);
            if found.is_some() {
                return found.cloned();
            }
            // Whatever makes code of what was mapped as none is told here, but by no event.
            self.listen();
            self.hear(pid, u64::MAX);
        } else if self.known.get(&pid)?.space != space {
            self.look_again(pid);
            self.known.get_mut(&pid)?.space = space;
        }
        self.known.get(&pid)?.image.at(address).cloned()
    }

    /// Who a process is at `time`, which is in nanoseconds since the trace began. `None` when it has gone and has told nothing.
    pub(super) fn process(&mut self, pid: u32, time: u64) -> Option<ProcessInfo> {
        let seen = ProcessInfo::read(pid, time).ok();
        let Some(known) = self.known.get_mut(&pid) else { return seen };
        let info = match (seen, &known.image.program) {
            (Some(seen), None) => {
                known.image.program = Program::of(&seen).map(Rc::new);
                seen
            }
            // Where nothing will be told, what it has become since may be all that there is ever to be known.
            (Some(seen), Some(program)) if self.sideband.is_none() || program.is_that_of(&seen) => seen,
            // It has gone, or become another program since.
            (_, Some(program)) => {
                let said = known.info.as_deref().cloned().unwrap_or_default();
                ProcessInfo { time, pid, comm: program.comm.clone(), exe: program.file.clone(), ..said }
            }
            (None, None) => return None,
        };
        known.info = Some(Rc::new(info.clone()));
        Some(info)
    }

    /// Looks at a process itself where some of what it told may be lost.
    fn mend(&mut self, pid: u32) {
        let lost_at = self.sideband.as_ref().map_or(0, |sideband| sideband.lost_at).max(self.waiting.lost_at);
        if lost_at > 0 && self.known.get(&pid).is_some_and(|known| known.image.since <= lost_at) {
            self.look_again(pid);
        }
    }

    /// A process that has gone, or become another program, keeps what is known of it.
    fn look_again(&mut self, pid: u32) {
        let (Some(image), Some(known)) = (self.look(pid), self.known.get_mut(&pid)) else { return };
        if image.code != known.image.code {
            self.changed.insert(pid);
        }
        known.image = Image { program: known.image.program.take(), ..image };
    }

    /// What a process is now; `None` when it has gone, or has told of a program that no event
    /// has told of yet.
    fn look(&mut self, pid: u32) -> Option<Image> {
        let now = monotonic();
        let lines = process::map(pid).ok().filter(|lines| !lines.is_empty())?;
        self.listen();
        self.waiting.beginning(pid, 0).is_none().then(|| Image::of(lines, now))
    }
}

#[cfg(test)]
mod tests;
