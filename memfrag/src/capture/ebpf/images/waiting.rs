//! What processes have told, until the events have come as far.

use super::super::sideband::{Told, What};
use std::collections::{HashMap, VecDeque};

/// Most that is kept: some tens of megabytes.
const MOST: usize = 1 << 17;

/// What each process has told, in the order of time.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    told: HashMap<u32, VecDeque<Told>>,
    count: usize,
    /// What found no room, and when it was told last.
    pub(super) lost: u64,
    pub(super) lost_at: u64,
}

impl Waiting {
    /// Each CPU tells in order, and a process goes from one to another.
    pub(super) fn put(&mut self, told: Told) {
        if self.count >= MOST {
            self.lost += 1;
            self.lost_at = self.lost_at.max(told.time);
            return;
        }
        let queue = self.told.entry(told.pid).or_default();
        let at = queue.partition_point(|other| other.time <= told.time);
        queue.insert(at, told);
        self.count += 1;
    }

    /// The next that a process told up to a moment.
    pub(super) fn next(&mut self, pid: u32, until: u64) -> Option<Told> {
        let queue = self.told.get_mut(&pid)?;
        let told = queue.pop_front_if(|told| told.time <= until)?;
        if queue.is_empty() {
            self.told.remove(&pid);
        }
        self.count -= 1;
        Some(told)
    }

    /// When the first program of a process begins that begins after a moment.
    pub(super) fn beginning(&self, pid: u32, after: u64) -> Option<u64> {
        let mut told = self.told.get(&pid)?.iter();
        told.find(|told| told.time > after && matches!(told.what, What::Exec { .. })).map(|told| told.time)
    }

    /// Forgets what was told up to a moment under the id of a process.
    pub(super) fn forget(&mut self, pid: u32, until: u64) {
        while self.next(pid, until).is_some() {}
    }

    /// Forgets what was told up to a moment by processes that nobody knows.
    pub(super) fn sweep(&mut self, until: u64, is_known: impl Fn(u32) -> bool) {
        let unknown: Vec<u32> = self.told.keys().copied().filter(|&pid| !is_known(pid)).collect();
        for pid in unknown {
            self.forget(pid, until);
        }
    }

    /// The processes that have told something.
    pub(super) fn processes(&self) -> Vec<u32> {
        self.told.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(pid: u32, time: u64) -> Told {
        Told { time, pid, what: What::Exec { comm: String::new() } }
    }

    #[test]
    fn what_was_told_on_two_cpus_comes_in_the_order_of_time() {
        let mut waiting = Waiting::default();
        for (pid, time) in [(1, 10), (1, 30), (2, 5), (1, 20), (1, 40)] {
            waiting.put(exec(pid, time));
        }
        assert_eq!(
            [(1, 0), (1, 10), (1, 40), (3, 0)].map(|(pid, after)| waiting.beginning(pid, after)),
            [Some(10), Some(20), None, None]
        );
        let next = |waiting: &mut Waiting, until| waiting.next(1, until).map(|told| told.time);
        assert_eq!(
            [next(&mut waiting, 20), next(&mut waiting, 20), next(&mut waiting, 20)],
            [Some(10), Some(20), None]
        );
        waiting.forget(1, 39);
        assert_eq!(waiting.beginning(1, 0), Some(40));
        waiting.sweep(50, |pid| pid == 1);
        assert_eq!(waiting.processes(), [1]);
        waiting.forget(1, 40);
        assert_eq!((waiting.count, waiting.told.len(), waiting.lost), (0, 0, 0));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut waiting = Waiting::default();
        for time in 0..MOST as u64 + 3 {
            waiting.put(exec(1, time));
        }
        assert_eq!((waiting.count, waiting.lost, waiting.lost_at), (MOST, 3, MOST as u64 + 2));
        waiting.sweep(u64::MAX, |_| false);
        assert_eq!(waiting.count, 0);
    }
}
