//! What blocks take beyond what was requested.

use super::block::{Block, Tag};
use std::collections::BTreeMap;

/// The blocks of a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagPadding {
    /// The tag.
    pub tag: Tag,
    /// Live blocks.
    pub blocks: u64,
    /// Bytes requested.
    pub requested: u64,
    /// Bytes taken.
    pub taken: u64,
}

/// What blocks take beyond what was requested, in all and by tag; by block it is [`Block::padding`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// Bytes requested.
    pub requested: u64,
    /// Bytes taken.
    pub taken: u64,
    /// By tag, those with most requested bytes first.
    pub tags: Vec<TagPadding>,
}

impl Padding {
    pub(super) fn of(blocks: &[Block]) -> Self {
        let mut tags: BTreeMap<Tag, TagPadding> = BTreeMap::new();
        for block in blocks {
            let tag = tags.entry(block.tag).or_insert(TagPadding { tag: block.tag, ..TagPadding::default() });
            tag.blocks += 1;
            tag.requested += block.requested;
            tag.taken += block.size;
        }
        let mut tags: Vec<_> = tags.into_values().collect();
        tags.sort_by_key(|tag| std::cmp::Reverse(tag.requested));
        Self {
            requested: tags.iter().map(|tag| tag.requested).sum(),
            taken: tags.iter().map(|tag| tag.taken).sum(),
            tags,
        }
    }

    /// Bytes taken and not requested.
    pub const fn wasted(&self) -> u64 {
        self.taken - self.requested
    }

    /// Requested of taken bytes, 1 without any.
    pub fn efficiency(&self) -> f64 {
        if self.taken == 0 { 1.0 } else { self.requested as f64 / self.taken as f64 }
    }
}
