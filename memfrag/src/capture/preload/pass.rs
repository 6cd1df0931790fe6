//! One pass over the rings: how far they are, what of it may be told, and when to come again.

use super::PreloadSession;
use super::image::{Image, Ring, has_ended};
use super::watermark::Watermark;
use crate::capture::Sink;
use crate::capture::monotonic;
use memfrag_common::Op;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

/// A thread that has been about to write for so long is stopped, not at work: the others need not wait for it.
const STOPPED: Duration = Duration::from_secs(1);

/// How long to wait after a pass that found hardly anything, and after one that found nothing: short enough for a ring
/// not to fill up meanwhile, long enough to leave the processor to the programs.
const PAUSE: Duration = Duration::from_micros(150);
const REST: Duration = Duration::from_millis(1);
/// Passes in vain after which a program is taken to be at something else.
const RESTLESS: u32 = 8;

impl PreloadSession {
    /// One look at everything.
    pub(super) fn pass(&mut self, sink: &mut dyn Sink) -> io::Result<()> {
        // A store takes no longer to be seen than this: see the module of the ring.
        let slack = self.output.ticker.ticks(Duration::from_micros(20));
        let mut begin = self.output.ticker.now();
        while begin.saturating_sub(self.last_pass) < slack {
            std::hint::spin_loop();
            begin = self.output.ticker.now();
        }
        // After the pass's own stamp: whoever sees this takes a later one.
        self.header().heartbeat.store(monotonic(), Release);
        let now = Instant::now();
        if self.check.due(now) || self.finishing {
            for image in &mut self.images {
                image.dead = image.dead || image.pidfd.as_ref().is_none_or(has_ended);
            }
        }
        // Whoever was dead by now has counted its files before.
        let processes = self.header().processes.load(Acquire);
        if processes != self.processes || self.scan.due(now) {
            self.processes = processes;
            self.find_images()?;
        }
        let before = self.taken;
        let watermark = self.observe(begin);
        // Whatever the records name that have just been seen, is in the table by now.
        if let Some(stacks) = &mut self.stacks {
            stacks.tell(sink);
        }
        self.look_behind(sink);
        self.release(watermark, sink);
        self.tell_who_left(sink);
        self.last_pass = begin;
        let taken = self.taken - before;
        self.idle = if taken == 0 { self.idle.saturating_add(1) } else { 0 };
        self.pause = self.pause_after(taken);
        if self.look.due(now) {
            self.refresh_mappings(sink);
        }
        self.retire(sink, |_| true);
        self.output.flush(sink);
        Ok(())
    }

    /// How long to wait after a pass that took so many records. What still lies in the rings is as a rule too young
    /// for its pass, not for the next: only a ring held back by a thread at work is worth no hurry.
    fn pause_after(&self, taken: u64) -> Duration {
        let share = self.share() / 2;
        match (taken, self.waiting()) {
            (taken, waiting) if taken >= share || (waiting >= share && self.idle < 3) => Duration::ZERO,
            (0, 0) if self.idle > RESTLESS => REST,
            _ => PAUSE,
        }
    }

    /// Records in the fullest ring that had been seen there and not yet taken.
    pub(super) fn waiting(&self) -> u64 {
        let rings = self.images.iter().flat_map(|image| &image.rings);
        rings.map(|ring| ring.head - ring.tail).max().unwrap_or(0)
    }

    /// Whether a ring holds a record that is not newer than this.
    pub(super) fn holds_older(&self, stamp: u64) -> bool {
        let mut rings = self.images.iter().flat_map(|image| &image.rings).filter(|ring| ring.tail < ring.head);
        rings.any(|ring| ring.slot(ring.tail).load()[0].max(ring.last) <= stamp)
    }

    /// How many records one pass takes. The next pass takes none that were made after this one began: were it to
    /// empty the rings, a program that keeps them full would find the daemon with nothing that it may take.
    fn share(&self) -> u64 {
        if self.finishing { u64::MAX } else { (u64::from(self.slots) / 4).max(1024) }
    }

    /// Looks how far each ring is. Returns the watermark: no record at or below it can come any more.
    fn observe(&mut self, begin: u64) -> u64 {
        let mut watermark = Watermark::new(self.last_pass, begin, self.output.ticker.ticks(STOPPED));
        for image in &mut self.images {
            if image.find_rings().is_err() {
                self.damaged += 1;
            }
            let ended = image.ended();
            for ring in &mut image.rings {
                if !watermark.observe(ring, ended) {
                    self.damaged += 1;
                }
            }
        }
        watermark.stamp()
    }

    /// Tells whether the programs are faster: a ring half full says that they are, and none a quarter full that they no
    /// longer are.
    fn look_behind(&mut self, sink: &mut dyn Sink) {
        let fullest = self.waiting() * if self.behind { 4 } else { 2 };
        let behind = fullest >= u64::from(self.slots);
        if behind != self.behind {
            self.behind = behind;
            sink.behind(behind);
        }
    }

    /// Hands on everything up to the watermark.
    fn release(&mut self, watermark: u64, sink: &mut dyn Sink) {
        let next = |images: &[Image]| images.iter().position(|image| !image.announced && image.born <= watermark);
        while let Some(index) = next(&self.images) {
            let born = self.images[index].born;
            self.release_records(born.saturating_sub(1), u64::MAX, sink);
            // An image whose place it takes is read to the end by now: its threads end before those of the new one begin.
            self.retire(sink, |image| image.replaced);
            if let Some(index) = next(&self.images) {
                self.announce(index, sink);
            }
        }
        self.release_records(watermark, self.share(), sink);
    }

    /// What a program does that goes on unrecorded nobody counts; that something is missing from here on is known.
    fn tell_who_left(&mut self, sink: &mut dyn Sink) {
        // With the session, all of them leave.
        if self.finishing {
            return;
        }
        let empty = |image: &Image| image.rings.iter().all(|ring| ring.tail == ring.head);
        for image in self.images.iter_mut().filter(|image| image.announced && !image.left && image.has_left()) {
            if empty(image) {
                image.left = true;
                self.output.remark(self.last_pass, image.pid, image.pid, Op::Gap { lost: 1 }, sink);
            }
        }
    }

    /// Hands on the records up to `limit`, but no more than `most`.
    fn release_records(&mut self, limit: u64, most: u64, sink: &mut dyn Sink) {
        let mut rings: Vec<&mut Ring> =
            self.images.iter_mut().flat_map(|image| &mut image.rings).filter(|ring| ring.tail < ring.head).collect();
        let output = &mut self.output;
        self.taken += self.merger.release(&mut rings, limit, most, |record, stamp| output.record(record, stamp, sink));
    }
}
