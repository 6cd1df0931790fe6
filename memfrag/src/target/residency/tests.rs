use super::pagemap::{Sums, sums};
use super::*;
use proptest::prelude::*;
use std::process::{Child, Command, Stdio};

/// A process that is stopped, and killed in the end.
struct Stopped(Child);

impl Stopped {
    /// Starts the command, which stops itself.
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn().expect("the command is there");
        let stopped = Self(child);
        while Stat::read(stopped.pid()).expect("it is there").state != b'T' {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        stopped
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Anonymous pages that were only read, blocks, a hole of dropped pages, shared memory, and pages shared with a child.
const SCRIPT: &str = "
import mmap, os, signal
zeroes = mmap.mmap(-1, 64 << 12, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
sum(zeroes[i << 12] for i in range(0, 64, 2))
holes = mmap.mmap(-1, 256 << 12, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for i in range(256): holes[i << 12] = 1
for i in range(0, 256, 3): holes.madvise(mmap.MADV_DONTNEED, i << 12, 1 << 12)
shared = mmap.mmap(-1, 32 << 12)
shared[5 << 12] = 1
huge = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
if hasattr(mmap, 'MADV_HUGEPAGE'):
    huge.madvise(mmap.MADV_HUGEPAGE)
huge[4 << 20] = 1
huge[0]
blocks = [bytes(1000 + i) for i in range(5000)]
os.kill(os.getpid(), signal.SIGSTOP)
";

fn python() -> Stopped {
    Stopped::start(Command::new("python3").args(["-c", SCRIPT]))
}

fn smaps(pid: u32) -> Vec<Sums> {
    sums(&std::fs::read(format!("/proc/{pid}/smaps")).expect("it is stopped"))
}

#[test]
fn a_stopped_process_has_what_the_kernel_sums() {
    let python = python();
    let expected = smaps(python.pid());
    let rollup = std::fs::read(format!("/proc/{}/smaps_rollup", python.pid())).expect("it is stopped");
    let rss = process::field(&rollup, b"Rss:").expect("it has the sum") << 10;
    for method in [Method::Scan, Method::Words] {
        let residency = match Residency::read_by(method, python.pid(), 3) {
            Err(ProcessError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOTTY) => continue,
            other => other.expect("it can be read"),
        };
        assert_eq!((residency.time, residency.pid), (3, python.pid()));
        assert_eq!(residency.resident_bytes(), rss, "{method:?}");
        assert_eq!(residency.regions.len(), expected.len());
        for (region, sum) in residency.regions.iter().zip(&expected) {
            assert_eq!(region.range, sum.line.start..sum.line.end);
            assert_eq!(region.resident_bytes, sum.resident, "{method:?} {:?}", sum.line);
            if region.kind.may_hold_blocks() {
                let pages: u64 = region.resident.iter().map(|run| run.end - run.start).sum();
                assert_eq!(pages, sum.resident, "{method:?} {:?}", sum.line);
            }
            assert!(region.resident.is_sorted_by(|a, b| a.end < b.start), "{method:?} {region:?}");
            assert!(region.resident.iter().all(|run| region.range.start <= run.start && run.end <= region.range.end));
        }
        let heap = residency.regions.iter().find(|region| region.kind == RegionKind::Heap).expect("it has a heap");
        assert_eq!(residency.region(heap.range.start), Some(heap));
        assert!(residency.runs().any(|run| run.start >= heap.range.start && run.end <= heap.range.end));
        assert!(residency.regions.iter().any(|region| region.kind == RegionKind::Stack && region.resident_bytes > 0));
    }
}

#[test]
fn both_methods_agree_page_by_page() {
    let python = python();
    let words = Residency::read_by(Method::Words, python.pid(), 0).expect("any kernel has it");
    let read = Residency::read(python.pid(), 0).expect("it can be read");
    for (read, words) in read.regions.iter().zip(&words.regions) {
        assert_eq!(read, words);
    }
    assert_eq!(read.regions.len(), words.regions.len());
    // The holes of the script: 170 pages in 85 runs, at least.
    let most = words.regions.iter().map(|region| region.resident.len()).max().expect("it has regions");
    assert!(most >= 85, "{most} runs");
}

#[test]
fn what_is_not_there_is_an_error() {
    for method in [Method::Scan, Method::Words] {
        let error = Residency::read_by(method, 1 << 30, 0).expect_err("ids are below 2^22");
        assert!(matches!(error, ProcessError::NotFound { .. }), "{error}");
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().expect("true is installed");
        while !Stat::read(child.id()).expect("nobody has waited for it").has_ended() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let error = Residency::read_by(method, child.id(), 0).expect_err("it has ended");
        assert!(matches!(error, ProcessError::Exited { .. }), "{error}");
        child.wait().expect("it is ours");
    }
}

#[test]
fn regions_are_told_apart() {
    let kind = |text: &str| RegionKind::of(&MapLine::parse(text.as_bytes()).expect("a line of the format"));
    assert_eq!(kind("1000-2000 rw-p 00000000 00:00 0    [heap]"), RegionKind::Heap);
    assert_eq!(kind("1000-2000 rw-p 00000000 00:00 0 "), RegionKind::Anonymous);
    assert_eq!(kind("1000-2000 rw-p 00000000 00:00 0    [anon: glibc: malloc arena]"), RegionKind::Anonymous);
    assert_eq!(kind("1000-2000 ---p 00000000 00:00 0 "), RegionKind::Other);
    assert_eq!(kind("1000-2000 rw-p 00000000 00:00 0    [stack]"), RegionKind::Stack);
    assert_eq!(kind("1000-2000 rw-p 00000000 08:01 7    /usr/lib/libc.so.6"), RegionKind::File);
    let library = "1000-2000 r-xp 00000000 00:1b 7    /dev/shm/memfrag-5096-18eaaf42ba974801/libmemfrag_preload.so";
    assert_eq!(kind(library), RegionKind::Memfrag);
    let ring = "1000-2000 rw-s 00000000 00:1b 7    /tmp/memfrag-5096-18eaaf42ba974801/data/5120-68420dd10557 (deleted)";
    assert_eq!(kind(ring), RegionKind::Memfrag);
    assert_eq!(kind("7f0000000000-7f000101f000 rw-s 00000000 00:01 7    /dev/zero (deleted)"), RegionKind::Memfrag);
    for name in ["memfrag-1.0-a", "memfrag-7", "memfrag-7-x", "xmemfrag-7-a"] {
        assert_eq!(kind(&format!("1000-2000 r-xp 00000000 08:01 7    /opt/{name}/lib.so")), RegionKind::File, "{name}");
    }
    assert_eq!(kind("1000-2000 rw-s 00000000 00:01 7    /memfd:x (deleted)"), RegionKind::Other);
    assert_eq!(kind("1000-2000 rw-s 00000000 00:01 7    /dev/zero (deleted)"), RegionKind::Other);
    assert_eq!(kind("1000-2000 r--p 00000000 00:00 0    [vvar]"), RegionKind::Other);
}

#[test]
fn kinds_have_numbers() {
    for number in 0..=u8::MAX {
        assert!(RegionKind::from_u8(number).is_none_or(|kind| kind as u8 == number));
    }
}

proptest! {
    #[test]
    fn any_smaps_are_read_without_panic(text in "([0-9a-f]{1,3}-[0-9a-f]{1,4} rw-p 0 0:0 0|Rss: [0-9]{1,22} kB|Swap: x|\n){0,40}") {
        for sum in sums(text.as_bytes()) {
            prop_assert!(sum.line.start < sum.line.end);
        }
    }
}

#[test]
fn populated_pages_are_the_resident_ones_where_none_is_swapped() {
    let python = python();
    let residency = Residency::read(python.pid(), 0).expect("it is stopped");
    let regions: Vec<&Region> = residency.regions.iter().filter(|region| region.kind.may_hold_blocks()).collect();
    assert!(regions.iter().all(|region| region.swapped_bytes == 0), "this machine swaps");
    for region in regions {
        let found = populated(python.pid(), std::slice::from_ref(&region.range)).expect("it is stopped");
        assert_eq!(found, region.resident);
        // Plain words cannot tell the page of zeroes from others.
        let mut words = Vec::new();
        let pagemap = File::open(format!("/proc/{}/pagemap", python.pid())).expect("it is stopped");
        pagemap::read_populated(&pagemap, region.range.clone(), |run| words.push(run)).expect("it is stopped");
        let covered = |page: u64| words.iter().any(|run| run.contains(&page));
        assert!(found.iter().all(|run| covered(run.start) && covered(run.end - 1)), "{:?}", region.range);
    }
    assert!(populated(1 << 30, &[]).is_err());
}
