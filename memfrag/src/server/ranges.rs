//! What a client is told of the address ranges of the heap that it watches.

use super::protocol::{Outbound, Range};
use super::watching::Watching;
use crate::analysis::regions::{Region, Regions};
use std::time::Duration;
use tokio::time::Instant;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Time between two messages of which only figures have changed.
const FIGURES: Duration = Duration::from_secs(2);

/// The ranges as the client knows them.
#[derive(Debug, Default)]
pub struct Ranges {
    regions: Regions,
    due: Option<Instant>,
    /// What it was told, and when.
    told: Option<(Vec<Region>, Instant)>,
}

impl Ranges {
    /// The client watches something else, and is told anew.
    pub fn forget(&mut self) {
        self.due = None;
        self.told = None;
    }

    /// What there is to tell now: at once when addresses have changed or the cursor `arrives` where it will stand, now
    /// and then when only figures have.
    pub fn tell(&mut self, watching: &Watching, arrives: bool, now: Instant) -> Option<Outbound> {
        if !arrives && self.due.is_some_and(|due| now < due) {
            return None;
        }
        self.due = Some(now + LOOK);
        let pid = watching.pid();
        let has_changed = watching.stage().with(|player| {
            // Looking at a heap that is not watched takes a look at all of its blocks.
            player.watch(pid);
            let builder = player.builder();
            let heaps = builder.heaps();
            let at = heaps.index_of(pid)?;
            let heap = heaps.heap(&heaps.processes()[at]);
            Some(self.regions.update(heap, builder.last_residency(at)))
        })?;
        let list = self.regions.list();
        let is_news = self
            .told
            .as_ref()
            .is_none_or(|(known, when)| (arrives || now >= *when + FIGURES) && known.as_slice() != list);
        if !has_changed && !is_news {
            return None;
        }
        self.told = Some((list.to_vec(), now));
        Some(Outbound::Regions { epoch: self.regions.epoch(), pid, regions: list.iter().map(described).collect() })
    }
}

fn described(region: &Region) -> Range {
    Range {
        // As text: JSON numbers end at 2⁵³.
        start: format!("{:#x}", region.range.start),
        end: format!("{:#x}", region.range.end),
        kind: region.kind.name(),
        label: region.label(),
        live_bytes: region.live.bytes,
        live_blocks: region.live.blocks,
        resident_bytes: region.resident_bytes,
    }
}
