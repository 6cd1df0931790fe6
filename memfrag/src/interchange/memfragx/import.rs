//! From MemFragX's log to events.

use super::COLUMNS;
use crate::capture::Sink;
use crate::target::ProcessInfo;
use memfrag_common::{Event, Function, Op};
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read as _};

/// Longer lines are no rows.
const LONGEST: usize = 4096;
/// Events that are handed on at once.
const BATCH: usize = 4096;

/// Why a file could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It could not be read.
    #[error("cannot read the log: {0}")]
    Io(#[from] io::Error),
    /// It begins otherwise than such a log.
    #[error(
        "this is no MemFragX log: it begins with {found:?}, and not with the columns ts_ns,event,ptr,size,tid or a row of them"
    )]
    NoLog {
        /// Its first line, or the beginning of it.
        found: String,
    },
    /// There is a head, and no row below it.
    #[error("the log has no row that can be read ({bad} lines cannot)")]
    NoRows {
        /// Lines that are no rows.
        bad: u64,
    },
}

/// What came of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Rows that were read.
    pub rows: u64,
    /// Events made of them.
    pub events: u64,
    /// Threads that they name.
    pub threads: u64,
    /// Nanoseconds from the first row to the last.
    pub duration_ns: u64,
    /// Lines that are no rows, left out.
    pub bad: u64,
    /// The first of them: its number, counted from 1, and what is wrong with it.
    pub first_bad: Option<(u64, &'static str)>,
    /// Allocations at an address that was still in use: its free stands later in the log, and was taken as made before.
    pub late_frees: u64,
    /// Rows that free nothing.
    pub null_frees: u64,
    /// Reallocations that moved: the log does not say which block they freed, which so seems to live on.
    pub moved: u64,
    /// Rows before whose time the clock had been set back; they are taken as made at the time of the row before.
    pub set_back: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Alloc(Function),
    Realloc,
    Free,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    time: u64,
    kind: Kind,
    block: u64,
    size: u64,
    thread: u32,
}

/// Where the columns are in a line, and what is between them.
#[derive(Clone, Copy, Debug)]
struct Columns {
    between: u8,
    /// Of [`COLUMNS`], in that order.
    place: [usize; 5],
}

impl Columns {
    /// Those of a head; `None` when it is none.
    fn of(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let between = Self::between(line);
        let names: Vec<String> = text.split(char::from(between)).map(|name| name.trim().to_ascii_lowercase()).collect();
        let also =
            [["timestamp", "ts"], ["op", "type"], ["address", "addr"], ["bytes", "length"], ["thread", "thread_id"]];
        let mut place = [0; 5];
        for ((place, column), also) in place.iter_mut().zip(COLUMNS).zip(also) {
            *place = names.iter().position(|name| name == column || also.contains(&name.as_str()))?;
        }
        Some(Self { between, place })
    }

    /// The usual ones, for a log without a head.
    fn usual(line: &[u8]) -> Self {
        Self { between: Self::between(line), place: [0, 1, 2, 3, 4] }
    }

    /// Which of the usual separators a line has most of.
    fn between(line: &[u8]) -> u8 {
        let count = |separator: &u8| line.split(|byte| byte == separator).count();
        // Of equals the first one.
        b",;\t".iter().rev().max_by_key(|separator| count(separator)).copied().unwrap_or(b',')
    }

    fn row(&self, line: &[u8]) -> Result<Row, &'static str> {
        let text = std::str::from_utf8(line).map_err(|_| "it is no text")?;
        let fields: Vec<&str> = text.split(char::from(self.between)).map(str::trim).collect();
        let [time, kind, block, size, thread] = self.place.map(|place| fields.get(place).copied());
        let kind = match kind.unwrap_or_default().to_ascii_uppercase().as_str() {
            "ALLOC" | "MALLOC" => Kind::Alloc(Function::Malloc),
            "CALLOC" => Kind::Alloc(Function::Calloc),
            "POSIX_MEMALIGN" => Kind::Alloc(Function::PosixMemalign),
            "REALLOC" => Kind::Realloc,
            "FREE" => Kind::Free,
            _ => return Err("it names no event that is known"),
        };
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        let size = match (number(size), kind) {
            (Some(size), _) => size,
            (None, Kind::Free) => 0,
            (None, _) => return Err("its size is no number"),
        };
        Ok(Row {
            time: number(time).ok_or("its time is no number")?,
            kind,
            block: block.and_then(address).ok_or("its address is no number")?,
            size,
            thread: thread.and_then(|text| text.parse().ok()).ok_or("its thread is no number")?,
        })
    }
}

/// An address as `%p` prints it, or in decimal digits.
fn address(text: &str) -> Option<u64> {
    match text {
        "" | "(nil)" | "nil" => Some(0),
        _ => text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok()),
    }
}

/// The lines of a file, none of which takes more memory than a row may.
#[derive(Debug)]
struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its end, cut where it is too long for a row; `None` behind the last one.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        if self.input.by_ref().take(LONGEST as u64).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.last() != Some(&b'\n') && self.line.len() == LONGEST {
            self.pass_over()?;
        }
        Ok(Some(self.line.trim_ascii_end()))
    }

    /// Goes on to the next line.
    fn pass_over(&mut self) -> io::Result<()> {
        loop {
            let (used, ends) = match self.input.fill_buf()? {
                [] => return Ok(()),
                bytes => bytes.iter().position(|&byte| byte == b'\n').map_or((bytes.len(), false), |at| (at + 1, true)),
            };
            self.input.consume(used);
            if ends {
                return Ok(());
            }
        }
    }
}

/// A log that is being imported.
#[derive(Debug)]
pub struct Import<R> {
    lines: Lines<R>,
    columns: Columns,
    /// The first row, which tells when it all began.
    first: Row,
    done: Imported,
    /// Blocks in use.
    live: HashSet<u64>,
    /// Frees that were taken as made before they stand in the log.
    owed: HashMap<u64, u64>,
    /// The time of the last row.
    now: u64,
    events: Vec<Event>,
}

impl<R: BufRead> Import<R> {
    /// Reads the head, if there is one, and the first row.
    ///
    /// # Errors
    /// When it is no such log.
    pub fn new(input: R) -> Result<Self, ImportError> {
        let mut lines = Lines { input, line: Vec::new(), number: 0 };
        let head = lines.next()?.unwrap_or_default();
        let mut done = Imported::default();
        let (columns, mut first) = if let Some(columns) = Columns::of(head) {
            (columns, None)
        } else {
            let columns = Columns::usual(head);
            let found = || String::from_utf8_lossy(&head[..head.len().min(60)]).into_owned();
            (columns, Some(columns.row(head).map_err(|_| ImportError::NoLog { found: found() })?))
        };
        while first.is_none() {
            let line = lines.next()?.ok_or(ImportError::NoRows { bad: done.bad })?;
            match columns.row(line) {
                Ok(row) => first = Some(row),
                Err(wrong) => done.spoilt(lines.number, wrong),
            }
        }
        let Some(first) = first else { return Err(ImportError::NoRows { bad: done.bad }) };
        let (live, owed, events) = (HashSet::new(), HashMap::new(), Vec::with_capacity(BATCH));
        Ok(Self { lines, columns, first, done, live, owed, now: 0, events })
    }

    /// When the log begins: nanoseconds since 1970.
    pub fn started_unix_ns(&self) -> u64 {
        self.first.time
    }

    /// Hands the events on, as those of one process: logs do not tell of several. Its id is that of the first row's
    /// thread, its name is `comm`.
    ///
    /// # Errors
    /// When the file cannot be read any further.
    pub fn run(mut self, comm: &str, sink: &mut dyn Sink) -> Result<Imported, ImportError> {
        sink.process(&ProcessInfo { pid: self.first.thread, comm: comm.to_owned(), ..ProcessInfo::default() });
        let mut threads = HashSet::new();
        let mut row = Some(self.first);
        loop {
            if let Some(row) = row {
                threads.insert(row.thread);
                self.take(&row);
            }
            if self.events.len() + 3 > BATCH {
                self.hand_on(sink);
            }
            let Some(line) = self.lines.next()? else { break };
            if line.is_empty() {
                row = None;
                continue;
            }
            row = match self.columns.row(line) {
                Ok(row) => Some(row),
                Err(wrong) => {
                    self.done.spoilt(self.lines.number, wrong);
                    None
                }
            };
        }
        self.hand_on(sink);
        self.done.threads = threads.len() as u64;
        self.done.duration_ns = self.now;
        Ok(self.done)
    }

    fn hand_on(&mut self, sink: &mut dyn Sink) {
        self.done.events += self.events.len() as u64;
        sink.events(&self.events);
        self.events.clear();
    }

    fn take(&mut self, row: &Row) {
        self.done.rows += 1;
        let time = row.time.saturating_sub(self.first.time);
        self.done.set_back += u64::from(time < self.now || row.time < self.first.time);
        self.now = self.now.max(time);
        let &Row { block, size, thread, .. } = row;
        match row.kind {
            Kind::Alloc(function) => {
                self.make_room(block, thread);
                self.push(thread, Op::Alloc { function, align_log2: 0, addr: block, size, site: 0, stack: 0 });
            }
            Kind::Realloc => {
                let function = Function::Realloc;
                // Where it did not move, it is the block that is there.
                let old = if block != 0 && self.live.contains(&block) { block } else { 0 };
                self.done.moved += u64::from(block != 0 && old == 0);
                self.push(thread, Op::ReallocBegin { function, old, size, site: 0 });
                self.push(thread, Op::ReallocEnd { function, addr: block, size, site: 0, stack: 0 });
                if block != 0 {
                    self.live.insert(block);
                }
            }
            Kind::Free if block == 0 => self.done.null_frees += 1,
            Kind::Free => match self.owed.get_mut(&block) {
                Some(1) => drop(self.owed.remove(&block)),
                Some(owed) => *owed -= 1,
                None => self.free(block, thread),
            },
        }
    }

    /// A block is handed out: whatever was there has been freed, even if the log says so only later.
    fn make_room(&mut self, block: u64, thread: u32) {
        if block == 0 {
            return;
        }
        if self.live.contains(&block) {
            self.done.late_frees += 1;
            *self.owed.entry(block).or_default() += 1;
            self.free(block, thread);
        }
        self.live.insert(block);
    }

    fn free(&mut self, block: u64, thread: u32) {
        self.live.remove(&block);
        self.push(thread, Op::Free { function: Function::Free, addr: block, size: 0, site: 0 });
    }

    fn push(&mut self, tid: u32, op: Op) {
        self.events.push(Event { time: self.now, pid: self.first.thread, tid, op });
    }
}

impl Imported {
    fn spoilt(&mut self, line: u64, wrong: &'static str) {
        self.bad += 1;
        self.first_bad.get_or_insert((line, wrong));
    }
}
