//! What was worked out for tables, kept until they change.

use super::scene::table_pages;
use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

/// Tables whose values are kept at most.
const MOST: usize = 1 << 16;

#[derive(Debug)]
struct Entry<T> {
    value: T,
    is_stale: bool,
}

/// Values of tables, by their numbers. A value that has become stale serves until there was time for a new one.
#[derive(Debug)]
pub(super) struct Kept<T> {
    entries: HashMap<u64, Entry<T>>,
    /// Where there was no more time.
    turn: u64,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), turn: 0 }
    }
}

impl<T> Kept<T> {
    /// The value of a table, new or stale.
    pub(super) fn get(&self, table: u64) -> Option<&T> {
        self.entries.get(&table).map(|entry| &entry.value)
    }

    /// Lets everything go.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// These pages have changed (upwards, none twice), by changes with these numbers; those up to `seen` are known.
    pub(super) fn changed(&mut self, changes: &[(Range<u64>, u64)], seen: u64) {
        if changes.is_empty() {
            return;
        }
        for (&table, entry) in &mut self.entries {
            let pages = table_pages(table);
            let at = changes.partition_point(|(changed, _)| changed.end <= pages.start);
            let mut touching = changes[at..].iter().take_while(|(changed, _)| changed.start < pages.end);
            entry.is_stale |= touching.any(|(_, change)| *change > seen);
        }
    }

    /// The values for which this holds have become stale.
    pub(super) fn expire(&mut self, mut is_stale: impl FnMut(&T) -> bool) {
        self.entries.values_mut().for_each(|entry| entry.is_stale |= is_stale(&entry.value));
    }

    /// Works the values out that are missing or stale, of these tables (upwards), until there is no more time; each
    /// gets its turn. Says whether all are done.
    pub(super) fn refresh(&mut self, tables: &[u64], deadline: Instant, mut make: impl FnMut(u64) -> T) -> bool {
        if self.entries.len() > MOST {
            self.entries.retain(|table, _| tables.binary_search(table).is_ok());
        }
        let first = tables.partition_point(|&table| table < self.turn);
        let mut done = 0;
        for &table in tables[first..].iter().chain(&tables[..first]) {
            if self.entries.get(&table).is_some_and(|entry| !entry.is_stale) {
                continue;
            }
            // One at least, or it would never end.
            if done > 0 && Instant::now() >= deadline {
                self.turn = table;
                return false;
            }
            self.entries.insert(table, Entry { value: make(table), is_stale: false });
            done += 1;
        }
        true
    }

    /// Whether the values of these tables are all there, and none is stale.
    pub(super) fn are_fresh(&self, tables: &[u64]) -> bool {
        tables.iter().all(|table| self.entries.get(table).is_some_and(|entry| !entry.is_stale))
    }
}
