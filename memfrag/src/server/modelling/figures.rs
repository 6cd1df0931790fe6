//! What is told of a policy, and of the heap beside it.

use super::grid::{self, Axis, Grid};
use super::worker::Target;
use crate::analysis::Spread;
use crate::model::{ModelHeap, Models};
use crate::recording::Cursor;
use crate::report::policies::{Outcome, Real};
use crate::server::player::Extent;
use serde::Serialize;

/// A message `model`, who and what it is of aside.
#[derive(Clone, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Shown {
    pub at_ns: u64,
    pub events: u64,
    pub behind_events: u64,
    pub behind_ns: u64,
    pub learning: bool,
    pub problem: Option<String>,
    pub model: Option<Modelled>,
    pub real: Option<Real>,
    pub cells: Option<Cells>,
}

/// What a policy made of the events.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Modelled {
    #[serde(flatten)]
    pub outcome: Outcome,
    pub live_blocks: u64,
    pub lost_events: u64,
    pub unknown_blocks: u64,
}

/// Both as cells of one size: how much of each is taken, in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/PROTOCOL.md")]
pub struct Cells {
    pub bytes: u64,
    pub model: Grid,
    pub real: Grid,
}

/// What there is to tell at a place on the way to a target, or `there`.
pub(super) fn shown(models: &Models, cursor: &Cursor, pid: u32, target: &Target, there: bool) -> Shown {
    let heap = models.heap(pid).filter(|heap| !heap.policies().is_empty());
    let modelled = heap.map(of_policy);
    let real = of_heap(target, pid);
    let cells = modelled.as_ref().zip(real.as_ref()).map(|((_, model), (_, real))| {
        let axes = [model, real].map(|spread| Axis::new(spread.held().to_vec()));
        let bytes = grid::cell_bytes([&axes[0], &axes[1]]);
        let grid = |axis: &Axis, spread: &Spread| Grid::new(axis, spread.places(), bytes);
        Cells { bytes, model: grid(&axes[0], model), real: grid(&axes[1], real) }
    });
    let (at_ns, behind_events) = if there {
        (target.at_ns, 0)
    } else {
        let to = match target.extent {
            Extent::Event(event) => event,
            Extent::Time(time) => target.state.reader.event_at(time),
        };
        // An end that is not reached is at least one event away.
        (cursor.latest(), to.saturating_sub(cursor.event()).max(1))
    };
    Shown {
        at_ns,
        events: cursor.event(),
        behind_events,
        behind_ns: if there { 0 } else { target.at_ns.saturating_sub(at_ns) },
        learning: false,
        problem: None,
        model: modelled.map(|(figures, _)| figures),
        real: real.map(|(figures, _)| figures),
        cells,
    }
}

fn of_policy(heap: &ModelHeap) -> (Modelled, Spread) {
    let policy = heap.policies()[0].as_ref();
    let spread = heap.spread(policy);
    let oddities = heap.oddities();
    let modelled = Modelled {
        outcome: Outcome::of(policy, &spread),
        live_blocks: heap.live_blocks(),
        lost_events: oddities.lost_events,
        unknown_blocks: oddities.unknown_blocks,
    };
    (modelled, spread)
}

fn of_heap(target: &Target, pid: u32) -> Option<(Real, Spread)> {
    let builder = &target.state.builder;
    let heaps = builder.heaps();
    let process = heaps.index_of(pid)?;
    let heap = heaps.heap(&heaps.processes()[process]);
    let look = builder.last_residency(process);
    let spread = Spread::of(heap, look);
    Some((Real::of(&spread, heap, look, target.at_ns), spread))
}
