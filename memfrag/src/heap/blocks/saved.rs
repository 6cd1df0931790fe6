//! Live blocks as a checkpoint holds them: in columns, and of two sets that share much only what differs.

use super::region::{Region, Slots};
use super::{Block, Blocks, MAX_SIZE, SPAN_BITS};
use crate::heap::OriginId;
use crate::recording::{Input, Saved, put, saved};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most blocks whose columns lie together.
const GROUP: usize = 1 << 16;

saved!(Block { addr: u64, size: Size, time: u64, thread: u32, origin: OriginId });

/// A size that a block can have.
struct Size;

impl Size {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as all are saved")]
    fn save(size: &u64, out: &mut Vec<u8>) {
        put(out, *size);
    }

    fn load(input: &mut Input<'_>) -> Option<u64> {
        input.varint().filter(|&size| size <= MAX_SIZE)
    }
}

impl Blocks {
    /// Appends all blocks; where `base` has most of them, only the difference.
    pub(in crate::heap) fn save(&self, base: Option<&Self>, out: &mut Vec<u8>) {
        match base.and_then(|base| self.difference(base)) {
            Some((gone, new)) => save_difference(&gone, new, out),
            None => save_all(self.by_address(), out),
        }
    }

    /// What [`Self::save`] wrote with the same `base`; only blocks that are `known`.
    pub(in crate::heap) fn load(
        input: &mut Input<'_>,
        base: Option<&mut Self>,
        known: impl Fn(&Block) -> bool,
    ) -> Option<Self> {
        let mut blocks = Self::default();
        if bool::load(input)? {
            blocks = base?.fork();
            let mut last = 0_u64;
            for _ in 0..input.varint()? {
                last = last.checked_add(input.varint()?)?;
                blocks.remove(last)?;
            }
        }
        let mut last = 0;
        let mut group = Vec::new();
        while load_group(input, &mut last, &mut group)? {
            for block in &group {
                blocks.insert(block);
            }
        }
        // All of them: what came from the base is known there, by another heap's origins perhaps.
        let are_known = blocks.iter().all(|block| known(&block));
        are_known.then_some(blocks)
    }

    /// The addresses of `base` that these blocks lack, and the blocks that are others there or none; both upwards.
    /// `None` where that is more than the blocks are.
    fn difference(&self, base: &Self) -> Option<(Vec<u64>, Vec<Block>)> {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        let numbers: BTreeSet<u64> = self.spans.iter().chain(base.spans.iter()).map(|(number, _)| number).collect();
        for number in numbers {
            let (own, bases) = (self.spans.get(number), base.spans.get(number));
            for place in 0..1 << SPAN_BITS {
                let own = own.map(|span| &span[place]).filter(|region| region.len > 0);
                let bases = bases.map(|span| &span[place]).filter(|region| region.len > 0);
                if own.zip(bases).is_some_and(|(own, bases)| own.is_same(bases)) {
                    continue;
                }
                let number = (number << SPAN_BITS) + place as u64;
                let own = own.map_or_else(Vec::new, |region| region.sorted(number));
                let bases = bases.map_or_else(Vec::new, |region| region.sorted(number));
                compare(&own, &bases, &mut gone, &mut new);
            }
            if (gone.len() + new.len()) as u64 > self.len {
                return None;
            }
        }
        Some((gone, new))
    }
}

impl Region {
    /// Whether both are handles on the same slots.
    fn is_same(&self, other: &Self) -> bool {
        matches!((&self.slots, &other.slots), (Slots::Shared(own), Slots::Shared(others)) if Arc::ptr_eq(own, others))
    }

    fn sorted(&self, number: u64) -> Vec<Block> {
        let mut blocks: Vec<Block> = self.taken().map(|(_, slot)| slot.block(number)).collect();
        blocks.sort_unstable_by_key(|block| block.addr);
        blocks
    }
}

/// Compares two sorted lists.
fn compare(own: &[Block], base: &[Block], gone: &mut Vec<u64>, new: &mut Vec<Block>) {
    let mut base = base.iter().peekable();
    for block in own {
        while let Some(before) = base.next_if(|other| other.addr < block.addr) {
            gone.push(before.addr);
        }
        if base.next_if(|other| other.addr == block.addr) != Some(block) {
            new.push(*block);
        }
    }
    gone.extend(base.map(|block| block.addr));
}

/// Appends what leads from other blocks to those that are saved: the addresses of the others that these lack, and the
/// blocks that are others there or none; both upwards.
pub(in crate::heap) fn save_difference(gone: &[u64], new: Vec<Block>, out: &mut Vec<u8>) {
    true.save(out);
    put(out, gone.len() as u64);
    let mut last = 0;
    for &addr in gone {
        put(out, addr - last);
        last = addr;
    }
    save_blocks(new.into_iter(), out);
}

/// Appends all blocks, in ascending order of their addresses.
pub(in crate::heap) fn save_all(blocks: impl IntoIterator<Item = Block>, out: &mut Vec<u8>) {
    false.save(out);
    save_blocks(blocks.into_iter(), out);
}

/// Appends blocks in ascending order of their addresses.
fn save_blocks(mut blocks: impl Iterator<Item = Block>, out: &mut Vec<u8>) {
    let (mut last, mut group) = (0, Vec::new());
    loop {
        group.clear();
        group.extend(blocks.by_ref().take(GROUP));
        put(out, group.len() as u64);
        if group.is_empty() {
            return;
        }
        for block in &group {
            put(out, block.addr - last);
            last = block.addr;
        }
        for block in &group {
            put(out, block.size);
        }
        // A heap is filled from below: neighbours are mostly of about one time.
        let mut before = 0_u64;
        for block in &group {
            block.time.wrapping_sub(before).cast_signed().save(out);
            before = block.time;
        }
        for block in &group {
            block.thread.save(out);
        }
        for block in &group {
            block.origin.save(out);
        }
    }
}

/// Fills `group` with the next blocks behind the address `last`; false at their end.
fn load_group(input: &mut Input<'_>, last: &mut u64, group: &mut Vec<Block>) -> Option<bool> {
    group.clear();
    let count = usize::try_from(input.varint()?).ok().filter(|&count| count <= GROUP)?;
    for _ in 0..count {
        let step = input.varint().filter(|&step| step > 0)?;
        *last = last.checked_add(step)?;
        group.push(Block { addr: *last, size: 0, time: 0, thread: 0, origin: OriginId::UNSEEN });
    }
    for block in group.iter_mut() {
        block.size = Size::load(input)?;
    }
    let mut before = 0_u64;
    for block in group.iter_mut() {
        before = before.wrapping_add(i64::load(input)?.cast_unsigned());
        block.time = before;
    }
    for block in group.iter_mut() {
        block.thread = Saved::load(input)?;
    }
    for block in group.iter_mut() {
        block.origin = Saved::load(input)?;
    }
    Some(count > 0)
}
