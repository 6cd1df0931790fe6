//! How long the blocks of each call site live, learnt in a reading before the one that needs it.

use super::listener::{Listener, Listening};
use super::policy::{BlockId, Caller, Policy, Request};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a site by what happened to them.
#[derive(Clone, Debug)]
struct Site {
    allocated: u64,
    /// Bytes freed, by the base-2 logarithm of how many bytes were allocated while they lived.
    freed: [u64; 64],
}

#[derive(Debug, Default)]
struct Known {
    sites: HashMap<u64, Site>,
    /// The most bytes that were live at once.
    peak: u64,
}

/// What is known of the lifetimes of a program's blocks. Copies share it.
///
/// The clock is the bytes that were allocated. A site's blocks are long-lived when at least half of its bytes outlive the
/// allocation of as many bytes as were ever live at once: when the heap turns over once and they are still there.
#[derive(Clone, Debug, Default)]
pub struct Lifetimes(Arc<Mutex<Known>>);

impl Lifetimes {
    /// What learns as it hears the events. It places nothing.
    pub fn learner(&self) -> Box<dyn Policy> {
        Listening::by(Learner { known: self.clone(), blocks: Vec::new(), allocated: 0, live: 0 })
    }

    /// The call sites, by return address, whose blocks live long.
    pub fn long_sites(&self) -> HashSet<u64> {
        let known = self.lock();
        let turnover = known.peak.max(1).ilog2() as usize;
        let is_long = |site: &Site| site.allocated / 2 >= site.freed[..=turnover].iter().sum::<u64>();
        known.sites.iter().filter(|(_, site)| is_long(site)).map(|(&address, _)| address).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Sums stay sums whatever happened to who held them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A live block.
#[derive(Clone, Copy, Debug)]
struct Born {
    site: u64,
    size: u64,
    /// Bytes allocated before it.
    at: u64,
}

#[derive(Clone, Debug)]
struct Learner {
    known: Lifetimes,
    blocks: Vec<Option<Born>>,
    allocated: u64,
    live: u64,
}

impl Listener for Learner {
    fn allocated(&mut self, caller: &Caller, block: BlockId, request: &Request, _observed: u64) {
        if self.blocks.len() <= block.index() {
            self.blocks.resize(block.index() + 1, None);
        }
        let size = request.size.max(1);
        self.blocks[block.index()] = Some(Born { site: caller.site, size, at: self.allocated });
        self.allocated = self.allocated.saturating_add(size);
        self.live = self.live.saturating_add(size);
        let mut known = self.known.lock();
        known.peak = known.peak.max(self.live);
        let of_site = known.sites.entry(caller.site).or_insert(Site { allocated: 0, freed: [0; 64] });
        of_site.allocated = of_site.allocated.saturating_add(size);
    }

    fn freed(&mut self, _caller: &Caller, block: BlockId) {
        let Some(born) = self.blocks.get_mut(block.index()).and_then(Option::take) else { return };
        self.live = self.live.saturating_sub(born.size);
        let age = (self.allocated - born.at).max(1).ilog2() as usize;
        if let Some(site) = self.known.lock().sites.get_mut(&born.site) {
            site.freed[age] = site.freed[age].saturating_add(born.size);
        }
    }

    fn resized(&mut self, caller: &Caller, block: BlockId, request: &Request, observed: u64) {
        self.freed(caller, block);
        self.allocated(caller, block, request, observed);
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::classic::{Classic, lifetimes};
    use memfrag_common::Function;

    fn request(size: u64) -> Request {
        Request { size, align_log2: 0, function: Function::Malloc }
    }

    /// A cache that fills while work comes and goes: every 20th block stays, of a site of its own. Says what the policy
    /// holds once the work is done.
    fn drive(policy: &mut dyn Policy) -> (u64, u64) {
        let (work, cache) = (Caller { site: 1, ..Caller::default() }, Caller { site: 2, ..Caller::default() });
        for round in 0..20 {
            for number in 0..1000 {
                policy.allocate(&work, BlockId(number), &request(900 + u64::from(number % 7) * 16), 0);
                if number % 20 == 0 {
                    policy.allocate(&cache, BlockId(1000 + round * 50 + number / 20), &request(500), 0);
                }
            }
            for number in 0..1000 {
                policy.free(&work, BlockId(number));
            }
        }
        (policy.footprint().now, policy.footprint().peak)
    }

    #[test]
    fn sites_that_outlive_a_turnover_are_long() {
        let known = Lifetimes::default();
        drive(known.learner().as_mut());
        assert_eq!(known.long_sites(), HashSet::from([2]));
    }

    #[test]
    fn what_goes_early_and_what_stays_do_not_mix() {
        let known = Lifetimes::default();
        drive(known.learner().as_mut());
        let (apart, peak) = drive(lifetimes(known.long_sites()).as_mut());
        let (mixed, _) = drive(Classic::find("first-fit").expect("there").make().as_mut());
        let live = 20 * 50 * 500;
        assert!((live..live + live / 20).contains(&apart), "{apart} held for {live}");
        assert!(mixed > 2 * apart, "{mixed} mixed, {apart} apart");
        assert!(peak >= live + 900_000, "{peak}");
    }

    #[test]
    fn without_knowledge_it_is_first_fit() {
        let apart = drive(lifetimes(HashSet::new()).as_mut());
        assert_eq!(apart, drive(Classic::find("first-fit").expect("there").make().as_mut()));
    }
}
