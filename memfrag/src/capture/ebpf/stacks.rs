//! The stacks that the BPF programs tell, made the tree of frames that recordings have.
//!
//! What comes with a copy is walked here to its end, and the rules that it took go into the programs' map: the next walk
//! by the same return addresses needs no copy.

use super::code::Code;
use super::images::Images;
use anyhow::{Context, Result};
use aya::maps::{HashMap as BpfMap, MapData};
use memfrag_common::stacks::{Frame, NODES, UNKNOWN};
use memfrag_common::told::{COPY, End, FRAMES, Header, NO_RULE, PAGE, Place, RULES, STACKS};
use memfrag_common::unwind::{Memory, Registers, Rule, Step, step};
use std::collections::HashMap;

/// The stacks of a trace.
#[derive(Debug)]
pub(super) struct Stacks {
    tree: Tree,
    /// The node of each number that was told.
    numbers: Vec<u32>,
    /// The node of the stack that a thread's next event names.
    copied: HashMap<u32, u32>,
    /// Where it is walked by rules.
    rules: Option<Rules>,
    /// Frames that nobody was told of yet.
    fresh: Vec<Frame>,
    /// Stacks without their outer frames, and those that are not known at all, as far as it was found here.
    pub(super) cut: u64,
    pub(super) lost: u64,
}

impl Stacks {
    /// `rules` is the programs' map, where they walk by rules.
    pub(super) fn new(rules: Option<BpfMap<MapData, [u64; 2], u64>>) -> Self {
        Self {
            tree: Tree::default(),
            numbers: Vec::new(),
            copied: HashMap::new(),
            rules: rules.map(|map| Rules { map, known: HashMap::new(), code: Code::default() }),
            fresh: Vec::new(),
            cut: 0,
            lost: 0,
        }
    }

    /// Takes a stack from the ring. `None` when it is none.
    pub(super) fn take(&mut self, bytes: &[u8], images: &mut Images) -> Option<()> {
        let (header, frames, pages) = Header::read(bytes)?;
        let mut found: Vec<u64> = frames.as_chunks().0.iter().map(|&frame| u64::from_ne_bytes(frame)).collect();
        if found.len() > FRAMES {
            return None;
        }
        let is_copy = header.number == COPY;
        let is_whole = if is_copy {
            let is_whole = self.rules.as_mut()?.walk(&header, &mut found, pages, images);
            self.cut += u64::from(!is_whole);
            is_whole
        } else {
            header.end == End::Outermost as u32
        };
        let node = self.tree.node(&found, is_whole, &mut self.fresh);
        if is_copy {
            self.copied.insert(header.tid, node);
        } else if header.number < STACKS {
            let number = header.number as usize;
            if self.numbers.len() <= number {
                self.numbers.resize(number + 1, 0);
            }
            self.numbers[number] = node;
        } else {
            return None;
        }
        Some(())
    }

    /// The number in the recording of the stack that an event of the thread names.
    pub(super) fn number(&mut self, tid: u32, name: u32) -> u32 {
        let node = match name {
            0 => return 0,
            COPY => self.copied.remove(&tid),
            number => self.numbers.get(number as usize).copied(),
        };
        let node = node.unwrap_or(0);
        self.lost += u64::from(node == 0);
        node
    }

    /// The frames that were not given before.
    pub(super) fn fresh(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.fresh)
    }
}

/// Every stack that was met, as a path from the outermost frame inwards.
#[derive(Debug, Default)]
struct Tree {
    /// The number of the node for an address below another node.
    nodes: HashMap<(u32, u64), u32>,
}

impl Tree {
    /// The number of a stack, given from the inside; 0 when there is no more room.
    fn node(&mut self, frames: &[u64], is_whole: bool, fresh: &mut Vec<Frame>) -> u32 {
        let outermost = if is_whole { None } else { Some(&UNKNOWN) };
        let mut parent = 0;
        for &address in outermost.into_iter().chain(frames.iter().rev()) {
            let room = u32::try_from(self.nodes.len()).ok().filter(|&taken| taken < NODES);
            parent = match (self.nodes.get(&(parent, address)), room) {
                (Some(&number), _) => number,
                (None, Some(taken)) => {
                    let number = taken + 1;
                    self.nodes.insert((parent, address), number);
                    fresh.push(Frame { number, parent, address });
                    number
                }
                (None, None) => return 0,
            };
        }
        parent
    }
}

/// The rules of all return addresses that were met.
#[derive(Debug)]
struct Rules {
    map: BpfMap<MapData, [u64; 2], u64>,
    known: HashMap<Place, Option<Rule>>,
    code: Code,
}

/// What was copied of a stack.
struct Copied<'a> {
    sp: u64,
    pages: &'a [u8],
}

impl Memory for Copied<'_> {
    fn word(&self, address: u64) -> Option<u64> {
        if address & 7 != 0 || address < self.sp {
            return None;
        }
        let offset = usize::try_from(address - (self.sp & !(PAGE as u64 - 1))).ok()?;
        Some(u64::from_ne_bytes(*self.pages.get(offset..)?.first_chunk()?))
    }
}

impl Rules {
    /// Walks on from where the programs did not know how; tells whether it came to the outermost frame.
    fn walk(&mut self, header: &Header, found: &mut Vec<u64>, pages: &[u8], images: &mut Images) -> bool {
        let memory = Copied { sp: header.at.sp, pages };
        let mut at: Registers = header.at;
        let mut asked = true;
        while found.len() < FRAMES {
            let rule = self.rule(header, at.pc, asked, images);
            asked = false;
            found.push(at.pc);
            match rule.map(|rule| step(rule, at, &memory)) {
                Some(Step::Caller { registers, .. }) => at = registers,
                Some(Step::Outermost) => return true,
                Some(Step::Lost) | None => break,
            }
        }
        false
    }

    /// The rule for a return address, which the programs are told if they do not know it.
    fn rule(&mut self, header: &Header, pc: u64, asked: bool, images: &mut Images) -> Option<Rule> {
        let place = Place { pc, space: header.space };
        let known = self.known.get(&place).copied();
        let is_new = known.is_none();
        let rule = known.unwrap_or_else(|| {
            let mapping = images.code(header.pid, header.space, pc.checked_sub(1)?)?;
            self.code.rule(header.pid, &mapping, pc)
        });
        // A rule that is too large for the programs is none.
        let rule = rule.filter(|rule| rule.pack().is_some());
        if is_new {
            if self.known.len() >= RULES as usize {
                self.known.clear();
            }
            self.known.insert(place, rule);
        }
        // They forget those that they have not used for long, and ask again.
        if is_new || asked {
            let packed = rule.and_then(Rule::pack).unwrap_or(NO_RULE);
            // Where it cannot be put in, they ask again as well.
            let _ = self.map.insert([pc, header.space], packed, 0);
        }
        rule
    }
}

/// The programs' map of rules.
///
/// # Errors
/// When it is another kind of map.
pub(super) fn rules(map: aya::maps::Map) -> Result<BpfMap<MapData, [u64; 2], u64>> {
    BpfMap::try_from(map).context("the map of rules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_share_the_frames_that_they_have_in_common() {
        let (mut tree, mut fresh) = (Tree::default(), Vec::new());
        let left = tree.node(&[30, 20, 10], true, &mut fresh);
        let right = tree.node(&[31, 20, 10], true, &mut fresh);
        let cut = tree.node(&[30, 20, 10], false, &mut fresh);
        assert_eq!(tree.node(&[30, 20, 10], true, &mut fresh), left);
        assert!(left != right && left != cut && right != cut);
        let frame = |number, parent, address| Frame { number, parent, address };
        let told = [
            frame(1, 0, 10),
            frame(2, 1, 20),
            frame(3, 2, 30),
            frame(4, 2, 31),
            frame(5, 0, UNKNOWN),
            frame(6, 5, 10),
            frame(7, 6, 20),
            frame(8, 7, 30),
        ];
        assert_eq!(fresh, told);
        assert_eq!(tree.node(&[], true, &mut fresh), 0);
    }

    #[test]
    fn of_a_copied_stack_only_what_was_copied_is_read() {
        let mut pages = vec![0; 2 * PAGE];
        pages[PAGE - 8..PAGE].copy_from_slice(&7u64.to_ne_bytes());
        let memory = Copied { sp: 0x7000_0ff8, pages: &pages };
        assert_eq!(memory.word(0x7000_0ff8), Some(7));
        assert_eq!(memory.word(0x7000_1ff8), Some(0));
        for address in [0, 0x7000_0ff0, 0x7000_0ff9, 0x7000_2000, u64::MAX - 7, u64::MAX] {
            assert_eq!(memory.word(address), None, "{address:#x}");
        }
        assert_eq!(Copied { sp: 0x1000, pages: &[] }.word(0x1000), None);
    }

    #[test]
    fn what_nobody_told_is_lost_and_counted() {
        let (mut stacks, mut images) = (Stacks::new(None), Images::default());
        assert_eq!((stacks.number(1, 0), stacks.lost), (0, 0));
        assert_eq!((stacks.number(1, 5), stacks.number(1, COPY), stacks.lost), (0, 0, 2));
        let at = Registers { pc: 0, sp: 0, fp: 0 };
        let header = Header { number: 5, frames: 1, pid: 1, tid: 1, end: 0, pages: 0, space: 0, at };
        let halves = [header.number, header.frames, header.pid, header.tid, header.end, header.pages];
        let mut bytes: Vec<u8> = halves.iter().flat_map(|half| half.to_ne_bytes()).collect();
        bytes.resize(Header::SIZE, 0);
        bytes.extend(0x1234u64.to_ne_bytes());
        assert_eq!(stacks.take(&bytes, &mut images), Some(()));
        assert_eq!((stacks.number(1, 5), stacks.lost), (1, 2));
        assert_eq!(stacks.fresh(), [Frame { number: 1, parent: 0, address: 0x1234 }]);
        // A copy where nobody walks by rules, and what is no stack at all.
        bytes[..4].copy_from_slice(&COPY.to_ne_bytes());
        assert_eq!(stacks.take(&bytes, &mut images), None);
        assert_eq!(stacks.take(&bytes[..50], &mut images), None);
    }
}
