//! Who listens to the requests of a heap without placing anything: what learns of blocks, and what plans their replay.

use super::policy::{BlockId, Caller, Contents, Counts, Fact, Footprint, Policy, Request};
use std::fmt;
use std::ops::Range;

/// Hears of every request of one heap, in order. Blocks are named as for a [`Policy`].
pub trait Listener: fmt::Debug + Send + Sized + 'static {
    /// A block was asked for, and the real allocator has placed it at `observed`.
    fn allocated(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64);

    /// A block was freed.
    fn freed(&mut self, caller: &Caller, block: BlockId);

    /// A block's size was changed, and the real allocator has put it to `observed`, which may be where it was.
    fn resized(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64);

    /// What else the stream tells.
    fn learned(&mut self, _caller: &Caller, _fact: Fact<'_>) {}

    /// Who listens to the copy of the heap that a forked process goes on with: nobody, unless the listener says otherwise.
    fn fork(&self) -> Option<Self> {
        None
    }
}

/// A listener, or nobody, in the place of a policy: it serves no request and holds nothing.
#[derive(Debug)]
pub struct Listening<L>(Option<L>);

impl<L: Listener> Listening<L> {
    /// For a heap that somebody listens to.
    pub fn by(listener: L) -> Box<dyn Policy> {
        Box::new(Self(Some(listener)))
    }

    /// For a heap that nobody listens to.
    pub fn by_nobody() -> Box<dyn Policy> {
        Box::new(Self(None))
    }
}

impl<L: Listener> Policy for Listening<L> {
    fn name(&self) -> &'static str {
        "listener"
    }

    fn allocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        self.0.as_mut()?.allocated(caller, block, request, observed);
        None
    }

    fn free(&mut self, caller: &Caller, block: BlockId) {
        if let Some(listener) = &mut self.0 {
            listener.freed(caller, block);
        }
    }

    fn reallocate(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) -> Option<u64> {
        self.0.as_mut()?.resized(caller, block, request, observed);
        None
    }

    fn learn(&mut self, caller: &Caller, fact: Fact<'_>) {
        if let Some(listener) = &mut self.0 {
            listener.learned(caller, fact);
        }
    }

    fn footprint(&self) -> Footprint {
        Footprint::default()
    }

    fn contents(&self) -> Contents {
        Contents::default()
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }

    fn place_of(&self, _block: BlockId) -> Option<Range<u64>> {
        None
    }

    fn fork(&self) -> Box<dyn Policy> {
        Box::new(Self(self.0.as_ref().and_then(Listener::fork)))
    }
}
