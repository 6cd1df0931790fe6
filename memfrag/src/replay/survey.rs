//! What is live, and how much of each block was seen resident: asked before a plan is made, or instead of one.

use crate::analysis::ResidentPages;
use crate::glibc::layout::{ChunkKind, HEADER, Layout, Segment};
use crate::model::{BlockId, Caller, Fact, Listener, Request};
use crate::target::Residency;
use crate::target::residency::{PAGE, RegionKind};
use memfrag_common::Function;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// All pages.
const ALL: u32 = u32::MAX;

/// A block that is live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    /// Where it was.
    pub(super) address: u64,
    /// What was asked for.
    pub(super) request: Request,
    /// When, in nanoseconds since the trace began; 0 for a block from before.
    pub(super) time: u64,
    /// Which call it was; 0 for a block from before.
    serial: u64,
    site: u64,
}

/// Resident bytes by kind of mapping, memfrag's own left out, which a replay has none of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// The brk heap.
    pub heap: u64,
    /// Private anonymous memory that can be written.
    pub anonymous: u64,
    /// The main thread's stack.
    pub stack: u64,
    /// Files, their private pages included.
    pub file: u64,
    /// Shared memory and everything else.
    pub other: u64,
}

impl Kinds {
    /// Those of a look at a process's pages.
    pub fn of(residency: &Residency) -> Self {
        let mut kinds = Self::default();
        for region in &residency.regions {
            *match region.kind {
                RegionKind::Heap => &mut kinds.heap,
                RegionKind::Anonymous => &mut kinds.anonymous,
                RegionKind::Stack => &mut kinds.stack,
                RegionKind::File => &mut kinds.file,
                RegionKind::Other => &mut kinds.other,
                RegionKind::Memfrag => continue,
            } += region.resident_bytes;
        }
        kinds
    }
}

/// How many pages of blocks were seen resident.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// By the number of the call: blocks of a page or more, and smaller ones of which not all was resident. The most
    /// that any look saw.
    blocks: HashMap<u64, u32>,
    /// The same of blocks from before, by their address.
    older: HashMap<u64, u32>,
    /// Pages of large blocks that looks saw, and the resident ones among them, by call site.
    sites: HashMap<u64, (u64, u64)>,
    /// What the last look saw.
    pub kinds: Option<Kinds>,
}

impl Touched {
    /// How many pages of a block to write to, the `serial`th that was allocated; `None` for all. A large block that no
    /// look saw is taken to be as others of its call site.
    pub fn pages(&self, serial: u64, call_site: u64, size: u64) -> Option<u64> {
        match self.blocks.get(&serial) {
            Some(&ALL) => None,
            Some(&pages) => Some(pages.into()),
            None if size < PAGE => None,
            None => {
                let &(seen, resident) = self.sites.get(&call_site).filter(|(seen, resident)| resident < seen)?;
                Some((u128::from(size.div_ceil(PAGE)) * u128::from(resident)).div_ceil(u128::from(seen)) as u64)
            }
        }
    }

    /// The same of a block from before the trace, by its address.
    pub fn older_pages(&self, address: u64) -> Option<u64> {
        self.older.get(&address).map(|&pages| pages.into())
    }

    fn look(&mut self, live: &[Option<Live>], older: Option<&BTreeMap<u64, u64>>, residency: &Residency) {
        self.kinds = Some(Kinds::of(residency));
        let pages = ResidentPages::new(residency);
        let looked_at = |address: u64| {
            let at = residency.regions.partition_point(|region| region.range.end <= address);
            let region = residency.regions.get(at).filter(|region| region.range.contains(&address));
            region.is_some_and(|region| region.kind.may_hold_blocks())
        };
        // How many pages a block reaches into, and how many of them are resident.
        let count = |address: u64, size: u64| {
            let end = address.checked_add(size)?.checked_next_multiple_of(PAGE)?;
            let range: Range<u64> = address / PAGE * PAGE..end;
            (size > 0 && looked_at(address)).then(|| ((end - range.start) / PAGE, pages.bytes_in(range) / PAGE))
        };
        for block in live.iter().flatten() {
            let size = block.request.size;
            let Some((seen, resident)) = count(block.address, size) else { continue };
            if size >= PAGE {
                let sum = self.sites.entry(block.site).or_default();
                *sum = (sum.0.saturating_add(seen), sum.1.saturating_add(resident));
            } else if resident == seen && !self.blocks.contains_key(&block.serial) {
                continue;
            }
            let found = if resident == seen { ALL } else { u32::try_from(resident).unwrap_or(ALL - 1) };
            let most = self.blocks.entry(block.serial).or_insert(0);
            *most = found.max(*most);
        }
        for (&address, &size) in older.into_iter().flatten() {
            if let Some((seen, resident)) = count(address, size)
                && resident < seen
            {
                self.older.insert(address, u32::try_from(resident).unwrap_or(ALL - 1));
            }
        }
    }
}

/// The blocks that a walk found in use before the first call, and their sizes, by their addresses.
pub(super) fn in_use(layout: &Layout) -> impl Iterator<Item = (u64, u64)> + '_ {
    let chunks = layout.arenas.iter().flat_map(|arena| &arena.segments).flat_map(Segment::iter);
    let used = chunks.filter(|(_, chunk)| chunk.kind() == ChunkKind::Used);
    let blocks = used.map(|(address, chunk)| (address + HEADER, chunk.bytes() - 8));
    blocks.chain(layout.mapped.iter().map(|chunk| (chunk.address + HEADER, chunk.bytes - HEADER)))
}

#[derive(Debug, Default)]
struct Taken {
    /// By the block's number.
    live: Vec<Option<Live>>,
    /// Blocks from before that are still there: addresses and sizes.
    older: BTreeMap<u64, u64>,
    /// Whether none of those were looked at yet.
    older_are_new: bool,
    serial: u64,
    touched: Touched,
}

impl Taken {
    fn put(&mut self, block: BlockId, caller: &Caller, request: &Request, address: u64) {
        self.serial += 1;
        if self.live.len() <= block.index() {
            self.live.resize(block.index() + 1, None);
        }
        let (time, site, serial) = (caller.time, caller.site, self.serial);
        self.live[block.index()] = Some(Live { address, request: *request, time, serial, site });
    }
}

/// Follows the requests of one heap.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey(Arc<Mutex<Taken>>);

impl Survey {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was looked at which pages of the process are resident.
    pub(super) fn look(&self, residency: &Residency) {
        let mut taken = self.taken();
        let taken = &mut *taken;
        let older = std::mem::take(&mut taken.older_are_new).then_some(&taken.older);
        taken.touched.look(&taken.live, older, residency);
    }

    /// What was seen, and the blocks that are live now.
    pub(super) fn finish(self) -> (Touched, Vec<Live>) {
        let mut taken = self.taken();
        let taken = std::mem::take(&mut *taken);
        let before = taken.older.into_iter().map(|(address, size)| {
            let request = Request { size, align_log2: 0, function: Function::Malloc };
            Live { address, request, time: 0, serial: 0, site: 0 }
        });
        (taken.touched, before.chain(taken.live.into_iter().flatten()).collect())
    }
}

impl Live {
    /// How many of its pages to write to; `None` for all.
    pub(super) fn pages(&self, touched: &Touched) -> Option<u64> {
        match self.serial {
            0 => touched.older_pages(self.address),
            serial => touched.pages(serial, self.site, self.request.size),
        }
    }
}

impl Listener for Survey {
    fn allocated(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) {
        self.taken().put(block, caller, request, observed);
    }

    fn freed(&mut self, _: &Caller, block: BlockId) {
        if let Some(place) = self.taken().live.get_mut(block.index()) {
            *place = None;
        }
    }

    fn resized(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) {
        let mut taken = self.taken();
        // It stays aligned by luck alone, and a call of this name gives a block where there was none.
        let request = Request { align_log2: 0, function: Function::Malloc, ..*request };
        taken.put(block, caller, &request, observed);
    }

    fn learned(&mut self, _: &Caller, fact: Fact<'_>) {
        let mut taken = self.taken();
        match fact {
            Fact::UnknownFree(address) | Fact::UnknownRealloc(address) => {
                taken.older.remove(&address);
            }
            Fact::Layout(layout) if taken.serial == 0 && taken.older.is_empty() => {
                taken.older = in_use(layout).collect();
                taken.older_are_new = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Listening, ModelHeap};
    use crate::target::residency::Region;
    use memfrag_common::{Event, Op};

    fn alloc(time: u64, addr: u64, size: u64, caller: u64) -> Event {
        let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size, site: caller, stack: 0 };
        Event { time, pid: 1, tid: 1, op }
    }

    fn free(addr: u64) -> Event {
        Event { time: 0, pid: 1, tid: 1, op: Op::Free { function: Function::Free, addr, size: 0, site: 1 } }
    }

    fn look(resident: &[Range<u64>]) -> Residency {
        let resident_bytes = resident.iter().map(|run| run.end - run.start).sum();
        let region = Region {
            range: 0x10_0000..0x20_0000,
            kind: RegionKind::Anonymous,
            resident_bytes,
            swapped_bytes: 0,
            resident: resident.to_vec(),
        };
        let file =
            Region { range: 0x30_0000..0x30_1000, kind: RegionKind::File, resident: Vec::new(), ..region.clone() };
        Residency { time: 1, pid: 1, regions: vec![region, file] }
    }

    #[test]
    fn blocks_are_written_to_as_far_as_they_were_resident() {
        let survey = Survey::default();
        let mut heap = ModelHeap::new(vec![Listening::by(survey.clone())]);
        let blocks = [
            (0x10_0000, 4 * PAGE, 1), // one page of four
            (0x10_4000, 100, 2),      // all
            (0x10_5000, 100, 2),      // none
            (0x10_6000, 2 * PAGE, 3), // all
            (0x40_0000, 4 * PAGE, 3), // where nobody looked
        ];
        for (addr, size, caller) in blocks {
            heap.apply(&alloc(5, addr, size, caller));
        }
        survey.look(&look(&[0x10_0000..0x10_1000, 0x10_4000..0x10_5000, 0x10_6000..0x10_8000]));
        heap.apply(&free(0x10_4000));
        drop(heap);
        let (touched, live) = survey.finish();
        assert_eq!([1, 2, 3, 4].map(|serial| touched.pages(serial, 0, 100)), [Some(1), None, Some(0), None]);
        assert_eq!(touched.pages(9, 1, 8 * PAGE), Some(2), "as others of the call site");
        assert_eq!(touched.pages(9, 3, 8 * PAGE), None, "those of this one were all there");
        assert_eq!(touched.pages(9, 1, 100), None, "of small blocks the call site tells nothing");
        assert_eq!(
            live.iter().map(|block| block.address).collect::<Vec<_>>(),
            [0x10_0000, 0x10_5000, 0x10_6000, 0x40_0000]
        );
        assert_eq!(live[0].pages(&touched), Some(1));
        let kinds = touched.kinds.expect("it was looked at");
        assert_eq!((kinds.anonymous, kinds.file, kinds.heap), (4 * PAGE, 4 * PAGE, 0));
    }

    #[test]
    fn the_look_that_saw_most_counts() {
        let survey = Survey::default();
        let mut heap = ModelHeap::new(vec![Listening::by(survey.clone())]);
        heap.apply(&alloc(5, 0x10_0000, 100, 1));
        heap.apply(&alloc(5, 0x10_8000, 4 * PAGE, 1));
        survey.look(&look(std::slice::from_ref(&(0x10_8000..0x10_9000))));
        survey.look(&look(&[0x10_0000..0x10_1000, 0x10_8000..0x10_a000]));
        survey.look(&look(&[]));
        let (touched, _) = survey.finish();
        assert_eq!([touched.pages(1, 1, 100), touched.pages(2, 1, 4 * PAGE)], [None, Some(2)]);
    }
}
