//! A thread that enters and leaves frames, its stack walked by what is remembered and without.

use super::*;
use crate::stacks::{Bucket, Handed, LEVELS, Node};
use crate::unwind::{Cfa, FramePointer};

const TOP: u64 = 0x7fff_0000;
const WORDS: usize = 4096;

/// A stack that grows down from [`TOP`], of which what lies below the stack pointer must not be read.
struct Stack {
    words: Vec<u64>,
    low: Cell<u64>,
}

impl Stack {
    fn set(&mut self, address: u64, value: u64) {
        self.words[((TOP - address) / 8) as usize - 1] = value;
    }
}

impl Memory for Stack {
    fn word(&self, address: u64) -> Option<u64> {
        let readable = address.is_multiple_of(8) && (self.low.get()..TOP).contains(&address);
        readable.then(|| self.words[((TOP - address) / 8) as usize - 1])
    }
}

/// A place in the code tells its own rule: how large the frame is, and what the function does with the frame pointer.
fn rules(pc: u64) -> Option<Rule> {
    let size = 16 + (pc >> 4 & 7) as i32 * 8;
    let saved = FramePointer::Cfa(-16);
    match pc & 7 {
        0 => Some(Rule::Outermost),
        1 | 2 => Some(Rule::Caller { cfa: Cfa::Sp(size), fp: FramePointer::Same }),
        3 => Some(Rule::Caller { cfa: Cfa::Sp(size), fp: saved }),
        4 | 5 => Some(Rule::FRAME_POINTER),
        6 => Some(Rule::Caller { cfa: Cfa::AtFp(-8), fp: FramePointer::Fp(0) }),
        _ => None,
    }
}

fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ *state >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ mixed >> 27
}

/// A thread: its frames from the outermost on, each with the registers that its caller had.
struct Thread {
    stack: Stack,
    at: Registers,
    callers: Vec<Registers>,
}

impl Thread {
    fn new() -> Self {
        let at = Registers { pc: 0x1000, sp: TOP - 64, fp: 0 };
        Self { stack: Stack { words: vec![0; WORDS], low: Cell::new(0) }, at, callers: Vec::new() }
    }

    /// The function at work calls another one, which goes as far as `pc`.
    fn call(&mut self, pc: u64) {
        let caller = self.at;
        let size = 16 + (pc >> 4 & 7) * 8;
        let cfa = if pc & 7 == 6 { (caller.sp - 24) & !31 } else { caller.sp };
        if cfa < TOP - (WORDS as u64 - 64) * 8 {
            return;
        }
        self.stack.set(caller.sp - 8, caller.pc);
        self.at = Registers { pc, sp: cfa - size - 32, fp: caller.fp };
        match pc & 7 {
            1 | 2 => self.at.sp = caller.sp - size,
            3 => {
                self.stack.set(caller.sp - 16, caller.fp);
                self.at = Registers { pc, sp: caller.sp - size, fp: pc };
            }
            4 | 5 => {
                self.stack.set(caller.sp - 16, caller.fp);
                self.at.fp = caller.sp - 16;
            }
            6 => {
                self.at.fp = cfa - 8;
                self.stack.set(cfa - 8, caller.fp);
                self.stack.set(cfa - 16, caller.sp);
            }
            _ => {}
        }
        self.callers.push(caller);
    }

    fn leave(&mut self) {
        if let Some(caller) = self.callers.pop() {
            self.at = caller;
        }
    }
}

struct Room {
    handed: Handed,
    levels: [Vec<Bucket>; LEVELS.len()],
    nodes: Vec<Node>,
}

impl Room {
    fn new(nodes: usize) -> Self {
        let levels = [16, 64, 256, 4096].map(|buckets| (0..buckets).map(|_| Bucket::default()).collect());
        Self { handed: Handed::default(), levels, nodes: (0..nodes).map(|_| Node::default()).collect() }
    }

    fn table(&self) -> Table<'_> {
        Table::new(&self.handed, self.levels.each_ref().map(Vec::as_slice), &self.nodes)
    }
}

/// The addresses of a numbered stack, innermost first.
fn addresses(table: &Table<'_>, number: u32) -> Vec<u64> {
    let mut found = Vec::new();
    let mut at = number;
    while let Some(frame) = table.get(at) {
        found.push(frame.address);
        at = frame.parent;
    }
    found
}

/// A walk by the definition.
fn brute(start: Registers, memory: &Stack) -> Vec<u64> {
    let (mut found, mut at) = (Vec::new(), start);
    loop {
        found.push(at.pc);
        match rules(at.pc).map_or(Step::Lost, |rule| step(rule, at, memory)) {
            Step::Caller { registers, .. } if found.len() < DEPTH => at = registers,
            Step::Outermost => return found,
            _ => {
                found.push(UNKNOWN);
                return found;
            }
        }
    }
}

/// Places that lead on, mostly.
fn place(seed: &mut u64) -> u64 {
    let value = random(seed);
    let kind = if value.is_multiple_of(61) { 7 } else { 1 + value % 6 };
    0x10_0000 + (value >> 8 & 0xff) * 16 + kind
}

#[test]
fn what_is_remembered_never_changes_a_walk() {
    let (mut whole, mut cut) = (0, 0);
    for seed in 1..40 {
        let room = Room::new(200_000);
        let table = room.table();
        let mut seed = seed;
        let mut thread = Thread::new();
        let walk = Walk::default();
        for _ in 0..1500 {
            match random(&mut seed) % 16 {
                0..6 => thread.call(place(&mut seed)),
                6..11 => thread.leave(),
                11 => (0..random(&mut seed) % 30).for_each(|_| thread.leave()),
                // A frame goes on to another place, or something is written where a frame is.
                12 => thread.at.pc = thread.at.pc & 7 | place(&mut seed) & !0x7f | thread.at.pc & 0x70,
                13 if random(&mut seed).is_multiple_of(8) && thread.at.sp < TOP - 64 => {
                    let places = (TOP - thread.at.sp) / 8;
                    let at = thread.at.sp + random(&mut seed) % places * 8;
                    let value = if random(&mut seed).is_multiple_of(2) {
                        place(&mut seed)
                    } else {
                        at + random(&mut seed) % 256
                    };
                    thread.stack.set(at, value);
                }
                _ => {}
            }
            thread.stack.low.set(thread.at.sp);
            let expected = brute(thread.at, &thread.stack);
            let walked = walk.number(thread.at, 0, &thread.stack, rules, &table);
            assert_eq!(addresses(&table, walked.number), expected);
            assert_eq!((walked.cut, walked.full), (expected.last() == Some(&UNKNOWN), false));
            if walked.cut { cut += 1 } else { whole += 1 }
        }
    }
    assert!(whole > 1000 && cut > 1000, "{whole} whole and {cut} cut");
}

#[test]
fn a_deep_stack_keeps_its_inner_frames() {
    let room = Room::new(200_000);
    let (table, walk) = (room.table(), Walk::default());
    let mut thread = Thread::new();
    for depth in 1..DEPTH as u64 * 2 {
        thread.call(0x2000 + depth % 5 * 0x100 + 1);
        thread.stack.low.set(thread.at.sp);
        let walked = walk.number(thread.at, 0, &thread.stack, rules, &table);
        assert_eq!(addresses(&table, walked.number), brute(thread.at, &thread.stack));
    }
    assert!(thread.callers.len() > DEPTH, "the stack was deep enough to be cut");
}

#[test]
fn a_full_table_gives_no_number_and_what_it_has_is_still_found() {
    let room = Room::new(20);
    let (table, walk) = (room.table(), Walk::default());
    let mut thread = Thread::new();
    (0..10).for_each(|at| thread.call(0x2001 + at * 0x100));
    thread.stack.low.set(thread.at.sp);
    let first = walk.number(thread.at, 0, &thread.stack, rules, &table);
    assert!(first.number != 0 && !first.full);
    let shallow = thread.at;
    (0..15).for_each(|at| thread.call(0x3001 + at * 0x100));
    thread.stack.low.set(thread.at.sp);
    assert_eq!(walk.number(thread.at, 0, &thread.stack, rules, &table), Walked { number: 0, cut: false, full: true });
    assert_eq!(walk.number(shallow, 0, &thread.stack, rules, &table), first);
}

#[test]
fn a_handler_within_a_walk_gets_no_number_and_one_that_left_it_is_noticed() {
    let room = Room::new(1000);
    let (table, walk) = (room.table(), Walk::default());
    let mut thread = Thread::new();
    (0..5).for_each(|at| thread.call(0x2001 + at * 0x100));
    thread.stack.low.set(thread.at.sp);
    let first = walk.number(thread.at, 0, &thread.stack, rules, &table);
    walk.busy.set(thread.at.sp);
    let outer = thread.at;
    thread.call(0x5001);
    thread.stack.low.set(thread.at.sp);
    assert_eq!(walk.number(thread.at, 0, &thread.stack, rules, &table), Walked::NONE);
    thread.at = outer;
    thread.leave();
    thread.leave();
    thread.stack.low.set(thread.at.sp);
    let later = walk.number(thread.at, 0, &thread.stack, rules, &table);
    assert_eq!(addresses(&table, later.number), addresses(&table, first.number)[1..]);
}

#[test]
fn other_rules_are_asked_anew() {
    let room = Room::new(1000);
    let (table, walk) = (room.table(), Walk::default());
    let mut thread = Thread::new();
    (0..5).for_each(|at| thread.call(0x2001 + at * 0x100));
    thread.stack.low.set(thread.at.sp);
    let first = walk.number(thread.at, 1, &thread.stack, rules, &table);
    let none = walk.number(thread.at, 2, &thread.stack, |_| None, &table);
    assert_eq!(addresses(&table, none.number), [thread.at.pc, UNKNOWN]);
    assert_eq!(walk.number(thread.at, 3, &thread.stack, rules, &table), first);
}
