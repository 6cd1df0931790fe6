//! All that was gathered up to a place of a recording, as a checkpoint holds it.

use super::{ReportBuilder, SNAPSHOTS, Seen};
use crate::heap::Heaps;
use crate::recording::{Count, Input, Saved, load_counters, load_mappings, put, save_counters, save_mappings};
use crate::report::moment::Looks;
use std::sync::Arc;

impl ReportBuilder {
    /// What was gathered, what only a watcher sees aside. `None` where a checkpoint cannot hold it: when something was
    /// left out for being too late, how long blocks live is [not counted](Self::count_lifetimes), or there are too many.
    pub fn save(&self) -> Option<Vec<u8>> {
        if self.until.is_some() || !self.heaps.can_be_saved() {
            return None;
        }
        let mut out = Vec::new();
        self.heaps.save(&mut out);
        self.looks.save(&self.heaps, &mut out);
        for count in [self.events.total, self.events.alloc, self.events.free, self.events.realloc] {
            Count::save(&count, &mut out);
        }
        self.last_time.save(&mut out);
        let mut mappings: Vec<_> = self.mappings.iter().collect();
        mappings.sort_unstable_by_key(|(process, _)| **process);
        put(&mut out, mappings.len() as u64);
        for (process, snapshots) in mappings {
            put(&mut out, *process as u64);
            put(&mut out, snapshots.len() as u64);
            snapshots.iter().for_each(|seen| save_mappings(seen.time, &seen.files, &mut out));
        }
        let mut live: Vec<_> = self.live_at_reading.iter().map(|(process, live)| (*process as u64, *live)).collect();
        live.sort_unstable();
        live.save(&mut out);
        put(&mut out, self.counters.len() as u64);
        self.counters.iter().for_each(|(pid, counters)| save_counters(*pid, counters, &mut out));
        self.missing.save(&mut out);
        Some(out)
    }

    /// What [`Self::save`] wrote. `None` when it is damaged, or nothing in a recording leads to such a state.
    pub fn load(bytes: &[u8]) -> Option<Self> {
        let mut input = Input::new(bytes);
        let input = &mut input;
        let mut heaps = Heaps::load(input)?;
        let looks = Looks::load(input, &mut heaps)?;
        let mut builder = Self { heaps, looks, ..Self::default() };
        for count in [
            &mut builder.events.total,
            &mut builder.events.alloc,
            &mut builder.events.free,
            &mut builder.events.realloc,
        ] {
            *count = Count::load(input)?;
        }
        builder.last_time = Saved::load(input)?;
        let processes = builder.heaps.processes().len();
        let process = |number: u64| usize::try_from(number).ok().filter(|&process| process < processes);
        for _ in 0..input.varint()? {
            let at = process(input.varint()?)?;
            let count = input.varint().filter(|&count| count <= SNAPSHOTS as u64)?;
            let mut snapshots = Vec::new();
            for _ in 0..count {
                let (time, files) = load_mappings(input)?;
                snapshots.push(Seen { time, files });
            }
            builder.mappings.insert(at, Arc::new(snapshots));
        }
        for (at, live) in Vec::<(u64, u64)>::load(input)? {
            builder.live_at_reading.insert(process(at)?, live);
        }
        for _ in 0..input.varint()? {
            let (pid, counters) = load_counters(input)?;
            builder.counters.insert(pid, counters);
        }
        builder.missing = Saved::load(input)?;
        input.is_empty().then_some(builder)
    }
}

#[cfg(test)]
mod tests;
