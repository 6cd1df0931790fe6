//! A recording under a policy: going to a place in it, and back.
//!
//! A course stands between two chunks. What lies behind them in the middle of a chunk is taken into a copy: so whatever
//! way a place was reached, its events were taken in the same portions, on which it depends where a thread's end counts
//! from ([`Models::apply_all`]).

use crate::model::{ModelHeap, Models, Recipe};
use crate::recording::{Cursor, Item, Limit, Mark, Next, Reader};
use crate::server::limits;
use crate::server::player::Extent;

/// Events from one state that is kept to the next, at least.
const SPACING: u64 = 2_000_000;
/// About how many bytes a policy needs for a block, and for a heap without any.
const BLOCK_BYTES: u64 = 160;
const HEAP_BYTES: u64 = 4096;

/// A place in a recording, and what its policies made of the events before.
#[derive(Debug)]
struct Stand {
    models: Models,
    cursor: Cursor,
}

/// A state to go back to.
#[derive(Debug)]
struct Kept {
    mark: Mark,
    models: Models,
    bytes: u64,
}

/// A recording under a policy.
#[derive(Debug)]
pub(super) struct Course {
    recipe: Recipe,
    base: Stand,
    kept: Vec<Kept>,
    spacing: u64,
    most_kept: u64,
}

impl Stand {
    fn new(recipe: &Recipe, reader: &Reader) -> Self {
        Self { models: Models::new(recipe.factory()), cursor: Cursor::new(reader) }
    }

    /// Takes the next part. False when there is none within the limit.
    fn step(&mut self, reader: &Reader, limit: &Limit) -> bool {
        match self.cursor.next(reader, limit) {
            Next::Item(Item::Events(events)) => self.models.apply_all(events),
            Next::Item(Item::Layout { time, pid, layout }) => self.models.layout(time, pid, &layout),
            Next::Item(_) => {}
            Next::Beyond | Next::End => return false,
        }
        true
    }
}

impl Course {
    /// At the beginning of a recording.
    pub(super) fn new(recipe: Recipe, reader: &Reader) -> Self {
        let base = Stand::new(&recipe, reader);
        Self { recipe, base, kept: Vec::new(), spacing: SPACING, most_kept: limits::MODEL_KEPT }
    }

    /// The number of the event that comes next where it stands.
    pub(super) fn event(&self) -> u64 {
        self.base.cursor.event()
    }

    /// The most blocks that were live at once, of all heaps together.
    pub(super) fn most_blocks(&self) -> u64 {
        self.base.models.heaps().iter().filter_map(|heap| heap.heap.as_ref()).map(ModelHeap::most_blocks).sum()
    }

    /// Goes towards a place for as long as there is time; whether it is there. Those that it is given later may lie before.
    pub(super) fn approach(&mut self, reader: &Reader, extent: Extent, has_time: &mut dyn FnMut() -> bool) -> bool {
        let chunk = match extent {
            Extent::Time(time) => reader.start_of(time),
            Extent::Event(event) if event >= reader.last_event() => reader.chunk_count(),
            Extent::Event(event) => reader.chunk_of(event),
        };
        self.jump(reader, chunk);
        let limit = Limit { chunk, ..Limit::default() };
        while has_time() {
            if !self.base.step(reader, &limit) {
                return true;
            }
            if let Some(mark) = self.base.cursor.mark() {
                self.keep(mark);
            }
        }
        false
    }

    /// Looks at what the policies made of the events up to a place that was [reached](Self::approach).
    pub(super) fn look<R>(&self, reader: &Reader, extent: Extent, see: impl FnOnce(&Models, &Cursor) -> R) -> R {
        let is_exact = match extent {
            Extent::Time(time) => !self.base.cursor.has_until(reader, time),
            Extent::Event(event) => self.event() >= event,
        };
        if is_exact {
            return self.look_here(see);
        }
        let models = self.base.models.copy(self.recipe.factory());
        let mut exact = Stand { models, cursor: self.base.cursor.clone() };
        let limit = match extent {
            Extent::Time(time) => {
                exact.cursor.keep_to(0..=time);
                Limit { chunk: reader.end_of(time), ..Limit::default() }
            }
            Extent::Event(event) => Limit { event, ..Limit::default() },
        };
        while exact.step(reader, &limit) {}
        see(&exact.models, &exact.cursor)
    }

    /// Looks at where it stands on its way.
    pub(super) fn look_here<R>(&self, see: impl FnOnce(&Models, &Cursor) -> R) -> R {
        see(&self.base.models, &self.base.cursor)
    }

    /// Goes to the nearest state before a chunk, unless where it stands is nearer.
    fn jump(&mut self, reader: &Reader, chunk: usize) {
        let here = Some(self.base.cursor.chunk()).filter(|&here| here <= chunk);
        let kept = self.kept.iter().rev().find(|kept| kept.mark.chunk() <= chunk);
        match kept {
            Some(kept) if here.is_none_or(|here| here < kept.mark.chunk()) => {
                let models = kept.models.copy(self.recipe.factory());
                self.base = Stand { models, cursor: Cursor::at(&kept.mark) };
            }
            None if here.is_none() => self.base = Stand::new(&self.recipe, reader),
            _ => {}
        }
    }

    /// Keeps the state here, if it is far enough from the last one and not too large.
    fn keep(&mut self, mark: Mark) {
        let last = self.kept.last().map_or(0, |kept| kept.mark.event());
        if mark.event() < last.saturating_add(self.spacing) {
            return;
        }
        let bytes = self.most_blocks() * BLOCK_BYTES + self.base.models.heaps().len() as u64 * HEAP_BYTES;
        while self.bytes_kept() + bytes > self.most_kept {
            if self.kept.is_empty() {
                return;
            }
            // Every second one goes, the last one among them.
            let mut number = 0;
            self.kept.retain(|_| {
                number += 1;
                number % 2 == 0
            });
            self.spacing = self.spacing.saturating_mul(2);
        }
        self.kept.push(Kept { mark, models: self.base.models.copy(self.recipe.factory()), bytes });
    }

    fn bytes_kept(&self) -> u64 {
        self.kept.iter().map(|kept| kept.bytes).sum()
    }

    /// Keeps states this close together, and so many bytes of them.
    #[cfg(test)]
    pub(super) fn keep_close(&mut self, spacing: u64, most_kept: u64) {
        (self.spacing, self.most_kept) = (spacing, most_kept);
    }
}
