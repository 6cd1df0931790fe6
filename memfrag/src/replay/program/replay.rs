//! Makes the allocator calls of a recorded program again: its sizes, its order, its threads.
//!
//!     replay [--touch sampled|all|none] [--pace fast|FACTOR] [--trim] replay.data
//!
//! The calls go to Rust's global allocator, which is the system's unless the marked lines below say otherwise. What
//! the replay keeps for itself lies in mappings of its own, made and filled before the first call. A thread waits for
//! another one only where the data says so. The result is one JSON document.
//!
//! `--touch sampled` writes to as many pages of a block as were seen resident when it was recorded (the default),
//! `all` to every page, `none` to no page. `--pace fast` makes the calls as fast as possible (the default), a factor in
//! the recorded time: 1 as it was, 4 four times as fast. `--trim` calls malloc_trim(0) at the end, where there is one,
//! and reads the memory again.
//!
//! Exit status: 0 when all calls were made, 1 for a wrong command line or file, 2 when memory ran out.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::ffi::c_char;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::process::exit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Mutex, OnceLock};
use std::thread::{Builder, JoinHandle, sleep, yield_now};
use std::time::{Duration, Instant};

// Another allocator, from a crate of your choice:
//
//     #[global_allocator]
//     static GLOBAL: allocator::Allocator = allocator::Allocator;

const VERSION: u32 = 2;
const HEADER: u64 = 96;
const CHUNK_HEADER: u64 = 16;
const PAGE: u64 = 4096;
const MEASURE_EVERY: u64 = 4096;
/// How much of the data behind a place is let go of at most.
const BEHIND: u64 = 256 << 10;
const NOT_TRIMMED: u64 = u64::MAX;

unsafe extern "C" {
    fn mmap(at: *mut u8, bytes: usize, access: i32, flags: i32, file: i32, offset: i64) -> *mut u8;
    fn madvise(at: *const u8, bytes: usize, advice: i32) -> i32;
    fn dlsym(library: *mut u8, name: *const c_char) -> *mut u8;
}

/// Resident bytes by kind of mapping, in the order of [`KINDS`].
type Sums = [u64; 5];
const KINDS: [&str; 5] = ["heap", "anonymous", "stack", "file", "other"];
const HEAP: usize = 0;
const ANONYMOUS: usize = 1;
const STACK: usize = 2;
const FILES: usize = 3;
const OTHER: usize = 4;

/// What is in a slot, all zero when it is empty. Its block is freed as it was asked for.
#[derive(Clone, Copy)]
struct Slot {
    block: *mut u8,
    size: usize,
    align: usize,
}

impl Slot {
    const EMPTY: Self = Self { block: null_mut(), size: 0, align: 0 };

    fn layout(self) -> Option<Layout> {
        if self.block.is_null() { None } else { Layout::from_size_align(self.size, self.align).ok() }
    }
}

/// A measure, taken by one thread and read when all have ended.
#[derive(Clone, Copy)]
struct Measure {
    bytes: u64,
    faults: u64,
    nanoseconds: u64,
    taken: bool,
}

struct Thread {
    done: AtomicU64,
    calls: AtomicU64,
    /// 0 before it starts, 1 while its handle is there or taken, 2 when it was joined.
    state: AtomicU32,
    handle: Mutex<Option<JoinHandle<()>>>,
}

#[derive(PartialEq)]
enum Policy {
    Nothing,
    Sampled,
    All,
}

struct Replay {
    data: &'static [u8],
    slots: *mut Slot,
    slot_count: u64,
    measures: *mut Measure,
    reading_count: u64,
    threads: Vec<Thread>,
    threads_at: u64,
    policy: Policy,
    pace: f64,
    begun: Instant,
    base: AtomicU64,
    peak: AtomicU64,
    failed: AtomicU64,
    statm: File,
    stat: File,
    last: Mutex<Option<Measure>>,
    trim: bool,
    trimmed: AtomicU64,
    /// Bytes of the replay's own tables.
    own: u64,
    /// At the last reading, or at the end; and after trimming.
    kinds: [Mutex<Sums>; 2],
}

// SAFETY: the data's waits order all that threads do with one slot or one measure.
unsafe impl Sync for Replay {}
// SAFETY: as above; the tables are never unmapped.
unsafe impl Send for Replay {}

static REPLAY: OnceLock<Replay> = OnceLock::new();

fn die(status: i32, what: &str) -> ! {
    eprintln!("replay: {what}");
    exit(status)
}

fn damaged(what: &str) -> ! {
    die(1, &format!("the data is damaged: {what}"))
}

fn u32_at(data: &[u8], at: u64) -> u32 {
    let bytes = data.get(at as usize..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(*bytes.unwrap_or_else(|| damaged("it ends too early")))
}

fn u64_at(data: &[u8], at: u64) -> u64 {
    u64::from(u32_at(data, at + 4)) << 32 | u64::from(u32_at(data, at))
}

/// Memory outside the allocator: of a file, or zeroed and resident from now on.
fn map(bytes: u64, file: Option<&File>) -> *mut u8 {
    let (access, flags) = if file.is_some() { (1, 2) } else { (3, 2 | 0x20 | 0x8000) };
    // SAFETY: a new mapping, whose address the kernel chooses.
    let at = unsafe {
        let descriptor = file.map_or(-1, |file| file.as_raw_fd());
        mmap(null_mut(), bytes as usize + 1, access, flags, descriptor, 0)
    };
    if at as isize == -1 {
        die(2, "no memory for the replay's own tables");
    }
    at
}

/// The words of a small file of the kernel, without allocating.
fn words(file: &File, text: &mut [u8; 1024]) -> usize {
    file.read_at(text, 0).unwrap_or(0)
}

fn word(text: &[u8], number: usize) -> u64 {
    let word = text.split(|&byte| byte == b' ').nth(number).unwrap_or(&[]);
    word.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'))
}

/// The kind of a mapping by its access and name in smaps.
fn kind_of(access: &[u8], name: &[u8]) -> usize {
    let begins = |names: &[&str]| names.iter().any(|start| name.starts_with(start.as_bytes()));
    if name == b"[heap]" {
        HEAP
    } else if begins(&["[stack"]) {
        STACK
    } else if begins(&["/memfd:", "/SYSV", "/dev/zero"]) {
        OTHER
    } else if begins(&["/"]) {
        FILES
    } else if access.get(1) == Some(&b'w') && access.get(3) == Some(&b'p') && (name.is_empty() || begins(&["[anon:"])) {
        ANONYMOUS
    } else {
        OTHER
    }
}

fn decimal(text: &[u8]) -> u64 {
    text.iter().filter(|byte| byte.is_ascii_digit()).fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0'))
}

/// Takes a line of smaps: the head of a mapping, or how much of it is resident.
fn smaps_line(line: &[u8], data: usize, kind: &mut Option<usize>, sums: &mut Sums) {
    let dash = line.iter().position(|&byte| byte == b'-');
    let start = dash.and_then(|dash| str::from_utf8(&line[..dash]).ok());
    if let Some(start) = start.and_then(|start| usize::from_str_radix(start, 16).ok()) {
        // Addresses, access, offset, device and inode stand before the name.
        let mut rest = line;
        let mut access: &[u8] = &[];
        for number in 0..5 {
            rest = rest.trim_ascii_start();
            let word = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
            if number == 1 {
                access = &rest[..word];
            }
            rest = &rest[word..];
        }
        // The data are no part of what is measured.
        *kind = (start != data).then(|| kind_of(access, rest.trim_ascii_start()));
    } else if let (Some(kind), Some(size)) = (*kind, line.strip_prefix(b"Rss:")) {
        sums[kind] += decimal(size) * 1024;
    }
}

/// What malloc_trim is, where there is one: it is glibc's alone.
fn malloc_trim() -> Option<unsafe extern "C" fn(usize) -> i32> {
    // SAFETY: the name is a C string, and without a library it is looked for in all of them.
    let found = unsafe { dlsym(null_mut(), c"malloc_trim".as_ptr()) };
    // SAFETY: a function of this name has this type.
    (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut u8, unsafe extern "C" fn(usize) -> i32>(found) })
}

/// Where a thread's steps are read.
struct Reader {
    at: u64,
    end: u64,
    next: u64,
}

impl Replay {
    /// Resident bytes that are no file's.
    fn anonymous(&self) -> u64 {
        let mut text = [0; 1024];
        let length = words(&self.statm, &mut text);
        word(&text[..length], 1).saturating_sub(word(&text[..length], 2)) * PAGE
    }

    /// Anonymous memory beyond that of the replay itself, which also raises the peak.
    fn growth(&self) -> u64 {
        let now = self.anonymous().saturating_sub(self.base.load(Relaxed));
        self.peak.fetch_max(now, Relaxed);
        now
    }

    fn measure(&self) -> Measure {
        let mut text = [0; 1024];
        let length = words(&self.stat, &mut text);
        // The second word is the program's name, which has no blank in it: this program's.
        let faults = word(&text[..length], 9);
        Measure { bytes: self.growth(), faults, nanoseconds: self.begun.elapsed().as_nanos() as u64, taken: true }
    }

    /// Resident bytes by kind of mapping, without those of the replay's own tables. It allocates nothing.
    fn read_kinds(&self, which: usize) {
        let (mut text, mut filled, mut kind, mut sums) = ([0; 8192], 0, None, [0; 5]);
        let Ok(mut file) = File::open("/proc/self/smaps") else { return };
        while let Ok(got @ 1..) = file.read(&mut text[filled..]) {
            filled += got;
            let mut at = 0;
            while let Some(length) = text[at..filled].iter().position(|&byte| byte == b'\n') {
                smaps_line(&text[at..at + length], self.data.as_ptr().addr(), &mut kind, &mut sums);
                at += length + 1;
            }
            text.copy_within(at..filled, 0);
            filled -= at;
            // A line that is longer than all of this is no line of smaps.
            if filled == text.len() {
                filled = 0;
            }
        }
        sums[ANONYMOUS] = sums[ANONYMOUS].saturating_sub(self.own);
        if let Ok(mut kinds) = self.kinds[which].lock() {
            *kinds = sums;
        }
    }

    /// All that was recorded is done, and no thread has ended that had not ended then.
    fn end(&self) {
        if let Ok(mut last) = self.last.lock() {
            *last = Some(self.measure());
        }
        if self.reading_count == 0 {
            self.read_kinds(0);
        }
        if let Some(trim) = malloc_trim().filter(|_| self.trim) {
            // SAFETY: it may be called at any time.
            unsafe { trim(0) };
            self.trimmed.store(self.growth(), Relaxed);
            self.read_kinds(1);
        }
    }

    /// Writes to at most so many pages of a block, from its beginning.
    fn touch(&self, block: *mut u8, size: u64, pages: u64) {
        let pages = match self.policy {
            Policy::Nothing => return,
            Policy::Sampled => pages,
            Policy::All => u64::MAX,
        };
        for at in (0..size).step_by(PAGE as usize).take(usize::try_from(pages).unwrap_or(usize::MAX)) {
            // SAFETY: it lies within the block.
            unsafe { block.add(at as usize).write_volatile(1) };
        }
        if size > 0 && pages > (size - 1) / PAGE {
            // SAFETY: its last byte.
            unsafe { block.add(size as usize - 1).write_volatile(1) };
        }
    }

    /// Goes to the chunk at `offset`; `None` when there is none.
    fn enter(&self, thread: usize, offset: u64) -> Option<Reader> {
        let length = self.data.len() as u64;
        if offset == 0 {
            return None;
        }
        if offset < HEADER || offset > length - CHUNK_HEADER || u32_at(self.data, offset + 4) as usize != thread {
            damaged("no chunk where one should be");
        }
        let at = offset + CHUNK_HEADER;
        let reader = Reader { at, end: at + u64::from(u32_at(self.data, offset)), next: u64_at(self.data, offset + 8) };
        if reader.end > length || (reader.next != 0 && reader.next < reader.end) {
            damaged("a chunk of impossible length");
        }
        Some(reader)
    }

    /// Lets go of the data behind a chunk that was gone through: they are the file's and come back if another thread
    /// needs them. The kernel maps pages around the one that is read, so some of those before are let go of again.
    fn leave(&self, end: u64) {
        let (from, to) = (end.saturating_sub(BEHIND) / PAGE * PAGE, end / PAGE * PAGE);
        // SAFETY: whole pages of the file's private mapping, which is never written to: what they hold stays the same.
        unsafe { madvise(self.data.as_ptr().add(from as usize), (to - from) as usize, 4) };
    }

    fn number(&self, reader: &mut Reader) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            if reader.at >= reader.end {
                break;
            }
            let byte = self.data[reader.at as usize];
            reader.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        damaged("a number without an end")
    }

    fn below(&self, reader: &mut Reader, bound: u64) -> usize {
        let value = self.number(reader);
        if value >= bound {
            damaged("no such slot, thread or reading");
        }
        value as usize
    }

    /// Waits until a thread that was started, or will be, has ended.
    fn join(&self, thread: usize) {
        let thread = &self.threads[thread];
        wait_until(|| thread.state.load(Acquire) != 0);
        let handle = thread.handle.lock().ok().and_then(|mut handle| handle.take());
        if let Some(handle) = handle {
            let _ = handle.join();
            thread.state.store(2, Release);
        }
        wait_until(|| thread.state.load(Acquire) == 2);
    }

    fn spawn(&'static self, number: usize) {
        let thread = &self.threads[number];
        if number == 0 || thread.state.load(Acquire) != 0 {
            damaged("a thread that starts twice");
        }
        let started = Builder::new().stack_size(128 << 10).spawn(move || self.run(number));
        let Ok(handle) = started else { die(2, "cannot start a thread") };
        if let Ok(mut place) = thread.handle.lock() {
            *place = Some(handle);
        }
        thread.state.store(1, Release);
    }

    /// Makes a call: step 1 to 5 of the format.
    fn call(&self, step: u8, reader: &mut Reader, pages: u64) {
        let number = self.below(reader, self.slot_count);
        // SAFETY: within the table, and nobody else's now.
        let slot = unsafe { &mut *self.slots.add(number) };
        let size = if step == 5 { 0 } else { self.number(reader) };
        let align = if step == 3 { 1 << (self.number(reader) & 62) } else { 16 };
        // The allocator is never asked for nothing.
        let wanted = Layout::from_size_align(size.max(1) as usize, align as usize);
        let (old, had) = (slot.block, slot.layout());
        if step == 5 {
            if let Some(layout) = had {
                // SAFETY: allocated with this layout, and not freed since.
                unsafe { dealloc(old, layout) };
            }
            *slot = Slot::EMPTY;
            return;
        }
        let (block, layout) = match (wanted, step, had) {
            // SAFETY: the block is there, and the size is neither zero nor too large for the alignment.
            (Ok(new), 4, Some(layout)) if Layout::from_size_align(new.size(), layout.align()).is_ok() => unsafe {
                let layout_now = Layout::from_size_align_unchecked(new.size(), layout.align());
                (realloc(old, layout, new.size()), layout_now)
            },
            // SAFETY: the size is not zero.
            (Ok(layout), 2, _) => (unsafe { alloc_zeroed(layout) }, layout),
            // SAFETY: the size is not zero.
            (Ok(layout), ..) => (unsafe { alloc(layout) }, layout),
            (Err(_), ..) => (null_mut(), Layout::new::<u8>()),
        };
        if block.is_null() {
            self.failed.fetch_add(1, Relaxed);
            // A block that could not be resized is as it was.
            if step != 4 {
                *slot = Slot::EMPTY;
            }
            return;
        }
        self.touch(block, size, pages);
        *slot = Slot { block, size: layout.size(), align: layout.align() };
    }

    fn run(&'static self, own: usize) {
        let (threads, mut calls, mut done, mut pages) = (self.threads.len() as u64, 0_u64, 0_u64, u64::MAX);
        let mut reading = self.enter(own, u64_at(self.data, self.threads_at + 8 * own as u64));
        while let Some(reader) = &mut reading {
            if reader.at >= reader.end {
                self.leave(reader.end);
                reading = self.enter(own, reader.next);
                continue;
            }
            let step = self.data[reader.at as usize];
            reader.at += 1;
            match step {
                1..=5 => {
                    self.call(step, reader, pages);
                    pages = u64::MAX;
                    calls += 1;
                    if calls.is_multiple_of(MEASURE_EVERY) {
                        self.growth();
                    }
                }
                6 => self.spawn(self.below(reader, threads)),
                7 | 8 => {
                    let other = self.below(reader, threads);
                    if other == own || (step == 7 && other == 0) {
                        damaged("a thread that waits for itself");
                    }
                    if step == 7 {
                        self.join(other);
                    } else {
                        let wanted = self.number(reader);
                        wait_until(|| self.threads[other].done.load(Acquire) >= wanted);
                    }
                }
                9 => {
                    let number = self.below(reader, self.reading_count);
                    // SAFETY: within the table, and one thread's alone.
                    unsafe { *self.measures.add(number) = self.measure() };
                    // To be compared with the recorded program as it was seen last.
                    if number as u64 + 1 == self.reading_count {
                        self.read_kinds(0);
                    }
                }
                10 => pages = self.number(reader),
                11 => {
                    let moment = self.number(reader) as f64 / 1e6 / self.pace;
                    if self.pace > 0.0 && moment.is_finite() && moment < 1e9 {
                        sleep(Duration::from_secs_f64(moment).saturating_sub(self.begun.elapsed()));
                    }
                }
                12 => self.end(),
                _ => damaged("no such step"),
            }
            if matches!(step, 1..=5 | 9 | 12) {
                done += 1;
                self.threads[own].done.store(done, Release);
            }
        }
        self.threads[own].calls.store(calls, Relaxed);
    }

    fn report(&self, planned: u64) {
        let made: u64 = self.threads.iter().map(|thread| thread.calls.load(Relaxed)).sum();
        let last = || self.last.lock().ok().and_then(|last| *last);
        let last = last().or_else(|| {
            self.end();
            last()
        });
        let Some(last) = last else { die(1, "the memory at the end is not known") };
        let mut text = format!(
            "{{\"calls\": {made}, \"planned_calls\": {planned}, \"failed_calls\": {}, \"nanoseconds\": {}, \
             \"peak_bytes\": {}, \"final_bytes\": {}, \"minor_faults\": {}",
            self.failed.load(Relaxed),
            last.nanoseconds,
            self.peak.load(Relaxed),
            last.bytes,
            last.faults
        );
        let mut report_kinds = |name: &str, which: usize| {
            let sums = self.kinds[which].lock().map_or([0; 5], |sums| *sums);
            let sums: Vec<String> = KINDS.iter().zip(sums).map(|(kind, sum)| format!("\"{kind}\": {sum}")).collect();
            text += &format!(",\n \"{name}\": {{{}}}", sums.join(", "));
        };
        report_kinds("mappings", 0);
        let trimmed = self.trimmed.load(Relaxed);
        if trimmed != NOT_TRIMMED {
            report_kinds("trimmed_mappings", 1);
            text += &format!(",\n \"trimmed_bytes\": {trimmed}");
        }
        text += ",\n \"points\": [";
        let mut comma = "";
        for number in 0..self.reading_count {
            // SAFETY: within the table; all threads have ended.
            let it = unsafe { *self.measures.add(number as usize) };
            if it.taken {
                text += &format!(
                    "{comma}\n  {{\"reading\": {number}, \"bytes\": {}, \"minor_faults\": {}, \"nanoseconds\": {}}}",
                    it.bytes, it.faults, it.nanoseconds
                );
                comma = ",";
            }
        }
        text += "]}\n";
        if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
            die(1, &format!("cannot write the results: {error}"));
        }
    }
}

/// Lets others go on until something holds; longer, the more often it did not.
fn wait_until(holds: impl Fn() -> bool) {
    let mut turn = 0;
    while !holds() {
        turn += 1;
        if turn < 1000 { yield_now() } else { sleep(Duration::from_micros(20)) }
    }
}

/// Checks what the header says, and maps the file.
fn open(path: &str) -> &'static [u8] {
    let fail = |error| die(1, &format!("{error}: {path}"));
    let file = File::open(path).unwrap_or_else(fail);
    let length = file.metadata().map(|about| about.len()).unwrap_or_else(|error| die(1, &format!("{error}: {path}")));
    if length < HEADER {
        die(1, &format!("this is no data of a replay: {path}"));
    }
    // SAFETY: mapped for ever, privately; the file is not to be changed while it is replayed.
    let data = unsafe { std::slice::from_raw_parts(map(length - 1, Some(&file)), length as usize) };
    if &data[..8] != b"MFREPLAY" {
        die(1, &format!("this is no data of a replay, or it was not finished: {path}"));
    }
    if u32_at(data, 8) != VERSION {
        die(1, &format!("this data has a version that this replay does not know: {path}"));
    }
    if u64_at(data, 48) != length {
        die(1, &format!("the data is cut short or has grown: {path}"));
    }
    let fits = |at: u64, count: u32, bytes: u64| at >= HEADER && at <= length && (length - at) / bytes >= count.into();
    let (threads, readings) = (u32_at(data, 12), u32_at(data, 20));
    if threads == 0 || !fits(u64_at(data, 32), threads, 8) || !fits(u64_at(data, 40), readings, 24) {
        damaged("its tables do not fit in it");
    }
    data
}

fn main() {
    const USAGE: &str = "usage: replay [--touch sampled|all|none] [--pace fast|FACTOR] [--trim] replay.data";
    let (mut path, mut policy, mut pace, mut trim) = (None, Policy::Sampled, 0.0, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--touch" => match arguments.next().as_deref() {
                Some("sampled") => policy = Policy::Sampled,
                Some("all") => policy = Policy::All,
                Some("none") => policy = Policy::Nothing,
                _ => die(1, "--touch is sampled, all or none"),
            },
            "--pace" => match arguments.next().as_deref() {
                Some("fast") => pace = 0.0,
                factor => match factor.and_then(|factor| factor.parse::<f64>().ok()) {
                    Some(factor) if factor > 0.0 && factor <= 1e6 => pace = factor,
                    _ => die(1, "--pace is fast, or a factor greater than 0"),
                },
            },
            "--trim" => trim = true,
            _ => path = Some(argument),
        }
    }
    let data = open(&path.unwrap_or_else(|| die(1, USAGE)));
    let (threads, slots, readings) = (u32_at(data, 12), u32_at(data, 16), u32_at(data, 20));
    let (slot_bytes, measure_bytes) =
        (u64::from(slots) * size_of::<Slot>() as u64, u64::from(readings) * size_of::<Measure>() as u64);
    let kernel = |path: &str| File::open(path).unwrap_or_else(|error| die(1, &format!("cannot read {path}: {error}")));
    let thread = |_| Thread {
        done: AtomicU64::new(0),
        calls: AtomicU64::new(0),
        state: AtomicU32::new(0),
        handle: Mutex::new(None),
    };
    let replay = REPLAY.get_or_init(|| Replay {
        data,
        slots: map(slot_bytes, None).cast(),
        slot_count: slots.into(),
        measures: map(measure_bytes, None).cast(),
        reading_count: readings.into(),
        threads: (0..threads).map(thread).collect(),
        threads_at: u64_at(data, 32),
        policy,
        pace,
        begun: Instant::now(),
        base: AtomicU64::new(0),
        peak: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        statm: kernel("/proc/self/statm"),
        stat: kernel("/proc/self/stat"),
        last: Mutex::new(None),
        trim,
        trimmed: AtomicU64::new(NOT_TRIMMED),
        own: (slot_bytes + 1).next_multiple_of(PAGE) + (measure_bytes + 1).next_multiple_of(PAGE),
        kinds: [Mutex::new([0; 5]), Mutex::new([0; 5])],
    });
    replay.base.store(replay.anonymous(), Relaxed);
    replay.run(0);
    (1..replay.threads.len()).filter(|&at| replay.threads[at].state.load(Acquire) != 0).for_each(|at| replay.join(at));
    replay.report(u64_at(data, 24));
    exit(if replay.failed.load(Relaxed) > 0 { 2 } else { 0 });
}
