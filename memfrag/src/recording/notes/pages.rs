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
        // The map of a process that runs is not of one moment: a region that has grown can be told beside the next one
        // as it was before.
        let begin = region.range.start.max(end);
        put_run(out, &mut end, region.range.start, region.range.end);
        put(out, region.resident_bytes / PAGE);
        put(out, region.swapped_bytes / PAGE);
        let mut at = begin;
        let runs = || region.resident.iter().filter(|run| run.end > begin);
        put(out, runs().count() as u64);
        for run in runs() {
            put_run(out, &mut at, run.start, run.end);
        }
    }
}

/// A run of pages, of which what lies before `end` is left out; `end` becomes its own.
fn put_run(out: &mut Vec<u8>, end: &mut u64, start: u64, stop: u64) {
    let start = start.max(*end);
    let stop = stop.max(start);
    put(out, (start - *end) / PAGE);
    put(out, (stop - start) / PAGE);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The last page of all is what a shift of anything before it would push over the end.
    #[test]
    fn regions_that_overlap_shift_none_behind_them() {
        let region = |range: std::ops::Range<u64>, resident: &[(u64, u64)]| Region {
            range,
            kind: RegionKind::Anonymous,
            resident_bytes: 0,
            swapped_bytes: 0,
            resident: resident.iter().map(|&(first, behind)| first * PAGE..behind * PAGE).collect(),
        };
        let last = region(u64::MAX - 2 * PAGE + 1..u64::MAX - PAGE + 1, &[]);
        let regions = vec![
            region(PAGE..5 * PAGE, &[(1, 2), (4, 5)]),
            region(3 * PAGE..8 * PAGE, &[(3, 4), (4, 7)]),
            region(6 * PAGE..7 * PAGE, &[(6, 7)]),
            last.clone(),
        ];
        let mut out = Vec::new();
        put_residency(&mut out, &Residency { time: 9, pid: 7, regions });
        let Some(Note::Residency(read)) = residency(&mut Input::new(&out), 9) else { panic!("it is whole") };
        assert_eq!(read.regions[1], region(5 * PAGE..8 * PAGE, &[(5, 7)]));
        assert_eq!(read.regions[2], region(8 * PAGE..8 * PAGE, &[]));
        assert_eq!(read.regions[3], last);
    }
}
