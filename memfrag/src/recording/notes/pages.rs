//! Which pages of a process were resident, as a note: addresses and lengths in pages, each counted from the one before.

use super::Note;
use crate::recording::varint::{Input, put};
use crate::target::residency::{PAGE, Region, RegionKind, Residency};

pub(super) fn put_residency(out: &mut Vec<u8>, residency: &Residency) {
    put(out, u64::from(residency.pid));
    put(out, residency.regions.len() as u64);
    let mut end = 0;
    for region in &residency.regions {
        out.push(region.kind as u8);
        put_run(out, &mut end, region.range.start, region.range.end);
        put(out, region.resident_bytes / PAGE);
        put(out, region.swapped_bytes / PAGE);
        put(out, region.resident.len() as u64);
        let mut at = region.range.start;
        for run in &region.resident {
            put_run(out, &mut at, run.start, run.end);
        }
    }
}

/// A run of pages that begins at or behind `end`, which becomes its own end.
fn put_run(out: &mut Vec<u8>, end: &mut u64, start: u64, stop: u64) {
    put(out, start.saturating_sub(*end) / PAGE);
    put(out, stop.saturating_sub(start) / PAGE);
    *end = stop;
}

pub(super) fn residency(body: &mut Input<'_>, time: u64) -> Option<Note> {
    let pid = body.varint32()?;
    let mut regions = Vec::new();
    let mut end = 0;
    for _ in 0..body.varint()? {
        let kind = RegionKind::from_u8(body.byte()?)?;
        let range = run(body, &mut end)?;
        let resident_bytes = body.varint()?.checked_mul(PAGE)?;
        let swapped_bytes = body.varint()?.checked_mul(PAGE)?;
        let mut resident = Vec::new();
        let mut at = range.start;
        for _ in 0..body.varint()? {
            resident.push(run(body, &mut at)?);
        }
        if at > range.end {
            return None;
        }
        regions.push(Region { range, kind, resident_bytes, swapped_bytes, resident });
    }
    Some(Note::Residency(Residency { time, pid, regions }))
}

fn run(body: &mut Input<'_>, end: &mut u64) -> Option<std::ops::Range<u64>> {
    let start = end.checked_add(body.varint()?.checked_mul(PAGE)?)?;
    *end = start.checked_add(body.varint()?.checked_mul(PAGE)?)?;
    Some(start..*end)
}
