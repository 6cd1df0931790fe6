//! A heap as a checkpoint holds it: its blocks and what cannot be worked out from them.

use super::{Blocks, Heap};
use crate::heap::reconcile::Older;
use crate::heap::totals::Amount;
use crate::heap::{Block, Footprint, Snapshot};
use crate::recording::{Input, Saved};

impl Heap {
    /// Appends the heap, its users and what somebody watches aside. `base` is another one that may have the same blocks:
    /// that of the process that forked this one's.
    pub(in crate::heap) fn save(&self, base: Option<&Self>, out: &mut Vec<u8>) {
        (self.pages.footprint() == Footprint::Glibc).save(out);
        self.origins.save(out);
        self.blocks.save(base.map(|base| &base.blocks), out);
        self.older.walked_at().save(out);
        self.older().save(base.map(Self::older), out);
        self.pages.peak_bytes().save(out);
        self.totals.save(out);
        self.functions.save(out);
        self.peak.save(out);
        self.inherited.save(out);
        self.discarded.save(out);
        self.anomalies.save(out);
        self.damaged_at.save(out);
        self.maps.save(out);
        self.timeline.save(out);
        self.readings.save(out);
        self.requests.save(out);
        self.lifetimes.as_deref().cloned().unwrap_or_default().save(out);
        self.segment.save(out);
        self.now.save(out);
    }

    /// What [`Self::save`] wrote; nobody uses it yet. It counts how long blocks live.
    pub(in crate::heap) fn load(input: &mut Input<'_>, base: Option<&mut Self>) -> Option<Self> {
        let mut heap = Self::new(0);
        let footprint = if bool::load(input)? { Footprint::Glibc } else { Footprint::Requested };
        heap.origins = Saved::load(input)?;
        let (blocks, older) = base.map(|base| (&mut base.blocks, &mut base.older)).unzip();
        let origins = heap.origins.len();
        heap.blocks = Blocks::load(input, blocks, |block| block.origin.index() < origins)?;
        heap.older = Older::load(input, older)?;
        let peak_bytes = u64::load(input)?;
        heap.totals = Saved::load(input)?;
        heap.functions = Saved::load(input)?;
        heap.peak = Saved::load(input)?;
        heap.inherited = Saved::load(input)?;
        heap.discarded = Saved::load(input)?;
        heap.anomalies = Saved::load(input)?;
        heap.damaged_at = Saved::load(input)?;
        heap.maps = Saved::load(input)?;
        heap.timeline = Saved::load(input)?;
        heap.readings = Saved::load(input)?;
        heap.requests = Saved::load(input)?;
        heap.lifetimes = Some(Box::new(Saved::load(input)?));
        let segment = Saved::load(input)?;
        heap.now = Saved::load(input)?;
        heap.live = Amount::of(heap.blocks.iter());
        heap.enter_blocks(footprint);
        heap.pages.had_peak(peak_bytes);
        heap.segment = segment;
        heap.users = 0;
        heap.timeline.agrees_with(&heap.totals).then_some(heap)
    }

    /// Whether a block can be one of this heap.
    pub(in crate::heap) fn could_have(&self, block: &Block) -> bool {
        block.origin.index() < self.origins.len()
    }

    /// Appends a snapshot of this heap.
    pub(in crate::heap) fn save_snapshot(&self, snapshot: &Snapshot, out: &mut Vec<u8>) {
        snapshot.blocks().save(Some(&self.blocks), out);
        snapshot.older().save(Some(self.older()), out);
    }

    /// What [`Self::save_snapshot`] wrote.
    pub(in crate::heap) fn load_snapshot(&mut self, input: &mut Input<'_>) -> Option<Snapshot> {
        let origins = self.origins.len();
        let known = |block: &Block| block.origin.index() < origins;
        let blocks = Blocks::load(input, Some(&mut self.blocks), known)?;
        let older = self.older.load_like(input)?;
        Some(Snapshot::new(blocks, older))
    }
}
