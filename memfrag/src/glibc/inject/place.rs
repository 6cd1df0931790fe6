//! Where a thread stands: provably outside the allocator, or not.
//!
//! While a function of malloc's is at work, its return address lies on the thread's stack, or the thread's next
//! instruction is malloc's. So a thread is outside where neither is so: no word from its stack pointer up to the
//! stack's end is the address behind a call instruction of malloc's. What signal handlers interrupt has no return
//! address, and may lie on another stack: a thread whose stack holds what the kernel puts there for a handler is passed
//! over.
//!
//! Words that earlier calls left behind look like return addresses. Of a thread that waits in a system call, most can
//! be told apart by what the call instruction calls. Were malloc at work, then one of the words, that of its innermost
//! function, would belong to a call out of malloc, and what is called there would be at work now. That cannot be
//! `munmap`, say, which is in no other system call than its own, nor `memset`, which is in none. Words of calls from
//! malloc into malloc are not the innermost. If no other words are found, malloc is not at work. A thread for which
//! neither proof succeeds is passed over.

use super::tracee::Tracee;
use super::x86_64::{self, Registers, Wait};
use crate::target::allocator::Allocator;
use crate::target::elf::{ElfError, Image};
use crate::target::file::MappedFile;
use crate::target::maps::MapLine;
use std::ops::Range;

/// Functions of malloc's own object file, which the linker keeps in one piece.
const MALLOC: [&str; 20] = [
    "__default_morecore",
    "aligned_alloc",
    "calloc",
    "cfree",
    "free",
    "mallinfo",
    "mallinfo2",
    "malloc",
    "malloc_get_state",
    "malloc_info",
    "malloc_set_state",
    "malloc_stats",
    "malloc_trim",
    "malloc_usable_size",
    "mallopt",
    "memalign",
    "posix_memalign",
    "pvalloc",
    "realloc",
    "valloc",
];
/// They hold all of malloc's locks for a while.
const FORK: [&str; 4] = ["fork", "_Fork", "vfork", "__libc_fork"];

/// Functions that malloc calls and that make no system call, or none in which programs wait.
const HARMLESS: [&str; 9] = ["brk", "getrandom", "madvise", "mmap", "mprotect", "mremap", "munmap", "sbrk", "__mmap"];
/// The function in which malloc waits for its locks, and does nothing else.
const LOCK: &str = "__lll_lock_wait_private";

/// The largest stack that is searched.
const STACK_MAX: u64 = 8 << 20;

/// Addresses of a process's code that matter, as they are there.
#[derive(Clone, Debug)]
pub(super) struct Code {
    /// `malloc_trim`.
    pub(super) trim: u64,
    /// `__errno_location`.
    pub(super) errno: u64,
    /// An instruction that traps.
    pub(super) trap: u64,
    /// Where no return address may lead to: malloc's code, and fork's, which holds all of malloc's locks for a while.
    forbidden: Vec<Range<u64>>,
    /// Functions whose being called by malloc means nothing while a thread waits: [`HARMLESS`], and the stubs through
    /// which malloc calls functions that only work on memory.
    harmless: Vec<Range<u64>>,
    /// The same of [`LOCK`], while a thread waits for anything but a lock.
    lock: Vec<Range<u64>>,
    /// The code of the loader, which may be at work on libc itself.
    loader: Vec<Range<u64>>,
    /// All code.
    executable: Vec<Range<u64>>,
    /// Memory that can be written, and so hold stacks.
    writable: Vec<Range<u64>>,
}

/// Why a thread cannot be used where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is in malloc, in fork, or in a system call of theirs.
    InAllocator,
    /// A return address into malloc is on its stack, perhaps an old one.
    AllocatorOnStack,
    /// It handles a signal, or has done so not long ago.
    SignalOnStack,
    /// The loader is at work.
    InLoader,
    /// It is in a sequence that the kernel starts over when it is disturbed.
    InSequence,
    /// Its stack has no room, is not to be found, or is too large to be searched.
    Stack,
    /// It waits in the kernel for something that no signal ends.
    Stuck,
}

impl Unfit {
    /// What the thread does, for a message.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::InAllocator => "is in malloc",
            Self::AllocatorOnStack => "has a return address into malloc on its stack",
            Self::SignalOnStack => "handles a signal",
            Self::InLoader => "is in the loader",
            Self::InSequence => "is in a restartable sequence",
            Self::Stack => "has no room on its stack",
            Self::Stuck => "waits in the kernel and cannot be stopped",
        }
    }
}

impl Code {
    /// Finds the addresses; `None` when the file lacks one of the functions.
    pub(super) fn find(map: &[MapLine], allocator: &Allocator) -> std::io::Result<Option<Self>> {
        let file = MappedFile::open(&allocator.open)?;
        let damaged = |error: ElfError| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        let image = Image::parse(&file).map_err(damaged)?;
        let is_code = |line: &&MapLine| line.executable && line.readable;
        let lines: Vec<&MapLine> = map
            .iter()
            .filter(is_code)
            .filter(|line| line.inode == allocator.inode && line.device == allocator.device)
            .collect();
        let there = |address: u64| {
            let offset = image.file_offset(address)?;
            let line = lines.iter().find(|line| (line.offset..line.offset + (line.end - line.start)).contains(&offset));
            line.map(|line| line.start + (offset - line.offset))
        };
        let functions = image.functions();
        let address = |name: &str| functions.iter().find(|function| function.name == name).map(|found| found.address);
        let trap = image.segments.iter().filter(|segment| segment.executable).find_map(|segment| {
            let code = image.code(segment.address..segment.address.saturating_add(segment.size));
            let at = code.iter().position(|&byte| byte == x86_64::TRAP)?;
            there(segment.address + at as u64)
        });
        let (Some(trim), Some(errno), Some(trap), Some(malloc)) = (
            address("malloc_trim").and_then(there),
            address("__errno_location").and_then(there),
            trap,
            malloc_range(&functions.iter().map(|f| (f.name, f.address, f.size)).collect::<Vec<_>>()),
        ) else {
            return Ok(None);
        };
        let forks = functions.iter().filter(|function| FORK.contains(&function.name));
        let forks = forks.map(|function| function.address..function.address + function.size.max(1));
        let forbidden = std::iter::once(malloc).chain(forks).filter_map(|range| {
            let start = there(range.start)?;
            Some(start..start + (range.end - range.start))
        });
        let named = |wanted: &dyn Fn(&str) -> bool| {
            let found = functions.iter().filter(|function| wanted(function.name));
            let ranges = found.filter_map(|function| {
                let start = there(function.address)?;
                Some(start..start + function.size.max(1))
            });
            ranges.collect::<Vec<_>>()
        };
        let stubs = [".plt", ".plt.sec", ".plt.got"].into_iter().filter_map(|name| {
            let section = image.section_range(name)?;
            let start = there(section.start)?;
            Some(start..start + (section.end - section.start))
        });
        let mut harmless = named(&|name| HARMLESS.contains(&name));
        harmless.extend(stubs);
        let lock = named(&|name| name == LOCK);
        let range = |line: &MapLine| line.start..line.end;
        let is_loader = |line: &&MapLine| {
            line.path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("ld-linux"))
        };
        Ok(Some(Self {
            trim,
            errno,
            trap,
            forbidden: forbidden.collect(),
            harmless,
            lock,
            loader: map.iter().filter(is_code).filter(is_loader).map(range).collect(),
            executable: map.iter().filter(|line| line.executable).map(range).collect(),
            writable: map.iter().filter(|line| line.writable).map(range).collect(),
        }))
    }

    /// Checks that a thread that stands still is outside the allocator, and can be made to call a function.
    pub(super) fn check(&self, tracee: &Tracee, registers: &Registers) -> Result<(), Unfit> {
        let (pc, sp) = (registers.pc(), registers.sp());
        if registers.in_unsafe_call() || within(&self.forbidden, pc) {
            return Err(Unfit::InAllocator);
        }
        if within(&self.loader, pc) {
            return Err(Unfit::InLoader);
        }
        // When a handler has returned, what it returns to is on the stack no more.
        let mut code = [0; 2 * x86_64::SIGNAL_RETURN];
        let around = pc.saturating_sub(x86_64::SIGNAL_RETURN as u64);
        if tracee.read(around, &mut code) == code.len() && x86_64::in_signal_return(&code) {
            return Err(Unfit::SignalOnStack);
        }
        if !registers.in_call() && in_sequence(tracee, pc) {
            return Err(Unfit::InSequence);
        }
        let stack = self.writable.iter().find(|range| range.contains(&sp)).ok_or(Unfit::Stack)?;
        // The first stack grows by itself.
        if sp % 8 != 0 || stack.end - sp > STACK_MAX || sp - stack.start < x86_64::STACK {
            return Err(Unfit::Stack);
        }
        self.search(tracee, sp..stack.end, registers.wait())
    }

    /// Searches a stack for return addresses into the allocator, and for what a signal handler returns to.
    fn search(&self, tracee: &Tracee, stack: Range<u64>, wait: Wait) -> Result<(), Unfit> {
        let mut bytes = vec![0; (stack.end - stack.start) as usize];
        if tracee.read(stack.start, &mut bytes) != bytes.len() {
            return Err(Unfit::Stack);
        }
        for word in bytes.as_chunks().0 {
            let word = u64::from_le_bytes(*word);
            if !within(&self.executable, word) {
                continue;
            }
            let mut code = [0; 8 + x86_64::SIGNAL_RETURN];
            // Code may end there, which leaves zeros.
            if tracee.read(word.saturating_sub(8), &mut code) < 8 {
                continue;
            }
            let [before @ .., _, _, _, _, _, _, _, _, _] = code;
            if x86_64::is_signal_return(&code[8..]) {
                return Err(Unfit::SignalOnStack);
            }
            if within(&self.forbidden, word)
                && x86_64::ends_with_call(before)
                && !self.is_left_behind(x86_64::call_target(before, word), wait)
            {
                return Err(Unfit::AllocatorOnStack);
            }
        }
        Ok(())
    }

    /// Whether the word behind a call of `target` by malloc cannot be the return address of malloc's innermost function
    /// at work, while the thread waits.
    fn is_left_behind(&self, target: Option<u64>, wait: Wait) -> bool {
        let Some(target) = target else { return false };
        let harmless = within(&self.forbidden, target) || within(&self.harmless, target);
        match wait {
            Wait::None => false,
            Wait::Lock => harmless,
            Wait::Event => harmless || within(&self.lock, target),
        }
    }
}

fn within(ranges: &[Range<u64>], address: u64) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}

/// Whether a thread that runs code of its own does so in a restartable sequence (`struct rseq_cs`): the kernel would
/// not see that it was disturbed.
fn in_sequence(tracee: &Tracee, pc: u64) -> bool {
    let area = tracee.sequence_area();
    if area == 0 {
        return false;
    }
    let sequence = tracee.word(area + 8).unwrap_or(0);
    if sequence == 0 {
        return false;
    }
    match (tracee.word(sequence + 8), tracee.word(sequence + 16)) {
        (Some(start), Some(size)) => pc.wrapping_sub(start) < size,
        _ => true,
    }
}

/// From the end of the last function before malloc's to the start of the first one behind them, since the functions
/// that malloc does not show lie beside those that it does. Takes names, addresses and sizes by address.
fn malloc_range(functions: &[(&str, u64, u64)]) -> Option<Range<u64>> {
    let is_malloc =
        |name: &str| MALLOC.contains(&name) || name.strip_prefix("__libc_").is_some_and(|n| MALLOC.contains(&n));
    let first = functions.iter().position(|(name, ..)| is_malloc(name))?;
    let last = functions.iter().rposition(|(name, ..)| is_malloc(name))?;
    // Several names may have one address.
    let (start, end) = (functions[first].1, functions[last].1);
    let before = functions[..first].iter().rev().find(|(_, address, _)| *address < start);
    let behind = functions[last..].iter().find(|(_, address, _)| *address > end);
    let from = before.map_or(start, |(_, address, size)| address.saturating_add(*size).min(start));
    let to = behind.map_or_else(|| end + functions[last].2.max(1), |(_, address, _)| *address);
    Some(from..to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mallocs_code_reaches_from_neighbour_to_neighbour() {
        let functions = [
            ("before", 0x100, 0x20),
            ("__libc_malloc", 0x400, 0x40),
            ("malloc", 0x400, 0x40),
            ("free", 0x500, 0x10),
            ("malloc_info", 0x600, 0x30),
            ("mcheck", 0x680, 0x10),
            ("obstack_free", 0x700, 0x10),
        ];
        assert_eq!(malloc_range(&functions), Some(0x120..0x680));
        assert_eq!(malloc_range(&functions[1..5]), Some(0x400..0x630));
        assert_eq!(malloc_range(&functions[5..]), None);
    }
}
