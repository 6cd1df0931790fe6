//! `programs/known_heap.c`: a process that holds a heap still and tells its blocks.

use crate::place;
use crate::process::{LIMIT, Running, until};
use anyhow::{Context, Result, ensure};
use memfrag::glibc::{ChunkKind, Walk};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The process, and what it said.
#[derive(Debug)]
pub struct KnownHeap {
    running: Running,
    /// What `malloc_info` wrote.
    pub info: String,
    /// Its blocks: address and size requested.
    pub blocks: Vec<(u64, u64)>,
    /// The block behind which a chunk is damaged.
    pub corrupt: Option<u64>,
    _dir: TempDir,
}

impl KnownHeap {
    /// Starts it with these words behind the file's name, and waits until it stands still.
    pub fn start(words: &[&str]) -> Result<Self> {
        Self::start_with(words, |_| {})
    }

    /// As [`KnownHeap::start`], with something changed on the command.
    pub fn start_with(words: &[&str], change: impl FnOnce(&mut Command)) -> Result<Self> {
        Self::start_program(&place::program("known_heap")?, words, change)
    }

    /// As [`KnownHeap::start_with`], from this file.
    pub fn start_program(program: &Path, words: &[&str], change: impl FnOnce(&mut Command)) -> Result<Self> {
        let dir = place::scratch()?;
        let file = dir.path().join("blocks");
        let mut command = Command::new(program);
        command.arg(&file).args(words);
        change(&mut command);
        let mut running = Running::start(&mut command)?;
        let mut text = String::new();
        until("the heap is made", LIMIT, || {
            ensure!(running.alive()?, "it ended at once: {}", running.stderr()?);
            text = std::fs::read_to_string(&file).unwrap_or_default();
            Ok(text.ends_with("\nend\n"))
        })?;
        let (info, rest) = text.split_once("</malloc>\n").context("no malloc_info")?;
        let mut heap = Self { running, info: info.to_owned(), blocks: Vec::new(), corrupt: None, _dir: dir };
        let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16);
        for line in rest.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["block", address, size] => heap.blocks.push((hex(address)?, size.parse()?)),
                ["corrupt", address] => heap.corrupt = Some(hex(address)?),
                ["end"] => {}
                _ => anyhow::bail!("an unknown line: {line}"),
            }
        }
        ensure!(!heap.blocks.is_empty(), "no blocks");
        Ok(heap)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Whether it has not ended.
    pub fn alive(&mut self) -> Result<bool> {
        self.running.alive()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        self.running.signal(signal)
    }
}

/// Compares a walk with what `malloc_info` says, where both count the same: bytes obtained, fastbins, free chunks with
/// top among them, mapped chunks.
pub fn of_malloc_info(info: &str, walk: &Walk) -> Result<()> {
    let (heaps, all) = info.rsplit_once("</heap>").context("no heap")?;
    let heaps: Vec<&str> = heaps.split("</heap>").collect();
    let arenas = &walk.layout.arenas;
    ensure!(heaps.len() == arenas.len(), "{} arenas instead of {}", arenas.len(), heaps.len());
    for (heap, arena) in heaps.into_iter().zip(arenas) {
        let heap = heap.rsplit_once("</sizes>").map_or(heap, |(_, sums)| sums);
        let said = [
            number(heap, "system type=\"current\" size")?,
            number(heap, "system type=\"max\" size")?,
            attribute(heap, "total type=\"rest\"", "count")?,
            attribute(heap, "total type=\"fast\"", "count").unwrap_or(0),
            attribute(heap, "total type=\"fast\"", "size").unwrap_or(0),
        ];
        let found = [
            arena.system_bytes,
            arena.max_system_bytes,
            (arena.count_of(ChunkKind::Free) + arena.count_of(ChunkKind::Top)) as u64,
            arena.count_of(ChunkKind::Fastbin) as u64,
            arena.bytes_of(ChunkKind::Fastbin),
        ];
        ensure!(said == found, "arena {:#x}: malloc_info says {said:?}, found {found:?}", arena.address);
    }
    let said = [attribute(all, "total type=\"mmap\"", "count")?, attribute(all, "total type=\"mmap\"", "size")?];
    let found = [walk.layout.mapped.len() as u64, walk.mapped_bytes];
    ensure!(said == found, "mapped chunks: malloc_info says {said:?}, found {found:?}");
    Ok(())
}

/// The number in quotes behind this text and an equals sign.
fn number(text: &str, name: &str) -> Result<u64> {
    let rest = text.split_once(name).with_context(|| format!("no {name} in {text}"))?.1;
    let digits = rest.trim_start_matches("=\"");
    let end = digits.find('"').context("no end of a number")?;
    Ok(digits[..end].parse()?)
}

fn attribute(text: &str, element: &str, name: &str) -> Result<u64> {
    let rest = text.split_once(element).with_context(|| format!("no {element} in {text}"))?.1;
    number(rest.split('>').next().unwrap_or_default(), name)
}
