//! Which pages of a process are in memory.
//!
//! Reading takes some 5 ms for a gigabyte: the kernel walks the page tables and tells runs of pages, where it knows
//! the request for that (Linux 6.7); else it tells every page by itself, which takes ten times as long.

mod pagemap;
mod scan;

use super::maps::MapLine;
use super::process::{self, ProcessError, Stat};
use memfrag_common::session::{SHADOW_BYTES, daemon_of};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a page.
pub const PAGE: u64 = 4096;

/// What a region of address space is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RegionKind {
    /// The brk heap.
    Heap = 1,
    /// Private anonymous memory that can be written: arenas, mapped chunks, other allocators, buffers.
    Anonymous = 2,
    /// A stack.
    Stack = 3,
    /// A file, its private pages included.
    File = 4,
    /// Shared memory without a file, and everything else.
    Other = 5,
    /// Of memfrag itself: the preload library, the rings that it writes, and its shadow of the heap.
    Memfrag = 6,
}

impl RegionKind {
    /// The kind with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Heap,
            2 => Self::Anonymous,
            3 => Self::Stack,
            4 => Self::File,
            5 => Self::Other,
            6 => Self::Memfrag,
            _ => return None,
        })
    }

    /// What the mapping of this line is.
    fn of(line: &MapLine) -> Self {
        let name = line.path.as_os_str().as_bytes();
        let is_shadow = || line.shared && line.end - line.start == SHADOW_BYTES as u64;
        match name {
            b"[heap]" => Self::Heap,
            b"[stack]" => Self::Stack,
            _ if name.starts_with(b"/dev/zero") && is_shadow() => Self::Memfrag,
            _ if [&b"/memfd:"[..], b"/SYSV", b"/dev/zero", b"/anon_hugepage"].iter().any(|x| name.starts_with(x)) => {
                Self::Other
            }
            _ if line.is_file() && is_of_session(&line.path) => Self::Memfrag,
            _ if line.is_file() => Self::File,
            b"" if line.writable && !line.shared => Self::Anonymous,
            _ if name.starts_with(b"[anon:") && line.writable && !line.shared => Self::Anonymous,
            _ => Self::Other,
        }
    }

    /// Whether an allocator may keep its blocks there, so that it matters which pages are resident.
    pub const fn may_hold_blocks(self) -> bool {
        matches!(self, Self::Heap | Self::Anonymous)
    }
}

/// Whether the file lies in the directory of a session of the preload backend.
fn is_of_session(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_str().and_then(daemon_of).is_some())
}

/// One mapping of a process, and what of it is resident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its addresses.
    pub range: Range<u64>,
    /// What it is.
    pub kind: RegionKind,
    /// Bytes of it that are resident.
    pub resident_bytes: u64,
    /// Bytes of it that are swapped out.
    pub swapped_bytes: u64,
    /// The resident pages as runs of addresses, upwards, none touching the next; kept where the region
    /// [may hold blocks](RegionKind::may_hold_blocks), else empty.
    pub resident: Vec<Range<u64>>,
}

/// Which pages of a process were in memory at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// Nanoseconds since the trace began.
    pub time: u64,
    /// Process id.
    pub pid: u32,
    /// All mappings, by address.
    pub regions: Vec<Region>,
}

/// A run of pages that are all present, or all swapped out.
struct Run {
    range: Range<u64>,
    present: bool,
}

/// How the kernel is asked for a process's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By the `PAGEMAP_SCAN` request; needs Linux 6.7.
    Scan,
    /// By reading `/proc/PID/pagemap` and `/proc/PID/smaps`, which any Linux has.
    Words,
}

impl Residency {
    /// Reads which pages of a process are in memory, as of `time`, by the best method that the kernel has.
    ///
    /// While the process is stopped, the resident bytes of each region are exactly what `/proc/PID/smaps` calls `Rss`:
    /// neither the shared page of zeroes nor huge pages of the reserve count. Of a running process the regions
    /// are those of the beginning, the pages those of a moment later. Swapped pages are those of private memory; the
    /// scan does not see the ones of shared memory.
    ///
    /// # Errors
    /// [`ProcessError::NotFound`], [`ProcessError::NotPermitted`] (it needs the right to trace the process), or
    /// [`ProcessError::Exited`] when there is no memory any more.
    pub fn read(pid: u32, time: u64) -> Result<Self, ProcessError> {
        match Self::read_by(Method::Scan, pid, time) {
            Err(ProcessError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOTTY) => {
                Self::read_by(Method::Words, pid, time)
            }
            result => result,
        }
    }

    /// As [`Residency::read`], by one certain method.
    ///
    /// # Errors
    /// As [`Residency::read`]; [`ProcessError::Io`] where the kernel does not have the method.
    pub fn read_by(method: Method, pid: u32, time: u64) -> Result<Self, ProcessError> {
        const WHAT: &str = "the page tables";
        let path = PathBuf::from(format!("/proc/{pid}/pagemap"));
        let pagemap = File::open(&path).map_err(|source| process::failed(pid, WHAT, source))?;
        let failed = |source| process::failed(pid, WHAT, source);
        let regions = match method {
            Method::Scan => by_scan(&pagemap, &process::map(pid)?).map_err(failed)?,
            Method::Words => {
                let text = std::fs::read(path.with_file_name("smaps")).map_err(failed)?;
                by_words(&pagemap, &pagemap::sums(&text)).map_err(failed)?
            }
        };
        if regions.is_empty() {
            // Its memory has gone before its id.
            Stat::read(pid)?;
            return Err(ProcessError::Exited { pid });
        }
        Ok(Self { time, pid, regions })
    }

    /// Resident bytes of all regions.
    pub fn resident_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.resident_bytes).sum()
    }

    /// The region that holds an address.
    pub fn region(&self, address: u64) -> Option<&Region> {
        let at = self.regions.partition_point(|region| region.range.end <= address);
        self.regions.get(at).filter(|region| region.range.contains(&address))
    }

    /// The runs of resident pages of all regions that may hold blocks, upwards.
    pub fn runs(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.regions.iter().flat_map(|region| region.resident.iter().cloned())
    }
}

/// The parts of some ranges of a process's private memory whose pages are in memory or swapped out. All else there
/// holds zeros, or what a file says.
///
/// # Errors
/// As [`Residency::read`].
pub fn populated(pid: u32, ranges: &[Range<u64>]) -> Result<Vec<Range<u64>>, ProcessError> {
    let failed = |source| process::failed(pid, "the page tables", source);
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).map_err(failed)?;
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut push = |run: Range<u64>| match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    };
    for range in ranges {
        match scan::scan(&pagemap, range.clone(), |run| push(run.range)) {
            Err(source) if source.raw_os_error() == Some(libc::ENOTTY) => {
                pagemap::read_populated(&pagemap, range.clone(), &mut push).map_err(failed)?;
            }
            result => result.map_err(failed)?,
        }
    }
    Ok(runs)
}

/// The mappings that page tables know of: the page of old system calls lies above all of them.
const HIGHEST: u64 = 1 << 63;

impl Region {
    fn new(line: &MapLine) -> Self {
        Self {
            range: line.start..line.end,
            kind: RegionKind::of(line),
            resident_bytes: 0,
            swapped_bytes: 0,
            resident: Vec::new(),
        }
    }

    /// Joins a run of present pages to the runs.
    fn push(&mut self, run: Range<u64>) {
        match self.resident.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => self.resident.push(run),
        }
    }
}

fn by_scan(pagemap: &File, map: &[MapLine]) -> io::Result<Vec<Region>> {
    let mut regions: Vec<Region> = map.iter().map(Region::new).collect();
    // Huge pages of the machine's reserve are present, but the kernel counts them apart from all other memory.
    let of_reserve = |line: &MapLine| {
        let name = line.path.as_os_str().as_bytes();
        name.starts_with(b"/anon_hugepage") || name.starts_with(b"/dev/hugepages/")
    };
    let reserved: Vec<bool> = map.iter().map(of_reserve).collect();
    let user = regions.partition_point(|region| region.range.start < HIGHEST);
    let [first, .., last] = &regions[..user] else { return Ok(regions) };
    let mut at = 0;
    scan::scan(pagemap, first.range.start..last.range.end, |run| {
        // A run may go over several mappings, or lie in one that is newer than the list.
        while at < user && regions[at].range.end <= run.range.start {
            at += 1;
        }
        for region in &mut regions[at..user] {
            let part = run.range.start.max(region.range.start)..run.range.end.min(region.range.end);
            if region.range.start >= run.range.end {
                break;
            }
            if run.present {
                region.resident_bytes += part.end - part.start;
                if region.kind.may_hold_blocks() {
                    region.push(part);
                }
            } else {
                region.swapped_bytes += part.end - part.start;
            }
        }
    })?;
    for (region, _) in regions.iter_mut().zip(reserved).filter(|(_, reserved)| *reserved) {
        region.resident_bytes = 0;
    }
    Ok(regions)
}

fn by_words(pagemap: &File, sums: &[pagemap::Sums]) -> io::Result<Vec<Region>> {
    let mut regions = Vec::with_capacity(sums.len());
    for sum in sums {
        let mut region = Region::new(&sum.line);
        (region.resident_bytes, region.swapped_bytes) = (sum.resident, sum.swapped);
        // A mapping without any page may be a reservation of terabytes.
        if region.kind.may_hold_blocks() && sum.resident > 0 {
            pagemap::read(pagemap, region.range.clone(), sum.resident, |run| region.push(run))?;
        }
        regions.push(region);
    }
    Ok(regions)
}

#[cfg(test)]
mod tests;
