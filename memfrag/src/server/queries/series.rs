//! `series`: the course of a heap over time.

use super::parameters::{self, json, within, wrong};
use super::{Context, QueryError};
use crate::heap::{Heap, Point};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    from_ns: u64,
    to_ns: u64,
    points: u64,
}

/// Columns of equal length. Each point is the state at its time; what is a maximum or a rate is of the stretch before it.
#[derive(Debug, Default, Serialize)]
struct Series {
    time_ns: Vec<u64>,
    live_bytes: Vec<u64>,
    live_peak_bytes: Vec<u64>,
    taken_bytes: Vec<u64>,
    rss_bytes: Vec<Option<u64>>,
    mapped_bytes: Vec<Option<u64>>,
    allocated_bytes: Vec<u64>,
    allocations_per_s: Vec<f64>,
    frees_per_s: Vec<f64>,
}

pub(super) fn series(parameters: Map<String, Value>, context: &Context<'_>) -> Result<Value, QueryError> {
    let Parameters { from_ns, to_ns, points } = parameters::take("series", parameters)?;
    if from_ns > to_ns {
        return Err(wrong("series", "from_ns is later than to_ns"));
    }
    let points = within("series", "points", points, 1..=2000)?;
    let (process, heap) = context.state.process(context.pid)?;
    let now = process.ended().map_or(context.state.at_ns, |ended| ended.min(context.state.at_ns));
    json(&of(heap, now, from_ns, to_ns, points as usize))
}

/// The points of a heap's timeline between two times, in at most `most` groups. `now` is when the last one ends.
fn of(heap: &Heap, now: u64, from: u64, to: u64, most: usize) -> Series {
    let (start, width, points) = heap.timeline_at(now);
    let begins = |at: usize| start.saturating_add(width.saturating_mul(at as u64));
    let ends = |at: usize| begins(at + 1).min(now.max(begins(at)));
    let first = (0..points.len()).position(|at| ends(at) >= from).unwrap_or(points.len());
    let behind = (0..points.len()).rposition(|at| begins(at) <= to).map_or(0, |last| last + 1);
    if first >= behind {
        return Series::default();
    }
    let mut series = Series::default();
    let before: u64 = points[first..].iter().fold(0, |sum: u64, point| sum.wrapping_add(point.requested_bytes));
    let mut allocated = heap.totals().requested_bytes.wrapping_sub(before);
    let each = (behind - first).div_ceil(most);
    for (number, group) in points[first..behind].chunks(each).enumerate() {
        let begin = begins(first + number * each);
        let end = ends(first + number * each + group.len() - 1);
        let Some(last) = group.last() else { continue };
        let seconds = (end.saturating_sub(begin).max(1)) as f64 / 1e9;
        let sum = |of: fn(&Point) -> u64| group.iter().map(of).fold(0_u64, u64::wrapping_add);
        allocated = allocated.wrapping_add(sum(|point| point.requested_bytes));
        series.time_ns.push(end);
        series.live_bytes.push(last.live.bytes);
        series.live_peak_bytes.push(group.iter().map(|point| point.max_bytes).max().unwrap_or(0));
        series.taken_bytes.push(last.taken);
        series.rss_bytes.push(group.iter().rev().find_map(|point| point.rss));
        series.mapped_bytes.push(group.iter().rev().find_map(|point| point.mapped));
        series.allocated_bytes.push(allocated);
        series.allocations_per_s.push(sum(|point| point.allocations) as f64 / seconds);
        series.frees_per_s.push(sum(|point| point.frees) as f64 / seconds);
    }
    series
}
