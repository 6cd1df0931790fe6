//! Call sites by what they hold, as places in files.

use super::model::Site;
use crate::heap::Heap;
use crate::target::Mapping;
use std::collections::HashMap;

/// The sites that hold most, at most `count`; those that hold nothing follow by how much they allocate.
/// `snapshots` are the mappings that the process has had, oldest first: a library may be gone by now.
pub(super) fn top(heap: &Heap, snapshots: &[Vec<Mapping>], count: usize) -> Vec<Site> {
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
    sites.sort_by_key(|site| (std::cmp::Reverse((site.live_bytes, site.live_blocks, site.allocations)), site.address));
    sites.truncate(count);
    for site in &mut sites {
        if let Some((module, offset)) = locate(snapshots, site.address) {
            site.module = Some(module);
            site.offset = Some(offset);
        }
    }
    sites
}

/// The file and the offset in it that an address meant when it was last mapped.
pub(super) fn locate(snapshots: &[Vec<Mapping>], address: u64) -> Option<(String, u64)> {
    // A return address can lie just behind its function's mapping; the call itself never does.
    let call = address.checked_sub(1)?;
    snapshots.iter().rev().find_map(|mappings| {
        let mapping = mappings.iter().find(|mapping| (mapping.start..mapping.end).contains(&call))?;
        let offset = mapping.offset.wrapping_add(address - mapping.start);
        Some((mapping.path.display().to_string(), offset))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, path: &str) -> Mapping {
        Mapping { start, end: start + 0x1000, offset: 0x2000, path: path.into(), ..Mapping::default() }
    }

    #[test]
    fn the_newest_mapping_of_an_address_counts() {
        let snapshots = [vec![mapping(0x1000, "/old"), mapping(0x9000, "/gone")], vec![mapping(0x1000, "/new")]];
        assert_eq!(locate(&snapshots, 0x1234), Some(("/new".to_owned(), 0x2234)));
        assert_eq!(locate(&snapshots, 0x9010), Some(("/gone".to_owned(), 0x2010)));
        assert_eq!(locate(&snapshots, 0x2000), Some(("/new".to_owned(), 0x3000)), "the call ends with its mapping");
        assert_eq!(locate(&snapshots, 0x1000), None, "so does one before it");
        assert_eq!(locate(&snapshots, 0), None);
    }
}
