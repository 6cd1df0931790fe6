//! Call sites: the functions and the places in files that they are, and what they hold.

use super::model::{Frame, Site, Stack};
use super::names::Names;
use crate::heap::Heap;
use crate::recording::Stacks;
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

/// What is the same call site in two processes: addresses are not, but places in files are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A file, and the offset in it.
    File(String, u64),
    /// In no known file: the address.
    Address(u64),
}

impl Place {
    /// That of a call site.
    pub fn of(site: &CallSite) -> Self {
        match (&site.module, site.offset) {
            (Some(module), Some(offset)) => Self::File(module.clone(), offset),
            _ => Self::Address(site.address),
        }
    }
}

/// Where the call sites of a process lie.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sites<'a> {
    /// The mappings that the process has had, oldest first: a library may be gone by now.
    snapshots: &'a [Seen],
    symbols: Option<&'a Symbols>,
    stacks: Option<&'a Stacks>,
}

impl<'a> Sites<'a> {
    pub(super) fn new(snapshots: &'a [Seen], names: Option<&'a Names>) -> Self {
        Self { snapshots, symbols: names.map(|names| &names.symbols), stacks: names.map(|names| &names.stacks) }
    }

    #[cfg(test)]
    const fn with(snapshots: &'a [Seen], symbols: Option<&'a Symbols>) -> Self {
        Self { snapshots, symbols, stacks: None }
    }

    /// The return addresses of a recorded stack, the innermost first, and whether they are all.
    pub fn stack(&self, number: u32) -> (Vec<u64>, bool) {
        self.stacks.map_or_else(|| (Vec::new(), false), |stacks| stacks.get(number))
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

/// A recorded stack, with the names of its frames; `None` when it tells no more than the call site.
pub(super) fn frames(places: &Sites<'_>, number: u32) -> Option<(Vec<Frame>, bool)> {
    let (addresses, complete) = places.stack(number);
    let frames: Vec<Frame> = addresses.into_iter().map(|address| Frame::from(places.find(address))).collect();
    (!frames.is_empty()).then_some((frames, complete))
}

/// The stacks of each of these sites that hold most, with what they hold.
fn stacks(sites: &mut [Site], by_origin: &[Held], places: &Sites<'_>) {
    let mut held: HashMap<u64, HashMap<u32, Held>> = sites.iter().map(|site| (site.address, HashMap::new())).collect();
    for origin in by_origin.iter().filter(|origin| origin.stack != 0) {
        if let Some(stacks) = held.get_mut(&origin.site) {
            let sum = stacks.entry(origin.stack).or_insert(Held { blocks: 0, bytes: 0, allocations: 0, ..*origin });
            sum.blocks += origin.blocks;
            sum.bytes = sum.bytes.wrapping_add(origin.bytes);
            sum.allocations += origin.allocations;
        }
    }
    for site in sites {
        let mut stacks: Vec<Held> = held.remove(&site.address).unwrap_or_default().into_values().collect();
        stacks.sort_by_key(|held| (Reverse((held.bytes, held.blocks, held.allocations)), held.stack));
        let known = stacks.iter().filter_map(|held| {
            let (frames, complete) = frames(places, held.stack)?;
            let (live_bytes, live_blocks, allocations) = (held.bytes, held.blocks, held.allocations);
            Some(Stack { live_bytes, live_blocks, allocations, complete, frames })
        });
        site.stacks = known.take(STACKS).collect();
    }
}

/// Stacks of a call site.
const STACKS: usize = 3;

/// What one origin holds.
#[derive(Clone, Copy, Default)]
struct Held {
    site: u64,
    stack: u32,
    blocks: u64,
    bytes: u64,
    allocations: u64,
}

/// The sites that hold most, at most `count`; those that hold nothing follow by how much they allocate.
pub(super) fn top(heap: &Heap, places: &Sites<'_>, count: usize) -> Vec<Site> {
    let mut sites: HashMap<u64, Site> = HashMap::new();
    // By origin first: blocks are many, origins few.
    let mut by_origin = Vec::new();
    for (_, origin, totals) in heap.origins() {
        let site = sites.entry(origin.site).or_insert_with(|| Site { address: origin.site, ..Site::default() });
        site.allocations += totals.allocations;
        let (site, stack, allocations) = (origin.site, origin.stack, totals.allocations);
        by_origin.push(Held { site, stack, allocations, ..Held::default() });
    }
    for block in heap.blocks().iter() {
        if let Some(held) = by_origin.get_mut(block.origin.index()) {
            held.blocks += 1;
            held.bytes = held.bytes.wrapping_add(block.size);
        }
    }
    for held in &by_origin {
        if let Some(site) = sites.get_mut(&held.site) {
            site.live_blocks += held.blocks;
            site.live_bytes = site.live_bytes.wrapping_add(held.bytes);
        }
    }
    let mut sites: Vec<Site> = sites.into_values().filter(|site| site.live_blocks + site.allocations > 0).collect();
    sites.sort_by_key(|site| (Reverse((site.live_bytes, site.live_blocks, site.allocations)), site.address));
    sites.truncate(count);
    for site in &mut sites {
        let CallSite { site: text, address: _, module, offset, function, file, line } = places.find(site.address);
        *site = Site { site: text, module, offset, function, file, line, ..std::mem::take(site) };
    }
    stacks(&mut sites, &by_origin, places);
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
        let sites = Sites::with(&snapshots, None);
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
        let named = Sites::with(&mapped, Some(&symbols)).find(address);
        let function = named.function.expect("it has symbols");
        assert!(function.ends_with("a_function_of_this_test"), "{function}");
        assert!(named.site.starts_with(&format!("{function}+0x3 (memfrag")), "{}", named.site);
        let mut replaced = mapped;
        replaced[0].files.iter_mut().for_each(|mapping| mapping.inode += 1);
        assert_eq!(Sites::with(&replaced, Some(&symbols)).find(address).function, None);
    }
}
