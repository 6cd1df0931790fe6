//! One heap of a recording, with what was seen of its process's memory.

use super::choose::Candidate;
use crate::model::{Listener, Listening, Models, Policy};
use crate::recording::{Item, Reader};
use crate::target::{MemorySample, Residency};
use memfrag_common::Event;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A look at a process's memory.
pub(super) enum Look {
    Memory(MemorySample),
    Pages(Residency),
}

impl Look {
    fn time(&self) -> u64 {
        match self {
            Self::Memory(sample) => sample.time,
            Self::Pages(residency) => residency.time,
        }
    }
}

/// Goes through a recording for one of its heaps.
pub(super) struct Following<'a> {
    pub(super) reader: &'a Reader,
    pub(super) chosen: &'a Candidate,
    /// The last moment that counts, in nanoseconds since the trace began.
    pub(super) until: Option<u64>,
    /// Told how many events were read.
    pub(super) progress: &'a mut dyn FnMut(u64),
}

impl Following<'_> {
    /// Passes the requests of the heap on to a listener, and what was seen of its process's memory to `take`, each where it
    /// belongs by its time: events come into a recording a little later than what is read at the same moment. Returns
    /// the time that the recording has come to.
    pub(super) fn follow<L: Listener + Clone>(&mut self, listener: &L, mut take: impl FnMut(&Look)) -> u64 {
        let last = self.until.unwrap_or(u64::MAX);
        // Whether the process runs the chosen program now: it begins with it if it never becomes another one.
        let runs = Arc::new(AtomicBool::new((self.chosen.execs, self.chosen.namesakes) == (0, 0)));
        let mut models = Models::new({
            let (listener, runs, chosen) = (listener.clone(), Arc::clone(&runs), self.chosen.clone());
            let mut namesakes = 0;
            Box::new(move |pid, execs| -> Vec<Box<dyn Policy>> {
                if pid != chosen.pid {
                    return vec![Listening::<L>::by_nobody()];
                }
                let has_its_name = execs == chosen.execs;
                let is_it = has_its_name && namesakes == chosen.namesakes;
                namesakes += u64::from(has_its_name);
                runs.store(is_it, Relaxed);
                vec![if is_it { Listening::by(listener.clone()) } else { Listening::<L>::by_nobody() }]
            })
        });
        let mut items = self.until.map_or_else(|| self.reader.items(), |until| self.reader.items_until(until));
        let (mut read, mut time) = (0, 0);
        let mut looks: VecDeque<Look> = VecDeque::new();
        // What was seen of the process before or after is another program's memory.
        let mut take = |look: Look| {
            if runs.load(Relaxed) {
                take(&look);
            }
        };
        while let Some(item) = items.next_item() {
            match &item {
                Item::Events(events) => {
                    let mut rest = *events;
                    while let Some(look) = looks.front() {
                        let before = rest.iter().position(|event| event.time > look.time());
                        let Some(before) = before else { break };
                        models_until(&mut models, &rest[..before], last);
                        rest = &rest[before..];
                        looks.pop_front().into_iter().for_each(&mut take);
                    }
                    models_until(&mut models, rest, last);
                    time = events.iter().map(|event| event.time).filter(|&time| time <= last).fold(time, u64::max);
                    read += events.len() as u64;
                    (self.progress)(read);
                }
                Item::Layout { time, pid, layout } if *time <= last => models.layout(*time, *pid, layout),
                Item::Memory(sample) if sample.pid == self.chosen.pid && sample.time <= last => {
                    time = time.max(sample.time);
                    looks.push_back(Look::Memory(*sample));
                }
                Item::Residency(look) if look.pid == self.chosen.pid && look.time <= last => {
                    looks.push_back(Look::Pages(look.clone()));
                }
                _ => {}
            }
        }
        looks.into_iter().for_each(take);
        time
    }
}

/// Applies events that are not later than `last`.
fn models_until(models: &mut Models, events: &[Event], last: u64) {
    events.split(|event| event.time > last).for_each(|events| models.apply_all(events));
}

#[cfg(test)]
mod tests {
    use super::super::choose::candidates;
    use super::super::{DataFile, Planner, Touched};
    use super::*;
    use crate::capture::Sink;
    use crate::recording::{Header, Writer};
    use crate::target::ProcessInfo;
    use memfrag_common::{Function, Op};

    const COPY: u64 = 0;
    /// `vfork` and `posix_spawn`: the child acts on its parent's memory until it becomes another program.
    const SHARED: u64 = 0x100 | 0x4000;

    /// A recording in the making: a millisecond passes from step to step.
    struct Tree {
        writer: Writer,
        time: u64,
    }

    impl Tree {
        fn op(&mut self, pid: u32, op: Op) {
            self.time += 1_000_000;
            self.writer.events(&[Event { time: self.time, pid, tid: pid, op }]);
        }

        fn calls(&mut self, pid: u32, number: u64) {
            for at in 0..number {
                let addr = 0x10_0000 + at * 64;
                self.op(
                    pid,
                    Op::Alloc { function: Function::Malloc, align_log2: 0, addr, size: 48, site: 1, stack: 0 },
                );
            }
        }

        fn reading(&mut self, pid: u32, rss_anon: u64) {
            self.time += 1_000_000;
            let sample = MemorySample { time: self.time, pid, rss: rss_anon, rss_anon, ..MemorySample::default() };
            self.writer.memory(&sample);
        }

        fn named(&mut self, pid: u32, comm: &str) {
            let process = ProcessInfo { time: self.time, pid, comm: comm.to_owned(), ..ProcessInfo::default() };
            self.writer.process(&process);
        }
    }

    /// What a recording has: each candidate's id, programs run before, calls, and the calls of its replay and its readings
    /// from the one on that growth is counted from.
    fn replays(record: impl FnOnce(&mut Tree)) -> Vec<(u32, u64, u64, u64, Vec<u64>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree.mfrag");
        let mut tree = Tree { writer: Writer::create(&path, &Header::default()).unwrap(), time: 0 };
        record(&mut tree);
        tree.writer.finish(tree.time + 1, None).unwrap();
        let reader = Reader::open(&path).unwrap();
        let all = candidates(&reader);
        let replay = |chosen: &Candidate| {
            let mut progress = |_| {};
            let mut following = Following { reader: &reader, chosen, until: None, progress: &mut progress };
            let planner = Planner::new(chosen.pid, Touched::default(), DataFile::new(tempfile::tempfile().unwrap()));
            let last = following.follow(&planner, |look| {
                if let Look::Memory(sample) = look {
                    planner.sample(sample);
                }
            });
            planner.end(last);
            let (result, _) = planner.finish().unwrap();
            let readings = result.readings[result.base..].iter().map(|it| it.rss_anon).collect();
            (chosen.pid, chosen.execs, chosen.calls, result.calls, readings)
        };
        all.iter().filter(|chosen| chosen.copied_from.is_none()).map(replay).collect()
    }

    #[test]
    fn programs_that_a_process_becomes_are_replayed_apart() {
        let found = replays(|tree| {
            tree.named(5, "sh");
            tree.reading(5, 100);
            tree.calls(5, 3);
            tree.reading(5, 101);
            tree.op(5, Op::Exec);
            tree.reading(5, 200);
            tree.calls(5, 9);
            tree.reading(5, 201);
        });
        assert_eq!(found, [(5, 1, 9, 9, vec![200, 201]), (5, 0, 3, 3, vec![100, 101])]);
    }

    #[test]
    fn growth_is_counted_from_the_last_reading_before_the_first_call() {
        let found = replays(|tree| {
            tree.named(5, "sh");
            // Its loader still has pages to write to.
            for rss_anon in [100, 350, 351] {
                tree.reading(5, rss_anon);
            }
            tree.calls(5, 3);
            tree.reading(5, 400);
        });
        assert_eq!(found, [(5, 0, 3, 3, vec![351, 400])]);
    }

    #[test]
    fn programs_of_children_are_replayed() {
        for flags in [COPY, SHARED] {
            let found = replays(|tree| {
                tree.named(5, "sh");
                tree.calls(5, 3);
                // The note of a child can come before the event that it belongs to.
                tree.named(6, "sh");
                tree.op(5, Op::Fork { child: 6, flags });
                tree.reading(6, 100);
                tree.op(6, Op::Exec);
                tree.named(6, "redis");
                tree.reading(6, 200);
                tree.calls(6, 9);
                tree.reading(6, 201);
            });
            assert_eq!(found, [(6, 1, 9, 9, vec![200, 201]), (5, 0, 3, 3, vec![])], "clone flags {flags:#x}");
        }
    }

    #[test]
    fn the_busiest_of_those_that_had_one_id_is_replayed() {
        let found = replays(|tree| {
            tree.named(5, "sh");
            for (calls, rss) in [(2, 100), (9, 200)] {
                tree.op(5, Op::Fork { child: 6, flags: COPY });
                tree.op(6, Op::Exec);
                tree.calls(6, calls);
                tree.reading(6, rss);
                tree.op(6, Op::Exit { status: None });
            }
        });
        assert_eq!(found, [(6, 1, 9, 9, vec![200]), (6, 1, 2, 2, vec![100])]);
    }
}
