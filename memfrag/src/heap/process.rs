//! A traced process: who it is, its threads, and which heap it acts on.

use super::blocks::Block;
use super::hash::BuildWordHasher;
use super::thread::{PendingRealloc, Thread};
use super::totals::Amount;
use crate::recording::{Count, Input, Saved};
use crate::target::{MemorySample, ProcessInfo};
use hashbrown::HashMap;

/// A process of the trace. One id can name several, one after the other.
#[derive(Clone, Debug)]
pub struct Process {
    pid: u32,
    pub(super) parent: Option<usize>,
    pub(super) info: Option<ProcessInfo>,
    started: u64,
    pub(super) ended: Option<u64>,
    pub(super) status: Option<i32>,
    pub(super) forked: bool,
    pub(super) execs: u64,
    pub(super) events: u64,
    pub(super) heap: usize,
    pub(super) memory: Option<MemorySample>,
    threads: Vec<Thread>,
    index: HashMap<u32, u32, BuildWordHasher>,
    last: usize,
}

impl Process {
    pub(super) fn new(pid: u32, started: u64, heap: usize) -> Self {
        Self {
            pid,
            parent: None,
            info: None,
            started,
            ended: None,
            status: None,
            forked: false,
            execs: 0,
            events: 0,
            heap,
            memory: None,
            threads: Vec::new(),
            index: HashMap::default(),
            last: 0,
        }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Index of the process that forked it, where the fork was seen.
    pub fn parent(&self) -> Option<usize> {
        self.parent
    }

    /// Who it is, by the last that was learned.
    pub fn info(&self) -> Option<&ProcessInfo> {
        self.info.as_ref()
    }

    /// When it was forked or first seen, in nanoseconds since the trace began.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// When it ended, if it did.
    pub fn ended(&self) -> Option<u64> {
        self.ended
    }

    /// The wait status with which it ended, where that could be learned.
    pub fn status(&self) -> Option<i32> {
        self.status
    }

    /// How often it started another program.
    pub fn execs(&self) -> u64 {
        self.execs
    }

    /// Its events, of all kinds.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last reading of its memory.
    pub fn memory(&self) -> Option<&MemorySample> {
        self.memory.as_ref()
    }

    /// Its threads, in order of their first event.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// Old blocks of reallocations under way.
    pub fn blocks_under_way(&self) -> impl Iterator<Item = Block> + '_ {
        self.threads.iter().flat_map(|thread| &thread.pending).filter_map(|begun| begun.old)
    }

    /// How much these are.
    pub fn under_way(&self) -> Amount {
        let mut amount = Amount::default();
        self.blocks_under_way().for_each(|old| amount.add(old.size));
        amount
    }

    /// The thread `tid`, which is new if it was not seen before.
    #[inline]
    pub(super) fn thread(&mut self, tid: u32, time: u64) -> &mut Thread {
        if self.threads.get(self.last).is_none_or(|thread| thread.tid != tid) {
            self.last = match self.index.get(&tid) {
                Some(&at) => at as usize,
                None => self.add_thread(tid, time),
            };
        }
        &mut self.threads[self.last]
    }

    #[cold]
    fn add_thread(&mut self, tid: u32, time: u64) -> usize {
        let at = self.threads.len();
        self.threads.push(Thread::new(tid, time));
        self.index.insert(tid, at as u32);
        at
    }

    /// A thread begins, perhaps under the id of one that has ended. The first thread's id is the process's own and no
    /// other thread's: it begins again when the process becomes another program.
    pub(super) fn start_thread(&mut self, tid: u32, time: u64) {
        if tid == self.pid {
            self.thread(tid, time).ended = None;
        } else if self.thread(tid, time).ended.is_some() {
            let begun = self.add_thread(tid, time);
            self.last = begun;
            self.threads[begun].events = 1;
        }
    }

    /// Takes out the reallocations that threads have begun.
    pub(super) fn take_pending(&mut self) -> Vec<PendingRealloc> {
        self.threads.iter_mut().flat_map(|thread| std::mem::take(&mut thread.pending)).collect()
    }

    /// Ends all threads but one.
    pub(super) fn end_threads(&mut self, time: u64, but: Option<u32>) {
        for thread in self.threads.iter_mut().filter(|thread| Some(thread.tid) != but) {
            thread.ended.get_or_insert(time);
        }
    }

    /// Takes over what was learned, and keeps what the new knowledge leaves open.
    pub(super) fn learn(&mut self, info: &ProcessInfo) {
        let mut info = info.clone();
        if let Some(known) = self.info.take() {
            if info.ppid == 0 {
                info.ppid = known.ppid;
            }
            if info.start_ticks == 0 {
                info.start_ticks = known.start_ticks;
            }
            if info.exe.as_os_str().is_empty() && info.comm == known.comm {
                info.exe = known.exe;
            }
            if info.cmdline.is_empty() && info.comm == known.comm {
                info.cmdline = known.cmdline;
            }
        }
        self.info = Some(info);
    }
}

impl Saved for Process {
    fn save(&self, out: &mut Vec<u8>) {
        self.pid.save(out);
        self.parent.map(|parent| parent as u64).save(out);
        self.info.save(out);
        self.started.save(out);
        self.ended.save(out);
        self.status.save(out);
        self.forked.save(out);
        Count::save(&self.execs, out);
        Count::save(&self.events, out);
        (self.heap as u64).save(out);
        self.memory.save(out);
        self.threads.save(out);
    }

    fn load(input: &mut Input<'_>) -> Option<Self> {
        let mut process = Self::new(u32::load(input)?, 0, 0);
        process.parent = Option::<u64>::load(input)?.map(|parent| parent as usize);
        process.info = Saved::load(input)?;
        process.started = Saved::load(input)?;
        process.ended = Saved::load(input)?;
        process.status = Saved::load(input)?;
        process.forked = Saved::load(input)?;
        process.execs = Count::load(input)?;
        process.events = Count::load(input)?;
        process.heap = u64::load(input)? as usize;
        process.memory = Saved::load(input)?;
        process.threads = Saved::load(input)?;
        // Of threads under one id the last one runs.
        process.index = (0..).zip(&process.threads).map(|(at, thread)| (thread.tid, at)).collect();
        process.last = usize::MAX;
        Some(process)
    }
}
