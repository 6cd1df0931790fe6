//! Everything in a recording that is no event: processes, mappings, memory samples, resident pages, heaps as they lay
//! in memory, counters, the end.
//!
//! A note says before which event it was given, so that a reader hands out events and notes in the order in which
//! the writer got them.

mod chunks;
mod pages;

use super::varint::{Input, put, put_bytes};
use crate::capture::Counters;
use crate::glibc::{Chunk, Layout};
use crate::target::{Mapping, MemorySample, ProcessInfo, Residency};
pub(super) use chunks::Outline;
use memfrag_common::loss::{COUNTERS, Counter};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The numbers of the notes. A reader passes over those that it does not know.
mod tag {
    pub(super) const PROCESS: u8 = 1;
    pub(super) const MAPPINGS: u8 = 2;
    pub(super) const MEMORY: u8 = 3;
    pub(super) const COUNTERS: u8 = 4;
    pub(super) const END: u8 = 5;
    pub(super) const RESIDENCY: u8 = 6;
    pub(super) const OUTLINE: u8 = 7;
    pub(super) const CHUNKS: u8 = 8;
}

/// How a recording ended. One that was cut short has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// Wait status of the command that memfrag launched.
    pub status: Option<i32>,
    /// Events in the recording.
    pub events: u64,
    /// Events that came after the recording had to stop.
    pub not_recorded: u64,
    /// Why the recording had to stop before the trace did; empty when it did not.
    pub stopped: String,
}

/// A note, as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Process(ProcessInfo),
    Mappings {
        time: u64,
        pid: u32,
        mappings: Vec<Mapping>,
    },
    Memory(MemorySample),
    Counters {
        time: u64,
        pid: Option<u32>,
        counters: Counters,
    },
    End(End),
    Residency(Residency),
    /// A heap whose chunks follow in notes of their own.
    Outline(Outline),
    /// The next chunks of the heap that was outlined last.
    Chunks {
        time: u64,
        pid: u32,
        chunks: Vec<Chunk>,
    },
}

/// A note and the number of events that were given before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) before_event: u64,
    pub(super) note: Note,
}

impl Note {
    /// When the note was taken.
    pub(super) const fn time(&self) -> u64 {
        match self {
            Self::Process(process) => process.time,
            Self::Memory(sample) => sample.time,
            Self::Mappings { time, .. } | Self::Counters { time, .. } | Self::Chunks { time, .. } => *time,
            Self::End(end) => end.time,
            Self::Residency(residency) => residency.time,
            Self::Outline(outline) => outline.time,
        }
    }
}

/// Appends a note whose body `fill` writes.
fn put_note(out: &mut Vec<u8>, tag: u8, before_event: u64, time: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    put(&mut body, before_event);
    put(&mut body, time);
    fill(&mut body);
    out.push(tag);
    put_bytes(out, &body);
}

/// A number that may be unknown: 0, or one more than it is.
fn put_optional(out: &mut Vec<u8>, value: Option<u32>) {
    put(out, value.map_or(0, |value| u64::from(value) + 1));
}

/// What [`put_optional`] wrote; the outer `None` means damage.
#[allow(clippy::option_option, reason = "damage and absence are two things")]
fn optional(input: &mut Input<'_>) -> Option<Option<u32>> {
    match input.varint()?.checked_sub(1) {
        None => Some(None),
        Some(value) => Some(Some(u32::try_from(value).ok()?)),
    }
}

pub(super) fn put_process(out: &mut Vec<u8>, before_event: u64, process: &ProcessInfo) {
    put_note(out, tag::PROCESS, before_event, process.time, |out| {
        put(out, u64::from(process.pid));
        put(out, u64::from(process.ppid));
        put(out, process.start_ticks);
        put_bytes(out, process.comm.as_bytes());
        put_bytes(out, process.exe.as_os_str().as_bytes());
        put(out, process.cmdline.len() as u64);
        process.cmdline.iter().for_each(|word| put_bytes(out, word.as_bytes()));
        if !process.settings.is_empty() {
            put(out, process.settings.len() as u64);
            process.settings.iter().for_each(|word| put_bytes(out, word.as_bytes()));
        }
    });
}

/// Neighbours mostly belong to one file, so a mapping of the same file as the one before repeats neither its path
/// nor its inode.
pub(super) fn put_mappings(out: &mut Vec<u8>, before_event: u64, time: u64, pid: u32, mappings: &[Mapping]) {
    put_note(out, tag::MAPPINGS, before_event, time, |out| {
        put(out, u64::from(pid));
        put(out, mappings.len() as u64);
        let mut last: Option<&Mapping> = None;
        let mut end = 0u64;
        for mapping in mappings {
            let same = last.is_some_and(|last| last.path == mapping.path && last.inode == mapping.inode);
            out.push(u8::from(mapping.executable) | u8::from(same) << 1);
            put(out, mapping.start.wrapping_sub(end));
            put(out, mapping.end.wrapping_sub(mapping.start));
            put(out, mapping.offset);
            if !same {
                put_bytes(out, mapping.path.as_os_str().as_bytes());
                put(out, mapping.inode);
            }
            end = mapping.end;
            last = Some(mapping);
        }
    });
}

pub(super) fn put_memory(out: &mut Vec<u8>, before_event: u64, sample: &MemorySample) {
    put_note(out, tag::MEMORY, before_event, sample.time, |out| {
        put(out, u64::from(sample.pid));
        for value in [sample.rss, sample.rss_anon, sample.rss_file, sample.rss_shmem, sample.swap, sample.virtual_bytes]
        {
            put(out, value);
        }
    });
}

/// Counters go by name, so that a reader of another version knows which ones it has.
pub(super) fn put_counters(out: &mut Vec<u8>, before_event: u64, time: u64, pid: Option<u32>, counters: &Counters) {
    put_note(out, tag::COUNTERS, before_event, time, |out| {
        put_optional(out, pid);
        put(out, counters.len() as u64);
        for (counter, &value) in Counter::ALL.iter().zip(counters) {
            put_bytes(out, counter.name().as_bytes());
            put(out, value);
        }
    });
}

pub(super) fn put_residency(out: &mut Vec<u8>, before_event: u64, residency: &Residency) {
    put_note(out, tag::RESIDENCY, before_event, residency.time, |out| pages::put_residency(out, residency));
}

/// A heap takes several notes: `each` is given them one after the other, to be appended.
pub(super) fn put_layout(time: u64, pid: u32, layout: &Layout, mut each: impl FnMut(&dyn Fn(&mut Vec<u8>, u64))) {
    each(&|out, before| put_note(out, tag::OUTLINE, before, time, |out| chunks::put_outline(out, pid, layout)));
    for part in chunks::parts(layout) {
        each(&|out, before| put_note(out, tag::CHUNKS, before, time, |out| chunks::put_chunks(out, pid, &part)));
    }
}

pub(super) fn put_end(out: &mut Vec<u8>, before_event: u64, end: &End) {
    put_note(out, tag::END, before_event, end.time, |out| {
        put_optional(out, end.status.map(i32::cast_unsigned));
        put(out, end.events);
        put(out, end.not_recorded);
        put_bytes(out, end.stopped.as_bytes());
    });
}

fn text(input: &mut Input<'_>) -> Option<String> {
    input.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn path(input: &mut Input<'_>) -> Option<PathBuf> {
    input.bytes().map(|bytes| PathBuf::from(OsString::from_vec(bytes.to_vec())))
}

/// Takes a run of notes apart. `None` when it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Placed>> {
    let mut notes = Vec::new();
    let mut input = Input::new(bytes);
    while !input.is_empty() {
        let tag = input.byte()?;
        let mut body = Input::new(input.bytes()?);
        let before_event = body.varint()?;
        let time = body.varint()?;
        let note = match tag {
            tag::PROCESS => process(&mut body, time)?,
            tag::MAPPINGS => mappings(&mut body, time)?,
            tag::MEMORY => memory(&mut body, time)?,
            tag::COUNTERS => counters(&mut body, time)?,
            tag::END => Note::End(End {
                time,
                status: optional(&mut body)?.map(u32::cast_signed),
                events: body.varint()?,
                not_recorded: body.varint()?,
                stopped: text(&mut body)?,
            }),
            tag::RESIDENCY => pages::residency(&mut body, time)?,
            tag::OUTLINE => chunks::outline(&mut body, time)?,
            tag::CHUNKS => chunks::chunks(&mut body, time)?,
            _ => continue,
        };
        notes.push(Placed { before_event, note });
    }
    Some(notes)
}

fn process(body: &mut Input<'_>, time: u64) -> Option<Note> {
    let mut process = ProcessInfo {
        time,
        pid: body.varint32()?,
        ppid: body.varint32()?,
        start_ticks: body.varint()?,
        comm: text(body)?,
        exe: path(body)?,
        cmdline: Vec::new(),
        settings: Vec::new(),
    };
    for _ in 0..body.varint()? {
        process.cmdline.push(text(body)?);
    }
    // Left out where there are none, as they were before there was room for them.
    if !body.is_empty() {
        for _ in 0..body.varint()? {
            process.settings.push(text(body)?);
        }
    }
    Some(Note::Process(process))
}

fn mappings(body: &mut Input<'_>, time: u64) -> Option<Note> {
    let pid = body.varint32()?;
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut before = 0u64;
    for _ in 0..body.varint()? {
        let flags = body.byte()?;
        let start = before.wrapping_add(body.varint()?);
        let end = start.wrapping_add(body.varint()?);
        let offset = body.varint()?;
        let (path, inode) = if flags & 2 != 0 {
            let last = mappings.last()?;
            (last.path.clone(), last.inode)
        } else {
            (path(body)?, body.varint()?)
        };
        mappings.push(Mapping { start, end, offset, executable: flags & 1 != 0, path, inode });
        before = end;
    }
    Some(Note::Mappings { time, pid, mappings })
}

fn memory(body: &mut Input<'_>, time: u64) -> Option<Note> {
    Some(Note::Memory(MemorySample {
        time,
        pid: body.varint32()?,
        rss: body.varint()?,
        rss_anon: body.varint()?,
        rss_file: body.varint()?,
        rss_shmem: body.varint()?,
        swap: body.varint()?,
        virtual_bytes: body.varint()?,
    }))
}

fn counters(body: &mut Input<'_>, time: u64) -> Option<Note> {
    let pid = optional(body)?;
    let mut counters = [0; COUNTERS];
    for _ in 0..body.varint()? {
        let name = body.bytes()?;
        let value = body.varint()?;
        if let Some(at) = Counter::ALL.iter().position(|counter| counter.name().as_bytes() == name) {
            counters[at] = value;
        }
    }
    Some(Note::Counters { time, pid, counters })
}
