//! A push interrupted at every step, by handlers that return and by handlers that leave.

use super::*;
use std::cell::RefCell;

/// A ring in this process's memory, and a clock that counts.
struct Bench {
    header: Box<RingHeader>,
    slots: Vec<Slot>,
    producer: Producer,
    clock: Cell<u64>,
}

impl Bench {
    fn new(slots: usize) -> Self {
        let header = Box::new(RingHeader::default());
        let slots: Vec<Slot> = (0..slots).map(|_| Slot::default()).collect();
        let bench = Self { header, slots, producer: Producer::default(), clock: Cell::new(0) };
        // SAFETY: header and slots live as long as the producer and are never moved.
        unsafe { bench.producer.attach(&raw const *bench.header, bench.slots.as_ptr(), bench.slots.len() as u64) };
        bench
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// What the preload library does with a record, in short.
    fn record(&self, frame: u64, value: u64, steps: &impl Steps) {
        let fields = [value; WORDS - 1];
        match self.producer.push_with(frame, fields, || self.tick(), steps) {
            Err(Refused::Busy(state)) if frame >= state & !7 => {
                self.producer.heal();
                self.producer.push_with(frame, fields, || self.tick(), steps).expect("there is room");
            }
            Err(Refused::Busy(_)) => {
                self.producer.push_nested(frame, fields, || self.tick(), steps).expect("there is room");
            }
            other => other.expect("there is room"),
        }
    }

    /// The values committed, each checked to be whole.
    fn values(&self) -> Vec<u64> {
        let (_, head) = self.header.observe();
        (0..head)
            .map(|at| {
                let words = self.slots[at as usize % self.slots.len()].load();
                assert!(words[1..].iter().all(|&word| word == words[1]), "torn: {words:?}");
                words[1]
            })
            .collect()
    }
}

/// Interrupts at the given steps, counted over a whole run; an interruption may be interrupted in turn. With
/// `leave` the interrupted calls are left for good.
struct Handler<'a> {
    bench: &'a Bench,
    at: &'a RefCell<Vec<u32>>,
    done: &'a Cell<u32>,
    value: &'a Cell<u64>,
    frame: u64,
    leave: bool,
}

impl Steps for Handler<'_> {
    fn step(&self, _: u32) -> bool {
        self.done.set(self.done.get() + 1);
        if self.at.borrow().first() != Some(&self.done.get()) {
            return true;
        }
        self.at.borrow_mut().remove(0);
        let inner = Handler { frame: self.frame - 64, ..*self };
        for _ in 0..2 {
            self.value.set(self.value.get() + 1);
            self.bench.record(self.frame - 64, self.value.get(), &inner);
        }
        !self.leave
    }
}

fn run(interruptions: &[u32], leave: bool) -> (Vec<u64>, u64, bool) {
    let bench = Bench::new(64);
    let at = RefCell::new(interruptions.to_vec());
    let (done, value) = (Cell::new(0), Cell::new(100));
    let handler = Handler { bench: &bench, at: &at, done: &done, value: &value, frame: 0x10000, leave };
    for outer in 1..=3 {
        bench.record(0x10000, outer, &handler);
    }
    // After the last, an undisturbed one: everything must be in order again.
    bench.record(0x10000, 4, &Uninterrupted);
    assert!(!bench.producer.busy());
    (bench.values(), value.get(), at.borrow().is_empty())
}

#[test]
fn handlers_that_return_lose_and_double_nothing_wherever_they_come() {
    let mut reached = 0;
    for first in 1..60 {
        for second in first + 1..first + 60 {
            let (mut values, last, all) = run(&[first, second], false);
            reached += u32::from(all);
            let mut expected: Vec<u64> = (1..=4).chain(101..=last).collect();
            let outer: Vec<u64> = values.iter().copied().filter(|&value| value < 100).collect();
            assert_eq!(outer, [1, 2, 3, 4], "interrupted at {first} and {second}");
            values.sort_unstable();
            expected.sort_unstable();
            assert_eq!(values, expected, "interrupted at {first} and {second}");
        }
    }
    assert!(reached > 1000, "the interruptions must happen");
}

#[test]
fn handlers_that_never_return_lose_at_most_the_call_that_had_nothing_staged() {
    for first in 1..60 {
        for second in first + 1..first + 60 {
            let (values, last, _) = run(&[first, second], true);
            let mut once = values.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), values.len(), "doubled at {first} and {second}: {values:?}");
            assert_eq!(values.last(), Some(&4), "interrupted at {first} and {second}");
            // Two interruptions: at most two calls were left before they had staged anything.
            let expected = 4 + (last - 100) as usize;
            assert!(values.len() + 2 >= expected, "at {first} and {second}: {values:?}");
        }
    }
}

#[test]
fn a_full_ring_refuses_until_there_is_room_and_tells_its_loss() {
    let bench = Bench::new(4);
    for value in 0..4 {
        bench.record(64, value, &Uninterrupted);
    }
    let fields = [9; WORDS - 1];
    assert_eq!(bench.producer.push(64, fields, || 9), Err(Refused::Full));
    assert_eq!(bench.producer.refresh(), 0);
    bench.producer.give_up();
    bench.header.release(3);
    // Room alone is not enough: whoever gave up a record is to tell it first.
    assert_eq!(bench.producer.push(64, fields, || 9), Err(Refused::Full));
    assert_eq!(bench.producer.refresh(), 3);
    assert_eq!(bench.producer.take_lost(), 1);
    assert_eq!(bench.producer.push(64, fields, || 9), Ok(()));
}

#[test]
fn holding_keeps_the_ring_at_work_and_lets_nested_records_through() {
    let bench = Bench::new(8);
    let before = bench.producer.hold(0x1000);
    assert_eq!(bench.header.observe().0, 0x1000 | STAMPING);
    bench.record(0x800, 1, &Uninterrupted);
    assert_eq!(bench.header.observe(), (0x1000 | STAMPING, 1));
    bench.producer.let_go(before);
    assert_eq!(bench.header.observe(), (0, 1));
    assert_eq!(bench.values(), [1]);
}
