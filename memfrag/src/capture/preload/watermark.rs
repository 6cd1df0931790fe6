//! How far the rings may be merged: up to where no record can come any more.

use super::image::Ring;

/// Room that a thread may wait for: a record, and before it one that tells of those which found none.
const NEEDED: u64 = 2;

/// The watermark of one pass, which each ring that is looked at may lower.
#[derive(Debug)]
pub(crate) struct Watermark {
    stamp: u64,
    /// When the pass began.
    begin: u64,
    /// A ring at work for so many ticks holds nothing back any more.
    stopped: u64,
}

impl Watermark {
    /// For a pass that began at `begin` and the one before it at `before`. An idle ring has published whatever it
    /// stamped up to then.
    pub(crate) fn new(before: u64, begin: u64, stopped: u64) -> Self {
        Self { stamp: before, begin, stopped }
    }

    /// Looks how far a ring is. A ring of a process that has `ended` publishes nothing more. `false` when its indices
    /// made no sense: what lay in it is then passed over.
    pub(crate) fn observe(&mut self, ring: &mut Ring, ended: bool) -> bool {
        let (state, head) = ring.header().observe();
        let sound = ring.tail <= head && head - ring.tail <= ring.capacity();
        if !sound {
            ring.tail = head;
            // Else its producer would find it full for ever.
            ring.header().release(head);
        }
        ring.head = head;
        if state == 0 || ended {
            ring.at_work = None;
            return sound;
        }
        let room = ring.capacity() - (head - ring.tail);
        let since = match ring.at_work {
            // It may wait for room, and that is made by who looks here: however long that takes, it is not stopped.
            _ if room < NEEDED => self.begin,
            Some((old_state, old_head, since)) if (old_state, old_head) == (state, head) => since,
            _ => self.begin,
        };
        ring.at_work = Some((state, head, since));
        if self.begin - since < self.stopped {
            let last = if head > ring.tail { ring.slot(head - 1).load()[0] } else { ring.last };
            // A coarse clock may give the next record the same stamp once more.
            self.stamp = self.stamp.min(last.saturating_sub(1));
        }
        sound
    }

    /// No record at or below this stamp can come any more.
    pub(crate) fn stamp(&self) -> u64 {
        self.stamp
    }
}
