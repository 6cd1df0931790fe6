//! Going over a recording.

use super::chunk::{HEADER, kind};
use super::columns::Unpacker;
use super::decode::Decoder;
use super::notes::{self, End, Note, Outline, Placed};
use super::reader::{Damage, Reader};
use crate::capture::Counters;
use crate::glibc::Layout;
use crate::target::{Mapping, MemorySample, ProcessInfo, Residency};
use memfrag_common::Event;
use std::collections::VecDeque;
use std::ops::Range;

/// A part of a recording.
#[derive(Debug)]
pub enum Item<'a> {
    /// The next events, in the order in which they were recorded.
    Events(&'a [Event]),
    /// A process appeared, or became another program.
    Process(ProcessInfo),
    /// The mappings of a process.
    Mappings {
        /// Nanoseconds since the trace began.
        time: u64,
        /// Process id.
        pid: u32,
        /// All of them.
        mappings: Vec<Mapping>,
    },
    /// A reading of a process's memory.
    Memory(MemorySample),
    /// Which pages of a process were resident.
    Residency(Residency),
    /// A process's glibc heap as it lay in memory.
    Layout {
        /// Nanoseconds since the trace began.
        time: u64,
        /// Process id.
        pid: u32,
        /// The heap.
        layout: Layout,
    },
    /// What the backend had counted since the trace began.
    Counters {
        /// Nanoseconds since the trace began.
        time: u64,
        /// The process; `None` for the whole backend.
        pid: Option<u32>,
        /// The counters.
        counters: Counters,
    },
    /// Events that were recorded here, and that damage to the file took.
    Missing {
        /// How many.
        events: u64,
    },
    /// How the recording ended.
    End(End),
}

/// The parts of a recording one after another; see [`Reader::items`].
pub struct Items<'a> {
    reader: &'a Reader,
    times: Option<Range<u64>>,
    /// The next chunk.
    position: usize,
    /// The number of the event that must come next for none to be missing.
    expected: u64,
    /// Events of the current chunk, the number of the first, and how many have been given out.
    events: Vec<Event>,
    first: u64,
    given: usize,
    notes: VecDeque<Placed>,
    /// A heap of which not all chunks have come.
    outline: Option<Outline>,
    missing: u64,
    damage: Damage,
    chunks_read: u64,
    /// `None` when the system had no memory for it.
    tools: Option<(Decoder, Unpacker)>,
    bytes: Vec<u8>,
    unpacked: Vec<u8>,
}

impl std::fmt::Debug for Items<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items").field("position", &self.position).field("damage", &self.damage).finish_non_exhaustive()
    }
}

impl<'a> Items<'a> {
    pub(super) fn new(reader: &'a Reader, times: Option<Range<u64>>) -> Self {
        Self {
            reader,
            times,
            position: 0,
            expected: 0,
            events: Vec::new(),
            first: 0,
            given: 0,
            notes: VecDeque::new(),
            outline: None,
            missing: 0,
            damage: reader.damage(),
            chunks_read: 0,
            tools: Decoder::new().ok().zip(Unpacker::new().ok()),
            bytes: Vec::new(),
            unpacked: Vec::new(),
        }
    }

    /// The damage found so far, that found on opening included.
    pub const fn damage(&self) -> Damage {
        self.damage
    }

    /// Chunks read so far.
    pub(super) const fn chunks_read(&self) -> u64 {
        self.chunks_read
    }

    /// The next part; `None` at the end. The events borrow from `self`: their room is used again.
    pub fn next_item(&mut self) -> Option<Item<'_>> {
        loop {
            let at = self.first + self.given as u64;
            let chunk_done = self.given == self.events.len();
            let all_read = self.position == self.reader.entries().len() && chunk_done;
            let due = self.notes.front().is_some_and(|note| note.before_event <= at || all_read);
            if due {
                let Some(placed) = self.notes.pop_front() else { continue };
                if let Some(item) = self.wanted(placed.note) {
                    return Some(item);
                }
                continue;
            }
            if self.missing > 0 {
                return Some(Item::Missing { events: std::mem::take(&mut self.missing) });
            }
            if !chunk_done {
                let limit = self.notes.front().map_or(self.events.len(), |note| {
                    (note.before_event - self.first).min(self.events.len() as u64) as usize
                });
                let range = self.run(limit);
                self.given = range.end;
                if range.is_empty() {
                    continue;
                }
                return Some(Item::Events(&self.events[range]));
            }
            if all_read {
                return None;
            }
            self.load();
        }
    }

    /// The next events up to `limit` that lie in the wanted times; before it, what does not has been passed over.
    fn run(&self, limit: usize) -> Range<usize> {
        let Some(times) = &self.times else { return self.given..limit };
        let wanted = |event: &Event| times.contains(&event.time);
        let rest = &self.events[self.given..limit];
        let Some(start) = rest.iter().position(wanted) else { return limit..limit };
        let length = rest[start..].iter().position(|event| !wanted(event)).unwrap_or(rest.len() - start);
        self.given + start..self.given + start + length
    }

    fn wanted(&mut self, note: Note) -> Option<Item<'static>> {
        if let Some(times) = &self.times {
            let context = matches!(note, Note::Process(_) | Note::Mappings { .. });
            if !(times.contains(&note.time()) || context && note.time() < times.end) {
                return None;
            }
        }
        Some(match note {
            Note::Process(process) => Item::Process(process),
            Note::Mappings { time, pid, mappings } => Item::Mappings { time, pid, mappings },
            Note::Memory(sample) => Item::Memory(sample),
            Note::Counters { time, pid, counters } => Item::Counters { time, pid, counters },
            Note::End(end) => Item::End(end),
            Note::Residency(residency) => Item::Residency(residency),
            Note::Outline(outline) => {
                self.outline = Some(outline);
                return self.layout();
            }
            Note::Chunks { time, pid, chunks } => {
                // Those of a heap whose outline was damaged have nowhere to go.
                let outline = self.outline.as_mut().filter(|outline| (outline.time, outline.pid) == (time, pid))?;
                outline.add(&chunks);
                return self.layout();
            }
        })
    }

    /// The outlined heap, if all of its chunks have come.
    fn layout(&mut self) -> Option<Item<'static>> {
        let outline = self.outline.as_mut()?;
        let layout = outline.complete()?;
        let (time, pid) = (outline.time, outline.pid);
        self.outline = None;
        Some(Item::Layout { time, pid, layout })
    }

    /// Reads the next chunk.
    fn load(&mut self) {
        let position = self.position;
        self.position += 1;
        let header = self.reader.entries()[position].header;
        match header.kind {
            kind::EVENTS => {
                let skip = self
                    .times
                    .as_ref()
                    .is_some_and(|times| header.last_time < times.start || header.first_time >= times.end);
                let missing = header.first_event.saturating_sub(self.expected);
                self.missing = self.missing.saturating_add(missing);
                self.damage.events = self.damage.events.saturating_add(missing);
                self.expected = header.first_event.saturating_add(u64::from(header.items));
                self.events.clear();
                self.given = 0;
                self.first = header.first_event;
                if skip {
                    self.first = self.expected;
                } else if self.decode_events(position).is_none() {
                    let missing = u64::from(header.items);
                    self.damaged(header.length());
                    self.missing = self.missing.saturating_add(missing);
                    self.damage.events = self.damage.events.saturating_add(missing);
                    self.first = self.expected;
                }
            }
            kind::NOTES if self.decode_notes(position).is_none() => self.damaged(header.length()),
            _ => {}
        }
    }

    fn damaged(&mut self, bytes: u64) {
        self.damage.chunks += 1;
        self.damage.bytes += bytes;
    }

    fn decode_events(&mut self, position: usize) -> Option<()> {
        let header = self.reader.chunk(position, &mut self.bytes)?;
        let payload = &self.bytes[HEADER + header.meta_length as usize..];
        self.tools.as_mut()?.0.decode(&header, payload, &mut self.events)?;
        self.chunks_read += 1;
        Some(())
    }

    fn decode_notes(&mut self, position: usize) -> Option<()> {
        let header = self.reader.chunk(position, &mut self.bytes)?;
        let payload = &self.bytes[HEADER + header.meta_length as usize..];
        self.tools.as_mut()?.1.unpack_bytes(payload, header.unpacked_length as usize, &mut self.unpacked)?;
        self.notes.extend(notes::decode(&self.unpacked)?);
        self.chunks_read += 1;
        Some(())
    }
}
