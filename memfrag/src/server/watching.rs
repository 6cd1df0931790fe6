//! What a client watches: a process of a recording, live with all others or by a player of its own.

use super::player::{Command, State as PlayerState};
use super::protocol::{Process, State, Status};
use super::sources::Sources;
use super::stage::{Stage, Stages};
use crate::heap::{self, Heaps};
use crate::report::ReportBuilder;
use crate::report::model::Exit;
use std::sync::Arc;

/// What a client watches.
#[derive(Debug)]
pub struct Watching {
    source: usize,
    /// 0 until it is known which process has most.
    pid: u32,
    stage: Arc<Stage>,
    /// Whether the stage is its own.
    private: bool,
}

impl Watching {
    /// The newest state of a recording; without a process (0) the one that holds most.
    ///
    /// # Errors
    /// When there is no such recording, or the system has no thread for it.
    pub fn new(sources: &Sources, source: usize, pid: u32) -> Result<Self, String> {
        let stage = live(sources, source)?;
        Ok(Self { source, pid, stage, private: false })
    }

    /// The recording's number.
    pub fn source(&self) -> usize {
        self.source
    }

    /// The process; 0 while it is not known which.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Watches another process, at the same moment.
    pub fn choose(&mut self, pid: u32) {
        self.pid = pid;
    }

    /// The player that is watched.
    pub fn stage(&self) -> &Arc<Stage> {
        &self.stage
    }

    /// Moves the cursor. Leaving the newest state takes a player of one's own.
    ///
    /// # Errors
    /// When there are too many of those, or the system has no thread for it.
    pub fn command(&mut self, sources: &Sources, stages: &Stages, command: Command) -> Result<(), String> {
        if matches!(command, Command::Live | Command::Stop) {
            if self.private {
                self.stage = live(sources, self.source)?;
                self.private = false;
            }
            return Ok(());
        }
        if !self.private {
            let private = stages.private(&self.stage).map_err(|error| format!("cannot leave the present: {error}"))?;
            self.stage = private.ok_or("too many pages travel in time already")?;
            self.private = true;
        }
        self.stage.command(command);
        Ok(())
    }

    /// The processes that have been seen until the cursor.
    pub fn processes(&mut self) -> Vec<Process> {
        let (processes, largest) = self.stage.with(|player| {
            let builder = player.builder();
            let count = builder.heaps().processes().len();
            (latest(builder.heaps(), count).map(|at| describe(builder, at)).collect::<Vec<_>>(), largest(builder))
        });
        if self.pid == 0 {
            self.pid = largest.unwrap_or(0);
        }
        processes
    }

    /// Where the cursor stands, and what is there.
    pub fn status(&self, clients: usize, (hz, hz_wanted): (f64, f64)) -> Status {
        self.stage.with(|player| {
            let at = player.status();
            let heaps = player.heaps();
            let process = heaps.find(self.pid);
            let heap = process.map(|process| heaps.heap(process));
            let live = heap.map(heap::Heap::live).unwrap_or_default();
            let older = heap.map(heap::Heap::older_amount).unwrap_or_default();
            Status {
                source: self.source,
                pid: self.pid,
                at_ns: at.at_ns,
                end_ns: at.end_ns,
                state: match at.state {
                    PlayerState::Live => State::Live,
                    PlayerState::Paused | PlayerState::Seeking => State::Paused,
                    PlayerState::Playing => State::Playing,
                    PlayerState::Ended => State::Ended,
                },
                speed: at.speed,
                behind: at.behind || at.state == PlayerState::Seeking,
                events: at.events,
                events_per_s: at.events_per_s,
                lost: at.lost,
                older_blocks: older.blocks,
                older_bytes: older.bytes,
                live_blocks: live.blocks,
                live_bytes: live.bytes,
                taken_bytes: heap.map_or(0, heap::Heap::taken_bytes),
                peak_bytes: heap.map_or(0, |heap| heap.peak().live.bytes),
                rss_bytes: process.and_then(|process| process.memory()).map(|memory| memory.rss),
                hz,
                hz_wanted,
                clients,
                progress: at.progress,
            }
        })
    }
}

/// The shared player of a recording, which goes along with what is added to it.
pub(super) fn live(sources: &Sources, source: usize) -> Result<Arc<Stage>, String> {
    let stage = sources.stage(source).ok_or_else(|| format!("there is no source {source}"))?;
    stage.map_err(|error| format!("cannot watch source {source}: {error}"))
}

/// The latest process of each id, in the order in which they were seen.
fn latest(heaps: &Heaps, count: usize) -> impl Iterator<Item = usize> {
    (0..count).filter(|&at| heaps.index_of(heaps.processes()[at].pid()) == Some(at))
}

/// The process with most live bytes.
fn largest(builder: &ReportBuilder) -> Option<u32> {
    let heaps = builder.heaps();
    let bytes = |process: &heap::Process| (heaps.heap(process).live().bytes, heaps.heap(process).peak().live.bytes);
    heaps.processes().iter().max_by_key(|process| bytes(process)).map(heap::Process::pid)
}

fn describe(builder: &ReportBuilder, at: usize) -> Process {
    let heaps = builder.heaps();
    let process = &heaps.processes()[at];
    // A forked process that was not looked at runs its parent's program.
    let parent = process.parent().map(|parent| &heaps.processes()[parent]);
    let info = process.info().or_else(|| parent.filter(|_| process.execs() == 0)?.info());
    let shares = heaps.shares_heap(process);
    let live = if shares { heap::Amount::default() } else { heaps.heap(process).live() };
    let exit = process.ended().map(|ended| Exit::new(ended, process.status()));
    Process {
        pid: process.pid(),
        ppid: parent.map(heap::Process::pid).or(process.info().map(|info| info.ppid)).unwrap_or(0),
        comm: info.map(|info| info.comm.clone()).unwrap_or_default(),
        exe: info.map(|info| info.exe.display().to_string()).unwrap_or_default(),
        cmdline: info.map(|info| info.cmdline.clone()).unwrap_or_default(),
        started_ns: process.started(),
        ended_ns: process.ended(),
        status: exit.map(|exit| match exit {
            Exit { signal: Some(signal), .. } => format!("ended by signal {signal}"),
            Exit { code: Some(code), .. } => format!("exited with {code}"),
            _ => "ended".to_owned(),
        }),
        allocator: builder.allocator(at),
        live_bytes: live.bytes,
        live_blocks: live.blocks,
        rss_bytes: process.memory().map(|memory| memory.rss),
    }
}
