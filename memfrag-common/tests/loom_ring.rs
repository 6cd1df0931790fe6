//! The ring and its watermark under every interleaving:
//! `RUSTFLAGS="--cfg loom" cargo test -p memfrag-common --release --test loom_ring`.

#![cfg(loom)]
#![allow(missing_docs, reason = "tests")]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::*, fence};
use loom::thread;
use memfrag_common::packed::WORDS;
use memfrag_common::ring::{Producer, RingHeader, Slot};

struct Shared {
    header: RingHeader,
    slots: Vec<Slot>,
}

fn ring(slots: usize) -> Arc<Shared> {
    Arc::new(Shared { header: RingHeader::default(), slots: (0..slots).map(|_| Slot::default()).collect() })
}

fn producer(shared: &Shared) -> Producer {
    let producer = Producer::default();
    // SAFETY: the caller keeps the ring as long as the producer, and makes one only.
    unsafe { producer.attach(&raw const shared.header, shared.slots.as_ptr(), shared.slots.len() as u64) };
    producer
}

/// Every interleaving with up to two preemptions, which is where races show; without a bound it takes hours.
fn bounded(check: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(check);
}

#[test]
fn records_arrive_whole_in_order_and_once() {
    bounded(|| {
        let shared = ring(2);
        let theirs = Arc::clone(&shared);
        let writer = thread::spawn(move || {
            let producer = producer(&theirs);
            for value in 1..=3 {
                while producer.push(64, [value; WORDS - 1], || value).is_err() {
                    producer.refresh();
                    thread::yield_now();
                }
            }
        });
        let mut tail = 0;
        while tail < 3 {
            let (_, head) = shared.header.observe();
            while tail < head {
                let words = shared.slots[(tail % 2) as usize].load();
                assert_eq!(words, [tail + 1; WORDS]);
                tail += 1;
                shared.header.release(tail);
            }
            thread::yield_now();
        }
        writer.join().unwrap();
    });
}

/// The stamp of a push, from a clock that all share. The fence stands for the time after which the store of `state`
/// is sure to be seen; the real consumer allows for that time instead.
fn stamp(clock: &AtomicU64) -> u64 {
    fence(SeqCst);
    clock.fetch_add(1, AcqRel) + 1
}

#[test]
fn nothing_arrives_below_the_watermark() {
    bounded(|| {
        let clock = Arc::new(AtomicU64::new(0));
        let rings = [ring(4), ring(4)];
        let writers: Vec<_> = rings
            .iter()
            .map(|shared| {
                let (shared, clock) = (Arc::clone(shared), Arc::clone(&clock));
                thread::spawn(move || {
                    let producer = producer(&shared);
                    for value in 1..=2 {
                        producer.push(64, [value; WORDS - 1], || stamp(&clock)).unwrap();
                    }
                })
            })
            .collect();
        let mut tails = [0u64; 2];
        let mut released = 0;
        let mut pass = |last: bool| {
            let mut watermark = if last { u64::MAX } else { clock.load(Acquire) };
            fence(SeqCst);
            let mut heads = [0; 2];
            for (index, shared) in rings.iter().enumerate() {
                let (state, head) = shared.header.observe();
                heads[index] = head;
                if state != 0 {
                    let last = if head > 0 { shared.slots[(head - 1) as usize].load()[0] } else { 0 };
                    watermark = watermark.min(last);
                }
            }
            loop {
                let next = (0..2)
                    .filter(|&index| tails[index] < heads[index])
                    .map(|index| (rings[index].slots[tails[index] as usize].load()[0], index))
                    .min();
                let Some((stamp, index)) = next.filter(|&(stamp, _)| stamp <= watermark) else { break };
                assert!(stamp > released, "{stamp} after {released}");
                released = stamp;
                tails[index] += 1;
            }
        };
        pass(false);
        pass(false);
        for writer in writers {
            writer.join().unwrap();
        }
        pass(true);
        assert_eq!(tails, [2, 2]);
    });
}
