//! From a recording to MemFragX's files.

use super::COLUMNS;
use crate::target::MemorySample;
use memfrag_common::{Event, Function, Op};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};

/// `summary.json`, with the fields that MemFragX's analysis gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The log's path.
    pub trace_file: String,
    /// Rows of the log.
    pub records: u64,
    /// Rows that allocate.
    pub allocs: u64,
    /// Rows that free.
    pub frees: u64,
    /// Threads that they name.
    pub threads: u64,
    /// Bytes requested by the rows that allocate.
    pub total_alloc_bytes: u64,
    /// The same less the bytes that were freed: what is live at the end.
    pub net_alloc_bytes: i64,
}

/// What was exported.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// The sums.
    pub summary: Summary,
    /// The last reading of the process's memory.
    pub memory: Option<MemorySample>,
    /// Frees of blocks whose size is not known: allocated before the trace, or by the parent. Their rows have none.
    pub of_unknown_size: u64,
}

/// The log of one process that is being written.
#[derive(Debug)]
pub struct Export<W> {
    out: W,
    pid: u32,
    started_unix_ns: u64,
    live: HashMap<u64, u64>,
    /// Old blocks of reallocations under way, with their sizes, by thread.
    begun: HashMap<u32, Vec<(u64, Option<u64>)>>,
    threads: BTreeSet<u32>,
    done: Exported,
}

impl<W: Write> Export<W> {
    /// Begins the log of a process with its head.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut out: W, pid: u32, started_unix_ns: u64) -> io::Result<Self> {
        writeln!(out, "{}", COLUMNS.join(","))?;
        Ok(Self {
            out,
            pid,
            started_unix_ns,
            live: HashMap::new(),
            begun: HashMap::new(),
            threads: BTreeSet::new(),
            done: Exported::default(),
        })
    }

    /// Takes a reading of a process's memory.
    pub fn memory(&mut self, sample: &MemorySample) {
        if sample.pid == self.pid {
            self.done.memory = Some(*sample);
        }
    }

    /// Writes the rows of the next events. Those of other processes are left out.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn events(&mut self, events: &[Event]) -> io::Result<()> {
        let pid = self.pid;
        events.iter().filter(|event| event.pid == pid).try_for_each(|event| self.event(event))
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        let &Event { time, tid, op, .. } = event;
        match op {
            // A call that failed gave nothing that could be freed.
            Op::Alloc { addr: 0, .. } | Op::Free { addr: 0, .. } => Ok(()),
            Op::Alloc { function, addr, size, .. } => {
                let name = if function == Function::Calloc { "CALLOC" } else { "ALLOC" };
                // Its free was not seen: what was there is gone.
                if let Some(gone) = self.live.remove(&addr) {
                    self.freed(time, tid, addr, Some(gone))?;
                }
                self.allocated(time, tid, name, addr, size)
            }
            Op::Free { addr, .. } => {
                let size = self.live.remove(&addr);
                self.freed(time, tid, addr, size)
            }
            Op::ReallocBegin { old, .. } => {
                let size = self.live.remove(&old);
                self.begun.entry(tid).or_default().push((old, size));
                Ok(())
            }
            Op::ReallocEnd { addr, size, .. } => {
                let begun = self.begun.get_mut(&tid).and_then(Vec::pop).filter(|begun| begun.0 != 0);
                match (begun, addr) {
                    // Failed: the old block lives on.
                    (Some((old, Some(known))), 0) if size > 0 => drop(self.live.insert(old, known)),
                    (None, 0) => {}
                    (Some((_, None)), 0) if size > 0 => {}
                    (begun, _) => {
                        // MemFragX has one row for both; who reads the log could not tell which block is gone.
                        if let Some((old, known)) = begun {
                            self.freed(time, tid, old, known)?;
                        }
                        if addr != 0 {
                            self.allocated(time, tid, "REALLOC", addr, size)?;
                        }
                    }
                }
                Ok(())
            }
            Op::Exec => {
                self.live.clear();
                self.begun.clear();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn allocated(&mut self, time: u64, tid: u32, name: &str, block: u64, size: u64) -> io::Result<()> {
        self.live.insert(block, size);
        self.done.summary.allocs += 1;
        let summary = &mut self.done.summary;
        summary.total_alloc_bytes = summary.total_alloc_bytes.wrapping_add(size);
        summary.net_alloc_bytes = summary.net_alloc_bytes.wrapping_add_unsigned(size);
        self.row(time, tid, name, block, Some(size))
    }

    fn freed(&mut self, time: u64, tid: u32, block: u64, size: Option<u64>) -> io::Result<()> {
        self.done.summary.frees += 1;
        self.done.of_unknown_size += u64::from(size.is_none());
        let net = &mut self.done.summary.net_alloc_bytes;
        *net = net.wrapping_sub_unsigned(size.unwrap_or(0));
        self.row(time, tid, "FREE", block, size)
    }

    fn row(&mut self, time: u64, tid: u32, name: &str, block: u64, size: Option<u64>) -> io::Result<()> {
        self.done.summary.records += 1;
        self.threads.insert(tid);
        let time = self.started_unix_ns.saturating_add(time);
        match size {
            Some(size) => writeln!(self.out, "{time},{name},{block:#x},{size},{tid}"),
            None => writeln!(self.out, "{time},{name},{block:#x},,{tid}"),
        }
    }

    /// Ends the log. `trace_file` is what the summary calls it.
    ///
    /// # Errors
    /// When the rest cannot be written.
    pub fn finish(mut self, trace_file: String) -> io::Result<Exported> {
        self.out.flush()?;
        self.done.summary.threads = self.threads.len() as u64;
        self.done.summary.trace_file = trace_file;
        Ok(self.done)
    }
}

/// A reading of a process's memory as a file of the format of `/proc/PID/smaps`, of one part that stands for all.
fn smaps(sample: &MemorySample) -> String {
    let kib = |bytes: u64| bytes / 1024;
    format!(
        "00000000-00000000 ---p 00000000 00:00 0                                  [rollup]\n\
         Size:           {:>8} kB\nRss:            {:>8} kB\nAnonymous:      {:>8} kB\nSwap:           {:>8} kB\n",
        kib(sample.virtual_bytes),
        kib(sample.rss),
        kib(sample.rss_anon),
        kib(sample.swap),
    )
}

impl Exported {
    /// The last reading of memory as `smaps` has it; `None` without one.
    pub fn smaps(&self) -> Option<String> {
        self.memory.as_ref().map(smaps)
    }
}
