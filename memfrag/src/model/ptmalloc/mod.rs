//! glibc's allocator, as exact as it can be told from outside.
//!
//! The model keeps the chunks that glibc keeps, in the lists in which glibc keeps them, and so foretells the address of
//! each block. It has two ways of life:
//!
//! - **observing** ([`Ptmalloc::observing`]): it is told the real addresses, and where it had foretold another one, goes
//!   back to the real one (`anchor`). The share of exact placements is the [agreement](Agreement), which says how far the
//!   model's other numbers can be trusted. In a process with one thread, the first placement that was not foretold
//!   stands behind the first event that was lost.
//! - **free** ([`Ptmalloc::free_running`]): it never looks at real addresses, and tells what another setting of the
//!   tunables would have taken.
//!
//! | module | job |
//! |---|---|
//! | `rules`, `tunables` | what differs between versions, and what users may set |
//! | `chunks` | the chunks, by number and by address |
//! | `bins` | an arena's lists of free chunks |
//! | `state` | arenas, threads, caches |
//! | `calls` | the allocator's functions |
//! | `serve` | how an arena serves a request and takes a chunk back |
//! | `system` | growing and giving back: segment, heaps, mapped chunks |
//! | `anchor` | going back to observed addresses |
//! | `seed` | beginning with a heap that was read from memory |

mod anchor;
mod bins;
mod calls;
mod chunks;
mod rules;
mod seed;
mod serve;
mod state;
mod system;

pub use tunables::Tunables;

use super::policy::{BlockId, Caller, Contents, Counts, Fact, Footprint, MallInfo, Policy, Request, Step};
use crate::glibc::Version;
use crate::glibc::layout::{HEADER, chunk_bytes};
use chunks::{Id, NONE, State};
use memfrag_common::Function;
use memfrag_common::prefetch::prefetch;
use rules::Rules;
use state::Space;
use std::ops::Range;

/// How often the model foretold what the real allocator did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Blocks placed, reallocations included.
    pub placements: u64,
    /// Those whose address was foretold.
    pub exact: u64,
    /// Blocks whose free was not told, or not in time: their memory was given out again.
    pub inferred_frees: u64,
    /// Events that cannot be, by what the model knows.
    pub impossible: u64,
    /// When the first placement was not foretold, in nanoseconds since the trace began.
    pub first_miss: Option<u64>,
}

impl Agreement {
    /// The share of exact placements; `None` when there were none.
    pub fn share(&self) -> Option<f64> {
        (self.placements > 0).then(|| self.exact as f64 / self.placements as f64)
    }
}

/// The model.
#[derive(Clone, Debug)]
pub struct Ptmalloc {
    name: String,
    space: Space,
    sizes: Vec<u64>,
}

impl Ptmalloc {
    /// A model that is told the real addresses. `None` for a version that is not known.
    pub fn observing(version: Version, tunables: Tunables) -> Option<Self> {
        Rules::of(version).map(|rules| Self {
            name: "ptmalloc".to_owned(),
            space: Space::new(rules, tunables, false),
            sizes: Vec::new(),
        })
    }

    /// A model that runs by itself, under a name of its own. `None` for a version that is not known.
    pub fn free_running(name: String, version: Version, tunables: Tunables) -> Option<Self> {
        Rules::of(version).map(|rules| Self { name, space: Space::new(rules, tunables, true), sizes: Vec::new() })
    }

    /// How often it was right.
    pub fn agreement(&self) -> Agreement {
        let tally = self.space.tally;
        Agreement {
            placements: tally.placements,
            exact: tally.exact,
            inferred_frees: tally.inferred_frees,
            impossible: tally.impossible,
            first_miss: tally.first_miss,
        }
    }

    /// Arenas that there are.
    pub fn arenas(&self) -> usize {
        self.space.arenas.len()
    }

    fn info(&self) -> MallInfo {
        let space = &self.space;
        let mut info = MallInfo { hblks: space.mapped_count, hblkhd: space.mapped_bytes, ..MallInfo::default() };
        for (_, chunk) in space.chunks.iter() {
            match chunk.state {
                State::Free | State::Top => {
                    info.ordblks += 1;
                    info.fordblks += chunk.size;
                }
                State::Fast => {
                    info.smblks += 1;
                    info.fsmblks += chunk.size;
                    info.fordblks += chunk.size;
                }
                _ => {}
            }
        }
        info.arena = space.arenas.iter().map(|arena| arena.system).sum();
        let top = space.arenas[0].top;
        info.keepcost = if top == NONE { 0 } else { space.chunks[top].size };
        info
    }

    fn begin(&mut self, caller: &Caller, observed: u64) -> usize {
        self.space.time = caller.time;
        self.space.observed = if self.space.invented.is_some() { 0 } else { observed };
        self.space.thread(caller.thread)
    }

    /// Whether a request is for more than the natural alignment, and for which; and the size that is then meant.
    fn aligned(request: &Request) -> (u64, Option<u64>) {
        const PAGE: u64 = 4096;
        match request.function {
            Function::Valloc => (request.size, Some(PAGE)),
            // As glibc rounds: the lowest bit stays.
            Function::Pvalloc => (request.size.saturating_add(PAGE - 1) & !(PAGE - 2), Some(PAGE)),
            _ => (request.size, Some(request.align(16)).filter(|&align| align > 16)),
        }
    }

    /// Compares with the observed address and keeps where the block is.
    fn settle(&mut self, thread: usize, block: BlockId, request: u64, id: Option<Id>) -> Option<u64> {
        let space = &mut self.space;
        space.tally.placements += 1;
        let addr = id.map(|id| space.chunks[id].addr + HEADER);
        let mut id = id;
        if space.invented.is_none() {
            if addr == Some(space.observed) {
                space.tally.exact += 1;
            } else {
                space.tally.first_miss.get_or_insert(space.time);
                id = space.anchor(thread, id, chunk_bytes(request));
            }
        }
        space.tally.failed += u64::from(id.is_none());
        if space.blocks.len() <= block.index() {
            space.blocks.resize(block.index() + 1, NONE);
            self.sizes.resize(block.index() + 1, 0);
        }
        space.blocks[block.index()] = id.unwrap_or(NONE);
        self.sizes[block.index()] = request;
        if let Some(id) = id {
            space.chunks[id].newer = block.0;
        }
        addr
    }

    fn chunk_of(&self, block: BlockId) -> Option<Id> {
        self.space.blocks.get(block.index()).copied().filter(|&id| id != NONE)
    }

    /// Frees a block at an address of which the stream does not tell how it came to be.
    fn free_unowned(&mut self, thread: usize, addr: u64) -> bool {
        let found = self.space.unowned(addr);
        if let Some(id) = found {
            // It may be what was taken for a thread's cache.
            self.space.disown(id);
            self.space.free(thread, id);
        }
        found.is_some()
    }
}

impl Policy for Ptmalloc {
    fn name(&self) -> &str {
        &self.name
    }

    fn allocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        let thread = self.begin(caller, observed);
        let (size, align) = Self::aligned(request);
        let id = match align {
            Some(align) => self.space.memalign(thread, size, align),
            None => self.space.malloc(thread, size, request.function == Function::Calloc),
        };
        self.settle(thread, block, size, id)
    }

    fn free(&mut self, caller: &Caller, block: BlockId) {
        let thread = self.begin(caller, 0);
        if let Some(id) = self.chunk_of(block) {
            self.space.blocks[block.index()] = NONE;
            self.space.free(thread, id);
        }
    }

    fn reallocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        let thread = self.begin(caller, observed);
        let before = self.chunk_of(block);
        let id = match before {
            Some(id) => self.space.realloc(thread, id, request.size),
            None => self.space.malloc(thread, request.size, false),
        };
        self.space.tally.in_place += u64::from(id == before);
        self.settle(thread, block, request.size, id)
    }

    fn send_for(&self, block: BlockId, step: Step) {
        let space = &self.space;
        let Some(id) = space.blocks.get(block.index()) else { return };
        match step {
            Step::Block => {
                prefetch(id);
                prefetch(&self.sizes[block.index()]);
            }
            Step::Place if *id != NONE => prefetch(&space.chunks[*id]),
            Step::Around if *id != NONE => {
                let chunk = &space.chunks[*id];
                for near in [chunk.before, chunk.after] {
                    if near != NONE {
                        prefetch(&space.chunks[near]);
                    }
                }
            }
            _ => {}
        }
    }

    fn learn(&mut self, caller: &Caller, fact: Fact<'_>) {
        match fact {
            Fact::Forked { parent_thread, shared } => {
                return self.space.forked(parent_thread, caller.thread, shared);
            }
            Fact::Layout(layout) => {
                if self.space.invented.is_none() {
                    self.space.seed(layout);
                }
                return;
            }
            // A thread that never called has nothing to empty.
            Fact::ThreadExit if !self.space.by_tid.contains_key(&caller.thread) => return,
            Fact::ThreadStart | Fact::Failed(_) | Fact::Unmapped { .. } | Fact::Gap(_) => return,
            _ => {}
        }
        let thread = self.begin(caller, 0);
        match fact {
            Fact::ThreadExit => self.space.end_thread(caller.thread, thread),
            Fact::Brk(end) if self.space.invented.is_none() => self.space.break_at = Some(end),
            Fact::Mapped { addr, size, is_file: false } if self.space.invented.is_none() => {
                self.space.threads[thread].mapped = Some((addr, size));
            }
            Fact::UnknownFree(addr) => {
                let is_known = self.free_unowned(thread, addr);
                self.space.tally.impossible += u64::from(!is_known);
            }
            Fact::UnknownRealloc(addr) => {
                self.free_unowned(thread, addr);
            }
            _ => {}
        }
    }

    fn footprint(&self) -> Footprint {
        self.space.footprint
    }

    fn contents(&self) -> Contents {
        let mut contents = Contents::default();
        for (_, chunk) in self.space.chunks.iter() {
            match chunk.state {
                State::Used | State::Mapped => {
                    contents.taken += chunk.size;
                    let owner = chunk.newer as usize;
                    let is_live =
                        self.space.blocks.get(owner).is_some_and(|&id| self.space.chunks[id].addr == chunk.addr);
                    contents.requested += if is_live { self.sizes[owner] } else { 0 };
                }
                State::Fence | State::Gone => {}
                State::Cached | State::Fast | State::Free | State::Top => {
                    contents.free += chunk.size;
                    contents.holes += 1;
                    contents.largest_hole = contents.largest_hole.max(chunk.size);
                }
            }
        }
        contents
    }

    fn counts(&self) -> Counts {
        let tally = self.space.tally;
        Counts {
            placements: tally.placements,
            exact: self.space.invented.is_none().then_some(tally.exact),
            failed: tally.failed,
            in_place: tally.in_place,
            growths: tally.growths,
            avoidable_growths: tally.avoidable,
            impossible: tally.impossible,
        }
    }

    fn mallinfo(&self) -> Option<MallInfo> {
        Some(self.info())
    }

    fn place_of(&self, block: BlockId) -> Option<Range<u64>> {
        let chunk = self.space.chunks[self.chunk_of(block)?];
        Some(chunk.addr..chunk.end())
    }

    fn held(&self) -> Vec<Range<u64>> {
        let mut held: Vec<Range<u64>> = Vec::new();
        for piece in self.space.pieces() {
            match held.last_mut() {
                Some(last) if last.end >= piece.start => last.end = piece.end,
                _ => held.push(piece),
            }
        }
        held
    }

    fn fork(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests;
mod tunables;
