//! A place in a recording, which may grow meanwhile.

use super::chunk::{HEADER, kind};
use super::columns::Unpacker;
use super::decode::Decoder;
use super::items::Item;
use super::notes::{self, End, Note, Outline, Placed};
use super::reader::{Damage, Reader};
use super::stacks;
use memfrag_common::Event;
use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};

/// How far a cursor may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// It stops before the first thing that is later than this, in nanoseconds since the trace began.
    pub time: u64,
    /// It stops before the event of this number, counted from 0.
    pub event: u64,
    /// It stops before this chunk, counted from 0.
    pub chunk: usize,
    /// Most events in an item.
    pub at_once: usize,
}

impl Default for Limit {
    /// As far as the recording goes.
    fn default() -> Self {
        Self { time: u64::MAX, event: u64::MAX, chunk: usize::MAX, at_once: usize::MAX }
    }
}

/// What a cursor gives.
#[derive(Debug)]
pub enum Next<'a> {
    /// The next part. Its events borrow from the cursor.
    Item(Item<'a>),
    /// There is more, and it lies beyond the limit.
    Beyond,
    /// Everything was given that the recording has so far.
    End,
}

/// A place between two chunks of a recording, from which a cursor can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    position: usize,
    event: u64,
    latest: u64,
    damage: Damage,
    chunks_read: u64,
}

impl Mark {
    #[cfg(test)]
    pub(crate) fn new(event: u64, latest: u64) -> Self {
        Self { position: 0, event, latest, damage: Damage::default(), chunks_read: 0 }
    }

    /// A place that a checkpoint names.
    pub(super) const fn found(position: usize, event: u64, latest: u64, damage: Damage) -> Self {
        Self { position, event, latest, damage, chunks_read: 0 }
    }

    /// The number of the event that comes next.
    pub const fn event(&self) -> u64 {
        self.event
    }

    /// The number of the chunk that comes next.
    pub const fn chunk(&self) -> usize {
        self.position
    }

    /// The latest time before the place, in nanoseconds since the trace began.
    pub const fn latest(&self) -> u64 {
        self.latest
    }
}

/// A place in a recording. It does not borrow the [`Reader`], which may [find more](Reader::refresh) while the cursor
/// stands; it must be given the same one, or a copy, each time.
pub struct Cursor {
    /// What is of other times is passed over.
    times: Option<RangeInclusive<u64>>,
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
    /// The latest time of what was given, and of the beginnings of the chunks.
    latest: u64,
    /// `None` when the system had no memory for it.
    tools: Option<(Decoder, Unpacker)>,
    bytes: Vec<u8>,
    unpacked: Vec<u8>,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cursor")
            .field("position", &self.position)
            .field("event", &self.event())
            .field("damage", &self.damage)
            .finish_non_exhaustive()
    }
}

/// The copy stands at the same place.
impl Clone for Cursor {
    fn clone(&self) -> Self {
        let times = self.times.clone();
        let (events, notes, outline) = (self.events.clone(), self.notes.clone(), self.outline.clone());
        // What the tools and buffers hold does not outlast a chunk.
        let (tools, bytes, unpacked) = (Self::tools(), Vec::new(), Vec::new());
        Self { times, events, notes, outline, tools, bytes, unpacked, ..*self }
    }
}

impl Cursor {
    /// At the beginning of a recording.
    pub fn new(reader: &Reader) -> Self {
        let damage = reader.damage();
        Self::at(&Mark { position: 0, event: 0, latest: 0, damage, chunks_read: 0 })
    }

    /// At a place where a cursor has been before.
    pub fn at(mark: &Mark) -> Self {
        Self {
            times: None,
            position: mark.position,
            expected: mark.event,
            events: Vec::new(),
            first: mark.event,
            given: 0,
            notes: VecDeque::new(),
            outline: None,
            missing: 0,
            damage: mark.damage,
            chunks_read: mark.chunks_read,
            latest: mark.latest,
            tools: Self::tools(),
            bytes: Vec::new(),
            unpacked: Vec::new(),
        }
    }

    fn tools() -> Option<(Decoder, Unpacker)> {
        Decoder::new().ok().zip(Unpacker::new().ok())
    }

    /// The place, when it lies between two chunks and nothing of those before is still to come.
    pub fn mark(&self) -> Option<Mark> {
        let between = self.given == self.events.len() && self.notes.is_empty() && self.outline.is_none();
        (between && self.missing == 0 && self.first + self.given as u64 == self.expected).then_some(Mark {
            position: self.position,
            event: self.expected,
            latest: self.latest,
            damage: self.damage,
            chunks_read: self.chunks_read,
        })
    }

    /// From now on passes over what is of other times. Processes and mappings learnt earlier are given all the same,
    /// because events mean little without them.
    pub fn keep_to(&mut self, times: RangeInclusive<u64>) {
        self.times = Some(times);
    }

    /// The end that a chunk of notes tells of.
    pub(super) fn end_in(reader: &Reader, chunk: usize) -> Option<End> {
        let mut cursor = Self::new(reader);
        cursor.decode_notes(reader, chunk)?;
        cursor.notes.into_iter().find_map(|placed| if let Note::End(end) = placed.note { Some(end) } else { None })
    }

    /// Whether anything is still to come that is not later than `time`.
    pub fn has_until(&self, reader: &Reader, time: u64) -> bool {
        reader.end_of(time) > self.position
            || self.events[self.given..].iter().any(|event| event.time <= time)
            || self.notes.iter().any(|placed| placed.note.time() <= time)
    }

    /// The number of the event that comes next: how many the recording was given before.
    pub const fn event(&self) -> u64 {
        self.first + self.given as u64
    }

    /// The number of the chunk that is read next.
    pub const fn chunk(&self) -> usize {
        self.position
    }

    /// The latest time of what was given, in nanoseconds since the trace began.
    pub const fn latest(&self) -> u64 {
        self.latest
    }

    /// The damage found so far, that found on opening included.
    pub const fn damage(&self) -> Damage {
        self.damage
    }

    /// Chunks read so far.
    pub(super) const fn chunks_read(&self) -> u64 {
        self.chunks_read
    }

    /// The next part.
    pub fn next(&mut self, reader: &Reader, limit: &Limit) -> Next<'_> {
        let chunks = reader.entries().len();
        let end = chunks.min(limit.chunk);
        loop {
            let at = self.event();
            let chunk_done = self.given == self.events.len();
            let read = self.position >= end && chunk_done;
            // What is to come may have its place before a note that was read already.
            let all_read = read && (end < chunks || reader.is_settled());
            let due = self.notes.front().is_some_and(|note| note.before_event <= at || all_read);
            if due {
                if self.notes.front().is_some_and(|note| note.note.time() > limit.time) {
                    return Next::Beyond;
                }
                let Some(placed) = self.notes.pop_front() else { continue };
                let time = placed.note.time();
                if let Some(item) = self.wanted(placed.note) {
                    self.latest = self.latest.max(time);
                    return Next::Item(item);
                }
                continue;
            }
            if self.missing > 0 {
                return Next::Item(Item::Missing { events: std::mem::take(&mut self.missing) });
            }
            if at >= limit.event && !(chunk_done && self.notes_are_next(reader, end)) {
                return Next::Beyond;
            }
            if !chunk_done {
                let due = self.notes.front().map_or(u64::MAX, |note| note.before_event).min(limit.event);
                let range = self.run((due - self.first).min(self.events.len() as u64) as usize);
                let first = range.start;
                let range = first..range.end.min(first.saturating_add(limit.at_once));
                let early = self.events[range.clone()].iter().take_while(|event| event.time <= limit.time);
                let (count, latest) = early.fold((0, 0), |(count, latest), event| (count + 1, event.time.max(latest)));
                if count == 0 && !range.is_empty() {
                    // Those before are of no interest.
                    self.given = first;
                    return Next::Beyond;
                }
                self.given = first + count;
                self.latest = self.latest.max(latest);
                if count == 0 {
                    continue;
                }
                return Next::Item(Item::Events(&self.events[first..first + count]));
            }
            if read {
                return if end < chunks { Next::Beyond } else { Next::End };
            }
            if reader.entries()[self.position].header.first_time > limit.time {
                return Next::Beyond;
            }
            self.load(reader);
        }
    }

    /// Whether the next chunk before `end` is one of notes: they may stand before the next event.
    fn notes_are_next(&self, reader: &Reader, end: usize) -> bool {
        self.position < end && reader.entries()[self.position].header.kind == kind::NOTES
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
            if !(times.contains(&note.time()) || context && note.time() <= *times.end()) {
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
    fn load(&mut self, reader: &Reader) {
        let position = self.position;
        self.position += 1;
        let header = reader.entries()[position].header;
        let outside = self.times.as_ref().is_some_and(|times| header.first_time > *times.end());
        if !outside {
            self.latest = self.latest.max(header.first_time);
        }
        match header.kind {
            kind::EVENTS => {
                let skip = outside || self.times.as_ref().is_some_and(|times| header.last_time < *times.start());
                let missing = header.first_event.saturating_sub(self.expected);
                self.missing = self.missing.saturating_add(missing);
                self.damage.events = self.damage.events.saturating_add(missing);
                self.expected = header.first_event.saturating_add(u64::from(header.items));
                self.events.clear();
                self.given = 0;
                self.first = header.first_event;
                if skip {
                    self.first = self.expected;
                } else if self.decode_events(reader, position).is_none() {
                    let missing = u64::from(header.items);
                    self.damaged(header.length());
                    self.missing = self.missing.saturating_add(missing);
                    self.damage.events = self.damage.events.saturating_add(missing);
                    self.first = self.expected;
                }
            }
            // Whoever wants stacks looks for them; here it only matters whether they are whole.
            kind::STACKS if !outside && self.check_stacks(reader, position).is_none() => self.damaged(header.length()),
            kind::NOTES if !outside && self.decode_notes(reader, position).is_none() => self.damaged(header.length()),
            _ => {}
        }
    }

    fn damaged(&mut self, bytes: u64) {
        self.damage.chunks += 1;
        self.damage.bytes += bytes;
    }

    fn decode_events(&mut self, reader: &Reader, position: usize) -> Option<()> {
        let header = reader.chunk(position, &mut self.bytes)?;
        let payload = &self.bytes[HEADER + header.meta_length as usize..];
        self.tools.as_mut()?.0.decode(&header, payload, &mut self.events)?;
        self.chunks_read += 1;
        Some(())
    }

    fn check_stacks(&mut self, reader: &Reader, position: usize) -> Option<()> {
        let (bytes, unpacked) = (&mut self.bytes, &mut self.unpacked);
        stacks::chunk(reader, position, &mut self.tools.as_mut()?.1, bytes, unpacked, &mut Vec::new())?;
        self.chunks_read += 1;
        Some(())
    }

    fn decode_notes(&mut self, reader: &Reader, position: usize) -> Option<()> {
        let header = reader.chunk(position, &mut self.bytes)?;
        let payload = &self.bytes[HEADER + header.meta_length as usize..];
        self.tools.as_mut()?.1.unpack_bytes(payload, header.unpacked_length as usize, &mut self.unpacked)?;
        self.notes.extend(notes::decode(&self.unpacked)?);
        self.chunks_read += 1;
        Some(())
    }
}
