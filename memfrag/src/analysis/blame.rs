//! Whose blocks keep free memory: owners ranked by what would be returned without them.

use super::census::{ALLOCATOR, CACHED, Census, FIRST_OWNER, UNTRACKED};
use super::partition::{Key, Partition};
use super::resident::ResidentPages;
use super::sweep::{MOST_OWNERS, Outcome, Sweep};
use crate::heap::Amount;

/// What one owner accounts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Who.
    pub owner: Owner,
    /// What it holds.
    pub live: Amount,
    /// Its share of the free bytes that are resident and stay so.
    pub stranded_bytes: u64,
    /// What would be returned if its blocks were freed and the heap trimmed, less what trimming returns now. Its
    /// mapped chunks are part of it.
    pub release_bytes: i64,
    /// Resident bytes of whole pages that would join the top of an arena other than the main one. Trimming leaves
    /// those; free itself returns them when the top exceeds the trim threshold.
    pub joins_top_bytes: u64,
}

impl Share {
    /// Bytes returned for each byte that it holds; `None` when it holds none.
    pub fn amplification(&self) -> Option<f64> {
        (self.live.bytes > 0).then(|| self.release_bytes as f64 / self.live.bytes as f64)
    }
}

/// Who holds memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The allocator's own notes.
    Allocator,
    /// Freed blocks in threads' caches.
    Cached,
    /// Blocks in use that the trace does not know.
    Untracked,
    /// Blocks of the program.
    Key(Key),
}

/// A whole partition's blame.
#[derive(Clone, Debug, Default)]
pub struct Blame {
    /// The owners, the largest release first.
    pub shares: Vec<Share>,
    /// What trimming returns now.
    pub trim_yield_bytes: u64,
    /// Free bytes that are resident and that trimming leaves.
    pub stuck_bytes: u64,
    /// Of these, the whole pages in the tops of arenas other than the main one: nobody pins them.
    pub kept_tops_bytes: u64,
    /// Resident pages that stay, by how many owners reach into them; see [`Outcome::pages_by_owners`].
    pub pages_by_owners: [u64; MOST_OWNERS + 1],
    /// Blocks that the layout contradicts.
    pub contradicted: Amount,
    /// Blocks outside of everything that the layout knows.
    pub elsewhere: Amount,
}

/// A step of an order in which to free owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whom to free next.
    pub owner: Owner,
    /// What all owners up to this one release together.
    pub release_bytes: i64,
}

/// Ranks the owners of a partition of the census's blocks.
pub fn blame(census: &Census<'_>, pages: &ResidentPages, partition: &Partition) -> Blame {
    let outcome = pass(census, pages, partition, &[]);
    let strays = census.strays();
    let mut elsewhere = Amount::default();
    strays.elsewhere.iter().for_each(|&at| elsewhere.add(census.blocks()[at as usize].size));
    let mut shares = shares(&outcome, partition);
    for (owner, bytes) in mapped_releases(census, pages, partition) {
        shares[owner as usize].release_bytes += bytes.cast_signed();
    }
    shares.retain(|share| {
        share.live.blocks > 0 || share.stranded_bytes > 0 || share.release_bytes != 0 || share.joins_top_bytes > 0
    });
    shares.sort_by(|one, other| rank(one).cmp(&rank(other)));
    Blame {
        trim_yield_bytes: outcome.returned,
        stuck_bytes: outcome.stuck(),
        kept_tops_bytes: outcome.kept_tops,
        pages_by_owners: outcome.pages_by_owners,
        contradicted: strays.contradicted,
        elsewhere,
        shares,
    }
}

/// The largest release first; among equals what strands more, then what holds more, then by key, so that the order is
/// always the same.
fn rank(share: &Share) -> impl Ord + use<'_> {
    use std::cmp::Reverse;
    let key = match &share.owner {
        Owner::Key(key) => Some(key),
        _ => None,
    };
    (Reverse(share.release_bytes), Reverse(share.stranded_bytes), Reverse(share.live.bytes), key)
}

/// An order in which to free owners, at most `steps` of them: at each step the one that releases most together with
/// those before it, or strands most while none releases anything. Each step takes a pass. Nothing says that it is
/// the best order: pages with several owners go only when the last of them goes.
pub fn order(census: &Census<'_>, pages: &ResidentPages, partition: &Partition, steps: usize) -> Vec<Step> {
    let mut chosen = vec![false; partition.owners()];
    let mut order = Vec::new();
    let mut mapped = vec![0; partition.owners()];
    mapped_releases(census, pages, partition).for_each(|(owner, bytes)| mapped[owner as usize] += bytes.cast_signed());
    let mut base = None;
    let mut mapped_so_far = 0;
    for _ in 0..steps {
        let outcome = pass(census, pages, partition, &chosen);
        let now = outcome.returned.cast_signed();
        let base = *base.get_or_insert(now);
        let stranded = outcome.stranded();
        let candidates = (FIRST_OWNER as usize..partition.owners()).filter(|&owner| !chosen[owner]);
        let gain = |owner: usize| outcome.tallies[owner].release + mapped[owner];
        let Some(best) = candidates.max_by_key(|&owner| (gain(owner), stranded[owner])) else { break };
        if gain(best) <= 0 && stranded[best] == 0 {
            break;
        }
        chosen[best] = true;
        mapped_so_far += mapped[best];
        let release = now - base + outcome.tallies[best].release + mapped_so_far;
        order.push(Step { owner: owner(partition, best), release_bytes: release });
    }
    // Steps that lead nowhere in the end are not worth telling.
    while let [.., before, last] = &order[..]
        && last.release_bytes <= before.release_bytes
    {
        order.pop();
    }
    order
}

fn pass(census: &Census<'_>, pages: &ResidentPages, partition: &Partition, freed: &[bool]) -> Outcome {
    let owner_of = |block: u32| {
        let owner = partition.owner(block);
        (!freed.get(owner as usize).is_some_and(|&freed| freed)).then_some(owner)
    };
    let mut sweep = Sweep::new(pages, census.rule(), partition.owners());
    census.sweep(&mut sweep, owner_of);
    sweep.finish()
}

/// What freeing mapped chunks returns, by owner: such a chunk is unmapped at once.
fn mapped_releases<'a>(
    census: &'a Census<'_>,
    pages: &'a ResidentPages,
    partition: &'a Partition,
) -> impl Iterator<Item = (u32, u64)> + 'a {
    census.layout().mapped.iter().map(|mapped| {
        let owner = census.mapped_block(mapped).map_or(UNTRACKED, |block| partition.owner(block));
        (owner, pages.bytes_in(mapped.address..mapped.address.saturating_add(mapped.bytes)))
    })
}

fn owner(partition: &Partition, number: usize) -> Owner {
    match number as u32 {
        ALLOCATOR => Owner::Allocator,
        CACHED => Owner::Cached,
        UNTRACKED => Owner::Untracked,
        number => Owner::Key(partition.keys()[(number - FIRST_OWNER) as usize].clone()),
    }
}

fn shares(outcome: &Outcome, partition: &Partition) -> Vec<Share> {
    let stranded = outcome.stranded();
    let live = |number: usize| match number.checked_sub(FIRST_OWNER as usize) {
        Some(at) => partition.live()[at],
        None if number as u32 == UNTRACKED => partition.older(),
        None => Amount::default(),
    };
    let tallies = outcome.tallies.iter().zip(stranded).enumerate();
    tallies
        .map(|(number, (tally, stranded_bytes))| Share {
            owner: owner(partition, number),
            live: live(number),
            stranded_bytes,
            release_bytes: tally.release,
            joins_top_bytes: tally.joins_top,
        })
        .collect()
}
