//! Call sites: the functions and the places in files that they are, and what they hold.

use super::model::Site;
use crate::heap::Heap;
use crate::symbolize::{self, Symbols};
use crate::target::Mapping;
use std::cmp::Reverse;
use std::collections::HashMap;

/// The files whose code a process had mapped at a moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// When, in nanoseconds since the trace began.
    pub(super) time: u64,
    pub(super) files: Vec<Mapping>,
}

/// A call site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallSite {
    /// A text to show: `function+offset (file)`, `file+offset` where no function is known, or the address.
    pub site: String,
    /// Return address of the call.
    pub address: u64,
    /// The file that holds it; `None` when it lies in no known mapping.
    pub module: Option<String>,
    /// Its offset in that file.
    pub offset: Option<u64>,
    /// The function that calls.
    pub function: Option<String>,
    /// Its source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
}

/// Where the call sites of a process lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sites<'a> {
    /// The mappings that the process has had, oldest first: a library may be gone by now.
    snapshots: &'a [Seen],
    symbols: Option<&'a Symbols>,
}

impl<'a> Sites<'a> {
    pub(super) const fn new(snapshots: &'a [Seen], symbols: Option<&'a Symbols>) -> Self {
        Self { snapshots, symbols }
    }

    /// What is known of a call that returns to `address`.
    pub fn find(&self, address: u64) -> CallSite {
        let Some((time, mapping, offset)) = self.locate(address) else {
            return CallSite { site: format!("{address:#x}"), address, ..CallSite::default() };
        };
        let place = symbolize::Place { path: &mapping.path, inode: mapping.inode, offset, seen_ns: time };
        let function = self.symbols.and_then(|symbols| symbols.function(&place));
        let module = mapping.path.display().to_string();
        let file = module.rsplit('/').next().unwrap_or(&module);
        let site = match &function {
            Some(function) => format!("{}+{:#x} ({file})", function.name, function.offset),
            None => format!("{file}+{offset:#x}"),
        };
        let function = function.map(|function| function.name);
        CallSite { site, address, module: Some(module), offset: Some(offset), function, file: None, line: None }
    }

    /// The file that holds a call site.
    pub fn module(&self, address: u64) -> Option<String> {
        self.locate(address).map(|(_, mapping, _)| mapping.path.display().to_string())
    }

    /// What an address meant when it was last mapped: when that was seen, the mapping, and the offset in its file.
    fn locate(&self, address: u64) -> Option<(u64, &'a Mapping, u64)> {
        // A return address can lie just behind its function's mapping; the call itself never does.
        let call = address.checked_sub(1)?;
        self.snapshots.iter().rev().find_map(|mapped| {
            let mapping = mapped.files.iter().find(|mapping| (mapping.start..mapping.end).contains(&call))?;
            Some((mapped.time, mapping, mapping.offset.wrapping_add(address - mapping.start)))
        })
    }
}

/// The sites that hold most, at most `count`; those that hold nothing follow by how much they allocate.
pub(super) fn top(heap: &Heap, places: &Sites<'_>, count: usize) -> Vec<Site> {
    let mut sites: HashMap<u64, Site> = HashMap::new();
    // By origin first: blocks are many, origins few.
    let mut by_origin = Vec::new();
    for (_, origin, totals) in heap.origins() {
        let site = sites.entry(origin.site).or_insert_with(|| Site { address: origin.site, ..Site::default() });
        site.allocations += totals.allocations;
        by_origin.push((origin.site, 0_u64, 0_u64));
    }
    for block in heap.blocks().iter() {
        if let Some((_, blocks, bytes)) = by_origin.get_mut(block.origin.index()) {
            *blocks += 1;
            *bytes = bytes.wrapping_add(block.size);
        }
    }
    for (address, blocks, bytes) in by_origin {
        if let Some(site) = sites.get_mut(&address) {
            site.live_blocks += blocks;
            site.live_bytes = site.live_bytes.wrapping_add(bytes);
        }
    }
    let mut sites: Vec<Site> = sites.into_values().filter(|site| site.live_blocks + site.allocations > 0).collect();
    sites.sort_by_key(|site| (Reverse((site.live_bytes, site.live_blocks, site.allocations)), site.address));
    sites.truncate(count);
    for site in &mut sites {
        let CallSite { site: text, address: _, module, offset, function, file, line } = places.find(site.address);
        *site = Site { site: text, module, offset, function, file, line, ..std::mem::take(site) };
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, path: &str) -> Mapping {
        Mapping { start, end: start + 0x1000, offset: 0x2000, path: path.into(), ..Mapping::default() }
    }

    #[test]
    fn the_newest_mapping_of_an_address_counts() {
        let snapshots = [vec![mapping(0x1000, "/old"), mapping(0x9000, "/gone")], vec![mapping(0x1000, "/new")]]
            .map(|files| Seen { time: 0, files });
        let sites = Sites::new(&snapshots, None);
        let locate = |address| {
            let found = sites.find(address);
            found.module.zip(found.offset)
        };
        assert_eq!(locate(0x1234), Some(("/new".to_owned(), 0x2234)));
        assert_eq!(locate(0x9010), Some(("/gone".to_owned(), 0x2010)));
        assert_eq!(locate(0x2000), Some(("/new".to_owned(), 0x3000)), "the call ends with its mapping");
        assert_eq!(locate(0x1000), None, "so does one before it");
        assert_eq!(locate(0), None);
        assert_eq!((sites.find(0x1234).site, sites.find(0x42).site), ("new+0x2234".to_owned(), "0x42".to_owned()));
    }

    #[test]
    fn functions_are_named_by_the_file_that_was_mapped() {
        /// Called through the table of functions of this very program.
        #[inline(never)]
        fn a_function_of_this_test() -> u64 {
            std::hint::black_box(7)
        }
        let address = a_function_of_this_test as *const () as u64 + 3;
        let maps = std::fs::read("/proc/self/maps").expect("this is Linux");
        let mapped = [Seen { time: 0, files: crate::target::maps::files(&maps) }];
        let symbols = Symbols::new(0);
        let named = Sites::new(&mapped, Some(&symbols)).find(address);
        let function = named.function.expect("it has symbols");
        assert!(function.ends_with("a_function_of_this_test"), "{function}");
        assert!(named.site.starts_with(&format!("{function}+0x3 (memfrag")), "{}", named.site);
        let mut replaced = mapped;
        replaced[0].files.iter_mut().for_each(|mapping| mapping.inode += 1);
        assert_eq!(Sites::new(&replaced, Some(&symbols)).find(address).function, None);
    }
}
