//! What is to be said about processes, and between which events of a batch: who a process is before the event that tells of
//! it, and what it has mapped behind the events that mapped it, but before it ends or becomes another program.

use super::images::Images;
use crate::capture::Sink;
use crate::target::{Mapping, ProcessInfo};
use memfrag_common::config::Scope;
use memfrag_common::{Event, Op};
use std::collections::{BTreeSet, HashMap, HashSet};

/// `PROT_EXEC`: mappings with it change what call sites mean.
const PROT_EXEC: u32 = 4;

#[derive(Debug)]
enum Notice {
    Process(ProcessInfo),
    Mappings { time: u64, pid: u32, mappings: Vec<Mapping> },
}

/// What is to be said with the batch that is being read.
#[derive(Debug)]
pub(super) struct Notices {
    scope: Scope,
    /// Each with how many events of the batch stand before it.
    placed: Vec<(usize, Notice)>,
    /// The time of the newest event, in nanoseconds since the trace began.
    time: u64,
    /// Processes that the sink knows.
    introduced: HashSet<u32>,
    /// One of them: that of the newest event. 0 when it has ended.
    latest: u32,
    /// Processes that may have code which is not probed yet.
    changed: BTreeSet<u32>,
    /// Wait statuses that a parent has told, for exits that the probes could not tell.
    statuses: HashMap<u32, i32>,
}

impl Notices {
    pub(super) fn new(scope: Scope) -> Self {
        Self {
            scope,
            placed: Vec::new(),
            time: 0,
            introduced: HashSet::new(),
            latest: 0,
            changed: BTreeSet::new(),
            statuses: HashMap::new(),
        }
    }

    /// Notes the wait status of a process.
    pub(super) fn exited(&mut self, pid: u32, status: i32) {
        self.statuses.insert(pid, status);
    }

    /// A process that runs already is traced.
    pub(super) fn introduce(&mut self, pid: u32, images: &mut Images) {
        self.introduced.insert(pid);
        images.meet(pid);
        self.process(0, pid, images);
    }

    /// An event was read, before which there are so many in the batch. That of a new program tells what it is `called`.
    pub(super) fn before(&mut self, event: &mut Event, called: Option<String>, place: usize, images: &mut Images) {
        let pid = event.pid;
        self.time = self.time.max(event.time);
        match &mut event.op {
            Op::Exec => {
                // What it has called until now is named by what it had mapped.
                self.mappings(place, pid, images);
                self.introduced.insert(pid);
                images.replaced(pid, called);
                self.process(place, pid, images);
                self.changed.insert(pid);
                return;
            }
            // A process of the whole machine shows by its first event; the others are introduced as they come.
            _ if pid != self.latest && self.introduced.insert(pid) => {
                images.meet(pid);
                self.process(place, pid, images);
                self.changed.insert(pid);
            }
            _ => {}
        }
        self.latest = pid;
        match &mut event.op {
            // Of a process that alone is traced, the children are not.
            &mut Op::Fork { child, .. } if self.scope != Scope::Link => {
                images.forked(pid, child);
                self.introduced.insert(child);
                self.process(place, child, images);
                self.changed.insert(child);
            }
            Op::Mmap { protection, fd, .. } if *protection & PROT_EXEC != 0 && *fd >= 0 => {
                images.mapped(pid);
                self.changed.insert(pid);
            }
            &mut (Op::Mmap { addr, size, .. } | Op::Munmap { addr, size }) => images.unmapped(pid, addr, size),
            Op::Exit { status } => {
                *status = self.statuses.remove(&pid).or(*status);
                images.ending(pid);
                self.mappings(place, pid, images);
                images.ended(pid);
                self.introduced.remove(&pid);
                self.latest = 0;
                self.changed.remove(&pid);
            }
            _ => {}
        }
    }

    /// The batch has so many events, and no more.
    pub(super) fn last(&mut self, place: usize, images: &mut Images) {
        for pid in images.catch_up() {
            self.mappings(place, pid, images);
        }
    }

    fn process(&mut self, place: usize, pid: u32, images: &mut Images) {
        if let Some(process) = images.process(pid, self.time) {
            self.placed.push((place, Notice::Process(process)));
        }
    }

    fn mappings(&mut self, place: usize, pid: u32, images: &mut Images) {
        if let Some(mappings) = images.untold(pid).filter(|mappings| !mappings.is_empty()) {
            self.placed.push((place, Notice::Mappings { time: self.time, pid, mappings }));
        }
    }

    /// Gives a batch to the sink, with all that is to be said.
    pub(super) fn hand_on(&mut self, batch: &[Event], sink: &mut dyn Sink) {
        let mut given = 0;
        for (place, notice) in self.placed.drain(..) {
            if let Some(events) = batch.get(given..place).filter(|events| !events.is_empty()) {
                sink.events(events);
                given = place;
            }
            match notice {
                Notice::Process(process) => sink.process(&process),
                Notice::Mappings { time, pid, mappings } => sink.mappings(time, pid, &mappings),
            }
        }
        if let Some(events) = batch.get(given..).filter(|events| !events.is_empty()) {
            sink.events(events);
        }
    }

    /// The processes that may have code which is not probed yet.
    pub(super) fn take_changed(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.changed)
    }
}
