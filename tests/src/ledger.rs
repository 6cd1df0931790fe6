//! The books that `programs/ledger.c` keeps, compared with a recording.
//!
//! The program writes what it called and what it got, thread by thread, without the allocator; the recording must
//! say the same of every call, in the same order, and nothing besides. Calls of libc are told apart by their site.

use crate::oracle::Oracle;
use anyhow::{Context, Result, bail, ensure};
use memfrag_common::{Event, Function, Op};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

const ABANDONED: u8 = 1;
const NO_SIZE: u8 = 2;
const MAYBE_UNSEEN: u8 = 4;
const HEADER: usize = 32;
const ENTRY: usize = 32;

/// A process and one of its threads.
pub type Thread = (u32, u32);

/// One call as the program entered it in its books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What was called.
    pub function: Function,
    flags: u8,
    align_log2: u8,
    /// The block handed in, 0 for none.
    pub input: u64,
    /// The block handed out, 0 for none.
    pub output: u64,
    /// Bytes requested.
    pub size: u64,
}

/// One file of the books: one thread's calls in one program.
#[derive(Clone, Debug)]
pub struct Book {
    /// Whose calls these are.
    pub thread: Thread,
    /// Where the program's own code lay.
    pub text: Range<u64>,
    /// The calls in their order.
    pub entries: Vec<Entry>,
}

/// Reads every file in the directory, in the order in which each thread began them.
pub fn read(dir: &Path) -> Result<Vec<Book>> {
    let mut files = Vec::new();
    for file in std::fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a strange file name")?;
        let numbers: Vec<u32> = name.split('.').map(str::parse).collect::<Result<_, _>>().context(name.to_owned())?;
        files.push((numbers, path));
    }
    files.sort();
    ensure!(!files.is_empty(), "the program wrote no books");
    files.iter().map(|(_, path)| book(&std::fs::read(path)?).with_context(|| format!("{}", path.display()))).collect()
}

fn book(bytes: &[u8]) -> Result<Book> {
    ensure!(bytes.starts_with(b"ledger01") && bytes.len() >= HEADER, "not a book");
    ensure!((bytes.len() - HEADER).is_multiple_of(ENTRY), "the last entry is cut");
    let half = |at: usize| -> Result<u32> { Ok(u32::from_ne_bytes(bytes[at..at + 4].try_into()?)) };
    let word = |at: usize| -> Result<u64> { Ok(u64::from_ne_bytes(bytes[at..at + 8].try_into()?)) };
    let mut entries = Vec::new();
    for at in (HEADER..bytes.len()).step_by(ENTRY) {
        entries.push(Entry {
            function: Function::from_u8(bytes[at]).context("a function without a number")?,
            flags: bytes[at + 1],
            align_log2: bytes[at + 2],
            input: word(at + 8)?,
            output: word(at + 16)?,
            size: word(at + 24)?,
        });
    }
    Ok(Book { thread: (half(8)?, half(12)?), text: word(16)?..word(24)?, entries })
}

/// One call as the recording has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was called, where names that share their code are one.
    pub function: Function,
    align_log2: u8,
    /// The block handed in, 0 for none.
    pub input: u64,
    /// The block handed out, 0 for none.
    pub output: u64,
    /// Bytes requested.
    pub size: u64,
    /// Return address of the call.
    pub site: u64,
    /// A reallocation that began and did not end.
    open: bool,
}

/// Names that share their code, or jump from one to the other, cannot be told apart by every backend.
fn folded(function: Function) -> Function {
    match function.canonical() {
        Function::Reallocarray => Function::Realloc,
        other => other,
    }
}

/// The calls that were made from `text`, thread by thread. Every reallocation's two events become one call.
pub fn calls(events: &[Event], from: impl Fn(u32, u64) -> bool) -> Result<BTreeMap<Thread, Vec<Call>>> {
    let mut threads: BTreeMap<Thread, Vec<Call>> = BTreeMap::new();
    for event in events {
        let call = |function: Function, align_log2, input, output, size, site, open| Call {
            function: folded(function),
            align_log2,
            input,
            output,
            size,
            site,
            open,
        };
        let call = match event.op {
            Op::Alloc { function, align_log2, addr, size, site, .. } => {
                call(function, align_log2, 0, addr, size, site, false)
            }
            Op::Free { function, addr, site, .. } => call(function, 0, addr, 0, 0, site, false),
            Op::ReallocBegin { function, old, size, site } => call(function, 0, old, 0, size, site, true),
            Op::ReallocEnd { function, addr, size, site, .. } => {
                if !from(event.pid, site) {
                    continue;
                }
                let list = threads.entry((event.pid, event.tid)).or_default();
                let Some(begun) = list.last_mut().filter(|call| call.open) else {
                    bail!("{event:x?} ends a reallocation that had not begun");
                };
                ensure!(begun.function == folded(function) && begun.size == size, "{event:x?} ends {begun:x?}");
                begun.open = false;
                begun.output = addr;
                continue;
            }
            _ => continue,
        };
        if from(event.pid, call.site) {
            threads.entry((event.pid, event.tid)).or_default().push(call);
        }
    }
    Ok(threads)
}

/// How a comparison went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Calls that books and recording both have.
    pub calls: usize,
    /// Calls left by a jump, of which the recording may know or not.
    pub abandoned: usize,
    /// Threads.
    pub threads: usize,
}

/// Compares books and recording call by call, and the blocks that are alive at the end.
pub fn compare(books: &[Book], events: &[Event]) -> Result<Agreement> {
    let mut texts: HashMap<u32, Vec<Range<u64>>> = HashMap::new();
    let mut expected: BTreeMap<Thread, Vec<Entry>> = BTreeMap::new();
    for book in books {
        texts.entry(book.thread.0).or_default().push(book.text.clone());
        expected.entry(book.thread).or_default().extend(&book.entries);
    }
    let own = |pid: u32, site: u64| texts.get(&pid).is_some_and(|texts| texts.iter().any(|text| text.contains(&site)));
    let found = calls(events, own)?;
    let mut agreement = Agreement { threads: expected.len(), ..Agreement::default() };
    let mut unbooked = HashSet::new();
    for (thread, entries) in &expected {
        let none = Vec::new();
        let calls = found.get(thread).unwrap_or(&none);
        same_calls(entries, calls, &mut agreement, &mut unbooked)
            .with_context(|| format!("process {}, thread {}", thread.0, thread.1))?;
    }
    if let Some(thread) = found.keys().find(|thread| !expected.contains_key(thread)) {
        bail!("the recording has calls of thread {thread:?}, which kept no books");
    }
    let oracle = Oracle::new(events);
    ensure!(
        oracle.contradictions.is_empty(),
        "{} contradictions, the first ones:\n{}",
        oracle.contradictions.len(),
        oracle.contradictions[..oracle.contradictions.len().min(5)].join("\n")
    );
    same_blocks(books, &oracle, unbooked, own)?;
    Ok(agreement)
}

/// Goes through one thread's calls; blocks that only the recording knows, as the program left the call by a jump, are
/// added to `unbooked`.
fn same_calls(entries: &[Entry], calls: &[Call], agreement: &mut Agreement, unbooked: &mut HashSet<u64>) -> Result<()> {
    let mut next = calls.iter().peekable();
    for (number, entry) in entries.iter().enumerate() {
        if entry.flags & ABANDONED != 0 {
            agreement.abandoned += 1;
            if let Some(call) =
                next.next_if(|call| call.function == folded(entry.function) && inputs_agree(entry, call))
            {
                unbooked.insert(call.output);
            }
            continue;
        }
        if entry.flags & MAYBE_UNSEEN != 0 {
            let seen = |call: &&Call| call.function == folded(entry.function) && inputs_agree(entry, call);
            if let Some(call) = next.next_if(seen) {
                ensure!(call.output == entry.output, "call {number}: {entry:x?} is {call:x?} in the recording");
            }
            continue;
        }
        let Some(call) = next.next() else {
            bail!("the recording ends with {} calls; the books go on with {entry:x?}, call {number}", calls.len());
        };
        let same = call.function == folded(entry.function)
            && inputs_agree(entry, call)
            && call.output == entry.output
            && (entry.output == 0 || call.align_log2 == entry.align_log2)
            && !call.open;
        if !same {
            let before = &entries[number.saturating_sub(3)..number];
            bail!("call {number} is {entry:x?} in the books and {call:x?} in the recording; before it {before:x?}");
        }
        agreement.calls += 1;
    }
    if let Some(call) = next.next() {
        bail!("the books end after {} calls; the recording goes on with {call:x?}", entries.len());
    }
    Ok(())
}

fn inputs_agree(entry: &Entry, call: &Call) -> bool {
    call.input == entry.input && (call.size == entry.size || entry.flags & NO_SIZE != 0)
}

/// The program's own blocks that are alive at the end, by the books and by the recording. For processes that began
/// with an empty heap: what a child has from its parent is in no book of its own.
fn same_blocks(
    books: &[Book],
    oracle: &Oracle,
    mut unsure: HashSet<u64>,
    own: impl Fn(u32, u64) -> bool,
) -> Result<()> {
    let Some(first) = books.iter().find(|book| book.thread.0 == book.thread.1 && is_root_of(books, book)) else {
        bail!("no book of a first thread");
    };
    let pid = first.thread.0;
    // After exec, only the last program's blocks count.
    let last = books.iter().rfind(|book| book.thread == (pid, pid)).context("no book of the first thread")?;
    let mut count: HashMap<u64, i64> = HashMap::new();
    for entry in books.iter().filter(|book| book.thread.0 == pid && book.text == last.text).flat_map(|b| &b.entries) {
        if entry.flags & ABANDONED != 0 {
            unsure.insert(entry.input);
            continue;
        }
        let failed = entry.output == 0 && entry.size != 0 && entry.function != Function::Free;
        if entry.input != 0 && !failed {
            *count.entry(entry.input).or_default() -= 1;
        }
        if entry.output != 0 {
            *count.entry(entry.output).or_default() += 1;
        }
    }
    let heap = oracle.heap(pid).with_context(|| format!("the recording has no process {pid}"))?;
    for (addr, count) in count {
        let alive = heap.get(&addr).is_some_and(|block| own(pid, block.site));
        ensure!(
            unsure.contains(&addr) || i64::from(alive) == count,
            "block {addr:#x} of process {pid}: {count} alive by the books, {alive} by the recording"
        );
    }
    Ok(())
}

/// The process of the book is the one that was started: it has the least number. (Numbers that wrap around while a
/// test runs would make this another one, which has no blocks of its parent's in its books.)
fn is_root_of(books: &[Book], book: &Book) -> bool {
    books.iter().all(|other| other.thread.0 >= book.thread.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Range<u64> = 0x1000..0x2000;

    fn entry(function: Function, input: u64, output: u64, size: u64, flags: u8) -> Entry {
        Entry { function, flags, align_log2: 0, input, output, size }
    }

    fn events(calls: &[(Function, u64, u64, u64)]) -> Vec<Event> {
        let mut events = Vec::new();
        for &(function, input, output, size) in calls {
            let site = 0x1234;
            let mut push = |op| events.push(Event { time: 0, pid: 7, tid: 7, op });
            match function {
                Function::Free => push(Op::Free { function, addr: input, size: 0, site }),
                Function::Realloc => {
                    push(Op::ReallocBegin { function, old: input, size, site });
                    push(Op::ReallocEnd { function, addr: output, size, site, stack: 0 });
                }
                _ => push(Op::Alloc { function, align_log2: 0, addr: output, size, site, stack: 0 }),
            }
        }
        // A call of libc's, which is in no book.
        let op = Op::Alloc { function: Function::Malloc, align_log2: 0, addr: 0x99, size: 1, site: 0x7000, stack: 0 };
        events.push(Event { time: 0, pid: 7, tid: 7, op });
        events
    }

    fn check(entries: &[Entry], calls: &[(Function, u64, u64, u64)]) -> Result<Agreement> {
        compare(&[Book { thread: (7, 7), text: TEXT, entries: entries.to_vec() }], &events(calls))
    }

    #[test]
    fn equal_books_agree() {
        let entries = [
            entry(Function::Malloc, 0, 16, 5, 0),
            entry(Function::Reallocarray, 16, 32, 9, 0),
            entry(Function::Free, 32, 0, 0, 0),
        ];
        let calls = [(Function::Malloc, 0, 16, 5), (Function::Realloc, 16, 32, 9), (Function::Free, 32, 0, 0)];
        assert_eq!(check(&entries, &calls).unwrap(), Agreement { calls: 3, abandoned: 0, threads: 1 });
    }

    #[test]
    fn every_difference_is_found() {
        let entries = [entry(Function::Malloc, 0, 16, 5, 0), entry(Function::Free, 16, 0, 0, 0)];
        for wrong in [
            &[(Function::Malloc, 0, 16, 5)][..],
            &[(Function::Free, 16, 0, 0), (Function::Malloc, 0, 16, 5)],
            &[(Function::Malloc, 0, 16, 6), (Function::Free, 16, 0, 0)],
            &[(Function::Malloc, 0, 32, 5), (Function::Free, 16, 0, 0)],
            &[(Function::Calloc, 0, 16, 5), (Function::Free, 16, 0, 0)],
            &[(Function::Malloc, 0, 16, 5), (Function::Free, 16, 0, 0), (Function::Malloc, 0, 16, 5)],
        ] {
            assert!(check(&entries, wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn calls_left_by_a_jump_may_be_seen_or_not() {
        let entries = [entry(Function::Malloc, 0, 0, 5, ABANDONED), entry(Function::Malloc, 0, 32, 6, 0)];
        check(&entries, &[(Function::Malloc, 0, 16, 5), (Function::Malloc, 0, 32, 6)]).unwrap();
        check(&entries, &[(Function::Malloc, 0, 32, 6)]).unwrap();
        check(&entries, &[(Function::Malloc, 0, 16, 5)]).unwrap_err();
    }
}
